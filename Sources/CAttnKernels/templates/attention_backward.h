/* Fused attention backward for one tile of query rows. With p = 2^((s - lse) c) recomputed from q, k and lse:
 *
 *   dv[j] = sum_i z p[j][i] d_o[i]             z of the dropout: 0 or 1 / (1 - dropout_p); 1 without
 *   ds[j][i] = p[j][i] (z v[j] . d_o[i] - delta[i])        delta[i] = d_o[i] . o[i]
 *   dt[j][i] = scale (1 - tanh^2) ds[j][i]     the tanh of the softcap, or without one the scale alone
 *   dk[j] = sum_i dt[j][i] q[i]                dq[i] = sum_j dt[j][i] k[j]
 *
 * Scores and ds are held as in the forward, keys in rows and queries in lanes; the gradients with their dims in lanes, so
 * that q, k and d_o enter the last three products as they lie. Blocks of keys are cut as in the forward. A block's share is
 * summed from zero and added to dq in order of the keys, to dk and dv in order of the tiles: whoever computes them, the bits
 * are the same. docs/training.md derives it. */
#include "attention_backward_work.h"
#include "attention_backward_block.h"

/* delta[row] of a head's rows. Where a row sees no key, d_o may hold anything. */
static void backward_delta(const attn_backward *B, int64_t sequence, int64_t head, void *memory, void *scratch) {
  const attn_problem *P = B->problem;
  const attn_sequence *S = &P->sequences[sequence];
  const int64_t size = (int64_t)attn_dtype_size(P->dtype), dv = P->value_dim;
  const char *o = (const char *)S->o + head * P->o.head * size;
  const char *d_o = (const char *)B->gradients[sequence].d_o + head * B->d_o.head * size;
  const real *lse = (const real *)S->lse + head * P->lse.head;
  real *delta = memory, *o_line = scratch, *d_o_line = o_line + PADDED(dv);
  memset(scratch, 0, (size_t)(2 * PADDED(dv)) * sizeof(real));
  for (int64_t i = 0; i < S->q_rows; i++) {
    const interval seen = visible_keys(P, S, i);
    delta[i] = 0;
    if (seen.first == seen.last || lse[i * P->lse.row] == -INFINITE) continue;
    load_row(P->dtype, o + i * P->o.row * size, P->o.element, dv, o_line);
    load_row(P->dtype, d_o + i * B->d_o.row * size, B->d_o.element, dv, d_o_line);
    if (P->sinks && lse[i * P->lse.row] == (real)P->sinks[head] && all_zero(o_line, dv)) continue; /* the mask hides all */
    vec sum = {0};
    for (int64_t d = 0; d < dv; d += LANES) sum = v_fma(v_load(o_line + d), v_load(d_o_line + d), sum);
    for (int lane = 0; lane < LANES; lane++) delta[i] += sum[lane];
  }
}

static void backward_tile(const attn_backward *B, const attn_tile *T, const void *delta, int64_t first, int64_t last,
                          const attn_key_sums *sums, bool dq, void *scratch) {
  const attn_problem *P = B->problem;
  if (!dq && !tile_sees(P, T, first, last)) return;
  backward *g = backward_begin(B, T, delta, scratch);
  const work *w = g->w;
  const int64_t width = PADDED(P->head_dim);
  if (dq) memset(g->dq, 0, (size_t)(w->rows * width) * sizeof(real));
  if (first < w->first / KEYS * KEYS) first = w->first / KEYS * KEYS;
  if (last > w->last) last = w->last;
  for (int64_t key = first; key < last; key += KEYS) {
    const int64_t n = last - key < KEYS ? last - key : KEYS;
    differentiate(g, key, n, P->scale, w->cap_slope);
    if (sums && sums->dv) add_to_keys(g, key, n, w->s, &g->d_o, dv_of_key(sums, key), sums->dv_step);
    if (sums && sums->dk) add_to_keys(g, key, n, g->ds, &g->q, dk_of_key(sums, key), sums->dk_step);
    if (dq) add_to_queries(g, key, n);
  }
  if (!dq) return;
  const int64_t size = (int64_t)attn_dtype_size(B->dq.dtype);
  char *out = B->gradients[T->sequence - P->sequences].dq;
  for (int r = 0; r < w->rows; r++)
    store_row(B->dq.dtype, g->dq + r * width, P->head_dim,
              out + (w->head[r] * B->dq.strides.head + w->query[r] * B->dq.strides.row) * size, B->dq.strides.element);
}

static void backward_bias(const attn_backward *B, const attn_tile *T, const void *delta, int64_t key, void *sums,
                          void *scratch) {
  if (!tile_sees(B->problem, T, key, key + KEYS)) return;
  backward *g = backward_begin(B, T, delta, scratch);
  const int64_t n = g->w->last - key < KEYS ? g->w->last - key : KEYS;
  differentiate(g, key, n, 1, NULL);
  for (int64_t j = 0; j < n; j++)
    for (int v = 0; v < g->w->vecs; v++) {
      real *sum = (real *)sums + j * TILE + v * LANES;
      v_store(sum, v_load(sum) + v_load(g->ds + j * TILE + v * LANES));
    }
}
