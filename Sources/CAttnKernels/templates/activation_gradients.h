/* Slopes of the activations, and gradients through them with or without a gate. */

/* s = 1 / (1 + e^-u), the smaller and the larger one of s and 1 - s, neither of which cancels, and u where s has reached its
 * limit, so that Inf * 0 does not come about. */
typedef struct sigmoids {
  vec value[MANY], smaller[MANY], larger[MANY], u[MANY];
} sigmoids;

WORD sigmoids v_sigmoids(const int count, const vec *u) {
  sigmoids s;
  vec e[MANY];
  EACH(i, count) e[i] = -v_min(v_set1(-EXP_LOWEST), v_abs(u[i]));
  EACH(i, count) s.u[i] = v_sign_of(-e[i], u[i]);
  v_exps_within(count, e);
  EACH(i, count) {
    const vec d = (real)1 + e[i], near = (real)1 / d;
    /* What rounding 1 + e and its reciprocal took away would be most of the error. */
    const vec lost = e[i] - (d - (real)1), missing = near * v_fma(-lost, near, v_fma(-d, near, v_set1(1)));
    s.larger[i] = near + missing;
    s.smaller[i] = v_fma(e[i], near, e[i] * missing);
    s.value[i] = v_select(u[i] < (vec){0}, s.smaller[i], s.larger[i]);
  }
  return s;
}

/* x[i] = activation'(x[i]) */
WORD void slopes(const int count, attn_activation activation, vec *x) {
  switch (activation) {
    case ATTN_RELU: EACH(i, count) x[i] = v_select(x[i] <= (vec){0}, (vec){0}, v_set1(1)); break;
    case ATTN_GELU: v_gelu_slopes(count, x); break;
    case ATTN_GELU_TANH: { /* x s(u), u = c (x + 0.044715 x^3) with c = sqrt(8/pi) in two parts */
      const real c = (real)1.5957691216057308, low = (real)(1.5957691216057308 - (double)c);
      vec u[MANY], steep[MANY];
      EACH(i, count) {
        const vec z = v_min(v_set1(50), v_max(v_set1(-50), x[i])), square = z * z; /* no further: 0 * Inf */
        u[i] = v_fma(z, v_set1(c), z * v_fma(square, v_set1((real)0.07135481627260025), v_set1(low)));
        steep[i] = v_fma(z, v_set1(c), z * v_fma(square, v_set1((real)0.21406444881780076), v_set1(low)));
      }
      const sigmoids s = v_sigmoids(count, u);
      EACH(i, count) x[i] = v_fma(steep[i] * s.smaller[i], s.larger[i], s.value[i]);
      break;
    }
    case ATTN_SILU: {
      const sigmoids s = v_sigmoids(count, x);
      EACH(i, count) x[i] = v_fma(s.u[i] * s.smaller[i], s.larger[i], s.value[i]);
      break;
    }
    default: EACH(i, count) x[i] = v_set1(1);
  }
}

WORD void activation_gradient_vector(attn_activation activation, int64_t j, int64_t count, const real *x, const real *up,
                                     const real *grad, real *dx, real *dup) {
  const vec in = load_some(ROW_REAL, x + j, 1, count), g = load_some(ROW_REAL, grad + j, 1, count);
  vec d = in;
  slopes(1, activation, &d);
  d *= g;
  if (up) {
    const vec gate = load_some(ROW_REAL, up + j, 1, count);
    d *= gate;
    if (dup) store_some(ROW_REAL, g * activate(activation, in), dup + j, 1, count);
  }
  if (dx) store_some(ROW_REAL, d, dx + j, 1, count);
}

WORD void activation_gradient_reals(attn_activation activation, int64_t n, const real *x, const real *up, const real *grad,
                                    real *dx, real *dup, bool stream) {
  if (!up && n >= LANES) {
    WRITE_ROW(ROW_REAL, dx, n, stream, {
      row_load_many(count, ROW_REAL, x, j, v);
      slopes(count, activation, v);
      if (activation == ATTN_RELU && !stream) row_ask_written(count, ROW_REAL, dx, j);
      EACH(i, count) v[i] *= v_load(grad + j + i * LANES);
    });
    return;
  }
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) activation_gradient_vector(activation, j, LANES, x, up, grad, dx, dup);
  if (j < n) activation_gradient_vector(activation, j, n - j, x, up, grad, dx, dup);
}

static void activation_gradient_dense(attn_activation activation, int64_t n, const real *x, const real *up,
                                      const real *grad, real *dx, real *dup, bool stream) {
  switch (activation) { /* out here, so that each loop is of one kind */
    case ATTN_RELU: activation_gradient_reals(ATTN_RELU, n, x, up, grad, dx, dup, stream); break;
    case ATTN_GELU: activation_gradient_reals(ATTN_GELU, n, x, up, grad, dx, dup, stream); break;
    case ATTN_GELU_TANH: activation_gradient_reals(ATTN_GELU_TANH, n, x, up, grad, dx, dup, stream); break;
    case ATTN_SILU: activation_gradient_reals(ATTN_SILU, n, x, up, grad, dx, dup, stream); break;
    default: activation_gradient_reals(ATTN_IDENTITY, n, x, up, grad, dx, dup, stream); break;
  }
}

WORD const real *piece_of(const attn_operand *from, attn_dtype dtype, int64_t j, int64_t count, real *piece) {
  if (!from->data) return NULL;
  load_row(dtype, (const char *)from->data + j * from->column * (int64_t)attn_dtype_size(dtype), from->column, count, piece);
  return piece;
}

WORD void put_piece(const attn_operand *to, attn_dtype dtype, int64_t j, int64_t count, const real *piece) {
  if (!to->data) return;
  store_row(dtype, piece, count, (char *)to->data + j * to->column * (int64_t)attn_dtype_size(dtype), to->column);
}

static void activation_gradient(const attn_activation_gradient *p) {
  const attn_operand *all[] = { &p->x, &p->up, &p->grad, &p->dx, &p->dup };
  bool is_direct = p->dtype == ROW_REAL;
  for (int i = 0; i < 5; i++) is_direct = is_direct && (!all[i]->data || all[i]->column == 1);
  if (is_direct) {
    activation_gradient_dense(p->activation, p->columns, p->x.data, p->up.data, p->grad.data, p->dx.data, p->dup.data,
                              p->stream);
    return;
  }
  real x[PIECE], up[PIECE], grad[PIECE], dx[PIECE], dup[PIECE];
  for (int64_t j = 0; j < p->columns; j += PIECE) {
    const int64_t count = p->columns - j < PIECE ? p->columns - j : PIECE;
    piece_of(&p->x, p->dtype, j, count, x);
    piece_of(&p->grad, p->dtype, j, count, grad);
    activation_gradient_dense(p->activation, count, x, piece_of(&p->up, p->dtype, j, count, up), grad, dx, dup, false);
    put_piece(&p->dx, p->dtype, j, count, dx);
    put_piece(&p->dup, p->dtype, j, count, dup);
  }
}
