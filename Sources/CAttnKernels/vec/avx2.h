/* Vector vocabulary of 8 floats: AVX2, FMA, F16C. */
typedef float real;
typedef int32_t bits;
#define REAL_IS_FLOAT 1
#define VEC_BYTES 32
#define HAS_MAX /* of a constant the compiler would make a comparison and a blend */
#include "base.h"

WORD vec v_fma(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
WORD vec v_max(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
WORD vec v_min(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

/* 4 x 4 lanes within each half: lane 4 L + i of to[e] is lane 4 L + e of from[i]. */
WORD void v_transpose_halves(const __m256 *from, vec *to) {
  const __m256d low01 = (__m256d)_mm256_unpacklo_ps(from[0], from[1]), high01 = (__m256d)_mm256_unpackhi_ps(from[0], from[1]);
  const __m256d low23 = (__m256d)_mm256_unpacklo_ps(from[2], from[3]), high23 = (__m256d)_mm256_unpackhi_ps(from[2], from[3]);
  to[0] = (vec)_mm256_unpacklo_pd(low01, low23);
  to[1] = (vec)_mm256_unpackhi_pd(low01, low23);
  to[2] = (vec)_mm256_unpacklo_pd(high01, high23);
  to[3] = (vec)_mm256_unpackhi_pd(high01, high23);
}

#define HAS_TRANSPOSE
WORD void transpose(vec square[8]) {
  __m256 part[2][4]; /* [e / 4][i]: rows i and 4 + i */
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    part[0][i] = _mm256_permute2f128_ps((__m256)square[i], (__m256)square[4 + i], 0x20);
    part[1][i] = _mm256_permute2f128_ps((__m256)square[i], (__m256)square[4 + i], 0x31);
  }
  v_transpose_halves(part[0], square);
  v_transpose_halves(part[1], square + 4);
}

#define HAS_F16_WORDS
WORD vec v_from_f16(halfvec h) { return (vec)_mm256_cvtph_ps((__m128i)h); }
WORD halfvec v_to_f16(vec v) { return (halfvec)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT); }
#include "float_words.h"

/* Four neighbours from each of two places, 16-bit numbers widened. */
WORD vec v_side_by_side(const attn_dtype dtype, const char *low, const char *high) {
  if (dtype == ATTN_F32)
    return (vec)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float *)low)),
                                     _mm_loadu_ps((const float *)high), 1);
  const halfvec both = (halfvec)_mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)low), _mm_loadl_epi64((const __m128i *)high));
  return dtype == ATTN_F16 ? v_from_f16(both) : v_from_bf16(both);
}

#define LOADED_COLUMNS 4
/* columns[t] = element t of 8 rows, `step` bytes apart; memory puts the halves in their places, a third of the shuffles less. */
WORD void load_columns(const attn_dtype dtype, const char *rows, int64_t step, vec columns[4]) {
  __m256 part[4];
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) part[i] = (__m256)v_side_by_side(dtype, rows + i * step, rows + (4 + i) * step);
  v_transpose_halves(part, columns);
}

#define HAS_BF16_SQUARE
/* square[t] = bfloat16 element t of 8 rows: they move in pairs, for half of the shuffles. */
WORD void load_bf16_square(const char *rows, int64_t step, vec square[8]) {
  vec pairs[4];
  load_columns(ATTN_F32, rows, step, pairs);
#pragma clang loop unroll(full)
  for (int t = 0; t < 4; t++) {
    square[2 * t] = (vec)((ivec)pairs[t] << 16);
    square[2 * t + 1] = (vec)((ivec)pairs[t] & (ivec){0} + (int)0xffff0000);
  }
}
