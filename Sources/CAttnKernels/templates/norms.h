/* Layer norm and RMS norm of a row: out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias, mean 0 for RMS. */

typedef double wide_vec __attribute__((vector_size(LANES * sizeof(double))));

/* The sum of the lanes, for which it takes v apart. */
WORD double wide_total(wide_vec *v) {
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) (*v)[i] += (*v)[i + width];
  return (*v)[0];
}

/* x - high - low: the mean comes in two parts, since rounding it would shift every element by the same amount. */
typedef struct centre {
  vec high, low;
} centre;

WORD vec norm_term(const bool squares, vec x, const centre *c, vec sum) {
  const vec d = x - c->high - c->low;
  return squares ? v_fma(d, d, sum) : sum + d;
}

/* Sums of at most SHORT_SUM vectors in the computing type, four side by side, and the sums of those in float64. */
WORD double norm_sum(attn_dtype dtype, int64_t n, const void *x, const bool squares, const centre *c) {
  const int64_t whole = n / LANES * LANES;
  wide_vec totals = {0};
  int64_t j = 0;
  while (j + 4 * LANES <= whole) {
    vec sums[4] = { {0}, {0}, {0}, {0} };
    for (int i = 0; i < SHORT_SUM / 4 && j + 4 * LANES <= whole; i++, j += 4 * LANES)
#pragma clang loop unroll(full)
      for (int k = 0; k < 4; k++) sums[k] = norm_term(squares, row_load(dtype, x, j + k * LANES), c, sums[k]);
    totals += __builtin_convertvector((sums[0] + sums[1]) + (sums[2] + sums[3]), wide_vec);
  }
  vec few = {0};
  for (; j < whole; j += LANES) few = norm_term(squares, row_load(dtype, x, j), c, few);
  if (whole < n) {
    const row_rest rest = row_load_rest(dtype, x, n);
    few = v_select(rest.own, norm_term(squares, rest.x, c, few), few);
  }
  totals += __builtin_convertvector(few, wide_vec);
  return wide_total(&totals);
}

WORD vec norm_value(vec x, const centre *c, vec factor, const real *weight, const real *bias, int64_t j, int64_t count) {
  vec y = (x - c->high - c->low) * factor;
  if (weight) y *= load_some(ROW_REAL, weight + j, 1, count);
  if (bias) y += load_some(ROW_REAL, bias + j, 1, count);
  return y;
}

WORD void norm_dense(attn_dtype dtype, const bool centred, const attn_norm *norm, const void *x, void *out, bool stream) {
  const int64_t n = norm->shape.columns;
  const real *weight = norm->weight, *bias = norm->bias;
  centre c = { {0}, {0} };
  if (centred) {
    const double mean = norm_sum(dtype, n, x, false, &c) / (double)n;
    c = (centre){ v_set1((real)mean), v_set1((real)(mean - (double)(real)mean)) };
  }
  const double variance = norm_sum(dtype, n, x, true, &c) / (double)n;
  const vec factor = v_set1((real)(1 / sqrt(variance + norm->eps)));
  if (n < LANES)
    store_some(dtype, norm_value(load_some(dtype, x, 1, n), &c, factor, weight, bias, 0, n), out, 1, n);
  else
    WRITE_ROW(dtype, out, n, stream, {
      row_ask(count, dtype, x, n, j);
      EACH(i, count) v[i] = norm_value(row_load(dtype, x, j + i * LANES), &c, factor, weight, bias, j + i * LANES, LANES);
    });
}

WORD void norm_of_kind(attn_dtype dtype, const attn_norm *norm, const void *x, void *out, bool stream) {
  if (norm->centred) norm_dense(dtype, true, norm, x, out, stream);
  else norm_dense(dtype, false, norm, x, out, stream);
}

static void norm_row(const attn_norm *norm, const void *x, void *out, void *scratch) {
  const attn_rows *shape = &norm->shape;
  const attn_dtype dtype = shape->dtype;
  if (shape->x_column == 1 && shape->out_column == 1) {
    OF_DTYPE(dtype, norm_of_kind, norm, x, out, shape->stream);
    return;
  }
  load_row(dtype, x, shape->x_column, shape->columns, scratch);
  norm_of_kind(ROW_REAL, norm, scratch, scratch, false);
  store_row(dtype, scratch, shape->columns, out, shape->out_column);
}
