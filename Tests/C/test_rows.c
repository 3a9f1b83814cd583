/* Softmax, norms, activations, embeddings and position tables against double-precision loops. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "reference.h"
#include "tensor.h"

static swiftattn_dtype pick_dtype(int n) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  return dtypes[n % 4];
}

static double *doubles(int64_t count) { return buffer_new((size_t)(count + 1) * sizeof(double)); }

static void done(const char *name, int32_t status, const swiftattn_tensor *out, const double *expected, double *bound) {
  reference_scale(bound, tensor_count(out), dtype_compute_roundoff(out->dtype));
  CHECK(status == 0, "status %d: %s", status, swiftattn_last_error());
  tensor_compare(name, out, expected, bound);
}

/* Softmax over a dense array with `inner` elements between neighbours. */
static void softmax_line(const double *x, double *out, double *bound, int64_t count, int64_t inner) {
  double max = -INFINITY, sum = 0, lowest = 0;
  for (int64_t n = 0; n < count; n++) max = fmax(max, x[n * inner]);
  for (int64_t n = 0; n < count; n++) sum += exp(x[n * inner] - max);
  for (int64_t n = 0; n < count; n++) {
    double p = max == -INFINITY ? 0 : exp(x[n * inner] - max) / sum;
    lowest = max == -INFINITY ? 0 : max - x[n * inner];
    out[n * inner] = p;
    bound[n * inner] = p > 0 ? p * (16 + 2 * lowest) : 0;
  }
}

static void softmax(void) {
  for (int n = 0; n < 60; n++) {
    int64_t shape[3] = {random_int(1, 5), random_int(1, 70), random_int(1, 40)};
    int ndim = (int)random_int(1, 3), axis = (int)random_int(-ndim, ndim - 1), dim = axis < 0 ? axis + ndim : axis;
    int in_place = n % 5 == 4;
    int64_t inner = 1, count, total;
    swiftattn_tensor x = tensor_make(pick_dtype(n), tensor_random_layout(), ndim, shape);
    swiftattn_tensor out = in_place ? x : tensor_make(pick_dtype(n), tensor_random_layout(), ndim, shape);
    double *dense, *expected, *bound;
    tensor_fill_normal(&x, 3);
    for (int d = dim + 1; d < ndim; d++) inner *= shape[d];
    count = shape[dim];
    total = tensor_count(&x);
    dense = tensor_dense(&x, ndim, shape);
    expected = doubles(total);
    bound = doubles(total);
    for (int64_t outer = 0; outer < total / (inner * count); outer++)
      for (int64_t i = 0; i < inner; i++) {
        int64_t at = outer * inner * count + i;
        softmax_line(dense + at, expected + at, bound + at, count, inner);
      }
    check_context("%s rank %d axis %d%s", dtype_name(x.dtype), ndim, axis, in_place ? " in place" : "");
    done("softmax", swiftattn_softmax(&x, axis, &out), &out, expected, bound);
  }
}

static void softmax_edges(void) {
  static const float rows[5][4] = {{-INFINITY, -INFINITY, -INFINITY, -INFINITY},
                                   {1e4f, -1e4f, 1e4f, 0},
                                   {0, NAN, 1, 2},
                                   {-INFINITY, 0, -INFINITY, 0},
                                   {3e38f, -3e38f, 0, -INFINITY}};
  static const double expected[20] = {0, 0, 0, 0, 0.5, 0, 0.5, 0, NAN, NAN, NAN, NAN, 0, 0.5, 0, 0.5, 1, 0, 0, 0};
  swiftattn_tensor x = TENSOR(F32, LAYOUT_DENSE, 5, 4), out = TENSOR(F32, LAYOUT_DENSE, 5, 4);
  swiftattn_tensor empty = TENSOR(F32, LAYOUT_DENSE, 3, 0), empty_out = TENSOR(F32, LAYOUT_DENSE, 3, 0);
  memcpy(x.data, rows, sizeof rows);
  CHECK(swiftattn_softmax(&x, -1, &out) == 0, "%s", swiftattn_last_error());
  tensor_compare("softmax", &out, expected, NULL);
  CHECK(swiftattn_softmax(&empty, 1, &empty_out) == 0, "%s", swiftattn_last_error());
}

static void norm(int n, int is_rms) {
  swiftattn_dtype dtype = pick_dtype(n), parameters = n % 3 ? dtype : F32;
  int64_t width = n % 7 ? random_int(1, 300) : 768, outer = random_int(1, 4), middle = random_int(1, 5);
  double eps = n % 4 ? 1e-5 : 0;
  int in_place = n % 5 == 4, has_weight = n & 1, has_bias = !is_rms && n & 2;
  swiftattn_tensor x = TENSOR(dtype, tensor_random_layout(), outer, middle, width);
  swiftattn_tensor out = in_place ? x : TENSOR(dtype, tensor_random_layout(), outer, middle, width);
  swiftattn_tensor weight = TENSOR(parameters, tensor_random_layout(), width),
                   bias = TENSOR(parameters, LAYOUT_SPACED, width);
  double *dense, *w, *b, *expected = doubles(outer * middle * width), *bound = doubles(outer * middle * width);
  tensor_fill_normal(&x, 2);
  tensor_fill_normal(&weight, 1);
  tensor_fill_normal(&bias, 1);
  dense = tensor_dense(&x, 3, x.shape);
  w = tensor_dense(&weight, 1, weight.shape);
  b = tensor_dense(&bias, 1, bias.shape);
  for (int64_t r = 0; r < outer * middle; r++) {
    double mean = 0, square = 0, scale;
    for (int64_t i = 0; i < width && !is_rms; i++) mean += dense[r * width + i] / (double)width;
    for (int64_t i = 0; i < width; i++) square += pow(dense[r * width + i] - mean, 2) / (double)width;
    scale = 1 / sqrt(square + eps);
    for (int64_t i = 0; i < width; i++) {
      double *at = &expected[r * width + i], x_minus_mean = dense[r * width + i] - mean;
      *at = x_minus_mean * scale * (has_weight ? w[i] : 1) + (has_bias ? b[i] : 0);
      bound[r * width + i] =
          24 * (fabs(x_minus_mean) + fabs(mean) + sqrt(square)) * scale * (has_weight ? fabs(w[i]) : 1) +
          (has_bias ? fabs(b[i]) : 0);
    }
  }
  if (width == 1 && !is_rms && eps == 0) return; /* 0 / 0 */
  check_context("%s width %d eps %g%s%s%s", dtype_name(dtype), (int)width, eps, has_weight ? " weight" : "",
                has_bias ? " bias" : "", in_place ? " in place" : "");
  done(is_rms ? "rms_norm" : "layer_norm",
       is_rms ? swiftattn_rms_norm(&x, has_weight ? &weight : NULL, eps, &out)
              : swiftattn_layer_norm(&x, has_weight ? &weight : NULL, has_bias ? &bias : NULL, eps, &out),
       &out, expected, bound);
}

static void layer_norm(void) {
  for (int n = 0; n < (check_quick ? 16 : 80); n++) norm(n, 0);
}

static void rms_norm(void) {
  for (int n = 0; n < (check_quick ? 16 : 80); n++) norm(n, 1);
}

/* The variance of values far from zero: taking it as E[x^2] - mean^2 would lose everything. */
static void layer_norm_far_from_zero(void) {
  swiftattn_tensor x = TENSOR(F32, LAYOUT_DENSE, 1, 64), out = TENSOR(F32, LAYOUT_DENSE, 1, 64);
  double expected[64], bound[64];
  for (int64_t i = 0; i < 64; i++) {
    tensor_store(&x, (const int64_t[]){0, i}, 65536 + (i % 2 ? 1 : -1));
    expected[i] = i % 2 ? 1 : -1;
    bound[i] = 1e-4;
  }
  CHECK(swiftattn_layer_norm(&x, NULL, NULL, 0, &out) == 0, "%s", swiftattn_last_error());
  tensor_compare("layer_norm", &out, expected, bound);
}

enum { GATED_SILU = 5, GATED_GELU, GATED_GELU_TANH };

static int32_t activate(int kind, const swiftattn_tensor *x, const swiftattn_tensor *up, const swiftattn_tensor *out) {
  switch (kind) {
    case SWIFTATTN_ACTIVATION_RELU: return swiftattn_relu(x, out);
    case SWIFTATTN_ACTIVATION_GELU: return swiftattn_gelu(x, SWIFTATTN_GELU_NONE, out);
    case SWIFTATTN_ACTIVATION_GELU_TANH: return swiftattn_gelu(x, SWIFTATTN_GELU_TANH, out);
    case SWIFTATTN_ACTIVATION_SILU: return swiftattn_silu(x, out);
    case GATED_SILU: return swiftattn_swiglu(x, up, out);
    case GATED_GELU: return swiftattn_geglu(x, up, SWIFTATTN_GELU_NONE, out);
    default: return swiftattn_geglu(x, up, SWIFTATTN_GELU_TANH, out);
  }
}

static void activations(void) {
  static const int32_t plain[] = {
      0, 1, 2, 3, 4, SWIFTATTN_ACTIVATION_SILU, SWIFTATTN_ACTIVATION_GELU, SWIFTATTN_ACTIVATION_GELU_TANH};
  static const float specials[] = {NAN, INFINITY, 0, -0.0f, 1e-30f, -1e-30f, 30, -30, 1e30f, 5, -5};
  for (int kind = SWIFTATTN_ACTIVATION_RELU; kind <= GATED_GELU_TANH; kind++)
    for (int n = 0; n < 12; n++) {
      int64_t shape[3] = {random_int(1, 4), random_int(1, 20), random_int(1, 50)};
      swiftattn_tensor x = tensor_make(pick_dtype(n), tensor_random_layout(), 3, shape);
      swiftattn_tensor up = tensor_make(pick_dtype(n), tensor_random_layout(), 3, shape);
      swiftattn_tensor out = n % 5 == 3 ? x
                             : n % 5 == 4 && kind >= GATED_SILU
                                 ? up
                                 : tensor_make(x.dtype, tensor_random_layout(), 3, shape);
      int64_t total = tensor_count(&x);
      double *dx, *du, *expected = doubles(total), *bound = doubles(total);
      tensor_fill_normal(&x, 3);
      tensor_fill_normal(&up, 1);
      for (int64_t i = 0; i < shape[2] && i < 11 && shape[1] > 1; i++)
        tensor_store(&x, (const int64_t[]){0, 1, i}, specials[i]);
      dx = tensor_dense(&x, 3, shape);
      du = tensor_dense(&up, 3, shape);
      for (int64_t i = 0; i < total; i++) {
        double factor = kind >= GATED_SILU ? du[i] : 1;
        expected[i] = reference_activation(dx[i], plain[kind]) * factor;
        if (dtype_equal(x.dtype, F32) && fabs(expected[i]) > 3.4028235e38)
          expected[i] = copysign(INFINITY, expected[i]);
        bound[i] = isfinite(expected[i]) ? fabs(expected[i]) * 4 + fabs(factor) * fmin(fabs(dx[i]), 6) : 0;
      }
      check_context("kind %d %s round %d", kind, dtype_name(x.dtype), n);
      done("activation", activate(kind, &x, &up, &out), &out, expected, bound);
    }
}

static void embedding(void) {
  for (int n = 0; n < 40; n++) {
    int64_t rows = random_int(1, 20), width = random_int(1, 40), shape[3] = {random_int(1, 3), random_int(1, 9), width};
    swiftattn_dtype dtype = pick_dtype(n);
    int has_residual = n & 1, in_place = n % 8 == 3;
    swiftattn_tensor ids = tensor_make(n % 3 ? I64 : I32, tensor_random_layout(), 2, shape);
    swiftattn_tensor table = TENSOR(dtype, tensor_random_layout(), rows, width);
    swiftattn_tensor residual = in_place || n & 2 ? tensor_make(dtype, tensor_random_layout(), 3, shape)
                                                  : TENSOR(dtype, tensor_random_layout(), shape[1], width);
    swiftattn_tensor out = in_place ? residual : tensor_make(dtype, tensor_random_layout(), 3, shape);
    double *dt, *dr, *di, *expected = doubles(shape[0] * shape[1] * width);
    int64_t index[SWIFTATTN_MAX_DIMS] = {0};
    int32_t status;
    tensor_fill_normal(&table, 1);
    tensor_fill_normal(&residual, 1);
    do tensor_store(&ids, index, (double)random_int(0, rows - 1));
    while (tensor_next(&ids, index));
    di = tensor_dense(&ids, 2, shape);
    dt = tensor_dense(&table, 2, table.shape);
    dr = tensor_dense(&residual, 3, shape);
    for (int64_t e = 0; e < tensor_count(&out); e++)
      expected[e] = dt[(int64_t)di[e / width] * width + e % width] + (has_residual ? dr[e] : 0);
    check_context("%s rows %d width %d%s%s", dtype_name(dtype), (int)rows, (int)width, has_residual ? " residual" : "",
                  in_place ? " in place" : "");
    status = swiftattn_embedding(&ids, &table, has_residual ? &residual : NULL, &out);
    CHECK(status == 0, "status %d: %s", status, swiftattn_last_error());
    tensor_compare("embedding", &out, expected, NULL);
  }
}

static void sinusoidal_positions(void) {
  static const int64_t shapes[][2] = {{1, 1}, {5, 2}, {40, 7}, {3, 64}, {0, 8}, {6, 0}, {2000, 3}};
  for (int n = 0; n < 7; n++)
    for (int type = 0; type < 4; type++) {
      int64_t length = shapes[n][0], dim = shapes[n][1];
      swiftattn_tensor out = TENSOR(pick_dtype(type), tensor_random_layout(), length, dim);
      double *expected = doubles(length * dim), *bound = doubles(length * dim);
      for (int64_t e = 0; e < length * dim; e++) {
        int64_t column = e % dim;
        double angle = (double)(e / dim) / pow(10000, (double)(column - column % 2) / (double)dim);
        expected[e] = column % 2 ? cos(angle) : sin(angle);
        bound[e] = dtype_equal(out.dtype, F64) ? 8 + 4 * angle : 1;
      }
      check_context("%s %dx%d", dtype_name(out.dtype), (int)length, (int)dim);
      done("sinusoidal_positions", swiftattn_sinusoidal_positions(&out), &out, expected, bound);
    }
}

static void alibi_slopes(void) {
  for (int64_t heads = 0; heads <= 130; heads++)
    for (int type = 0; type < 2; type++) {
      swiftattn_tensor out = TENSOR(type ? F64 : F32, tensor_random_layout(), heads);
      double *expected = doubles(heads), *bound = doubles(heads);
      int64_t power = 1;
      while (2 * power <= heads) power *= 2;
      for (int64_t h = 0; h < heads; h++) {
        double exponent =
            h < power ? -8.0 * (double)(h + 1) / (double)power : -4.0 * (double)(2 * (h - power) + 1) / (double)power;
        expected[h] = pow(2, exponent);
        bound[h] = 4 * expected[h];
      }
      check_context("%d heads", (int)heads);
      done("alibi_slopes", swiftattn_alibi_slopes(&out), &out, expected, bound);
    }
}

void run_rows(void) {
  check_run("rows: softmax", softmax);
  check_run("rows: softmax of infinities and NaN", softmax_edges);
  check_run("rows: layer_norm", layer_norm);
  check_run("rows: layer_norm far from zero", layer_norm_far_from_zero);
  check_run("rows: rms_norm", rms_norm);
  check_run("rows: activations", activations);
  check_run("rows: embedding", embedding);
  check_run("rows: sinusoidal_positions", sinusoidal_positions);
  check_run("rows: alibi_slopes", alibi_slopes);
}
