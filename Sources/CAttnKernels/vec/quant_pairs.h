/* Sums of products of unsigned bytes with 16-bit integers: AVX2, bytes widened to pairs of 16 bits, 16 products at a time. */
#define QUANT_HAS_COARSE 0
#define QUANT_ROWS 4 /* 4 sums + 4 totals + 2 of codes + 2 products + d, m: 14 of 16 ymm */
typedef struct quant_codes { __m256i even, odd; } quant_codes;
typedef __m256i quant_sum;

WORD quant_codes quant_spread(ivec bytes) {
  const __m256i low = _mm256_set1_epi16(255);
  return (quant_codes){ _mm256_and_si256((__m256i)bytes, low), _mm256_srli_epi16((__m256i)bytes, 8) };
}
WORD quant_sum quant_begin(int32_t start) { return _mm256_set1_epi32(start); }
/* Operand: numbers 4j and 4j+2, then 4j+1 and 4j+3. */
WORD quant_sum quant_dot(quant_sum s, quant_codes c, const bool coarse, const char *operand, int j) {
  (void)coarse;
  int32_t even, odd;
  memcpy(&even, operand + 8 * j, 4);
  memcpy(&odd, operand + 8 * j + 4, 4);
  s = _mm256_add_epi32(s, _mm256_madd_epi16(c.even, _mm256_set1_epi32(even)));
  return _mm256_add_epi32(s, _mm256_madd_epi16(c.odd, _mm256_set1_epi32(odd)));
}
WORD ivec quant_total(quant_sum s, const bool coarse) { return (void)coarse, (ivec)s; }

WORD void quant_store(ivec q, bool coarse, int i, char *operand) {
  (void)coarse;
  const ivec ordered = __builtin_shufflevector(q, q, 0, 2, 1, 3, 4, 6, 5, 7);
  const halfvec halves = __builtin_convertvector(ordered, halfvec);
  memcpy(operand + 16 * i, &halves, sizeof halves);
}
