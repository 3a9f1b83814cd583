/* Sums of products of unsigned bytes with 16-bit integers held as two signed bytes: AVX512-VNNI, 64 products at a time. */
#define QUANT_ROWS 8 /* 8 pairs of sums + 8 totals + codes, d, m: 27 of 32 zmm */
typedef ivec quant_codes;
typedef struct quant_sum { __m512i high, low; } quant_sum;

WORD quant_codes quant_spread(ivec bytes) { return bytes; }
WORD quant_sum quant_begin(int32_t start) { return (quant_sum){ _mm512_setzero_si512(), _mm512_set1_epi32(start) }; }
/* Operand: the high bytes of 32 numbers, then the low ones. */
WORD quant_sum quant_dot(quant_sum s, quant_codes c, const char *operand, int j) {
  int32_t high, low;
  memcpy(&high, operand + 4 * j, 4);
  memcpy(&low, operand + 32 + 4 * j, 4);
  return (quant_sum){ _mm512_dpbusd_epi32(s.high, (__m512i)c, _mm512_set1_epi32(high)),
                      _mm512_dpbusd_epi32(s.low, (__m512i)c, _mm512_set1_epi32(low)) };
}
WORD ivec quant_total(quant_sum s) { return ((ivec)s.high << 8) + (ivec)s.low; }

/* q = 256 high + low with both in a signed byte. */
WORD void quant_store(const int32_t q[QUANT_BLOCK], char *operand) {
  for (int i = 0; i < QUANT_BLOCK; i++) {
    const int8_t low = (int8_t)q[i];
    operand[i] = (char)((q[i] - low) >> 8);
    operand[32 + i] = low;
  }
}
