/* Fused attention forward on tiles: the algorithm of attention.h, with more queries at a time.
 *
 *   s = k q, o += v p: k and v turned are a, keys and value dims in rows; q and p are b, queries in lanes
 *
 * Taking k and v apart and turning v costs as much as some products, so a tile of up to 256 queries does it once for each
 * block of keys. It is cut in parts of 64 lanes with a state each. While the vector units turn the scores of one part to
 * probabilities, the tiles multiply for its neighbours: o of the part before it, then s of the one behind it, and o of the
 * last one while the next block is taken apart. A job advances by a few products between vectors, so the two instruction
 * streams stay close enough for the machine to run them side by side.
 *
 * Numbers that parts of bfloat16 cannot multiply (v_hard): a score of such a query or key is a product of floats, and such
 * a value is left out and added by itself. Either concerns the rows alone that meet it. */

#define GROUP_LANES 256
#define GROUP_PARTS 8 /* 7 heads with 33 queries: the worst cut */
#define KEY_STEPS STEPS(KEYS)
#define V_ROW (PARTS * KEY_STEPS * TILE_ROW + (PARTS == 2 ? TILE_ROW : 0)) /* an odd number of lines of the cache */
#define B_ROW ((int64_t)(TILE * sizeof(pair)))
#define P_PARTS (PRODUCTS == 4 ? 3 : PARTS) /* a float16 is two bfloat16, but p is a float */

/* 64 lanes. */
typedef struct lanes_part {
  work *w;
  state *state;                /* of the chunk at work */
  bool begun;                  /* the total holds something */
  char *q, *p;                 /* [part][pairs][TILE] */
  uint32_t hard[TILE / LANES]; /* its queries that are hard */
  struct group *group;
} lanes_part;

typedef struct group {
  int count;
  lanes_part parts[GROUP_PARTS];
  tile_job jobs[2]; /* under way, and behind it */
  int job, jobs_end;
  /* a block of keys */
  char *k_parts, *v_parts[2]; /* v alternates: products of the block before it may be under way */
  int which;
  tile_operand keys;
  bool hard_key[KEYS], any_hard_key, any_apart;
  uint16_t *apart; /* [KEYS][vectors of value_dim]: values that are left out */
} group;

/* ---- jobs ---- */

static void enqueue(group *g, tile_job job) { g->jobs[g->jobs_end++] = job; }

/* A few products of tiles, if any are left: called between vectors. */
static void keep_busy(group *g) {
  while (g->job < g->jobs_end && !advance(&g->jobs[g->job])) g->job++;
}

static void finish_jobs(group *g) {
  for (; g->job < g->jobs_end; g->job++) complete(&g->jobs[g->job]);
  g->job = g->jobs_end = 0;
}

/* ---- memory ---- */

static int64_t lines_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static int64_t k_row(const attn_problem *P) { return PARTS * STEPS(P->head_dim) * TILE_ROW + TILE_ROW; }
static int64_t q_part(const attn_problem *P) { return STEPS(P->head_dim) * TILE_EDGE * B_ROW; }
#define P_PART (KEY_STEPS * TILE_EDGE * B_ROW)
static int64_t v_vectors(const attn_problem *P) { return (P->value_dim + LANES - 1) / LANES; }

static int64_t part_scratch(const attn_problem *P) {
  return lines_up((int64_t)attention_scratch(P)) + PARTS * q_part(P) + P_PARTS * P_PART;
}

/* The most parts that a tile of this problem can have. */
static int64_t parts_of(const attn_problem *P) { return P->q_heads == P->kv_heads ? GROUP_LANES / TILE : GROUP_PARTS; }

static size_t group_scratch(const attn_problem *P) {
  return (size_t)(lines_up(sizeof(group)) + parts_of(P) * part_scratch(P) + KEYS * k_row(P)
                  + 2 * v_vectors(P) * TILE_EDGE * V_ROW + lines_up(KEYS * v_vectors(P) * (int64_t)sizeof(uint16_t)));
}

static size_t group_state(const attn_problem *P) { return (size_t)parts_of(P) * attention_state(P); }

/* ---- queries ---- */

static void take_queries(lanes_part *u) {
  const work *w = u->w;
  const int64_t dims = w->problem->head_dim, bytes = q_part(w->problem);
  for (int v = 0; v < w->vecs; v++) {
    lanemask hard = {0};
    for (int64_t d = 0; d < STEPS(dims) * TILE_STEP; d += 2) {
      vec low = d < dims ? v_load(w->q + d * TILE + v * LANES) : (vec){0};
      vec high = d + 1 < dims ? v_load(w->q + (d + 1) * TILE + v * LANES) : (vec){0};
      hard |= v_hard(low) | v_hard(high);
      for (int i = 0; i < PARTS; i++)
        v_store((real *)(u->q + i * bytes + d / 2 * B_ROW + v * TILE_ROW), v_take_pairs(&low, &high));
    }
    u->hard[v] = PARTS > 1 ? v_bits(hard) : 0;
  }
}

/* The heads and rows of a tile in parts of at most TILE lanes: whole heads together, or rows of one head. */
static group *begin_group(const attn_problem *P, const attn_tile *T, void *scratch) {
  group *g = scratch;
  char *at = (char *)scratch + lines_up(sizeof *g);
  *g = (group){ .count = 0 };
  g->k_parts = carve(&at, (size_t)(KEYS * k_row(P)));
  for (int i = 0; i < 2; i++) g->v_parts[i] = carve(&at, (size_t)(v_vectors(P) * TILE_EDGE * V_ROW));
  g->apart = carve(&at, (size_t)(KEYS * v_vectors(P)) * sizeof *g->apart);
  const int64_t rows = least(T->rows, TILE), heads = least(T->heads, TILE / rows);
  for (int64_t head = 0; head < T->heads; head += heads)
    for (int64_t row = 0; row < T->rows; row += rows) {
      lanes_part *u = &g->parts[g->count++];
      const attn_tile cut = { T->sequence, T->first_head + head, least(heads, T->heads - head), T->first_row + row,
                              least(rows, T->rows - row) };
      char *memory = at;
      at += part_scratch(P);
      u->q = memory + lines_up((int64_t)attention_scratch(P));
      u->p = u->q + PARTS * q_part(P);
      u->group = g;
      u->w = begin(P, &cut, false, memory);
      u->w->outer = u;
      take_queries(u);
    }
  return g;
}

/* ---- scores ---- */

static void take_keys(group *g, const work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t dims = P->head_dim, bytes = k_row(P);
  const lines k = lines_of(w, w->k, P->k, P->k_block, w->k_scales, key, n, dims);
  const int64_t row = k.row * (int64_t)attn_dtype_size(k.dtype);
  g->any_hard_key = false;
  if (PARTS == 1 && k.dtype == ATTN_BF16 && k.element == 1 && dims % TILE_STEP == 0 && n % TILE_EDGE == 0) {
    g->keys = (tile_operand){ k.first, row, 0 };
    return;
  }
  g->keys = (tile_operand){ g->k_parts, bytes, STEPS(dims) * TILE_ROW };
  for (int64_t j = 0; j < n; j++) {
    lanemask hard = {0};
    for (int64_t d = 0; d < dims; d += TILE_STEP)
      hard |= take_parts(k.dtype, k.first + j * row, k.element, d, dims, g->k_parts + j * bytes + 2 * d, g->keys.part);
    g->any_hard_key |= g->hard_key[j] = PARTS > 1 && v_any(hard);
    keep_busy(g);
  }
}

static tile_job scores_job(const lanes_part *u, int64_t n) {
  const work *w = u->w;
  return product_of_tiles((n + TILE_EDGE - 1) / TILE_EDGE, w->vecs, STEPS(w->problem->head_dim), u->group->keys,
                          (tile_operand){ u->q, B_ROW, q_part(w->problem) }, w->s, TILE, false);
}

/* Scores of hard queries and keys again, in floats. */
static __attribute__((noinline)) void mend_scores(lanes_part *u, int64_t key, int64_t n) {
  work *w = u->w;
  const group *g = u->group;
  const operand *row[KEYS];
  real again[TILE];
  const int64_t dims = w->problem->head_dim, step = keys_of(w, key, n, row);
  uint32_t any = 0;
  for (int v = 0; v < w->vecs; v++) any |= u->hard[v];
  for (int64_t j = 0; j < n; j++) {
    const bool hard_key = g->any_hard_key && g->hard_key[j];
    if (!any && !hard_key) continue;
    for (int64_t d = 0, most = summed(dims); d == 0 || d < dims; d += most) {
      const operand *from = row[j] + d * step;
      product_block(1, w->vecs, least(dims - d, most), &from, step, w->q + d * TILE, TILE, again, TILE, d > 0);
    }
    for (int v = 0; v < w->vecs; v++) {
      real *s = w->s + j * TILE + v * LANES;
      v_store(s, v_select(v_lanes_of(hard_key ? 0xffff : u->hard[v]), v_load(again + v * LANES), v_load(s)));
    }
  }
}

static void finish_scores(lanes_part *u, int64_t key, int64_t n, terms until) {
  work *w = u->w;
  bool hard = u->group->any_hard_key;
  for (int v = 0; v < w->vecs; v++) hard |= u->hard[v] != 0;
  if (hard) mend_scores(u, key, n);
  if (w->prescaled || until != TERMS_ALL || boundary(w, key, n)) apply_terms(w, key, n, until);
}

static void tile_scores(work *w, int64_t key, int64_t n, terms until) {
  lanes_part *u = w->outer;
  take_keys(u->group, w, key, n);
  tile_job job = scores_job(u, n);
  complete(&job);
  finish_scores(u, key, n, until);
}

/* ---- probabilities ---- */

/* Parts of p of keys j and j + 1, in one vector of lanes. */
WORD void put_probabilities(const lanes_part *u, int64_t j, int v, vec low, vec high) {
#pragma clang loop unroll(full)
  for (int i = 0; i < P_PARTS; i++)
    v_store((real *)(u->p + i * P_PART + j / 2 * B_ROW + v * TILE_ROW), v_take_pairs(&low, &high));
}

static void clear_probabilities(const lanes_part *u, int64_t n, int v) {
  for (int64_t j = (n + 1) / 2 * 2; j < STEPS(n) * TILE_STEP; j += 2) put_probabilities(u, j, v, (vec){0}, (vec){0});
}

/* softmax_step of attention_softmax.h, p going straight to its parts; s is kept where it is wanted. */
static void tile_softmax_step(lanes_part *u, int64_t n, bool keep) {
  work *w = u->w;
  group *g = u->group;
  state *state = u->state;
  const vec c = v_set1(w->c);
  const int64_t dv = w->problem->value_dim;
  for (int v = 0; v < w->vecs; v++) {
    real *s = w->s + v * LANES;
    vec tops[4]; /* a maximum waits for the one before it */
    const vec old = v_load(state->m + v * LANES);
    for (int i = 0; i < 4; i++) tops[i] = old;
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++) tops[i] = v_max(v_load(s + (j + i) * TILE), tops[i]);
      if (j % 32 == 0) keep_busy(g);
    }
    for (; j < n; j++) tops[0] = v_max(v_load(s + j * TILE), tops[0]);
    const vec m = v_max(v_max(tops[0], tops[1]), v_max(tops[2], tops[3]));
    const vec decay = v_exp2((old - m) * c);
    vec even = {0}, odd = {0};
    for (j = 0; j < n; j += 2) {
      const vec low = v_exp2((v_load(s + j * TILE) - m) * c);
      const vec high = j + 1 < n ? v_exp2((v_load(s + (j + 1) * TILE) - m) * c) : (vec){0};
      even += low;
      odd += high;
      put_probabilities(u, j, v, low, high);
      if (keep) v_store(s + j * TILE, low);
      if (keep && j + 1 < n) v_store(s + (j + 1) * TILE, high);
      if (j % 8 == 0) keep_busy(g);
    }
    clear_probabilities(u, n, v);
    v_store(state->m + v * LANES, m);
    v_store(state->l + v * LANES, v_fma(v_load(state->l + v * LANES), decay, even + odd));
    if (!v_any(decay != v_set1(1))) continue;
    for (int64_t d = 0; d < dv; d++) {
      real *o = state->o + d * TILE + v * LANES;
      v_store(o, v_load(o) * decay);
    }
  }
}

static void dropped_softmax_step(lanes_part *u, int64_t key, int64_t n) {
  work *w = u->w;
  softmax_step(w, u->state, n);
  drop(w, w->s, key, n);
  for (int v = 0; v < w->vecs; v++) {
    for (int64_t j = 0; j < n; j += 2) {
      const real *s = w->s + j * TILE + v * LANES;
      put_probabilities(u, j, v, v_load(s), j + 1 < n ? v_load(s + TILE) : (vec){0});
    }
    clear_probabilities(u, n, v);
  }
}

/* ---- values ---- */

WORD lanemask left_out(vec x) { return PARTS > 1 ? v_hard(x) : v_huge(x); }

/* v turned, in parts: [value_dim][part][keys]. Values that are left out count as 0. */
static void take_values(group *g, const work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t dv = P->value_dim, vectors = v_vectors(P);
  const lines v = lines_of(w, w->v, P->v, P->v_block, w->v_scales, key, n, dv);
  const int64_t size = (int64_t)attn_dtype_size(v.dtype), row = v.row * size;
  lanemask any = {0};
  g->which ^= 1;
  for (int64_t j0 = 0; j0 < n; j0 += TILE_STEP)
    for (int64_t x = 0; x < vectors; x++) {
      const int64_t some = least(LANES, dv - x * LANES);
      vec squares[PARTS][LANES];
      for (int t = 0; t < LANES; t++) {
        vec pair_of[2];
        for (int i = 0; i < 2; i++) {
          const int64_t j = j0 + 2 * t + i;
          pair_of[i] = j < n ? load_some(v.dtype, v.first + j * row + x * LANES * v.element * size, v.element, some)
                             : (vec){0};
          const lanemask out = left_out(pair_of[i]);
          any |= out;
          if (j < n) g->apart[j * vectors + x] = (uint16_t)v_bits(out);
          pair_of[i] = v_select(out, (vec){0}, pair_of[i]);
        }
#pragma clang loop unroll(full)
        for (int i = 0; i < PARTS; i++) squares[i][t] = v_take_pairs(&pair_of[0], &pair_of[1]);
      }
      for (int i = 0; i < PARTS; i++) {
        transpose(squares[i]);
        for (int d = 0; d < LANES; d++)
          v_store((real *)(g->v_parts[g->which] + (x * LANES + d) * V_ROW + i * KEY_STEPS * TILE_ROW + j0 * 2), squares[i][d]);
      }
      keep_busy(g);
    }
  g->any_apart = v_any(any);
}

static tile_job values_job(const lanes_part *u, int64_t n) {
  const work *w = u->w;
  tile_job job = product_of_tiles(v_vectors(w->problem), w->vecs, STEPS(n),
                                  (tile_operand){ u->group->v_parts[u->group->which], V_ROW, KEY_STEPS * TILE_ROW },
                                  (tile_operand){ u->p, B_ROW, P_PART }, u->state->o, TILE, true);
  job.of_p = true;
  return job;
}

/* o += p v of the values that were left out, in the rows that see them. */
static __attribute__((noinline)) void add_apart(lanes_part *u, int64_t key, int64_t n) {
  const work *w = u->w;
  const group *g = u->group;
  const attn_problem *P = w->problem;
  const int64_t dv = P->value_dim, vectors = v_vectors(P);
  const lines v = lines_of(w, w->v, P->v, P->v_block, w->v_scales, key, n, dv);
  const int64_t size = (int64_t)attn_dtype_size(v.dtype);
  for (int64_t j = 0; j < n; j++)
    for (int64_t d = 0; d < dv; d++) {
      if (!(g->apart[j * vectors + d / LANES] >> d % LANES & 1)) continue;
      const real x = load_some(v.dtype, v.first + (j * v.row + d * v.element) * size, 1, 1)[0];
      real *o = u->state->o + d * TILE;
      const real *p = w->s + j * TILE;
      if (x * 0 == 0) {
        for (int i = 0; i < w->vecs; i++)
          v_store(o + i * LANES, v_fma(v_load(p + i * LANES), v_set1(x), v_load(o + i * LANES)));
        continue;
      }
      for (int r = 0; r < w->rows; r++)
        if (sees(w, r, key, j)) o[r] += p[r] * x;
    }
}

/* ---- blocks and chunks ---- */

static bool meets(const lanes_part *u, int64_t key, int64_t end) { return u->w->first < end && u->w->last > key; }

static void attend_block(group *g, int64_t key, int64_t n) {
  lanes_part *live[GROUP_PARTS];
  int count = 0;
  for (int i = 0; i < g->count; i++)
    if (meets(&g->parts[i], key, key + n)) live[count++] = &g->parts[i];
  if (!count) return;
  take_keys(g, live[0]->w, key, n);
  take_values(g, live[0]->w, key, n);
  finish_jobs(g);
  enqueue(g, scores_job(live[0], n));
  for (int i = 0; i < count; i++) {
    lanes_part *u = live[i];
    if (i == 0) finish_jobs(g);
    finish_scores(u, key, n, TERMS_ALL);
    if (i + 1 < count) enqueue(g, scores_job(live[i + 1], n));
    if (u->w->problem->dropout_threshold) dropped_softmax_step(u, key, n);
    else tile_softmax_step(u, n, g->any_apart);
    finish_jobs(g);
    enqueue(g, values_job(u, n));
    if (!g->any_apart) continue;
    finish_jobs(g);
    add_apart(u, key, n);
  }
}

/* Keys [begin, begin + CHUNK) into u->state of the parts that see some of them. */
static void attend_group(group *g, int64_t begin) {
  int64_t end = begin;
  for (int i = 0; i < g->count; i++) {
    const work *w = g->parts[i].w;
    if (w->first < begin + CHUNK && w->last > end) end = least(w->last, begin + CHUNK);
  }
  for (int64_t key = begin; key < end; key += KEYS) attend_block(g, key, least(end - key, KEYS));
  finish_jobs(g);
}

static void group_tile(const attn_problem *problem, const attn_tile *tile, void *scratch) {
  group *g = begin_group(problem, tile, scratch);
  int64_t first = INT64_MAX, last = 0;
  for (int i = 0; i < g->count; i++) {
    const work *w = g->parts[i].w;
    clear(w, &g->parts[i].w->total);
    if (w->first < w->last && w->first < first) first = w->first;
    if (w->last > last) last = w->last;
  }
  tiles_begin();
  for (int64_t chunk = first / CHUNK * CHUNK; chunk < last; chunk += CHUNK) {
    for (int i = 0; i < g->count; i++) {
      lanes_part *u = &g->parts[i];
      u->state = u->begun ? &u->w->chunk : &u->w->total; /* what comes first is the total so far */
      if (u->begun) clear(u->w, u->state);
    }
    attend_group(g, chunk);
    for (int i = 0; i < g->count; i++) {
      lanes_part *u = &g->parts[i];
      if (!meets(u, chunk, chunk + CHUNK)) continue;
      if (u->begun) merge(u->w, &u->w->total, u->state);
      u->begun = true;
    }
  }
  for (int i = 0; i < g->count; i++) {
    finish_tile(g->parts[i].w);
    if (tile->sequence->weights) write_weights(g->parts[i].w);
  }
  tiles_end();
}

static void group_chunk(const attn_problem *problem, const attn_tile *tile, int64_t chunk, void *scratch, void *memory) {
  group *g = begin_group(problem, tile, scratch);
  state states[GROUP_PARTS];
  for (int i = 0; i < g->count; i++) {
    states[i] = state_in((char *)memory + (size_t)i * attention_state(problem));
    g->parts[i].state = &states[i];
    clear(g->parts[i].w, &states[i]);
  }
  tiles_begin();
  attend_group(g, chunk * CHUNK);
  tiles_end();
}

static void group_merge(const attn_problem *problem, const attn_tile *tile, bool begins, const void *memory, int64_t count,
                        bool ends, void *scratch) {
  group *g = begin_group(problem, tile, scratch);
  tiles_begin();
  for (int part = 0; part < g->count; part++) {
    work *w = g->parts[part].w;
    if (begins) clear(w, &w->total);
    for (int64_t i = 0; i < count; i++) {
      const state state = state_in((char *)memory + (size_t)i * group_state(problem) + (size_t)part * attention_state(problem));
      merge(w, &w->total, &state);
    }
    if (!ends) continue;
    finish_tile(w);
    if (tile->sequence->weights) write_weights(w);
  }
  tiles_end();
}
