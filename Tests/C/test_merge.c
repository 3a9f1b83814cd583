/* Merging attention states: against the formula, and against attention over all keys at once. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "problem.h"

enum { MAX_PARTS = 5 };

typedef struct merge {
  swiftattn_tensor outs[MAX_PARTS], lses[MAX_PARTS], out, lse;
  int64_t parts, rows, width;
} merge;

static merge merge_make(swiftattn_dtype dtype, int64_t parts, int64_t heads, int64_t rows, int64_t width) {
  swiftattn_dtype statistics = dtype_equal(dtype, F64) ? F64 : F32;
  merge m;
  memset(&m, 0, sizeof m);
  m.parts = parts;
  m.rows = heads * rows;
  m.width = width;
  for (int64_t n = 0; n < parts; n++) {
    m.outs[n] = TENSOR(dtype, tensor_random_layout(), heads, rows, width);
    m.lses[n] = TENSOR(statistics, tensor_random_layout(), heads, rows);
    tensor_fill_normal(&m.outs[n], 1);
    tensor_fill_normal(&m.lses[n], 6);
  }
  m.out = TENSOR(dtype, tensor_random_layout(), heads, rows, width);
  m.lse = TENSOR(statistics, tensor_random_layout(), heads, rows);
  return m;
}

static void check_merge(merge *m) {
  double *outs[MAX_PARTS], *lses[MAX_PARTS], eps = 12 * dtype_compute_roundoff(m->out.dtype);
  double *out = buffer_new((size_t)(m->rows * m->width + 1) * sizeof *out),
         *lse = buffer_new((size_t)(m->rows + 1) * sizeof *lse);
  double *out_bound = buffer_new((size_t)(m->rows * m->width + 1) * sizeof *out);
  double *lse_bound = buffer_new((size_t)(m->rows + 1) * sizeof *lse);
  int32_t status;
  for (int64_t n = 0; n < m->parts; n++) {
    outs[n] = tensor_dense(&m->outs[n], 3, m->outs[n].shape);
    lses[n] = tensor_dense(&m->lses[n], 2, m->lses[n].shape);
  }
  for (int64_t i = 0; i < m->rows; i++) {
    double max = -INFINITY, sum = 0;
    for (int64_t n = 0; n < m->parts; n++) max = fmax(max, lses[n][i]);
    for (int64_t n = 0; n < m->parts; n++) sum += lses[n][i] > -INFINITY ? exp(lses[n][i] - max) : 0;
    lse[i] = sum > 0 ? max + log(sum) : -INFINITY;
    lse_bound[i] = sum > 0 ? eps * (1 + fabs(lse[i])) : 0;
    for (int64_t d = 0; d < m->width; d++) {
      double *at = &out[i * m->width + d], *bound = &out_bound[i * m->width + d];
      *at = *bound = 0;
      for (int64_t n = 0; n < m->parts; n++) {
        double weight = lses[n][i] > -INFINITY ? exp(lses[n][i] - lse[i]) : 0;
        if (weight > 0) *at += weight * outs[n][i * m->width + d];
        if (weight > 0) *bound += eps * (1 + fabs(lse[i])) * weight * fabs(outs[n][i * m->width + d]);
      }
    }
  }
  status = swiftattn_merge_attention_states(m->outs, m->lses, m->parts, &m->out, &m->lse);
  CHECK(status == 0, "status %d: %s", status, swiftattn_last_error());
  tensor_compare("out", &m->out, out, out_bound);
  tensor_compare("lse", &m->lse, lse, lse_bound);
}

static void random_merges(void) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  for (int n = 0; n < 40; n++) {
    merge m =
        merge_make(dtypes[n % 4], random_int(1, MAX_PARTS), random_int(1, 3), random_int(0, 20), random_int(0, 40));
    check_context("merge %d: %s, %d parts", n, dtype_name(dtypes[n % 4]), (int)m.parts);
    check_merge(&m);
  }
}

static void parts_without_keys(void) {
  const swiftattn_dtype dtypes[] = {F32, BF16};
  for (int n = 0; n < 2; n++) {
    merge m = merge_make(dtypes[n], 3, 2, 4, 17);
    for (int64_t part = 0; part < 3; part++)
      for (int64_t row = 0; row < 4; row++) {
        int64_t at[3] = {1, row, 2};
        if (row != 3 && part == row) continue;
        tensor_store(&m.lses[part], at, -INFINITY);
        tensor_store(&m.outs[part], at, row % 2 ? NAN : INFINITY);
      }
    check_merge(&m);
  }
}

static void in_place(void) {
  for (int64_t part = 0; part < 3; part++) {
    merge m = merge_make(F32, 3, 2, 5, 9), own;
    check_merge(&m);
    own = m;
    CHECK(swiftattn_merge_attention_states(m.outs, m.lses, 3, &own.outs[part], &own.lses[part]) == 0, "%s",
          swiftattn_last_error());
    CHECK(tensor_same_bits(&m.out, &own.outs[part]), "out in place of part %d differs", (int)part);
    CHECK(tensor_same_bits(&m.lse, &own.lses[part]), "lse in place of part %d differs", (int)part);
  }
}

static void parts_equal_the_whole(void) {
  const int64_t bounds[4] = {0, 5, 31, 53};
  sizes s = {2, 4, 2, 12, 53, 16, 16};
  problem whole;
  swiftattn_tensor outs[3], lses[3];
  reference r;
  problem_make(&whole, F32, s);
  whole.options.causal = SWIFTATTN_CAUSAL_UPPER_LEFT;
  for (int n = 0; n < 3; n++) {
    problem part = whole;
    part.key = tensor_slice(&whole.key, 2, bounds[n], bounds[n + 1] - bounds[n]);
    part.value = tensor_slice(&whole.value, 2, bounds[n], bounds[n + 1] - bounds[n]);
    part.options.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
    part.options.query_offset = 20 - bounds[n];
    part.has_weights = 0;
    outs[n] = part.out = tensor_like(&whole.out);
    lses[n] = part.lse = tensor_like(&whole.lse);
    CHECK(problem_run(&part) == 0, "%s", swiftattn_last_error());
  }
  whole.options.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
  whole.options.query_offset = 20;
  CHECK(swiftattn_merge_attention_states(outs, lses, 3, &whole.out, &whole.lse) == 0, "%s", swiftattn_last_error());
  r = reference_attention(&whole.query, &whole.key, &whole.value, &whole.options, 0);
  reference_scale(r.out_bound, tensor_count(&whole.out), 0x1p-22);
  reference_scale(r.lse_bound, tensor_count(&whole.lse), 0x1p-22);
  tensor_compare("out", &whole.out, r.out, r.out_bound);
  tensor_compare("lse", &whole.lse, r.lse, r.lse_bound);
}

void run_merge(void) {
  check_run("merge: random states", random_merges);
  check_run("merge: parts without keys have no weight", parts_without_keys);
  check_run("merge: in place", in_place);
  check_run("merge: parts equal the whole", parts_equal_the_whole);
}
