/* Operands that are pairs of bfloat16, the first in the lower half: one instruction adds both products in float.
 * Subnormal numbers count as 0 in it. AVX512-BF16. */
#define DEPTH 2
typedef uint32_t operand __attribute__((aligned(2))); /* two neighbours in memory */
typedef __m512bh operands;
WORD operands v_operands(const operand *p) { return (__m512bh)_mm512_loadu_si512(p); }
WORD operands v_repeat(operand x) { return (__m512bh)_mm512_set1_epi32((int)x); }
WORD operands v_as_operands(vec v) { return (__m512bh)v; } /* pairs that moved as floats */
WORD vec v_dot(operands a, operands b, vec c) { return (vec)_mm512_dpbf16_ps((__m512)c, a, b); }
/* Pairs (low[i], high[i]) of bfloat16 for i < 2 * LANES. */
WORD void v_neighbours(const uint16_t *low, const uint16_t *high, operands pairs[2]) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i first = _mm512_or_si512(_mm512_or_si512(lane, _mm512_slli_epi32(lane, 16)), _mm512_set1_epi32(32 << 16));
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16)); /* words i of low, 32 + i of high */
  const __m512i a = _mm512_loadu_si512(low), b = _mm512_loadu_si512(high);
  pairs[0] = (__m512bh)_mm512_permutex2var_epi16(a, first, b);
  pairs[1] = (__m512bh)_mm512_permutex2var_epi16(a, second, b);
}
WORD void v_store_neighbours(operand *p, const uint16_t *low, const uint16_t *high) {
  operands pairs[2];
  v_neighbours(low, high, pairs);
  _mm512_storeu_si512(p, (__m512i)pairs[0]);
  _mm512_storeu_si512(p + 16, (__m512i)pairs[1]);
}
/* 2 * LANES neighbours, rounded to nearest even. */
WORD void v_store_rounded(operand *p, vec low, vec high) {
  _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}
/* Pairs (low[i], high[i]), rounded likewise. */
WORD void v_store_pairs(operand *p, vec low, vec high) {
  const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)low));
  const __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)high));
  _mm512_storeu_si512(p, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}
