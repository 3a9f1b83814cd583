/* Products of AVX-512 for float tensors at medium precision: operands rounded to bfloat16, AVX512-BF16. */
#if defined(__x86_64__)
#include <math.h>
#include <immintrin.h>

#include "../kernels.h"

#define ISA avx512
#define REAL_NAME medium
#define OPERANDS_ARE_BF16_PAIRS
#define PRODUCT_VECS 4 /* 6 x 4: 24 accumulators + 4 of b + 1 of a = 29 of 32 zmm */
#define PACKED_BY attn_kernels_avx512_float
extern const attn_kernels PACKED_BY;

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"))), apply_to = function)
#include "../vec/avx512.h"

#include "../templates/kernels.h"
#pragma clang attribute pop
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
