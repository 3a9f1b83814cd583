/* Kernels of AVX-512, double. */
#if defined(__x86_64__)
#include <math.h>
#include <immintrin.h>

#include "../kernels.h"

#define ISA avx512
#define REAL_NAME double
#define PRODUCT_VECS 4 /* 6 x 4: 24 accumulators + 4 of b + 1 of a = 29 of 32 zmm */

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#define VEC_BYTES 64
#define DOUBLE_HAS_FMA
#include "../vec/double.h"

#include "../templates/kernels.h"
#pragma clang attribute pop
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
