/* Kernels of AVX2 with FMA, float. */
#if defined(__x86_64__)
#include <math.h>
#include <immintrin.h>

#include "../kernels.h"

#define ISA avx2
#define REAL_NAME float
#define PRODUCT_VECS 2 /* 6 x 2: 12 accumulators + 2 of b + 1 of a = 15 of 16 ymm */

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "../vec/avx2.h"

#include "../templates/kernels.h"
#pragma clang attribute pop
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
