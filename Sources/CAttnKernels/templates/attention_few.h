/* The steps of attention_scores.h, attention_softmax.h and attention_values.h for few queries, as in decode: keys, then value
 * dims, lie in the lanes, so that each element of k and v is read once and no lane idles.
 *
 *   s[i][j] = q[i] . k[j]        o[i][d] += sum_j p[i][j] v[j][d]
 *
 * The operations on each number and their order are the same, so a query has the same bits in a prompt and alone. */

/* with_terms for a row's vectors of keys. */
static void few_terms(work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const term_set set = terms_of(w, TERMS_ALL);
  const int64_t at = key * P->mask.element * (int64_t)attn_dtype_size(P->mask_dtype);
  vec lane;
  for (int i = 0; i < LANES; i++) lane[i] = (real)i;
  for (int r = 0; r < w->rows; r++) {
    real *s = w->s + r * KEYS, *bias = w->bias + r * KEYS;
    if (set.mask) load_row(P->mask_dtype, (const char *)w->mask_row[r] + at, P->mask.element, n, bias);
    const vec begin = v_set1((real)clamp(w->first_key[r] - key, 0, n)), end = v_set1((real)clamp(w->last_key[r] - key, 0, n));
    const vec position = v_set1((real)(w->query[r] + w->sequence->query_offset - key)), slope = v_set1(w->slope[r]);
    for (int64_t j = 0; j < n; j += LANES) {
      const vec index = v_set1((real)j) + lane;
      v_store(s + j, with_terms(&set, v_load(s + j), bias + j, slope, position - index, (index >= begin) & (index < end),
                                NULL));
    }
  }
}

/* Rows [key, ...) of k or v to be asked for; none where they are not evenly apart. */
static ahead rows_ahead(const work *w, const char *x, attn_strides step, int64_t key, int64_t width) {
  const int64_t size = (int64_t)attn_dtype_size(w->problem->kv_dtype);
  const bool even = !w->sequence->blocks && step.element == 1;
  return (ahead){ even ? x + key * step.row * size : NULL, 0, step.row == width ? INT64_MAX / 2 : width * size, step.row * size };
}

static void few_scores(work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const operand *row[KEYS];
  keys_of(w, key, n, row);
  const int64_t groups = GROUPS(P->head_dim);
  const int64_t step = n > 1 ? (const char *)row[1] - (const char *)row[0] : 0, width = stream_width(w->rows);
  ahead values = rows_ahead(w, w->v, P->v, key, P->value_dim);
  for (int64_t j = 0; j < n; j += width)
    stream_rows(w->rows, groups, summed(groups), w->q_rows, (const char *)row[j], step, n - j < width ? n - j : width,
                w->s + j, KEYS, &values);
  if (w->prescaled || boundary(w, key, n)) few_terms(w, key, n);
  for (int r = 0; r < w->rows; r++) /* lanes without a key get p = 0 */
    for (int64_t j = n; j % LANES; j++) w->s[r * KEYS + j] = -INFINITE;
}

/* s becomes p; m, l and o of the state move on to the new maximum. */
static void few_softmax_step(work *w, state *state, int64_t n) {
  const vec c = v_set1(w->c);
  const int64_t dv = w->problem->value_dim;
  real top[STREAM_ROWS + LANES], decay[STREAM_ROWS + LANES], sum[STREAM_ROWS + LANES]; /* [rows], and idle lanes */
  for (int v = 0; v < w->vecs; v++) {
    v_store(top + v * LANES, v_set1(LOWEST));
    v_store(sum + v * LANES, (vec){0});
  }
  for (int r = 0; r < w->rows; r++) {
    const real *s = w->s + r * KEYS;
    vec most = v_load(s);
    for (int64_t j = LANES; j < n; j += LANES) most = v_max(v_load(s + j), most);
    top[r] = v_highest(most);
  }
  for (int v = 0; v < w->vecs; v++) {
    const vec old = v_load(state->m + v * LANES), m = v_max(v_load(top + v * LANES), old);
    v_store(decay + v * LANES, v_exp2((old - m) * c));
    v_store(state->m + v * LANES, m);
  }
  for (int r = 0; r < w->rows; r++) {
    real *s = w->s + r * KEYS;
    const vec m = v_set1(state->m[r]);
    for (int64_t j = 0; j < n; j += LANES) v_store(s + j, v_exp2((v_load(s + j) - m) * c));
  }
  for (int r = 0; r < w->rows; r += 4) { /* in the order of the keys; four sums wait for one another's additions */
    const real *p[4];
    real sums[4] = { 0, 0, 0, 0 };
    for (int i = 0; i < 4; i++) p[i] = w->s + (r + i < w->rows ? r + i : r) * KEYS;
    for (int64_t j = 0; j < n; j++)
#pragma clang loop unroll(full) vectorize(disable)
      for (int i = 0; i < 4; i++) sums[i] += p[i][j];
    for (int i = 0; i < 4; i++) sum[r + i] = sums[i];
  }
  for (int v = 0; v < w->vecs; v++) {
    real *l = state->l + v * LANES;
    v_store(l, v_fma(v_load(l), v_load(decay + v * LANES), v_load(sum + v * LANES)));
  }
  for (int r = 0; r < w->rows; r++) {
    if (decay[r] == 1) continue;
    const vec factor = v_set1(decay[r]);
    for (int64_t i = r * dv; i < (r + 1) * dv; i += LANES) v_store(state->o + i, v_load(state->o + i) * factor);
  }
}

/* o[i][d] += sum over j < n of p[i][j] v[j][d] for vecs vectors of d, as product_tile sums; v of this dtype, its rows `step`
 * bytes apart. Pairs of keys are made on the way: they serve so few rows that a block of them would cost as much. */
WORD void weigh_of(const int rows, const int vecs, int64_t n, const operand *const *p, const char *v, int64_t step, real *o,
                   int64_t o_step, ahead *next) {
  vec sum[4][PRODUCT_VECS];
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int k = 0; k < vecs; k++) sum[i][k] = (vec){0};
  for (int64_t g = 0; g < GROUPS(n); g++, v += DEPTH * step) {
    operands lanes[PRODUCT_VECS];
    load_values(v, DEPTH * (g + 1) > n ? NULL : v + step, vecs, lanes);
    ask(next, vecs * LANES * (int)sizeof(operand) / 64);
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) {
      const operands broadcast = v_repeat(p[i][g]);
#pragma clang loop unroll(full)
      for (int k = 0; k < vecs; k++) sum[i][k] = v_dot(broadcast, lanes[k], sum[i][k]);
    }
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int k = 0; k < vecs; k++) {
      real *out = o + i * o_step + k * LANES;
      v_store(out, v_load(out) + sum[i][k]);
    }
}

#define WEIGH(R, V) weigh_of(R, V, n, p, v, step, o, o_step, next); break

static void weigh(int64_t rows, int64_t vecs, int64_t n, const operand *const *p, const char *v, int64_t step, real *o,
                  int64_t o_step, ahead *next) {
  switch (vecs == WEIGHED_VECS ? -rows : rows) {
    case -1: WEIGH(1, WEIGHED_VECS);
    case -2: WEIGH(2, WEIGHED_VECS);
    case -3: WEIGH(3, WEIGHED_VECS);
    case -4: WEIGH(4, WEIGHED_VECS);
#if VALUE_VECS < WEIGHED_VECS
    case 1: WEIGH(1, VALUE_VECS);
    case 2: WEIGH(2, VALUE_VECS);
    case 3: WEIGH(3, VALUE_VECS);
    default: WEIGH(4, VALUE_VECS);
#endif
  }
}

static void few_accumulate(work *w, state *state, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t dv = P->value_dim;
  const operand *p[STREAM_ROWS];
  for (int r = 0; r < w->rows; r++) p[r] = operand_reals(w->s + r * KEYS, n, w->p + r * GROUPS(KEYS));
  const lines v = values_of(w, state, key, n);
  const int64_t step = v.row * (int64_t)attn_dtype_size(v.dtype);
  if (v.dtype == VALUE_DTYPE && v.element == 1 && dv % (VALUE_VECS * LANES) == 0) {
    ahead keys = rows_ahead(w, w->k, P->k, key + n, P->head_dim);
    for (int64_t d = 0, vecs; d < dv; d += vecs * LANES) {
      vecs = dv - d < WEIGHED_VECS * LANES ? VALUE_VECS : WEIGHED_VECS;
      for (int r = 0; r < w->rows; r += 4)
        weigh(w->rows - r < 4 ? w->rows - r : 4, vecs, n, p + r, v.first + d * (int64_t)attn_dtype_size(VALUE_DTYPE), step,
              state->o + r * dv + d, dv, &keys);
    }
    return;
  }
  const column_operands columns = operand_columns(v.dtype, v.first, v.row, v.element, n, dv, w->v_block);
  for (int64_t d = 0; d < dv; d += PRODUCT_VECS * LANES) {
    const int64_t left = (dv - d) / LANES, vecs = left < PRODUCT_VECS ? left : PRODUCT_VECS;
    product_block(w->rows, vecs, GROUPS(n), p, 1, columns.first + d, columns.step, state->o + d, dv, true);
  }
}
