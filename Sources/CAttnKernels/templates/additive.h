/* Additive attention: scores sum_h v[h] tanh(q[h] + k[h]), and their gradients.
 *
 * tanh(q + k) = (E - 1) / (E + 1) with E = e^2q e^2k: exponentials are taken once for each row, and a pair of rows costs a
 * product and half a division for each h. Where a row reaches beyond ADDITIVE_NEAR, E could overflow: pairs with it take
 * tanh of the sum. Rows hold a multiple of ATTN_ADDITIVE_BLOCK elements, behind the last one 0, and v is 0 there. */

#define ADDITIVE_NEAR 10 /* E <= e^40, and (1 + E)^2 is still far from overflow */

/* exps[h] = e^(2 sums[h]), both padded; the result is max |sums[h]|, or NaN. */
static void additive_prepare(int64_t hidden, int64_t padded, void *sums, void *exps, void *largest) {
  real *s = sums, *e = exps;
  for (int64_t h = hidden; h < padded; h++) s[h] = 0;
  vec top = {0}, odd = {0};
  for (int64_t h = 0; h < padded; h += LANES) {
    const vec x = v_load(s + h);
    top = v_max(v_abs(x), top);
    odd += x - x; /* 0, or NaN */
    v_store(e + h, v_exp((real)2 * x));
  }
  real result = 0;
  for (int i = 0; i < LANES; i++) {
    result = top[i] > result ? top[i] : result;
    if (odd[i] != 0) result = odd[i];
  }
  *(real *)largest = result;
}

WORD bool is_near(const void *largest, int64_t row) { return ((const real *)largest)[row] < ADDITIVE_NEAR; }

/* Both halves of a block at once: a/b + c/d = (a d + c b) / (b d). */
WORD real additive_score(int64_t padded, const real *v, const real *qe, const real *ke) {
  vec sum = {0};
  for (int64_t h = 0; h < padded; h += 2 * LANES) {
    const vec e = v_load(qe + h) * v_load(ke + h), f = v_load(qe + h + LANES) * v_load(ke + h + LANES);
    const vec b = e + (real)1, d = f + (real)1;
    const vec top = v_fma(v_load(v + h) * (e - (real)1), d, v_load(v + h + LANES) * (f - (real)1) * b);
    sum += top / (b * d);
  }
  real total = 0;
  for (int i = 0; i < LANES; i++) total += sum[i];
  return total;
}

WORD real additive_score_far(int64_t padded, const real *v, const real *q, const real *k) {
  vec sum = {0};
  for (int64_t h = 0; h < padded; h += LANES) sum = v_fma(v_load(v + h), v_tanh(v_load(q + h) + v_load(k + h)), sum);
  real total = 0;
  for (int i = 0; i < LANES; i++) total += sum[i];
  return total;
}

/* scores[j] of one query, plus the mask; -inf where the mask hides key j. */
static void additive_scores(const attn_additive *A, int64_t query, const void *mask, int64_t mask_column, void *scores) {
  const int64_t padded = A->padded;
  const real *q = (const real *)A->q.sums + query * padded, *qe = (const real *)A->q.exps + query * padded;
  real *s = scores;
  if (mask) load_row(A->mask_dtype, mask, mask_column, A->keys, s);
  for (int64_t j = 0; j < A->keys; j++) {
    if (mask && !(s[j] > -INFINITE)) {
      s[j] = -INFINITE;
      continue;
    }
    const real *k = (const real *)A->k.sums + j * padded, *ke = (const real *)A->k.exps + j * padded;
    const bool is_short = !A->exact && is_near(A->q.largest, query) && is_near(A->k.largest, j);
    const real score = is_short ? additive_score(padded, A->v, qe, ke) : additive_score_far(padded, A->v, q, k);
    s[j] = mask ? s[j] + score : score;
  }
}

/* out[d] = sum_j weights[j] values[j][d] over the keys that are visible; scores as above. */
static void additive_values(int64_t keys, int64_t columns, const void *scores, const void *weights, const void *values,
                            int64_t step, void *out) {
  const real *s = scores, *p = weights;
  for (int64_t d = 0; d < columns; d += LANES) {
    const int64_t count = columns - d < LANES ? columns - d : LANES;
    vec sum = {0};
    for (int64_t j = 0; j < keys;) {
      vec some = {0};
      for (int64_t end = j + SHORT_SUM < keys ? j + SHORT_SUM : keys; j < end; j++)
        if (s[j] != -INFINITE) some = v_fma(v_set1(p[j]), load_some(ROW_REAL, (const real *)values + j * step + d, 1, count), some);
      sum += some;
    }
    store_some(ROW_REAL, sum, (real *)out + d, 1, count);
  }
}

/* For one row and the rows on the other side, of which row j has the gradient grads[j * grad_step] of its score:
 *   sums[h] = v[h] sum_j grads[j] (1 - t[j,h]^2);  shares[h] = sum_j grads[j] t[j,h], t = tanh of both sums. shares NULL: none.
 * Both padded. Pairs whose gradient is 0 are left out: whatever a hidden key holds. tanh is taken as it is: the short cut of
 * the scores would cost digits that a gradient shows. */
static void additive_gradient(const attn_additive *A, const void *own, const void *other, int64_t count, const void *grads,
                              int64_t grad_step, void *sums, void *shares) {
  const int64_t padded = A->padded;
  const real *g = grads, *v = A->v, *x = own, *y = other;
  for (int64_t h = 0; h < padded; h += LANES) {
    const vec own_sum = v_load(x + h);
    vec slopes = {0}, tanhs = {0};
    for (int64_t j = 0; j < count;) {
      vec some_slopes = {0}, some_tanhs = {0};
      for (int64_t end = j + SHORT_SUM < count ? j + SHORT_SUM : count; j < end; j++) {
        const real gradient = g[j * grad_step];
        if (gradient == 0) continue;
        const vec t = v_tanh(own_sum + v_load(y + j * padded + h)), factor = v_set1(gradient);
        some_slopes = v_fma(factor, v_fma(-t, t, v_set1(1)), some_slopes);
        if (shares) some_tanhs = v_fma(factor, t, some_tanhs);
      }
      slopes += some_slopes;
      tanhs += some_tanhs;
    }
    v_store((real *)sums + h, slopes * v_load(v + h));
    if (shares) v_store((real *)shares + h, tanhs);
  }
}

/* grads[j] = weights[j] (grad . values[j] - sum_i weights[i] grad . values[i]), 0 where the key is hidden. */
static void additive_score_gradients(int64_t keys, int64_t columns, const void *scores, const void *weights,
                                     const void *grad, const void *values, int64_t step, void *grads) {
  const real *s = scores, *p = weights;
  real *g = grads;
  for (int64_t j = 0; j < keys; j++)
    g[j] = s[j] == -INFINITE ? 0 : (real)dot_reals(columns, grad, (const real *)values + j * step);
  const real mean = (real)dot_reals(keys, p, g);
  for (int64_t j = 0; j < keys; j++) g[j] = s[j] == -INFINITE ? 0 : p[j] * (g[j] - mean);
}
