/* matmul and linear against double-precision loops. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "problem.h"

static double roundoff_of(swiftattn_dtype dtype, int32_t precision) {
  if (!dtype_equal(dtype, F32) || precision == SWIFTATTN_PRECISION_HIGHEST) return dtype_compute_roundoff(dtype);
  return precision == SWIFTATTN_PRECISION_HIGH ? 0x1p-16 : 0x1p-8;
}

/* sum_k a[k * a_step] * b[k * b_step]; the bound allows for a sum in any order. */
static double dot(const double *a, int64_t a_step, const double *b, int64_t b_step, int64_t count, double *bound) {
  double sum = 0, magnitude = 0;
  for (int64_t k = 0; k < count; k++) {
    double product = a[k * a_step] * b[k * b_step];
    sum += product;
    magnitude += fabs(product);
  }
  *bound = magnitude * (4 + sqrt((double)count));
  return sum;
}

static void check_matmul(swiftattn_dtype dtype, int64_t lead, int64_t m, int64_t k, int64_t n, int32_t precision) {
  int broadcast = (int)random_int(0, 2);
  swiftattn_tensor a = TENSOR(dtype, tensor_random_layout(), broadcast == 1 ? 1 : lead, m, k);
  swiftattn_tensor b = TENSOR(dtype, tensor_random_layout(), lead, k, n),
                   out = TENSOR(dtype, tensor_random_layout(), lead, m, n);
  const int64_t a_shape[3] = {lead, m, k};
  double *dense_a, *dense_b, *expected, *bound;
  int32_t status;
  if (broadcast == 2) b = TENSOR(dtype, tensor_random_layout(), k, n);
  tensor_fill_normal(&a, 1);
  tensor_fill_normal(&b, 1);
  dense_a = tensor_dense(&a, 3, a_shape);
  dense_b = tensor_dense(&b, 3, (const int64_t[]){lead, k, n});
  expected = buffer_new((size_t)(lead * m * n + 1) * sizeof *expected);
  bound = buffer_new((size_t)(lead * m * n + 1) * sizeof *bound);
  for (int64_t e = 0; e < lead * m * n; e++)
    expected[e] = dot(dense_a + e / n * k, 1, dense_b + e / n / m * k * n + e % n, n, k, &bound[e]);
  reference_scale(bound, lead * m * n, roundoff_of(dtype, precision));
  check_context("%s %lldx%lldx%lldx%lld precision %d", dtype_name(dtype), (long long)lead, (long long)m, (long long)k,
                (long long)n, precision);
  status = swiftattn_matmul(&a, &b, precision, &out);
  CHECK(status == 0, "status %d: %s", status, swiftattn_last_error());
  tensor_compare("out", &out, expected, bound);
  buffer_free_all();
}

static void matmul_sizes(void) {
  static const int64_t dims[] = {1, 2, 7, 16, 31, 33, 64, 100};
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  int last = check_quick ? 4 : 8;
  for (int n = 0; n < (check_quick ? 16 : 160); n++)
    check_matmul(dtypes[n % 4], random_int(1, 3), dims[random_int(0, last - 1)], dims[random_int(0, last - 1)],
                 dims[random_int(0, last - 1)], n % 3);
}

static void matmul_crosses_blocks(void) {
  static const int64_t shapes[][3] = {{1, 2000, 65}, {300, 5, 700}, {129, 513, 257}, {700, 300, 3}, {65, 1100, 130}};
  for (int n = 0; n < (check_quick ? 1 : 5); n++) {
    check_matmul(F32, 1, shapes[n][0], shapes[n][1], shapes[n][2], SWIFTATTN_PRECISION_HIGHEST);
    check_matmul(BF16, 1, shapes[n][0], shapes[n][1], shapes[n][2], SWIFTATTN_PRECISION_HIGHEST);
  }
}

static void matmul_empty(void) {
  for (int dim = 0; dim < 4; dim++)
    check_matmul(F32, dim == 3 ? 0 : 2, dim == 0 ? 0 : 3, dim == 1 ? 0 : 4, dim == 2 ? 0 : 5, 0);
}

static void matmul_of_vectors(void) {
  swiftattn_tensor x = TENSOR(F32, LAYOUT_REVERSED, 7), m = TENSOR(F32, LAYOUT_COLUMN, 2, 7, 5);
  swiftattn_tensor t = TENSOR(F32, LAYOUT_PADDED, 2, 5, 7), row = TENSOR(F32, LAYOUT_SPACED, 2, 5);
  swiftattn_tensor scalar = tensor_make(F32, LAYOUT_DENSE, 0, NULL);
  double expected[10], bound[10], *dx, *dm, *dt;
  tensor_fill_normal(&x, 1);
  tensor_fill_normal(&m, 1);
  tensor_fill_normal(&t, 1);
  dx = tensor_dense(&x, 1, x.shape);
  dm = tensor_dense(&m, 3, m.shape);
  dt = tensor_dense(&t, 3, t.shape);
  for (int e = 0; e < 10; e++) expected[e] = dot(dx, 1, dm + e / 5 * 35 + e % 5, 5, 7, &bound[e]);
  reference_scale(bound, 10, 0x1p-24);
  CHECK(swiftattn_matmul(&x, &m, 0, &row) == 0, "%s", swiftattn_last_error());
  tensor_compare("vector . matrix", &row, expected, bound);
  tensor_fill(&row, 0);
  for (int e = 0; e < 10; e++) expected[e] = dot(dx, 1, dt + e * 7, 1, 7, &bound[e]);
  reference_scale(bound, 10, 0x1p-24);
  CHECK(swiftattn_matmul(&t, &x, 0, &row) == 0, "%s", swiftattn_last_error());
  tensor_compare("matrix . vector", &row, expected, bound);
  expected[0] = dot(dx, 1, dx, 1, 7, bound);
  reference_scale(bound, 1, 0x1p-24);
  CHECK(swiftattn_matmul(&x, &x, 0, &scalar) == 0, "%s", swiftattn_last_error());
  tensor_compare("vector . vector", &scalar, expected, bound);
}

static void rows_do_not_depend_on_their_number(void) {
  const int64_t total = 67;
  const swiftattn_dtype dtypes[] = {F32, BF16, F16, F64};
  for (int n = 0; n < 4; n++) {
    swiftattn_tensor a = TENSOR(dtypes[n], LAYOUT_DENSE, total, 300), b = TENSOR(dtypes[n], LAYOUT_DENSE, 300, 45);
    swiftattn_tensor all = TENSOR(dtypes[n], LAYOUT_DENSE, total, 45);
    tensor_fill_normal(&a, 1);
    tensor_fill_normal(&b, 1);
    CHECK(swiftattn_matmul(&a, &b, 0, &all) == 0, "%s", swiftattn_last_error());
    for (int64_t i = 0; i < total; i += 11)
      for (int64_t columns = 1; columns <= 45; columns += 22) {
        swiftattn_tensor row = tensor_slice(&a, 0, i, 1), narrow = tensor_slice(&b, 1, 0, columns);
        swiftattn_tensor full = tensor_slice(&all, 0, i, 1), part = tensor_slice(&full, 1, 0, columns),
                         one = tensor_like(&part);
        CHECK(swiftattn_matmul(&row, &narrow, 0, &one) == 0, "%s", swiftattn_last_error());
        CHECK(tensor_same_bits(&part, &one), "%s row %d alone, %d columns: other bits", dtype_name(dtypes[n]), (int)i,
              (int)columns);
      }
  }
}

static void check_linear(swiftattn_dtype dtype, int n, int64_t rows, int64_t k, int64_t width) {
  swiftattn_linear_options options = SWIFTATTN_LINEAR_OPTIONS_INIT;
  swiftattn_tensor x = TENSOR(dtype, tensor_random_layout(), 2, rows, k),
                   weight = TENSOR(dtype, tensor_random_layout(), width, k);
  swiftattn_tensor bias = TENSOR(dtype, tensor_random_layout(), width),
                   residual = TENSOR(dtype, tensor_random_layout(), 2, rows, width);
  swiftattn_tensor out = TENSOR(dtype, tensor_random_layout(), 2, rows, width);
  int has_bias = n & 1, has_residual = n & 2, in_place = has_residual && n % 7 == 0;
  double *dx, *dw, *db, *dr, *expected, *bound;
  int32_t status;
  if (n & 4 && !in_place) residual = TENSOR(dtype, LAYOUT_DENSE, rows, width);
  tensor_fill_normal(&x, 1);
  tensor_fill_normal(&weight, 0.5);
  tensor_fill_normal(&bias, 1);
  tensor_fill_normal(&residual, 1);
  if (in_place) out = residual;
  options.activation = n % 5;
  options.precision = n % 3;
  dx = tensor_dense(&x, 3, x.shape);
  dw = tensor_dense(&weight, 2, weight.shape);
  db = tensor_dense(&bias, 1, bias.shape);
  dr = tensor_dense(&residual, 3, out.shape);
  expected = buffer_new((size_t)(2 * rows * width + 1) * sizeof *expected);
  bound = buffer_new((size_t)(2 * rows * width + 1) * sizeof *bound);
  for (int64_t e = 0; e < 2 * rows * width; e++) {
    double sum = dot(dx + e / width * k, 1, dw + e % width * k, 1, k, &bound[e]);
    if (has_bias) sum += db[e % width];
    sum = reference_activation(sum, options.activation);
    if (has_residual) sum += dr[e];
    expected[e] = sum;
    bound[e] = 1.2 * bound[e] + 8 * (fabs(sum) + fabs(dr[e]) + fabs(db[e % width]));
  }
  reference_scale(bound, 2 * rows * width, roundoff_of(dtype, options.precision));
  check_context("%s rows %lld k %lld width %lld activation %d precision %d%s%s%s", dtype_name(dtype),
                (long long)(2 * rows), (long long)k, (long long)width, options.activation, options.precision,
                has_bias ? " bias" : "", has_residual ? " residual" : "", in_place ? " in place" : "");
  status = swiftattn_linear(&x, &weight, has_bias ? &bias : NULL, has_residual ? &residual : NULL,
                            n % 15 ? &options : NULL, &out);
  CHECK(status == 0, "status %d: %s", status, swiftattn_last_error());
  tensor_compare("out", &out, expected, bound);
  buffer_free_all();
}

static void linear_epilogues(void) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  int64_t most = check_quick ? 9 : 50;
  for (int n = 0; n < (check_quick ? 30 : 150); n++)
    check_linear(dtypes[random_int(0, 3)], n, random_int(1, most), random_int(n % 10 ? 1 : 0, most),
                 random_int(1, most));
}

static void linear_nan_and_infinity(void) {
  swiftattn_tensor x = TENSOR(F32, LAYOUT_DENSE, 3, 4), weight = TENSOR(F32, LAYOUT_DENSE, 2, 4),
                   out = TENSOR(F32, LAYOUT_DENSE, 3, 2);
  for (int32_t precision = 0; precision < 3; precision++) {
    swiftattn_linear_options options = SWIFTATTN_LINEAR_OPTIONS_INIT;
    double expected[6] = {INFINITY, INFINITY, NAN, NAN, 4, 4};
    options.precision = precision;
    tensor_fill(&x, 1);
    tensor_fill(&weight, 1);
    tensor_store(&x, (const int64_t[]){0, 2}, INFINITY);
    tensor_store(&x, (const int64_t[]){1, 1}, NAN);
    CHECK(swiftattn_linear(&x, &weight, NULL, NULL, &options, &out) == 0, "%s", swiftattn_last_error());
    tensor_compare("out", &out, expected, NULL);
  }
}

void run_matmul(void) {
  check_run("matmul: sizes, dtypes, layouts, precisions", matmul_sizes);
  check_run("matmul: shapes across block borders", matmul_crosses_blocks);
  check_run("matmul: empty dims", matmul_empty);
  check_run("matmul: vectors", matmul_of_vectors);
  check_run("matmul: row bits depend on neither M nor N", rows_do_not_depend_on_their_number);
  check_run("linear: epilogues", linear_epilogues);
  check_run("linear: NaN and infinity", linear_nan_and_infinity);
}
