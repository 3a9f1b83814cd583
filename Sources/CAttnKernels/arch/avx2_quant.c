/* Products with quantised weights: AVX2 with FMA. */
#if defined(__x86_64__)
#include <math.h>
#include <immintrin.h>

#include "../quant.h"

#define ISA avx2

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "../vec/avx2.h"
#include "../vec/quant_pairs.h"

#include "../templates/quant.h"
#pragma clang attribute pop
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
