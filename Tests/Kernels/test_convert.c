/* load_row and store_row: all half patterns, rounding to nearest even, strides and odd counts. */
#include <math.h>
#include <string.h>

#include "tests.h"

static void load_every_half(const subject *s, attn_dtype dtype) {
  guard_reset();
  uint16_t *x = guard_new(65536 * 2, 2);
  for (int i = 0; i < 65536; i++) x[i] = (uint16_t)i;
  guard_seal();
  float *reals = guard_new(65536 * 4, 4);
  check_context("all %s patterns", dtype_name(dtype));
  s->kernels->load_row(dtype, x, 1, 65536, reals);
  for (int i = 0; i < 65536; i++) {
    const double expected = half_value(dtype, (uint16_t)i);
    CHECK(same_bits((double)reals[i], expected), "pattern %04x is %g, expected %g", i, (double)reals[i], expected);
  }
}

static attn_dtype any_dtype(const subject *s, bool load) {
  /* Besides q's dtypes: boolean masks, and in double float32 masks and weights. */
  if (load && random_chance(4)) return ATTN_BOOL;
  if (s->real_dtype == ATTN_F64 && random_chance(2)) return ATTN_F32;
  return s->dtypes[random_int(0, s->dtype_count - 1)];
}

void test_load(const subject *s) {
  check_begin(s->isa, s->real, "load_row");
  for (int i = 1; i < s->dtype_count; i++) load_every_half(s, s->dtypes[i]);
  const size_t real = attn_dtype_size(s->real_dtype);
  for (int i = 0; i < check_trials(3000); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_dtype dtype = any_dtype(s, true);
    const int64_t n = random_int(0, 70);
    view x = view_new(dtype, 1, 1, n, (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST));
    for (int64_t j = 0; j < n; j++) view_put(&x, 0, 0, j, dtype == ATTN_BOOL ? random_chance(2) : random_normal());
    guard_seal();
    char *reals = guard_new((size_t)n * real, real);
    check_context("load %ld %s, stride %ld", (long)n, dtype_name(dtype), (long)x.stride[2]);
    s->kernels->load_row(dtype, x.data, x.stride[2], n, reals);
    for (int64_t j = 0; j < n; j++) {
      const double value = view_get(&x, 0, 0, j), got = element_get(s->real_dtype, reals + (size_t)j * real);
      const double expected = dtype != ATTN_BOOL ? value : value != 0 ? 0 : -INFINITY;
      CHECK(same_bits(got, expected), "element %ld is %g, expected %g", (long)j, got, expected);
    }
  }
  check_end();
}

/* The pattern that `from` must be rounded to; NaN must come out quiet. */
static void check_stored(attn_dtype dtype, float from, uint16_t got) {
  const uint16_t expected = half_pattern(dtype, (double)from);
  if (isnan(from)) {
    const int quiet = dtype == ATTN_F16 ? 0x7e00 : 0x7fc0;
    CHECK((got & quiet) == quiet, "NaN is stored as %04x", got);
  } else {
    CHECK(got == expected, "%a is stored as %04x, expected %04x", (double)from, got, expected);
  }
}

static void store_batch(const subject *s, attn_dtype dtype, const float *values, int count) {
  guard_reset();
  float *reals = guard_new((size_t)count * 4, 4);
  memcpy(reals, values, (size_t)count * 4);
  guard_seal();
  uint16_t *out = guard_new((size_t)count * 2, 2);
  check_context("store %d %s", count, dtype_name(dtype));
  s->kernels->store_row(dtype, reals, count, out, 1);
  for (int i = 0; i < count; i++) check_stored(dtype, reals[i], out[i]);
}

/* Every half value, the point halfway to the next, and that point's neighbours; overflow is the last of them. */
static void store_borders(const subject *s, attn_dtype dtype) {
  static float values[4096];
  const int infinite = dtype == ATTN_F16 ? 0x7c00 : 0x7f80;
  int count = 0;
  for (int pattern = 0; pattern < infinite; pattern += check_quick ? 5 : 1) {
    const double low = half_value(dtype, (uint16_t)pattern);
    /* The last value has no finite neighbour above; its step is the one below. */
    const int from = pattern + 1 < infinite ? pattern : pattern - 1;
    const double step = half_value(dtype, (uint16_t)(from + 1)) - half_value(dtype, (uint16_t)from);
    const float exact = (float)low, halfway = (float)(low + step / 2);
    const float some[4] = { exact, halfway, nextafterf(halfway, 0), nextafterf(halfway, INFINITY) };
    for (int i = 0; i < 4; i++) {
      values[count++] = some[i];
      values[count++] = -some[i];
    }
    if (count == 4096 || pattern + 5 >= infinite) {
      store_batch(s, dtype, values, count);
      count = 0;
    }
  }
}

static void store_patterns(const subject *s, attn_dtype dtype) {
  static float values[4001];
  static const uint32_t special[] = { 0, 0x80000000, 1, 0x80000001, 0x7f800000, 0xff800000, 0x7f800001, 0xff800001,
                                      0x7fc00000, 0x7fffffff, 0xffffffff, 0x7f7fffff, 0xff7fffff, 0x7f80ffff,
                                      0x7fbfffff, 0x477fefff, 0x477ff000, 0x477fffff, 0x47800000, 0x00800000,
                                      0x007fffff };
  for (int batch = 0; batch < check_trials(100); batch++) {
    for (int i = 0; i < 4001; i++) {
      uint32_t pattern = (uint32_t)random_bits();
      if (batch % 2) /* around binary16's range */
        pattern = (pattern & 0x80ffffff) | (uint32_t)random_int(0x32, 0x48) << 24;
      if (batch == 0 && (size_t)i < sizeof special / 4) pattern = special[i];
      memcpy(&values[i], &pattern, 4);
    }
    store_batch(s, dtype, values, 4001);
  }
}

void test_store(const subject *s) {
  check_begin(s->isa, s->real, "store_row");
  guard_choose(GUARD_BEHIND);
  for (int i = 1; i < s->dtype_count; i++) {
    store_borders(s, s->dtypes[i]);
    store_patterns(s, s->dtypes[i]);
  }
  const size_t real = attn_dtype_size(s->real_dtype);
  for (int i = 0; i < check_trials(3000); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_dtype dtype = any_dtype(s, false);
    const int64_t n = random_int(0, 70);
    char *reals = guard_new((size_t)n * real, real);
    for (int64_t j = 0; j < n; j++) element_put(s->real_dtype, reals + (size_t)j * real, random_normal());
    guard_seal();
    view out = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
    check_context("store %ld %s, stride %ld", (long)n, dtype_name(dtype), (long)out.stride[2]);
    s->kernels->store_row(dtype, reals, n, out.data, out.stride[2]);
    for (int64_t j = 0; j < n; j++) {
      double expected;
      element_put(dtype, &expected, element_get(s->real_dtype, reals + (size_t)j * real));
      expected = element_get(dtype, &expected);
      CHECK(same_bits(view_get(&out, 0, 0, j), expected), "element %ld is %g, expected %g", (long)j,
            view_get(&out, 0, 0, j), expected);
    }
    view_check_gaps(&out, "out");
  }
  check_end();
}
