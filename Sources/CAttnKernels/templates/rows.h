/* Kernels over one row: softmax and activations. */

#define SHORT_SUM 16 /* vectors */

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
  for (int64_t j = 0; j < padded;) { /* short sums of their own: a long running sum would lose digits */
    vec some = {0};
    for (int i = 0; i < SHORT_SUM && j < padded; i++, j += LANES) {
      const vec e = v_exp(v_load(row + j) - m);
      some += e;
      v_store(row + j, e);
    }
    sums += some;
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

/* The first n of a whole number of vectors. */
WORD void activate_vectors(const attn_activation activation, int64_t n, const real *x, const real *up, real *out) {
  for (int64_t j = 0; j < n; j += LANES) {
    vec y = activate(activation, v_load(x + j));
    if (up) y *= v_load(up + j);
    v_store(out + j, y);
  }
}

static void activate_piece(attn_activation activation, int64_t n, const real *x, const real *up, real *out) {
  switch (activation) { /* out here, so that each loop is of one kind */
    case ATTN_RELU: activate_vectors(ATTN_RELU, n, x, up, out); break;
    case ATTN_GELU: activate_vectors(ATTN_GELU, n, x, up, out); break;
    case ATTN_GELU_TANH: activate_vectors(ATTN_GELU_TANH, n, x, up, out); break;
    case ATTN_SILU: activate_vectors(ATTN_SILU, n, x, up, out); break;
    default: activate_vectors(ATTN_IDENTITY, n, x, up, out); break;
  }
}

#define PIECE 512 /* elements converted at a time: stays in L1 */

static void activation_row(const attn_rows *shape, attn_activation activation, const void *x, const void *up,
                           int64_t up_column, void *out) {
  const attn_dtype dtype = shape->dtype;
  const int64_t size = (int64_t)attn_dtype_size(dtype), n = shape->columns;
  const bool direct = size == sizeof(real) && shape->x_column == 1 && shape->out_column == 1 && (!up || up_column == 1);
  const int64_t whole = direct ? n / LANES * LANES : 0;
  activate_piece(activation, whole, x, up, out);
  real x_piece[PIECE], up_piece[PIECE];
  for (int64_t j = whole; j < n; j += PIECE) {
    const int64_t some = n - j < PIECE ? n - j : PIECE;
    const int64_t padded = (some + LANES - 1) / LANES * LANES;
    for (int64_t i = some; i < padded; i++) x_piece[i] = up_piece[i] = 0;
    load_row(dtype, (const char *)x + j * shape->x_column * size, shape->x_column, some, x_piece);
    if (up) load_row(dtype, (const char *)up + j * up_column * size, up_column, some, up_piece);
    activate_piece(activation, padded, x_piece, up ? up_piece : NULL, x_piece);
    store_row(dtype, x_piece, some, (char *)out + j * shape->out_column * size, shape->out_column);
  }
}
