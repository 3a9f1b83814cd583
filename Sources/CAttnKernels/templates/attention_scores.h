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
typedef struct term_set {
  bool scaled, cap, mask, alibi;
  vec scale, softcap;
} term_set;

static term_set terms_of(const work *w, terms until) {
  const attn_problem *P = w->problem;
  return (term_set){
    .scaled = w->prescaled,
    .cap = P->softcap > 0 && until >= TERMS_CAP,
    .mask = w->sequence->mask && until == TERMS_ALL,
    .alibi = P->slopes && until == TERMS_ALL,
    .scale = v_set1((real)P->scale),
    .softcap = v_set1((real)P->softcap),
  };
}

/* cap_slope: where the softcap's derivative goes, or NULL. */
WORD vec with_terms(const term_set *t, vec s, const real *bias, vec slope, vec distance, lanemask visible, real *cap_slope) {
  const vec hidden = v_set1(-INFINITE);
  if (t->scaled) s = s * t->scale;
  if (t->cap) {
    const vec tanh_of_s = v_tanh(s / t->softcap);
    s = t->softcap * tanh_of_s;
    if (cap_slope) v_store(cap_slope, v_fma(-tanh_of_s, tanh_of_s, v_set1(1)));
  }
  if (t->mask) {
    const vec b = v_load(bias);
    s = v_select(b > hidden, s + b, hidden);
  }
  if (t->alibi) s = s - slope * v_abs(distance);
  return v_select(visible, s, hidden);
}

static void apply_terms(work *w, int64_t key, int64_t n, terms until) {
  const term_set set = terms_of(w, until);
  if (set.mask) load_bias(w, key, n);
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
      const int64_t at = j * TILE + v * LANES;
      const vec index = v_set1((real)j);
      v_store(w->s + at, with_terms(&set, v_load(w->s + at), w->bias + at, slope, position - index,
                                    (index >= begin) & (index < end), w->cap_slope ? w->cap_slope + at : NULL));
    }
  }
}

static bool boundary(const work *w, int64_t key, int64_t n) {
  return key < w->all_first || key + n > w->all_last;
}

/* s from the products on. */
static void finish_scores(work *w, int64_t key, int64_t n, terms until) {
  if (w->prescaled || until != TERMS_ALL || boundary(w, key, n)) apply_terms(w, key, n, until);
}

/* Operands of keys [key, key + n), the result apart. */
static int64_t keys_of(work *w, int64_t key, int64_t n, const operand **row) {
  const attn_problem *P = w->problem;
  const lines k = keys_at(w, key, n);
  return operand_rows(k.dtype, k.first, k.row, k.element, n, P->head_dim, w->k_block, row);
}

/* out[j][lane] = row[j] . b, of the keys and lanes of a strip. */
static void strip_product(const strip *part, int64_t groups, const operand **row, int64_t step, const operand *b, real *out) {
  for (int64_t d = 0, most = summed(groups); d == 0 || d < groups; d += most) {
    const int64_t some = groups - d < most ? groups - d : most;
    product_block(part->keys, part->vecs, some, row + part->key, step, b + d * TILE + part->lane, TILE,
                  out + part->key * TILE + part->lane, TILE, d > 0, NULL);
    for (int64_t j = part->key; j < part->key + part->keys; j++) row[j] += some * step;
  }
}

/* s[j][row] for keys [key, key + n): raw products if nothing but the scale is to come, else natural units. */
static void scores(work *w, int64_t key, int64_t n, terms until) {
  const operand *row[KEYS];
  const int64_t groups = GROUPS(w->problem->head_dim), step = keys_of(w, key, n, row);
  for (strip part = { 0 }; part.key < n; part.key += part.keys) {
    part = until == TERMS_ALL ? strip_of_keys(w, key, n, part.key) : (strip){ 0, n, 0, w->vecs };
    strip_product(&part, groups, row, step, w->q, w->s);
  }
  finish_scores(w, key, n, until);
}
