/* One row per ISA, best first: declares, selects, tests and times every variant.
 *   ISA(name, whether this machine has it) */
#if defined(__x86_64__)
#define ATTN_ISA_LIST(ISA)            \
  ISA(avx512, attn_cpu_has_avx512())  \
  ISA(avx2, attn_cpu_has_avx2())      \
  ISA(portable, true)
#elif defined(__aarch64__)
#define ATTN_ISA_LIST(ISA) \
  ISA(neon, true)          \
  ISA(portable, true)
#else
#define ATTN_ISA_LIST(ISA) ISA(portable, true)
#endif
