/* Log-sum-exp of a row, and cross-entropy with its gradient. */

/* x[i] = e^(x[i] - top), or x[i] as it is without exponentials. */
WORD void sum_terms(const int count, const bool exponentials, vec *x, vec top) {
  if (!exponentials) return;
  EACH(i, count) x[i] -= top;
  v_exps_fall(count, x);
}

WORD vec add_terms(const int count, const bool exponentials, attn_dtype dtype, const void *x, int64_t j, vec top, vec sum) {
  vec terms[MANY];
  row_load_many(count, dtype, x, j, terms);
  sum_terms(count, exponentials, terms, top);
  EACH(i, count) sum += terms[i];
  return sum;
}

/* Their sum: short sums in the computing type, and the sum of those in float64. */
WORD double sum_dense(attn_dtype dtype, int64_t n, const void *x, const bool exponentials, real top) {
  const int64_t whole = n / LANES * LANES;
  const vec m = v_set1(top);
  wide_vec totals = {0};
  for (int64_t j = 0; j < whole;) {
    const int64_t end = short_end(j, whole);
    vec some = {0};
    for (; j + MANY * LANES <= end; j += MANY * LANES) some = add_terms(MANY, exponentials, dtype, x, j, m, some);
    for (; j < end; j += LANES) some = add_terms(1, exponentials, dtype, x, j, m, some);
    totals += __builtin_convertvector(some, wide_vec);
  }
  if (whole < n) {
    row_rest rest = row_load_rest(dtype, x, n);
    sum_terms(1, exponentials, &rest.x, m);
    totals += __builtin_convertvector(v_select(rest.own, rest.x, (vec){0}), wide_vec);
  }
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) totals[i] += totals[i + width];
  return totals[0];
}

WORD void exp_sum_dense(attn_dtype dtype, int64_t n, const void *x, attn_exp_sum *result) {
  const real top = row_max(dtype, x, n);
  const bool is_finite = top != INFINITE && top != -INFINITE;
  /* Beside an infinite maximum only NaN matters, which x - top would not keep. */
  *result = (attn_exp_sum){ top, is_finite ? sum_dense(dtype, n, x, true, top) : 0 };
  if (is_finite) return;
  result->sum = top == INFINITE;
  for (int64_t j = 0; j < n; j++) {
    const vec v = load_some(dtype, (const char *)x + j * (int64_t)attn_dtype_size(dtype), 1, 1);
    if (v[0] != v[0]) result->sum = (double)v[0];
  }
}

static void exp_sum_row(const attn_rows *shape, const void *x, void *scratch, attn_exp_sum *result) {
  const attn_dtype dtype = shape->dtype;
  if (shape->x_column == 1) {
    OF_DTYPE(dtype, exp_sum_dense, shape->columns, x, result);
    return;
  }
  load_row(dtype, x, shape->x_column, shape->columns, scratch);
  exp_sum_dense(ROW_REAL, shape->columns, scratch, result);
}

/* scale * (e^(x - top) / sum - uniform), the target's share aside. */
WORD void loss_gradient(attn_dtype dtype, int64_t n, const void *x, void *grad, real top, real factor, real uniform) {
  if (n < LANES) store_some(dtype, v_exp(load_some(dtype, x, 1, n) - top) * factor - uniform, grad, 1, n);
  else
    WRITE_ROW(dtype, grad, n, false, {
      row_load_many(count, dtype, x, j, v);
      EACH(i, count) v[i] -= top;
      v_exps(count, v);
      EACH(i, count) v[i] = v[i] * factor - uniform;
    });
}

WORD void loss_dense(attn_dtype dtype, const attn_loss *loss, const void *x, int64_t target, void *grad, double *result) {
  const int64_t n = loss->shape.columns, size = (int64_t)attn_dtype_size(dtype);
  attn_exp_sum e;
  exp_sum_dense(dtype, n, x, &e);
  const vec hit = load_some(dtype, (const char *)x + target * size, 1, 1);
  const double likely = 1 - loss->smoothing;
  double value = e.top + log(e.sum);
  if (likely != 0) value -= likely * (double)hit[0];
  if (loss->smoothing != 0) value -= loss->smoothing * (sum_dense(dtype, n, x, false, 0) / (double)n);
  *result = value;
  if (!grad) return;
  const double uniform = loss->scale * loss->smoothing / (double)n, factor = loss->scale / e.sum;
  loss_gradient(dtype, n, x, grad, (real)e.top, (real)factor, (real)uniform);
  /* The target's own: p - 1 is taken in float64, since it cancels where the target is likely. */
  const double p = exp((double)hit[0] - e.top) / e.sum;
  const vec own = v_set1((real)(loss->scale * (p - likely) - uniform));
  store_some(dtype, own, (char *)grad + target * size, 1, 1);
}

static void loss_row(const attn_loss *loss, const void *x, int64_t target, void *grad, void *scratch, double *result) {
  const attn_rows *shape = &loss->shape;
  const attn_dtype dtype = shape->dtype;
  if (shape->x_column == 1 && (!grad || shape->out_column == 1)) {
    OF_DTYPE(dtype, loss_dense, loss, x, target, grad, result);
    return;
  }
  load_row(dtype, x, shape->x_column, shape->columns, scratch);
  loss_dense(ROW_REAL, loss, scratch, target, grad ? scratch : NULL, result);
  if (grad) store_row(dtype, scratch, shape->columns, grad, shape->out_column);
}
