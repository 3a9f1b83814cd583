/* Sums of products of unsigned bytes with 16-bit integers: AVX2, bytes widened to pairs of 16 bits, 16 products at a time. */
#define QUANT_ROWS 4 /* 4 sums + 4 totals + 2 of codes + 2 products + d, m: 14 of 16 ymm */
typedef struct quant_codes { __m256i even, odd; } quant_codes;
typedef __m256i quant_sum;

WORD quant_codes quant_spread(ivec bytes) {
  const __m256i low = _mm256_set1_epi16(255);
  return (quant_codes){ _mm256_and_si256((__m256i)bytes, low), _mm256_srli_epi16((__m256i)bytes, 8) };
}
WORD quant_sum quant_begin(int32_t start) { return _mm256_set1_epi32(start); }
/* Operand: numbers 4j and 4j+2, then 4j+1 and 4j+3. */
WORD quant_sum quant_dot(quant_sum s, quant_codes c, const char *operand, int j) {
  int32_t even, odd;
  memcpy(&even, operand + 8 * j, 4);
  memcpy(&odd, operand + 8 * j + 4, 4);
  s = _mm256_add_epi32(s, _mm256_madd_epi16(c.even, _mm256_set1_epi32(even)));
  return _mm256_add_epi32(s, _mm256_madd_epi16(c.odd, _mm256_set1_epi32(odd)));
}
WORD ivec quant_total(quant_sum s) { return (ivec)s; }

WORD void quant_store(const int32_t q[QUANT_BLOCK], char *operand) {
  int16_t *to = (int16_t *)(void *)operand;
  for (int i = 0; i < QUANT_BLOCK; i += 4) {
    to[i] = (int16_t)q[i];
    to[i + 1] = (int16_t)q[i + 2];
    to[i + 2] = (int16_t)q[i + 1];
    to[i + 3] = (int16_t)q[i + 3];
  }
}
