/* Numbers at the edge of 64 bits and dims that no memory holds: an error or a quick empty result, never a crash. Each
 * call runs in a process of its own, as what a mistake does to it may be to compute for years. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "problem.h"

static const int64_t giant = (int64_t)1 << 62;
static const int64_t farthest = (int64_t)1 << 48; /* a query_offset may be no larger */

/* A head dim whose scratch no machine has, behind zero strides. */
static int impossible_scratch(void) {
  swiftattn_tensor q = TENSOR(F32, LAYOUT_DENSE, 2, 1), v = TENSOR(F32, LAYOUT_DENSE, 2, 1);
  swiftattn_tensor out = TENSOR(F32, LAYOUT_DENSE, 2, 1);
  tensor_fill(&q, 1);
  tensor_fill(&v, 1);
  q.strides[1] = 0;
  q.shape[1] = (int64_t)1 << 50;
  buffer_snapshot();
  if (swiftattn_scaled_dot_product_attention(&q, &q, &v, NULL, &out, NULL, NULL) != SWIFTATTN_ERROR_OUT_OF_MEMORY)
    return 1;
  return strlen(swiftattn_last_error()) > 0 && buffer_unchanged() ? 0 : 2;
}

/* A tensor of zero strides over one element, whatever its shape. */
static swiftattn_tensor flat(swiftattn_dtype dtype, int ndim, const int64_t *shape) {
  swiftattn_tensor t = TENSOR(dtype, LAYOUT_DENSE, 1), view = t;
  tensor_fill(&t, 0);
  view.ndim = ndim;
  memcpy(view.shape, shape, (size_t)ndim * sizeof *shape);
  memset(view.strides, 0, sizeof view.strides);
  return view;
}
#define FLAT(dtype, ...) \
  flat(dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

/* With strides that an output may have. */
static swiftattn_tensor empty_output(swiftattn_tensor t) {
  for (int d = 0; d < t.ndim; d++) t.strides[d] = 1;
  return t;
}

/* An empty result next to giant dims is a result or a refusal with a message. */
static int settled(int32_t status) { return status == 0 || strlen(swiftattn_last_error()) > 0 ? 0 : 1; }

static int giant_attention(void) {
  const int64_t shapes[][4] = {
      {0, giant, giant, 8}, {giant, giant, 0, 8}, {giant, 0, giant, 8}, {0, 1, INT64_MAX, INT64_MAX}};
  int code = 0;
  for (int n = 0; n < 4; n++) {
    swiftattn_tensor q = flat(F32, 4, shapes[n]), out = empty_output(q), lse = out;
    lse.ndim = 3;
    code |= settled(swiftattn_scaled_dot_product_attention(&q, &q, &q, NULL, &out, &lse, NULL));
  }
  return code;
}

static int giant_varlen(void) {
  swiftattn_tensor q = FLAT(F32, 0, giant, giant), out = empty_output(q), cu = TENSOR(I64, LAYOUT_DENSE, 2);
  int code = 0;
  tensor_fill(&cu, 0);
  code |= settled(swiftattn_attention_varlen(&q, &q, &q, &cu, &cu, NULL, &out, NULL));
  ((int64_t *)cu.data)[1] = INT64_MAX;
  code |= settled(swiftattn_attention_varlen(&q, &q, &q, &cu, &cu, NULL, &out, NULL));
  ((int64_t *)cu.data)[1] = INT64_MIN;
  return code | settled(swiftattn_attention_varlen(&q, &q, &q, &cu, &cu, NULL, &out, NULL));
}

static int giant_rows(void) {
  swiftattn_tensor x = FLAT(F32, 0, giant, giant), out = empty_output(x), ids = FLAT(I64, 0, giant), lse = out;
  swiftattn_tensor table = FLAT(F32, giant, giant);
  int code = 0;
  lse.ndim = 2;
  code |= settled(swiftattn_softmax(&x, -1, &out));
  code |= settled(swiftattn_softmax(&x, INT64_MIN, &out));
  code |= settled(swiftattn_softmax(&x, INT64_MAX, &out));
  code |= settled(swiftattn_layer_norm(&x, NULL, NULL, 0, &out));
  code |= settled(swiftattn_rms_norm(&x, NULL, 0, &out));
  code |= settled(swiftattn_relu(&x, &out));
  code |= settled(swiftattn_gelu(&x, 0, &out));
  code |= settled(swiftattn_silu(&x, &out));
  code |= settled(swiftattn_swiglu(&x, &x, &out));
  code |= settled(swiftattn_geglu(&x, &x, 0, &out));
  code |= settled(swiftattn_embedding(&ids, &table, NULL, &out));
  code |= settled(swiftattn_merge_attention_states(&x, &lse, 1, &out, NULL));
  return code;
}

static int giant_matrices(void) {
  swiftattn_tensor a = FLAT(F32, 0, giant), b = FLAT(F32, giant, giant), out = empty_output(a);
  swiftattn_tensor batch = FLAT(F32, giant, giant, 0, 4), column = FLAT(F32, 4, 4), none = empty_output(batch);
  swiftattn_tensor table = empty_output(FLAT(F32, giant, 0)), narrow = empty_output(FLAT(F32, 0, giant));
  int code = 0;
  code |= settled(swiftattn_matmul(&a, &b, 0, &out));
  code |= settled(swiftattn_matmul(&batch, &column, 0, &none));
  code |= settled(swiftattn_linear(&a, &b, NULL, NULL, NULL, &out));
  code |= settled(swiftattn_linear(&batch, &column, NULL, NULL, NULL, &none));
  code |= settled(swiftattn_sinusoidal_positions(&table));
  return code | settled(swiftattn_sinusoidal_positions(&narrow));
}

/* The farthest positions that are taken, with and without the terms that compute with them. */
static int far_positions(void) {
  for (int n = 0; n < 32; n++) {
    sizes s = {1, 2, 1, 9, 7, 4, 4};
    int64_t offset = n & 1 ? -farthest : farthest;
    int as_tensor = n & 2, alibi = n & 4, causal = n >> 3 & 1, narrow = n & 16;
    problem p;
    problem_make(&p, F32, s);
    if (as_tensor) {
      problem_add_query_offsets(&p, I64);
      *(int64_t *)p.query_offsets.data = offset;
    } else {
      p.options.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
      p.options.query_offset = offset;
    }
    if (alibi) problem_add_alibi(&p);
    p.options.flags |= SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT | SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT;
    p.options.window_left = p.options.window_right = narrow ? 3 : INT64_MAX;
    p.options.causal = causal;
    if (problem_run(&p) != 0) return 1 + n;
    for (int64_t i = 0; i < s.q_len; i++) {
      double lse = tensor_load(&p.lse, (const int64_t[]){0, 0, i});
      int sees = !narrow && !(causal && offset < 0);
      if (sees ? !isfinite(lse) : lse != -INFINITY) return 1 + n;
    }
  }
  return 0;
}

static void scratch(void) { check_child(10, impossible_scratch); }
static void attention(void) { check_child(10, giant_attention); }
static void varlen(void) { check_child(10, giant_varlen); }
static void rows(void) { check_child(10, giant_rows); }
static void matrices(void) { check_child(10, giant_matrices); }
static void positions(void) { check_child(10, far_positions); }

void run_extremes(void) {
  check_run("extremes: scratch that no machine has is out of memory", scratch);
  check_run("extremes: attention over giant and empty dims", attention);
  check_run("extremes: varlen over giant and empty dims", varlen);
  check_run("extremes: row functions over giant and empty dims", rows);
  check_run("extremes: matrices with giant and empty dims", matrices);
  check_run("extremes: the farthest positions", positions);
}
