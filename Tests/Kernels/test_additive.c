/* The kernels of additive attention against their formulas in double. */
#include <math.h>
#include <stdlib.h>

#include "tests.h"

static double real_at(const subject *s, const char *reals, int64_t j) {
  return element_get(s->real_dtype, reals + (size_t)j * attn_dtype_size(s->real_dtype));
}

static char *reals_new(const subject *s, int64_t n, double *values) {
  const size_t size = attn_dtype_size(s->real_dtype);
  char *reals = guard_new((size_t)n * size, size);
  for (int64_t j = 0; j < n; j++) {
    element_put(s->real_dtype, reals + (size_t)j * size, random_normal());
    values[j] = element_get(s->real_dtype, reals + (size_t)j * size);
  }
  return reals;
}

#define HIDDEN 100
#define ROWS 9

typedef struct projections {
  double values[ROWS][HIDDEN];
  char *sums, *exps, *largest;
} projections;

static projections *projections_new(const subject *s, int64_t rows, int64_t hidden, int64_t padded, double spread) {
  const size_t size = attn_dtype_size(s->real_dtype);
  projections *p = calloc(1, sizeof *p);
  p->sums = guard_new((size_t)(rows * padded) * size, 64);
  p->exps = guard_new((size_t)(rows * padded) * size, 64);
  p->largest = guard_new((size_t)rows * size, size);
  for (int64_t i = 0; i < rows; i++) {
    const double scale = random_chance(4) ? 10 * spread : spread;
    for (int64_t h = 0; h < hidden; h++) {
      char *at = p->sums + (size_t)(i * padded + h) * size;
      element_put(s->real_dtype, at, scale * random_normal());
      p->values[i][h] = element_get(s->real_dtype, at);
    }
    const size_t row = (size_t)(i * padded) * size;
    s->kernels->additive_prepare(hidden, padded, p->sums + row, p->exps + row, p->largest + (size_t)i * size);
  }
  return p;
}

static void additive_case(const subject *s) {
  const int64_t hidden = random_int(0, HIDDEN), keys = random_int(1, ROWS), columns = random_int(1, 40);
  const int64_t padded = (hidden + ATTN_ADDITIVE_BLOCK - 1) / ATTN_ADDITIVE_BLOCK * ATTN_ADDITIVE_BLOCK;
  const size_t size = attn_dtype_size(s->real_dtype);
  const double spread = random_chance(3) ? 4 : 0.7;
  projections *q = projections_new(s, 1, hidden, padded, spread), *k = projections_new(s, keys, hidden, padded, spread);
  double v[HIDDEN] = {0}, mask[ROWS], values[ROWS * 40], grad[40], expected[ROWS], width = 0;
  char *weight = guard_new((size_t)padded * size, 64);
  for (int64_t h = 0; h < padded; h++) element_put(s->real_dtype, weight + (size_t)h * size, h < hidden ? random_normal() : 0);
  for (int64_t h = 0; h < hidden; h++) v[h] = real_at(s, weight, h), width += fabs(v[h]);
  view bias = view_new(s->real_dtype, 1, 1, keys, VIEW_STRIDED);
  for (int64_t j = 0; j < keys; j++) view_put(&bias, 0, 0, j, random_chance(4) ? -INFINITY : random_normal());
  view_gather(&bias, mask);
  char *rows = reals_new(s, keys * columns, values), *outer = reals_new(s, columns, grad);
  guard_seal();
  char *scores = guard_new((size_t)keys * size, size), *p = guard_new((size_t)keys * size, size);
  char *out = guard_new((size_t)columns * size, size), *ds = guard_new((size_t)keys * size, size);
  char *dq = guard_new((size_t)padded * size, 64), *shares = guard_new((size_t)padded * size, 64);
  const attn_additive A = { .dtype = s->real_dtype, .mask_dtype = s->real_dtype, .keys = keys, .padded = padded, .v = weight,
                            .exact = random_chance(2), .q = { q->sums, q->exps, q->largest }, .k = { k->sums, k->exps, k->largest } };
  check_context("additive of %ld keys, hidden %ld, columns %ld, spread %g, exact %d", (long)keys, (long)hidden, (long)columns,
                spread, A.exact);
  s->kernels->additive_scores(&A, 0, bias.data, bias.stride[2], scores);
  double top = -INFINITY, sum = 0, mean = 0, inner[ROWS];
  for (int64_t j = 0; j < keys; j++) {
    double score = mask[j];
    for (int64_t h = 0; h < hidden; h++) score += v[h] * tanh(q->values[0][h] + k->values[j][h]);
    expected[j] = score;
    const double got = real_at(s, scores, j);
    if (mask[j] == -INFINITY) CHECK(got == -INFINITY, "score %ld of a hidden key is %g", (long)j, got);
    else check_error(fabs(got - score), s->roundoff * (12 * width + 2 * fabs(mask[j])), "scores", j);
    if (got > top) top = got;
  }
  for (int64_t j = 0; j < keys; j++) sum += expected[j] == -INFINITY ? 0 : exp(real_at(s, scores, j) - top);
  for (int64_t j = 0; j < keys; j++)
    element_put(s->real_dtype, p + (size_t)j * size, expected[j] == -INFINITY ? 0 : exp(real_at(s, scores, j) - top) / sum);
  s->kernels->additive_values(keys, columns, scores, p, rows, columns, out);
  s->kernels->additive_score_gradients(keys, columns, scores, p, outer, rows, columns, ds);
  for (int64_t d = 0; d < columns; d++) {
    double exact = 0;
    for (int64_t j = 0; j < keys; j++) exact += real_at(s, p, j) * values[j * columns + d];
    check_error(fabs(real_at(s, out, d) - exact), 40 * s->roundoff, "out", d);
  }
  for (int64_t j = 0; j < keys; j++) {
    inner[j] = 0;
    for (int64_t d = 0; d < columns; d++) inner[j] += grad[d] * values[j * columns + d];
    mean += real_at(s, p, j) * inner[j];
  }
  for (int64_t j = 0; j < keys; j++)
    check_error(fabs(real_at(s, ds, j) - real_at(s, p, j) * (inner[j] - mean)), 200 * s->roundoff * real_at(s, p, j), "ds", j);
  s->kernels->additive_gradient(&A, q->sums, k->sums, keys, ds, 1, dq, shares);
  for (int64_t h = 0; h < hidden; h++) {
    double slopes = 0, tanhs = 0, total = 0;
    for (int64_t j = 0; j < keys; j++) {
      const double t = tanh(q->values[0][h] + k->values[j][h]), g = real_at(s, ds, j);
      slopes += g * (1 - t * t), tanhs += g * t, total += fabs(g);
    }
    check_error(fabs(real_at(s, dq, h) - v[h] * slopes), 10 * s->roundoff * fabs(v[h]) * total, "dq", h);
    check_error(fabs(real_at(s, shares, h) - tanhs), 10 * s->roundoff * total, "shares", h);
  }
  free(q);
  free(k);
}

void test_additive(const subject *s) {
  check_begin(s->isa, s->real, "additive");
  for (int i = 0; i < check_trials(500); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    additive_case(s);
  }
  check_end();
}
