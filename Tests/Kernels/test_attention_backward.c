/* backward_delta, backward_tile and backward_bias over random problems, against the formulas in long double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_case.h"

typedef struct backward_case {
  attention_case forward;
  attn_backward backward;
  attn_sequence_gradients gradients;
  view d_o, dq;
} backward_case;

/* Gradients by the formulas, and the sums of |terms|, each as often as the roundings behind it count. */
typedef struct gradients {
  long double *dq, *dk, *dv, *ds; /* ds: [head][row][key] */
  long double *dq_size, *dk_size, *dv_size, *ds_size;
} gradients;

static attn_strides strides(const view *v) { return (attn_strides){ v->stride[0], v->stride[1], v->stride[2] }; }

/* Numbers that parts of bfloat16 cannot multiply, where the scores stay as they are and no gradient overflows. */
static void plant(attention_options *o, int *d_o_planted) {
  switch (random_int(0, 3)) {
    case 0: o->q_planted = o->k_planted = o->v_planted = *d_o_planted = -110; break;
    case 1: *(random_chance(2) ? &o->q_planted : &o->k_planted) = 61, o->scale = 0x1p-63; break;
    case 2: o->v_planted = 90; break; /* which makes some ds as large */
    default: *d_o_planted = 62;
  }
}

static void build(backward_case *b, const subject *s) {
  attention_case *c = &b->forward;
  attention_options o = attention_random(s);
  o.lse = true;
  o.weights_dtype = NO_DTYPE;
  o.q_spread = 1;
  int d_o_planted = 0;
  if (o.dtype != ATTN_F16 && random_chance(3)) plant(&o, &d_o_planted);
  attention_build(c, &o);
  attention_result result;
  attention_run_whole(c, s->kernels, &result);
  attention_free(&result);
  b->d_o = view_new(o.dtype, o.q_heads, o.q_rows, o.value_dim, o.inputs);
  b->dq = view_new(o.dtype, o.q_heads, o.q_rows, o.head_dim, o.outputs);
  for (int64_t h = 0; h < o.q_heads; h++)
    for (int64_t i = 0; i < o.q_rows; i++)
      for (int64_t d = 0; d < o.value_dim; d++) view_put(&b->d_o, h, i, d, random_normal());
  if (d_o_planted) attention_plant(&b->d_o, d_o_planted);
  b->gradients = (attn_sequence_gradients){ .d_o = b->d_o.data, .dq = b->dq.data };
  b->backward = (attn_backward){
    .problem = &c->problem, .d_o = strides(&b->d_o), .dq = { o.dtype, strides(&b->dq) }, .gradients = &b->gradients,
    .wants_dq = true, .wants_dk = true, .wants_dv = true, .row_count = o.q_heads * o.q_rows,
  };
}

static long double dot(const view *a, int64_t ah, int64_t ai, const view *b, int64_t bh, int64_t bi, long double *size) {
  long double sum = 0;
  *size = 0;
  for (int64_t d = 0; d < a->extent[2]; d++) {
    const long double term = (long double)view_get(a, ah, ai, d) * view_get(b, bh, bi, d);
    sum += term;
    *size += fabsl(term);
  }
  return sum;
}

static gradients room(const attention_options *o) {
  const size_t q = (size_t)(o->q_heads * o->q_rows * o->head_dim) + 1, k = (size_t)(o->kv_heads * o->kv_rows * o->head_dim) + 1;
  const size_t v = (size_t)(o->kv_heads * o->kv_rows * o->value_dim) + 1;
  const size_t s = (size_t)(o->q_heads * o->q_rows * o->kv_rows) + 1, each = sizeof(long double);
  return (gradients){ calloc(q, each), calloc(k, each), calloc(v, each), calloc(s, each),
                      calloc(q, each), calloc(k, each), calloc(v, each), calloc(s, each) };
}

static void free_gradients(gradients *g) {
  long double *all[] = { g->dq, g->dk, g->dv, g->ds, g->dq_size, g->dk_size, g->dv_size, g->ds_size };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void add(long double *sum, long double *size, long double term, long double slack) {
  *sum += term;
  *size += fabsl(term) * slack;
}

static gradients by_formulas(const backward_case *b) {
  const attention_case *c = &b->forward;
  const attention_options *o = &c->options;
  const int64_t group = o->q_heads / o->kv_heads, D = o->head_dim, V = o->value_dim;
  gradients g = room(o);
  for (int64_t h = 0; h < o->q_heads; h++)
    for (int64_t i = 0; i < o->q_rows; i++) {
      const long double lse = view_get(&c->lse, h, i, 0);
      long double delta_size;
      const long double delta = dot(&b->d_o, h, i, &c->o, h, i, &delta_size);
      for (int64_t j = 0; j < o->kv_rows; j++) {
        if (!attention_visible(c, h, i, j)) continue;
        const int64_t kv = h / group;
        long double size, value_size;
        long double s = o->scale * dot(&c->q, h, i, &c->k, kv, j, &size), slope = 1;
        size *= fabs(o->scale);
        if (o->softcap > 0) {
          const long double t = tanhl(s / o->softcap);
          s = o->softcap * t;
          slope = 1 - t * t;
        }
        const long double bias = attention_bias(c, h, i, j);
        const long double distance = o->alibi ? c->slopes[h] * (long double)llabs((long long)(i + o->query_offset - j)) : 0;
        s += bias - distance;
        /* 8: of a sum whose terms round alike, as those of broadcast rows */
        const long double slack = 8 + size + fabsl(bias) + distance + fabsl(lse);
        const long double p = expl(s - lse);
        const uint32_t word = philox_word(o->seed, (uint32_t)j >> 2, (uint32_t)i, (uint32_t)h, (uint32_t)o->batch, j & 3);
        const long double z = o->dropout <= 0 ? 1 : word < c->problem.dropout_threshold ? 0 : c->problem.dropout_scale;
        const long double dp = z * dot(&b->d_o, h, i, &c->v, kv, j, &value_size);
        const int64_t at = (h * o->q_rows + i) * o->kv_rows + j;
        g.ds[at] = p * (dp - delta);
        g.ds_size[at] = p * (z * value_size + delta_size) * slack;
        const long double dt = o->scale * slope * g.ds[at];
        /* 1 - t^2 is rounded from near 1, however small it is */
        const long double dt_size = fabs(o->scale) * g.ds_size[at];
        for (int64_t d = 0; d < D; d++) {
          const int64_t q = (h * o->q_rows + i) * D + d, k = (kv * o->kv_rows + j) * D + d;
          g.dq[q] += dt * view_get(&c->k, kv, j, d);
          g.dq_size[q] += dt_size * fabs(view_get(&c->k, kv, j, d));
          g.dk[k] += dt * view_get(&c->q, h, i, d);
          g.dk_size[k] += dt_size * fabs(view_get(&c->q, h, i, d));
        }
        for (int64_t d = 0; d < V; d++) {
          const int64_t v = (kv * o->kv_rows + j) * V + d;
          add(&g.dv[v], &g.dv_size[v], z * p * view_get(&b->d_o, h, i, d), slack);
        }
      }
    }
  return g;
}

static double real_at(const subject *s, const void *reals, int64_t i) {
  return s->real_dtype == ATTN_F64 ? ((const double *)reals)[i] : (double)((const float *)reals)[i];
}

static int64_t whole(const subject *s, int64_t count) {
  const int64_t lanes = s->kernels->lanes;
  return (count + lanes - 1) / lanes * lanes;
}

/* dq into its view, dk and dv as sums of one key/value head after the other: all keys at once, or block by block and
 * dq apart. */
static void run(backward_case *b, const subject *s, bool apart, char *dk, char *dv, size_t head_dk, size_t head_dv) {
  const attention_case *c = &b->forward;
  const attention_options *o = &c->options;
  const attn_kernels *K = s->kernels;
  const int64_t group = o->q_heads / o->kv_heads, block = K->backward_keys;
  const size_t size = s->real_dtype == ATTN_F64 ? 8 : 4;
  const int64_t rows = o->q_rows < K->tile_rows ? o->q_rows : K->tile_rows;
  const int64_t shared = group < K->tile_rows / rows ? group : K->tile_rows / rows;
  char *delta = guard_new((size_t)(o->q_heads * o->q_rows) * size, 64);
  const size_t bytes = (K->backward_scratch(&b->backward) + 63) / 64 * 64;
  char *scratch = guard_new(bytes, 64);
  for (int64_t h = 0; h < o->q_heads; h++)
    K->backward_delta(&b->backward, 0, h, delta + (size_t)(h * o->q_rows) * size, scratch);
  memset(dk, 0, (size_t)o->kv_heads * head_dk);
  memset(dv, 0, (size_t)o->kv_heads * head_dv);
  for (int64_t head = 0; head < o->q_heads;) {
    const int64_t left = group - head % group, heads = left < shared ? left : shared, kv = head / group;
    for (int64_t row = 0; row < o->q_rows; row += rows) {
      const attn_tile tile = { &c->sequence, head, heads, row, o->q_rows - row < rows ? o->q_rows - row : rows };
      attn_key_sums sums = { dk + (size_t)kv * head_dk, dv + (size_t)kv * head_dv, whole(s, o->head_dim),
                             whole(s, o->value_dim), 0 };
      if (!apart) {
        K->backward_tile(&b->backward, &tile, delta, 0, o->kv_rows, &sums, true, scratch);
        continue;
      }
      K->backward_tile(&b->backward, &tile, delta, 0, o->kv_rows, NULL, true, scratch);
      for (int64_t key = 0; key < o->kv_rows; key += block) {
        sums.dk = dk + (size_t)kv * head_dk + (size_t)(key * sums.dk_step) * size;
        sums.dv = dv + (size_t)kv * head_dv + (size_t)(key * sums.dv_step) * size;
        sums.first_key = key;
        const int64_t end = key + block < o->kv_rows ? key + block : o->kv_rows;
        K->backward_tile(&b->backward, &tile, delta, key, end, &sums, false, scratch);
      }
    }
    head += heads;
  }
}

#define LOST 3 /* roundoffs of a sum of terms, beside those of its scores */

static void check_sums(const subject *s, const char *what, const void *sums, int64_t rows, int64_t dim, const long double *truth,
                       const long double *size) {
  for (int64_t j = 0; j < rows; j++)
    for (int64_t d = 0; d < dim; d++) {
      const double error = fabs((double)(real_at(s, sums, j * whole(s, dim) + d) - truth[j * dim + d]));
      check_error(error, LOST * s->roundoff * (double)size[j * dim + d] + 1e-30, what, j * dim + d);
    }
}

static void check_queries(const backward_case *b, const subject *s, const gradients *g) {
  const view *dq = &b->dq;
  for (int64_t i = 0; i < view_count(dq); i++) {
    const int64_t D = dq->extent[2], row = i / D;
    const double got = view_get(dq, row / dq->extent[1], row % dq->extent[1], i % D), truth = (double)g->dq[i];
    const double bound = LOST * s->roundoff * (double)g->dq_size[i] + 1e-30;
    if (fabs(truth) > 65504 && dq->dtype == ATTN_F16) continue;
    const double rounding = 1.01 * element_roundoff(dq->dtype) * (fabs(truth) + bound) + element_tiny(dq->dtype);
    check_rounded(fabs(got - truth), bound, rounding, "dq", i);
  }
  view_check_gaps(dq, "dq");
}

/* A tile of one head and a block of keys: ds, added twice to what was 0. */
static void check_bias(backward_case *b, const subject *s, const gradients *g) {
  const attention_case *c = &b->forward;
  const attention_options *o = &c->options;
  const attn_kernels *K = s->kernels;
  const size_t size = s->real_dtype == ATTN_F64 ? 8 : 4;
  const int64_t head = random_int(0, o->q_heads - 1), row = random_int(0, (o->q_rows - 1) / K->tile_rows) * K->tile_rows;
  const int64_t key = random_int(0, (o->kv_rows - 1) / K->backward_keys) * K->backward_keys;
  const int64_t rows = o->q_rows - row < K->tile_rows ? o->q_rows - row : K->tile_rows;
  const attn_tile tile = { &c->sequence, head, 1, row, rows };
  char *delta = guard_new((size_t)(o->q_heads * o->q_rows) * size, 64);
  char *scratch = guard_new((K->backward_scratch(&b->backward) + 63) / 64 * 64, 64);
  K->backward_delta(&b->backward, 0, head, delta + (size_t)(head * o->q_rows) * size, scratch);
  const size_t bytes = (size_t)(K->tile_rows * K->backward_keys) * size;
  char *sums = guard_new(bytes, 64);
  memset(sums, 0, bytes);
  for (int twice = 0; twice < 2; twice++) K->backward_bias(&b->backward, &tile, delta, key, sums, scratch);
  for (int64_t j = 0; j < K->backward_keys; j++)
    for (int64_t r = 0; r < K->tile_rows; r++) {
      const bool inside = r < rows && key + j < o->kv_rows;
      const int64_t at = (head * o->q_rows + row + r) * o->kv_rows + key + j;
      const double truth = inside ? 2 * (double)g->ds[at] : 0, most = inside ? (double)g->ds_size[at] : 0;
      check_error(fabs(real_at(s, sums, j * K->tile_rows + r) - truth), 2 * LOST * s->roundoff * most + 1e-30, "ds", at);
    }
}

void test_attention_backward(const subject *s) {
  check_begin(s->isa, s->real, "attention backward");
  static backward_case b;
  const size_t size = s->real_dtype == ATTN_F64 ? 8 : 4;
  for (int trial = 0; trial < check_trials(s->dtype_count > 1 ? 300 : 100); trial++) {
    build(&b, s);
    const attention_options *o = &b.forward.options;
    if (!o->kv_rows) continue;
    const size_t head_dk = (size_t)(o->kv_rows * whole(s, o->head_dim)) * size;
    const size_t head_dv = (size_t)(o->kv_rows * whole(s, o->value_dim)) * size;
    char *dk = guard_new((size_t)o->kv_heads * head_dk, 64), *dv = guard_new((size_t)o->kv_heads * head_dv, 64);
    char *dk2 = guard_new((size_t)o->kv_heads * head_dk, 64), *dv2 = guard_new((size_t)o->kv_heads * head_dv, 64);
    gradients g = by_formulas(&b);
    double *dq[2];
    for (int apart = 0; apart < 2; apart++) {
      run(&b, s, apart, apart ? dk2 : dk, apart ? dv2 : dv, head_dk, head_dv);
      dq[apart] = calloc((size_t)view_count(&b.dq) + 1, sizeof(double));
      view_gather(&b.dq, dq[apart]);
    }
    check_sums(s, "dk", dk, o->kv_heads * o->kv_rows, o->head_dim, g.dk, g.dk_size);
    check_sums(s, "dv", dv, o->kv_heads * o->kv_rows, o->value_dim, g.dv, g.dv_size);
    check_queries(&b, s, &g);
    CHECK(!memcmp(dk, dk2, (size_t)o->kv_heads * head_dk), "dk has other bits block by block");
    CHECK(!memcmp(dv, dv2, (size_t)o->kv_heads * head_dv), "dv has other bits block by block");
    CHECK(!memcmp(dq[0], dq[1], (size_t)view_count(&b.dq) * sizeof(double)), "dq has other bits alone");
    check_bias(&b, s, &g);
    free(dq[0]);
    free(dq[1]);
    free_gradients(&g);
  }
  check_end();
}
