/* One row per ISA, best first: declares, selects, tests and times every variant.
 *   ISA(name, whether this machine has it)
 * and the ISAs with kernels of their own for bfloat16 tensors, where the others widen them to float:
 *   BF16(name, whether this machine has what they need besides) */
#if defined(__x86_64__)
#define ATTN_ISA_LIST(ISA)            \
  ISA(avx512, attn_cpu_has_avx512())  \
  ISA(avx2, attn_cpu_has_avx2())      \
  ISA(portable, true)
#define ATTN_BF16_LIST(BF16) BF16(avx512, attn_cpu_has_avx512_bf16())
#elif defined(__aarch64__)
#define ATTN_ISA_LIST(ISA) \
  ISA(neon, true)          \
  ISA(portable, true)
#define ATTN_BF16_LIST(BF16)
#else
#define ATTN_ISA_LIST(ISA) ISA(portable, true)
#define ATTN_BF16_LIST(BF16)
#endif
