/* Softmax of a row: out = e^(x - m) / l, m the row's maximum and l the sum of the exponentials. */

WORD real row_max(attn_dtype dtype, const void *x, int64_t n) {
  const int64_t whole = n / LANES * LANES;
  vec tops[4]; /* a maximum waits for the one before it: four of them keep the loads busy */
  for (int i = 0; i < 4; i++) tops[i] = v_set1(-INFINITE);
  int64_t j = 0;
  for (; j + 4 * LANES <= whole; j += 4 * LANES)
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) tops[i] = v_max(row_load(dtype, x, j + i * LANES), tops[i]);
  for (; j < whole; j += LANES) tops[0] = v_max(row_load(dtype, x, j), tops[0]);
  if (whole < n) {
    const row_rest rest = row_load_rest(dtype, x, n);
    tops[1] = v_max(v_select(rest.own, rest.x, tops[1]), tops[1]);
  }
  const vec most = v_max(v_max(tops[0], tops[1]), v_max(tops[2], tops[3]));
  real top = -INFINITE;
  for (int i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
  return top;
}

/* exps[j] = e^(x[j] - m) for the elements of `count` vectors; their sums are added to `sum`. */
WORD vec exponentials(const int count, attn_dtype dtype, int64_t n, const void *x, int64_t j, vec m, real *exps, vec sum) {
  vec e[MANY];
  row_load_many(count, dtype, x, j, e);
  EACH(i, count) e[i] -= m;
  v_exps_fall(count, e);
  row_ask(count, dtype, x, n, j);
  EACH(i, count) {
    v_store(exps + j + i * LANES, e[i]);
    sum += e[i];
  }
  return sum;
}

/* exps may be out, and out may be x. NaN is in no maximum, but in the sum. */
WORD void softmax_dense(attn_dtype dtype, int64_t n, const void *x, void *out, real *exps, bool stream) {
  const int64_t whole = n / LANES * LANES;
  const real top = row_max(dtype, x, n);
  const vec m = v_set1(top == -INFINITE ? 0 : top);
  vec last = {0}, sums = {0};
  if (whole < n) { /* before exponentials are written over x */
    const row_rest rest = row_load_rest(dtype, x, n);
    last = v_exp_fall(rest.x - m);
    sums = v_select(rest.own, last, sums);
  }
  for (int64_t j = 0; j < whole;) {
    const int64_t end = short_end(j, whole);
    vec some = {0};
    for (; j + MANY * LANES <= end; j += MANY * LANES) some = exponentials(MANY, dtype, n, x, j, m, exps, some);
    for (; j < end; j += LANES) some = exponentials(1, dtype, n, x, j, m, exps, some);
    sums += some;
  }
  double sum = 0;
  for (int i = 0; i < LANES; i++) sum += (double)sums[i];
  /* 1 / sum in two parts: rounding it would move all of the row by the same share */
  const double inverse = 1 / (sum == 0 ? 1 : sum);
  const vec factor = v_set1((real)inverse), lower = v_set1((real)(inverse - (double)(real)inverse));
  if (n < LANES) {
    store_some(dtype, v_fma(last, factor, last * lower), out, 1, n);
    return;
  }
  if (whole < n) v_store(exps + n - LANES, last);
  WRITE_ROW(dtype, out, n, stream, EACH(i, count) {
    const vec e = v_load(exps + j + i * LANES);
    v[i] = v_fma(e, factor, e * lower);
  });
}

static void softmax_row(const attn_rows *shape, const void *x, void *out, void *scratch) {
  real near[ATTN_NEAR_COLUMNS] __attribute__((aligned(64)));
  const attn_dtype dtype = shape->dtype;
  const int64_t n = shape->columns;
  real *row = n <= ATTN_NEAR_COLUMNS ? near : scratch;
  if (shape->x_column != 1 || shape->out_column != 1) {
    load_row(dtype, x, shape->x_column, n, row);
    softmax_dense(ROW_REAL, n, row, row, row, false);
    store_row(dtype, row, n, out, shape->out_column);
  } else if (dtype == ROW_REAL && (!row || !(shape->stream || (uintptr_t)out % VEC_BYTES))) {
    softmax_dense(ROW_REAL, n, x, out, out, false);
  } else {
    OF_DTYPE(dtype, softmax_dense, n, x, out, row, shape->stream);
  }
}
