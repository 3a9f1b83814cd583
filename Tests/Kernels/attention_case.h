/* A small attention problem in guarded memory, ways to run it, and what API.md says the result is. */
#ifndef ATTENTION_CASE_H
#define ATTENTION_CASE_H

#include "tests.h"

#define NO_DTYPE ((attn_dtype)-1)
#define MAX_HEADS 24

typedef struct attention_options {
  attn_dtype dtype, mask_dtype, weights_dtype; /* NO_DTYPE: no mask, no weights */
  int64_t q_heads, kv_heads, head_dim, value_dim;
  int64_t q_rows, q_len, kv_rows, kv_len, query_offset, batch;
  double scale, softcap;
  bool causal;
  int64_t window_left, window_right;
  bool alibi, sinks, lse;
  double dropout;
  uint64_t seed;
  attn_weights_stage stage;
  view_layout inputs, outputs;
  double q_spread; /* standard deviation of q; k and v have 1 */
  int q_planted, k_planted, v_planted; /* exponents of a few numbers among them; 0: none */
  double hidden;   /* part of the mask that hides */
} attention_options;

/* One of each: float inputs, everything visible, no terms. */
attention_options attention_plain(const subject *s, int64_t q_rows, int64_t kv_rows, int64_t dim);
attention_options attention_random(const subject *s);

typedef struct attention_case {
  attention_options options;
  attn_problem problem;
  attn_sequence sequence;
  view q, k, v, mask, o, lse, weights;
  double slopes[MAX_HEADS], sinks[MAX_HEADS];
  bool exact_scores; /* no rounding before the distance to the maximum is taken */
} attention_case;

/* Fills the inputs and seals them: guard_open allows changes. The case must not be moved. */
/* Up to two numbers of this size. */
void attention_plant(view *x, int exponent);
void attention_build(attention_case *c, const attention_options *options);
bool attention_visible(const attention_case *c, int64_t head, int64_t row, int64_t key);
/* log(0) where hidden. */
double attention_bias(const attention_case *c, int64_t head, int64_t row, int64_t key);

/* Dense outputs, (heads, rows, value_dim), (heads, rows), (heads, rows, keys). */
typedef struct attention_result {
  double *o, *lse, *weights;
} attention_result;

/* Runs all tiles of `heads` heads and `rows` rows into fresh scratch, and gathers the outputs. */
void attention_run(attention_case *c, const attn_kernels *kernels, int64_t heads, int64_t rows, attention_result *out);
/* The same with as many rows as fit in a tile. */
void attention_run_whole(attention_case *c, const attn_kernels *kernels, attention_result *out);
/* The same by attention_chunk, and attention_merge in waves of random size: as the driver splits keys. */
void attention_run_parts(attention_case *c, const attn_kernels *kernels, attention_result *out);
/* Fail the test where two results differ in a bit. */
void same_numbers(const char *what, const double *a, const double *b, int64_t count);
void attention_same(const attention_case *c, const attention_result *a, const attention_result *b);
void attention_free(attention_result *result);

/* By the formulas, one row after the other. */
typedef struct attention_reference {
  double *o, *lse, *weights;
  /* What rounding errors are relative to: sums of |terms|, each as often as the roundings of its score count. */
  double *o_size, *lse_size, *weights_size;
} attention_reference;

attention_reference attention_in_float(const attention_case *c);
attention_reference attention_in_double(const attention_case *c);
attention_reference attention_in_long_double(const attention_case *c);
void attention_reference_free(attention_reference *reference);

/* Philox4x32-10: word w of the counter. */
uint32_t philox_word(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, int w);

/* Errors of a result, as parts of what they are relative to. */
typedef struct attention_errors { double o, lse, weights; } attention_errors;

/* Checks a result against the formulas, with twice what a plain loop in the computing type loses as the bound, and
 * against another variant's result if that is given. Returns the largest errors. */
attention_errors attention_compare(const attention_case *c, const subject *s, const attention_result *got,
                                   const attention_result *portable);

#endif
