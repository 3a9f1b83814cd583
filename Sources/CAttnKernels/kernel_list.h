/* One row per ISA, best first: declares, selects, tests and times every variant.
 *   ISA(name, tables, whether this machine has it, whether this process may use it: asked when it is about to)
 * `tables` is the ISA whose kernels for float and double tensors it uses; one that adds only products borrows the others.
 * ISAs with kernels of their own for bfloat16 tensors, where the others widen them to float:
 *   BF16(tables, whether this machine has what they need besides)
 * and kernels that have attention and matrix products alone, for tensors of one dtype at one precision; a later row
 * goes before an earlier one:
 *   PRODUCTS(tables or name, kernels, dtype, precision, whether this machine has what they need besides) */
#if defined(__x86_64__)
#define ATTN_ISA_LIST(ISA)                                       \
  ISA(amx, avx512, attn_cpu_has_amx(), attn_cpu_may_use_amx())   \
  ISA(avx512, avx512, attn_cpu_has_avx512(), true)               \
  ISA(avx2, avx2, attn_cpu_has_avx2(), true)                     \
  ISA(portable, portable, true, true)
#define ATTN_BF16_LIST(BF16) BF16(avx512, attn_cpu_has_avx512_bf16())
#define ATTN_PRODUCTS_LIST(PRODUCTS)                                            \
  PRODUCTS(avx512, medium, ATTN_F32, ATTN_MEDIUM, attn_cpu_has_avx512_bf16()) \
  PRODUCTS(amx, highest, ATTN_F32, ATTN_HIGHEST, attn_cpu_has_amx())          \
  PRODUCTS(amx, high, ATTN_F32, ATTN_HIGH, attn_cpu_has_amx())                \
  PRODUCTS(amx, medium, ATTN_F32, ATTN_MEDIUM, attn_cpu_has_amx())            \
  PRODUCTS(amx, float16, ATTN_F16, ATTN_HIGHEST, attn_cpu_has_amx())          \
  PRODUCTS(amx, bfloat16, ATTN_BF16, ATTN_HIGHEST, attn_cpu_has_amx())
#elif defined(__aarch64__)
#define ATTN_ISA_LIST(ISA) \
  ISA(neon, neon, true, true)    \
  ISA(portable, portable, true, true)
#define ATTN_BF16_LIST(BF16)
#define ATTN_PRODUCTS_LIST(PRODUCTS)
#else
#define ATTN_ISA_LIST(ISA) ISA(portable, portable, true, true)
#define ATTN_BF16_LIST(BF16)
#define ATTN_PRODUCTS_LIST(PRODUCTS)
#endif

/* The kernels for quantised weights, best first, with the ISA from which on they are taken:
 *   QUANT(name, ISA, whether this machine has it) */
#if defined(__x86_64__)
#define ATTN_QUANT_LIST(QUANT)                           \
  QUANT(avx512_vnni, avx512, attn_cpu_has_avx512_vnni()) \
  QUANT(avx2, avx2, attn_cpu_has_avx2())                 \
  QUANT(portable, portable, true)
#elif defined(__aarch64__)
#define ATTN_QUANT_LIST(QUANT) \
  QUANT(neon, neon, true)      \
  QUANT(portable, portable, true)
#else
#define ATTN_QUANT_LIST(QUANT) QUANT(portable, portable, true)
#endif
