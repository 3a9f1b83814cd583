/* rotary_row and dropout_row against their formulas: strides, odd counts, in place, half types. */
#include <math.h>
#include <stdlib.h>

#include "tests.h"

/* A row of `n` elements, its values beside it, and where to write: behind the inputs, or over them. */
typedef struct operands {
  view x, out;
  bool in_place;
  double values[600];
} operands;

static operands operands_new(attn_dtype dtype, int64_t n) {
  operands o = { .in_place = random_chance(3) };
  o.x = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
  for (int64_t j = 0; j < n; j++) view_put(&o.x, 0, 0, j, 2 * random_normal());
  view_gather(&o.x, o.values);
  return o;
}

static void operands_place(operands *o, attn_dtype dtype, int64_t n) {
  if (!o->in_place) guard_seal();
  o->out = o->in_place ? o->x : view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
}

static void random_rotation(const subject *s) {
  const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
  const int64_t n = random_chance(5) ? random_int(1, 600) : random_int(1, 70);
  const size_t size = attn_dtype_size(s->real_dtype);
  operands o = operands_new(dtype, n);
  attn_rotary rotary = { .pairs = random_int(0, n / 2), .neighbours = random_chance(2), .back = random_chance(2) };
  const int64_t pairs = rotary.pairs;
  char *cosines = guard_new((size_t)pairs * size, size), *sines = guard_new((size_t)pairs * size, size);
  double c[300], t[300], expected[600], scale[600];
  for (int64_t i = 0; i < pairs; i++) {
    element_put(s->real_dtype, cosines + (size_t)i * size, random_normal());
    element_put(s->real_dtype, sines + (size_t)i * size, random_normal());
    c[i] = element_get(s->real_dtype, cosines + (size_t)i * size);
    t[i] = element_get(s->real_dtype, sines + (size_t)i * size) * (rotary.back ? -1 : 1);
  }
  operands_place(&o, dtype, n);
  rotary.shape = (attn_rows){ dtype, n, o.x.stride[2], o.out.stride[2], false };
  check_context("rotation of %ld of %ld %s, neighbours %d, back %d, strides %ld %ld, in place %d", (long)(2 * pairs), (long)n,
                dtype_name(dtype), rotary.neighbours, rotary.back, (long)o.x.stride[2], (long)o.out.stride[2], o.in_place);
  s->kernels->rotary_row(&rotary, o.x.data, cosines, sines, o.out.data);
  for (int64_t j = 0; j < n; j++) expected[j] = o.values[j], scale[j] = 0;
  for (int64_t i = 0; i < pairs; i++) {
    const int64_t first = rotary.neighbours ? 2 * i : i, second = rotary.neighbours ? 2 * i + 1 : i + pairs;
    const double a = o.values[first], b = o.values[second];
    expected[first] = a * c[i] - b * t[i];
    expected[second] = b * c[i] + a * t[i];
    scale[first] = fabs(a * c[i]) + fabs(b * t[i]);
    scale[second] = fabs(b * c[i]) + fabs(a * t[i]);
  }
  for (int64_t j = 0; j < n; j++) {
    const double bound = 3 * s->roundoff * scale[j];
    const double rounding = scale[j] == 0 ? 0 : 1.01 * element_roundoff(dtype) * (fabs(expected[j]) + bound) + element_tiny(dtype);
    check_rounded(fabs(view_get(&o.out, 0, 0, j) - expected[j]), bound, rounding, "out", j);
  }
  view_check_gaps(&o.out, "out");
}

void test_rotary(const subject *s) {
  check_begin(s->isa, s->real, "rotary_row");
  for (int i = 0; i < check_trials(3000); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    random_rotation(s);
  }
  check_end();
}

/* Philox4x32-10, word by word. */
static uint32_t word_of(uint64_t seed, uint64_t draw, uint64_t element) {
  uint32_t k[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
  uint32_t c[4] = { (uint32_t)(element >> 2), (uint32_t)(element >> 34), (uint32_t)draw, (uint32_t)(draw >> 32) };
  for (int round = 0; round < 10; round++) {
    const uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    const uint32_t next[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a };
    for (int i = 0; i < 4; i++) c[i] = next[i];
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c[element & 3];
}

void test_dropout(const subject *s) {
  check_begin(s->isa, s->real, "dropout_row");
  for (int i = 0; i < check_trials(1000); i++) {
    guard_reset();
    const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
    const int64_t n = random_int(0, 300), first = random_chance(3) ? (int64_t)(random_bits() >> 8) : random_int(0, 200);
    const attn_dropout drop = { dtype, (uint32_t)random_bits(), 1.25, random_bits(), random_chance(2) ? random_bits() : 0 };
    operands o = operands_new(dtype, n);
    operands_place(&o, dtype, n);
    check_context("dropout of %ld %s from %ld, strides %ld %ld, in place %d", (long)n, dtype_name(dtype), (long)first,
                  (long)o.x.stride[2], (long)o.out.stride[2], o.in_place);
    s->kernels->dropout_row(&drop, first, n, o.x.data, o.x.stride[2], o.out.data, o.out.stride[2]);
    for (int64_t j = 0; j < n; j++) {
      const bool dropped = word_of(drop.seed, drop.draw, (uint64_t)(first + j)) < drop.threshold;
      const double expected = dropped ? 0 : 1.25 * o.values[j];
      check_rounded(fabs(view_get(&o.out, 0, 0, j) - expected), s->roundoff * fabs(expected),
                    1.01 * element_roundoff(dtype) * fabs(expected) + (dropped ? 0 : element_tiny(dtype)), "out", j);
    }
    view_check_gaps(&o.out, "out");
  }
  check_end();
}
