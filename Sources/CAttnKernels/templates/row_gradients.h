/* Gradients of rows of reals that lie side by side: softmax and the norms; and sums over rows. */

/* sum of a * b in short sums, and their sum in float64; of a alone where b is NULL. */
WORD double dot_reals(int64_t n, const real *a, const real *b) {
  wide_vec totals = {0};
  for (int64_t j = 0; j < n;) {
    vec some = {0};
    for (int i = 0; i < SHORT_SUM && j < n; i++, j += LANES) {
      const int64_t count = n - j < LANES ? n - j : LANES;
      const vec x = load_some(ROW_REAL, a + j, 1, count);
      some = b ? v_fma(x, load_some(ROW_REAL, b + j, 1, count), some) : some + x;
    }
    totals += __builtin_convertvector(some, wide_vec);
  }
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) totals[i] += totals[i + width];
  return totals[0];
}

/* dx = y (g - sum y g), y the softmax. dx may be y or g. */
static void softmax_gradient(int64_t n, const void *y, const void *grad, void *dx) {
  const real *out = y, *g = grad;
  const vec mean = v_set1((real)dot_reals(n, out, g));
  for (int64_t j = 0; j < n; j += LANES) {
    const int64_t count = n - j < LANES ? n - j : LANES;
    const vec p = load_some(ROW_REAL, out + j, 1, count);
    store_some(ROW_REAL, p * (load_some(ROW_REAL, g + j, 1, count) - mean), (real *)dx + j, 1, count);
  }
}

/* With h = (x - mean) / sqrt(variance + eps) and w = g * weight:
 *   dx = (w - mean(w) - h mean(w h)) / sqrt(variance + eps), without mean(w) where nothing was centred;
 *   weights += g h, biases += g. dx may be x or g; dx, weights and biases may be NULL. */
static void norm_gradient(const attn_norm *norm, const void *x, const void *grad, void *dx, void *weights, void *biases) {
  const int64_t n = norm->shape.columns;
  const real *in = x, *g = grad, *weight = norm->weight;
  centre c = { {0}, {0} };
  if (norm->centred) {
    const double mean = norm_sum(ROW_REAL, n, in, false, &c) / (double)n;
    c = (centre){ v_set1((real)mean), v_set1((real)(mean - (double)(real)mean)) };
  }
  const double scale = 1 / sqrt(norm_sum(ROW_REAL, n, in, true, &c) / (double)n + norm->eps);
  const vec factor = v_set1((real)scale);
  wide_vec sums = {0}, products = {0};
  for (int64_t j = 0; j < n;) {
    vec some = {0}, some_products = {0};
    for (int i = 0; i < SHORT_SUM && j < n; i++, j += LANES) {
      const int64_t count = n - j < LANES ? n - j : LANES;
      lanemask own; /* behind the row x is 0, but x - mean is not */
      for (int lane = 0; lane < LANES; lane++) own[lane] = lane < count ? -1 : 0;
      const vec h = v_select(own, (load_some(ROW_REAL, in + j, 1, count) - c.high - c.low) * factor, (vec){0});
      const vec outer = load_some(ROW_REAL, g + j, 1, count);
      const vec w = weight ? outer * load_some(ROW_REAL, weight + j, 1, count) : outer;
      some += w;
      some_products = v_fma(w, h, some_products);
      if (weights) {
        real *to = (real *)weights + j;
        store_some(ROW_REAL, v_fma(outer, h, load_some(ROW_REAL, to, 1, count)), to, 1, count);
      }
      if (biases) {
        real *to = (real *)biases + j;
        store_some(ROW_REAL, load_some(ROW_REAL, to, 1, count) + outer, to, 1, count);
      }
    }
    sums += __builtin_convertvector(some, wide_vec);
    products += __builtin_convertvector(some_products, wide_vec);
  }
  if (!dx) return;
  double sum = 0, product = 0;
  for (int i = 0; i < LANES; i++) sum += sums[i], product += products[i];
  const vec mean = v_set1(norm->centred ? (real)(sum / (double)n) : 0), slope = v_set1((real)(product / (double)n));
  for (int64_t j = 0; j < n; j += LANES) {
    const int64_t count = n - j < LANES ? n - j : LANES;
    const vec h = (load_some(ROW_REAL, in + j, 1, count) - c.high - c.low) * factor;
    const vec outer = load_some(ROW_REAL, g + j, 1, count);
    const vec w = weight ? outer * load_some(ROW_REAL, weight + j, 1, count) : outer;
    store_some(ROW_REAL, factor * (w - mean - h * slope), (real *)dx + j, 1, count);
  }
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
