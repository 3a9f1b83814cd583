/* Detection by cpuid; the compiler's builtin also checks XCR0 for the registers the system saves. */
#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

bool attn_cpu_has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool attn_cpu_has_avx512(void) {
  return attn_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
      && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool attn_cpu_has_avx512_bf16(void) { return attn_cpu_has_avx512() && __builtin_cpu_supports("avx512bf16"); }

bool attn_cpu_has_avx512_vnni(void) { return attn_cpu_has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#else
bool attn_cpu_has_avx512_vnni(void) { return false; }
bool attn_cpu_has_avx512_bf16(void) { return false; }
bool attn_cpu_has_avx2(void) { return false; }
bool attn_cpu_has_avx512(void) { return false; }
#endif
