/* Vector vocabulary of doubles, VEC_BYTES wide: the gradient-check path. exp2 is the C library's, lane by lane. */
typedef double real;
typedef int64_t bits;
#define REAL_IS_FLOAT 0
#include "base.h"

#ifdef DOUBLE_HAS_FMA
WORD vec v_fma(vec a, vec b, vec c) { return __builtin_elementwise_fma(a, b, c); }
#else
WORD vec v_fma(vec a, vec b, vec c) { return a * b + c; }
#endif

#if VEC_BYTES == 64
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#elif VEC_BYTES == 32
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#else
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 2); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 1, 3); }
#endif

WORD vec v_exp2(vec x) {
  vec y;
  for (int i = 0; i < LANES; i++) y[i] = exp2(x[i]);
  return y;
}
WORD void v_exp2s_fall(const int count, vec *x, double c) { EACH(i, count) x[i] = v_exp2(x[i] * v_set1(c)); }
