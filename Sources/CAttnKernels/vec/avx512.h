/* Vector vocabulary of 16 floats: AVX-512 F, BW, DQ, VL. */
typedef float real;
typedef int32_t bits;
#define REAL_IS_FLOAT 1
#define VEC_BYTES 64
#define HAS_MAX /* of a constant the compiler would make a comparison and a blend */
#include "base.h"

WORD vec v_fma(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
WORD vec v_max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
WORD vec v_min(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
WORD vec v_zip_lo(vec a, vec b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
WORD vec v_zip_hi(vec a, vec b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/* 4 x 4 lanes within each quarter: lane 4 L + i of to[e] is lane 4 L + e of from[i]. */
WORD void v_transpose_quarters(const __m512 *from, vec *to) {
  const __m512d low01 = (__m512d)_mm512_unpacklo_ps(from[0], from[1]), high01 = (__m512d)_mm512_unpackhi_ps(from[0], from[1]);
  const __m512d low23 = (__m512d)_mm512_unpacklo_ps(from[2], from[3]), high23 = (__m512d)_mm512_unpackhi_ps(from[2], from[3]);
  to[0] = (vec)_mm512_unpacklo_pd(low01, low23);
  to[1] = (vec)_mm512_unpackhi_pd(low01, low23);
  to[2] = (vec)_mm512_unpacklo_pd(high01, high23);
  to[3] = (vec)_mm512_unpackhi_pd(high01, high23);
}

#define HAS_TRANSPOSE
/* In place: quarters of rows 4 apart come together, then lanes within quarters. No index registers, no copies. */
WORD void transpose(vec square[16]) {
  __m512 part[4][4]; /* [e / 4][i]: rows i, 4 + i, 8 + i, 12 + i */
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    const __m512 a = (__m512)square[i], b = (__m512)square[4 + i], c = (__m512)square[8 + i], d = (__m512)square[12 + i];
    const __m512 ab_low = _mm512_shuffle_f32x4(a, b, 0x44), ab_high = _mm512_shuffle_f32x4(a, b, 0xee);
    const __m512 cd_low = _mm512_shuffle_f32x4(c, d, 0x44), cd_high = _mm512_shuffle_f32x4(c, d, 0xee);
    part[0][i] = _mm512_shuffle_f32x4(ab_low, cd_low, 0x88);
    part[1][i] = _mm512_shuffle_f32x4(ab_low, cd_low, 0xdd);
    part[2][i] = _mm512_shuffle_f32x4(ab_high, cd_high, 0x88);
    part[3][i] = _mm512_shuffle_f32x4(ab_high, cd_high, 0xdd);
  }
#pragma clang loop unroll(full)
  for (int g = 0; g < 4; g++) v_transpose_quarters(part[g], square + 4 * g);
}

#define HAS_F16_WORDS
WORD vec v_from_f16(halfvec h) { return (vec)_mm512_cvtph_ps((__m256i)h); }
WORD halfvec v_to_f16(vec v) { return (halfvec)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT); }

#define HAS_POWER
#define HAS_EXP2
WORD vec v_round(vec x) {
  return (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
typedef struct power {
  vec n;
} power;
WORD power v_power(vec x, float c) { return (power){ v_round(x * c) }; }
WORD vec v_scale(vec p, power two) { return (vec)_mm512_scalef_ps((__m512)p, (__m512)two.n); } /* gradual underflow */
#define EXPONENT_LOWEST -160.0f
#include "float_words.h"

/* Eight neighbours from each of two places, 16-bit numbers widened. */
WORD vec v_side_by_side(const attn_dtype dtype, const char *low, const char *high) {
  if (dtype == ATTN_F32)
    return (vec)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps((const float *)low)),
                                   _mm256_loadu_ps((const float *)high), 1);
  const halfvec both = (halfvec)_mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                                        _mm_loadu_si128((const __m128i *)high), 1);
  return dtype == ATTN_F16 ? v_from_f16(both) : v_from_bf16(both);
}

#define LOADED_COLUMNS 8
/* columns[t] = element t of 16 rows, `step` bytes apart; memory puts the halves in their places, a quarter of the shuffles. */
WORD void load_columns(const attn_dtype dtype, const char *rows, int64_t step, vec columns[8]) {
  const char *row[4]; /* four bases and multiples of the step address 16 rows */
  __m512 half[8], part[8];
#pragma clang loop unroll(full)
  for (int q = 0; q < 4; q++) {
    row[q] = rows + 4 * q * step;
    __asm__("" : "+r"(row[q])); /* or the compiler keeps 16 pointers, most of them on the stack */
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 8; i++) /* rows i and 4 + i, then 8 + i and 12 + i */
    half[i] = (__m512)v_side_by_side(dtype, row[i / 4 * 2] + i % 4 * step, row[i / 4 * 2 + 1] + i % 4 * step);
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    part[i] = _mm512_shuffle_f32x4(half[i], half[4 + i], 0x88);
    part[4 + i] = _mm512_shuffle_f32x4(half[i], half[4 + i], 0xdd);
  }
  v_transpose_quarters(part, columns);
  v_transpose_quarters(part + 4, columns + 4);
}

/* The same without clamps: the fraction of an infinity is 0 here. */
WORD vec v_exp2(vec x) {
  const vec r = (vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return v_scale(v_exp2_fraction(r), (power){ x - r });
}
WORD void v_exp2s_fall(const int count, vec *x, float c) { EACH(i, count) x[i] = v_exp2(x[i] * v_set1(c)); }
