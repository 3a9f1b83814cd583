/* Values of a block of keys, weighed by their probabilities. */

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
static bool set_apart_nonfinite(work *w, state *state, const lines *v, int64_t key, int64_t n) {
  const int64_t dv = w->problem->value_dim, bytes = v->row * (int64_t)attn_dtype_size(v->dtype);
  bool any = false;
  for (int64_t j = 0; j < n; j++) {
    real *value = w->values + j * dv;
    load_row(v->dtype, v->first + j * bytes, v->element, dv, value);
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
  const lines v = lines_of(w, w->v, P->v, P->v_block, w->v_scales, key, n, dv);
  const bool apart = (w->sequence->mask || boundary(w, key, n)) && set_apart_nonfinite(w, state, &v, key, n);
  const column_operands columns = apart ? operand_columns(REAL_DTYPE, w->values, dv, 1, n, dv, w->v_block)
                                        : operand_columns(v.dtype, v.first, v.row, v.element, n, dv, w->v_block);
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
