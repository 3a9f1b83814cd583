/* activation_row against the C library: dense sweeps, special values, every half pattern, strides and gates. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tests.h"

static const char *const names[] = { "identity", "relu", "gelu", "gelu_tanh", "silu" };

double activation_reference(attn_activation activation, double x, bool wide) {
  const long double X = (long double)x, half_root = 0.70710678118654752440L, root = 0.79788456080286535588L;
  switch (activation) {
    case ATTN_RELU: return x <= 0 ? 0 : x;
    case ATTN_GELU: return wide ? (double)(X * erfcl(-X * half_root) / 2) : x * erfc(-x * (double)half_root) / 2;
    case ATTN_GELU_TANH: /* x / (1 + e^-2u) = x (1 + tanh u) / 2 */
      if (!wide) return x / (1 + exp(-2 * (double)root * (x + 0.044715 * x * x * x)));
      return (double)(X / (1 + expl(-2 * root * (X + 0.044715L * X * X * X))));
    case ATTN_SILU: return wide ? (double)(X / (1 + expl(-X))) : x / (1 + exp(-x));
    default: return x;
  }
}

/* gelu: relative, and growing as the tail steepens: rounding x/sqrt(2) alone moves erfc by x^2 roundoffs.
 * gelu_tanh: 1 + tanh cancels below zero, so relative to x, as in every implementation of this formula.
 * silu: relative. Results below 1e-36 may be flushed (double: 1e-300). */
double activation_bound(const subject *s, attn_activation activation, double x) {
  const double u = s->roundoff, y = fabs(activation_reference(activation, x, false));
  const double flushed = s->real_dtype == ATTN_F64 ? 1e-300 : 1e-36;
  switch (activation) {
    case ATTN_GELU: return (12 + 2 * (x < 0 ? x * x : 0)) * u * y + flushed;
    case ATTN_GELU_TANH: return x < 0 ? 6 * u * fmin(fabs(x), 10) + flushed : 8 * u * y + flushed;
    case ATTN_SILU: return 8 * u * y + flushed;
    default: return 0;
  }
}

typedef struct loss { double relative, below; } loss; /* of results at x >= -1; below it relative to |x| */

static void check_one(const subject *s, attn_dtype dtype, attn_activation activation, double x, double got,
                      loss *worst) {
  const double expected = activation_reference(activation, x, s->real_dtype == ATTN_F64);
  if (isnan(x)) {
    CHECK(isnan(got), "%s(NaN) is %g in %s", names[activation], got, dtype_name(dtype));
  } else if (isinf(x)) { /* the limit; at -inf also NaN, which is what the formula x * 0 gives */
    const double limit = x > 0 || activation == ATTN_IDENTITY ? x : 0;
    CHECK(got == limit || (x < 0 && activation > ATTN_RELU && isnan(got)), "%s(%g) is %g in %s",
          names[activation], x, got, dtype_name(dtype));
  } else {
    if (dtype == ATTN_F16 && fabs(expected) > 65504) return;
    const double bound = activation_bound(s, activation, x), error = fabs(got - expected);
    const double unit = x < -1 ? fabs(x) : fabs(expected);
    double *place = x < -1 ? &worst->below : &worst->relative;
    if (dtype == s->real_dtype && unit > 1e-30 && error > *place * unit) *place = error / unit;
    const double rounding = activation > ATTN_RELU
        ? 1.01 * element_roundoff(dtype) * (fabs(expected) + bound) + element_tiny(dtype) : 0;
    if (!(error <= bound + rounding))
      check_fail("%s(%.17g) is %.17g, expected %.17g within %.2g, in %s", names[activation], x, got, expected,
                 bound + rounding, dtype_name(dtype));
    else check_rounded(error, bound, rounding, "result", 0);
  }
}

#define BATCH 1021

static void sweep(const subject *s, attn_activation activation, loss *worst) {
  static const double special[] = { 0.0, -0.0, 0x1p-149, -0x1p-149, 0x1p-126, -0x1p-126, INFINITY, -INFINITY, NAN,
                                    FLT_MAX, -FLT_MAX, 1e4, -1e4, 1e13, -1e13, 2e19, -2e19, 88.3, -88.3, 88.5, -88.5,
                                    89, -89, -103, 103, 14.2, -14.2, 1.41421354, -1.41421354, -13, 0.625, -0.625 };
  const int specials = sizeof special / sizeof *special, batches = check_trials(s->dtype_count > 1 ? 300 : 120);
  const attn_rows shape = { s->real_dtype, BATCH, 1, 1, false };
  const size_t bytes = BATCH * attn_dtype_size(s->real_dtype);
  for (int batch = 0; batch < batches; batch++) {
    guard_reset();
    view x = view_new(s->real_dtype, 1, 1, BATCH, VIEW_DENSE);
    for (int i = 0; i < BATCH; i++) {
      double value = 40 * random_uniform() - 20;
      if (batch % 3 == 1) { /* patterns spread over all floats */
        const uint32_t pattern = (uint32_t)random_bits();
        value = element_get(ATTN_F32, &pattern);
      }
      if (batch % 3 == 2) value = 3 * random_normal();
      view_put(&x, 0, 0, i, batch == 0 && i < specials ? special[i] : value);
    }
    check_context("%s, batch %d", names[activation], batch);
    guard_seal();
    char *out = guard_new(bytes, attn_dtype_size(s->real_dtype));
    s->kernels->activation_row(&shape, activation, x.data, NULL, 0, out);
    for (int i = 0; i < BATCH; i++)
      check_one(s, s->real_dtype, activation, view_get(&x, 0, 0, i),
                element_get(s->real_dtype, out + (size_t)i * attn_dtype_size(s->real_dtype)), worst);
  }
}

static void every_half(const subject *s, attn_dtype dtype, attn_activation activation, loss *worst) {
  const int step = check_quick ? 17 : 1, count = 65536 / step;
  guard_reset();
  uint16_t *x = guard_new((size_t)count * 2, 2);
  for (int i = 0; i < count; i++) x[i] = (uint16_t)(i * step);
  guard_seal();
  uint16_t *out = guard_new((size_t)count * 2, 2);
  check_context("%s of all %s patterns", names[activation], dtype_name(dtype));
  const attn_rows shape = { dtype, count, 1, 1, false };
  s->kernels->activation_row(&shape, activation, x, NULL, 0, out);
  for (int i = 0; i < count; i++)
    check_one(s, dtype, activation, half_value(dtype, x[i]), half_value(dtype, out[i]), worst);
}

/* Strides, gates, in place, odd counts. */
static void shapes(const subject *s) {
  for (int i = 0; i < check_trials(1500); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
    const attn_activation activation = (attn_activation)random_int(ATTN_IDENTITY, ATTN_SILU);
    const int64_t n = random_int(0, 70);
    const bool gated = random_chance(2), in_place = random_chance(3);
    view up = view_new(dtype, 1, 1, n, (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST));
    for (int64_t j = 0; j < n; j++) view_put(&up, 0, 0, j, random_normal());
    guard_seal();
    view x = view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
    view out = in_place ? x : view_new(dtype, 1, 1, n, random_chance(2) ? VIEW_DENSE : VIEW_STRIDED);
    double values[70];
    for (int64_t j = 0; j < n; j++) {
      view_put(&x, 0, 0, j, 3 * random_normal());
      values[j] = view_get(&x, 0, 0, j);
    }
    check_context("%s of %ld %s, strides %ld %ld %ld, gated %d, in place %d", names[activation], (long)n,
                  dtype_name(dtype), (long)x.stride[2], (long)up.stride[2], (long)out.stride[2], gated, in_place);
    const attn_rows shape = { dtype, n, x.stride[2], out.stride[2], !in_place && random_chance(2) };
    s->kernels->activation_row(&shape, activation, x.data, gated ? up.data : NULL, up.stride[2], out.data);
    for (int64_t j = 0; j < n; j++) {
      const double gate = gated ? view_get(&up, 0, 0, j) : 1;
      const double expected = gate * activation_reference(activation, values[j], false);
      const double bound = fabs(gate) * activation_bound(s, activation, values[j]) + 2 * s->roundoff * fabs(expected);
      const double rounding = 1.01 * element_roundoff(dtype) * (fabs(expected) + bound) + element_tiny(dtype);
      check_rounded(fabs(view_get(&out, 0, 0, j) - expected), bound, rounding, "result", j);
    }
    view_check_gaps(&out, "out");
  }
}

void test_activation(const subject *s) {
  check_begin(s->isa, s->real, "activation_row");
  for (int activation = ATTN_IDENTITY; activation <= ATTN_SILU; activation++) {
    loss worst = {0};
    sweep(s, (attn_activation)activation, &worst);
    for (int i = 1; i < s->dtype_count; i++) every_half(s, s->dtypes[i], (attn_activation)activation, &worst);
    if (activation > ATTN_RELU) check_note("%s %.1e/%.1e ", names[activation], worst.relative, worst.below);
  }
  shapes(s);
  check_note("(of y above -1, of x below)");
  check_end();
}
