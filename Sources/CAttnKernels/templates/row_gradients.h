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
  return wide_total(&totals);
}

/* dx = y (g - sum y g), y the softmax. dx may be y or g. */
static void softmax_gradient(int64_t n, const void *y, const void *grad, void *dx, bool stream) {
  const real *p = y, *g = grad;
  const vec mean = v_set1((real)dot_reals(n, p, g));
  if (n < LANES)
    store_some(ROW_REAL, load_some(ROW_REAL, p, 1, n) * (load_some(ROW_REAL, g, 1, n) - mean), dx, 1, n);
  else
    WRITE_ROW(ROW_REAL, dx, n, stream, {
      row_ask(count, ROW_REAL, p, n, j);
      row_ask(count, ROW_REAL, g, n, j);
      EACH(i, count) v[i] = v_load(p + j + i * LANES) * (v_load(g + j + i * LANES) - mean);
    });
}

/* A norm's row: n elements, and behind them zeros up to the first vector's end. */
typedef struct norm_gradient_row {
  int64_t n;
  const real *x, *g, *weight;
  real *dx, *weights, *biases;
  bool centred, stream;
  double eps;
} norm_gradient_row;

/* The mean as high + low; 1 / sqrt(variance + eps); what h is where x = high; mean(w); mean(w h). */
typedef struct norm_facts {
  vec high, low, factor, shift, mean, slope;
} norm_facts;

/* d = x - high and w = g * weight. */
typedef struct norm_terms {
  vec d, g, w;
} norm_terms;

/* Sums of d d, w and w d. */
typedef struct norm_sums {
  vec dd, w, wd;
} norm_sums;

/* Here and below, `all`: weight and every output are there and nothing is streamed, as in most calls. */
WORD norm_terms norm_terms_at(const bool all, const norm_gradient_row *row, int64_t j, const norm_facts *f) {
  const vec g = v_load(row->g + j);
  return (norm_terms){ v_load(row->x + j) - f->high, g, all || row->weight ? g * v_load(row->weight + j) : g };
}

/* The same, 0 in the lanes that are not `own`. */
WORD norm_terms norm_terms_of(lanemask own, norm_terms t) {
  return (norm_terms){ v_select(own, t.d, (vec){0}), v_select(own, t.g, (vec){0}), v_select(own, t.w, (vec){0}) };
}

/* The sums and the terms; biases += g. */
WORD norm_sums norm_gradient_sums(const bool all, const norm_gradient_row *row, int64_t j, norm_terms t, norm_sums sums) {
  if (all || row->biases) v_store(row->biases + j, v_load(row->biases + j) + t.g);
  return (norm_sums){ v_fma(t.d, t.d, sums.dd), sums.w + t.w, v_fma(t.w, t.d, sums.wd) };
}

/* All but the mean; the row's last vector begins at `last`, and the lanes `rest` of it are behind the whole ones. */
WORD void norm_facts_of(const bool all, const norm_gradient_row *row, int64_t last, lanemask rest, norm_facts *f) {
  const int64_t n = row->n, whole = n / LANES * LANES;
  wide_vec dd = {0}, w = {0}, wd = {0};
  norm_sums first = { {0}, {0}, {0} }, second = first;
  if (whole < n) first = norm_gradient_sums(all, row, last, norm_terms_of(rest, norm_terms_at(all, row, last, f)), first);
  int64_t j = 0;
  do {
    for (int i = 0; i < SHORT_SUM / 2 && j + 2 * LANES <= whole; i++, j += 2 * LANES) {
      row_ask(2, ROW_REAL, row->x, n, j);
      first = norm_gradient_sums(all, row, j, norm_terms_at(all, row, j, f), first);
      second = norm_gradient_sums(all, row, j + LANES, norm_terms_at(all, row, j + LANES, f), second);
    }
    if (whole - j == LANES) {
      first = norm_gradient_sums(all, row, j, norm_terms_at(all, row, j, f), first);
      j += LANES;
    }
    dd += __builtin_convertvector(first.dd + second.dd, wide_vec);
    w += __builtin_convertvector(first.w + second.w, wide_vec);
    wd += __builtin_convertvector(first.wd + second.wd, wide_vec);
    first = second = (norm_sums){ {0}, {0}, {0} };
  } while (j < whole);
  const double low = f->low[0], mean = wide_total(&w) / (double)n;
  double variance = wide_total(&dd) / (double)n - low * low;
  /* The errors of the mean are to vanish in it: seldom they do not. */
  if (variance < (REAL_IS_FLOAT ? 0x1p24 : 0x1p53) * low * low)
    variance = norm_sum(ROW_REAL, n, row->x, true, &(centre){ f->high, f->low }) / (double)n;
  const double factor = 1 / sqrt(variance + row->eps);
  f->factor = v_set1((real)factor);
  f->shift = v_set1((real)(-low * factor));
  f->mean = v_set1(row->centred ? (real)mean : 0);
  f->slope = v_set1((real)((wide_total(&wd) / (double)n - low * mean) * factor));
}

/* dx; and weights += g h for the lanes whose g is in t.g. */
WORD vec norm_gradient_value(const bool all, const norm_gradient_row *row, int64_t j, norm_terms t, const norm_facts *f) {
  const vec h = v_fma(t.d, f->factor, f->shift);
  if (all || row->weights) v_store(row->weights + j, v_fma(t.g, h, v_load(row->weights + j)));
  return f->factor * v_fma(-f->slope, h, t.w - f->mean);
}

WORD vec norm_gradient_edge(const bool all, const norm_gradient_row *row, int64_t j, lanemask own, const norm_facts *f) {
  norm_terms t = norm_terms_at(all, row, j, f);
  t.g = v_select(own, t.g, (vec){0});
  return norm_gradient_value(all, row, j, t, f);
}

WORD void norm_gradient_store(const bool all, const norm_gradient_row *row, int64_t j, const norm_facts *f) {
  const vec value = norm_gradient_value(all, row, j, norm_terms_at(all, row, j, f), f);
  if (!all && !row->dx) return;
  if (!all && row->stream) row_stream(ROW_REAL, row->dx, j, value);
  else v_store(row->dx + j, value);
}

WORD void norm_gradient_dense(const bool all, const norm_gradient_row *row) {
  const int64_t n = row->n, last = n < LANES ? 0 : n - LANES;
  const centre none = { {0}, {0} };
  const double mean = row->centred ? norm_sum(ROW_REAL, n, row->x, false, &none) / (double)n : 0;
  norm_facts f = { .high = v_set1((real)mean), .low = v_set1((real)(mean - (double)(real)mean)) };
  ivec lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
  norm_facts_of(all, row, last, n < LANES ? lane < (bits)n : lane >= (bits)(LANES - n % LANES), &f);

  /* As WRITE_ROW does it; what the first and the last vector add to the weights is theirs alone. */
  const int64_t begin = n < LANES ? n : row_aligned(ROW_REAL, row->dx ? row->dx : row->x);
  const int64_t end = begin + (last > begin ? (last - begin + LANES - 1) / LANES * LANES : 0);
  const vec first = norm_gradient_edge(all, row, 0, lane < (bits)begin, &f);
  const vec final = norm_gradient_edge(all, row, last, lane >= (bits)(end - last), &f);
  int64_t j = begin;
  for (; j + 2 * LANES <= end; j += 2 * LANES) {
    row_ask(2, ROW_REAL, row->g, n, j);
    norm_gradient_store(all, row, j, &f);
    norm_gradient_store(all, row, j + LANES, &f);
  }
  if (j < end) norm_gradient_store(all, row, j, &f);
  if (!all && !row->dx) return;
  v_store(row->dx, first);
  v_store(row->dx + last, final);
}

/* With h = (x - mean) / sqrt(variance + eps) and w = g * weight:
 *   dx = (w - mean(w) - h mean(w h)) / sqrt(variance + eps), without mean(w) where nothing was centred;
 *   weights += g h, biases += g. dx may be x or g; dx, weights and biases may be NULL. */
static void norm_gradient(const attn_norm *norm, const void *x, const void *grad, void *dx, void *weights, void *biases) {
  const int64_t n = norm->shape.columns;
  norm_gradient_row row = { n, x, grad, norm->weight, dx, weights, biases, norm->centred, norm->shape.stream, norm->eps };
  if (n >= LANES) {
    if (weights && biases && dx && row.weight && !row.stream) norm_gradient_dense(true, &row);
    else norm_gradient_dense(false, &row);
    return;
  }
  const void *given[5] = { x, grad, norm->weight, weights, biases };
  real near[6][LANES];
  for (int i = 0; i < 5; i++) v_store(near[i], given[i] ? load_some(ROW_REAL, given[i], 1, n) : (vec){0});
  row.x = near[0];
  row.g = near[1];
  if (row.weight) row.weight = near[2];
  if (weights) row.weights = near[3];
  if (biases) row.biases = near[4];
  if (dx) row.dx = near[5];
  norm_gradient_dense(false, &row);
  if (weights) store_some(ROW_REAL, v_load(near[3]), weights, 1, n);
  if (biases) store_some(ROW_REAL, v_load(near[4]), biases, 1, n);
  if (dx) store_some(ROW_REAL, v_load(near[5]), dx, 1, n);
}

WORD void add_some(real *sums, int64_t count, vec v) {
  store_some(ROW_REAL, load_some(ROW_REAL, sums, 1, count) + v, sums, 1, count);
}

/* sums += part, and zeros in part */
static void take_sums(int64_t n, void *part, void *sums) {
  real *from = part, *to = sums;
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    v_store(to + j, v_load(to + j) + v_load(from + j));
    v_store(from + j, (vec){0});
  }
  for (; j < n; j++) {
    to[j] += from[j];
    from[j] = 0;
  }
}

/* A vector of row i, or of the row that rows names. */
WORD vec row_of(attn_dtype dtype, const char *x, int64_t step, const int64_t *rows, int64_t i, int64_t some) {
  return load_some(dtype, x + (rows ? rows[i] : i) * step, 1, some);
}

WORD void add_rows_vector(attn_dtype dtype, const char *at, int64_t step, const int64_t *rows, int64_t count, int64_t some,
                          real *sums) {
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
  add_some(sums, some, sum + rest);
}

/* sums[j] += x[rows[0]][j] + x[rows[1]][j] + ...: eight at a time in a tree, which loses fewer digits than one after the
 * other, and these sums in order; rows NULL: 0, 1, ... */
WORD void add_rows_dense(attn_dtype dtype, int64_t n, const char *x, int64_t step, const int64_t *rows, int64_t count, real *sums) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  int64_t j = 0;
  if (count == 1)
    for (; j + LANES <= n; j += LANES)
      v_store(sums + j, v_load(sums + j) + row_of(dtype, x + j * size, step, rows, 0, LANES));
  for (; j + LANES <= n; j += LANES) add_rows_vector(dtype, x + j * size, step, rows, count, LANES, sums + j);
  if (j < n) add_rows_vector(dtype, x + j * size, step, rows, count, n - j, sums + j);
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
