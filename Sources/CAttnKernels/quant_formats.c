/* Quantised weights as files store them, and in panels. Plain C: packing happens once, and reads each byte once. */
#include <string.h>

#include "kernels.h"
#include "quant.h"
#include "threads.h"

int64_t attn_quant_block(attn_quant format) { return format >= ATTN_Q4_K ? SUPERBLOCK : QUANT_BLOCK; }

int64_t attn_quant_block_bytes(attn_quant format) {
  switch (format) {
    case ATTN_Q4_0: return 18;
    case ATTN_Q4_1: return 20;
    case ATTN_Q8_0: return 34;
    case ATTN_Q4_K: return 144;
    default: return 210;
  }
}

static float half_value(const uint8_t *at) {
  float value;
  attn_load_row(ATTN_F16, at, 1, 1, &value);
  return value;
}

/* Stored blocks:
 *   Q4_0  d, codes[16]: low nibbles 0..15, high nibbles 16..31        Q4_1  d, m, codes[16]        Q8_0  d, codes[32]
 *   Q4_K  d, dmin, scales[12], codes[128]: each 32 bytes hold 32 low nibbles, then the next 32 as high ones
 *   Q6_K  low[128], upper[64], scales[16], d */

/* Scale and min of block i < 8 of a Q4_K block: six bits each, the upper two of the later ones apart. */
static void six_bits(const uint8_t *packed, int i, uint8_t *scale, uint8_t *min) {
  if (i < 4) {
    *scale = packed[i] & 63;
    *min = packed[i + 4] & 63;
  } else {
    *scale = (uint8_t)((packed[i + 4] & 15) | packed[i - 4] >> 6 << 4);
    *min = (uint8_t)(packed[i + 4] >> 4 | packed[i] >> 6 << 4);
  }
}

/* Codes of the 32 neighbours number `block` of a stored row. */
static void stored_codes(attn_quant format, const uint8_t *row, int64_t block, uint8_t codes[QUANT_BLOCK]) {
  const uint8_t *at = row + block * QUANT_BLOCK / attn_quant_block(format) * attn_quant_block_bytes(format);
  const int part = (int)(block % (attn_quant_block(format) / QUANT_BLOCK));
  switch (format) {
    case ATTN_Q8_0:
      for (int i = 0; i < 32; i++) codes[i] = at[2 + i] ^ 128; /* the signed code plus 128 */
      break;
    case ATTN_Q4_K:
      at += 16 + part / 2 * 32;
      for (int i = 0; i < 32; i++) codes[i] = at[i] >> 4 * (part & 1) & 15;
      break;
    case ATTN_Q6_K: {
      const uint8_t *low = at + part / 4 * 64 + part % 2 * 32, *upper = at + 128 + part / 4 * 32;
      for (int i = 0; i < 32; i++)
        codes[i] = (uint8_t)((low[i] >> part % 4 / 2 * 4 & 15) | (upper[i] >> part % 4 * 2 & 3) << 4);
      break;
    }
    default:
      at += format == ATTN_Q4_1 ? 4 : 2;
      for (int i = 0; i < 16; i++) {
        codes[i] = at[i] & 15;
        codes[i + 16] = at[i] >> 4;
      }
  }
}

/* w = d * code + m of each half of a block of 32: one rule for stored and packed rows, so that both give the same bits. */
typedef struct line { float d[2], m[2]; } line;

static line symmetric(float d0, float d1, int32_t offset) {
  return (line){ { d0, d1 }, { -(float)offset * d0, -(float)offset * d1 } };
}

static line stored_line(attn_quant format, const uint8_t *row, int64_t block) {
  const uint8_t *at = row + block * QUANT_BLOCK / attn_quant_block(format) * attn_quant_block_bytes(format);
  const int part = (int)(block % (attn_quant_block(format) / QUANT_BLOCK));
  switch (format) {
    case ATTN_Q4_1: {
      const float d = half_value(at), m = half_value(at + 2);
      return (line){ { d, d }, { m, m } };
    }
    case ATTN_Q4_K: {
      uint8_t scale, min;
      six_bits(at + 4, part, &scale, &min);
      const float d = half_value(at) * scale, m = -(half_value(at + 2) * min);
      return (line){ { d, d }, { m, m } };
    }
    case ATTN_Q6_K: {
      const float d = half_value(at + 208);
      const int8_t *scale = (const int8_t *)at + 192 + 2 * part;
      return symmetric(d * scale[0], d * scale[1], 32);
    }
    default: return symmetric(half_value(at), half_value(at), quant_offset(format));
  }
}

static void decode(attn_quant format, const uint8_t codes[QUANT_BLOCK], line l, float *out) {
  const int32_t offset = quant_offset(format);
  for (int i = 0; i < QUANT_BLOCK; i++)
    out[i] = offset ? l.d[i / 16] * (float)(codes[i] - offset) : l.d[i / 16] * codes[i] + l.m[i / 16];
}

void attn_quant_load_row(attn_quant format, const void *stored, int64_t k, float *out) {
  for (int64_t block = 0; block < k / QUANT_BLOCK; block++) {
    uint8_t codes[QUANT_BLOCK];
    stored_codes(format, stored, block, codes);
    decode(format, codes, stored_line(format, stored, block), out + block * QUANT_BLOCK);
  }
}

/* ---- panels ---- */

size_t attn_quant_packed_size(attn_quant format, int64_t n, int64_t k) {
  return (size_t)((n + PANEL - 1) / PANEL * quant_panel_bytes(format, k));
}

static void pack_codes(attn_quant format, const uint8_t codes[QUANT_BLOCK], int row, uint8_t *to) {
  const int64_t quad = PANEL * 4;
  for (int i = 0; i < QUANT_BLOCK; i++) {
    const int j = i / 4;
    uint8_t *at = to + row * 4 + i % 4;
    if (format == ATTN_Q8_0) {
      at[j * quad] = codes[i];
    } else {
      at[j % 4 * quad] |= (uint8_t)((codes[i] & 15) << j / 4 * 4);
      if (format == ATTN_Q6_K) at[(4 + j / 4) * quad] |= (uint8_t)(codes[i] >> 4 << j % 4 * 2);
    }
  }
}

static void pack_scales(attn_quant format, const uint8_t *row, int64_t k, int lane, uint8_t *to) {
  const uint8_t *at = row;
  for (int64_t b = 0; b < k / attn_quant_block(format); b++, at += attn_quant_block_bytes(format)) {
    memcpy(to + 2 * lane, format == ATTN_Q6_K ? at + 208 : at, 2);
    to += 2 * PANEL;
    if (format == ATTN_Q4_1 || format == ATTN_Q4_K) {
      memcpy(to + 2 * lane, at + 2, 2);
      to += 2 * PANEL;
    }
    for (int i = 0; format == ATTN_Q4_K && i < 8; i++, to += 2 * PANEL) six_bits(at + 4, i, to + lane, to + PANEL + lane);
    for (int i = 0; format == ATTN_Q6_K && i < 16; i++, to += PANEL) to[lane] = at[192 + i];
  }
}

typedef struct packing {
  attn_quant format;
  const uint8_t *stored;
  int64_t n, k;
  uint8_t *packed;
} packing;

static void pack_panel(void *context, int64_t panel, int thread) {
  (void)thread;
  const packing *P = context;
  const int64_t bytes = quant_panel_bytes(P->format, P->k), blocks = P->k / QUANT_BLOCK;
  const int64_t row_bytes = P->k / attn_quant_block(P->format) * attn_quant_block_bytes(P->format);
  uint8_t *to = P->packed + panel * bytes;
  memset(to, 0, (size_t)bytes);
  for (int lane = 0; lane < PANEL && panel * PANEL + lane < P->n; lane++) {
    const uint8_t *row = P->stored + (panel * PANEL + lane) * row_bytes;
    for (int64_t block = 0; block < blocks; block++) {
      uint8_t codes[QUANT_BLOCK];
      stored_codes(P->format, row, block, codes);
      pack_codes(P->format, codes, lane, to + block * quant_code_bytes(P->format));
    }
    pack_scales(P->format, row, P->k, lane, to + blocks * quant_code_bytes(P->format));
  }
}

void attn_quant_pack(attn_quant format, const void *stored, int64_t n, int64_t k, void *packed) {
  packing P = { format, stored, n, k, packed };
  const int64_t panels = (n + PANEL - 1) / PANEL;
  attn_run_tasks(attn_threads_for(0, panels), panels, pack_panel, &P);
}

static void packed_codes(attn_quant format, const uint8_t *from, int row, uint8_t codes[QUANT_BLOCK]) {
  const int64_t quad = PANEL * 4;
  for (int i = 0; i < QUANT_BLOCK; i++) {
    const int j = i / 4;
    const uint8_t *at = from + row * 4 + i % 4;
    codes[i] = format == ATTN_Q8_0 ? at[j * quad] : at[j % 4 * quad] >> j / 4 * 4 & 15;
    if (format == ATTN_Q6_K) codes[i] |= (uint8_t)((at[(4 + j / 4) * quad] >> j % 4 * 2 & 3) << 4);
  }
}

static line packed_line(attn_quant format, const uint8_t *scales, int64_t block, int lane) {
  const int64_t part = block % (SUPERBLOCK / QUANT_BLOCK);
  switch (format) {
    case ATTN_Q4_1: {
      const uint8_t *at = scales + block * 4 * PANEL;
      const float d = half_value(at + 2 * lane), m = half_value(at + 2 * PANEL + 2 * lane);
      return (line){ { d, d }, { m, m } };
    }
    case ATTN_Q4_K: {
      const uint8_t *at = scales + block / 8 * 20 * PANEL, *own = at + (4 + 2 * part) * PANEL + lane;
      const float d = half_value(at + 2 * lane) * own[0], m = -(half_value(at + 2 * PANEL + 2 * lane) * own[PANEL]);
      return (line){ { d, d }, { m, m } };
    }
    case ATTN_Q6_K: {
      const uint8_t *at = scales + block / 8 * 18 * PANEL;
      const int8_t *own = (const int8_t *)at + (2 + 2 * part) * PANEL + lane;
      const float d = half_value(at + 2 * lane);
      return symmetric(d * own[0], d * own[PANEL], 32);
    }
    default: {
      const float d = half_value(scales + block * 2 * PANEL + 2 * lane);
      return symmetric(d, d, quant_offset(format));
    }
  }
}

void attn_quant_packed_row(attn_quant format, const void *packed, int64_t k, int64_t row, float *out) {
  const int lane = (int)(row % PANEL);
  const int64_t blocks = k / QUANT_BLOCK;
  const uint8_t *codes_at = (const uint8_t *)packed + row / PANEL * quant_panel_bytes(format, k);
  const uint8_t *scales = codes_at + blocks * quant_code_bytes(format);
  for (int64_t block = 0; block < blocks; block++, codes_at += quant_code_bytes(format)) {
    uint8_t codes[QUANT_BLOCK];
    packed_codes(format, codes_at, lane, codes);
    decode(format, codes, packed_line(format, scales, block, lane), out + block * QUANT_BLOCK);
  }
}
