/* Guard pages, scalar conversions written by the book, and strided views. */
#define _GNU_SOURCE
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

/* ---- guard pages ---- */

/* Slots are mapped once and used again by every case: mapping is slow, above all under an emulator. */
typedef struct slot {
  char *first; /* after the guard page */
  size_t inside;
  char *data; /* of the buffer that lies here now */
  size_t bytes;
} slot;
#define SLOTS 24
static slot slots[SLOTS];
static int used, inputs, seals;
static bool sealed;
static guard_side side;

void guard_choose(guard_side new_side) { side = new_side; }

static void *need(void *p) {
  if (p && p != MAP_FAILED) return p;
  fputs("the test program itself is out of memory\n", stderr);
  exit(2);
}

void *guard_new(size_t bytes, size_t alignment) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (used == SLOTS) need(NULL);
  slot *s = &slots[used++];
  if (!s->first || s->inside < bytes) {
    if (s->first) munmap(s->first - page, s->inside + 2 * page);
    s->inside = 4 * page;
    while (s->inside < bytes) s->inside *= 2;
    char *all = need(mmap(NULL, s->inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    s->first = all + page;
    if (mprotect(s->first, s->inside, PROT_READ | PROT_WRITE) != 0) need(NULL);
  }
  char *data = side == GUARD_BEFORE ? s->first : s->first + (s->inside - bytes) / alignment * alignment;
  memset(data, 0xff, bytes);
  s->data = data;
  s->bytes = bytes;
  return data;
}

static void protect_inputs(int protection) {
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < inputs; i++) {
    if (!slots[i].bytes) continue;
    const uintptr_t from = (uintptr_t)slots[i].data / page * page;
    if (mprotect((void *)from, (uintptr_t)slots[i].data + slots[i].bytes - from, protection) != 0) need(NULL);
  }
}

void guard_seal(void) {
  if (!inputs) inputs = used;
  sealed = ++seals % 4 == 0;
  if (sealed) protect_inputs(PROT_READ);
}

void guard_open(void) {
  if (sealed) protect_inputs(PROT_READ | PROT_WRITE);
  sealed = false;
}

void guard_return(void) { used--; }

void guard_reset(void) {
  guard_open();
  used = inputs = 0;
}

/* ---- elements ---- */

static int fraction_bits(attn_dtype dtype) { return dtype == ATTN_F16 ? 10 : 7; }
static int lowest_exponent(attn_dtype dtype) { return dtype == ATTN_F16 ? -14 : -126; }
static int infinity_pattern(attn_dtype dtype) { return dtype == ATTN_F16 ? 0x7c00 : 0x7f80; }

double half_value(attn_dtype dtype, uint16_t pattern) {
  const int bits = fraction_bits(dtype), magnitude = pattern & 0x7fff, infinite = infinity_pattern(dtype);
  const double sign = pattern & 0x8000 ? -1 : 1;
  if (magnitude > infinite) return NAN;
  if (magnitude == infinite) return sign * INFINITY;
  const int exponent = magnitude >> bits, fraction = magnitude & ((1 << bits) - 1);
  if (exponent == 0) return sign * ldexp(fraction, lowest_exponent(dtype) - bits);
  return sign * ldexp((1 << bits) + fraction, lowest_exponent(dtype) + exponent - 1 - bits);
}

uint16_t half_pattern(attn_dtype dtype, double value) {
  const int bits = fraction_bits(dtype), infinite = infinity_pattern(dtype), lowest = lowest_exponent(dtype);
  if (isnan(value)) return (uint16_t)(infinite | 1 << (bits - 1));
  const int sign = signbit(value) ? 0x8000 : 0;
  if (isinf(value)) return (uint16_t)(sign | infinite);
  int exponent;
  frexp(value, &exponent);
  exponent = value == 0 || exponent - 1 < lowest ? lowest : exponent - 1;
  if (exponent > 127) return (uint16_t)(sign | infinite);
  /* In units of the last place; a carry out of the fraction lands in the exponent, where it belongs. */
  const int units = (int)rint(ldexp(fabs(value), bits - exponent));
  const int pattern = ((exponent - lowest) << bits) + units;
  return (uint16_t)(sign | (pattern < infinite ? pattern : infinite));
}

double element_get(attn_dtype dtype, const void *at) {
  float single;
  double real;
  uint16_t half;
  switch (dtype) {
    case ATTN_F32: memcpy(&single, at, 4); return (double)single;
    case ATTN_F64: memcpy(&real, at, 8); return real;
    case ATTN_BOOL: return *(const uint8_t *)at != 0;
    default: memcpy(&half, at, 2); return half_value(dtype, half);
  }
}

void element_put(attn_dtype dtype, void *at, double value) {
  const float single = (float)value;
  const uint16_t half = dtype == ATTN_F16 || dtype == ATTN_BF16 ? half_pattern(dtype, value) : 0;
  switch (dtype) {
    case ATTN_F32: memcpy(at, &single, 4); return;
    case ATTN_F64: memcpy(at, &value, 8); return;
    case ATTN_BOOL: *(uint8_t *)at = value != 0; return;
    default: memcpy(at, &half, 2);
  }
}

double element_roundoff(attn_dtype dtype) {
  switch (dtype) {
    case ATTN_F16: return 0x1p-11;
    case ATTN_BF16: return 0x1p-8;
    case ATTN_F64: return 0x1p-53;
    default: return 0x1p-24;
  }
}

double element_tiny(attn_dtype dtype) {
  switch (dtype) {
    case ATTN_F16: return 0x1p-25;
    case ATTN_F64: return 0x1p-1022;
    default: return 0x1p-125;
  }
}

const char *dtype_name(attn_dtype dtype) {
  static const char *const names[] = { "f32", "f16", "bf16", "f64", "bool" };
  return (unsigned)dtype < 5 ? names[dtype] : "none";
}

bool same_bits(double a, double b) { return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0; }

/* ---- views ---- */

view view_new(attn_dtype dtype, int64_t a, int64_t b, int64_t c, view_layout layout) {
  static const int orders[4][3] = { { 0, 1, 2 }, { 1, 0, 2 }, { 0, 2, 1 }, { 2, 1, 0 } }; /* outermost first */
  view v = { .dtype = dtype, .extent = { a, b, c } };
  /* Most callers have dense elements; those are also the kernels' fast paths. */
  const int *order = orders[layout == VIEW_DENSE ? 0 : random_chance(3) ? random_int(2, 3) : random_int(0, 1)];
  int64_t step = layout != VIEW_DENSE && random_chance(4) ? random_int(2, 3) : 1, last = 0, first = 0;
  for (int i = 2; i >= 0; i--) {
    const int dim = order[i];
    if (layout == VIEW_BROADCAST && random_chance(6)) continue;
    const int64_t reach = (v.extent[dim] > 0 ? v.extent[dim] - 1 : 0) * step;
    const bool backwards = layout != VIEW_DENSE && random_chance(5);
    v.stride[dim] = backwards ? -step : step;
    if (backwards) first += reach;
    last += reach;
    step = last + 1 + (layout != VIEW_DENSE && random_chance(2) ? random_int(1, 3) : 0);
  }
  const size_t size = attn_dtype_size(dtype);
  v.bytes = a && b && c ? (size_t)(last + 1) * size : 0;
  v.buffer = guard_new(v.bytes, size);
  v.data = v.buffer + (size_t)first * size;
  return v;
}

char *view_at(const view *v, int64_t a, int64_t b, int64_t c) {
  return v->data + (a * v->stride[0] + b * v->stride[1] + c * v->stride[2]) * (int64_t)attn_dtype_size(v->dtype);
}

double view_get(const view *v, int64_t a, int64_t b, int64_t c) { return element_get(v->dtype, view_at(v, a, b, c)); }

void view_put(const view *v, int64_t a, int64_t b, int64_t c, double value) {
  element_put(v->dtype, view_at(v, a, b, c), value);
}

int64_t view_count(const view *v) { return v->extent[0] * v->extent[1] * v->extent[2]; }

void view_gather(const view *v, double *out) {
  for (int64_t a = 0; a < v->extent[0]; a++)
    for (int64_t b = 0; b < v->extent[1]; b++)
      for (int64_t c = 0; c < v->extent[2]; c++) *out++ = view_get(v, a, b, c);
}

void view_check_gaps(const view *v, const char *what) {
  const size_t size = attn_dtype_size(v->dtype);
  if (v->bytes == (size_t)view_count(v) * size) return;
  char *is_element = need(calloc(v->bytes + 1, 1));
  for (int64_t a = 0; a < v->extent[0]; a++)
    for (int64_t b = 0; b < v->extent[1]; b++)
      for (int64_t c = 0; c < v->extent[2]; c++) memset(is_element + (view_at(v, a, b, c) - v->buffer), 1, size);
  for (size_t i = 0; i < v->bytes; i++)
    if (!is_element[i] && (unsigned char)v->buffer[i] != 0xff) {
      check_fail("byte %zu of %s lies between the elements and was written", i, what);
      break;
    }
  free(is_element);
}
