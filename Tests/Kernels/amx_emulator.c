/* Decodes and executes LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD(T1), TILESTORED and TDPBF16PS, as Intel's
 * manual writes them: VEX with a three-byte prefix, map 0F38, W 0, L 0. */
#define _GNU_SOURCE
#include "amx_emulator.h"

#include <signal.h>
#include <stddef.h>

static void (*refused)(int);
static volatile sig_atomic_t used;

bool amx_emulator_used(void) { return used; }

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

typedef struct tile { uint8_t row[16][64]; } tile;

/* As LDTILECFG reads it. */
typedef struct config {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} config;
_Static_assert(sizeof(config) == 64, "the instruction's operand");

static __thread config configured; /* palette 0: no tiles */
static __thread tile tiles[8];

typedef struct instruction {
  uint8_t opcode, prefix, mod, reg, rm, v; /* prefix: 0 none, 1 66, 2 F3, 3 F2 */
  const uint8_t *end;
  char *address;  /* of a memory operand */
  int64_t stride; /* its index, scaled */
} instruction;

static int64_t register_of(const ucontext_t *c, int number) {
  static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
  return c->uc_mcontext.gregs[order[number]];
}

static int32_t displacement(const uint8_t **at, int bytes) {
  int32_t wide;
  if (bytes == 1) return (int8_t)*(*at)++;
  memcpy(&wide, *at, 4);
  *at += 4;
  return wide;
}

static void decode_memory(const ucontext_t *c, const uint8_t *at, int high_base, int high_index, instruction *in) {
  int64_t base = 0, shift = 0;
  bool relative = false, no_base = false;
  if (in->rm == 4) {
    const uint8_t sib = *at++;
    const int index = (sib >> 3 & 7) | high_index, low = sib & 7;
    if (index != 4) in->stride = register_of(c, index) << (sib >> 6);
    no_base = low == 5 && in->mod == 0;
    if (!no_base) base = register_of(c, low | high_base);
  } else if (in->rm == 5 && in->mod == 0) {
    relative = true;
  } else {
    base = register_of(c, in->rm | high_base);
  }
  if (in->mod == 1) shift = displacement(&at, 1);
  else if (in->mod == 2 || relative || no_base) shift = displacement(&at, 4);
  in->end = at;
  in->address = (char *)(relative ? (int64_t)at : base) + shift;
}

static bool decode(const ucontext_t *c, instruction *in) {
  const uint8_t *at = (const uint8_t *)c->uc_mcontext.gregs[REG_RIP];
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || at[2] & 0x84) return false;
  const int high_index = at[1] & 0x40 ? 0 : 8, high_base = at[1] & 0x20 ? 0 : 8;
  *in = (instruction){ .opcode = at[3], .prefix = at[2] & 3, .mod = at[4] >> 6, .reg = at[4] >> 3 & 7, .rm = at[4] & 7,
                       .v = ~at[2] >> 3 & 15, .end = at + 5 };
  if (!(at[1] & 0x80) || in->v > 7) return false; /* there are eight tiles */
  if (in->mod != 3) decode_memory(c, at + 5, high_base, high_index, in);
  return true;
}

static bool load_config(const char *from) {
  config next;
  memcpy(&next, from, sizeof next);
  if (next.palette > 1) return false;
  for (int i = 0; i < 16; i++)
    if (next.palette && (i < 8 ? next.bytes[i] > 64 || next.rows[i] > 16 || !next.bytes[i] != !next.rows[i]
                               : next.bytes[i] || next.rows[i]))
      return false;
  memset(tiles, 0, sizeof tiles);
  if (next.palette) configured = next;
  else memset(&configured, 0, sizeof configured);
  return true;
}

static bool usable(int t) { return configured.palette && configured.rows[t]; }

typedef float lanes __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));

/* c[m][n] += (sum of the even terms) + (sum of the odd terms), each of them a chain of fused multiply-adds from 0. */
__attribute__((target("avx2,fma"), noinline)) static void multiply_now(int c, int a, int b) {
  const int pairs = configured.bytes[a] / 4, bytes = configured.bytes[c];
  lanes even[16], odd[16];
  for (int k = 0; k < pairs; k++) {
    words row;
    memcpy(&row, tiles[b].row[k], sizeof row);
    even[k] = (lanes)(row << 16);
    odd[k] = (lanes)(row & 0xffff0000u);
  }
  tile result;
  memset(&result, 0, sizeof result);
  for (int m = 0; m < configured.rows[c]; m++) {
    lanes first = {0}, second = {0}, sum;
    for (int k = 0; k < pairs; k++) {
      uint32_t pair;
      memcpy(&pair, tiles[a].row[m] + 4 * k, 4);
      const words both = (words){0} + pair;
      first = __builtin_elementwise_fma((lanes)(both << 16), even[k], first);
      second = __builtin_elementwise_fma((lanes)(both & 0xffff0000u), odd[k], second);
    }
    memcpy(&sum, tiles[c].row[m], sizeof sum);
    sum += first + second;
    memcpy(result.row[m], &sum, (size_t)bytes);
  }
  tiles[c] = result;
}

/* Subnormal numbers are 0, as operands and as results; to nearest even. */
static void multiply(int c, int a, int b) {
  static void (*volatile call)(int, int, int) = multiply_now; /* so that no arithmetic moves out of the mode */
  const uint32_t saved = _mm_getcsr();
  _mm_setcsr(0x9fc0); /* flush to zero, subnormals are zero, to nearest, no exceptions */
  call(c, a, b);
  _mm_setcsr(saved);
}

static void load(int t, const instruction *in) {
  memset(&tiles[t], 0, sizeof tiles[t]);
  for (int i = 0; i < configured.rows[t]; i++)
    memcpy(tiles[t].row[i], in->address + i * in->stride, configured.bytes[t]);
}

static void store(int t, const instruction *in) {
  for (int i = 0; i < configured.rows[t]; i++)
    memcpy(in->address + i * in->stride, tiles[t].row[i], configured.bytes[t]);
}

/* false: not one of these instructions, or a use of it that faults. */
static bool execute(const instruction *in) {
  const bool memory = in->mod != 3, sib = memory && in->rm == 4;
  const int which = in->opcode << 4 | in->prefix;
  switch (which) {
    case 0x490:
      if (memory) return in->reg == 0 && load_config(in->address);
      if (in->reg || in->rm) return false;
      memset(&configured, 0, sizeof configured);
      memset(tiles, 0, sizeof tiles);
      return true;
    case 0x491:
      if (!memory || in->reg) return false;
      memcpy(in->address, &configured, sizeof configured);
      return true;
    case 0x493:
      if (memory || in->rm || !usable(in->reg)) return false;
      memset(&tiles[in->reg], 0, sizeof *tiles);
      return true;
    case 0x4b1:
    case 0x4b3:
      if (!sib || !usable(in->reg)) return false;
      load(in->reg, in);
      return true;
    case 0x4b2:
      if (!sib || !usable(in->reg)) return false;
      store(in->reg, in);
      return true;
    case 0x5c2:
      if (memory || !usable(in->reg) || !usable(in->rm) || !usable(in->v) || in->reg == in->rm || in->reg == in->v
          || in->rm == in->v || configured.rows[in->reg] != configured.rows[in->rm]
          || configured.bytes[in->reg] != configured.bytes[in->v]
          || configured.bytes[in->rm] != 4 * configured.rows[in->v])
        return false;
      multiply(in->reg, in->rm, in->v);
      return true;
    default: return false;
  }
}

static void on_illegal(int number, siginfo_t *info, void *context) {
  (void)info;
  ucontext_t *c = context;
  instruction in;
  if (decode(c, &in) && execute(&in)) {
    c->uc_mcontext.gregs[REG_RIP] = (greg_t)in.end;
    used = 1;
  } else {
    refused(number);
  }
}

void amx_emulator_install(void (*otherwise)(int)) {
  refused = otherwise;
  struct sigaction action = { .sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO | SA_NODEFER };
  sigaction(SIGILL, &action, NULL);
}

#ifdef AMX_EMULATOR_PRELOAD
static void give_up(int number) { signal(number, SIG_DFL); }
__attribute__((constructor)) static void preload(void) { amx_emulator_install(give_up); }
#endif
#else
void amx_emulator_install(void (*otherwise)(int)) {
  refused = otherwise;
  signal(SIGILL, refused);
}
#endif
