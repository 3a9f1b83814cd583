/* The words that every vector vocabulary shares, written with the compiler's vector extension.
 *
 * The including header has defined: real (float or double), bits (int32_t or int64_t), VEC_BYTES.
 * It goes on to define the words that differ: v_fma, v_exp2, v_zip_lo, v_zip_hi, v_from_f16, v_to_f16.
 * Plain + - * / work on vec. A comparison gives a lanemask: all bits of a lane set or none. */
#include <stdint.h>
#include <string.h>

#define LANES ((int)(VEC_BYTES / sizeof(real)))

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef bits ivec __attribute__((vector_size(VEC_BYTES)));
typedef ivec lanemask;
typedef uint16_t halfvec __attribute__((vector_size(VEC_BYTES * 2 / sizeof(real)))); /* LANES 16-bit patterns */

typedef int8_t int8vec __attribute__((vector_size(VEC_BYTES / sizeof(real)))); /* LANES bytes */

#define WORD static inline __attribute__((always_inline, unused))

/* From any address: pairs of 16-bit numbers are moved as floats. */
WORD vec v_load(const void *p) { vec v; memcpy(&v, p, sizeof v); return v; }
WORD void v_store(real *p, vec v) { memcpy(p, &v, sizeof v); }
WORD halfvec v_load_half(const uint16_t *p) { halfvec v; memcpy(&v, p, sizeof v); return v; }
WORD void v_store_half(uint16_t *p, halfvec v) { memcpy(p, &v, sizeof v); }
WORD vec v_from_i8(const int8_t *p) { int8vec v; memcpy(&v, p, sizeof v); return __builtin_convertvector(v, vec); }
WORD vec v_set1(real x) { return x - (vec){0}; }
WORD vec v_select(lanemask m, vec a, vec b) { return (vec)(((ivec)a & m) | ((ivec)b & ~m)); }
#ifndef HAS_MAX
/* The larger; b where either is NaN. */
WORD vec v_max(vec a, vec b) { return v_select(a > b, a, b); }
WORD vec v_min(vec a, vec b) { return v_select(a < b, a, b); }
#endif
WORD vec v_abs(vec a) { return (vec)((ivec)a & (((ivec){0} - 1) ^ ((ivec){0} + (bits)1 << (sizeof(bits) * 8 - 1)))); }
WORD vec v_sign_of(vec magnitude, vec sign) { /* magnitude must not be negative */
  return (vec)((ivec)magnitude | ((ivec)sign & ((ivec){0} + (bits)1 << (sizeof(bits) * 8 - 1))));
}

/* Vectors that are worked on side by side, each step for all of them: where a step waits for the one before it, the others'
 * run. The compiler would put the steps of one vector after the other again; it cannot where v_together stands. */
#define MANY 4
#define EACH(I, COUNT) _Pragma("clang loop unroll(full)") for (int I = 0; I < (COUNT); I++)
WORD void v_together(const int count, vec *v) {
#if defined(__x86_64__) && !(defined(ATTN_AVX512_EMULATED) && VEC_BYTES == 64)
  if (count == MANY) __asm__("" : "+v"(v[0]), "+v"(v[1]), "+v"(v[2]), "+v"(v[3]));
#elif defined(__aarch64__)
  if (count == MANY) __asm__("" : "+w"(v[0]), "+w"(v[1]), "+w"(v[2]), "+w"(v[3]));
#else
  (void)count, (void)v;
#endif
}

/* Neighbours exchanged: lanes 1, 0, 3, 2, ... */
WORD vec v_swap(vec v) {
  vec swapped;
  for (int i = 0; i < LANES; i++) swapped[i] = v[i ^ 1];
  return swapped;
}
/* The largest lane; NaN only if all are. */
WORD real v_highest(vec v) { return __builtin_reduce_max(v); }
WORD bool v_any(lanemask m) {
  bits any = 0;
  for (int i = 0; i < LANES; i++) any |= m[i];
  return any != 0;
}
