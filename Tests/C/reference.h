/* Attention as the header defines it, one double-precision loop per line of its formula. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <swiftattn.h>

/* Row-major results. The *_bound arrays tell how far a kernel with unit roundoff 1 may be off: multiply by the roundoff
 * of the arithmetic in question. They grow with the size of the scores and of the values a row sums up. */
typedef struct reference {
  int64_t batch, q_heads, kv_heads, q_len, k_len, head_dim, value_dim;
  double *out, *lse, *weights; /* (B, Hq, Tq, Dv), (B, Hq, Tq), (B, Hq, Tq, Tk) */
  double *out_bound, *lse_bound, *weights_bound;
} reference;

/* first_batch is the number of the first batch entry in dropout counters and per-entry options. */
reference reference_attention(const swiftattn_tensor *query, const swiftattn_tensor *key, const swiftattn_tensor *value,
                              const swiftattn_attention_options *options, int64_t first_batch);

/* Multiplies a bound array by a roundoff, in place. */
void reference_scale(double *bound, int64_t count, double roundoff);

void reference_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
double reference_activation(double x, int32_t activation);

#endif
