/* norm_row and sum_row against the formulas: strides, odd counts, in place, and outputs that go past the caches. */
#include <math.h>
#include <stdlib.h>

#include "tests.h"

typedef struct operands {
  attn_dtype dtype;
  int64_t n;
  view x, out;
  bool in_place;
  double *values; /* of x, before it is written over */
} operands;

static operands operands_new(const subject *s) {
  operands o = { .dtype = s->dtypes[random_int(0, s->dtype_count - 1)], .in_place = random_chance(3) };
  o.n = random_chance(4) ? random_int(1, 1000) : random_int(1, 70);
  const view_layout layout = random_chance(2) ? VIEW_DENSE : VIEW_STRIDED;
  o.x = view_new(o.dtype, 1, 1, o.n, layout);
  const double centre = random_chance(3) ? 100 * random_normal() : 0;
  for (int64_t j = 0; j < o.n; j++) view_put(&o.x, 0, 0, j, centre + 2 * random_normal());
  o.values = calloc((size_t)o.n, sizeof *o.values);
  view_gather(&o.x, o.values);
  return o;
}

/* After the inputs are sealed. */
static attn_rows operands_shape(operands *o) {
  o->out = o->in_place ? o->x : view_new(o->dtype, 1, 1, o->n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
  return (attn_rows){ o->dtype, o->n, o->x.stride[2], o->out.stride[2], !o->in_place && random_chance(2) };
}

static void *reals_new(const subject *s, int64_t n, double *values) {
  const size_t size = attn_dtype_size(s->real_dtype);
  char *reals = guard_new((size_t)n * size, size);
  for (int64_t j = 0; j < n; j++) {
    element_put(s->real_dtype, reals + (size_t)j * size, random_normal());
    values[j] = element_get(s->real_dtype, reals + (size_t)j * size);
  }
  return reals;
}

static void random_norm(const subject *s) {
  operands o = operands_new(s);
  double weight[1000], bias[1000];
  attn_norm norm = { .centred = random_chance(2), .eps = random_chance(2) ? 1e-5 : 0.1 };
  if (random_chance(2)) norm.weight = reals_new(s, o.n, weight);
  if (random_chance(2)) norm.bias = reals_new(s, o.n, bias);
  if (!o.in_place) guard_seal();
  norm.shape = operands_shape(&o);
  check_context("norm of %ld %s, centred %d, weight %d, bias %d, strides %ld %ld, stream %d, in place %d", (long)o.n,
                dtype_name(o.dtype), norm.centred, norm.weight != NULL, norm.bias != NULL, (long)norm.shape.x_column,
                (long)norm.shape.out_column, norm.shape.stream, o.in_place);
  void *scratch = guard_new((size_t)o.n * attn_dtype_size(s->real_dtype), attn_dtype_size(s->real_dtype));
  s->kernels->norm_row(&norm, o.x.data, o.out.data, scratch);
  guard_return();

  long double sum = 0, size = 0, squares = 0;
  for (int64_t j = 0; j < o.n; j++) sum += (long double)o.values[j], size += fabsl((long double)o.values[j]);
  const long double mean = norm.centred ? sum / (long double)o.n : 0;
  for (int64_t j = 0; j < o.n; j++) squares += ((long double)o.values[j] - mean) * ((long double)o.values[j] - mean);
  const double factor = (double)(1 / sqrtl(squares / (long double)o.n + (long double)norm.eps));
  for (int64_t j = 0; j < o.n; j++) {
    const double w = norm.weight ? weight[j] : 1, b = norm.bias ? bias[j] : 0, d = (double)((long double)o.values[j] - mean);
    const double expected = d * factor * w + b;
    /* Sums of 4 + 2 terms in the computing type for the mean and the variance, and the operations behind them. */
    const double lost = 12 * fabs(d) + (norm.centred ? 8 * (double)(size / (long double)o.n) : 0);
    const double bound = s->roundoff * (lost * factor * fabs(w) + 2 * fabs(expected) + 2 * fabs(b));
    const double rounding = 1.01 * element_roundoff(o.dtype) * (fabs(expected) + bound) + element_tiny(o.dtype);
    check_rounded(fabs(view_get(&o.out, 0, 0, j) - expected), bound, rounding, "out", j);
  }
  view_check_gaps(&o.out, "out");
  free(o.values);
}

void test_norm(const subject *s) {
  check_begin(s->isa, s->real, "norm_row");
  for (int i = 0; i < check_trials(3000); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    random_norm(s);
  }
  check_end();
}

static void random_sum(const subject *s) {
  operands o = operands_new(s);
  const bool is_sum = random_chance(2);
  view added = view_new(o.dtype, 1, 1, o.n, (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST));
  for (int64_t j = 0; j < o.n; j++) view_put(&added, 0, 0, j, random_normal());
  if (!o.in_place) guard_seal();
  const attn_rows shape = operands_shape(&o);
  check_context("sum of %ld %s, added %d, strides %ld %ld %ld, stream %d, in place %d", (long)o.n, dtype_name(o.dtype),
                is_sum, (long)shape.x_column, (long)added.stride[2], (long)shape.out_column, shape.stream, o.in_place);
  s->kernels->sum_row(&shape, o.x.data, is_sum ? added.data : NULL, added.stride[2], o.out.data);
  for (int64_t j = 0; j < o.n; j++) {
    const double sum = o.values[j] + (is_sum ? view_get(&added, 0, 0, j) : 0);
    const double rounding = is_sum ? 1.01 * (element_roundoff(o.dtype) + s->roundoff) * fabs(sum) + element_tiny(o.dtype) : 0;
    check_rounded(fabs(view_get(&o.out, 0, 0, j) - sum), 0, rounding, "out", j);
  }
  view_check_gaps(&o.out, "out");
  free(o.values);
}

void test_sum(const subject *s) {
  check_begin(s->isa, s->real, "sum_row");
  for (int i = 0; i < check_trials(3000); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    random_sum(s);
  }
  check_end();
}
