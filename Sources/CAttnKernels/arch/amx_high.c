/* Products on AMX tiles for float tensors, 16 significand bits of the operands. */
#if defined(__x86_64__)
#include <math.h>
#include <immintrin.h>

#include "../kernels.h"

#define ISA amx
#define REAL_NAME high
#define PARTS 2
#define PRODUCTS 3
#define PRODUCT_VECS 4 /* of floats, 6 x 4: 24 accumulators + 4 of b + 1 of a = 29 of 32 zmm */
#define PACKED_BY attn_kernels_avx512_float
extern const attn_kernels PACKED_BY;

#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c"))), apply_to = function)
#include "../vec/avx512.h"

#include "../templates/tile_kernels.h"
#pragma clang attribute pop
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
