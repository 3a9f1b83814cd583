/* A block of keys against a tile of queries: the gradient of the scores, and what it adds to those of q, k and v. */

/* Operands of the values of keys [key, key + n), the result apart. */
static int64_t value_rows_of(const work *w, int64_t key, int64_t n, const operand **row) {
  const lines v = values_at(w, key, n);
  return operand_rows(v.dtype, v.first, v.row, v.element, n, w->problem->value_dim, w->v_block, row);
}

/* v . d_o for keys [key, key + n), as scores does it for k . q */
static void value_products(backward *g, int64_t key, int64_t n) {
  const work *w = g->w;
  const operand *row[KEYS];
  const int64_t dv = w->problem->value_dim, step = value_rows_of(w, key, n, row);
  for (strip part = { 0 }; part.key < n; part.key += part.keys) {
    part = strip_of_keys(w, key, n, part.key);
    strip_product(&part, dv, row, step, g->d_o_lanes, g->ds);
  }
}

/* What the gradients of a vector of lanes have in common. */
typedef struct lane_terms { vec high, low, delta, c, factor; } lane_terms;

WORD lane_terms lane_terms_of(const backward *g, int v, real factor) {
  const int at = v * LANES;
  return (lane_terms){ v_load(g->high + at), v_load(g->low + at), v_load(g->delta + at), v_set1(g->w->c), v_set1(factor) };
}

typedef struct lane_gradients { vec p, ds; } lane_gradients;

/* z p and factor cap_slope p (z dp - delta), both 0 where the key is hidden; cap_slope and kept may be NULL. p > 1 can only
 * come from rounding. */
WORD lane_gradients differentiated(const lane_terms *t, vec s, vec dp, const real *cap_slope, const real *kept) {
  const lanemask unseen = s == v_set1(-INFINITE);
  vec p = v_exp2(v_min((vec){0}, v_fma(s - t->high, t->c, -t->low)));
  if (kept) dp = dp * v_load(kept);
  vec ds = p * (dp - t->delta) * t->factor;
  if (cap_slope) ds = ds * v_load(cap_slope);
  if (kept) p = p * v_load(kept);
  return (lane_gradients){ v_select(unseen, (vec){0}, p), v_select(unseen, (vec){0}, ds) };
}

/* s becomes z p, ds, which holds dp, the gradient. */
WORD void differentiate_lanes(const backward *g, int64_t n, real factor, const real *cap_slope, const real *kept) {
  for (int v = 0; v < g->w->vecs; v++) {
    const lane_terms terms = lane_terms_of(g, v, factor);
    for (int64_t j = 0; j < n; j++) {
      const int64_t at = j * TILE + v * LANES;
      real *s = g->w->s + at, *ds = g->ds + at;
      const lane_gradients of = differentiated(&terms, v_load(s), v_load(ds), cap_slope ? cap_slope + at : NULL,
                                               kept ? kept + at : NULL);
      v_store(s, of.p);
      v_store(ds, of.ds);
    }
  }
}

static void draw_dropout(backward *g, int64_t key, int64_t n) {
  if (!g->kept) return;
  for (int64_t i = 0; i < n * TILE; i++) g->kept[i] = 1;
  drop(g->w, g->kept, key, n);
}

/* From both products on. */
static void differentiate_products(backward *g, int64_t key, int64_t n, double factor, const real *cap_slope) {
  draw_dropout(g, key, n);
  if (cap_slope || g->kept) differentiate_lanes(g, n, (real)factor, cap_slope, g->kept);
  else differentiate_lanes(g, n, (real)factor, NULL, NULL);
}

static void differentiate(backward *g, int64_t key, int64_t n, double factor, const real *cap_slope) {
  scores(g->w, key, n, TERMS_ALL);
  value_products(g, key, n);
  differentiate_products(g, key, n, factor, cap_slope);
}

/* Rows that a strip's lanes hold. */
static int64_t rows_of_strip(const work *w, const strip *part) {
  const int64_t left = w->rows - part->lane, lanes = part->vecs * LANES;
  return lanes < left ? lanes : left;
}

/* Where the sums of a key begin. */
WORD real *dk_of_key(const attn_key_sums *sums, int64_t key) {
  return (real *)sums->dk + (key - sums->first_key) * sums->dk_step;
}
WORD real *dv_of_key(const attn_key_sums *sums, int64_t key) {
  return (real *)sums->dv + (key - sums->first_key) * sums->dv_step;
}

/* sums[j] += weight[j][i] x[i] of the odd numbers, where the row sees the key. */
static void add_odd_rows(backward *g, int64_t key, int64_t n, const real *weight, const clean_rows *x, real *sums,
                         int64_t step) {
  const work *w = g->w;
  for (int r = 0; x->any_odd && r < w->rows; r++) {
    if (!x->odd[r]) continue;
    const real_rows line = copied_rows(w->problem->dtype, &x->source[r], x->element, 1, x->dim, g->line);
    for (int64_t j = 0; j < n; j++) {
      const real factor = weight[j * TILE + r];
      if (!sees(w, r, key, j) || is_odd_weight(factor)) continue;
      for (int64_t d = 0; d < x->dim; d += LANES) {
        const vec number = v_load(line.data + d), sum = v_load(sums + j * step + d);
        v_store(sums + j * step + d, v_select(v_odd(number), v_fma(v_set1(factor), number, sum), sum));
      }
    }
  }
}

/* sums[j] += sum over queries of weight[j][i] x[i] */
static void add_to_keys(backward *g, int64_t key, int64_t n, const real *weight, const clean_rows *x, real *sums,
                        int64_t step) {
  const work *w = g->w;
  const operand *row[KEYS];
  for (strip part = { 0 }; part.key < n; part.key += part.keys) {
    part = strip_of_keys(w, key, n, part.key);
    if (!part.vecs) continue;
    for (int64_t j = 0; j < part.keys; j++) row[j] = weight + (part.key + j) * TILE + part.lane;
    product_block(part.keys, PADDED(x->dim) / LANES, rows_of_strip(w, &part), row, 1,
                  x->of.data + part.lane * x->of.step, x->of.step, sums + part.key * step, step, true, NULL);
  }
  add_odd_rows(g, key, n, weight, x, sums, step);
}

/* k of the block in rows of whole vectors. Where some rows do not see some keys, ds = 0 must hide NaN and Inf, which 0 * NaN
 * would not: they become 0, and are added to dq of the rows that see them. */
static real_rows key_rows(backward *g, int64_t key, int64_t n) {
  const work *w = g->w;
  const attn_problem *P = w->problem;
  const int64_t d = P->head_dim, size = (int64_t)attn_dtype_size(P->dtype), width = PADDED(d);
  const char *k = w->k + key * P->k.row * size;
  const bool careful = w->sequence->mask || boundary(w, key, n);
  real_rows of;
  if (lie_in_rows(P->dtype, P->k.element, d)) {
    of = (real_rows){ (const real *)k, P->k.row };
  } else {
    const void *source[KEYS];
    for (int64_t j = 0; j < n; j++) source[j] = k + j * P->k.row * size;
    of = copied_rows(P->dtype, source, P->k.element, n, d, g->k_rows);
  }
  for (int64_t j = 0; careful && j < n; j++) {
    if (all_finite(of.data + j * of.step, width)) continue;
    for (int64_t i = 0; of.data != g->k_rows && i < n; i++)
      memcpy(g->k_rows + i * width, of.data + i * of.step, (size_t)width * sizeof(real));
    of = (real_rows){ g->k_rows, width };
    for (int64_t e = 0; e < d; e++) {
      const real x = g->k_rows[j * width + e];
      if (x * 0 == 0) continue;
      g->k_rows[j * width + e] = 0;
      for (int r = 0; r < w->rows; r++)
        if (sees(w, r, key, j)) g->dq[r * width + e] += g->ds[j * TILE + r] * x;
    }
  }
  return of;
}

/* dq[i] += sum over keys of ds[j][i] k[j] */
static void add_to_queries(backward *g, int64_t key, int64_t n) {
  const work *w = g->w;
  const int64_t width = PADDED(w->problem->head_dim);
  const real_rows k = key_rows(g, key, n);
  const operand *column[TILE];
  strip part = { 0 };
  for (int lane = 0; lane < w->rows; lane += part.vecs * LANES) {
    part = strip_of_lanes(w, key, n, lane);
    if (!part.keys) continue;
    const int64_t rows = rows_of_strip(w, &part);
    for (int r = 0; r < rows; r++) column[r] = g->ds + part.key * TILE + lane + r;
    product_block(rows, width / LANES, part.keys, column, TILE, k.data + part.key * k.step, k.step,
                  g->dq + lane * width, width, true, NULL);
  }
}
