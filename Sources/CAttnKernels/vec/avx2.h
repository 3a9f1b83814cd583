/* Vector vocabulary of 8 floats: AVX2, FMA, F16C. */
typedef float real;
typedef int32_t bits;
#define REAL_IS_FLOAT 1
#define VEC_BYTES 32
#include "base.h"

WORD vec v_fma(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
WORD vec v_zip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
WORD vec v_zip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

#define HAS_F16_WORDS
WORD vec v_from_f16(halfvec h) { return (vec)_mm256_cvtph_ps((__m128i)h); }
WORD halfvec v_to_f16(vec v) { return (halfvec)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT); }
#include "float_words.h"
