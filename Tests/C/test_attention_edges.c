/* Attention at its edges: rows without keys, poison, empty dims, leading dims, huge strides, bits and memory. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "check.h"
#include "problem.h"

static const sizes usual = {2, 4, 2, 21, 37, 16, 16};

static void checked(problem *p) {
  problem_describe(p);
  problem_check(p);
}

static void poison_row(const swiftattn_tensor *t, int64_t b, int64_t h, int64_t row) {
  for (int64_t d = 0; d < t->shape[3]; d++) {
    int64_t index[4] = {b, h, row, d};
    tensor_store(t, index, d % 3 == 0 ? NAN : d % 3 == 1 ? INFINITY : -INFINITY);
  }
}

/* Runs p before and after the keys that visible says no to are poisoned: the bits must not change. */
static void check_poison(problem *p, int (*visible)(const problem *p, int64_t b, int64_t j)) {
  swiftattn_tensor clean_out = tensor_like(&p->out), clean_lse = tensor_like(&p->lse),
                   clean_weights = tensor_like(&p->weights);
  problem dirty = *p;
  dirty.out = clean_out;
  dirty.lse = clean_lse;
  dirty.weights = clean_weights;
  checked(p);
  for (int64_t b = 0; b < p->key.shape[0]; b++)
    for (int64_t h = 0; h < p->key.shape[1]; h++)
      for (int64_t j = 0; j < p->key.shape[2]; j++)
        if (!visible(p, b, j)) {
          poison_row(&p->key, b, h, j);
          poison_row(&p->value, b, h, j);
        }
  CHECK(problem_run(&dirty) == 0, "%s", swiftattn_last_error());
  CHECK(tensor_same_bits(&p->out, &dirty.out), "out changed with what is in an invisible key");
  CHECK(tensor_same_bits(&p->lse, &dirty.lse), "lse changed with what is in an invisible key");
  CHECK(tensor_same_bits(&p->weights, &dirty.weights), "weights changed with what is in an invisible key");
}

static int within_length(const problem *p, int64_t b, int64_t j) {
  return j < (int64_t)tensor_load1(&p->kv_lengths, b);
}
static int within_mask(const problem *p, int64_t b, int64_t j) {
  double value = tensor_load1(&p->attn_mask, j);
  (void)b;
  return p->attn_mask.dtype.code == SWIFTATTN_DTYPE_CODE_BOOL ? value != 0 : value > -INFINITY;
}
static int within_causal(const problem *p, int64_t b, int64_t j) {
  (void)b;
  return j <= p->query.shape[2] - 1;
}
static int within_window(const problem *p, int64_t b, int64_t j) {
  (void)b;
  return j <= p->query.shape[2] - 1 + p->options.window_right;
}
static int no_key(const problem *p, int64_t b, int64_t j) {
  (void)p, (void)b, (void)j;
  return 0;
}

static void invisible_keys_never_matter(void) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  const int64_t mask_shape[1] = {usual.k_len};
  for (int n = 0; n < 4; n++) {
    problem p;
    problem_make(&p, dtypes[n], usual);
    problem_add_lengths(&p, I32);
    check_poison(&p, within_length);
    problem_make(&p, dtypes[n], usual);
    problem_add_mask(&p, BOOL8, 1, mask_shape);
    check_poison(&p, within_mask);
    problem_make(&p, dtypes[n], usual);
    problem_add_mask(&p, dtypes[n], 1, mask_shape);
    p.options.softcap = 2;
    check_poison(&p, within_mask);
    problem_make(&p, dtypes[n], usual);
    p.options.causal = SWIFTATTN_CAUSAL_UPPER_LEFT;
    check_poison(&p, within_causal);
    problem_make(&p, dtypes[n], usual);
    p.options.flags = SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT;
    p.options.window_right = 3;
    check_poison(&p, within_window);
    problem_make(&p, dtypes[n], usual);
    problem_add_lengths(&p, I32);
    tensor_fill(&p.q_lengths, 0);
    check_poison(&p, no_key);
    buffer_free_all();
  }
}

/* In a causal problem key 30 is invisible to rows 0 to 29 only: the same tile holds rows of both kinds. */
static void poison_stays_in_the_rows_that_see_it(void) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  for (int n = 0; n < 4; n++) {
    sizes s = {1, 2, 1, 40, 40, 16, 16};
    problem p, dirty;
    problem_make(&p, dtypes[n], s);
    p.options.causal = SWIFTATTN_CAUSAL_UPPER_LEFT;
    dirty = p;
    dirty.out = tensor_like(&p.out);
    dirty.lse = tensor_like(&p.lse);
    checked(&p);
    poison_row(&p.key, 0, 0, 30);
    poison_row(&p.value, 0, 0, 30);
    CHECK(problem_run(&dirty) == 0, "%s", swiftattn_last_error());
    for (int64_t h = 0; h < 2; h++)
      for (int64_t i = 0; i < 40; i++) {
        int64_t at[4] = {0, h, i, 0};
        int same = memcmp(tensor_at(&p.out, at), tensor_at(&dirty.out, at), 16 * dtype_size(p.out.dtype)) == 0;
        if (i < 30)
          CHECK(same && tensor_load(&p.lse, at) == tensor_load(&dirty.lse, at), "row %d changed", (int)i);
        else
          CHECK(isnan(tensor_load(&dirty.out, at)) && isnan(tensor_load(&dirty.lse, at)), "row %d is not NaN", (int)i);
      }
  }
}

static void nan_query_spoils_its_row_only(void) {
  problem p, dirty;
  int64_t bad[4] = {1, 2, 7, 3};
  problem_make(&p, F32, usual);
  dirty = p;
  dirty.out = tensor_like(&p.out);
  checked(&p);
  tensor_store(&p.query, bad, NAN);
  CHECK(problem_run(&dirty) == 0, "%s", swiftattn_last_error());
  for (int64_t n = 0; n < 2 * 4 * 21; n++) {
    int64_t at[4] = {n / 84, n / 21 % 4, n % 21, 0};
    int is_bad = at[0] == bad[0] && at[1] == bad[1] && at[2] == bad[2];
    int same = memcmp(tensor_at(&p.out, at), tensor_at(&dirty.out, at), 16 * sizeof(float)) == 0;
    CHECK(is_bad ? isnan(tensor_load(&dirty.out, at)) : same, "row %lld", (long long)n);
  }
}

static void rows_without_keys(void) {
  for (int n = 0; n < 6; n++) {
    problem p;
    problem_make(&p, n & 1 ? F16 : F32, usual);
    if (n / 2 == 0) {
      p.options.causal = SWIFTATTN_CAUSAL_UPPER_LEFT;
      p.options.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
      p.options.query_offset = -9;
    } else if (n / 2 == 1) {
      const int64_t shape[2] = {1, 1};
      problem_add_mask(&p, BOOL8, 2, shape);
      tensor_fill(&p.attn_mask, 0);
      p.options.dropout_p = 0.5;
    } else {
      const int64_t shape[2] = {1, 1};
      problem_add_mask(&p, F32, 2, shape);
      tensor_fill(&p.attn_mask, -INFINITY);
      problem_add_sinks(&p);
    }
    checked(&p);
  }
}

static void scores_of_ten_thousand(void) {
  for (int sign = -1; sign <= 1; sign += 2) {
    problem p;
    problem_make(&p, F32, usual);
    p.options.flags = SWIFTATTN_ATTENTION_HAS_SCALE;
    p.options.scale = sign * 1e3;
    checked(&p);
    p.options.softcap = 1e4;
    problem_add_sinks(&p);
    checked(&p);
  }
}

/* Finite is visible: where one huge number stands in for -inf on every key, as in many models, the row is their mean.
 */
static void huge_finite_mask(void) {
  static const double huge[] = {1e9, 1e10, 1e20, 1e30, 3.4028234663852886e38, 1e200, 1.7976931348623157e308};
  const int64_t shape[1] = {usual.k_len};
  for (int n = 0; n < 7; n++)
    for (int sign = -1; sign <= 1; sign += 2)
      for (int is_double = 0; is_double < 2; is_double++) {
        problem p;
        int64_t at[4] = {1, 3, 20, 15};
        double mean = 0, mask = sign * huge[n], slack = is_double ? 1e-13 : 1e-6;
        if (!is_double && n > 4) continue;
        problem_make(&p, is_double ? F64 : F32, usual);
        p.has_weights = 0;
        problem_add_mask(&p, p.query.dtype, 1, shape);
        tensor_fill(&p.attn_mask, mask);
        tensor_fill(&p.key, 0);
        for (int64_t j = 0; j < usual.k_len; j++) {
          int64_t row[4] = {1, 1, j, 15};
          mean += tensor_load(&p.value, row) / (double)usual.k_len;
        }
        check_context("%s mask %g", is_double ? "float64" : "float32", mask);
        CHECK(problem_run(&p) == 0, "%s", swiftattn_last_error());
        CHECK(fabs(tensor_load(&p.out, at) - mean) <= slack, "out is %g, the mean %g", tensor_load(&p.out, at), mean);
        CHECK(fabs(tensor_load(&p.lse, at) / (mask + log((double)usual.k_len)) - 1) <= slack, "lse is %.17g",
              tensor_load(&p.lse, at));
      }
}

/* Scores beyond 2^31: their differences, not they themselves, go into exp. */
static void huge_scores(void) {
  for (int exponent = 3; exponent <= 30; exponent += 3)
    for (int sign = -1; sign <= 1; sign += 2) {
      problem p;
      int64_t zero[4] = {0};
      sizes s = {1, 1, 1, 1, 37, 1, 1};
      problem_make(&p, F32, s);
      tensor_fill(&p.query, 1);
      tensor_fill(&p.key, sign);
      tensor_fill(&p.value, 2);
      p.options.flags = SWIFTATTN_ATTENTION_HAS_SCALE;
      p.options.scale = 0.777 * pow(10, exponent);
      check_context("scores of %g", sign * p.options.scale);
      CHECK(problem_run(&p) == 0, "%s", swiftattn_last_error());
      CHECK(fabs(tensor_load(&p.out, zero) - 2) <= 1e-6, "out is %g", tensor_load(&p.out, zero));
      CHECK(isfinite(tensor_load(&p.lse, zero)), "lse is %g", tensor_load(&p.lse, zero));
    }
}

static void empty_dims(void) {
  for (int dim = 0; dim < 5; dim++)
    for (int sinks = 0; sinks < 2; sinks++) {
      sizes s = usual;
      problem p;
      if (dim == 0) s.batch = 0;
      if (dim == 1) s.q_len = 0;
      if (dim == 2) s.k_len = 0;
      if (dim == 3) s.head_dim = 0;
      if (dim == 4) s.value_dim = 0;
      problem_make(&p, F32, s);
      if (sinks) problem_add_sinks(&p);
      checked(&p);
    }
}

static void leading_dims(void) {
  for (int rank = 2; rank <= SWIFTATTN_MAX_DIMS; rank++)
    for (int broadcast = 0; broadcast < 2; broadcast++) {
      const int64_t lead[] = {2, 1, 2, 1, 3, 4, 9, 8}, *all = lead + SWIFTATTN_MAX_DIMS - rank;
      int64_t q[8], k[8], w[8];
      problem p;
      sizes s = {1, 1, 1, 1, 1, 1, 1};
      problem_make(&p, F32, s);
      for (int d = 0; d < rank; d++) q[d] = k[d] = w[d] = all[d];
      k[rank - 2] = w[rank - 1] = 11;
      if (rank >= 3) k[rank - 3] = 2;
      if (broadcast && rank >= 4) k[rank - 4] = 1;
      p.query = tensor_make(F32, tensor_random_layout(), rank, q);
      p.key = tensor_make(F32, tensor_random_layout(), rank, k);
      p.value = broadcast && rank > 4 ? tensor_make(F32, LAYOUT_DENSE, 4, k + rank - 4)
                                      : tensor_make(F32, LAYOUT_DENSE, rank, k);
      p.out = tensor_make(F32, tensor_random_layout(), rank, q);
      p.lse = tensor_make(F32, LAYOUT_DENSE, rank - 1, q);
      p.weights = tensor_make(F32, LAYOUT_DENSE, rank, w);
      tensor_fill_normal(&p.query, 1);
      tensor_fill_normal(&p.key, 1);
      tensor_fill_normal(&p.value, 1);
      p.options.dropout_p = 0.2;
      if (rank > 4) problem_add_mask(&p, F32, rank, w);
      check_context("rank %d%s", rank, broadcast ? ", broadcast" : "");
      problem_check(&p);
    }
}

/* Batch entries 2^31 and more elements apart, in memory that is reserved and hardly touched. */
static void offsets_beyond_32_bits(void) {
  const int64_t far = ((int64_t)1 << 32) + 64;
  const size_t bytes = (size_t)far * sizeof(float) + 65536;
  sizes s = {2, 1, 1, 4, 9, 16, 16};
  problem p;
  float *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  problem_make(&p, F32, s);
  p.key.data = memory;
  p.value.data = memory + 1024;
  p.out.data = memory + 2048;
  p.key.strides[0] = p.value.strides[0] = far;
  p.out.strides[0] = far;
  tensor_fill_normal(&p.key, 1);
  tensor_fill_normal(&p.value, 1);
  checked(&p);
  p.key.data = memory + far;
  p.key.strides[0] = -far;
  tensor_fill_normal(&p.key, 1);
  checked(&p);
  munmap(memory, bytes);
}

static void bits_do_not_depend_on_the_batch(void) {
  const swiftattn_dtype dtypes[] = {F32, BF16};
  for (int n = 0; n < 6; n++) {
    problem p, one;
    sizes s = {3, 6, 3, n & 1 ? 1 : 45, 70, 32, 32};
    problem_make(&p, dtypes[n & 1], s);
    p.options.causal = n % 3;
    if (n > 3) problem_add_sinks(&p);
    problem_add_lengths(&p, I64);
    p.options.q_lengths = NULL;
    checked(&p);
    for (int64_t b = 0; b < 3; b++) {
      swiftattn_tensor expected = tensor_slice(&p.out, 0, b, 1), length = tensor_slice(&p.kv_lengths, 0, b, 1);
      one = p;
      one.query = tensor_slice(&p.query, 0, b, 1);
      one.key = tensor_slice(&p.key, 0, b, 1);
      one.value = tensor_slice(&p.value, 0, b, 1);
      one.options.kv_lengths = &length;
      one.has_lse = one.has_weights = 0;
      one.out = tensor_like(&expected);
      CHECK(problem_run(&one) == 0, "%s", swiftattn_last_error());
      CHECK(tensor_same_bits(&expected, &one.out), "entry %d alone has other bits", (int)b);
    }
  }
}

static void scratch_does_not_grow(void) {
  struct rusage before, after;
  const int64_t q_len = 64, k_len = (int64_t)1 << 19;
  swiftattn_tensor q = TENSOR(F32, LAYOUT_DENSE, q_len, 8), k = TENSOR(F32, LAYOUT_BROADCAST, k_len, 8);
  swiftattn_tensor out = TENSOR(F32, LAYOUT_DENSE, q_len, 8);
  if (check_quick) return; /* shadow memory of valgrind and the sanitizers counts as resident */
  tensor_fill_normal(&q, 1);
  tensor_fill(&k, 1);
  getrusage(RUSAGE_SELF, &before);
  CHECK(swiftattn_scaled_dot_product_attention(&q, &k, &k, NULL, &out, NULL, NULL) == 0, "%s", swiftattn_last_error());
  getrusage(RUSAGE_SELF, &after);
  CHECK(after.ru_maxrss - before.ru_maxrss < 32 * 1024, "%ld KiB more", after.ru_maxrss - before.ru_maxrss);
  CHECK(fabs(((float *)out.data)[0] - 1) < 1e-4, "the mean of ones is %g", ((float *)out.data)[0]);
}

void run_attention_edges(void) {
  check_run("edges: invisible keys never matter", invisible_keys_never_matter);
  check_run("edges: poison stays in the rows that see it", poison_stays_in_the_rows_that_see_it);
  check_run("edges: NaN in a query spoils its row only", nan_query_spoils_its_row_only);
  check_run("edges: rows without keys", rows_without_keys);
  check_run("edges: scores of ten thousand", scores_of_ten_thousand);
  check_run("edges: a huge finite mask on every key", huge_finite_mask);
  check_run("edges: huge scores", huge_scores);
  check_run("edges: empty dims", empty_dims);
  check_run("edges: ranks 2 to 8 and broadcast leading dims", leading_dims);
  check_run("edges: offsets beyond 32 bits", offsets_beyond_32_bits);
  check_run("edges: bits do not depend on the batch", bits_do_not_depend_on_the_batch);
  check_run("edges: scratch does not grow with the keys", scratch_does_not_grow);
}
