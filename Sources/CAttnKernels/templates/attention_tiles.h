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

/* 64 lanes. */
typedef struct lanes_part {
  work *w;
  state *state;                /* of the chunk at work */
  bool begun;                  /* the total holds something */
  char *q, *p;                 /* [part][pairs][TILE] */
  uint32_t hard[TILE / LANES]; /* its queries that are */
  struct group *group;
} lanes_part;

typedef struct group {
  int count;
  lanes_part parts[GROUP_PARTS];
  tile_queue queue;
  /* a block of keys */
  char *k_parts, *v_parts[2]; /* v alternates: products of the block before it may be under way */
  int which;
  key_operand keys;
  bool any_apart;
  uint16_t *apart; /* [KEYS][vectors of value_dim]: values that are left out */
} group;

/* ---- memory ---- */

static int64_t part_scratch(const attn_problem *P) {
  return lines_up((int64_t)attention_scratch(P)) + PARTS * lanes_part_bytes(P->head_dim) + REAL_PARTS * BLOCK_PART;
}

static size_t group_scratch(const attn_problem *P) {
  const int64_t vectors = vectors_of(P->value_dim);
  return (size_t)(lines_up(sizeof(group)) + parts_of(P) * part_scratch(P) + KEYS * row_bytes(P->head_dim)
                  + 2 * vectors * TILE_EDGE * TURNED_ROW + lines_up(KEYS * vectors * (int64_t)sizeof(uint16_t)));
}

static size_t group_state(const attn_problem *P) { return (size_t)parts_of(P) * attention_state(P); }

static group *begin_group(const attn_problem *P, const attn_tile *T, void *scratch) {
  group *g = scratch;
  const int64_t vectors = vectors_of(P->value_dim);
  char *at = (char *)scratch + lines_up(sizeof *g);
  *g = (group){ .count = 0 };
  g->k_parts = carve(&at, (size_t)(KEYS * row_bytes(P->head_dim)));
  for (int i = 0; i < 2; i++) g->v_parts[i] = carve(&at, (size_t)(vectors * TILE_EDGE * TURNED_ROW));
  g->apart = carve(&at, (size_t)(KEYS * vectors) * sizeof *g->apart);
  for (attn_tile cut; (cut = part_of(T, g->count)).heads > 0;) {
    lanes_part *u = &g->parts[g->count++];
    char *memory = at;
    at += part_scratch(P);
    u->q = memory + lines_up((int64_t)attention_scratch(P));
    u->p = u->q + PARTS * lanes_part_bytes(P->head_dim);
    u->group = g;
    u->w = begin(P, &cut, false, memory);
    u->w->outer = u;
    take_lanes(u->w->q, P->head_dim, u->w->vecs, BOTH_SMALL, u->q, u->hard);
  }
  return g;
}

/* ---- scores ---- */

static void take_keys(group *g, const work *w, int64_t key, int64_t n) {
  const bool stay = gathered_width(w->problem) == 0; /* else the values come to their place */
  take_rows(keys_at(w, key, n), stay, n, w->problem->head_dim, BOTH_SMALL, g->k_parts, &g->queue, &g->keys);
}

static tile_job scores_job(const lanes_part *u, int64_t n) {
  const work *w = u->w;
  return product_with_lanes(&u->group->keys, n, u->q, w->vecs, w->problem->head_dim, w->s);
}

static void tile_scores(work *w, int64_t key, int64_t n, terms until) {
  lanes_part *u = w->outer;
  take_keys(u->group, w, key, n);
  tile_job job = scores_job(u, n);
  complete(&job);
  mend_and_finish_scores(u->w, &u->group->keys, u->hard, key, n, until);
}

/* ---- probabilities ---- */

/* o of a vector of lanes moves on to the new maximum: products of tiles go on from what is there. */
static void rescale(const work *w, const state *state, int v, vec decay) {
  if (!v_any(decay != v_set1(1))) return;
  for (int64_t d = 0; d < w->problem->value_dim; d++) {
    real *o = state->o + d * TILE + v * LANES;
    v_store(o, v_load(o) * decay);
  }
}

/* softmax_step of attention_softmax.h, p going straight to its parts; s is kept where it is wanted. */
static void tile_softmax_step(lanes_part *u, int64_t n, bool keep) {
  work *w = u->w;
  group *g = u->group;
  state *state = u->state;
  const vec c = v_set1(w->c);
  for (int v = 0; v < w->vecs; v++) {
    real *s = w->s + v * LANES;
    vec tops[4]; /* a maximum waits for the one before it */
    const vec old = v_load(state->m + v * LANES);
    for (int i = 0; i < 4; i++) tops[i] = old;
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++) tops[i] = v_max(v_load(s + (j + i) * TILE), tops[i]);
      if (j % 32 == 0) keep_busy(&g->queue);
    }
    for (; j < n; j++) tops[0] = v_max(v_load(s + j * TILE), tops[0]);
    const vec m = v_max(v_max(tops[0], tops[1]), v_max(tops[2], tops[3]));
    const vec decay = v_exp2((old - m) * c);
    vec sum = {0};
    for (j = 0; j < n; j += 2) {
      const vec low = v_exp2((v_load(s + j * TILE) - m) * c);
      const vec high = j + 1 < n ? v_exp2((v_load(s + (j + 1) * TILE) - m) * c) : (vec){0};
      sum += low; /* one after the other, as softmax_step */
      sum += high;
      put_pairs(u->p, j, v, low, high);
      if (keep) v_store(s + j * TILE, low);
      if (keep && j + 1 < n) v_store(s + (j + 1) * TILE, high);
      if (j % 8 == 0) keep_busy(&g->queue);
    }
    clear_pairs(u->p, n, v);
    v_store(state->m + v * LANES, m);
    v_store(state->l + v * LANES, v_fma(v_load(state->l + v * LANES), decay, sum));
    rescale(w, state, v, decay);
  }
}

static void dropped_softmax_step(lanes_part *u, int64_t key, int64_t n) {
  work *w = u->w;
  softmax_step(w, u->state, key, n);
  drop(w, w->s, key, n);
  for (int v = 0; v < w->vecs; v++) {
    rescale(w, u->state, v, v_load(w->decay + v * LANES));
    for (int64_t j = 0; j < n; j += 2) {
      const real *s = w->s + j * TILE + v * LANES;
      put_pairs(u->p, j, v, v_load(s), j + 1 < n ? v_load(s + TILE) : (vec){0});
    }
    clear_pairs(u->p, n, v);
  }
}

/* ---- values ---- */

static void take_values(group *g, const work *w, int64_t key, int64_t n) {
  g->which ^= 1;
  g->any_apart = take_turned(values_at(w, key, n), n, w->problem->value_dim, BOTH_SMALL, g->v_parts[g->which], g->apart,
                             &g->queue);
}

static tile_job values_job(const lanes_part *u, int64_t n) {
  const work *w = u->w;
  return product_with_pairs(u->group->v_parts[u->group->which], n, u->p, w->vecs, w->problem->value_dim, u->state->o);
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
  finish_jobs(&g->queue);
  enqueue(&g->queue, scores_job(live[0], n));
  for (int i = 0; i < count; i++) {
    lanes_part *u = live[i];
    if (i == 0) finish_jobs(&g->queue);
    mend_and_finish_scores(u->w, &u->group->keys, u->hard, key, n, TERMS_ALL);
    if (i + 1 < count) enqueue(&g->queue, scores_job(live[i + 1], n));
    if (u->w->problem->dropout_threshold) dropped_softmax_step(u, key, n);
    else tile_softmax_step(u, n, g->any_apart);
    finish_jobs(&g->queue);
    enqueue(&g->queue, values_job(u, n));
    if (!g->any_apart) continue;
    finish_jobs(&g->queue);
    add_apart(u->w, values_at(u->w, key, n), u->w->problem->value_dim, g->apart, u->w->s, key, n, u->state->o);
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
  finish_jobs(&g->queue);
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
