/* softmax_row, and e^x inside it in ulp. */
#include <math.h>
#include <stdlib.h>

#include "tests.h"

typedef struct row { view x, out; int64_t n; attn_dtype dtype; } row;

static void run(const subject *s, const row *r, bool in_place) {
  const attn_rows shape = { r->dtype, r->n, r->x.stride[2], in_place ? r->x.stride[2] : r->out.stride[2],
                            !in_place && random_chance(2) };
  const size_t size = attn_dtype_size(s->real_dtype);
  void *scratch = guard_new((size_t)r->n * size, size);
  s->kernels->softmax_row(&shape, r->x.data, in_place ? r->x.data : r->out.data, scratch);
  guard_return();
}

/* p[j] by the formula in long double, and what a plain loop in the computing type makes of it. */
static void formula(const subject *s, const double *x, int64_t n, double *p, double *plain) {
  double top = -INFINITY;
  bool nan = false;
  for (int64_t j = 0; j < n; j++) {
    nan |= isnan(x[j]) || x[j] == INFINITY;
    if (x[j] > top) top = x[j];
  }
  if (nan) top = NAN;
  const bool empty = top == -INFINITY, wide = s->real_dtype == ATTN_F64;
  long double sum = 0;
  double double_sum = 0;
  float float_sum = 0;
  for (int64_t j = 0; j < n; j++) {
    sum += empty ? 0 : expl((long double)x[j] - (long double)top);
    double_sum += empty ? 0 : exp(x[j] - top);
    float_sum += empty ? 0 : expf((float)x[j] - (float)top);
  }
  for (int64_t j = 0; j < n; j++) {
    p[j] = empty ? 0 : (double)(expl((long double)x[j] - (long double)top) / sum);
    if (empty) plain[j] = 0;
    else if (wide) plain[j] = exp(x[j] - top) / double_sum;
    else plain[j] = (double)(expf((float)x[j] - (float)top) / float_sum);
  }
}

static double random_row(const subject *s, attn_dtype dtype, int64_t n) {
  const double spread = random_chance(5) ? 1000 : random_chance(3) ? 30 : 2;
  const int special = (int)random_int(0, 9); /* 0: a few -inf; 1: all -inf; 2: a NaN; 3: +inf */
  row r = { .x = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_BROADCAST), .n = n, .dtype = dtype };
  for (int64_t j = 0; j < n; j++)
    view_put(&r.x, 0, 0, j, special == 1 || (special == 0 && random_chance(3)) ? -INFINITY : spread * random_normal());
  if (special == 2 || special == 3) view_put(&r.x, 0, 0, random_int(0, n - 1), special == 2 ? NAN : INFINITY);
  double *x = calloc(4 * (size_t)n, sizeof *x), *p = x + n, *plain = p + n, *got = plain + n;
  view_gather(&r.x, x);
  formula(s, x, n, p, plain);
  const bool in_place = r.x.stride[2] != 0 && random_chance(3);
  if (!in_place) guard_seal();
  r.out = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
  check_context("softmax of %ld %s, strides %ld %ld, spread %g, special %d, in place %d", (long)n, dtype_name(dtype),
                (long)r.x.stride[2], (long)r.out.stride[2], spread, special, in_place);
  run(s, &r, in_place);
  view_gather(in_place ? &r.x : &r.out, got);
  view_check_gaps(in_place ? &r.x : &r.out, "out");
  double lost = 0, worst = 0, top = -INFINITY;
  for (int64_t j = 0; j < n; j++) top = fmax(top, x[j]);
  /* Rounding x - top moves e^(x - top) by as many roundoffs as x - top is large. */
#define UNIT(j) (p[j] * (1 + fabs(x[j] - top)))
  for (int64_t j = 0; j < n; j++)
    if (p[j] > 1e-30) lost = fmax(lost, fabs(plain[j] - p[j]) / UNIT(j));
  for (int64_t j = 0; j < n; j++) {
    if (isnan(p[j])) {
      CHECK(isnan(got[j]), "p %ld is %g in a row with NaN or Inf", (long)j, got[j]);
      continue;
    }
    const double bound = p[j] > 0 ? (2 * lost + 4 * s->roundoff) * UNIT(j) : 0;
    if (p[j] == 0 && x[j] == -INFINITY) CHECK(got[j] == 0, "p %ld of -inf is %g", (long)j, got[j]);
    const double rounding = 1.01 * element_roundoff(dtype) * (p[j] + bound) + element_tiny(dtype);
    check_rounded(fabs(got[j] - p[j]), bound, rounding, "p", j);
    if (dtype == s->real_dtype && p[j] > 1e-30) worst = fmax(worst, fabs(got[j] - p[j]) / UNIT(j));
  }
  free(x);
  return worst;
}

/* One 0 and everything else below -40: the sum rounds to 1 and the results are e^x as computed. */
static double exp_ulp(const subject *s) {
  const bool wide = s->real_dtype == ATTN_F64;
  const double lowest = wide ? -700 : -87, highest = wide ? -60 : -40;
  const int64_t n = 999;
  double worst = 0;
  for (int trial = 0; trial < check_trials(100); trial++) {
    guard_reset();
    row r = { .x = view_new(s->real_dtype, 1, 1, n, VIEW_DENSE), .n = n, .dtype = s->real_dtype };
    for (int64_t j = 0; j < n; j++)
      view_put(&r.x, 0, 0, j, j == 7 ? 0 : highest + (lowest - highest) * random_uniform());
    guard_seal();
    r.out = view_new(s->real_dtype, 1, 1, n, VIEW_DENSE);
    run(s, &r, false);
    for (int64_t j = 0; j < n; j++) {
      const long double expected = expl((long double)view_get(&r.x, 0, 0, j));
      const double ulp = exp2(floor(log2((double)expected)) - (wide ? 52 : 23));
      worst = fmax(worst, (double)fabsl((long double)view_get(&r.out, 0, 0, j) - expected) / ulp);
    }
  }
  return worst;
}

static int64_t row_length(void) {
  if (random_chance(100)) return random_int(ATTN_NEAR_COLUMNS - 2, ATTN_NEAR_COLUMNS + 100); /* begins to need scratch */
  return random_chance(4) ? random_int(1, 1000) : random_int(1, 70);
}

void test_softmax(const subject *s) {
  check_begin(s->isa, s->real, "softmax_row");
  double worst = 0;
  for (int i = 0; i < check_trials(3000); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
    worst = fmax(worst, random_row(s, dtype, row_length()));
  }
  const double ulp = exp_ulp(s);
  check_context("e^x on [-87, -40], or [-700, -60] for double");
  check_error(ulp, 2, "error in ulp of sample", 0);
  check_note("relative %.1e, exp %.2f ulp", worst, ulp);
  check_end();
}
