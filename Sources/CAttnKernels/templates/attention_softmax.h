/* The step of the online softmax over a block of keys, and dropout on its probabilities. */

/* Scores of `count` keys become probabilities, which are added to sum. */
WORD vec probabilities(const int count, real *s, vec m, real c, vec sum) {
  vec p[MANY];
  EACH(i, count) p[i] = v_load(s + i * TILE) - m;
  v_exp2s_fall(count, p, c);
  EACH(i, count) {
    v_store(s + i * TILE, p[i]);
    sum += p[i];
  }
  return sum;
}

/* s becomes p; m and l of the state move on to the new maximum, o will with the products to come.
 * Their values are asked for. */
static void softmax_step(work *w, state *state, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const int64_t share = MANY * P->value_dim * (int64_t)attn_dtype_size(P->kv_dtype) / w->vecs;
  ahead values = rows_ahead(w, w->v, P->v, key, P->value_dim, 0);
  const real c = w->c;
  for (int v = 0; v < w->vecs; v++) {
    real *s = w->s + v * LANES;
    vec top = v_load(s);
    for (int64_t j = 1; j < n; j++) top = v_max(v_load(s + j * TILE), top);
    const vec old = v_load(state->m + v * LANES);
    const vec m = v_max(top, old);
    vec decay = old - m, sum = {0};
    v_exp2s_fall(1, &decay, c);
    int64_t j = 0;
    for (; j + MANY <= n; j += MANY) {
      ask_for(&values, share);
      sum = probabilities(MANY, s + j * TILE, m, c, sum);
    }
    for (; j < n; j++) sum = probabilities(1, s + j * TILE, m, c, sum);
    v_store(state->m + v * LANES, m);
    v_store(state->l + v * LANES, v_fma(v_load(state->l + v * LANES), decay, sum));
    v_store(w->decay + v * LANES, decay);
  }
}

/* Philox4x32-10 (Salmon et al. 2011): four words of the counter. */
static void philox(uint64_t seed, const uint32_t counter[4], uint32_t word[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
    const uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c0 = n0; c1 = (uint32_t)b; c2 = n2; c3 = (uint32_t)a;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
  word[0] = c0; word[1] = c1; word[2] = c2; word[3] = c3;
}

/* p = p / (1 - dropout_p) or 0, for a block of p[key][row]. KEYS is a multiple of 4, so a counter never straddles two blocks. */
static void drop(const work *w, real *block, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  const real keep = (real)P->dropout_scale;
  for (int64_t j = 0; j < n; j += 4)
    for (int r = 0; r < w->rows; r++) {
      const uint32_t counter[4] = { (uint32_t)((key + j) >> 2), (uint32_t)w->query[r], (uint32_t)w->head[r],
                                    (uint32_t)w->sequence->batch };
      uint32_t word[4];
      philox(P->seed, counter, word);
      for (int64_t t = 0; t < 4 && j + t < n; t++) {
        real *p = block + (j + t) * w->s_key + r * w->s_row;
        *p = word[t] < P->dropout_threshold ? 0 : *p * keep;
      }
    }
}
