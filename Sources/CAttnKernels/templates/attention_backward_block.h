/* A block of keys against a tile of queries: the gradient of the scores, and what it adds to those of q, k and v. */

/* v . d_o for keys [key, key + n), as scores does it for k . q */
static void value_products(backward *g, int64_t key, int64_t n) {
  const work *w = g->w;
  const attn_problem *P = w->problem;
  const int64_t dv = P->value_dim;
  const operand *row[KEYS];
  const int64_t step = operand_rows(P->dtype, w->v + key * P->v.row * (int64_t)attn_dtype_size(P->dtype), P->v.row,
                                    P->v.element, n, dv, w->v_block, row);
  for (strip part = { 0 }; part.key < n; part.key += part.keys) {
    part = strip_of_keys(w, key, n, part.key);
    strip_product(&part, dv, row, step, g->d_o_lanes, g->ds);
  }
}

/* s becomes z p, ds becomes factor cap_slope p (z ds - delta); both 0 where the key is hidden. p > 1 can only come from
 * rounding. */
WORD void differentiate_lanes(const backward *g, int64_t n, real factor, const real *cap_slope, const real *kept) {
  const work *w = g->w;
  const vec c = v_set1(w->c), all = v_set1(factor), hidden = v_set1(-INFINITE);
  for (int v = 0; v < w->vecs; v++) {
    const vec high = v_load(g->high + v * LANES), low = v_load(g->low + v * LANES), delta = v_load(g->delta + v * LANES);
    for (int64_t j = 0; j < n; j++) {
      const int64_t at = j * TILE + v * LANES;
      const vec s = v_load(w->s + at);
      const lanemask unseen = s == hidden;
      vec p = v_exp2(v_min((vec){0}, v_fma(s - high, c, -low)));
      vec dp = v_load(g->ds + at);
      if (kept) dp = dp * v_load(kept + at);
      vec ds = p * (dp - delta) * all;
      if (cap_slope) ds = ds * v_load(cap_slope + at);
      if (kept) p = p * v_load(kept + at);
      v_store(w->s + at, v_select(unseen, (vec){0}, p));
      v_store(g->ds + at, v_select(unseen, (vec){0}, ds));
    }
  }
}

static void differentiate(backward *g, int64_t key, int64_t n, double factor, const real *cap_slope) {
  work *w = g->w;
  scores(w, key, n, TERMS_ALL);
  value_products(g, key, n);
  if (g->kept) {
    for (int64_t i = 0; i < n * TILE; i++) g->kept[i] = 1;
    drop(w, g->kept, key, n);
  }
  if (cap_slope || g->kept) differentiate_lanes(g, n, (real)factor, cap_slope, g->kept);
  else differentiate_lanes(g, n, (real)factor, NULL, NULL);
}

/* sums[j] += sum over queries of weight[j][i] x[i] */
static void add_to_keys(backward *g, int64_t key, int64_t n, const real *weight, const clean_rows *x, real *sums,
                        int64_t step) {
  const work *w = g->w;
  const operand *row[KEYS];
  for (strip part = { 0 }; part.key < n; part.key += part.keys) {
    part = strip_of_keys(w, key, n, part.key);
    if (!part.vecs) continue;
    const int64_t left = w->rows - part.lane, lanes = part.vecs * LANES;
    for (int64_t j = 0; j < part.keys; j++) row[j] = weight + (part.key + j) * TILE + part.lane;
    product_block(part.keys, PADDED(x->dim) / LANES, lanes < left ? lanes : left, row, 1,
                  x->of.data + part.lane * x->of.step, x->of.step, sums + part.key * step, step, true);
  }
  if (!x->any_odd) return;
  for (int r = 0; r < w->rows; r++) {
    if (!x->odd[r]) continue;
    load_row(w->problem->dtype, x->source[r], x->element, x->dim, g->line);
    for (int64_t j = 0; j < n; j++) {
      if (!sees(w, r, key, j)) continue;
      for (int64_t d = 0; d < x->dim; d++)
        if (g->line[d] * 0 != 0) sums[j * step + d] += weight[j * TILE + r] * g->line[d];
    }
  }
}

/* k of the block in rows of whole vectors. Where some rows do not see some keys, ds = 0 must hide NaN and Inf, which 0 * NaN would not: they
 * become 0, and are added to dq of the rows that see them. */
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
    const int64_t left = w->rows - lane, lanes = part.vecs * LANES;
    for (int r = 0; r < lanes; r++) column[r] = g->ds + part.key * TILE + lane + r;
    product_block(lanes < left ? lanes : left, width / LANES, part.keys, column, TILE, k.data + part.key * k.step, k.step,
                  g->dq + lane * width, width, true);
  }
}
