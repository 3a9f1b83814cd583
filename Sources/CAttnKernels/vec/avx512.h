/* Vector vocabulary of 16 floats: AVX-512 F, BW, DQ, VL. */
typedef float real;
typedef int32_t bits;
#define REAL_IS_FLOAT 1
#define VEC_BYTES 64
#include "base.h"

WORD vec v_fma(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
WORD vec v_zip_lo(vec a, vec b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
WORD vec v_zip_hi(vec a, vec b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

#define HAS_F16_WORDS
WORD vec v_from_f16(halfvec h) { return (vec)_mm512_cvtph_ps((__m256i)h); }
WORD halfvec v_to_f16(vec v) { return (halfvec)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT); }

#define HAS_LDEXP
WORD vec v_round(vec x) {
  return (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
WORD vec v_ldexp(vec p, vec n) { return (vec)_mm512_scalef_ps((__m512)p, (__m512)n); } /* gradual underflow */
#define EXPONENT_LOWEST -160.0f
#include "float_words.h"
