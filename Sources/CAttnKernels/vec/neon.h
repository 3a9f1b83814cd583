/* Vector vocabulary of 4 floats: Arm NEON (every AArch64). */
typedef float real;
typedef int32_t bits;
#define REAL_IS_FLOAT 1
#define VEC_BYTES 16
#include "base.h"

WORD vec v_fma(vec a, vec b, vec c) { return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }

#define HAS_F16_WORDS
WORD vec v_from_f16(halfvec h) { return (vec)vcvt_f32_f16((float16x4_t)h); }
WORD halfvec v_to_f16(vec v) { return (halfvec)vcvt_f16_f32((float32x4_t)v); }
#include "float_words.h"
