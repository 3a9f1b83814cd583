/* Threads, in both directions: the library's own, and callers in several threads and after a fork. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "problem.h"

enum { CALLERS = 4 };

/* One of everything that may be computed in parallel. */
typedef struct workload {
  problem attention, decode;
  swiftattn_tensor a, b, product, weight, linear, softmax, norm, gelu;
} workload;

static void workload_make(workload *w, swiftattn_dtype dtype) {
  sizes prefill = {2, 4, 2, check_quick ? 19 : 150, check_quick ? 33 : 170, 32, 32};
  sizes decode = {1, 8, 2, 1, check_quick ? 100 : 3000, 64, 64};
  int64_t m = check_quick ? 20 : 130;
  problem_make(&w->attention, dtype, prefill);
  w->attention.options.causal = SWIFTATTN_CAUSAL_LOWER_RIGHT;
  w->attention.options.dropout_p = 0.1;
  problem_add_alibi(&w->attention);
  problem_make(&w->decode, dtype, decode);
  w->decode.has_weights = 0;
  w->a = TENSOR(dtype, LAYOUT_DENSE, m, 200);
  w->b = TENSOR(dtype, LAYOUT_DENSE, 200, 90);
  w->weight = TENSOR(dtype, LAYOUT_DENSE, 90, 200);
  tensor_fill_normal(&w->a, 1);
  tensor_fill_normal(&w->b, 1);
  tensor_fill_normal(&w->weight, 1);
  w->product = TENSOR(dtype, LAYOUT_DENSE, m, 90);
  w->linear = tensor_like(&w->product);
  w->softmax = tensor_like(&w->a);
  w->norm = tensor_like(&w->a);
  w->gelu = tensor_like(&w->a);
}

/* The same inputs, outputs of its own. */
static workload workload_copy(const workload *w) {
  workload copy = *w;
  copy.attention.options.alibi_slopes = &w->attention.alibi_slopes;
  copy.attention.out = tensor_like(&w->attention.out);
  copy.attention.lse = tensor_like(&w->attention.lse);
  copy.attention.weights = tensor_like(&w->attention.weights);
  copy.decode.out = tensor_like(&w->decode.out);
  copy.decode.lse = tensor_like(&w->decode.lse);
  copy.product = tensor_like(&w->product);
  copy.linear = tensor_like(&w->linear);
  copy.softmax = tensor_like(&w->softmax);
  copy.norm = tensor_like(&w->norm);
  copy.gelu = tensor_like(&w->gelu);
  return copy;
}

static int32_t workload_run(const workload *w) {
  int32_t status = problem_run(&w->attention);
  if (status == 0) status = problem_run(&w->decode);
  if (status == 0) status = swiftattn_matmul(&w->a, &w->b, SWIFTATTN_PRECISION_HIGHEST, &w->product);
  if (status == 0) status = swiftattn_linear(&w->a, &w->weight, NULL, NULL, NULL, &w->linear);
  if (status == 0) status = swiftattn_softmax(&w->a, -1, &w->softmax);
  if (status == 0) status = swiftattn_layer_norm(&w->a, NULL, NULL, 1e-5, &w->norm);
  if (status == 0) status = swiftattn_gelu(&w->a, SWIFTATTN_GELU_NONE, &w->gelu);
  return status;
}

/* The name of an output whose bits differ, or NULL. */
static const char *workload_difference(const workload *a, const workload *b) {
  if (!tensor_same_bits(&a->attention.out, &b->attention.out)) return "attention out";
  if (!tensor_same_bits(&a->attention.lse, &b->attention.lse)) return "attention lse";
  if (!tensor_same_bits(&a->attention.weights, &b->attention.weights)) return "attention weights";
  if (!tensor_same_bits(&a->decode.out, &b->decode.out)) return "decode out";
  if (!tensor_same_bits(&a->decode.lse, &b->decode.lse)) return "decode lse";
  if (!tensor_same_bits(&a->product, &b->product)) return "matmul";
  if (!tensor_same_bits(&a->linear, &b->linear)) return "linear";
  if (!tensor_same_bits(&a->softmax, &b->softmax)) return "softmax";
  if (!tensor_same_bits(&a->norm, &b->norm)) return "layer_norm";
  return tensor_same_bits(&a->gelu, &b->gelu) ? NULL : "gelu";
}

static void bits_do_not_depend_on_threads(void) {
  const swiftattn_dtype dtypes[] = {F32, BF16, F16, F64};
  for (int n = 0; n < 4; n++) {
    workload one, more;
    workload_make(&one, dtypes[n]);
    CHECK(swiftattn_set_num_threads(1) == 0 && workload_run(&one) == 0, "%s", swiftattn_last_error());
    for (int32_t threads = 2; threads <= 5; threads++) {
      const char *difference;
      more = workload_copy(&one);
      CHECK(swiftattn_set_num_threads(threads) == 0 && workload_run(&more) == 0, "%s", swiftattn_last_error());
      difference = workload_difference(&one, &more);
      CHECK(!difference, "%s: %s differs between 1 and %d threads", dtype_name(dtypes[n]), difference, threads);
    }
    buffer_free_all();
  }
  swiftattn_set_num_threads(0);
}

typedef struct caller {
  workload work;
  int32_t status;
  int message_is_own, number;
} caller;

static void *call_repeatedly(void *argument) {
  caller *c = argument;
  char number[16];
  snprintf(number, sizeof number, "-%d", 1000 + c->number);
  c->message_is_own = 1;
  for (int n = 0; n < 3 && c->status == 0; n++) {
    c->status = workload_run(&c->work);
    swiftattn_set_num_threads(-1000 - c->number);
    c->message_is_own &= strstr(swiftattn_last_error(), number) != NULL;
  }
  return NULL;
}

static void callers_at_once(void) {
  static caller callers[CALLERS];
  static workload alone;
  pthread_t threads[CALLERS];
  workload_make(&alone, F32);
  CHECK(workload_run(&alone) == 0, "%s", swiftattn_last_error());
  for (int n = 0; n < CALLERS; n++) {
    callers[n].work = workload_copy(&alone);
    callers[n].status = 0;
    callers[n].number = n;
  }
  for (int n = 0; n < CALLERS; n++) pthread_create(&threads[n], NULL, call_repeatedly, &callers[n]);
  for (int n = 0; n < CALLERS; n++) pthread_join(threads[n], NULL);
  for (int n = 0; n < CALLERS; n++) {
    const char *difference = workload_difference(&alone, &callers[n].work);
    CHECK(callers[n].status == 0, "caller %d: status %d", n, callers[n].status);
    CHECK(!difference, "caller %d: %s differs", n, difference);
    CHECK(callers[n].message_is_own, "caller %d saw another thread's message", n);
  }
}

static void *call_once(void *argument) {
  caller *c = argument;
  c->status = workload_run(&c->work);
  return NULL;
}

static void short_lived_threads(void) {
  static caller c;
  static workload alone;
  workload_make(&alone, F32);
  CHECK(workload_run(&alone) == 0, "%s", swiftattn_last_error());
  c.work = workload_copy(&alone);
  for (int n = 0; n < 8; n++) {
    pthread_t thread;
    pthread_create(&thread, NULL, call_once, &c);
    pthread_join(thread, NULL);
    CHECK(c.status == 0 && !workload_difference(&alone, &c.work), "thread %d: status %d", n, c.status);
  }
}

static workload before_fork, after_fork;

static int compute_in_child(void) {
  return workload_run(&after_fork) != 0 ? 1 : workload_difference(&before_fork, &after_fork) ? 2 : 0;
}

/* The child has the caller's thread only: the library's threads must be started anew there. */
static void fork_after_use(void) {
  workload_make(&before_fork, F32);
  swiftattn_set_num_threads(2);
  CHECK(workload_run(&before_fork) == 0, "%s", swiftattn_last_error());
  after_fork = workload_copy(&before_fork);
  for (int generation = 0; generation < 3; generation++) {
    check_child(20, compute_in_child);
    CHECK(workload_run(&before_fork) == 0, "%s", swiftattn_last_error());
  }
  swiftattn_set_num_threads(0);
}

void run_threads(void) {
  check_run("threads: bits do not depend on their number", bits_do_not_depend_on_threads);
  check_run("threads: callers at once", callers_at_once);
  check_run("threads: short-lived callers", short_lived_threads);
  check_run("threads: fork after use", fork_after_use);
}
