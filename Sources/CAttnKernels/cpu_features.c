/* Detection by cpuid; the compiler's builtin also checks XCR0 for the registers the system saves. */
#define _GNU_SOURCE
#include "cpu_features.h"

#include "CAttnKernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

static bool has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

bool attn_cpu_has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

#ifdef ATTN_AVX512_EMULATED /* of the tests alone: Tests/Kernels/avx512_emulated has the intrinsics */
#define HAS_EXTENSION(name) true
#else
#define HAS_EXTENSION(name) __builtin_cpu_supports(name)
#endif

bool attn_cpu_has_avx512(void) {
  return attn_cpu_has_avx2() && HAS_EXTENSION("avx512f") && HAS_EXTENSION("avx512bw") && HAS_EXTENSION("avx512dq")
      && HAS_EXTENSION("avx512vl");
}

bool attn_cpu_has_avx512_bf16(void) { return attn_cpu_has_avx512() && HAS_EXTENSION("avx512bf16"); }

bool attn_cpu_has_avx512_vnni(void) { return attn_cpu_has_avx512() && HAS_EXTENSION("avx512vnni"); }

#define AMX_BF16 (1u << 22) /* of leaf 7, edx */
#define AMX_TILE (1u << 24)
#define TILE_CONFIG 17 /* components of the state that the system saves */
#define TILE_DATA 18

static bool machine_has_amx(void) {
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE)) return false;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low >> TILE_CONFIG & low >> TILE_DATA & 1;
}

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_GET_XCOMP_PERM 0x1022
#define ARCH_REQ_XCOMP_PERM 0x1023

/* Threads and children inherit it. Linux before 5.16 does not lend tiles, nor does it where a signal stack is too small. */
static bool request_tiles(void) {
  uint64_t granted = 0;
  syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
  return syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &granted) == 0 && granted >> TILE_DATA & 1;
}
#else
static bool request_tiles(void) { return false; }
#endif

#ifdef ATTN_AMX_EMULATED /* of the tests alone: Tests/Kernels/amx_emulator.c carries the instructions out */
bool attn_cpu_has_amx(void) { return attn_cpu_has_avx512_bf16(); }
bool attn_cpu_may_use_amx(void) { return !machine_has_amx() || request_tiles(); }
#else
bool attn_cpu_has_amx(void) { return attn_cpu_has_avx512_bf16() && machine_has_amx(); }
bool attn_cpu_may_use_amx(void) { return request_tiles(); }
#endif
#else
bool attn_cpu_has_avx512_vnni(void) { return false; }
bool attn_cpu_has_amx(void) { return false; }
bool attn_cpu_may_use_amx(void) { return false; }
bool attn_cpu_has_avx512_bf16(void) { return false; }
bool attn_cpu_has_avx2(void) { return false; }
bool attn_cpu_has_avx512(void) { return false; }
#endif

#if defined(__aarch64__)
#define HAS_NEON true
#else
#define HAS_NEON false
#endif

const char *attn_cpu_feature(int n) {
  const struct { const char *name; bool has; } all[] = {
    { "avx2", attn_cpu_has_avx2() },
    { "avx512", attn_cpu_has_avx512() },
    { "avx512_vnni", attn_cpu_has_avx512_vnni() },
    { "avx512_bf16", attn_cpu_has_avx512_bf16() },
    { "amx", attn_cpu_has_amx() },
    { "neon", HAS_NEON },
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].has && n-- == 0) return all[i].name;
  return NULL;
}
