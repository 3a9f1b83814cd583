/* What the processor and the operating system offer; what should be used is the kernel table's choice. */
#ifndef ATTN_CPU_FEATURES_H
#define ATTN_CPU_FEATURES_H
#include <stdbool.h>
bool attn_cpu_has_avx2(void);   /* AVX2, FMA, F16C, and the system saves ymm */
bool attn_cpu_has_avx512(void); /* AVX-512 F, BW, DQ, VL besides, and the system saves zmm */
bool attn_cpu_has_avx512_bf16(void); /* AVX512-BF16 besides */
bool attn_cpu_has_avx512_vnni(void); /* AVX-512 and AVX512-VNNI */
bool attn_cpu_has_amx(void);         /* AMX-TILE and AMX-BF16 besides, and the system saves tiles */
bool attn_cpu_may_use_amx(void);     /* asks the kernel to lend this process the tiles, which it does once and for all */
#endif
