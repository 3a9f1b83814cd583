/* A tile of query rows at work in the backward: what it has besides the forward's work. */

#define PADDED(count) (((count) + LANES - 1) / LANES * LANES)

#ifndef HAS_ODD
/* Numbers that products over all rows leave out, to be added where they are seen: p and ds are 0 where they are not, and must
 * hide NaN and Inf, which 0 * NaN would not. Computed weights are never left out. */
WORD lanemask v_odd(vec x) { return x * (vec){0} != (vec){0}; }
WORD bool is_odd_weight(real x) { return (void)x, false; }
#endif

/* Rows with their dims in lanes, `step` apart, each of whole vectors. */
typedef struct real_rows {
  const real *data;
  int64_t step;
} real_rows;

/* The same for a tensor whose rows not every key's sum may meet: odd numbers are replaced by 0, to be added apart. */
typedef struct clean_rows {
  real_rows of;
  const void *source[TILE]; /* the rows as they are */
  int64_t element;          /* stride there */
  int64_t dim;
  bool any_odd, odd[TILE];  /* rows with odd numbers */
} clean_rows;

typedef struct backward {
  const attn_backward *problem;
  work *w;
  clean_rows q, d_o;
  operand *d_o_lanes;       /* [value_dim][TILE], as w->q */
  real *high, *low, *delta; /* [TILE]: lse in the unit of s; what its rounding left, times c; d_o . o */
  real *ds;                 /* [KEYS][TILE]: v . d_o, then the gradient of the scores */
  real *kept;               /* [KEYS][TILE]: what dropout multiplies p with; NULL without */
  real *k_rows;             /* [KEYS][PADDED(head_dim)] */
  real *dq;                 /* [TILE][PADDED(head_dim)] */
  real *line;               /* a row of q, k or d_o */
} backward;

static size_t backward_scratch(const attn_backward *B) {
  const attn_problem *P = B->problem;
  const size_t d = (size_t)PADDED(P->head_dim), dv = (size_t)PADDED(P->value_dim);
  const size_t reals = TILE * (2 * d + 2 * dv + 3) + KEYS * (d + 3 * TILE) + 2 * (d + dv);
  return (sizeof(backward) + 63) / 64 * 64 + reals * sizeof(real) + 12 * 64 + attention_scratch(P);
}

static bool all_zero(const real *x, int64_t count) {
  bool zero = true;
  for (int64_t i = 0; i < count; i++) zero &= x[i] == 0;
  return zero;
}

/* Whether a query of the tile sees a key in [first, last), as far as the mask allows. */
static bool tile_sees(const attn_problem *P, const attn_tile *T, int64_t first, int64_t last) {
  for (int64_t i = 0; i < T->rows; i++) {
    const interval seen = visible_keys(P, T->sequence, T->first_row + i);
    if (seen.first < last && seen.last > first) return true;
  }
  return false;
}

/* block[rows][PADDED(dim)] = rows at source, zeros behind them */
static real_rows copied_rows(attn_dtype dtype, const void *const *source, int64_t element, int64_t rows, int64_t dim,
                             real *block) {
  const int64_t width = PADDED(dim);
  for (int64_t r = 0; r < rows; r++) {
    load_row(dtype, source[r], element, dim, block + r * width);
    for (int64_t d = dim; d < width; d++) block[r * width + d] = 0;
  }
  return (real_rows){ block, width };
}

static bool lie_in_rows(attn_dtype dtype, int64_t element, int64_t dim) {
  return dtype == REAL_DTYPE && element == 1 && dim % LANES == 0;
}

static bool has_odd(const real *x, int64_t width) {
  lanemask any = {0};
  for (int64_t i = 0; i < width; i += LANES) any |= v_odd(v_load(x + i));
  return v_any(any);
}

/* Fills in all but the source. In place where the rows lie a step apart and are whole vectors already. */
static void set_rows(clean_rows *L, attn_dtype dtype, int64_t step, bool steps, int64_t element, int64_t rows, int64_t dim,
                     real *block) {
  const int64_t width = PADDED(dim);
  L->element = element;
  L->dim = dim;
  L->of = steps && lie_in_rows(dtype, element, dim) ? (real_rows){ L->source[0], step }
                                                    : copied_rows(dtype, L->source, element, rows, dim, block);
  L->any_odd = false;
  for (int64_t r = 0; r < rows; r++) L->any_odd |= L->odd[r] = has_odd(L->of.data + r * L->of.step, width);
  if (!L->any_odd) return;
  L->of = copied_rows(dtype, L->source, element, rows, dim, block);
  for (int64_t i = 0; i < rows * width; i += LANES) {
    const vec x = v_load(block + i);
    v_store(block + i, v_select(v_odd(x), (vec){0}, x));
  }
}

static backward *backward_begin(const attn_backward *B, const attn_tile *T, const void *delta, void *scratch) {
  const attn_problem *P = B->problem;
  const attn_sequence *S = T->sequence;
  const int64_t size = (int64_t)attn_dtype_size(P->dtype);
  const size_t d = (size_t)PADDED(P->head_dim), dv = (size_t)PADDED(P->value_dim);
  backward *g = scratch;
  char *at = (char *)scratch + (sizeof(backward) + 63) / 64 * 64;
  g->problem = B;
  g->d_o_lanes = carve(&at, (size_t)P->value_dim * TILE * sizeof(operand));
  g->high = carve(&at, TILE * sizeof(real));
  g->low = carve(&at, TILE * sizeof(real));
  g->delta = carve(&at, TILE * sizeof(real));
  g->ds = carve(&at, KEYS * TILE * sizeof(real));
  g->kept = carve(&at, KEYS * TILE * sizeof(real));
  real *cap_slope = carve(&at, KEYS * TILE * sizeof(real));
  g->k_rows = carve(&at, KEYS * d * sizeof(real));
  g->dq = carve(&at, TILE * d * sizeof(real));
  real *q_block = carve(&at, TILE * d * sizeof(real));
  real *d_o_block = carve(&at, TILE * dv * sizeof(real));
  g->line = carve(&at, (d + dv) * sizeof(real));
  work *w = g->w = begin(P, T, false, at);
  if (P->softcap > 0) w->cap_slope = cap_slope;
  if (!P->dropout_threshold) g->kept = NULL;

  const char *d_o = B->gradients[S - P->sequences].d_o;
  for (int r = 0; r < w->vecs * LANES; r++) {
    g->high[r] = INFINITE; /* idle lanes: p = 0 */
    g->low[r] = g->delta[r] = 0;
    if (r >= w->rows) continue;
    const int64_t head = w->head[r], query = w->query[r];
    g->q.source[r] = (const char *)S->q + (head * P->q.head + query * P->q.row) * size;
    g->d_o.source[r] = d_o + (head * B->d_o.head + query * B->d_o.row) * size;
    g->delta[r] = ((const real *)delta)[head * S->q_rows + query];
    const double lse = ((const real *)S->lse)[head * P->lse.head + query * P->lse.row] / w->unit;
    g->high[r] = (real)lse;
    if (g->high[r] * 0 == 0) g->low[r] = (real)((lse - g->high[r]) * w->c);
  }
  const bool steps = T->heads == 1;
  set_rows(&g->q, P->dtype, P->q.row, steps, P->q.element, w->rows, P->head_dim, q_block);
  set_rows(&g->d_o, P->dtype, B->d_o.row, steps, B->d_o.element, w->rows, P->value_dim, d_o_block);
  operands_transposed(P->dtype, g->d_o.source, w->rows, B->d_o.element, P->value_dim, g->d_o_lanes, TILE, w->v_block);
  return g;
}
