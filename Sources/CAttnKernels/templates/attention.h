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

#define TILE ((int)(256 / sizeof(real)))  /* lanes of a tile: 64 floats, 32 doubles; [KEYS][TILE] scores are 24 KB of L1 */
#define KEYS 96                           /* a multiple of PRODUCT_ROWS */
#define SUMMED 16                         /* operands of q.k in one running sum: short ones round less */
#define CHUNK (5 * KEYS)                  /* rounding errors grow with the chunk, merges with their number */

#if REAL_IS_FLOAT
#define LOWEST (-3.4028234663852886e38f) /* of the row maximum before any key: -inf would make inf - inf */
#define INFINITE __builtin_inff()
#else
#define LOWEST (-1.7976931348623157e308)
#define INFINITE __builtin_inf()
#endif

/* (m, l, o): what is known of a set of keys. m in the unit of s; o not yet divided by l. */
typedef struct state {
  real *m, *l; /* [TILE] */
  real *o;     /* [value_dim][TILE] */
} state;

static size_t attention_state(const attn_problem *problem) {
  return TILE * (2 + (size_t)problem->value_dim) * sizeof(real);
}

static state state_in(void *memory) {
  real *m = memory;
  return (state){ m, m + TILE, m + 2 * TILE };
}

/* A tile at work. Row r is query `query[r]` of head `head[r]`. */
typedef struct work {
  const attn_problem *problem;
  const attn_sequence *sequence;
  int rows, vecs;              /* live rows; vectors that hold them */
  int32_t head[TILE];
  int64_t query[TILE];
  int64_t first_key[TILE], last_key[TILE]; /* row r sees keys [first_key, last_key) as far as the mask allows */
  real slope[TILE];                        /* ALiBi */
  const char *k, *v;           /* of the tile's key/value head */
  const void *mask_row[TILE];
  bool one_mask_row;           /* all rows read the same mask row */
  bool prescaled;              /* scores are brought to natural units before the softmax */
  double unit;                 /* of s: 1 if prescaled, else scale */
  real c;                      /* unit * log2(e), positive */
  int64_t first, last;         /* some row sees keys of [first, last) and none outside */
  int64_t all_first, all_last; /* every row sees [all_first, all_last), as far as the mask allows */
  operand *q;                  /* [groups of head_dim][TILE] */
  operand *q_rows;             /* [rows][groups of head_dim], for at most STREAM_ROWS rows */
  real *s;                     /* [KEYS][TILE] */
  real *bias;                  /* [KEYS][TILE] */
  real *mask_line;             /* [KEYS] */
  operand *p;                  /* [groups of KEYS][TILE]; the scores themselves where operands are numbers */
  operand *k_block;            /* [KEYS][groups of head_dim]: k where it cannot be read in place */
  operand *v_block;            /* [groups of KEYS][value_dim]: v likewise */
  real *values;                /* [KEYS][value_dim]: v cleaned of NaN and Inf */
  state chunk, total;
} work;

static size_t attention_scratch(const attn_problem *problem) {
  const size_t d = (size_t)problem->head_dim, dv = (size_t)problem->value_dim;
  const size_t reals = TILE * 2 * KEYS + KEYS * (dv + 1);
  const size_t groups = TILE * (GROUPS(d) + GROUPS(KEYS)) + (STREAM_ROWS + KEYS) * GROUPS(d) + GROUPS(KEYS) * dv;
  return (sizeof(work) + 63) / 64 * 64 + 2 * attention_state(problem) + reals * sizeof(real) + groups * sizeof(operand)
      + 9 * 64;
}

static void *carve(char **at, size_t bytes) {
  void *block = *at;
  *at += (bytes + 63) / 64 * 64;
  return block;
}

static int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

/* Row r sees the keys of one interval: causal, window and lengths are all bounds on j. */
static void set_visible(work *w, int r, int64_t query) {
  const attn_problem *P = w->problem;
  const attn_sequence *S = w->sequence;
  int64_t first = 0, last = S->kv_len, p;
  if (query >= S->q_len) last = 0;
  p = query + S->query_offset;
  if (P->causal && last > p + 1) last = p + 1;
  if (P->window_left >= 0 && p - first > P->window_left) first = p - P->window_left;
  if (P->window_right >= 0 && last - 1 - p > P->window_right) last = p + P->window_right + 1;
  if (last <= first) first = last = 0;
  w->first_key[r] = first;
  w->last_key[r] = last;
}

static work *begin(const attn_problem *P, const attn_tile *T, void *scratch) {
  work *w = scratch;
  char *at = (char *)scratch + (sizeof(work) + 63) / 64 * 64;
  const size_t d = (size_t)P->head_dim, dv = (size_t)P->value_dim;
  w->q = carve(&at, GROUPS(d) * TILE * sizeof(operand));
  w->q_rows = carve(&at, STREAM_ROWS * GROUPS(d) * sizeof(operand));
  w->s = carve(&at, KEYS * TILE * sizeof(real));
  w->p = carve(&at, GROUPS(KEYS) * TILE * sizeof(operand));
  w->bias = carve(&at, KEYS * TILE * sizeof(real));
  w->chunk = state_in(carve(&at, attention_state(P)));
  w->total = state_in(carve(&at, attention_state(P)));
  w->k_block = carve(&at, KEYS * GROUPS(d) * sizeof(operand));
  w->v_block = carve(&at, GROUPS(KEYS) * dv * sizeof(operand));
  w->values = carve(&at, KEYS * dv * sizeof(real));
  w->mask_line = carve(&at, KEYS * sizeof(real));

  const attn_sequence *S = T->sequence;
  const int64_t group = P->q_heads / P->kv_heads;
  const int64_t kv_head = T->first_head / group;
  const int64_t size = (int64_t)attn_dtype_size(P->dtype);
  w->problem = P;
  w->sequence = S;
  w->rows = (int)(T->heads * T->rows);
  w->vecs = (w->rows + LANES - 1) / LANES;
  w->k = (const char *)S->k + kv_head * P->k.head * size;
  w->v = (const char *)S->v + kv_head * P->v.head * size;
  w->one_mask_row = P->mask.row == 0 && (P->mask.head == 0 || T->heads == 1);

  const void *q_row[TILE];
  w->first = w->all_last = INT64_MAX;
  w->last = w->all_first = 0;
  for (int r = 0; r < w->rows; r++) {
    const int64_t head = T->first_head + r / T->rows, query = T->first_row + r % T->rows;
    w->head[r] = (int32_t)head;
    w->query[r] = query;
    q_row[r] = (const char *)S->q + (head * P->q.head + query * P->q.row) * size;
    set_visible(w, r, query);
    if (w->first_key[r] > w->all_first) w->all_first = w->first_key[r];
    if (w->last_key[r] < w->all_last) w->all_last = w->last_key[r];
    if (w->first_key[r] < w->last_key[r]) {
      if (w->first_key[r] < w->first) w->first = w->first_key[r];
      if (w->last_key[r] > w->last) w->last = w->last_key[r];
    }
    if (S->mask)
      w->mask_row[r] = (const char *)S->mask
          + (head * P->mask.head + query * P->mask.row) * (int64_t)attn_dtype_size(P->mask_dtype);
    w->slope[r] = P->slopes ? (real)P->slopes[head] : 0;
  }
  for (int r = w->rows; r < w->vecs * LANES; r++) { /* idle lanes follow row 0, so that they never force a slow path */
    w->first_key[r] = w->first_key[0];
    w->last_key[r] = w->last_key[0];
    w->query[r] = w->query[0];
    w->head[r] = w->head[0];
    w->slope[r] = 0;
  }
  for (int r = 0; w->rows <= STREAM_ROWS && r < w->rows; r++)
    operand_line(P->dtype, q_row[r], P->q.element, P->head_dim, w->q_rows + r * GROUPS(P->head_dim));
  operands_transposed(P->dtype, q_row, w->rows, P->q.element, P->head_dim, w->q, TILE, w->k_block);

  /* Scores stay raw products where only a scale is to come; c then carries it. Terms in natural units need s in natural
   * units, and so do scales that are not positive or leave float's comfortable range. */
  w->prescaled = !(P->scale > 1e-30 && P->scale < 1e30) || P->softcap > 0 || S->mask || P->slopes;
  w->unit = w->prescaled ? 1 : P->scale;
  w->c = (real)(w->unit * 1.4426950408889634);
  return w;
}

static void clear(const work *w, state *state) {
  const int64_t dv = w->problem->value_dim;
  for (int i = 0; i < w->vecs * LANES; i++) {
    state->m[i] = LOWEST;
    state->l[i] = 0;
  }
  for (int64_t d = 0; d < dv; d++) memset(state->o + d * TILE, 0, (size_t)(w->vecs * LANES) * sizeof(real));
}

/* ---- scores ---- */

/* bias[j][row] for keys [key, key + n) */
static void load_bias(work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t at = key * P->mask.element * (int64_t)attn_dtype_size(P->mask_dtype);
  if (w->one_mask_row) {
    load_row(P->mask_dtype, (const char *)w->mask_row[0] + at, P->mask.element, n, w->mask_line);
    for (int64_t j = 0; j < n; j++)
      for (int v = 0; v < w->vecs; v++) v_store(w->bias + j * TILE + v * LANES, v_set1(w->mask_line[j]));
    return;
  }
  const void *row[TILE];
  for (int r = 0; r < w->rows; r++) row[r] = (const char *)w->mask_row[r] + at;
  load_transposed(P->mask_dtype, row, w->rows, P->mask.element, n, w->bias, TILE);
}

/* How far the terms behind the product are applied. */
typedef enum terms { TERMS_SCALE, TERMS_CAP, TERMS_ALL } terms;

/* s = softcap(scale s) + bias + ALiBi, -inf where invisible: the order of API and ONNX. */
static void apply_terms(work *w, int64_t key, int64_t n, terms until) {
  const attn_problem *P = w->problem;
  const bool mask = w->sequence->mask && until == TERMS_ALL;
  const bool alibi = P->slopes && until == TERMS_ALL;
  const bool cap = P->softcap > 0 && until >= TERMS_CAP;
  const vec scale = v_set1((real)P->scale), softcap = v_set1((real)P->softcap);
  const vec hidden = v_set1(-INFINITE);
  const bool prescaled = w->prescaled;
  if (mask) load_bias(w, key, n);
  for (int v = 0; v < w->vecs; v++) {
    /* Bounds as reals relative to the block: exact, and comparable lane by lane. */
    real first[LANES], last[LANES], from[LANES];
    for (int i = 0; i < LANES; i++) {
      const int r = v * LANES + i;
      first[i] = (real)(until == TERMS_ALL ? clamp(w->first_key[r] - key, 0, n) : 0);
      last[i] = (real)(until == TERMS_ALL ? clamp(w->last_key[r] - key, 0, n) : n);
      from[i] = (real)(w->query[r] + w->sequence->query_offset - key);
    }
    const vec begin = v_load(first), end = v_load(last), position = v_load(from);
    const vec slope = v_load(w->slope + v * LANES);
    for (int64_t j = 0; j < n; j++) {
      real *at = w->s + j * TILE + v * LANES;
      vec s = v_load(at);
      const vec key_index = v_set1((real)j);
      if (prescaled) s = s * scale;
      if (cap) s = softcap * v_tanh(s / softcap);
      if (mask) {
        const vec b = v_load(w->bias + j * TILE + v * LANES);
        s = v_select(b > hidden, s + b, hidden);
      }
      if (alibi) s = s - slope * v_abs(position - key_index);
      s = v_select((key_index >= begin) & (key_index < end), s, hidden);
      v_store(at, s);
    }
  }
}

static bool boundary(const work *w, int64_t key, int64_t n) {
  return key < w->all_first || key + n > w->all_last;
}

/* Asks for rows [key, key + n) of k or v. With few queries memory is the limit, and rows side by side are a pattern that
 * the hardware does not see through. */
static void prefetch_rows(const char *x, const attn_strides *strides, const work *w, int64_t key, int64_t n,
                          int64_t width) {
  const int64_t size = (int64_t)attn_dtype_size(w->problem->dtype);
  if (strides->element != 1) return;
  for (int64_t j = key; j < key + n && j < w->last; j++)
    for (int64_t at = 0; at < width * size; at += 64) __builtin_prefetch(x + j * strides->row * size + at, 0, 2);
}

/* The products of few queries: keys in lanes, so that k is read once, then turned. The same sums, bit for bit. */
static void stream_scores(work *w, int64_t key, int64_t n, int64_t groups, const operand *const *row) {
  const operand *query[STREAM_ROWS];
  real turned[STREAM_ROWS * LANES];
  for (int r = 0; r < w->rows; r++) query[r] = w->q_rows + r * groups;
  for (int64_t j = 0; j < n; j += LANES) {
    const int64_t some = n - j < LANES ? n - j : LANES;
    prefetch_rows(w->k, &w->problem->k, w, key + KEYS + j, some, w->problem->head_dim);
    prefetch_rows(w->v, &w->problem->v, w, key + KEYS + j, some, w->problem->value_dim);
    stream_rows(w->rows, groups, SUMMED, query, row + j, some, turned, LANES);
    for (int v = 0; v < w->vecs; v++) {
      vec square[LANES];
      for (int i = 0; i < LANES; i++)
        square[i] = v * LANES + i < w->rows ? v_load(turned + (v * LANES + i) * LANES) : (vec){0};
      transpose(square);
      for (int t = 0; t < some; t++) v_store(w->s + (j + t) * TILE + v * LANES, square[t]);
    }
  }
}

/* s[j][row] for keys [key, key + n): raw products if nothing but the scale is to come, else natural units. */
static void scores(work *w, int64_t key, int64_t n, terms until) {
  const attn_problem *P = w->problem;
  const char *k = w->k + key * P->k.row * (int64_t)attn_dtype_size(P->dtype);
  const operand *row[KEYS];
  const int64_t groups = GROUPS(P->head_dim);
  const int64_t step = operand_rows(P->dtype, k, P->k.row, P->k.element, n, P->head_dim, w->k_block, row);
  if (w->rows <= STREAM_ROWS && step == 1) {
    stream_scores(w, key, n, groups, row);
  } else {
    for (int64_t d = 0; d == 0 || d < groups; d += SUMMED) {
      const int64_t some = groups - d < SUMMED ? groups - d : SUMMED;
      product_block(n, w->vecs, some, row, step, w->q + d * TILE, TILE, w->s, TILE, d > 0);
      for (int64_t j = 0; j < n; j++) row[j] += some * step;
    }
  }
  if (w->prescaled || until != TERMS_ALL || boundary(w, key, n)) apply_terms(w, key, n, until);
}

/* ---- softmax ---- */

/* s becomes p; m, l and o of the state move on to the new maximum. */
static void softmax_step(work *w, state *state, int64_t n) {
  const vec c = v_set1(w->c);
  const int64_t dv = w->problem->value_dim;
  for (int v = 0; v < w->vecs; v++) {
    real *s = w->s + v * LANES;
    vec top = v_load(s);
    for (int64_t j = 1; j < n; j++) top = v_max(v_load(s + j * TILE), top);
    const vec old = v_load(state->m + v * LANES);
    const vec m = v_max(top, old);
    const vec decay = v_exp2((old - m) * c);
    vec sum = {0};
    for (int64_t j = 0; j < n; j++) {
      const vec x = v_load(s + j * TILE);
      const vec p = v_exp2((x - m) * c);
      sum += p;
      v_store(s + j * TILE, p);
    }
    v_store(state->m + v * LANES, m);
    v_store(state->l + v * LANES, v_fma(v_load(state->l + v * LANES), decay, sum));
    if (!v_any(decay != v_set1(1))) continue;
    for (int64_t d = 0; d < dv; d++) {
      real *o = state->o + d * TILE + v * LANES;
      v_store(o, v_load(o) * decay);
    }
  }
}

/* Philox4x32-10 (Salmon et al. 2011): four words of the counter. */
static void philox(uint64_t seed, const uint32_t counter[4], uint32_t word[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
    const uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c0 = n0; c1 = (uint32_t)b; c2 = n2; c3 = (uint32_t)a;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
  word[0] = c0; word[1] = c1; word[2] = c2; word[3] = c3;
}

/* p = p / (1 - dropout_p) or 0. KEYS is a multiple of 4, so a counter never straddles two blocks. */
static void drop(work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const real keep = (real)P->dropout_scale;
  for (int64_t j = 0; j < n; j += 4)
    for (int r = 0; r < w->rows; r++) {
      const uint32_t counter[4] = { (uint32_t)((key + j) >> 2), (uint32_t)w->query[r], (uint32_t)w->head[r],
                                    (uint32_t)w->sequence->batch };
      uint32_t word[4];
      philox(P->seed, counter, word);
      for (int64_t t = 0; t < 4 && j + t < n; t++) {
        real *p = w->s + (j + t) * TILE + r;
        *p = word[t] < P->dropout_threshold ? 0 : *p * keep;
      }
    }
}

/* ---- values ---- */

static bool all_finite(const real *x, int64_t count) {
  vec zero = {0};
  real rest = 0;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) zero += v_load(x + i) * 0;
  for (; i < count; i++) rest += x[i] * 0;
  return !v_any(zero != zero) && rest == rest;
}

static bool sees(const work *w, int r, int64_t key, int64_t j) {
  return key + j >= w->first_key[r] && key + j < w->last_key[r]
      && (!w->sequence->mask || w->bias[j * TILE + r] > -INFINITE);
}

/* Where some rows do not see some keys, p = 0 must hide NaN and Inf values: 0 * NaN would not. Such elements become 0 in
 * w->values and are added to the rows that see them. False: there are none. */
static bool set_apart_nonfinite(work *w, state *state, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t size = (int64_t)attn_dtype_size(P->dtype), dv = P->value_dim;
  bool any = false;
  for (int64_t j = 0; j < n; j++) {
    real *value = w->values + j * dv;
    load_row(P->dtype, w->v + (key + j) * P->v.row * size, P->v.element, dv, value);
    if (all_finite(value, dv)) continue;
    any = true;
    for (int64_t d = 0; d < dv; d++) {
      const real x = value[d];
      if (x * 0 == 0) continue;
      value[d] = 0;
      for (int r = 0; r < w->rows; r++)
        if (sees(w, r, key, j)) state->o[d * TILE + r] += w->s[j * TILE + r] * x;
    }
  }
  return any;
}

/* o += p v: as a product, rows = value dims, sum over keys. */
static void accumulate(work *w, state *state, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t dv = P->value_dim;
  const bool apart = (w->sequence->mask || boundary(w, key, n)) && set_apart_nonfinite(w, state, key, n);
  const void *v = w->v + key * P->v.row * (int64_t)attn_dtype_size(P->dtype);
  const column_operands columns = apart ? operand_columns(REAL_DTYPE, w->values, dv, 1, n, dv, w->v_block)
                                        : operand_columns(P->dtype, v, P->v.row, P->v.element, n, dv, w->v_block);
  const operand *p = operand_lanes(w->s, n, w->vecs, TILE, w->p);
  if (w->rows <= STREAM_ROWS && columns.next == 1 && dv % LANES == 0) { /* few queries: value dims in lanes */
    const operand *query[STREAM_ROWS];
    real sums[STREAM_ROWS * PRODUCT_VECS * LANES];
    for (int r = 0; r < w->rows; r++) query[r] = p + r;
    for (int64_t d = 0; d < dv; d += PRODUCT_VECS * LANES) {
      const int64_t vecs = (dv - d) / LANES < PRODUCT_VECS ? (dv - d) / LANES : PRODUCT_VECS;
      product_block(w->rows, vecs, GROUPS(n), query, TILE, columns.first + d, columns.step, sums, PRODUCT_VECS * LANES,
                    false);
      for (int64_t i = 0; i < vecs * LANES; i++)
        for (int r = 0; r < w->rows; r++) state->o[(d + i) * TILE + r] += sums[r * PRODUCT_VECS * LANES + i];
    }
    return;
  }
  const operand *column[PRODUCT_SUMS];
  for (int64_t d = 0; d < dv; d += PRODUCT_SUMS) {
    const int64_t some = dv - d < PRODUCT_SUMS ? dv - d : PRODUCT_SUMS;
    for (int64_t i = 0; i < some; i++) column[i] = columns.first + (d + i) * columns.next;
    product_block(some, w->vecs, GROUPS(n), column, columns.step, p, TILE, state->o + d * TILE, TILE, true);
  }
}

/* ---- states ---- */

/* a becomes the state of both key sets; with b empty, a stays as it is to the bit, and the other way round. */
static void merge(const work *w, state *a, const state *b) {
  const int64_t dv = w->problem->value_dim;
  const vec c = v_set1(w->c);
  for (int v = 0; v < w->vecs; v++) {
    const int at = v * LANES;
    const vec ma = v_load(a->m + at), mb = v_load(b->m + at), m = v_max(ma, mb);
    const vec wa = v_exp2((ma - m) * c), wb = v_exp2((mb - m) * c);
    v_store(a->m + at, m);
    v_store(a->l + at, v_load(a->l + at) * wa + v_load(b->l + at) * wb);
    for (int64_t d = 0; d < dv; d++) {
      real *o = a->o + d * TILE + at;
      v_store(o, v_load(o) * wa + v_load(b->o + d * TILE + at) * wb);
    }
  }
}

/* The state of the visible keys in chunk [begin, begin + CHUNK). */
static void attend_chunk(work *w, state *state, int64_t begin) {
  const int64_t end = begin + CHUNK < w->last ? begin + CHUNK : w->last;
  clear(w, state);
  for (int64_t key = begin; key < end; key += KEYS) {
    if (key + KEYS <= w->first) continue;
    const int64_t n = end - key < KEYS ? end - key : KEYS;
    scores(w, key, n, TERMS_ALL);
    softmax_step(w, state, n);
    if (w->problem->dropout_threshold) drop(w, key, n);
    accumulate(w, state, key, n);
  }
}

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
    const lanemask empty = l == (vec){0};
    const vec divisor = v_select(empty, v_set1(1), l);
    for (int64_t d = 0; d < dv; d++) {
      real *o = T->o + d * TILE + v * LANES;
      v_store(o, v_load(o) / divisor);
    }
    v_store(T->l + v * LANES, divisor);
  }
  store_transposed(P->dtype, T->o, TILE, w->rows, dv, out, P->o.element);
}

/* A second pass over the keys: p = 2^((s - m) c) / l needs the final m and l. */
static void write_weights(work *w) {
  const attn_problem *P = w->problem;
  const attn_sequence *S = w->sequence;
  const int64_t size = (int64_t)attn_dtype_size(P->weights_dtype);
  const attn_weights_stage stage = P->weights_stage;
  const terms until = stage == ATTN_SCALED ? TERMS_SCALE : stage == ATTN_CAPPED ? TERMS_CAP : TERMS_ALL;
  const vec c = v_set1(w->c), scale = v_set1((real)P->scale);
  void *out[TILE];
  for (int64_t key = 0; key < S->kv_rows; key += KEYS) {
    const int64_t n = S->kv_rows - key < KEYS ? S->kv_rows - key : KEYS;
    const bool unseen = until == TERMS_ALL && (key >= w->last || key + n <= w->first);
    if (unseen) {
      const vec fill = v_set1(stage == ATTN_BIASED ? -INFINITE : 0);
      for (int64_t j = 0; j < n; j++)
        for (int v = 0; v < w->vecs; v++) v_store(w->s + j * TILE + v * LANES, fill);
    } else {
      scores(w, key, n, until);
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
  work *w = begin(problem, tile, scratch);
  clear(w, &w->total);
  for (int64_t chunk = w->first / CHUNK * CHUNK; chunk < w->last; chunk += CHUNK) {
    attend_chunk(w, &w->chunk, chunk);
    merge(w, &w->total, &w->chunk);
  }
  finish_tile(w);
  if (w->sequence->weights) write_weights(w);
}

/* The same in parts, for few queries and many keys: chunks in any order, then their states in order. */

static void attention_chunk(const attn_problem *problem, const attn_tile *tile, int64_t chunk, void *scratch,
                            void *memory) {
  work *w = begin(problem, tile, scratch);
  state state = state_in(memory);
  attend_chunk(w, &state, chunk * CHUNK);
}

static void attention_merge(const attn_problem *problem, const attn_tile *tile, bool begins, const void *states,
                            int64_t count, bool ends, void *scratch) {
  work *w = begin(problem, tile, scratch);
  if (begins) clear(w, &w->total);
  for (int64_t i = 0; i < count; i++) {
    const state state = state_in((char *)states + (size_t)i * attention_state(problem));
    merge(w, &w->total, &state);
  }
  if (!ends) return;
  finish_tile(w);
  if (w->sequence->weights) write_weights(w);
}
