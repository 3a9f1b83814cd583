/* Gradients of rows, sums over rows and the loss against their formulas in double or long double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests.h"

#define LONGEST 700

/* Contiguous numbers of the computing type between guard pages, and their values. */
static char *reals_new(const subject *s, int64_t n, double *values, double spread) {
  const size_t size = attn_dtype_size(s->real_dtype);
  char *reals = guard_new((size_t)n * size, size);
  for (int64_t j = 0; j < n; j++) {
    element_put(s->real_dtype, reals + (size_t)j * size, spread * random_normal());
    values[j] = element_get(s->real_dtype, reals + (size_t)j * size);
  }
  return reals;
}

static double real_at(const subject *s, const char *reals, int64_t j) {
  return element_get(s->real_dtype, reals + (size_t)j * attn_dtype_size(s->real_dtype));
}

static int64_t random_length(void) { return random_chance(4) ? random_int(1, LONGEST) : random_int(1, 70); }

static void each(const subject *s, const char *name, int trials, void (*body)(const subject *)) {
  check_begin(s->isa, s->real, name);
  for (int i = 0; i < check_trials(trials); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    body(s);
  }
  check_end();
}

static void softmax_case(const subject *s) {
  const int64_t n = random_length();
  double y[LONGEST], g[LONGEST];
  char *p = reals_new(s, n, y, 1), *grad = reals_new(s, n, g, 1);
  const int where = (int)random_int(0, 2);
  if (where == 0) guard_seal();
  char *dx = where == 0 ? reals_new(s, n, (double[LONGEST]){0}, 1) : where == 1 ? p : grad;
  check_context("softmax gradient of %ld, %s", (long)n, where == 0 ? "apart" : where == 1 ? "over y" : "over grad");
  s->kernels->softmax_gradient(n, p, grad, dx, where == 0 && random_chance(2));
  long double mean = 0, size = 0;
  for (int64_t j = 0; j < n; j++) mean += (long double)y[j] * g[j], size += fabsl((long double)y[j] * g[j]);
  for (int64_t j = 0; j < n; j++) {
    const double exact = (double)(y[j] * (g[j] - mean));
    check_error(fabs(real_at(s, dx, j) - exact), s->roundoff * (3 * fabs(y[j]) * (double)(fabsl(mean) + fabs(g[j]) + 6 * size)),
                "dx", j);
  }
}

static void norm_case(const subject *s) {
  const int64_t n = random_length();
  double x[LONGEST], g[LONGEST], w[LONGEST], before[2][LONGEST];
  char *in = reals_new(s, n, x, 2), *grad = reals_new(s, n, g, 1);
  const double offset = random_chance(3) ? ldexp(1, (int)random_int(0, s->real_dtype == ATTN_F64 ? 50 : 23)) : 0;
  for (int64_t j = 0; j < n && offset; j++) {
    element_put(s->real_dtype, in + (size_t)j * attn_dtype_size(s->real_dtype), x[j] + offset);
    x[j] = real_at(s, in, j);
  }
  attn_norm norm = { .shape = { s->real_dtype, n, 1, 1, random_chance(2) }, .centred = random_chance(2), .eps = 0.1 };
  if (random_chance(2)) norm.weight = reals_new(s, n, w, 1);
  else for (int64_t j = 0; j < n; j++) w[j] = 1;
  guard_seal();
  char *dx = random_chance(3) ? NULL : reals_new(s, n, (double[LONGEST]){0}, 1);
  char *sums[2];
  for (int i = 0; i < 2; i++) sums[i] = random_chance(3) ? NULL : reals_new(s, n, before[i], 1);
  check_context("norm gradient of %ld around %g, centred %d, weight %d, outputs %d %d %d", (long)n, offset, norm.centred,
                norm.weight != NULL, dx != NULL, sums[0] != NULL, sums[1] != NULL);
  s->kernels->norm_gradient(&norm, in, grad, dx, sums[0], sums[1]);

  long double mean = 0, squares = 0, inner = 0, product = 0, width = 0;
  if (norm.centred) for (int64_t j = 0; j < n; j++) mean += x[j] / (long double)n;
  for (int64_t j = 0; j < n; j++) squares += (x[j] - mean) * (x[j] - mean);
  const long double factor = 1 / sqrtl(squares / n + norm.eps);
  for (int64_t j = 0; j < n; j++) {
    const long double h = (x[j] - mean) * factor, outer = (long double)g[j] * w[j];
    inner += norm.centred ? outer / n : 0;
    product += outer * h / n;
    width += fabsl(outer) * (1 + fabsl(h)) / n;
  }
  for (int64_t j = 0; j < n; j++) {
    const long double h = (x[j] - mean) * factor, outer = (long double)g[j] * w[j];
    /* far from 0 the mean may be off */
    const double shift = s->roundoff * (double)(norm.centred && offset != 0 ? 8 * fabsl(mean) * factor : 0);
    const double slack = s->roundoff * 12 * (double)(fabsl(h) + 0.1L) + shift;
    if (dx)
      check_error(fabs(real_at(s, dx, j) - (double)(factor * (outer - inner - h * product))),
                  (s->roundoff * 12 + 3 * shift) * (double)(factor * (fabsl(outer) + width * (1 + fabsl(h)))), "dx", j);
    if (sums[0]) check_error(fabs(real_at(s, sums[0], j) - (before[0][j] + g[j] * (double)h)),
                             slack * fabs(g[j]) + 2 * s->roundoff * (fabs(before[0][j]) + fabs(g[j] * (double)h)), "weights", j);
    if (sums[1]) check_error(fabs(real_at(s, sums[1], j) - (before[1][j] + g[j])),
                             2 * s->roundoff * (fabs(before[1][j]) + fabs(g[j])), "biases", j);
  }
}

static double slope_of(attn_activation activation, double x) {
  const long double X = x, c = 0.79788456080286535588L;
  switch (activation) {
    case ATTN_RELU: return x > 0;
    case ATTN_GELU:
      return (double)(erfcl(-X * 0.70710678118654752440L) / 2 + X * expl(-X * X / 2) * 0.39894228040143267794L);
    case ATTN_GELU_TANH: {
      const long double e = expl(-2 * c * (X + 0.044715L * X * X * X)), s = 1 / (1 + e);
      return (double)(s + (isinf(e) ? 0 : 2 * X * s * s * e * c * (1 + 0.134145L * X * X)));
    }
    case ATTN_SILU: return (double)((1 + X / (1 + expl(X))) / (1 + expl(-X)));
    default: return 1;
  }
}

static void activation_case(const subject *s) {
  const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
  const int64_t n = random_length();
  const bool is_gated = random_chance(2);
  view views[5]; /* x, up, grad, dx, dup */
  double values[3][LONGEST];
  for (int i = 0; i < 3; i++) {
    views[i] = view_new(dtype, 1, 1, n, (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST));
    for (int64_t j = 0; j < n; j++) view_put(&views[i], 0, 0, j, (i ? 1 : random_chance(9) ? 60 : 3) * random_normal());
    view_gather(&views[i], values[i]);
  }
  guard_seal();
  for (int i = 3; i < 5; i++) views[i] = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
  attn_activation_gradient problem = { dtype, (attn_activation)random_int(ATTN_IDENTITY, ATTN_SILU), n,
                                       { views[0].data, views[0].stride[2] }, { NULL, 0 },
                                       { views[2].data, views[2].stride[2] }, { NULL, 0 }, { NULL, 0 }, random_chance(2) };
  if (is_gated) problem.up = (attn_operand){ views[1].data, views[1].stride[2] };
  const bool has_dup = is_gated && !random_chance(3), has_dx = !has_dup || !random_chance(3);
  if (has_dx) problem.dx = (attn_operand){ views[3].data, views[3].stride[2] };
  if (has_dup) problem.dup = (attn_operand){ views[4].data, views[4].stride[2] };
  check_context("gradient of activation %d of %ld %s, gated %d, outputs %d %d", problem.activation, (long)n, dtype_name(dtype),
                is_gated, has_dx, has_dup);
  s->kernels->activation_gradient(&problem);
  for (int64_t j = 0; j < n; j++) {
    const double x = values[0][j], up = is_gated ? values[1][j] : 1, g = values[2][j];
    const double dx = g * up * slope_of(problem.activation, x), dup = g * activation_reference(problem.activation, x, s->real_dtype == ATTN_F64);
    /* The slope is good to a few roundings of its largest value, 1.13. */
    const double bound = s->roundoff * (4 * fabs(dx) + 8 * fabs(g * up)) + 1e-30;
    if (has_dx)
      check_rounded(fabs(view_get(&views[3], 0, 0, j) - dx), bound,
                    1.01 * element_roundoff(dtype) * (fabs(dx) + bound) + element_tiny(dtype), "dx", j);
    const double slack = fabs(g) * activation_bound(s, problem.activation, x) + 2 * s->roundoff * fabs(dup);
    if (has_dup)
      check_rounded(fabs(view_get(&views[4], 0, 0, j) - dup), slack,
                    1.01 * element_roundoff(dtype) * (fabs(dup) + slack) + element_tiny(dtype), "dup", j);
  }
  if (has_dx) view_check_gaps(&views[3], "dx");
  if (has_dup) view_check_gaps(&views[4], "dup");
}

static void rows_case(const subject *s) {
  const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
  const int64_t rows = random_int(1, 20), n = random_length(), count = random_chance(4) ? 1 : random_int(0, 64);
  view x = view_new(dtype, 1, rows, n, random_chance(2) ? VIEW_DENSE : VIEW_BROADCAST);
  for (int64_t i = 0; i < rows; i++) for (int64_t j = 0; j < n; j++) view_put(&x, 0, i, j, random_normal());
  int64_t *chosen = guard_new((size_t)count * 8, 8);
  for (int64_t i = 0; i < count; i++) chosen[i] = random_int(0, rows - 1);
  double before[LONGEST];
  char *sums = reals_new(s, n, before, 1);
  const bool named = count > rows || random_chance(2);
  const int64_t step = x.stride[1] * (int64_t)attn_dtype_size(dtype);
  check_context("sum of %ld rows of %ld %s, named %d, strides %ld %ld", (long)count, (long)n, dtype_name(dtype), named,
                (long)x.stride[1], (long)x.stride[2]);
  s->kernels->add_rows(dtype, n, x.data, step, n == 1 ? 1 : x.stride[2], named ? chosen : NULL, count, sums);
  for (int64_t j = 0; j < n; j++) {
    long double sum = before[j];
    double size = fabs(before[j]);
    for (int64_t i = 0; i < count; i++) {
      const double v = view_get(&x, 0, named ? chosen[i] : i, j);
      sum += v, size += fabs(v);
    }
    check_error((double)fabsl(real_at(s, sums, j) - sum), 6 * s->roundoff * size, "sums", j);
  }
}

static void part_case(const subject *s) {
  const int64_t n = random_length();
  double part[LONGEST], before[LONGEST];
  char *taken = reals_new(s, n, part, 1), *sums = reals_new(s, n, before, 1);
  check_context("a part of %ld sums", (long)n);
  s->kernels->take_sums(n, taken, sums);
  for (int64_t j = 0; j < n; j++) {
    check_error(fabs(real_at(s, sums, j) - (before[j] + part[j])), s->roundoff * fabs(before[j] + part[j]), "sums", j);
    check_error(fabs(real_at(s, taken, j)), 0, "part", j);
  }
}

static void loss_case(const subject *s) {
  const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
  const int64_t n = random_length(), target = random_int(0, n - 1);
  const size_t size = attn_dtype_size(s->real_dtype);
  view x = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
  for (int64_t j = 0; j < n; j++) view_put(&x, 0, 0, j, 4 * random_normal());
  double values[LONGEST], result;
  view_gather(&x, values);
  const bool in_place = random_chance(3), has_grad = in_place || random_chance(2);
  attn_loss loss = { .smoothing = random_chance(2) ? 0 : random_uniform(), .scale = random_normal() };
  if (!in_place) guard_seal();
  view grad = in_place ? x : view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
  loss.shape = (attn_rows){ dtype, n, x.stride[2], grad.stride[2], false };
  void *scratch = guard_new((size_t)n * size, size);
  check_context("loss of %ld %s, target %ld, smoothing %g, grad %d, in place %d", (long)n, dtype_name(dtype), (long)target,
                loss.smoothing, has_grad, in_place);
  attn_exp_sum e;
  s->kernels->exp_sum_row(&loss.shape, x.data, scratch, &e);
  s->kernels->loss_row(&loss, x.data, target, has_grad ? grad.data : NULL, scratch, &result);

  double top = -INFINITY, mean = 0, spread = 0;
  for (int64_t j = 0; j < n; j++) {
    top = values[j] > top ? values[j] : top;
    mean += values[j] / (double)n;
    spread += fabs(values[j]) / (double)n;
  }
  long double total = 0;
  for (int64_t j = 0; j < n; j++) total += expl((long double)values[j] - top);
  const double sum = (double)total;
  check_error(fabs(e.top - top), 0, "top", 0);
  check_error(fabs(e.sum - sum), 8 * s->roundoff * sum, "sum", 0);
  const double exact = top + log(sum) - (1 - loss.smoothing) * values[target] - loss.smoothing * mean;
  check_error(fabs(result - exact), s->roundoff * (8 + 8 * spread + fabs(exact)) + 1e-14 * fabs(top), "loss", 0);
  if (!has_grad) return;
  for (int64_t j = 0; j < n; j++) {
    const double p = (double)(expl((long double)values[j] - top) / total);
    const double q = loss.smoothing / (double)n + (j == target) * (1 - loss.smoothing);
    const double d = loss.scale * (p - q), bound = s->roundoff * fabs(loss.scale) * ((10 + top - values[j]) * p + 3 * q) + 1e-30;
    check_rounded(fabs(view_get(&grad, 0, 0, j) - d), bound,
                  1.01 * element_roundoff(dtype) * (fabs(d) + bound) + element_tiny(dtype), "grad", j);
  }
  view_check_gaps(&grad, "grad");
}

void test_gradients(const subject *s) {
  each(s, "softmax_gradient", 2000, softmax_case);
  each(s, "norm_gradient", 2000, norm_case);
  each(s, "activation_gradient", 2000, activation_case);
  each(s, "add_rows", 1000, rows_case);
  each(s, "take_sums", 500, part_case);
  each(s, "loss_row", 2000, loss_case);
}
