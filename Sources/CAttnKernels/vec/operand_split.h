/* Floats as sums of bfloat16, the largest part first: three parts hold a float exactly, two hold 16 bits of it and every
 * float16 exactly. AVX512-BF16 rounds; what is left after a part is exact. */

typedef uint32_t pair __attribute__((aligned(4), may_alias)); /* of bfloat16, the first in the lower half */

/* Pairs (low[i], high[i]) of the next part; low and high become what is left. */
WORD vec v_take_pairs(vec *low, vec *high) {
  const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)*low));
  const __m512i b = _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)*high)), 16);
  *low -= (vec)_mm512_slli_epi32(a, 16);
  *high -= (vec)b;
  return (vec)_mm512_or_si512(a, b);
}
/* The same of neighbours: pairs (low[0], low[1]), ... (high[LANES - 2], high[LANES - 1]). */
WORD vec v_take_neighbours(vec *low, vec *high) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)*high, (__m512)*low);
  *low -= (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16);
  *high -= (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16);
  return (vec)both;
}
/* The numbers of a part as floats: the lower and the upper halves of pairs. */
WORD vec v_low_of(vec pairs) { return (vec)((ivec)pairs << 16); }
WORD vec v_high_of(vec pairs) { return (vec)((ivec)pairs & (ivec){0} - 65536); }

/* Masks of lanes from and to bits. */
WORD lanemask v_lanes_of(uint32_t bits) { return (lanemask)_mm512_movm_epi32((__mmask16)bits); }
WORD uint32_t v_bits(lanemask m) { return _mm512_movepi32_mask((__m512i)m); }

/* What one bfloat16 holds as Inf or NaN. */
WORD lanemask v_huge(vec x) {
  return (lanemask)(((ivec)x & 0x7fffffff) >= 0x7f7f8000);
}

/* Numbers whose parts do not multiply as they do: Inf and NaN, above 2^60, where a part or a product overflows, below
 * 2^lowest, where a part or a product of parts is subnormal and would count as 0; 0 is none of them. Of two factors from
 * 2^BOTH_SMALL on the smallest product of parts is above 2^-126: 2^-50 2^-23 2^-50; a sum of 128 products is below 2^128. */
#define BOTH_SMALL (-50)
#define ONE_SMALL (-90) /* of gradients, where products so small are lost in the sums: 2^-90 2^-23 of numbers of order 1 */
WORD lanemask v_hard(vec x, const int lowest) {
  typedef uint32_t uvec __attribute__((vector_size(VEC_BYTES)));
  const uvec size = (uvec)x & 0x7fffffffu;
  const uint32_t low = (uint32_t)(127 + lowest) << 23, high = (127 + 60) << 23;
  return (lanemask)((size - low > high - low) & (size != 0));
}
