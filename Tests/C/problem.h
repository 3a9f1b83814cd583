/* Attention problems: built by hand or at random, run, and held against the reference. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include "reference.h"
#include "tensor.h"

typedef struct problem {
  swiftattn_tensor query, key, value, out, lse, weights;
  swiftattn_tensor query_offsets, attn_mask, alibi_slopes, sinks, q_lengths, kv_lengths;
  swiftattn_attention_options options; /* its tensors are those above: a problem must not move once it has some */
  int has_lse, has_weights;
} problem;

/* Sizes of a problem, in the order of the header. */
typedef struct sizes {
  int64_t batch, q_heads, kv_heads, q_len, k_len, head_dim, value_dim;
} sizes;

sizes sizes_random(void);

/* A problem with normal inputs, dense and rank 4, default options, and all outputs. */
void problem_make(problem *p, swiftattn_dtype dtype, sizes n);

/* The same with random layouts. */
void problem_make_strided(problem *p, swiftattn_dtype dtype, sizes n);

/* Options, each present or not at random. */
void problem_add_options(problem *p);

/* One option, with random content. */
void problem_add_mask(problem *p, swiftattn_dtype dtype, int ndim, const int64_t *shape);
void problem_add_alibi(problem *p);
void problem_add_sinks(problem *p);
void problem_add_lengths(problem *p, swiftattn_dtype dtype);
void problem_add_query_offsets(problem *p, swiftattn_dtype dtype);

/* Tells the harness what the problem is. */
void problem_describe(const problem *p);

int32_t problem_run(const problem *p);

/* Runs it and compares all outputs. */
void problem_check(const problem *p);

#endif
