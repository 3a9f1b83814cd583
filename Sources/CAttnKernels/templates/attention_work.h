/* A tile of query rows at work: its scratch memory, the state of what it has seen, and what each row may see. */

#define TILE ((int)(256 / sizeof(real)))  /* lanes of a tile: 64 floats, 32 doubles; [KEYS][TILE] scores are 24 KB of L1 */
#define KEYS 96                           /* a multiple of PRODUCT_ROWS */
#define CHUNK (5 * KEYS)                  /* rounding errors grow with the chunk, merges with their number */

#define QUARTER (TILE / 4)                /* at least a vector */

#if REAL_IS_FLOAT
#define LOWEST (-3.4028234663852886e38f) /* of the row maximum before any key: -inf would make inf - inf */
#define INFINITE __builtin_inff()
#else
#define LOWEST (-1.7976931348623157e308)
#define INFINITE __builtin_inf()
#endif

#ifndef O_ROWS
#define O_ROWS(value_dim) (value_dim) /* for which a state has room */
#endif

/* (m, l, o): what is known of a set of keys. m in the unit of s; o not yet divided by l. */
typedef struct state {
  real *m, *l; /* [TILE] */
  real *o;     /* [value_dim][TILE], or of few queries [rows][value_dim] */
} state;

static size_t attention_state(const attn_problem *problem) {
  return TILE * (2 + O_ROWS((size_t)problem->value_dim)) * sizeof(real);
}

static state state_in(void *memory) {
  real *m = memory;
  return (state){ m, m + TILE, m + 2 * TILE };
}

typedef struct interval { int64_t first, last; } interval;

#ifdef FMA_ROUNDS_TWICE
#define MOST_SUMMED 16
#else
#define MOST_SUMMED 32
#endif

/* Operands of q.k in one running sum, of so many in all. Short sums round less, long ones are faster: at most half of the
 * operands, for errors below a plain FMA loop's. */
static int64_t summed(int64_t operands) { return operands < 2 * MOST_SUMMED ? 16 : MOST_SUMMED; }

/* A tile at work. Row r is query `query[r]` of head `head[r]`. */
typedef struct work {
  const attn_problem *problem;
  const attn_sequence *sequence;
  int rows, vecs;              /* live rows; vectors that hold them */
  bool few;                    /* so few rows that keys and value dims lie in the lanes: attention_few.h */
  int64_t s_key, s_row, o_dim, o_row; /* steps in s and bias, and in the o of a state */
  int32_t head[TILE];
  int64_t query[TILE];
  int64_t first_key[TILE], last_key[TILE]; /* row r sees keys [first_key, last_key) as far as the mask allows */
  real slope[TILE];                        /* ALiBi */
  real decay[TILE];                        /* what a block's new maxima make of the o that is there, until it is applied */
  const char *k, *v;           /* of the tile's key/value head */
  const float *k_scales, *v_scales; /* likewise; NULL unless k and v are int8 */
  const void *mask_row[TILE];
  bool one_mask_row;           /* all rows read the same mask row */
  bool prescaled;              /* scores are brought to natural units before the softmax */
  double unit;                 /* of s: 1 if prescaled, else scale */
  real c;                      /* unit * log2(e), positive */
  int64_t first, last;         /* some row sees keys of [first, last) and none outside */
  int64_t all_first, all_last; /* every row sees [all_first, all_last), as far as the mask allows */
  interval seen[4];            /* some row of a quarter of the lanes sees keys of it and none outside */
  operand *q;                  /* [groups of head_dim][TILE] */
  operand *q_rows;             /* [groups of head_dim][rows], of few rows */
  real *s;                     /* [KEYS][TILE], of few rows [rows][KEYS] */
  real *bias;                  /* likewise */
  real *mask_line;             /* [KEYS] */
  real *cap_slope;             /* [KEYS][TILE]: derivative of the softcap, where it is wanted; else NULL */
  operand *p;                  /* [groups of KEYS][TILE], of few rows [rows][groups of KEYS] */
  operand *k_block;            /* [KEYS][groups of head_dim]: k where it cannot be read in place */
  operand *v_block;            /* [groups of KEYS][value_dim]: v likewise */
  real *values;                /* [KEYS][value_dim]: v cleaned of NaN and Inf */
  real *gathered;              /* [KEYS][head_dim or value_dim]: rows that come in blocks, or from int8 */
  state chunk, total;
  void *outer;                 /* whose part this is, for attention_tiles.h */
} work;

/* Elements of a row of `gathered`; 0 where k and v are read as they lie. */
static size_t gathered_width(const attn_problem *problem) {
  const int64_t d = problem->head_dim, dv = problem->value_dim;
  return problem->block_rows == 0 && problem->kv_dtype != ATTN_I8 ? 0 : (size_t)(d > dv ? d : dv);
}

static size_t attention_scratch(const attn_problem *problem) {
  const size_t d = (size_t)problem->head_dim, dv = (size_t)problem->value_dim;
  const size_t reals = TILE * 2 * KEYS + KEYS * (dv + 1 + gathered_width(problem));
  const size_t groups = TILE * (GROUPS(d) + GROUPS(KEYS)) + (STREAM_ROWS + KEYS) * GROUPS(d) + GROUPS(KEYS) * dv;
  return (sizeof(work) + 63) / 64 * 64 + 2 * attention_state(problem) + reals * sizeof(real) + groups * sizeof(operand)
      + 10 * 64;
}

static void *carve(char **at, size_t bytes) {
  void *block = *at;
  *at += (bytes + 63) / 64 * 64;
  return block;
}

/* Whether keys and value dims can lie in the lanes: elements side by side, value dims in whole vectors. */
static bool is_few(const attn_problem *P, int rows) {
  const bool converted = P->kv_dtype != REAL_DTYPE;
  return rows <= STREAM_ROWS && P->value_dim % LANES == 0 && (converted || (P->k.element == 1 && P->v.element == 1));
}

static void set_layout(work *w, bool few) {
  w->few = few;
  w->s_key = few ? 1 : TILE;
  w->s_row = few ? KEYS : 1;
  w->o_dim = few ? 1 : TILE;
  w->o_row = few ? w->problem->value_dim : 1;
}

static int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

/* The keys [first, last) that a query sees as far as the mask allows: causal, window and lengths are all bounds on j.
 * None: 0, 0. */
static interval visible_keys(const attn_problem *P, const attn_sequence *S, int64_t query) {
  int64_t first = 0, last = S->kv_len, p;
  if (query >= S->q_len) last = 0;
  p = query + S->query_offset;
  if (P->causal && last > p + 1) last = p + 1;
  if (P->window_left >= 0 && p - first > P->window_left) first = p - P->window_left;
  if (P->window_right >= 0 && last - 1 - p > P->window_right) last = p + P->window_right + 1;
  return last > first ? (interval){ first, last } : (interval){ 0, 0 };
}

static interval hull(interval a, interval b) {
  if (a.first == a.last) return b;
  return (interval){ a.first < b.first ? a.first : b.first, a.last > b.last ? a.last : b.last };
}

/* lanes_of_keys: where there are few rows. */
static work *begin(const attn_problem *P, const attn_tile *T, bool lanes_of_keys, void *scratch) {
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
  w->gathered = carve(&at, KEYS * gathered_width(P) * sizeof(real));
  w->cap_slope = NULL;

  const attn_sequence *S = T->sequence;
  const int64_t group = P->q_heads / P->kv_heads;
  const int64_t kv_head = T->first_head / group;
  const int64_t size = (int64_t)attn_dtype_size(P->dtype), kv_size = (int64_t)attn_dtype_size(P->kv_dtype);
  w->problem = P;
  w->sequence = S;
  w->rows = (int)(T->heads * T->rows);
  w->vecs = (w->rows + LANES - 1) / LANES;
  w->k = (const char *)S->k + kv_head * P->k.head * kv_size;
  w->v = (const char *)S->v + kv_head * P->v.head * kv_size;
  w->k_scales = S->k_scales ? S->k_scales + kv_head * P->scales.head : NULL;
  w->v_scales = S->v_scales ? S->v_scales + kv_head * P->scales.head : NULL;
  w->one_mask_row = P->mask.row == 0 && (P->mask.head == 0 || T->heads == 1);

  const void *q_row[TILE];
  w->first = w->all_last = INT64_MAX;
  w->last = w->all_first = 0;
  memset(w->seen, 0, sizeof w->seen);
  for (int r = 0; r < w->rows; r++) {
    const int64_t head = T->first_head + r / T->rows, query = T->first_row + r % T->rows;
    w->head[r] = (int32_t)head;
    w->query[r] = query;
    q_row[r] = (const char *)S->q + (head * P->q.head + query * P->q.row) * size;
    const interval seen = visible_keys(P, S, query);
    w->first_key[r] = seen.first;
    w->last_key[r] = seen.last;
    if (w->first_key[r] > w->all_first) w->all_first = w->first_key[r];
    if (w->last_key[r] < w->all_last) w->all_last = w->last_key[r];
    if (w->first_key[r] < w->last_key[r]) {
      if (w->first_key[r] < w->first) w->first = w->first_key[r];
      if (w->last_key[r] > w->last) w->last = w->last_key[r];
      w->seen[r / QUARTER] = hull(w->seen[r / QUARTER], seen);
    }
    if (S->mask)
      w->mask_row[r] = (const char *)S->mask
          + (head * P->mask.head + query * P->mask.row) * (int64_t)attn_dtype_size(P->mask_dtype);
    w->slope[r] = P->slopes ? (real)P->slopes[head] : 0;
  }
  /* Idle lanes follow the last row, so that they never force a slow path or see what their quarter does not. */
  for (int r = w->rows, last = w->rows - 1; r < w->vecs * LANES; r++) {
    w->first_key[r] = w->first_key[last];
    w->last_key[r] = w->last_key[last];
    w->query[r] = w->query[last];
    w->head[r] = w->head[last];
    w->slope[r] = 0;
  }
  set_layout(w, lanes_of_keys && is_few(P, w->rows));
  if (w->few) operands_side_by_side(P->dtype, q_row, w->rows, P->q.element, P->head_dim, w->q_rows);
  if (!w->few || S->weights)
    operands_transposed(P->dtype, q_row, w->rows, P->q.element, P->head_dim, w->q, TILE, w->k_block);

  /* Scores stay raw products where only a scale is to come; c then carries it. Terms in natural units need s in natural
   * units, and so do scales that are not positive or leave float's comfortable range. */
  w->prescaled = !(P->scale > 1e-30 && P->scale < 1e30) || P->softcap > 0 || S->mask || P->slopes;
  w->unit = w->prescaled ? 1 : P->scale;
  w->c = (real)(w->unit * 1.4426950408889634);
  return w;
}

/* A part of a block of keys and lanes: at the edge of what is seen, a tile's products leave away quarters of the lanes that
 * see nothing. Their p = 0 would have added nothing. */
typedef struct strip {
  int64_t key, keys; /* from the block's first key on */
  int lane, vecs;
} strip;

/* Keys of the block [key, key + n) that a quarter of the lanes sees, from its first key on. */
static interval quarter_sees(const work *w, int quarter, int64_t key, int64_t n) {
  const interval *seen = &w->seen[quarter];
  return (interval){ clamp(seen->first - key, 0, n), clamp(seen->last - key, 0, n) };
}

static int quarter_vecs(const work *w, int first, int last) {
  const int end = last * (QUARTER / LANES);
  return (end < w->vecs ? end : w->vecs) - first * (QUARTER / LANES);
}

/* The block cut across the keys: from key `from` on, as many as the same quarters see. */
static strip strip_of_keys(const work *w, int64_t key, int64_t n, int64_t from) {
  int low = 4, high = 0;
  int64_t end = n;
  for (int i = 0; i * QUARTER < w->rows; i++) {
    const interval of = quarter_sees(w, i, key, n);
    if (of.first <= from && from < of.last) {
      if (low == 4) low = i;
      high = i + 1;
    }
    const int64_t bound = from < of.first ? of.first : of.last;
    if (from < bound && bound < end) end = bound;
  }
  return (strip){ from, end - from, low < high ? low * QUARTER : 0, low < high ? quarter_vecs(w, low, high) : 0 };
}

/* The block cut across the lanes: from lane `from` on, as many quarters as see the same keys. */
static strip strip_of_lanes(const work *w, int64_t key, int64_t n, int from) {
  const int low = from / QUARTER;
  const interval of = quarter_sees(w, low, key, n);
  int high = low + 1;
  for (; high * QUARTER < w->rows; high++) {
    const interval next = quarter_sees(w, high, key, n);
    if (next.first != of.first || next.last != of.last) break;
  }
  return (strip){ of.first, of.last - of.first, from, quarter_vecs(w, low, high) };
}

static void clear(const work *w, state *state) {
  const int64_t dv = w->problem->value_dim;
  for (int v = 0; v < w->vecs; v++) {
    v_store(state->m + v * LANES, v_set1(LOWEST));
    v_store(state->l + v * LANES, (vec){0});
  }
  if (w->few) {
    for (int64_t i = 0; i < w->rows * dv; i += LANES) v_store(state->o + i, (vec){0});
    return;
  }
  for (int64_t d = 0; d < dv; d++)
    for (int v = 0; v < w->vecs; v++) v_store(state->o + d * TILE + v * LANES, (vec){0});
}
