/* pack_a, pack_b, multiply and finish. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests.h"

static void fill(const view *v, double spread) {
  for (int64_t a = 0; a < v->extent[0]; a++)
    for (int64_t b = 0; b < v->extent[1]; b++)
      for (int64_t c = 0; c < v->extent[2]; c++) view_put(v, a, b, c, spread * random_normal());
}

static attn_matrix matrix(const view *v) { return (attn_matrix){ v->data, v->stride[1], v->stride[2] }; }

static view_layout any_layout(void) { return (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST); }

static attn_dtype begin_case(const subject *s) {
  guard_reset();
  guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
  return s->dtypes[random_int(0, s->dtype_count - 1)];
}

void test_pack(const subject *s) {
  check_begin(s->isa, s->real, "pack_a pack_b");
  const int64_t nr = s->kernels->nr, real = (int64_t)attn_dtype_size(s->real_dtype);
  for (int i = 0; i < check_trials(1000); i++) {
    const attn_dtype dtype = begin_case(s);
    const int64_t k = random_int(1, 70), columns = random_chance(2) ? nr : random_int(1, nr), m = random_int(1, 20);
    view b = view_new(dtype, 1, k, columns, any_layout()), a = view_new(dtype, 1, m, k, any_layout());
    fill(&b, 1);
    fill(&a, 1);
    guard_seal();
    char *panel = guard_new((size_t)(k * nr * real), (size_t)real);
    char *block = guard_new((size_t)(m * k * real), (size_t)real);
    check_context("pack %s k %ld columns %ld strides %ld %ld; m %ld strides %ld %ld", dtype_name(dtype), (long)k,
                  (long)columns, (long)b.stride[1], (long)b.stride[2], (long)m, (long)a.stride[1], (long)a.stride[2]);
    const attn_matrix of_b = matrix(&b), of_a = matrix(&a);
    s->kernels->pack_b(dtype, &of_b, k, columns, panel);
    s->kernels->pack_a(dtype, &of_a, m, k, block);
    for (int64_t p = 0; p < k; p++)
      for (int64_t j = 0; j < nr; j++) {
        const double got = element_get(s->real_dtype, panel + (p * nr + j) * real);
        const double expected = j < columns ? view_get(&b, 0, p, j) : 0;
        CHECK(got == expected, "panel[%ld][%ld] is %g, expected %g", (long)p, (long)j, got, expected);
      }
    for (int64_t r = 0; r < m; r++)
      for (int64_t p = 0; p < k; p++) {
        const double got = element_get(s->real_dtype, block + (r * k + p) * real);
        CHECK(got == view_get(&a, 0, r, p), "block[%ld][%ld] is %g, expected %g", (long)r, (long)p, got,
              view_get(&a, 0, r, p));
      }
  }
  check_end();
}

typedef struct product { int64_t m, k, nr, step, real; attn_dtype dtype; const char *block, *panel, *c; } product;

static double at(const product *p, const char *base, int64_t index) {
  return element_get(p->dtype, base + index * p->real);
}

/* Relative to the sum of the sizes of the terms, of which a loop loses up to k roundoffs, but mostly sqrt(k). */
static double compare_product(const product *p, const double *before, const subject *s) {
  double worst = 0;
  for (int64_t i = 0; i < p->m; i++)
    for (int64_t j = 0; j < p->step; j++) {
      const double start = before[i * p->step + j], got = at(p, p->c, i * p->step + j);
      if (j >= p->nr) { /* the next panel's columns */
        CHECK(same_bits(got, start), "c[%ld][%ld] lies beyond the panel and was written", (long)i, (long)j);
        continue;
      }
      long double sum = (long double)start, size = fabsl(sum);
      double plain_double = 0;
      float plain_float = 0;
      for (int64_t t = 0; t < p->k; t++) {
        const double x = at(p, p->block, i * p->k + t), y = at(p, p->panel, t * p->nr + j);
        sum += (long double)x * (long double)y;
        size += fabsl((long double)x * (long double)y);
        plain_double += x * y;
        plain_float += (float)x * (float)y;
      }
      const double plain = s->real_dtype == ATTN_F64 ? plain_double + start : (double)(plain_float + (float)start);
      const double error = (double)fabsl((long double)got - sum);
      const double lost = (double)fabsl((long double)plain - sum);
      check_error(error, 2 * lost + (3 + 0.5 * sqrt((double)p->k)) * s->roundoff * (double)size, "c", i * p->step + j);
      if (size > 0) worst = fmax(worst, error / (double)size);
    }
  return worst;
}

void test_multiply(const subject *s) {
  check_begin(s->isa, s->real, "multiply");
  const int64_t nr = s->kernels->nr, real = (int64_t)attn_dtype_size(s->real_dtype);
  double worst = 0;
  for (int trial = 0; trial < check_trials(400); trial++) {
    begin_case(s);
    const int64_t m = random_int(1, 20), k = trial % 20 == 0 ? 0 : random_chance(4) ? 256 : random_int(1, 60);
    const int64_t step = nr * random_int(1, 2);
    const bool add = random_chance(2);
    view block = view_new(s->real_dtype, 1, m, k, VIEW_DENSE), panel = view_new(s->real_dtype, 1, k, nr, VIEW_DENSE);
    fill(&block, 1);
    fill(&panel, 1);
    guard_seal();
    /* The last row ends with the panel. */
    char *c = guard_new((size_t)(((m - 1) * step + nr) * real), (size_t)real);
    double *before = calloc((size_t)(m * step), sizeof *before), *whole = calloc((size_t)(m * step), sizeof *whole);
    for (int64_t i = 0; i < (m - 1) * step + nr; i++) {
      if (add) element_put(s->real_dtype, c + i * real, random_normal());
      before[i] = element_get(s->real_dtype, c + i * real);
    }
    check_context("multiply m %ld k %ld step %ld add %d", (long)m, (long)k, (long)step, add);
    s->kernels->multiply(m, k, block.data, panel.data, c, step, add);
    for (int64_t i = 0; i < (m - 1) * step + nr; i++) whole[i] = element_get(s->real_dtype, c + i * real);
    for (int64_t i = 0; !add && i < m; i++)
      for (int64_t j = 0; j < nr; j++) before[i * step + j] = 0;
    char *copy = guard_new((size_t)(m * step * real), (size_t)real);
    memcpy(copy, c, (size_t)(((m - 1) * step + nr) * real));
    const product p = { m, k, nr, step, real, s->real_dtype, block.data, panel.data, copy };
    for (int64_t j = nr; j < step; j++) before[(m - 1) * step + j] = NAN;
    worst = fmax(worst, compare_product(&p, before, s));
    /* A row alone has the bits it has among others. */
    const int64_t row = random_int(0, m - 1);
    for (int64_t j = 0; add && j < nr; j++) element_put(s->real_dtype, c + j * real, before[row * step + j]);
    s->kernels->multiply(1, k, block.data + row * k * real, panel.data, c, step, add);
    for (int64_t j = 0; j < nr; j++)
      CHECK(same_bits(element_get(s->real_dtype, c + j * real), whole[row * step + j]),
            "row %ld, column %ld differs when the row is alone", (long)row, (long)j);
    free(before);
    free(whole);
  }
  check_note("%.1e of sum |a b|", worst);
  check_end();
}

/* Panels side by side have the bits of one after the other. */
void test_multiply_panels(const subject *s) {
  check_begin(s->isa, s->real, "multiply_panels");
  const attn_kernels *kernels = s->kernels;
  const attn_dtype of = kernels->depth == 1 ? s->real_dtype : ATTN_BF16;
  const int64_t nr = kernels->nr, depth = kernels->depth, real = (int64_t)attn_dtype_size(s->real_dtype);
  for (int trial = 0; trial < check_trials(200); trial++) {
    begin_case(s);
    const int64_t m = random_int(1, 3), count = attn_panels_together(m), step = count * nr;
    const int64_t groups = trial % 20 == 0 ? 0 : random_chance(4) ? 128 : random_int(1, 60), between = random_int(0, 3);
    const bool add = random_chance(2);
    view block = view_new(of, 1, m, groups * depth, VIEW_DENSE);
    view panels = view_new(of, 1, count * groups + (count - 1) * between, nr * depth, VIEW_DENSE);
    fill(&block, 1);
    fill(&panels, 1);
    guard_seal();
    char *c = guard_new((size_t)(m * step * real), (size_t)real), *expected = guard_new((size_t)(m * step * real), (size_t)real);
    for (int64_t i = 0; i < m * step; i++) element_put(s->real_dtype, c + i * real, random_normal());
    memcpy(expected, c, (size_t)(m * step * real));
    const int64_t panel = (groups + between) * nr * kernels->operand_size;
    check_context("multiply_panels m %ld k %ld add %d", (long)m, (long)(groups * depth), add);
    for (int64_t i = 0; i < count; i++)
      kernels->multiply(m, groups * depth, block.data, panels.data + i * panel, expected + i * nr * real, step, add);
    kernels->multiply_panels(m, groups * depth, block.data, panels.data, panel, c, step, add);
    for (int64_t i = 0; i < m * step; i++)
      CHECK(same_bits(element_get(s->real_dtype, c + i * real), element_get(s->real_dtype, expected + i * real)),
            "element %ld differs from panels one by one", (long)i);
  }
  check_end();
}

void test_finish(const subject *s) {
  check_begin(s->isa, s->real, "finish");
  const int64_t nr = s->kernels->nr;
  for (int i = 0; i < check_trials(600); i++) {
    const attn_dtype dtype = begin_case(s);
    const int64_t m = random_int(1, 9), n = random_int(1, 2 * nr), step = (n + nr - 1) / nr * nr;
    const attn_activation activation = (attn_activation)random_int(ATTN_IDENTITY, ATTN_SILU);
    view sums = view_new(s->real_dtype, 1, m, step, VIEW_DENSE), residual = view_new(dtype, 1, m, n, any_layout());
    view bias = view_new(dtype, 1, 1, n, any_layout());
    fill(&sums, 2);
    fill(&residual, 1);
    fill(&bias, 1);
    guard_seal();
    view out = view_new(dtype, 1, m, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
    const bool with_bias = random_chance(2), with_residual = random_chance(2);
    const attn_matrix of_residual = matrix(&residual), of_out = matrix(&out);
    const attn_gemm gemm = { .dtype = dtype, .m = m, .n = n, .activation = activation, .bias_stride = bias.stride[2] };
    check_context("finish %s m %ld n %ld activation %d bias %d residual %d", dtype_name(dtype), (long)m, (long)n,
                  (int)activation, with_bias, with_residual);
    s->kernels->finish(&gemm, sums.data, step, &of_out, with_residual ? &of_residual : NULL,
                       with_bias ? bias.data : NULL, m, n);
    for (int64_t r = 0; r < m; r++)
      for (int64_t j = 0; j < n; j++) {
        const double b = with_bias ? view_get(&bias, 0, 0, j) : 0, sum = view_get(&sums, 0, r, j) + b;
        const double added = with_residual ? view_get(&residual, 0, r, j) : 0;
        const double y = activation_reference(activation, sum, false), expected = y + added;
        /* The rounded sum moves the activation by at most 1.13 times as much. */
        const double bound = activation_bound(s, activation, sum) + s->roundoff * (2 * fabs(sum) + 2 * fabs(expected));
        const double rounding = 1.01 * element_roundoff(dtype) * (fabs(expected) + bound) + element_tiny(dtype);
        check_rounded(fabs(view_get(&out, 0, r, j) - expected), bound, rounding, "c", r * n + j);
      }
    view_check_gaps(&out, "c");
  }
  check_end();
}
