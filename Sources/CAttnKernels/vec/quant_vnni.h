/* Sums of products of unsigned bytes with 16-bit integers held as two signed bytes: AVX512-VNNI, 64 products at a time. */
#define QUANT_HAS_COARSE 1
#define QUANT_ROWS 8 /* 8 pairs of sums + 8 totals + codes, d, m: 27 of 32 zmm */
typedef ivec quant_codes;
typedef struct quant_sum { __m512i high, low; } quant_sum;

WORD quant_codes quant_spread(ivec bytes) { return bytes; }
WORD quant_sum quant_begin(int32_t start) { return (quant_sum){ _mm512_setzero_si512(), _mm512_set1_epi32(start) }; }
/* Operand: the high bytes of 32 numbers, then the low ones; of coarse numbers the low ones alone. */
WORD quant_sum quant_dot(quant_sum s, quant_codes c, const bool coarse, const char *operand, int j) {
  int32_t high, low;
  memcpy(&low, operand + (coarse ? 0 : QUANT_BLOCK) + 4 * j, 4);
  s.low = _mm512_dpbusd_epi32(s.low, (__m512i)c, _mm512_set1_epi32(low));
  if (coarse) return s;
  memcpy(&high, operand + 4 * j, 4);
  s.high = _mm512_dpbusd_epi32(s.high, (__m512i)c, _mm512_set1_epi32(high));
  return s;
}
WORD ivec quant_total(quant_sum s, const bool coarse) { return coarse ? (ivec)s.low : ((ivec)s.high << 8) + (ivec)s.low; }

/* Numbers 16 i .. 16 i + 15: q = 256 high + low with both in a signed byte. */
WORD void quant_store(ivec q, bool coarse, int i, char *operand) {
  _mm_storeu_si128((__m128i *)(operand + (coarse ? 0 : QUANT_BLOCK)) + i, _mm512_cvtepi32_epi8((__m512i)q));
  if (!coarse) _mm_storeu_si128((__m128i *)operand + i, _mm512_cvtepi32_epi8((__m512i)((q + 128) >> 8)));
}
