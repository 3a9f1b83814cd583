/* Sums of products of unsigned bytes with 16-bit integers, with no special instruction: bytes widened to 32 bits. */
#define QUANT_HAS_COARSE 0
#define QUANT_ROWS 4
typedef struct quant_codes { ivec of[4]; } quant_codes;
typedef ivec quant_sum;

WORD quant_codes quant_spread(ivec bytes) {
  return (quant_codes){ { bytes & 255, bytes >> 8 & 255, bytes >> 16 & 255, bytes >> 24 & 255 } };
}
WORD quant_sum quant_begin(int32_t start) { return (ivec){0} + start; }
/* Operand: 32 numbers of 16 bits. */
WORD quant_sum quant_dot(quant_sum s, quant_codes c, const bool coarse, const char *operand, int j) {
  (void)coarse;
  int16_t q[4];
  memcpy(q, operand + 8 * j, sizeof q);
  return s + c.of[0] * q[0] + c.of[1] * q[1] + c.of[2] * q[2] + c.of[3] * q[3];
}
WORD ivec quant_total(quant_sum s, const bool coarse) { return (void)coarse, s; }

WORD void quant_store(ivec q, bool coarse, int i, char *operand) {
  (void)coarse;
  const halfvec halves = __builtin_convertvector(q, halfvec);
  memcpy(operand + 2 * LANES * i, &halves, sizeof halves);
}
