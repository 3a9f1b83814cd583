/* The reference: slow, plain, and in double precision. */
#include "reference.h"

#include <math.h>
#include <string.h>

#include "tensor.h"

/* Philox4x32-10. Source: Salmon et al. 2011. */
void reference_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t k0 = key[0], k1 = key[1];
  memcpy(out, counter, 4 * sizeof *out);
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * out[0], b = (uint64_t)0xCD9E8D57u * out[2];
    out[0] = (uint32_t)(b >> 32) ^ out[1] ^ k0;
    out[1] = (uint32_t)b;
    out[2] = (uint32_t)(a >> 32) ^ out[3] ^ k1;
    out[3] = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

double reference_activation(double x, int32_t activation) {
  switch (activation) {
    case SWIFTATTN_ACTIVATION_RELU: return isnan(x) ? x : x > 0 ? x : 0;
    case SWIFTATTN_ACTIVATION_GELU: return x / 2 * erfc(-x / sqrt(2.0));
    case SWIFTATTN_ACTIVATION_GELU_TANH: return x / 2 * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case SWIFTATTN_ACTIVATION_SILU: return x / (1 + exp(-x));
    default: return x;
  }
}

void reference_scale(double *bound, int64_t count, double roundoff) {
  for (int64_t n = 0; n < count; n++) bound[n] *= roundoff;
}

/* A tensor seen with leading dims flattened: (B, heads, length, width) as dense doubles. */
static double *flatten(const swiftattn_tensor *t, int rank, const int64_t *leading, int64_t heads) {
  int64_t shape[SWIFTATTN_MAX_DIMS];
  memcpy(shape, leading, sizeof shape);
  shape[rank - 3] = heads;
  shape[rank - 2] = t->shape[t->ndim - 2];
  shape[rank - 1] = t->shape[t->ndim - 1];
  return tensor_dense(t, rank, shape);
}

static int max3(int a, int b, int c) { return a > b ? (a > c ? a : c) : b > c ? b : c; }

/* What one row of scores needs to know. */
typedef struct row {
  const reference *r;
  const swiftattn_attention_options *o;
  int64_t b, h, i, batch_number, position;
  const double *mask; /* the row of the mask, or NULL */
  int mask_is_bool;
  double scale, *scores; /* scratch for k_len scores */
} row;

static int64_t length_of(const swiftattn_tensor *lengths, int64_t b, int64_t otherwise) {
  return lengths ? (int64_t)tensor_load1(lengths, b) : otherwise;
}

static int64_t query_offset(const row *w) {
  if (w->o->query_offsets) return (int64_t)tensor_load1(w->o->query_offsets, w->batch_number);
  if (w->o->flags & SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET) return w->o->query_offset;
  if (w->o->causal == SWIFTATTN_CAUSAL_LOWER_RIGHT)
    return length_of(w->o->kv_lengths, w->batch_number, w->r->k_len) -
           length_of(w->o->q_lengths, w->batch_number, w->r->q_len);
  return 0;
}

static int is_visible(const row *w, int64_t j) {
  const swiftattn_attention_options *o = w->o;
  int64_t p = w->position;
  if (o->causal != SWIFTATTN_CAUSAL_NONE && j > p) return 0;
  if (o->flags & SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT && o->window_left >= 0 && j < p - o->window_left) return 0;
  if (o->flags & SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT && o->window_right >= 0 && j > p + o->window_right) return 0;
  if (w->mask && (w->mask_is_bool ? w->mask[j] == 0 : !(w->mask[j] > -INFINITY))) return 0;
  if (j >= length_of(o->kv_lengths, w->batch_number, w->r->k_len)) return 0;
  return w->i < length_of(o->q_lengths, w->batch_number, w->r->q_len);
}

static int is_dropped(const row *w, int64_t j) {
  uint32_t counter[4] = {(uint32_t)(j >> 2), (uint32_t)w->i, (uint32_t)w->h, (uint32_t)w->batch_number};
  uint32_t key[2] = {(uint32_t)w->o->seed, (uint32_t)(w->o->seed >> 32)}, words[4];
  reference_philox(counter, key, words);
  return words[j & 3] < floor(w->o->dropout_p * 0x1p32);
}

/* One score; stages gets its value at each SWIFTATTN_WEIGHTS_* after P. Returns the magnitude of the terms. */
static double score(const row *w, const double *q, const double *k, int64_t j, double stages[4]) {
  double dot = 0, magnitude = 0, s;
  for (int64_t d = 0; d < w->r->head_dim; d++) {
    dot += q[d] * k[d];
    magnitude += fabs(q[d] * k[d]);
  }
  magnitude *= fabs(w->scale) * (1 + sqrt((double)w->r->head_dim) / 8); /* rounding walks with the length of a sum */
  stages[SWIFTATTN_WEIGHTS_SCALED] = s = w->scale * dot;
  if (w->o->softcap > 0) s = w->o->softcap * tanh(s / w->o->softcap);
  stages[SWIFTATTN_WEIGHTS_CAPPED] = s;
  if (w->mask && !w->mask_is_bool) {
    s += w->mask[j];
    if (isfinite(w->mask[j])) magnitude += fabs(w->mask[j]);
  }
  if (w->o->alibi_slopes) {
    double bias = -tensor_load1(w->o->alibi_slopes, w->h) * fabs((double)(w->position - j));
    s += bias;
    magnitude += fabs(bias);
  }
  stages[SWIFTATTN_WEIGHTS_BIASED] = is_visible(w, j) ? s : -INFINITY;
  return magnitude;
}

static void attend_row(const row *w, const double *q, const double *k, const double *v) {
  const reference *r = w->r;
  const swiftattn_attention_options *o = w->o;
  int64_t at = (w->b * r->q_heads + w->h) * r->q_len + w->i;
  double *out = r->out + at * r->value_dim, *out_bound = r->out_bound + at * r->value_dim;
  double *weights = r->weights + at * r->k_len, *weights_bound = r->weights_bound + at * r->k_len;
  double sink = o->sinks ? tensor_load1(o->sinks, w->h) : -INFINITY, max = sink, sum, largest = 0, keep;
  double *scores = w->scores;
  for (int64_t j = 0; j < r->k_len; j++) {
    double stages[4] = {0}, magnitude = score(w, q, k + j * r->head_dim, j, stages);
    scores[j] = stages[SWIFTATTN_WEIGHTS_BIASED];
    weights[j] = stages[o->weights_stage];
    weights_bound[j] = 4 * magnitude + fabs(isinf(weights[j]) ? 0 : weights[j]);
    if (scores[j] > max) max = scores[j];
    if (is_visible(w, j) && magnitude > largest) largest = magnitude;
  }
  sum = max > -INFINITY ? exp(sink - max) : 0;
  for (int64_t j = 0; j < r->k_len; j++)
    if (is_visible(w, j)) sum += exp(scores[j] - max);
  r->lse[at] = sum == 0 ? -INFINITY : max + log(sum);
  r->lse_bound[at] = 8 + 4 * largest + fabs(isinf(r->lse[at]) ? 0 : r->lse[at]);
  memset(out, 0, (size_t)r->value_dim * sizeof *out);
  memset(out_bound, 0, (size_t)r->value_dim * sizeof *out);
  keep = 1 / (1 - o->dropout_p);
  for (int64_t j = 0; j < r->k_len; j++) {
    double p = is_visible(w, j) ? exp(scores[j] - max) / sum : 0;
    if (o->weights_stage == SWIFTATTN_WEIGHTS_PROBABILITIES) {
      weights[j] = p;
      weights_bound[j] = p * (8 + 4 * largest);
    }
    if (!is_visible(w, j) || (o->dropout_p > 0 && is_dropped(w, j))) continue;
    for (int64_t d = 0; d < r->value_dim; d++) {
      out[d] += p * keep * v[j * r->value_dim + d];
      out_bound[d] += fabs(p * keep * v[j * r->value_dim + d]) * (8 + 4 * largest);
    }
  }
}

static double *doubles(int64_t count) { return buffer_new((size_t)(count + 1) * sizeof(double)); }

/* (B, Hq, Tq, Tk) as row-major doubles; a mask that does not fit that shape follows the leading dims one by one. */
static double *flatten_mask(const swiftattn_tensor *mask, const reference *r, int rank, const int64_t *leading) {
  int64_t flat[4] = {r->batch, r->q_heads, r->q_len, r->k_len}, shape[SWIFTATTN_MAX_DIMS];
  if (tensor_broadcasts(mask, 4, flat)) return tensor_dense(mask, 4, flat);
  memcpy(shape, leading, sizeof shape);
  memcpy(shape + rank - 3, flat + 1, 3 * sizeof *flat);
  return tensor_dense(mask, rank, shape);
}

reference reference_attention(const swiftattn_tensor *query, const swiftattn_tensor *key, const swiftattn_tensor *value,
                              const swiftattn_attention_options *options, int64_t first_batch) {
  reference r;
  const swiftattn_tensor *inputs[3] = {query, key, value};
  int rank = max3(query->ndim, key->ndim, value->ndim) < 4 ? 4 : max3(query->ndim, key->ndim, value->ndim);
  int64_t leading[SWIFTATTN_MAX_DIMS], rows;
  double *q, *k, *v, *mask = NULL, *scores;
  int mode = buffer_mode(BUFFER_HEAP);
  r.batch = 1;
  for (int d = 0; d < rank - 3; d++) {
    leading[d] = 1;
    for (int n = 0; n < 3; n++) {
      int from = d - (rank - inputs[n]->ndim);
      if (from >= 0 && inputs[n]->shape[from] != 1) leading[d] = inputs[n]->shape[from];
    }
    r.batch *= leading[d];
  }
  r.q_heads = query->ndim > 2 ? query->shape[query->ndim - 3] : 1;
  r.kv_heads = key->ndim > 2 ? key->shape[key->ndim - 3] : 1;
  r.q_len = query->shape[query->ndim - 2];
  r.k_len = key->shape[key->ndim - 2];
  r.head_dim = query->shape[query->ndim - 1];
  r.value_dim = value->shape[value->ndim - 1];
  q = flatten(query, rank, leading, r.q_heads);
  k = flatten(key, rank, leading, r.kv_heads);
  v = flatten(value, rank, leading, r.kv_heads);
  if (options->attn_mask) mask = flatten_mask(options->attn_mask, &r, rank, leading);
  rows = r.batch * r.q_heads * r.q_len;
  r.out = doubles(rows * r.value_dim);
  r.out_bound = doubles(rows * r.value_dim);
  r.lse = doubles(rows);
  r.lse_bound = doubles(rows);
  r.weights = doubles(rows * r.k_len);
  r.weights_bound = doubles(rows * r.k_len);
  scores = doubles(r.k_len);
  for (int64_t n = 0; n < rows; n++) {
    row w;
    int64_t kv;
    w.r = &r;
    w.scores = scores;
    w.o = options;
    w.i = n % r.q_len;
    w.h = n / r.q_len % r.q_heads;
    w.b = n / r.q_len / r.q_heads;
    w.batch_number = first_batch + w.b;
    w.position = w.i + query_offset(&w);
    w.mask = mask ? mask + n * r.k_len : NULL;
    w.mask_is_bool = mask && options->attn_mask->dtype.code == SWIFTATTN_DTYPE_CODE_BOOL;
    w.scale = options->flags & SWIFTATTN_ATTENTION_HAS_SCALE ? options->scale
              : r.head_dim                                   ? 1 / sqrt((double)r.head_dim)
                                                             : 0;
    kv = w.b * r.kv_heads + w.h / (r.q_heads / r.kv_heads);
    attend_row(&w, q + n * r.head_dim, k + kv * r.k_len * r.head_dim, v + kv * r.k_len * r.value_dim);
  }
  buffer_mode(mode);
  return r;
}
