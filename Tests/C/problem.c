/* Building attention problems and checking their results. */
#include "problem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

static const char *const stage_names[] = {"probabilities", "scaled", "capped", "biased"};

sizes sizes_random(void) {
  static const int64_t groups[] = {1, 1, 2, 3, 4};
  static const int64_t dims[] = {1, 2, 3, 8, 15, 16, 17, 32, 33, 64, 65, 80, 96, 128, 130};
  int64_t most = check_quick ? 12 : 70, kv_heads = random_int(1, 3);
  int last_dim = check_quick ? 7 : (int)(sizeof dims / sizeof *dims) - 1;
  sizes n = {random_int(1, 3), 0, kv_heads, random_int(1, most), random_int(1, 2 * most), 0, 0};
  n.q_heads = kv_heads * groups[random_int(0, 4)];
  n.head_dim = dims[random_int(0, last_dim)];
  n.value_dim = random_chance(3) ? dims[random_int(0, last_dim)] : n.head_dim;
  if (random_chance(5)) n.q_len = 1;
  return n;
}

static swiftattn_dtype statistic_dtype(swiftattn_dtype dtype) { return dtype_equal(dtype, F64) ? F64 : F32; }

static void make(problem *p, swiftattn_dtype dtype, sizes n, int strided) {
#define PICK (strided ? tensor_random_layout() : LAYOUT_DENSE)
  static const swiftattn_attention_options defaults = SWIFTATTN_ATTENTION_OPTIONS_INIT;
  memset(p, 0, sizeof *p);
  p->options = defaults;
  p->query = TENSOR(dtype, PICK, n.batch, n.q_heads, n.q_len, n.head_dim);
  p->key =
      TENSOR(dtype, strided && random_chance(8) ? LAYOUT_BROADCAST : PICK, n.batch, n.kv_heads, n.k_len, n.head_dim);
  p->value = TENSOR(dtype, PICK, n.batch, n.kv_heads, n.k_len, n.value_dim);
  p->out = TENSOR(dtype, PICK, n.batch, n.q_heads, n.q_len, n.value_dim);
  p->lse = TENSOR(statistic_dtype(dtype), PICK, n.batch, n.q_heads, n.q_len);
  p->weights = TENSOR(strided && random_chance(2) ? dtype : F32, PICK, n.batch, n.q_heads, n.q_len, n.k_len);
  p->has_lse = p->has_weights = 1;
  tensor_fill_normal(&p->query, 1.2);
  tensor_fill_normal(&p->key, 1.2);
  tensor_fill_normal(&p->value, 1);
#undef PICK
}

void problem_make(problem *p, swiftattn_dtype dtype, sizes n) { make(p, dtype, n, 0); }

void problem_make_strided(problem *p, swiftattn_dtype dtype, sizes n) {
  make(p, dtype, n, 1);
  p->has_lse = random_chance(2);
  p->has_weights = random_chance(2);
}

static int option_layout(void) { return random_chance(2) ? LAYOUT_DENSE : tensor_random_layout(); }

void problem_add_mask(problem *p, swiftattn_dtype dtype, int ndim, const int64_t *shape) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  p->attn_mask = tensor_make(dtype, option_layout(), ndim, shape);
  p->options.attn_mask = &p->attn_mask;
  if (tensor_count(&p->attn_mask) == 0) return;
  do {
    if (dtype.code == SWIFTATTN_DTYPE_CODE_BOOL)
      tensor_store(&p->attn_mask, index, random_chance(3) ? 0 : (double)random_int(1, 255));
    else
      tensor_store(&p->attn_mask, index, random_chance(8) ? -INFINITY : random_normal());
  } while (tensor_next(&p->attn_mask, index));
}

void problem_add_alibi(problem *p) {
  p->alibi_slopes = TENSOR(statistic_dtype(p->query.dtype), option_layout(), p->query.shape[p->query.ndim - 3]);
  tensor_fill_normal(&p->alibi_slopes, 0.2);
  p->options.alibi_slopes = &p->alibi_slopes;
}

void problem_add_sinks(problem *p) {
  p->sinks = TENSOR(statistic_dtype(p->query.dtype), option_layout(), p->query.shape[p->query.ndim - 3]);
  tensor_fill_normal(&p->sinks, 2);
  p->options.sinks = &p->sinks;
}

void problem_add_lengths(problem *p, swiftattn_dtype dtype) {
  int64_t batch = p->query.shape[0];
  p->q_lengths = TENSOR(dtype, option_layout(), batch);
  p->kv_lengths = TENSOR(dtype, option_layout(), batch);
  for (int64_t b = 0; b < batch; b++) {
    tensor_store1(&p->q_lengths, b, (double)random_int(0, p->query.shape[2]));
    tensor_store1(&p->kv_lengths, b, (double)random_int(0, p->key.shape[2]));
  }
  p->options.q_lengths = &p->q_lengths;
  p->options.kv_lengths = &p->kv_lengths;
}

void problem_add_query_offsets(problem *p, swiftattn_dtype dtype) {
  int64_t batch = p->query.shape[0];
  p->query_offsets = TENSOR(dtype, option_layout(), batch);
  for (int64_t b = 0; b < batch; b++)
    tensor_store1(&p->query_offsets, b, (double)random_int(-p->query.shape[2], p->key.shape[2]));
  p->options.query_offsets = &p->query_offsets;
}

static void add_random_mask(problem *p) {
  const int64_t full[4] = {p->query.shape[0], p->query.shape[1], p->query.shape[2], p->key.shape[2]};
  int64_t shape[4];
  int ndim = (int)random_int(1, 4);
  for (int d = 0; d < ndim; d++) shape[d] = random_chance(4) ? 1 : full[4 - ndim + d];
  problem_add_mask(p, random_chance(2) ? BOOL8 : random_chance(2) ? F32 : p->query.dtype, ndim, shape);
}

void problem_add_options(problem *p) {
  swiftattn_attention_options *o = &p->options;
  int64_t k_len = p->key.shape[2], q_len = p->query.shape[2];
  o->causal = (int32_t)random_int(0, 2);
  o->weights_stage = (int32_t)random_int(0, 3);
  if (random_chance(3)) o->flags |= SWIFTATTN_ATTENTION_HAS_SCALE, o->scale = 0.3 * random_normal();
  if (random_chance(4)) o->softcap = 0.5 + (double)random_int(0, 20);
  if (random_chance(3)) o->flags |= SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT, o->window_left = random_int(-1, k_len);
  if (random_chance(3)) o->flags |= SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT, o->window_right = random_int(-1, k_len);
  if (random_chance(5)) o->dropout_p = 0.3, o->seed = random_bits();
  if (random_chance(2)) add_random_mask(p);
  if (random_chance(4)) problem_add_alibi(p);
  if (random_chance(4)) problem_add_sinks(p);
  if (random_chance(4)) problem_add_lengths(p, random_chance(2) ? I32 : I64);
  if (o->q_lengths && random_chance(3)) o->q_lengths = NULL;
  if (o->kv_lengths && random_chance(3)) o->kv_lengths = NULL;
  if (random_chance(4)) {
    o->flags |= SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
    o->query_offset = random_int(-q_len, k_len);
  } else if (random_chance(4)) {
    problem_add_query_offsets(p, random_chance(2) ? I32 : I64);
  }
}

void problem_describe(const problem *p) {
  const swiftattn_attention_options *o = &p->options;
  const int64_t *q = p->query.shape, *k = p->key.shape;
  char mask[64] = "";
  if (o->attn_mask)
    snprintf(mask, sizeof mask, " %s mask of rank %d", dtype_name(o->attn_mask->dtype), o->attn_mask->ndim);
  check_context(
      "%s q %lldx%lldx%lldx%lld k %lldx%lld v %lld causal %d flags %u offset %lld window %lld,%lld scale %g "
      "softcap %g dropout %g%s%s%s%s%s%s%s weights %s %s",
      dtype_name(p->query.dtype), (long long)q[0], (long long)q[1], (long long)q[2], (long long)q[3], (long long)k[1],
      (long long)k[2], (long long)p->value.shape[3], o->causal, o->flags, (long long)o->query_offset,
      (long long)o->window_left, (long long)o->window_right, o->scale, o->softcap, o->dropout_p, mask,
      o->alibi_slopes ? " alibi" : "", o->sinks ? " sinks" : "", o->q_lengths ? " q_lengths" : "",
      o->kv_lengths ? " kv_lengths" : "", o->query_offsets ? " query_offsets" : "", p->has_lse ? " lse" : "",
      p->has_weights ? stage_names[o->weights_stage] : "none", p->has_weights ? dtype_name(p->weights.dtype) : "");
}

int32_t problem_run(const problem *p) {
  return swiftattn_scaled_dot_product_attention(&p->query, &p->key, &p->value, &p->options, &p->out,
                                                p->has_lse ? &p->lse : NULL, p->has_weights ? &p->weights : NULL);
}

static double product_roundoff(const problem *p) {
  if (!dtype_equal(p->query.dtype, F32) || p->options.precision == SWIFTATTN_PRECISION_HIGHEST)
    return dtype_compute_roundoff(p->query.dtype);
  return p->options.precision == SWIFTATTN_PRECISION_HIGH ? 0x1p-16 : 0x1p-8;
}

void problem_check(const problem *p) {
  double roundoff = product_roundoff(p);
  int32_t status = problem_run(p);
  reference r;
  CHECK(status == SWIFTATTN_SUCCESS, "status %d: %s", status, swiftattn_last_error());
  if (status != SWIFTATTN_SUCCESS) return;
  r = reference_attention(&p->query, &p->key, &p->value, &p->options, 0);
  reference_scale(r.out_bound, tensor_count(&p->out), fmax(roundoff, dtype_probability_roundoff(p->query.dtype)));
  reference_scale(r.lse_bound, tensor_count(&p->lse), roundoff);
  reference_scale(r.weights_bound, tensor_count(&p->weights), roundoff);
  tensor_compare("out", &p->out, r.out, r.out_bound);
  if (p->has_lse) tensor_compare("lse", &p->lse, r.lse, r.lse_bound);
  if (p->has_weights) tensor_compare("weights", &p->weights, r.weights, r.weights_bound);
}
