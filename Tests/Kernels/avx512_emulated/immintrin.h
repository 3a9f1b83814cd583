/* AVX-512 for machines that lack it: in the place of the compiler's header it has the kernels of AVX-512 and AMX compiled for
 * AVX2, and gives the intrinsics that they use the same results by the compiler's vectors. */
#ifndef ATTN_AVX512_EMULATED_H
#define ATTN_AVX512_EMULATED_H

#include_next <immintrin.h>
#include <stdint.h>
#include <string.h>

/* Macros already, as they take constants. */
#undef _mm512_extracti64x4_epi64
#undef _mm512_insertf32x8
#undef _mm512_shuffle_f32x4
#undef _mm512_roundscale_ps
#undef _mm512_reduce_ps
#undef _mm512_cvtps_ph

#define target(features) target("avx2,fma,f16c,amx-tile,amx-bf16")

#define EMULATED static inline __attribute__((always_inline, unused))
#define EMULATED_BY_F16C static inline __attribute__((always_inline, unused, __target__("avx,f16c")))

typedef float emulated_floats __attribute__((vector_size(64)));
typedef double emulated_doubles __attribute__((vector_size(128)));
typedef int64_t emulated_longs __attribute__((vector_size(128)));
typedef uint32_t emulated_words __attribute__((vector_size(64)));
typedef int32_t emulated_ints __attribute__((vector_size(64)));
typedef uint16_t emulated_shorts __attribute__((vector_size(64)));
typedef uint16_t emulated_half_shorts __attribute__((vector_size(32)));
typedef int8_t emulated_bytes __attribute__((vector_size(16)));

/* ---- moves ---- */

EMULATED __m512i emulated_load(const void *p) { __m512i v; memcpy(&v, p, sizeof v); return v; }
EMULATED void emulated_store(void *p, __m512i v) { memcpy(p, &v, sizeof v); }
#define _mm512_loadu_si512 emulated_load
#define _mm512_storeu_si512 emulated_store
#define _mm512_setzero_si512() ((__m512i){0})
#define _mm512_set1_epi32(x) ((__m512i)((emulated_ints){0} + (int32_t)(x)))
#define _mm512_set1_epi16(x) ((__m512i)((emulated_shorts){0} + (uint16_t)(x)))
#define _mm512_set_epi32(p, o, n, m, l, k, j, i, h, g, f, e, d, c, b, a) \
  ((__m512i)(emulated_ints){ a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p })
#define _mm512_castsi512_si256(v) emulated_half(v, 0)
#define _mm512_extracti64x4_epi64(v, i) emulated_half(v, i)
EMULATED __m256i emulated_half(__m512i v, int i) {
  __m256i halves[2];
  memcpy(halves, &v, sizeof v);
  return halves[i];
}
#define _mm512_castps256_ps512(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1)
#define _mm512_insertf32x8(v, half, i)                                                                  \
  __builtin_shufflevector(v, _mm512_castps256_ps512(half), 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, \
                          23 + 0 * sizeof(char[(i) == 1 ? 1 : -1]))

/* Quarter q of both, then what the instruction does within each. */
#define EMULATED_QUARTER(i, from) 4 * (i) + (from), 4 * (i) + (from) + 1, 4 * (i) + (from) + 2, 4 * (i) + (from) + 3
#define _mm512_shuffle_f32x4(a, b, order)                                                                  \
  __builtin_shufflevector(a, b, EMULATED_QUARTER((order) & 3, 0), EMULATED_QUARTER((order) >> 2 & 3, 0), \
                          EMULATED_QUARTER((order) >> 4 & 3, 16), EMULATED_QUARTER((order) >> 6 & 3, 16))
#define _mm512_unpacklo_ps(a, b) \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define _mm512_unpackhi_ps(a, b) \
  __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define _mm512_unpacklo_pd(a, b) __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define _mm512_unpackhi_pd(a, b) __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15)

#define _mm512_permutex2var_epi16 emulated_permute
EMULATED __m512i emulated_permute(__m512i a, __m512i order, __m512i b) {
  const emulated_shorts low = (emulated_shorts)a, high = (emulated_shorts)b, from = (emulated_shorts)order;
  emulated_shorts to;
  for (int i = 0; i < 32; i++) to[i] = from[i] & 32 ? high[from[i] & 31] : low[from[i] & 31];
  return (__m512i)to;
}

/* ---- masks ---- */

#define _mm512_movm_epi32 emulated_lanes
EMULATED __m512i emulated_lanes(__mmask16 mask) {
  emulated_ints lanes;
  for (int i = 0; i < 16; i++) lanes[i] = -(mask >> i & 1);
  return (__m512i)lanes;
}
#define _mm512_movepi32_mask emulated_mask
EMULATED __mmask16 emulated_mask(__m512i lanes) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; i++) mask |= ((emulated_words)lanes)[i] >> 31 << i;
  return (__mmask16)mask;
}

/* ---- integers ---- */

#define _mm512_or_si512(a, b) ((__m512i)((emulated_words)(a) | (emulated_words)(b)))
#define _mm512_slli_epi32(v, n) ((__m512i)((emulated_words)(v) << (n)))
#define _mm512_add_epi16(a, b) ((__m512i)((emulated_shorts)(a) + (emulated_shorts)(b)))
#define _mm512_cvtepu16_epi32(v) ((__m512i)__builtin_convertvector((emulated_half_shorts)(v), emulated_words))
#define _mm512_cvtepi32_epi8(v) ((__m128i)__builtin_convertvector((emulated_ints)(v), emulated_bytes))
#define _mm512_dpbusd_epi32 emulated_dpbusd
EMULATED __m512i emulated_dpbusd(__m512i sums, __m512i a, __m512i b) {
  emulated_ints total = (emulated_ints)sums;
  for (int i = 0; i < 4; i++)
    total += (emulated_ints)((emulated_words)a >> 8 * i & 255) * ((emulated_ints)((emulated_words)b << (24 - 8 * i)) >> 24);
  return (__m512i)total;
}

/* ---- floats ---- */

#define _mm512_fmadd_ps(a, b, c) \
  ((__m512)__builtin_elementwise_fma((emulated_floats)(a), (emulated_floats)(b), (emulated_floats)(c)))
#define _mm512_max_ps(a, b) emulated_select((a) > (b), a, b) /* b where either is NaN */
#define _mm512_min_ps(a, b) emulated_select((a) < (b), a, b)
EMULATED __m512 emulated_select(emulated_ints where, __m512 a, __m512 b) {
  return (__m512)(((emulated_ints)a & where) | ((emulated_ints)b & ~where));
}
#define _mm512_roundscale_ps(x, mode) ((__m512)__builtin_elementwise_roundeven((emulated_floats)(x)))
#define _mm512_reduce_ps(x, mode) emulated_reduce(x)
EMULATED __m512 emulated_reduce(__m512 x) { /* the fraction of an infinity is 0 */
  const emulated_floats size = __builtin_elementwise_abs((emulated_floats)x);
  return emulated_select(size == __builtin_inff(), (__m512){0}, x - _mm512_roundscale_ps(x, 0));
}
#define _mm512_scalef_ps emulated_scale
EMULATED __m512 emulated_scale(__m512 x, __m512 n) { /* one rounding, of the result */
  emulated_doubles whole = __builtin_convertvector(__builtin_elementwise_floor((emulated_floats)n), emulated_doubles);
  whole = __builtin_elementwise_min(__builtin_elementwise_max(whole, (emulated_doubles){0} - 500), (emulated_doubles){0} + 500);
  const emulated_doubles power = (emulated_doubles)(__builtin_convertvector(whole + 1023, emulated_longs) << 52);
  const emulated_doubles scaled = __builtin_convertvector((emulated_floats)x, emulated_doubles) * power;
  return emulated_select(n != n, n, (__m512)__builtin_convertvector(scaled, emulated_floats));
}

#define _mm512_cvtph_ps emulated_from_f16
EMULATED_BY_F16C __m512 emulated_from_f16(__m256i v) {
  const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(v)), high = _mm256_cvtph_ps(_mm256_extractf128_si256(v, 1));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#define _mm512_cvtps_ph(v, mode) emulated_to_f16(v)
EMULATED_BY_F16C __m256i emulated_to_f16(__m512 v) {
  const __m256 low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
  const __m256 high = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm256_insertf128_si256(_mm256_castsi128_si256(_mm256_cvtps_ph(low, 0)), _mm256_cvtps_ph(high, 0), 1);
}

/* ---- bfloat16: to nearest even, subnormal numbers are 0 ---- */

EMULATED emulated_words emulated_flush(emulated_words x) {
  return x & ((emulated_words)((x & 0x7f800000u) != 0) | 0x80000000u);
}
#define _mm512_cvtneps_pbh emulated_to_bf16
EMULATED __m256i emulated_to_bf16(__m512 v) {
  const emulated_words bits = emulated_flush((emulated_words)v), rounded = bits + 0x7fffu + (bits >> 16 & 1);
  const emulated_words nan = (emulated_words)(v != v);
  return (__m256i)__builtin_convertvector((((bits | 0x400000u) & nan) | (rounded & ~nan)) >> 16, emulated_half_shorts);
}
#define _mm512_cvtne2ps_pbh emulated_both_to_bf16
EMULATED __m512i emulated_both_to_bf16(__m512 high, __m512 low) {
  const __m256i halves[2] = { emulated_to_bf16(low), emulated_to_bf16(high) };
  return emulated_load(halves);
}
/* The second products first, each sum rounded; operands and sums flushed. */
#define _mm512_dpbf16_ps(sums, a, b) emulated_dpbf16(sums, (__m512i)(a), (__m512i)(b))
EMULATED __m512 emulated_dpbf16(__m512 sums, __m512i a, __m512i b) {
  const emulated_floats high_a = (emulated_floats)emulated_flush((emulated_words)a & 0xffff0000u);
  const emulated_floats high_b = (emulated_floats)emulated_flush((emulated_words)b & 0xffff0000u);
  const emulated_floats low_a = (emulated_floats)emulated_flush((emulated_words)a << 16);
  const emulated_floats low_b = (emulated_floats)emulated_flush((emulated_words)b << 16);
  emulated_words sum = emulated_flush((emulated_words)__builtin_elementwise_fma(
      high_a, high_b, (emulated_floats)emulated_flush((emulated_words)sums)));
  sum = emulated_flush((emulated_words)__builtin_elementwise_fma(low_a, low_b, (emulated_floats)sum));
  return (__m512)sum;
}
#endif
