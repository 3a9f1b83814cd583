/* Kernels over one row: softmax and activations. */

static void softmax_row(const attn_rows *shape, const void *x, void *out, void *scratch) {
  real *row = scratch;
  const int64_t n = shape->columns;
  load_row(shape->dtype, x, shape->x_column, n, row);
  /* In whole vectors: -inf fills the last one up. */
  const int64_t padded = (n + LANES - 1) / LANES * LANES;
  for (int64_t j = n; j < padded; j++) row[j] = -INFINITE;
  vec tops = v_set1(-INFINITE);
  for (int64_t j = 0; j < padded; j += LANES) tops = v_max(v_load(row + j), tops);
  real top = -INFINITE;
  for (int i = 0; i < LANES; i++) top = tops[i] > top || tops[i] != tops[i] ? tops[i] : top;
  const vec m = v_set1(top == -INFINITE ? 0 : top);
  vec sums = {0};
  for (int64_t j = 0; j < padded; j += LANES) {
    const vec e = v_exp(v_load(row + j) - m);
    sums += e;
    v_store(row + j, e);
  }
  real sum = 0;
  for (int i = 0; i < LANES; i++) sum += sums[i];
  const vec divisor = v_set1(sum == 0 ? 1 : sum);
  for (int64_t j = 0; j < padded; j += LANES) v_store(row + j, v_load(row + j) / divisor);
  store_row(shape->dtype, row, n, out, shape->out_column);
}

WORD vec activate(attn_activation activation, vec x) {
  switch (activation) {
    case ATTN_RELU: return v_select(x <= (vec){0}, (vec){0}, x);
    case ATTN_GELU: return v_select(x < v_set1((real)-1e4), (vec){0} * x, x) * v_normal_cdf(x);
    case ATTN_GELU_TANH: {
      const vec u = x * (real)0.7978845608028654 * ((real)1 + (real)0.044715 * x * x);
      return (real)0.5 * x * ((real)1 + v_tanh(u));
    }
    case ATTN_SILU: return x / ((real)1 + v_exp(-x));
    default: return x;
  }
}

static void activation_row(const attn_rows *shape, attn_activation activation, const void *x, const void *up,
                           int64_t up_column, void *out) {
  const int64_t size = (int64_t)attn_dtype_size(shape->dtype), n = shape->columns;
  for (int64_t j = 0; j < n; j += LANES) {
    const int64_t some = n - j < LANES ? n - j : LANES;
    vec y = activate(activation, load_some(shape->dtype, (const char *)x + j * shape->x_column * size,
                                           shape->x_column, some));
    if (up) y *= load_some(shape->dtype, (const char *)up + j * up_column * size, up_column, some);
    store_some(shape->dtype, y, (char *)out + j * shape->out_column * size, shape->out_column, some);
  }
}
