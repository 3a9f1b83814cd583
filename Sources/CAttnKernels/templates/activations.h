/* Activations of vectors, and of rows with or without a gate. */

#define GELU_OF_BF16 ((attn_activation)(ATTN_SILU + 1)) /* among the activations of this file: gelu to fewer digits */

/* x[i] = activation(x[i]) */
WORD void activate_many(const int count, attn_activation activation, vec *x) {
  vec e[MANY];
  switch ((int)activation) {
    case ATTN_RELU: EACH(i, count) x[i] = v_select(x[i] <= (vec){0}, (vec){0}, x[i]); break;
    case ATTN_GELU: v_gelus(count, false, x); break;
    case GELU_OF_BF16: v_gelus(count, true, x); break;
    case ATTN_GELU_TANH: /* x (1 + tanh u) / 2 = x / (1 + e^-2u) */
      EACH(i, count) {
        const vec u = x[i] * (real)0.7978845608028654 * ((real)1 + (real)0.044715 * x[i] * x[i]);
        e[i] = (real)-2 * u;
      }
      v_exps(count, e);
      EACH(i, count) x[i] /= (real)1 + e[i];
      break;
    case ATTN_SILU:
      EACH(i, count) e[i] = -x[i];
      v_exps(count, e);
      EACH(i, count) x[i] /= (real)1 + e[i];
      break;
  }
}

WORD vec activate(attn_activation activation, vec x) {
  activate_many(1, activation, &x);
  return x;
}

WORD void activate_vectors(attn_dtype dtype, attn_activation activation, int64_t n, const void *x, const void *up, void *out,
                           bool stream) {
  if (n < LANES) {
    vec y = activate(activation, load_some(dtype, x, 1, n));
    if (up) y *= load_some(dtype, up, 1, n);
    store_some(dtype, y, out, 1, n);
    return;
  }
  WRITE_ROW(dtype, out, n, stream, {
    row_load_many(count, dtype, x, j, v);
    activate_many(count, activation, v);
    if (activation == ATTN_RELU && !stream) row_ask_written(count, dtype, out, j);
    if (up) EACH(i, count) v[i] *= row_load(dtype, up, j + i * LANES);
  });
}

WORD void activate_dense(attn_dtype dtype, attn_activation activation, int64_t n, const void *x, const void *up, void *out,
                         bool stream) {
  switch ((int)activation) { /* out here, so that each loop is of one kind */
    case ATTN_RELU: activate_vectors(dtype, ATTN_RELU, n, x, up, out, stream); break;
    case ATTN_GELU: activate_vectors(dtype, ATTN_GELU, n, x, up, out, stream); break;
    case GELU_OF_BF16: activate_vectors(dtype, GELU_OF_BF16, n, x, up, out, stream); break;
    case ATTN_GELU_TANH: activate_vectors(dtype, ATTN_GELU_TANH, n, x, up, out, stream); break;
    case ATTN_SILU: activate_vectors(dtype, ATTN_SILU, n, x, up, out, stream); break;
    default: activate_vectors(dtype, ATTN_IDENTITY, n, x, up, out, stream); break;
  }
}

static void activate_reals(attn_activation activation, int64_t n, const real *x, const real *up, real *out) {
  activate_dense(ROW_REAL, activation, n, x, up, out, false);
}

static void activation_row(const attn_rows *shape, attn_activation activation, const void *x, const void *up,
                           int64_t up_column, void *out) {
  const attn_dtype dtype = shape->dtype;
  const int64_t size = (int64_t)attn_dtype_size(dtype), n = shape->columns;
  if (activation == ATTN_GELU && dtype == ATTN_BF16) activation = GELU_OF_BF16;
  if (shape->x_column == 1 && shape->out_column == 1 && (!up || up_column == 1)) {
    OF_DTYPE(dtype, activate_dense, activation, n, x, up, out, shape->stream);
    return;
  }
  real x_piece[PIECE], up_piece[PIECE];
  for (int64_t j = 0; j < n; j += PIECE) {
    const int64_t some = n - j < PIECE ? n - j : PIECE;
    load_row(dtype, (const char *)x + j * shape->x_column * size, shape->x_column, some, x_piece);
    if (up) load_row(dtype, (const char *)up + j * up_column * size, up_column, some, up_piece);
    activate_reals(activation, some, x_piece, up ? up_piece : NULL, x_piece);
    store_row(dtype, x_piece, some, (char *)out + j * shape->out_column * size, shape->out_column);
  }
}
