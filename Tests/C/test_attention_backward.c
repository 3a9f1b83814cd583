/* The gradients of attention through the C ABI: float64 against differences of the library's own forward, and what may be
 * NULL. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "tensor.h"

enum { HEADS = 4, KV_HEADS = 2, QUERIES = 5, KEYS = 7, DIM = 3, VALUE_DIM = 2 };

typedef struct training {
  swiftattn_attention_options options;
  swiftattn_tensor q, k, v, mask, sinks, grad_out, out, lse;
} training;

static training training_make(swiftattn_dtype dtype) {
  training t = {.options = SWIFTATTN_ATTENTION_OPTIONS_INIT};
  swiftattn_dtype sums = dtype_equal(dtype, F64) ? F64 : F32;
  t.q = TENSOR(dtype, tensor_random_layout(), 2, HEADS, QUERIES, DIM);
  t.k = TENSOR(dtype, tensor_random_layout(), 2, KV_HEADS, KEYS, DIM);
  t.v = TENSOR(dtype, tensor_random_layout(), 2, KV_HEADS, KEYS, VALUE_DIM);
  t.mask = TENSOR(sums, LAYOUT_DENSE, HEADS, 1, KEYS);
  t.sinks = TENSOR(sums, LAYOUT_DENSE, HEADS);
  t.grad_out = TENSOR(dtype, tensor_random_layout(), 2, HEADS, QUERIES, VALUE_DIM);
  t.out = tensor_like(&t.grad_out);
  t.lse = TENSOR(sums, LAYOUT_DENSE, 2, HEADS, QUERIES);
  tensor_fill_normal(&t.q, 1);
  tensor_fill_normal(&t.k, 1);
  tensor_fill_normal(&t.v, 1);
  tensor_fill_normal(&t.mask, 1);
  tensor_fill_normal(&t.sinks, 1);
  tensor_fill_normal(&t.grad_out, 1);
  t.options.softcap = 3;
  t.options.causal = SWIFTATTN_CAUSAL_LOWER_RIGHT;
  t.options.dropout_p = 0.25;
  t.options.seed = 77;
  return t;
}

/* sum of out * grad_out */
static double loss(training *t) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  double sum = 0;
  int32_t status = swiftattn_scaled_dot_product_attention(&t->q, &t->k, &t->v, &t->options, &t->out, &t->lse, NULL);
  CHECK(status == SWIFTATTN_SUCCESS, "forward: %s", swiftattn_last_error());
  do sum += tensor_load(&t->out, index) * tensor_load(&t->grad_out, index);
  while (tensor_next(&t->out, index));
  return sum;
}

static void check_gradient(training *t, const char *name, const swiftattn_tensor *input, const swiftattn_tensor *gradient) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  const double step = 1e-4;
  do {
    double at = tensor_load(input, index), got = tensor_load(gradient, index), difference;
    tensor_store(input, index, at + step);
    difference = loss(t);
    tensor_store(input, index, at - step);
    difference = (difference - loss(t)) / (2 * step);
    tensor_store(input, index, at);
    CHECK(fabs(got - difference) <= 1e-6, "%s is %.9g, the loss changes by %.9g", name, got, difference);
  } while (tensor_next(input, index));
}

static void test_differences(void) {
  training t = training_make(F64);
  swiftattn_tensor dq = tensor_like(&t.q), dk = tensor_like(&t.k), dv = tensor_like(&t.v);
  swiftattn_tensor dbias = tensor_like(&t.mask), dsinks = tensor_like(&t.sinks);
  t.options.attn_mask = &t.mask;
  t.options.sinks = &t.sinks;
  loss(&t);
  CHECK(swiftattn_scaled_dot_product_attention_backward(&t.grad_out, &t.q, &t.k, &t.v, &t.out, &t.lse, &t.options, &dq, &dk,
                                                        &dv, &dbias, &dsinks) == SWIFTATTN_SUCCESS,
        "backward: %s", swiftattn_last_error());
  check_gradient(&t, "dq", &t.q, &dq);
  check_gradient(&t, "dk", &t.k, &dk);
  check_gradient(&t, "dv", &t.v, &dv);
  check_gradient(&t, "dbias", &t.mask, &dbias);
  check_gradient(&t, "dsinks", &t.sinks, &dsinks);
}

/* Each gradient alone has the bits it has among all. */
static void test_one_at_a_time(void) {
  training t = training_make(F32);
  swiftattn_tensor all[3], alone[3];
  const swiftattn_tensor *inputs[3] = {&t.q, &t.k, &t.v};
  loss(&t);
  for (int i = 0; i < 3; i++) {
    all[i] = tensor_like(inputs[i]);
    alone[i] = tensor_like(inputs[i]);
  }
  CHECK(swiftattn_scaled_dot_product_attention_backward(&t.grad_out, &t.q, &t.k, &t.v, &t.out, &t.lse, &t.options, &all[0],
                                                        &all[1], &all[2], NULL, NULL) == SWIFTATTN_SUCCESS,
        "all: %s", swiftattn_last_error());
  for (int i = 0; i < 3; i++) {
    const swiftattn_tensor *d[3] = {NULL, NULL, NULL};
    d[i] = &alone[i];
    CHECK(swiftattn_scaled_dot_product_attention_backward(&t.grad_out, &t.q, &t.k, &t.v, &t.out, &t.lse, &t.options, d[0],
                                                          d[1], d[2], NULL, NULL) == SWIFTATTN_SUCCESS,
          "alone: %s", swiftattn_last_error());
    CHECK(tensor_same_bits(&alone[i], &all[i]), "gradient %d alone has other bits", i);
  }
}

void run_attention_backward(void) {
  check_run("attention backward: differences", test_differences);
  check_run("attention backward: one gradient at a time", test_one_at_a_time);
}
