/* Every buffer against an unreadable page, inputs read-only: no access beyond a tensor, no write to an input. */
#include <string.h>

#include "check.h"
#include "problem.h"

static swiftattn_dtype pick_dtype(int n) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  return dtypes[n % 4];
}

/* Outputs are made after the inputs are frozen. */
static void guarded_attention(int mode, swiftattn_dtype dtype, sizes s, int strided, int options) {
  problem p;
  buffer_mode(mode);
  if (strided)
    problem_make_strided(&p, dtype, s);
  else
    problem_make(&p, dtype, s);
  if (options) problem_add_options(&p);
  buffer_freeze();
  p.out = tensor_make(dtype, strided ? tensor_random_layout() : LAYOUT_DENSE, 4, p.out.shape);
  p.lse = tensor_like(&p.lse);
  p.weights = tensor_like(&p.weights);
  problem_describe(&p);
  problem_check(&p);
  buffer_mode(BUFFER_HEAP);
  buffer_free_all();
}

static void attention_head_dims(void) {
  for (int64_t dim = 1; dim <= 130; dim += check_quick ? 13 : 1)
    for (int mode = BUFFER_GUARD_AFTER; mode <= BUFFER_GUARD_BEFORE; mode++) {
      sizes s = {1, 2, 1, 1 + dim % 9, 1 + dim % 21, dim, 131 - dim};
      guarded_attention(mode, pick_dtype((int)dim), s, 0, 0);
      guarded_attention(mode, pick_dtype((int)dim + 1), s, 0, 0);
    }
}

static void attention_lengths(void) {
  for (int64_t length = 1; length <= 70; length += check_quick ? 11 : 1) {
    sizes s = {2, 2, 2, length, 71 - length, 17, 19};
    for (int n = 0; n < 4; n++) guarded_attention(BUFFER_GUARD_AFTER + n % 2, pick_dtype(n), s, 0, 0);
  }
}

static void attention_options(void) {
  for (int n = 0; n < (check_quick ? 8 : 120); n++)
    guarded_attention(BUFFER_GUARD_AFTER + n % 2, pick_dtype(n / 2), sizes_random(), n % 3 != 0, 1);
}

static void check_status(int32_t status) { CHECK(status == 0, "status %d: %s", status, swiftattn_last_error()); }

/* An input against a guard page; freezing is left to the caller. */
static swiftattn_tensor input(swiftattn_dtype dtype, int ndim, const int64_t *shape) {
  swiftattn_tensor t = tensor_make(dtype, random_chance(2) ? LAYOUT_DENSE : tensor_random_layout(), ndim, shape);
  tensor_fill_normal(&t, 1);
  return t;
}
#define INPUT(dtype, ...) \
  input(dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

static void matrix_products(void) {
  for (int n = 0; n < (check_quick ? 16 : 200); n++) {
    int64_t m = random_int(1, 40), k = random_int(1, 70), width = random_int(1, 70);
    swiftattn_dtype dtype = pick_dtype(n);
    swiftattn_linear_options options = SWIFTATTN_LINEAR_OPTIONS_INIT;
    swiftattn_tensor a, b, weight, bias, residual, out;
    buffer_mode(BUFFER_GUARD_AFTER + n % 2);
    a = INPUT(dtype, m, k);
    b = INPUT(dtype, k, width);
    weight = INPUT(dtype, width, k);
    bias = INPUT(dtype, width);
    residual = INPUT(dtype, m, width);
    buffer_freeze();
    out = TENSOR(dtype, tensor_random_layout(), m, width);
    options.activation = n % 5;
    check_context("%s %dx%dx%d", dtype_name(dtype), (int)m, (int)k, (int)width);
    check_status(swiftattn_matmul(&a, &b, n % 3, &out));
    check_status(swiftattn_linear(&a, &weight, &bias, &residual, &options, &out));
    buffer_mode(BUFFER_HEAP);
    buffer_free_all();
  }
}

static void rows(void) {
  for (int64_t width = 1; width <= 130; width += check_quick ? 9 : 1)
    for (int n = 0; n < 4; n++) {
      swiftattn_dtype dtype = pick_dtype(n);
      swiftattn_tensor x, up, weight, bias, ids, out, outs[2], lses[2], lse;
      buffer_mode(BUFFER_GUARD_AFTER + (int)width % 2);
      x = INPUT(dtype, 3, width);
      up = INPUT(dtype, 3, width);
      weight = INPUT(dtype, width);
      bias = INPUT(dtype, width);
      ids = TENSOR(I32, LAYOUT_DENSE, 3);
      outs[0] = x, outs[1] = up;
      for (int part = 0; part < 2; part++) lses[part] = INPUT(n == 3 ? F64 : F32, 3);
      tensor_fill(&ids, 2);
      buffer_freeze();
      out = TENSOR(dtype, LAYOUT_DENSE, 3, width);
      lse = tensor_like(&lses[0]);
      check_context("%s width %d", dtype_name(dtype), (int)width);
      check_status(swiftattn_softmax(&x, -1, &out));
      check_status(swiftattn_softmax(&x, 0, &out));
      check_status(swiftattn_layer_norm(&x, &weight, &bias, 1e-5, &out));
      check_status(swiftattn_rms_norm(&x, &weight, 1e-5, &out));
      check_status(swiftattn_relu(&x, &out));
      check_status(swiftattn_gelu(&x, SWIFTATTN_GELU_NONE, &out));
      check_status(swiftattn_gelu(&x, SWIFTATTN_GELU_TANH, &out));
      check_status(swiftattn_silu(&x, &out));
      check_status(swiftattn_swiglu(&x, &up, &out));
      check_status(swiftattn_geglu(&x, &up, SWIFTATTN_GELU_NONE, &out));
      check_status(swiftattn_embedding(&ids, &x, &up, &out));
      check_status(swiftattn_merge_attention_states(outs, lses, 2, &out, &lse));
      check_status(swiftattn_sinusoidal_positions(&out));
      if (n == 0 || n == 3) {
        swiftattn_tensor slopes = TENSOR(dtype, LAYOUT_DENSE, width);
        check_status(swiftattn_alibi_slopes(&slopes));
      }
      buffer_mode(BUFFER_HEAP);
      buffer_free_all();
    }
}

static void varlen(void) {
  for (int64_t length = 1; length <= 40; length += check_quick ? 9 : 1) {
    swiftattn_dtype dtype = pick_dtype((int)length);
    swiftattn_tensor q, k, v, cu, out, lse;
    buffer_mode(BUFFER_GUARD_AFTER + (int)length % 2);
    q = INPUT(dtype, length, 4, 33);
    k = INPUT(dtype, length, 2, 33);
    v = INPUT(dtype, length, 2, 17);
    cu = TENSOR(I32, LAYOUT_DENSE, 3);
    tensor_store1(&cu, 0, 0);
    tensor_store1(&cu, 1, (double)(length / 3));
    tensor_store1(&cu, 2, (double)length);
    buffer_freeze();
    out = TENSOR(dtype, LAYOUT_DENSE, length, 4, 17);
    lse = TENSOR(dtype_equal(dtype, F64) ? F64 : F32, LAYOUT_DENSE, 4, length);
    check_context("%s length %d", dtype_name(dtype), (int)length);
    check_status(swiftattn_attention_varlen(&q, &k, &v, &cu, &cu, NULL, &out, &lse));
    buffer_mode(BUFFER_HEAP);
    buffer_free_all();
  }
}

void run_guard(void) {
  check_run("guard: attention, head dims 1 to 130", attention_head_dims);
  check_run("guard: attention, lengths 1 to 70", attention_lengths);
  check_run("guard: attention, layouts and options", attention_options);
  check_run("guard: matmul and linear", matrix_products);
  check_run("guard: row functions, widths 1 to 130", rows);
  check_run("guard: varlen", varlen);
}
