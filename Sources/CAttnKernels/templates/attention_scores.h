/* Scores of a block of keys: the products, and the terms that come behind them. */

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
      if (cap) {
        const vec t = v_tanh(s / softcap);
        s = softcap * t;
        if (w->cap_slope) v_store(w->cap_slope + j * TILE + v * LANES, v_fma(-t, t, v_set1(1)));
      }
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

/* The products of few queries: keys in lanes, so that k is read once, then turned. The same sums, bit for bit. */
static void stream_scores(work *w, int64_t n, int64_t groups, const operand *const *row) {
  const operand *query[STREAM_ROWS];
  real turned[STREAM_ROWS * LANES];
  for (int r = 0; r < w->rows; r++) query[r] = w->q_rows + r * groups;
  for (int64_t j = 0; j < n; j += LANES) {
    const int64_t some = n - j < LANES ? n - j : LANES;
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
  const lines k = lines_of(w, w->k, P->k, P->k_block, w->k_scales, key, n, P->head_dim);
  const operand *row[KEYS];
  const int64_t groups = GROUPS(P->head_dim);
  const int64_t step = operand_rows(k.dtype, k.first, k.row, k.element, n, P->head_dim, w->k_block, row);
  if (w->rows <= STREAM_ROWS && step == 1) {
    stream_scores(w, n, groups, row);
  } else {
    for (int64_t d = 0; d == 0 || d < groups; d += SUMMED) {
      const int64_t some = groups - d < SUMMED ? groups - d : SUMMED;
      product_block(n, w->vecs, some, row, step, w->q + d * TILE, TILE, w->s, TILE, d > 0);
      for (int64_t j = 0; j < n; j++) row[j] += some * step;
    }
  }
  if (w->prescaled || until != TERMS_ALL || boundary(w, key, n)) apply_terms(w, key, n, until);
}
