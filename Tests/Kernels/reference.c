/* Attention by the formulas in three types, and the comparison of a kernel's result with them. */
#include <math.h>
#include <stdlib.h>

#include "attention_case.h"

uint32_t philox_word(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, int w) {
  uint32_t c[4] = { c0, c1, c2, c3 };
  for (uint32_t round = 0; round < 10; round++) {
    const uint32_t key0 = (uint32_t)seed + round * 0x9E3779B9u, key1 = (uint32_t)(seed >> 32) + round * 0xBB67AE85u;
    const uint64_t left = 0xD2511F53ull * c[0], right = 0xCD9E8D57ull * c[2];
    const uint32_t next[4] = { (uint32_t)(right >> 32) ^ c[1] ^ key0, (uint32_t)right,
                               (uint32_t)(left >> 32) ^ c[3] ^ key1, (uint32_t)left };
    for (int i = 0; i < 4; i++) c[i] = next[i];
  }
  return c[w];
}

#define REAL float
#define NAME plain_float
#define EXP expf
#define LOG logf
#define TANH tanhf
#define ABS fabsf
#include "reference_body.h"

#define REAL double
#define NAME plain_double
#define EXP exp
#define LOG log
#define TANH tanh
#define ABS fabs
#include "reference_body.h"

#define REAL long double
#define NAME plain_long_double
#define EXP expl
#define LOG logl
#define TANH tanhl
#define ABS fabsl
#include "reference_body.h"

static attention_reference room(const attention_case *c) {
  const attention_options *o = &c->options;
  const size_t rows = (size_t)(o->q_heads * o->q_rows) + 1, values = rows * (size_t)o->value_dim;
  const size_t scores = o->weights_dtype == NO_DTYPE ? 1 : rows * (size_t)o->kv_rows;
  return (attention_reference){ calloc(values, 8), calloc(rows, 8), calloc(scores, 8), calloc(values, 8),
                                calloc(rows, 8), calloc(scores, 8) };
}

attention_reference attention_in_float(const attention_case *c) {
  attention_reference r = room(c);
  plain_float(c, &r);
  return r;
}

attention_reference attention_in_double(const attention_case *c) {
  attention_reference r = room(c);
  plain_double(c, &r);
  return r;
}

attention_reference attention_in_long_double(const attention_case *c) {
  attention_reference r = room(c);
  plain_long_double(c, &r);
  return r;
}

void attention_reference_free(attention_reference *r) {
  free(r->o);
  free(r->lse);
  free(r->weights);
  free(r->o_size);
  free(r->lse_size);
  free(r->weights_size);
}

typedef struct tensor {
  const char *name;
  const double *truth, *size;
  const double *plain, *got, *portable;
  int64_t count;
  attn_dtype dtype;
  bool products; /* where 0 times an infinite value may be NaN */
} tensor;

/* Largest and root mean square |x - truth| / size. */
typedef struct loss { double most, rms; } loss;

static loss loss_of(const double *x, const tensor *t) {
  double most = 0, squares = 0, count = 1e-300;
  for (int64_t i = 0; i < t->count; i++) {
    if (!isfinite(t->truth[i]) || t->size[i] < 1e-30) continue;
    const double part = fabs(x[i] - t->truth[i]) / t->size[i];
    most = fmax(most, part);
    squares += part * part;
    count++;
  }
  return (loss){ most, sqrt(squares / count) };
}

static double compare(const attention_case *c, const tensor *t, const subject *s) {
  const loss plain = loss_of(t->plain, t), got = loss_of(t->got, t);
  const double relative = 2 * plain.most + 4 * s->roundoff;
  /* A floor, as a plain loop over a few keys may lose nothing: lse = scale m + ln l is rounded twice. */
  if (t->dtype == s->real_dtype && !c->exact_scores)
    CHECK(got.rms <= 2 * plain.rms + 2 * s->roundoff, "rms error of %s is %.3g, of a plain loop's %.3g", t->name, got.rms,
          plain.rms);
  for (int64_t i = 0; i < t->count; i++) {
    const double truth = t->truth[i], x = t->got[i], bound = relative * t->size[i];
    if (!isfinite(truth)) {
      CHECK(same_bits(x, truth) || (isinf(truth) && isnan(x) && t->products), "%s %lld is %g, expected %g", t->name,
            (long long)i, x, truth);
      continue;
    }
    if (fabs(truth) > 65504 && t->dtype == ATTN_F16) continue;
    const double rounding = t->size[i] == 0
        ? 0 : 1.01 * element_roundoff(t->dtype) * (fabs(truth) + bound) + element_tiny(t->dtype);
    check_rounded(fabs(x - truth), bound, rounding, t->name, i);
    if (t->portable && !(fabs(x - t->portable[i]) <= 2 * (bound + rounding)))
      check_fail("%s %lld is %.9g, portable has %.9g", t->name, (long long)i, x, t->portable[i]);
  }
  return got.most;
}

attention_errors attention_compare(const attention_case *c, const subject *s, const attention_result *got,
                                   const attention_result *portable) {
  const bool wide = s->real_dtype == ATTN_F64;
  attention_reference truth = wide ? attention_in_long_double(c) : attention_in_double(c);
  attention_reference plain = wide ? attention_in_double(c) : attention_in_float(c);
  attention_errors errors = {0};
  const tensor o = { "o", truth.o, truth.o_size, plain.o, got->o, portable ? portable->o : NULL, view_count(&c->o),
                     c->o.dtype, true };
  errors.o = compare(c, &o, s);
  if (got->lse) {
    const tensor lse = { "lse", truth.lse, truth.lse_size, plain.lse, got->lse, portable ? portable->lse : NULL,
                         view_count(&c->lse), c->lse.dtype, false };
    errors.lse = compare(c, &lse, s);
  }
  if (got->weights) {
    const tensor weights = { "weight", truth.weights, truth.weights_size, plain.weights, got->weights,
                             portable ? portable->weights : NULL, view_count(&c->weights), c->weights.dtype, false };
    errors.weights = compare(c, &weights, s);
  }
  attention_reference_free(&truth);
  attention_reference_free(&plain);
  return errors;
}
