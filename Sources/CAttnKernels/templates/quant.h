/* Products of rows of x with panels of quantised weights, in integers within each block of 32. */

/* ---- rows of x as integers ---- */

static void quantise(const float *x, int64_t k, bool coarse, int64_t step, char *operands, attn_quant_facts *facts) {
  const int parts = QUANT_BLOCK / LANES;
  const float most = coarse ? QUANT_COARSEST : QUANT_LARGEST;
  for (int64_t b = 0; b < k / QUANT_BLOCK; b++, x += QUANT_BLOCK) {
    vec part[QUANT_BLOCK / LANES], largest = {0};
    lanemask bad = {0};
    for (int i = 0; i < parts; i++) {
      part[i] = v_load(x + i * LANES);
      bad |= ~(v_abs(part[i]) < v_set1(INFINITY));
      largest = v_max(largest, v_abs(part[i]));
    }
    const bool finite = !v_any(bad);
    const float top = finite ? __builtin_reduce_max(largest) : 0;
    /* Blocks so small that 1 / scale would be Inf count as 0; ones with NaN or Inf are NaN as a whole. */
    const float inverse = top > 0x1p-100f ? most / top : 0;
    const float scale = finite ? (top > 0x1p-100f ? top / most : 0) : NAN;
    int32_t sum[2] = { 0, 0 };
    for (int i = 0; i < parts; i++) {
      const vec y = v_round(part[i] * inverse);
      const ivec q = finite ? __builtin_convertvector(y, ivec) : (ivec){0};
      sum[i * 2 / parts] += __builtin_reduce_add(q);
      quant_store(q, coarse, i, operands + b * step * quant_operand_bytes(coarse));
    }
    facts[b * step] = (attn_quant_facts){ scale, scale * (float)(sum[0] + sum[1]), sum[0], sum[1] };
  }
}

/* ---- weights ---- */

typedef unsigned char codevec __attribute__((vector_size(VEC_BYTES / 4), aligned(1)));
typedef signed char signedvec __attribute__((vector_size(VEC_BYTES / 4), aligned(1)));
WORD vec of_half(const char *at) { return v_from_f16(v_load_half((const uint16_t *)(const void *)at)); }
WORD vec of_bytes(const char *at) { return __builtin_convertvector(*(const codevec *)at, vec); }
WORD vec of_signed(const char *at) { return __builtin_convertvector(*(const signedvec *)at, vec); }

WORD ivec quad_at(const char *codes, int j) {
  ivec v;
  memcpy(&v, codes + j * PANEL * 4, sizeof v);
  return v;
}

/* Bytes: the codes of neighbours 4j .. 4j+3 for each lane. */
WORD ivec quad(attn_quant format, const char *codes, int j) {
  if (format == ATTN_Q8_0) return quad_at(codes, j);
  const ivec low = (j < 4 ? quad_at(codes, j) : quad_at(codes, j - 4) >> 4) & 0x0f0f0f0f;
  if (format != ATTN_Q6_K) return low;
  const ivec upper = quad_at(codes, 4 + j / 4);
  return low | ((j % 4 < 2 ? upper << (4 - j % 4 * 2) : upper >> (j % 4 * 2 - 4)) & 0x30303030);
}

/* d and m of block b for the lanes from `lane` on; of its first or second half. */
WORD vec quant_d(attn_quant format, const char *scales, int lane, int64_t b, int half) {
  if (format == ATTN_Q4_K) {
    const char *at = scales + b / 8 * 20 * PANEL;
    return of_half(at + 2 * lane) * of_bytes(at + (4 + b % 8 * 2) * PANEL + lane);
  }
  if (format == ATTN_Q6_K) {
    const char *at = scales + b / 8 * 18 * PANEL;
    return of_half(at + 2 * lane) * of_signed(at + (2 + b % 8 * 2 + half) * PANEL + lane);
  }
  return of_half(scales + b * (format == ATTN_Q4_1 ? 4 : 2) * PANEL + 2 * lane);
}

WORD vec quant_m(attn_quant format, const char *scales, int lane, int64_t b) {
  if (format == ATTN_Q4_1) return of_half(scales + (b * 4 + 2) * PANEL + 2 * lane);
  const char *at = scales + b / 8 * 20 * PANEL;
  return -(of_half(at + 2 * PANEL + 2 * lane) * of_bytes(at + (5 + b % 8 * 2) * PANEL + lane));
}

/* ---- tiles ---- */

/* Neighbours [4 first, 4 last) of one block for m rows of x, exactly. */
WORD void quant_block(attn_quant format, const bool coarse, const int m, const int first, const int last, const char *codes,
                      const char *operands, quant_sum *sum) {
#pragma clang loop unroll(full)
  for (int j = first; j < last; j++) {
    const quant_codes c = quant_spread(quad(format, codes, j));
#pragma clang loop unroll(full)
    for (int r = 0; r < m; r++) sum[r] = quant_dot(sum[r], c, coarse, operands + r * quant_operand_bytes(coarse), j);
  }
}

/* The lanes of a panel from `lane` on. */
WORD void quant_lanes(attn_quant format, const bool coarse, const int m, int lane, int64_t blocks, const char *operands,
                      const attn_quant_facts *facts, const char *codes, const attn_quant_place *place) {
  vec total[QUANT_ROWS] = {{0}};
  const char *scales = codes + blocks * quant_code_bytes(format);
  const int32_t offset = quant_offset(format);
  const int halves = format == ATTN_Q6_K ? 2 : 1; /* with scales of their own */
  const bool moved = format == ATTN_Q4_1 || format == ATTN_Q4_K;
  codes += lane * 4;
  for (int64_t b = 0; b < blocks; b++) {
#pragma clang loop unroll(full)
    for (int half = 0; half < halves; half++) {
      quant_sum sum[QUANT_ROWS];
#pragma clang loop unroll(full)
      for (int r = 0; r < m; r++) {
        const int32_t q = halves == 1 ? facts[r].first + facts[r].second : half ? facts[r].second : facts[r].first;
        sum[r] = quant_begin(-offset * q);
      }
      quant_block(format, coarse, m, half * 4, halves == 1 ? 8 : half * 4 + 4, codes, operands, sum);
      const vec d = quant_d(format, scales, lane, b, half);
#pragma clang loop unroll(full)
      for (int r = 0; r < m; r++)
        total[r] = v_fma(d, __builtin_convertvector(quant_total(sum[r], coarse), vec) * facts[r].scale, total[r]);
    }
    if (moved) {
      const vec move = quant_m(format, scales, lane, b);
#pragma clang loop unroll(full)
      for (int r = 0; r < m; r++) total[r] = v_fma(move, v_set1(facts[r].sum), total[r]);
    }
    codes += quant_code_bytes(format);
    operands += m * quant_operand_bytes(coarse);
    facts += m;
  }
  const vec bias = place->bias ? v_load(place->bias + lane) : (vec){0};
#pragma clang loop unroll(full)
  for (int r = 0; r < m; r++) {
    vec y = total[r] + bias;
    if (place->residual) y += v_load(place->residual + r * place->residual_row + lane);
    v_store(place->c + r * place->c_row + lane, y);
  }
}

WORD void quant_panel(attn_quant format, const bool coarse, const int m, int64_t blocks, const char *operands,
                      const attn_quant_facts *facts, const char *panel, const attn_quant_place *place) {
  for (int lane = 0; lane < PANEL; lane += LANES) quant_lanes(format, coarse, m, lane, blocks, operands, facts, panel, place);
}

#define QUANT_ARGUMENTS blocks, operands, facts, panel, place
#define QUANT_WAY(name, format, coarse)                                                                  \
  static void name(int64_t m, int64_t blocks, const char *operands, const attn_quant_facts *facts,       \
                   const char *panel, const attn_quant_place *place) {                                   \
    switch (m) {                                                                                         \
      case 1: quant_panel(format, coarse, 1, QUANT_ARGUMENTS); break;                                    \
      case 2: quant_panel(format, coarse, 2, QUANT_ARGUMENTS); break;                                    \
      case 4: quant_panel(format, coarse, 4, QUANT_ARGUMENTS); break;                                    \
      default: quant_panel(format, coarse, QUANT_ROWS, QUANT_ARGUMENTS); break;                          \
    }                                                                                                    \
  }
#if QUANT_HAS_COARSE
#define QUANT_FORMAT(name, format) QUANT_WAY(name##_fine, format, false) QUANT_WAY(name##_coarse, format, true)
#define QUANT_CALL(name) (coarse ? name##_coarse : name##_fine)(m, QUANT_ARGUMENTS)
#else
#define QUANT_FORMAT(name, format) QUANT_WAY(name##_fine, format, false)
#define QUANT_CALL(name) ((void)coarse, name##_fine(m, QUANT_ARGUMENTS))
#endif
QUANT_FORMAT(q4_0, ATTN_Q4_0)
QUANT_FORMAT(q4_1, ATTN_Q4_1)
QUANT_FORMAT(q8_0, ATTN_Q8_0)
QUANT_FORMAT(q4_K, ATTN_Q4_K)
QUANT_FORMAT(q6_K, ATTN_Q6_K)

static void tile(attn_quant format, bool coarse, int64_t m, int64_t k, const char *operands, const attn_quant_facts *facts,
                 const char *panel, const attn_quant_place *place) {
  const int64_t blocks = k / QUANT_BLOCK;
  switch (format) {
    case ATTN_Q4_0: QUANT_CALL(q4_0); break;
    case ATTN_Q4_1: QUANT_CALL(q4_1); break;
    case ATTN_Q8_0: QUANT_CALL(q8_0); break;
    case ATTN_Q4_K: QUANT_CALL(q4_K); break;
    default: QUANT_CALL(q6_K); break;
  }
}

#define QUANT_TABLE_(isa) attn_quant_kernels_##isa
#define QUANT_TABLE(isa) QUANT_TABLE_(isa)
#define QUANT_STRING_(isa) #isa
#define QUANT_STRING(isa) QUANT_STRING_(isa)

const attn_quant_kernels QUANT_TABLE(ISA) = {
  .isa = QUANT_STRING(ISA), .rows = QUANT_ROWS, .coarse = QUANT_HAS_COARSE, .quantise = quantise, .tile = tile
};
