/* Values of a block of keys, weighed by their probabilities. */

#ifdef OPERANDS_ARE_BF16_PAIRS
#define TO_INFINITY 1.00390625f /* 1 + 2^-8: makes Inf of what a bfloat16 rounds to it */
#else
#define TO_INFINITY 1
#endif

static bool all_finite(const real *x, int64_t count) {
  vec zero = {0};
  real rest = 0;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) zero += v_load(x + i) * TO_INFINITY * 0;
  for (; i < count; i++) rest += x[i] * TO_INFINITY * 0;
  return !v_any(zero != zero) && rest == rest;
}

static bool sees(const work *w, int r, int64_t key, int64_t j) {
  return key + j >= w->first_key[r] && key + j < w->last_key[r]
      && (!w->sequence->mask || w->bias[j * w->s_key + r * w->s_row] > -INFINITE);
}

static const real *value_row(work *w, const lines *v, int64_t j, real *copy) {
  const char *row = v->first + j * v->row * (int64_t)attn_dtype_size(v->dtype);
  if (v->dtype == REAL_DTYPE && v->element == 1) return (const real *)row;
  load_row(v->dtype, row, v->element, w->problem->value_dim, copy);
  return copy;
}

static bool is_finite(real x) { return x * TO_INFINITY * 0 == 0; }

/* Where some rows do not see some keys, p = 0 must hide NaN and Inf values: 0 * NaN would not. Such elements become 0 in
 * w->values, to be added by add_nonfinite. False: there are none. */
static bool set_apart_nonfinite(work *w, const lines *v, int64_t key, int64_t n) {
  if (!w->sequence->mask && !boundary(w, key, n)) return false;
  const int64_t dv = w->problem->value_dim;
  bool finite = true;
  for (int64_t j = 0; j < n && finite; j++) finite = all_finite(value_row(w, v, j, w->values), dv);
  if (finite) return false;
  for (int64_t j = 0; j < n; j++) {
    real *value = w->values + j * dv;
    load_row(v->dtype, v->first + j * v->row * (int64_t)attn_dtype_size(v->dtype), v->element, dv, value);
    for (int64_t d = 0; d < dv; d++)
      if (!is_finite(value[d])) value[d] = 0;
  }
  return true;
}

/* What was set apart, behind the products: added to the rows that see it. */
static void add_nonfinite(work *w, const state *state, int64_t key, int64_t n) {
  const lines v = values_at(w, key, n);
  for (int64_t j = 0; j < n; j++) {
    const real *value = value_row(w, &v, j, w->values);
    for (int64_t d = 0; d < w->problem->value_dim; d++) {
      if (is_finite(value[d])) continue;
      for (int r = 0; r < w->rows; r++)
        if (sees(w, r, key, j)) state->o[d * w->o_dim + r * w->o_row] += w->s[j * w->s_key + r * w->s_row] * value[d];
    }
  }
}

/* Asks for part `part` of the block of keys that begins with `key`, if some row sees them. */
static void ask_for_keys(const work *w, int64_t key, int64_t part, int64_t parts) {
  if (key >= w->last) return;
  const attn_problem *P = w->problem;
  const int64_t d = P->head_dim, n = w->last - key < KEYS ? w->last - key : KEYS;
  const int64_t share = n * d * (int64_t)attn_dtype_size(P->kv_dtype) / parts;
  ahead keys = rows_ahead(w, w->k, P->k, key, d, share * part);
  ask_for(&keys, share);
}

/* The next block's keys are asked for. o becomes decay o + p v: as a product, rows = value dims, sum over keys. */
static void accumulate(work *w, const state *state, const lines *v, int64_t key, int64_t n) {
  const int64_t dv = w->problem->value_dim;
  const column_operands columns = operand_columns(v->dtype, v->first, v->row, v->element, n, dv, w->v_block);
  const operand *p = operand_lanes(w->s, n, w->vecs, TILE, w->p);
  const operand *column[PRODUCT_SUMS];
  for (int64_t d = 0; d < dv; d += PRODUCT_SUMS) {
    const int64_t some = dv - d < PRODUCT_SUMS ? dv - d : PRODUCT_SUMS;
    ask_for_keys(w, key + n, d / PRODUCT_SUMS, (dv + PRODUCT_SUMS - 1) / PRODUCT_SUMS);
    strip part = { 0 };
    for (int lane = 0; lane < w->rows; lane += part.vecs * LANES) {
      part = strip_of_lanes(w, key, n, lane);
      if (!part.keys) continue;
      const int64_t first = part.key / DEPTH, groups = GROUPS(part.key + part.keys) - first;
      for (int64_t i = 0; i < some; i++) column[i] = columns.first + (d + i) * columns.next + first * columns.step;
      product_block(some, part.vecs, groups, column, columns.step, p + first * TILE + lane, TILE, state->o + d * TILE + lane,
                    TILE, true, w->decay + lane);
    }
  }
}
