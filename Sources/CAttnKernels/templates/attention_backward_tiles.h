/* Fused attention backward on tiles: the algorithm of attention_backward.h, with more queries at a time.
 *
 *   s = k q, dp = v d_o        k and v are a, keys in rows; q and d_o are b, queries in lanes
 *   dv += p d_o, dk += ds q    p and ds are a, keys in rows; d_o and q are b, their dims in lanes
 *   dq += k ds                 k turned is a, dims in rows; ds is b, queries in lanes
 *
 * As in attention_tiles.h a tile of up to 256 queries takes keys apart once, in parts of 64 lanes; while the vector units make
 * p and ds of one part, the tiles multiply those of the part before it, then k and v for the one behind it.
 *
 * Numbers that parts of bfloat16 cannot multiply are treated as in the forward: scores and dp of such queries or keys are
 * products of floats; where they or a p or ds have to be left out of the sums, they are added by themselves to those that see
 * them. Products below 2^-126 count as 0, which concerns gradients of that size alone. */

#define QUERY_STEPS STEPS(TILE)
#define LANES_ROW (REAL_PARTS * QUERY_STEPS * TILE_ROW + TILE_ROW) /* an odd number of lines, or other sets of the cache */

/* 64 lanes. */
typedef struct gradient_part {
  backward *g;
  uint32_t hard_q[TILE / LANES], hard_d_o[TILE / LANES];
  char *q, *d_o;           /* [part][pairs of dims][TILE] */
  char *q_rows, *d_o_rows; /* [part][pairs of queries][dims] */
  char *p, *ds;            /* [key][part][TILE] */
  char *ds_pairs;          /* [part][pairs of keys][TILE] */
  real *dq;                /* [dims][TILE] */
} gradient_part;

typedef struct gradient_group {
  int count;
  gradient_part parts[GROUP_PARTS];
  tile_queue queue;
  const attn_key_sums *sums; /* NULL: not wanted */
  bool dq;
  /* a block of keys */
  char *k_parts, *v_parts, *k_turned[2]; /* that alternates: products of the block before it may be under way */
  int which;
  key_operand keys, values;
  uint16_t *apart; /* [KEYS][vectors of head_dim]: numbers of k that are left out */
  bool any_apart;
} gradient_group;

/* ---- memory ---- */

static int64_t rows_part_bytes(int64_t dims) { return TILE / 2 * PADDED(dims) * (int64_t)sizeof(pair); }
static int64_t turned_bytes(int64_t dims) { return PADDED(dims) * TURNED_ROW; }

static size_t gradient_scratch(const attn_backward *B) {
  const attn_problem *P = B->problem;
  const int64_t d = P->head_dim, dv = P->value_dim;
  const int64_t part = lines_up((int64_t)backward_scratch(B)) + PARTS * (lanes_part_bytes(d) + lanes_part_bytes(dv))
      + PARTS * (rows_part_bytes(d) + rows_part_bytes(dv)) + 2 * KEYS * LANES_ROW + REAL_PARTS * BLOCK_PART
      + PADDED(d) * TILE * (int64_t)sizeof(real);
  return (size_t)(lines_up(sizeof(gradient_group)) + parts_of(P) * part + KEYS * (row_bytes(d) + row_bytes(dv))
                  + 2 * turned_bytes(d) + lines_up(KEYS * vectors_of(d) * (int64_t)sizeof(uint16_t)));
}

/* ---- operands ---- */

/* Rows of queries, two by two, over the lanes of their dims; 0 behind the last. */
static void take_query_rows(const clean_rows *x, int64_t rows, char *to) {
  const int64_t width = PADDED(x->dim), bytes = rows_part_bytes(x->dim);
  for (int64_t r = 0; r < STEPS(rows) * TILE_STEP; r += 2)
    for (int64_t d = 0; d < width; d += LANES) {
      const real *at = x->of.data + r * x->of.step + d;
      vec low = r < rows ? v_load(at) : (vec){0}, high = r + 1 < rows ? v_load(at + x->of.step) : (vec){0};
#pragma clang loop unroll(full)
      for (int i = 0; i < PARTS; i++)
        v_store((real *)(to + i * bytes + (r / 2 * width + d) * (int64_t)sizeof(pair)), v_take_pairs(&low, &high));
    }
}

static void begin_part(gradient_part *u, const attn_backward *B, const attn_tile *cut, const void *delta, char **at) {
  const attn_problem *P = B->problem;
  const int64_t d = P->head_dim, dv = P->value_dim;
  backward *g = u->g = backward_begin(B, cut, delta, carve(at, backward_scratch(B)));
  u->q = carve(at, (size_t)(PARTS * lanes_part_bytes(d)));
  u->d_o = carve(at, (size_t)(PARTS * lanes_part_bytes(dv)));
  u->q_rows = carve(at, (size_t)(PARTS * rows_part_bytes(d)));
  u->d_o_rows = carve(at, (size_t)(PARTS * rows_part_bytes(dv)));
  u->p = carve(at, KEYS * LANES_ROW);
  u->ds = carve(at, KEYS * LANES_ROW);
  u->ds_pairs = carve(at, (size_t)(REAL_PARTS * BLOCK_PART));
  u->dq = carve(at, (size_t)(PADDED(d) * TILE) * sizeof(real));
  const work *w = g->w;
  take_lanes(w->q, d, w->vecs, ONE_SMALL, u->q, u->hard_q);
  take_lanes(g->d_o_lanes, dv, w->vecs, ONE_SMALL, u->d_o, u->hard_d_o);
  take_query_rows(&g->q, w->rows, u->q_rows);
  take_query_rows(&g->d_o, w->rows, u->d_o_rows);
}

static gradient_group *begin_gradients(const attn_backward *B, const attn_tile *T, const void *delta,
                                       const attn_key_sums *sums, bool dq, void *scratch) {
  const attn_problem *P = B->problem;
  gradient_group *t = scratch;
  char *at = (char *)scratch + lines_up(sizeof *t);
  *t = (gradient_group){ .sums = sums, .dq = dq };
  t->k_parts = carve(&at, (size_t)(KEYS * row_bytes(P->head_dim)));
  t->v_parts = carve(&at, (size_t)(KEYS * row_bytes(P->value_dim)));
  for (int i = 0; i < 2; i++) t->k_turned[i] = carve(&at, (size_t)turned_bytes(P->head_dim));
  t->apart = carve(&at, (size_t)(KEYS * vectors_of(P->head_dim)) * sizeof *t->apart);
  for (attn_tile cut; (cut = part_of(T, t->count)).heads > 0; t->count++) {
    gradient_part *u = &t->parts[t->count];
    begin_part(u, B, &cut, delta, &at);
    if (dq) memset(u->dq, 0, (size_t)(PADDED(P->head_dim) * TILE) * sizeof(real));
  }
  return t;
}

/* The block of keys in parts; w of any part. */
static void take_key_block(gradient_group *t, const work *w, int64_t key, int64_t n) {
  const int64_t d = w->problem->head_dim, dv = w->problem->value_dim;
  const lines k = keys_at(w, key, n);
  take_rows(k, true, n, d, ONE_SMALL, t->k_parts, &t->queue, &t->keys);
  take_rows(values_at(w, key, n), true, n, dv, ONE_SMALL, t->v_parts, &t->queue, &t->values);
  t->which ^= 1;
  t->any_apart = t->dq && take_turned(k, n, d, ONE_SMALL, t->k_turned[t->which], t->apart, &t->queue);
}

/* ---- products ---- */

static void enqueue_scores(gradient_group *t, gradient_part *u, int64_t n) {
  const work *w = u->g->w;
  const attn_problem *P = w->problem;
  enqueue(&t->queue, product_with_lanes(&t->keys, n, u->q, w->vecs, P->head_dim, w->s));
  enqueue(&t->queue, product_with_lanes(&t->values, n, u->d_o, w->vecs, P->value_dim, u->g->ds));
}

/* Both products of the part, with what is hard mended, and the terms that come behind the scores. */
static void finish_products(gradient_group *t, gradient_part *u, int64_t key, int64_t n) {
  backward *g = u->g;
  work *w = g->w;
  if (some_hard(&t->values, u->hard_d_o, w->vecs)) {
    const operand *row[KEYS];
    const int64_t step = value_rows_of(w, key, n, row);
    mend_products(&t->values, row, step, n, w->problem->value_dim, g->d_o_lanes, u->hard_d_o, w->vecs, g->ds);
  }
  mend_and_finish_scores(w, &t->keys, u->hard_q, key, n, TERMS_ALL);
}

/* sums += weights x: weights p or ds, x the rows of d_o or q. */
static void enqueue_key_sums(gradient_group *t, const gradient_part *u, int64_t n, const char *weights, const char *x,
                             int64_t dims, real *sums, int64_t step) {
  const int64_t width = PADDED(dims);
  tile_job job = product_of_tiles(in_tiles(n), in_tiles(dims), STEPS(u->g->w->rows),
                                  (tile_operand){ weights, LANES_ROW, QUERY_STEPS * TILE_ROW },
                                  (tile_operand){ x, width * (int64_t)sizeof(pair), rows_part_bytes(dims) }, sums, step, true);
  job.most_rows = n;
  job.three = THREE_OF_A;
  enqueue(&t->queue, job);
}

static void enqueue_gradients(gradient_group *t, gradient_part *u, int64_t key, int64_t n) {
  const work *w = u->g->w;
  const attn_problem *P = w->problem;
  const attn_key_sums *S = t->sums;
  if (S && S->dv) enqueue_key_sums(t, u, n, u->p, u->d_o_rows, P->value_dim, dv_of_key(S, key), S->dv_step);
  if (S && S->dk) enqueue_key_sums(t, u, n, u->ds, u->q_rows, P->head_dim, dk_of_key(S, key), S->dk_step);
  if (t->dq)
    enqueue(&t->queue, product_with_pairs(t->k_turned[t->which], n, u->ds_pairs, w->vecs, P->head_dim, u->dq));
}

/* ---- gradients of the scores ---- */

/* Parts of what is computed for key j in two neighbouring vectors of lanes. */
WORD void put_neighbours(char *to, int64_t j, int v, vec low, vec high) {
#pragma clang loop unroll(full)
  for (int i = 0; i < REAL_PARTS; i++)
    v_store((real *)(to + j * LANES_ROW + i * QUERY_STEPS * TILE_ROW + v * LANES * 2), v_take_neighbours(&low, &high));
}

/* p and ds of two keys in two vectors of lanes, as floats and in parts; 0 where `keys` or `vecs` is 1. Says which are odd. */
WORD lanemask put_gradients(const gradient_group *t, const gradient_part *u, const lane_terms terms[2], int64_t j, int64_t keys,
                            int v, int vecs, const real *cap_slope, const real *kept) {
  vec p[2][2], ds[2][2]; /* [key][vector] */
  lanemask odd = {0};
#pragma clang loop unroll(full)
  for (int k = 0; k < 2; k++)
#pragma clang loop unroll(full)
    for (int x = 0; x < 2; x++) {
      p[k][x] = ds[k][x] = (vec){0};
      if (k >= keys || x >= vecs) continue;
      const int64_t at = (j + k) * TILE + (v + x) * LANES;
      real *s = u->g->w->s + at, *dp = u->g->ds + at;
      const lane_gradients of = differentiated(&terms[x], v_load(s), v_load(dp), cap_slope ? cap_slope + at : NULL,
                                               kept ? kept + at : NULL);
      v_store(s, of.p);
      v_store(dp, of.ds);
      p[k][x] = v_select(v_odd_weight(of.p), (vec){0}, of.p);
      ds[k][x] = v_select(v_odd_weight(of.ds), (vec){0}, of.ds);
      odd |= v_odd_weight(of.p) | v_odd_weight(of.ds);
    }
  for (int k = 0; k < keys && t->sums; k++) {
    if (t->sums->dv) put_neighbours(u->p, j + k, v, p[k][0], p[k][1]);
    if (t->sums->dk) put_neighbours(u->ds, j + k, v, ds[k][0], ds[k][1]);
  }
  for (int x = 0; x < vecs && t->dq; x++) put_pairs(u->ds_pairs, j, v + x, ds[0][x], ds[1][x]);
  return odd;
}

/* p and ds from the products. Says whether some are odd. */
WORD bool take_gradients(gradient_group *t, gradient_part *u, int64_t n, const real *cap_slope, const real *kept) {
  const work *w = u->g->w;
  lanemask odd = {0};
  for (int v = 0; v < w->vecs; v += 2) {
    const int vecs = w->vecs - v < 2 ? 1 : 2;
    lane_terms terms[2];
    for (int x = 0; x < vecs; x++) terms[x] = lane_terms_of(u->g, v + x, (real)w->problem->scale);
    for (int64_t j = 0; j < n; j += 2) {
      if (vecs == 2 && j + 2 <= n) odd |= put_gradients(t, u, terms, j, 2, v, 2, cap_slope, kept);
      else odd |= put_gradients(t, u, terms, j, n - j < 2 ? 1 : 2, v, vecs, cap_slope, kept);
      keep_busy(&t->queue);
    }
    for (int x = 0; x < vecs && t->dq; x++) clear_pairs(u->ds_pairs, n, v + x);
  }
  return v_any(odd);
}

/* ---- what was left out ---- */

static const real *row_of(backward *g, const clean_rows *x, int r) {
  return copied_rows(g->w->problem->dtype, &x->source[r], x->element, 1, x->dim, g->line).data;
}

static void add_scaled(real factor, const real *x, int64_t dims, real *sums) {
  for (int64_t d = 0; d < dims; d++) sums[d] += factor * x[d];
}

/* All that an odd p or ds adds. */
static void add_odd_weights(const gradient_group *t, gradient_part *u, int64_t key, int64_t n) {
  backward *g = u->g;
  const work *w = g->w;
  const attn_problem *P = w->problem;
  const attn_key_sums *S = t->sums;
  const lines k = keys_at(w, key, n);
  for (int64_t j = 0; j < n; j++)
    for (int r = 0; r < w->rows; r++) {
      const real p = w->s[j * TILE + r], ds = g->ds[j * TILE + r];
      if (S && S->dv && is_odd_weight(p)) add_scaled(p, row_of(g, &g->d_o, r), P->value_dim, dv_of_key(S, key + j));
      if (!is_odd_weight(ds)) continue;
      if (S && S->dk) add_scaled(ds, row_of(g, &g->q, r), P->head_dim, dk_of_key(S, key + j));
      if (!t->dq) continue;
      load_row(k.dtype, k.first + j * k.row * (int64_t)attn_dtype_size(k.dtype), k.element, P->head_dim, g->line);
      for (int64_t d = 0; d < P->head_dim; d++) u->dq[d * TILE + r] += ds * g->line[d];
    }
}

static __attribute__((noinline)) void add_left_out(const gradient_group *t, gradient_part *u, int64_t key, int64_t n,
                                                   bool odd_weights) {
  backward *g = u->g;
  const work *w = g->w;
  const attn_key_sums *S = t->sums;
  if (S && S->dv) add_odd_rows(g, key, n, w->s, &g->d_o, dv_of_key(S, key), S->dv_step);
  if (S && S->dk) add_odd_rows(g, key, n, g->ds, &g->q, dk_of_key(S, key), S->dk_step);
  if (t->any_apart) add_apart(w, keys_at(w, key, n), w->problem->head_dim, t->apart, g->ds, key, n, u->dq);
  if (odd_weights) add_odd_weights(t, u, key, n);
}

/* ---- blocks ---- */

/* Keys of the block [key, key + n) up to the last that the part sees; at most 0: none that it sees. */
static int64_t keys_seen(const gradient_part *u, int64_t key, int64_t n) {
  const work *w = u->g->w;
  return w->first < key + n ? least(w->last - key, n) : 0;
}

/* A part's share of the block, whose products are there; those of the next part are sent on their way. */
static void add_part(gradient_group *t, gradient_part *u, int64_t key, int64_t n, gradient_part *next, int64_t next_n) {
  backward *g = u->g;
  const real *cap_slope = g->w->cap_slope;
  finish_products(t, u, key, n);
  if (next) enqueue_scores(t, next, next_n);
  draw_dropout(g, key, n);
  const bool odd = cap_slope || g->kept ? take_gradients(t, u, n, cap_slope, g->kept) : take_gradients(t, u, n, NULL, NULL);
  finish_jobs(&t->queue);
  enqueue_gradients(t, u, key, n);
  if (!odd && !t->any_apart && !g->q.any_odd && !g->d_o.any_odd) return;
  finish_jobs(&t->queue);
  add_left_out(t, u, key, n, odd);
}

static void add_block(gradient_group *t, int64_t key, int64_t n) {
  gradient_part *live[GROUP_PARTS + 1];
  int64_t seen[GROUP_PARTS + 1];
  int count = 0;
  for (int i = 0; i < t->count; i++) {
    live[count] = &t->parts[i];
    seen[count] = keys_seen(live[count], key, n);
    count += seen[count] > 0;
  }
  live[count] = NULL;
  seen[count] = 0;
  if (!count) return;
  take_key_block(t, live[0]->g->w, key, n);
  enqueue_scores(t, live[0], seen[0]);
  finish_jobs(&t->queue);
  for (int i = 0; i < count; i++) add_part(t, live[i], key, seen[i], live[i + 1], seen[i + 1]);
}

static void write_queries(const attn_backward *B, const attn_tile *T, const gradient_part *u) {
  const work *w = u->g->w;
  const int64_t size = (int64_t)attn_dtype_size(B->dq.dtype);
  void *out[TILE];
  for (int r = 0; r < w->rows; r++)
    out[r] = (char *)B->gradients[T->sequence - B->problem->sequences].dq
        + (w->head[r] * B->dq.strides.head + w->query[r] * B->dq.strides.row) * size;
  store_transposed(B->dq.dtype, u->dq, TILE, w->rows, B->problem->head_dim, out, B->dq.strides.element);
}

static void gradient_tile(const attn_backward *B, const attn_tile *T, const void *delta, int64_t first, int64_t last,
                          const attn_key_sums *sums, bool dq, void *scratch) {
  if (!dq && !tile_sees(B->problem, T, first, last)) return;
  gradient_group *t = begin_gradients(B, T, delta, sums, dq, scratch);
  interval seen = { 0, 0 };
  for (int i = 0; i < t->count; i++) {
    const work *w = t->parts[i].g->w;
    if (w->first < w->last) seen = hull(seen, (interval){ w->first, w->last });
  }
  if (first < seen.first / KEYS * KEYS) first = seen.first / KEYS * KEYS;
  last = least(last, seen.last);
  tiles_begin();
  for (int64_t key = first; key < last; key += KEYS) add_block(t, key, least(last - key, KEYS));
  finish_jobs(&t->queue);
  tiles_end();
  for (int i = 0; dq && i < t->count; i++) write_queries(B, T, &t->parts[i]);
}

static void gradient_bias(const attn_backward *B, const attn_tile *T, const void *delta, int64_t key, void *sums,
                          void *scratch) {
  if (!tile_sees(B->problem, T, key, key + KEYS)) return;
  gradient_group *t = begin_gradients(B, T, delta, NULL, false, scratch);
  int64_t n = 0;
  for (int i = 0; i < t->count; i++) {
    const int64_t seen = keys_seen(&t->parts[i], key, KEYS);
    if (seen > n) n = seen;
  }
  tiles_begin();
  take_key_block(t, t->parts[0].g->w, key, n);
  for (int i = 0; i < t->count; i++) {
    gradient_part *u = &t->parts[i];
    const int64_t seen = keys_seen(u, key, n);
    if (seen <= 0) continue;
    enqueue_scores(t, u, seen);
    finish_jobs(&t->queue);
    finish_products(t, u, key, seen);
    differentiate_products(u->g, key, seen, 1, NULL);
    for (int64_t j = 0; j < seen; j++)
      for (int v = 0; v < u->g->w->vecs; v++) {
        real *sum = (real *)sums + j * GROUP_LANES + i * TILE + v * LANES;
        v_store(sum, v_load(sum) + v_load(u->g->ds + j * TILE + v * LANES));
      }
  }
  tiles_end();
}
