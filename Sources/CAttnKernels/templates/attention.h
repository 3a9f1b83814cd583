/* Fused attention forward for one tile of query rows: online softmax over blocks of keys, lanes = query rows.
 *
 *   s[j][i] = k[j] . q[i]        m = max_j s      p = 2^((s - m) c)      l = sum_j p      o[d][i] = sum_j v[j][d] p[j][i]
 *
 * Everything is held transposed, query rows side by side in the lanes: k and v are then read where they lie, element by
 * element as broadcasts, the maximum and the sum over keys are plain vertical operations, and a lane's arithmetic is the
 * same whatever its neighbours are. That is why results depend on a row's own inputs alone.
 *
 * Keys are cut at absolute multiples of KEYS (a block: one pass of the online softmax) and CHUNK (a state of its own,
 * merged into the total in order), wherever the query stands. An invisible key adds exactly nothing, so skipping a block
 * that no row sees changes no bit. docs/attention.md derives it. */
#include "attention_work.h"
#include "attention_lines.h"
#include "attention_scores.h"
#include "attention_softmax.h"
#include "attention_values.h"
#include "attention_few.h"

WORD vec merged(vec a, vec wa, vec b, vec wb) { return v_fma(a, wa, b * wb); }

/* a becomes the state of both key sets; with b empty, a stays as it is to the bit, and the other way round (but for the
 * sign of a 0). */
static void merge(const work *w, state *a, const state *b) {
  const int64_t dv = w->problem->value_dim;
  const vec c = v_set1(w->c);
  real weight_a[LANES], weight_b[LANES];
  for (int v = 0; v < w->vecs; v++) {
    const int at = v * LANES;
    const vec ma = v_load(a->m + at), mb = v_load(b->m + at), m = v_max(ma, mb);
    const vec wa = v_exp2((ma - m) * c), wb = v_exp2((mb - m) * c);
    v_store(a->m + at, m);
    v_store(a->l + at, merged(v_load(a->l + at), wa, v_load(b->l + at), wb));
    if (!w->few) {
      for (int64_t i = at; i < dv * TILE; i += TILE) v_store(a->o + i, merged(v_load(a->o + i), wa, v_load(b->o + i), wb));
      continue;
    }
    v_store(weight_a, wa);
    v_store(weight_b, wb);
    for (int64_t r = at; r < w->rows && r < at + LANES; r++)
      for (int64_t i = r * dv; i < (r + 1) * dv; i += LANES)
        v_store(a->o + i, merged(v_load(a->o + i), v_set1(weight_a[r - at]), v_load(b->o + i), v_set1(weight_b[r - at])));
  }
}

/* The state of the visible keys in chunk [begin, begin + CHUNK). */
static void attend_chunk(work *w, state *state, int64_t begin) {
  const int64_t end = begin + CHUNK < w->last ? begin + CHUNK : w->last;
  clear(w, state);
  for (int64_t key = begin; key < end; key += KEYS) {
    if (key + KEYS <= w->first) continue;
    const int64_t n = end - key < KEYS ? end - key : KEYS;
    if (w->few) few_scores(w, key, n);
    else scores(w, key, n, TERMS_ALL);
    if (w->few) few_softmax_step(w, state, n);
    else softmax_step(w, state, key, n);
    if (w->problem->dropout_threshold) drop(w, w->s, key, n);
    lines v = values_at(w, key, n);
    const bool apart = set_apart_nonfinite(w, &v, key, n);
    if (apart) v = (lines){ (const char *)w->values, REAL_DTYPE, w->problem->value_dim, 1 };
    if (w->few) few_accumulate(w, state, &v, key, n);
    else accumulate(w, state, &v, key, n);
    if (apart) add_nonfinite(w, state, key, n);
  }
}

/* o / l, where 0 has one sign: an underflow gives it another in another cut. */
WORD vec result(vec o, vec l) { return o / l + (vec){0}; }

/* Adds the sinks, divides by l, writes o and lse. Leaves m and 1/l for the weights. */
static void finish_tile(work *w) {
  const attn_problem *P = w->problem;
  const attn_sequence *S = w->sequence;
  const int64_t dv = P->value_dim, size = (int64_t)attn_dtype_size(P->dtype);
  state *T = &w->total;
  if (P->sinks || S->lse) {
    for (int r = 0; r < w->rows; r++) {
      double m = T->m[r] * w->unit, l = T->l[r];
      double rescale = 1;
      if (P->sinks) {
        const double sink = P->sinks[w->head[r]];
        const double top = l == 0 || sink > m ? sink : m;
        if (top > -__builtin_inf()) {
          rescale = exp(m - top);
          l = (l == 0 ? 0 : l * rescale) + exp(sink - top);
          m = top;
        }
      }
      if (S->lse) {
        const double lse = l == 0 ? -__builtin_inf() : m + log(l);
        const int64_t at = w->head[r] * P->lse.head + w->query[r] * P->lse.row;
        ((real *)S->lse)[at] = (real)lse;
      }
      /* Back in the state's own units: l relative to m[r] is what divides o and the weights. */
      if (P->sinks) T->l[r] = (real)(rescale > 0 ? l / rescale : __builtin_inf());
    }
  }
  void *out[TILE];
  for (int r = 0; r < w->rows; r++)
    out[r] = (char *)S->o + (w->head[r] * P->o.head + w->query[r] * P->o.row) * size;
  for (int v = 0; v < w->vecs; v++) {
    const vec l = v_load(T->l + v * LANES);
    const vec divisor = v_select(l == (vec){0}, v_set1(1), l);
    v_store(T->l + v * LANES, divisor);
    for (int r = v * LANES; P->o.element == 1 && r < w->rows && r < (v + 1) * LANES; r++) /* asked for before it is written */
      for (int64_t at = 0; at < dv * size; at += 64) __builtin_prefetch((const char *)out[r] + at, 1);
    for (int64_t d = 0; !w->few && d < dv; d++) {
      real *o = T->o + d * TILE + v * LANES;
      v_store(o, result(v_load(o), divisor));
    }
  }
  if (!w->few) store_transposed(P->dtype, T->o, TILE, w->rows, dv, out, P->o.element);
  for (int r = 0; w->few && r < w->rows; r++) {
    real *o = T->o + r * dv;
    for (int64_t d = 0; d < dv; d += LANES) v_store(o + d, result(v_load(o + d), v_set1(T->l[r])));
    store_row(P->dtype, o, dv, out[r], P->o.element);
  }
}

#ifdef WEIGHT_SCORES
static void WEIGHT_SCORES(work *w, int64_t key, int64_t n, terms until);
#else
#define WEIGHT_SCORES scores
#endif

/* A second pass over the keys: p = 2^((s - m) c) / l needs the final m and l. */
static void write_weights(work *w) {
  const attn_problem *P = w->problem;
  const attn_sequence *S = w->sequence;
  const int64_t size = (int64_t)attn_dtype_size(P->weights_dtype);
  const attn_weights_stage stage = P->weights_stage;
  const terms until = stage == ATTN_SCALED ? TERMS_SCALE : stage == ATTN_CAPPED ? TERMS_CAP : TERMS_ALL;
  const vec c = v_set1(w->c), scale = v_set1((real)P->scale);
  void *out[TILE];
  set_layout(w, false);
  for (int64_t key = 0; key < S->kv_rows; key += KEYS) {
    const int64_t n = S->kv_rows - key < KEYS ? S->kv_rows - key : KEYS;
    const bool unseen = until == TERMS_ALL && (key >= w->last || key + n <= w->first);
    if (unseen) {
      const vec fill = v_set1(stage == ATTN_BIASED ? -INFINITE : 0);
      for (int64_t j = 0; j < n; j++)
        for (int v = 0; v < w->vecs; v++) v_store(w->s + j * TILE + v * LANES, fill);
    } else {
      WEIGHT_SCORES(w, key, n, until);
      for (int v = 0; v < w->vecs; v++) {
        const vec m = v_load(w->total.m + v * LANES), l = v_load(w->total.l + v * LANES);
        for (int64_t j = 0; j < n; j++) {
          real *at = w->s + j * TILE + v * LANES;
          const vec x = v_load(at);
          if (stage == ATTN_PROBABILITIES) v_store(at, v_exp2((x - m) * c) / l);
          else if (!w->prescaled) v_store(at, x * scale);
        }
      }
    }
    for (int r = 0; r < w->rows; r++)
      out[r] = (char *)S->weights
          + (w->head[r] * P->weights.head + w->query[r] * P->weights.row + key * P->weights.element) * size;
    store_transposed(P->weights_dtype, w->s, TILE, w->rows, n, out, P->weights.element);
  }
}

static void attention_tile(const attn_problem *problem, const attn_tile *tile, void *scratch) {
  work *w = begin(problem, tile, true, scratch);
  int64_t chunk = w->first < w->last ? w->first / CHUNK * CHUNK : 0;
  if (!w->few) ask_for_keys(w, w->first, 0, 1);
  attend_chunk(w, &w->total, chunk); /* what comes first is the total so far */
  while ((chunk += CHUNK) < w->last) {
    attend_chunk(w, &w->chunk, chunk);
    merge(w, &w->total, &w->chunk);
  }
  finish_tile(w);
  if (w->sequence->weights) write_weights(w);
}

/* The same in parts, for few queries and many keys: chunks in any order, then their states in order. */

static void attention_chunk(const attn_problem *problem, const attn_tile *tile, int64_t chunk, void *scratch,
                            void *memory) {
  work *w = begin(problem, tile, true, scratch);
  state state = state_in(memory);
  attend_chunk(w, &state, chunk * CHUNK);
}

static void attention_merge(const attn_problem *problem, const attn_tile *tile, bool begins, const void *states,
                            int64_t count, bool ends, void *scratch) {
  work *w = begin(problem, tile, true, scratch);
  if (begins) clear(w, &w->total);
  for (int64_t i = 0; i < count; i++) {
    const state state = state_in((char *)states + (size_t)i * attention_state(problem));
    merge(w, &w->total, &state);
  }
  if (!ends) return;
  finish_tile(w);
  if (w->sequence->weights) write_weights(w);
}
