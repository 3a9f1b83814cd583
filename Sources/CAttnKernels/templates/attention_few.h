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

#define KEYS_AHEAD 16384 /* bytes: a few rows of k for each lane, and no more than the first-level cache holds */

static void few_scores(work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t d = P->head_dim;
  const lines k = keys_at(w, key, n);
  const bool copied = !operands_lie(k.dtype, k.element, d) || k.dtype != P->kv_dtype; /* before the products begin */
  const int64_t block = n * d * (int64_t)attn_dtype_size(P->kv_dtype);
  ahead later = rows_ahead(w, w->k, P->k, key, d, copied ? block : KEYS_AHEAD);
  const lying_rows rows = rows_that_lie(k.dtype, k.first, k.row, k.element, n, d, w->k_block);
  stream_rows(rows.dtype, w->rows, GROUPS(d), summed(GROUPS(d)), w->q_rows, rows.first, rows.step, n, w->s, KEYS,
              &later);
  if (w->prescaled || boundary(w, key, n)) few_terms(w, key, n);
  for (int r = 0; r < w->rows; r++) /* lanes without a key get p = 0 */
    for (int64_t j = n; j % LANES; j++) w->s[r * KEYS + j] = -INFINITE;
}

/* softmax_step, with the same sums. */
static void few_softmax_step(work *w, state *state, int64_t n) {
  real top[STREAM_ROWS + LANES], sum[STREAM_ROWS + LANES]; /* [rows], and idle lanes */
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
    vec decay = old - m;
    v_exp2s_fall(1, &decay, w->c);
    v_store(w->decay + v * LANES, decay);
    v_store(state->m + v * LANES, m);
  }
  for (int r = 0; r < w->rows; r++) {
    real *s = w->s + r * KEYS;
    const vec m = v_set1(state->m[r]);
    for (int64_t j = 0; j < n; j += LANES) {
      vec p = v_load(s + j) - m;
      v_exp2s_fall(1, &p, w->c);
      v_store(s + j, p);
    }
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
    v_store(l, v_fma(v_load(l), v_load(w->decay + v * LANES), v_load(sum + v * LANES)));
  }
}

/* Tiles of p v: WEIGHED_ROWS rows by WEIGHED_VECS vectors of value dims; where those two take two passes over v, two rows by
 * twice as many, which read it in memory's order, so that the hardware foresees it. */
#define WEIGHED_ROWS 4
#define WEIGHED_VECS PRODUCT_VECS
#define WIDE_ROWS 2
#define WIDE_VECS (2 * PRODUCT_VECS)

/* o[i][d] = decay[i] o[i][d] + sum over j < n of p[i][j] v[j][d] for vecs vectors of d, as product_tile sums; rows of v, as
 * operands_lie says, `step` bytes apart. Pairs of keys are made on the way: they serve so few rows that a block of them would
 * cost as much. */
WORD void weigh_of(const attn_dtype dtype, const int rows, const int vecs, int64_t n, const operand *const *p, const char *v,
                   int64_t step, const real *decay, real *o, int64_t o_step, ahead *next) {
  const int64_t bytes = vecs * LANES * OPERAND_BYTES(dtype);
  const int lines = vecs > WEIGHED_VECS ? 0 : (int)(bytes + 63) / 64;
  ahead later = *next;
  vec sum[WEIGHED_ROWS][WIDE_VECS];
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int k = 0; k < vecs; k++) sum[i][k] = (vec){0};
  for (int64_t g = 0; g < GROUPS(n); g++, v += DEPTH * step) {
    operands lanes[WIDE_VECS];
    load_values(dtype, v, DEPTH * (g + 1) > n ? NULL : v + step, vecs, lanes);
    const char *line = lines ? go_on(&later, bytes) : NULL;
#pragma clang loop unroll(full)
    for (int i = 0; i < (rows > lines ? rows : lines); i++) {
      if (i < lines) ask(line + 64 * i);
      if (i >= rows) continue;
      const operands broadcast = v_repeat(p[i][g]);
#pragma clang loop unroll(full)
      for (int k = 0; k < vecs; k++) sum[i][k] = v_dot(broadcast, lanes[k], sum[i][k]);
    }
  }
  *next = later;
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int k = 0; k < vecs; k++) {
      real *out = o + i * o_step + k * LANES;
      v_store(out, v_fma(v_load(out), v_set1(decay[i]), sum[i][k]));
    }
}

#define WEIGH(DTYPE, R, V) weigh_of(DTYPE, R, V, n, p, v, step, decay, o, o_step, next); break
#define WEIGH_ALL(DTYPE, rows, vecs)                     \
  switch (vecs == VALUE_VECS ? rows : rows + 4) {        \
    case 1: WEIGH(DTYPE, 1, VALUE_VECS);                 \
    case 2: WEIGH(DTYPE, 2, VALUE_VECS);                 \
    case 3: WEIGH(DTYPE, 3, VALUE_VECS);                 \
    case 4: WEIGH(DTYPE, 4, VALUE_VECS);                 \
    case 5: WEIGH(DTYPE, 1, WEIGHED_VECS);               \
    case 6: WEIGH(DTYPE, 2, WEIGHED_VECS);               \
    case 7: WEIGH(DTYPE, 3, WEIGHED_VECS);               \
    default: WEIGH(DTYPE, 4, WEIGHED_VECS);              \
  }

/* v of a dtype whose operands lie. */
static void weigh(attn_dtype dtype, int64_t rows, int64_t vecs, int64_t n, const operand *const *p, const char *v, int64_t step,
                  const real *decay, real *o, int64_t o_step, ahead *next) {
  if (vecs <= WEIGHED_VECS) {
    OF_LYING(dtype, WEIGH_ALL, rows, vecs);
  } else if (rows == 1) weigh_of(REAL_DTYPE, 1, WIDE_VECS, n, p, v, step, decay, o, o_step, next);
  else weigh_of(REAL_DTYPE, WIDE_ROWS, WIDE_VECS, n, p, v, step, decay, o, o_step, next);
}

static void few_accumulate(work *w, const state *state, const lines *v, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t dv = P->value_dim;
  const operand *p[STREAM_ROWS];
  for (int r = 0; r < w->rows; r++) p[r] = operand_reals(w->s + r * KEYS, n, w->p + r * GROUPS(KEYS));
  const int64_t size = (int64_t)attn_dtype_size(v->dtype), step = v->row * size;
  if (operands_lie(v->dtype, v->element, dv) && dv % (VALUE_VECS * LANES) == 0) {
    const bool wide = PRODUCT_VECS == 4 && DEPTH == 1 && v->dtype == REAL_DTYPE && dv == WIDE_VECS * LANES;
    const int64_t most_rows = wide ? WIDE_ROWS : WEIGHED_ROWS, most_vecs = wide ? WIDE_VECS : WEIGHED_VECS;
    ahead later = rows_ahead(w, w->v, P->v, key, dv, n * dv * (int64_t)attn_dtype_size(P->kv_dtype));
    for (int64_t d = 0, vecs; d < dv; d += vecs * LANES) {
      vecs = dv - d < most_vecs * LANES ? VALUE_VECS : most_vecs;
      for (int64_t r = 0, some; r < w->rows; r += some) {
        some = w->rows - r < most_rows ? w->rows - r : most_rows;
        weigh(v->dtype, some, vecs, n, p + r, v->first + d * size, step, w->decay + r, state->o + r * dv + d, dv, &later);
      }
    }
    return;
  }
  const column_operands columns = operand_columns(v->dtype, v->first, v->row, v->element, n, dv, w->v_block);
  for (int64_t d = 0; d < dv; d += PRODUCT_VECS * LANES) {
    const int64_t left = (dv - d) / LANES, vecs = left < PRODUCT_VECS ? left : PRODUCT_VECS;
    real sums[STREAM_ROWS][PRODUCT_VECS * LANES];
    product_block(w->rows, vecs, GROUPS(n), p, 1, columns.first + d, columns.step, sums[0], PRODUCT_VECS * LANES, false,
                  NULL);
    for (int r = 0; r < w->rows; r++)
      for (int64_t i = 0; i < vecs * LANES; i += LANES) {
        real *o = state->o + r * dv + d + i;
        v_store(o, v_fma(v_load(o), v_set1(w->decay[r]), v_load(sums[r] + i)));
      }
  }
}
