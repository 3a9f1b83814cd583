/* Gradients of rows of reals that lie side by side: softmax and the norms; and sums over rows. */

WORD vec dot_term(const real *a, const real *b, int64_t j, int64_t count, vec sum) {
  return v_fma(load_some(ROW_REAL, a + j, 1, count), load_some(ROW_REAL, b + j, 1, count), sum);
}

/* sum of a * b in sums of at most SHORT_SUM vectors, four side by side, and the sums of those in float64. */
WORD double dot_reals(int64_t n, const real *a, const real *b) {
  wide_vec totals = {0};
  int64_t j = 0;
  while (j + 4 * LANES <= n) {
    vec sums[4] = { {0}, {0}, {0}, {0} };
    for (int i = 0; i < SHORT_SUM / 4 && j + 4 * LANES <= n; i++, j += 4 * LANES)
#pragma clang loop unroll(full)
      for (int k = 0; k < 4; k++) sums[k] = dot_term(a, b, j + k * LANES, LANES, sums[k]);
    totals += __builtin_convertvector((sums[0] + sums[1]) + (sums[2] + sums[3]), wide_vec);
  }
  vec few = {0};
  for (; j + LANES <= n; j += LANES) few = dot_term(a, b, j, LANES, few);
  if (j < n) few = dot_term(a, b, j, n - j, few);
  totals += __builtin_convertvector(few, wide_vec);
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) totals[i] += totals[i + width];
  return totals[0];
}

WORD void softmax_gradient_vector(int64_t j, int64_t count, const real *y, const real *g, vec mean, real *dx) {
  const vec p = load_some(ROW_REAL, y + j, 1, count);
  store_some(ROW_REAL, p * (load_some(ROW_REAL, g + j, 1, count) - mean), dx + j, 1, count);
}

/* dx = y (g - sum y g), y the softmax. dx may be y or g. */
static void softmax_gradient(int64_t n, const void *y, const void *grad, void *dx) {
  const real *out = y, *g = grad;
  const vec mean = v_set1((real)dot_reals(n, out, g));
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) softmax_gradient_vector(j, LANES, out, g, mean, dx);
  if (j < n) softmax_gradient_vector(j, n - j, out, g, mean, dx);
}

/* What the vectors of a norm's row share, and of one of them g, and h and w as below. */
typedef struct norm_row_state {
  const real *x, *g, *weight;
  centre c;
  vec factor;
} norm_row_state;

typedef struct norm_terms {
  vec h, g, w;
} norm_terms;

WORD norm_terms norm_terms_at(const norm_row_state *s, int64_t j, int64_t count) {
  norm_terms t;
  t.h = (load_some(ROW_REAL, s->x + j, 1, count) - s->c.high - s->c.low) * s->factor;
  for (int lane = (int)count; lane < LANES; lane++) t.h[lane] = 0; /* behind the row x is 0, but x - mean is not */
  t.g = load_some(ROW_REAL, s->g + j, 1, count);
  t.w = s->weight ? t.g * load_some(ROW_REAL, s->weight + j, 1, count) : t.g;
  return t;
}

/* sums[0] += w, sums[1] += w h; weights += g h, biases += g. */
WORD void norm_gradient_sums(const norm_row_state *s, int64_t j, int64_t count, real *weights, real *biases, vec *sums) {
  const norm_terms t = norm_terms_at(s, j, count);
  sums[0] += t.w;
  sums[1] = v_fma(t.w, t.h, sums[1]);
  if (weights) store_some(ROW_REAL, v_fma(t.g, t.h, load_some(ROW_REAL, weights + j, 1, count)), weights + j, 1, count);
  if (biases) store_some(ROW_REAL, load_some(ROW_REAL, biases + j, 1, count) + t.g, biases + j, 1, count);
}

WORD void norm_gradient_vector(const norm_row_state *s, int64_t j, int64_t count, vec mean, vec slope, real *dx) {
  const norm_terms t = norm_terms_at(s, j, count);
  store_some(ROW_REAL, s->factor * (t.w - mean - t.h * slope), dx + j, 1, count);
}

/* With h = (x - mean) / sqrt(variance + eps) and w = g * weight:
 *   dx = (w - mean(w) - h mean(w h)) / sqrt(variance + eps), without mean(w) where nothing was centred;
 *   weights += g h, biases += g. dx may be x or g; dx, weights and biases may be NULL. */
static void norm_gradient(const attn_norm *norm, const void *x, const void *grad, void *dx, void *weights, void *biases) {
  const int64_t n = norm->shape.columns;
  norm_row_state s = { .x = x, .g = grad, .weight = norm->weight };
  if (norm->centred) {
    const double mean = norm_sum(ROW_REAL, n, x, false, &s.c) / (double)n;
    s.c = (centre){ v_set1((real)mean), v_set1((real)(mean - (double)(real)mean)) };
  }
  s.factor = v_set1((real)(1 / sqrt(norm_sum(ROW_REAL, n, x, true, &s.c) / (double)n + norm->eps)));
  wide_vec totals[2] = { {0}, {0} };
  int64_t j = 0;
  while (j + LANES <= n) {
    vec sums[2] = { {0}, {0} };
    for (int i = 0; i < SHORT_SUM && j + LANES <= n; i++, j += LANES) norm_gradient_sums(&s, j, LANES, weights, biases, sums);
    for (int k = 0; k < 2; k++) totals[k] += __builtin_convertvector(sums[k], wide_vec);
  }
  if (j < n) {
    vec sums[2] = { {0}, {0} };
    norm_gradient_sums(&s, j, n - j, weights, biases, sums);
    for (int k = 0; k < 2; k++) totals[k] += __builtin_convertvector(sums[k], wide_vec);
  }
  if (!dx) return;
  double sum = 0, product = 0;
  for (int i = 0; i < LANES; i++) sum += totals[0][i], product += totals[1][i];
  const vec mean = v_set1(norm->centred ? (real)(sum / (double)n) : 0), slope = v_set1((real)(product / (double)n));
  j = 0;
  for (; j + LANES <= n; j += LANES) norm_gradient_vector(&s, j, LANES, mean, slope, dx);
  if (j < n) norm_gradient_vector(&s, j, n - j, mean, slope, dx);
}

/* Vector j of row i, or of the row that rows names. */
WORD vec row_of(attn_dtype dtype, const char *x, int64_t step, const int64_t *rows, int64_t i, int64_t some) {
  return load_some(dtype, x + (rows ? rows[i] : i) * step, 1, some);
}

/* sums[j] += x[rows[0]][j] + x[rows[1]][j] + ...: eight at a time in a tree, which loses fewer digits than one after the
 * other, and these sums in order; rows NULL: 0, 1, ... */
WORD void add_rows_dense(attn_dtype dtype, int64_t n, const char *x, int64_t step, const int64_t *rows, int64_t count, real *sums) {
  for (int64_t j = 0; j < n; j += LANES) {
    const int64_t some = n - j < LANES ? n - j : LANES;
    const char *at = x + j * (int64_t)attn_dtype_size(dtype);
    vec sum = {0};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
      vec four[4];
#pragma clang loop unroll(full)
      for (int k = 0; k < 4; k++)
        four[k] = row_of(dtype, at, step, rows, i + 2 * k, some) + row_of(dtype, at, step, rows, i + 2 * k + 1, some);
      sum += (four[0] + four[1]) + (four[2] + four[3]);
    }
    vec rest = {0};
    for (; i < count; i++) rest += row_of(dtype, at, step, rows, i, some);
    store_some(ROW_REAL, load_some(ROW_REAL, sums + j, 1, some) + (sum + rest), sums + j, 1, some);
  }
}

static void add_rows(attn_dtype dtype, int64_t n, const void *x, int64_t step, int64_t column, const int64_t *rows,
                     int64_t count, void *sums) {
  if (column == 1) {
    OF_DTYPE(dtype, add_rows_dense, n, x, step, rows, count, sums);
    return;
  }
  /* Eight rows at a time side by side, so that they add up as above. */
  real pieces[8][PIECE];
  for (int64_t j = 0; j < n; j += PIECE) {
    const int64_t some = n - j < PIECE ? n - j : PIECE;
    real total[PIECE] = {0};
    for (int64_t i = 0; i < count; i += 8) {
      const int64_t few = count - i < 8 ? count - i : 8;
      for (int64_t k = 0; k < few; k++)
        load_row(dtype, (const char *)x + (rows ? rows[i + k] : i + k) * step + j * column * (int64_t)attn_dtype_size(dtype),
                 column, some, pieces[k]);
      add_rows_dense(ROW_REAL, some, (const char *)pieces, sizeof *pieces, NULL, few, total);
    }
    for (int64_t k = 0; k < some; k++) ((real *)sums)[j + k] += total[k];
  }
}
