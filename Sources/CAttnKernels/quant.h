/* Quantised products: the layouts that packing and kernels share, and the table that an ISA fills in. */
#ifndef ATTN_QUANT_H
#define ATTN_QUANT_H

#include "CAttnKernels.h"

/* A packed weight is a sequence of panels of PANEL rows. A panel holds the codes of all its blocks of 32, then their scales.
 *
 * Codes: bytes quad[j][row][4], the codes of neighbours 4j .. 4j+3 of each row, j < 8.
 *   8-bit formats   quad[0..7]; Q8_0's codes are stored plus 128
 *   4-bit formats   quad[j] | quad[j + 4] << 4, j < 4
 *   Q6_K            the low four bits so, then the upper two: upper[i] = quad[4i + t] >> 4 << 2t over t < 4, i < 2
 * Scales, [row] fastest, binary16 unless noted:
 *   Q4_0, Q8_0      d                     for each block of 32
 *   Q4_1            d, m                  for each block of 32
 *   Q4_K            d, dmin, then for each block of 32: scale, min (uint8)      for each block of 256
 *   Q6_K            d, then for each 16: scale (int8)                           for each block of 256 */
#define PANEL 16
#define QUANT_BLOCK 32
#define SUPERBLOCK 256

static inline int64_t quant_code_bytes(attn_quant format) { /* of a panel's block of 32 */
  switch (format) {
    case ATTN_Q8_0: return PANEL * 32;
    case ATTN_Q6_K: return PANEL * 24;
    default: return PANEL * 16;
  }
}

static inline int64_t quant_scale_bytes(attn_quant format, int64_t k) { /* of a panel */
  switch (format) {
    case ATTN_Q4_1: return PANEL * 4 * (k / QUANT_BLOCK);
    case ATTN_Q4_K: return PANEL * 20 * (k / SUPERBLOCK);
    case ATTN_Q6_K: return PANEL * 18 * (k / SUPERBLOCK);
    default: return PANEL * 2 * (k / QUANT_BLOCK);
  }
}

static inline int64_t quant_panel_bytes(attn_quant format, int64_t k) {
  return k / QUANT_BLOCK * quant_code_bytes(format) + quant_scale_bytes(format, k);
}

/* What the codes of a format are moved by: d (c - offset). */
static inline int32_t quant_offset(attn_quant format) {
  switch (format) {
    case ATTN_Q4_0: return 8;
    case ATTN_Q8_0: return 128;
    case ATTN_Q6_K: return 32;
    default: return 0;
  }
}

/* What a product needs of 32 neighbours x[i] = scale * q[i] besides q; |q| is at most QUANT_LARGEST, or QUANT_COARSEST. */
typedef struct attn_quant_facts {
  float scale, sum;     /* sum: scale * sum of q */
  int32_t first, second; /* sums of q[0..15], q[16..31] */
} attn_quant_facts;

#define QUANT_LARGEST 32512 /* fits two signed bytes, 256 * 127 */
#define QUANT_COARSEST 127

/* Bytes of q of 32 neighbours, in the ISA's own order. */
static inline int64_t quant_operand_bytes(bool coarse) { return coarse ? QUANT_BLOCK : 2 * QUANT_BLOCK; }

/* Where a tile's rows go: c[r][lane] = residual + (sums + bias), PANEL lanes. */
typedef struct attn_quant_place {
  float *c;
  int64_t c_row;
  const float *bias, *residual; /* may be NULL; residual may be c */
  int64_t residual_row;
} attn_quant_place;

typedef struct attn_quant_kernels {
  const char *isa;
  int rows;    /* of x in a tile, a power of two */
  bool coarse; /* has products with 8-bit q, which take half the time */
  /* k values of a row of x; block b goes to operands + b * step * quant_operand_bytes and facts[b * step]. */
  void (*quantise)(const float *x, int64_t k, bool coarse, int64_t step, char *operands, attn_quant_facts *facts);
  /* x . panel^T for m rows of x, m a power of two up to `rows`; operand and facts of block b, row r at b * m + r. */
  void (*tile)(attn_quant format, bool coarse, int64_t m, int64_t k, const char *operands, const attn_quant_facts *facts,
               const char *panel, const attn_quant_place *place);
} attn_quant_kernels;

/* Those that go with the chosen ISA. */
const attn_quant_kernels *attn_quant_kernels_chosen(void);

#endif
