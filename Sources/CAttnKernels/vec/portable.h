/* Vector vocabulary of 4 floats for any machine: the baseline of the target, no fused multiply-add. */
typedef float real;
typedef int32_t bits;
#define REAL_IS_FLOAT 1
#define VEC_BYTES 16
#include "base.h"

#define FMA_ROUNDS_TWICE
WORD vec v_fma(vec a, vec b, vec c) { return a * b + c; }
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#include "float_words.h"
