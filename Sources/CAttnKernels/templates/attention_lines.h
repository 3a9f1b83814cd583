/* Rows of k and v as the products read them: where they lie, or brought together.
 *
 *   blocks   row j is row j % block_rows of block blocks[j / block_rows]: a KEYS of rows is copied side by side, unless it
 *            lies evenly after all
 *   int8     row j is scale[j] * x[j], in the computing type
 *
 * What follows is the same for all, so the result has the bits of one on such rows in one piece. */

/* Row j begins at first + j * row elements. */
typedef struct lines {
  const char *first;
  attn_dtype dtype;
  int64_t row, element;
} lines;

/* Elements from the first row to row `at`. */
static int64_t row_offset(const work *w, int64_t row, int64_t block, int64_t at) {
  const int64_t *blocks = w->sequence->blocks, rows = w->problem->block_rows;
  return blocks ? blocks[at / rows] * block + at % rows * row : at * row;
}

/* How many of `n` rows from `at` on share a block. */
static int64_t rows_together(const work *w, int64_t at, int64_t n) {
  const int64_t left = w->sequence->blocks ? w->problem->block_rows - at % w->problem->block_rows : n;
  return left < n ? left : n;
}

/* Each block goes on where the one before it ends. */
static bool lie_evenly(const work *w, int64_t row, int64_t block, int64_t key, int64_t n) {
  const int64_t first = row_offset(w, row, block, key);
  for (int64_t j = rows_together(w, key, n); j < n; j += rows_together(w, key + j, n - j))
    if (row_offset(w, row, block, key + j) != first + j * row) return false;
  return true;
}

/* line[i] = scale * x[i] */
static void dequantize(const int8_t *x, real scale, int64_t count, real *line) {
  const vec factor = v_set1(scale);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) v_store(line + i, v_from_i8(x + i) * factor);
  for (; i < count; i++) line[i] = (real)x[i] * scale;
}

static void take_row(const char *x, int64_t element, int64_t size, int64_t count, char *to) {
  if (element == 1) memcpy(to, x, (size_t)(count * size));
  else for (int64_t i = 0; i < count; i++) memcpy(to + i * size, x + i * element * size, (size_t)size);
}

/* Rows past kv_len, which no query sees, become 0: their blocks are not to be looked up. */
static __attribute__((noinline)) lines gather(const work *w, const char *x, attn_strides step, int64_t block,
                                              const float *scales, int64_t key, int64_t n, int64_t width) {
  const attn_problem *P = w->problem;
  const int64_t size = (int64_t)attn_dtype_size(P->kv_dtype), bytes = width * (scales ? (int64_t)sizeof(real) : size);
  const int64_t left = w->sequence->kv_len - key, known = left < 0 ? 0 : left < n ? left : n;
  char *to = (char *)w->gathered;
  if (!scales && known == n && lie_evenly(w, step.row, block, key, n))
    return (lines){ x + row_offset(w, step.row, block, key) * size, P->kv_dtype, step.row, step.element };
  for (int64_t j = 0, some; j < known; j += some) {
    some = rows_together(w, key + j, known - j);
    const char *from = x + row_offset(w, step.row, block, key + j) * size;
    const float *scale = scales ? scales + row_offset(w, P->scales.row, P->scale_block, key + j) : NULL;
    for (int64_t i = 0; i < some; i++, to += bytes) {
      if (scale) dequantize((const int8_t *)from + i * step.row, scale[i * P->scales.row], width, (real *)to);
      else take_row(from + i * step.row * size, step.element, size, width, to);
    }
  }
  memset(to, 0, (size_t)((n - known) * bytes));
  return (lines){ (const char *)w->gathered, scales ? REAL_DTYPE : P->kv_dtype, width, 1 };
}

/* Rows [key, key + n) of k or v. Good until the next call. */
WORD lines lines_of(const work *w, const char *x, attn_strides step, int64_t block, const float *scales, int64_t key,
                      int64_t n, int64_t width) {
  const attn_problem *P = w->problem;
  if (w->sequence->blocks || scales) return gather(w, x, step, block, scales, key, n, width);
  return (lines){ x + key * step.row * (int64_t)attn_dtype_size(P->kv_dtype), P->kv_dtype, step.row, step.element };
}

/* Keys [key, key + n), and their values. */
WORD lines keys_at(const work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  return lines_of(w, w->k, P->k, P->k_block, w->k_scales, key, n, P->head_dim);
}
WORD lines values_at(const work *w, int64_t key, int64_t n) {
  const attn_problem *P = w->problem;
  return lines_of(w, w->v, P->v, P->v_block, w->v_scales, key, n, P->value_dim);
}

/* What lies `by` bytes behind row `key` of k or v; nothing where rows come in blocks. */
static ahead rows_ahead(const work *w, const char *x, attn_strides step, int64_t key, int64_t width, int64_t by) {
  const int64_t size = (int64_t)attn_dtype_size(w->problem->kv_dtype), row = step.row * size;
  if (w->sequence->blocks || step.element != 1 || width == 0) return (ahead){ x, 0, 0, 0 };
  if (step.row == width) return (ahead){ x + key * row + by, 0, INT64_MAX / 2, 0 };
  return (ahead){ x + (key + by / (width * size)) * row, 0, width * size, row };
}

/* Asks for the next bytes of such rows, while others are worked on. */
static void ask_for(ahead *next, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) ask(go_on(next, 64));
}
