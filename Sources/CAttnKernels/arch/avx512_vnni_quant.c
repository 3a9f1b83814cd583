/* Products with quantised weights: AVX-512 with VNNI. */
#if defined(__x86_64__)
#include <math.h>
#include <immintrin.h>

#include "../quant.h"

#define ISA avx512_vnni

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), apply_to = function)
#include "../vec/avx512.h"
#include "../vec/quant_vnni.h"

#include "../templates/quant.h"
#pragma clang attribute pop
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
