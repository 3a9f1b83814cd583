/* Ways of product operands in and out of memory, where operands are plain numbers. */

#define GROUPS(count) (count)
#define REAL_DTYPE (REAL_IS_FLOAT ? ATTN_F32 : ATTN_F64)

static void operand_line(attn_dtype dtype, const void *x, int64_t step, int64_t count, operand *line) {
  load_row(dtype, x, step, count, line);
}

/* rows[j] points at `width` operands of row j of x, the result apart; in place if x is of the computing type, else
 * converted to block[count][width]. */
static int64_t operand_rows(attn_dtype dtype, const void *x, int64_t row_step, int64_t step, int64_t count, int64_t width,
                            operand *block, const operand **rows) {
  const bool in_place = dtype == REAL_DTYPE;
  const int64_t bytes = row_step * (int64_t)attn_dtype_size(dtype);
  for (int64_t j = 0; j < count; j++) {
    const char *row = (const char *)x + j * bytes;
    if (!in_place) operand_line(dtype, row, step, width, block + j * width);
    rows[j] = in_place ? (const operand *)row : block + j * width;
  }
  return in_place ? step : 1;
}

/* Column d of x begins at first + d * next, and its operands lie `step` apart. */
typedef struct column_operands { const operand *first; int64_t next, step; } column_operands;

static column_operands operand_columns(attn_dtype dtype, const void *x, int64_t row_step, int64_t step, int64_t count,
                                       int64_t width, operand *block) {
  if (dtype == REAL_DTYPE) return (column_operands){ x, step, row_step };
  const int64_t bytes = row_step * (int64_t)attn_dtype_size(dtype);
  for (int64_t j = 0; j < count; j++) operand_line(dtype, (const char *)x + j * bytes, step, width, block + j * width);
  return (column_operands){ block, 1, width };
}

/* Lanes of s[count][step] as operands along the rows. */
static const operand *operand_lanes(const real *s, int64_t count, int64_t vecs, int64_t step, operand *block) {
  (void)count, (void)vecs, (void)step, (void)block;
  return s;
}

/* Whether rows of `width` elements, `step` apart, can be read as operands where they lie. */
static bool operands_lie(attn_dtype dtype, int64_t step, int64_t width) {
  (void)width;
  return step == 1 && (dtype == REAL_DTYPE || (REAL_IS_FLOAT && (dtype == ATTN_F16 || dtype == ATTN_BF16)));
}

/* FUNCTION(dtype, ...) with the dtype of rows that lie so as a constant. */
#if REAL_IS_FLOAT
#define OF_LYING(dtype, FUNCTION, ...)                       \
  switch (dtype) {                                           \
    case ATTN_F16: FUNCTION(ATTN_F16, __VA_ARGS__); break;   \
    case ATTN_BF16: FUNCTION(ATTN_BF16, __VA_ARGS__); break; \
    default: FUNCTION(ATTN_F32, __VA_ARGS__);                \
  }
#else
#define OF_LYING(dtype, FUNCTION, ...) \
  switch (dtype) { default: FUNCTION(ATTN_F64, __VA_ARGS__); }
#endif
#define OPERAND_BYTES(dtype) ((int64_t)attn_dtype_size(dtype)) /* of such a row */
#define COLUMN_DTYPE(dtype) (dtype)                            /* as which its operands are put in lanes */

#define VALUE_VECS 1 /* of value dims that are loaded at a time */
/* Value dims of one key as operands. */
WORD void load_values(const attn_dtype dtype, const char *row, const char *next_row, const int vecs, operands *lanes) {
  (void)next_row;
#pragma clang loop unroll(full)
  for (int k = 0; k < vecs; k++) lanes[k] = load_some(dtype, row + k * LANES * OPERAND_BYTES(dtype), 1, LANES);
}

/* A row of reals as operands. */
static const operand *operand_reals(const real *x, int64_t count, operand *block) {
  (void)count, (void)block;
  return x;
}

/* block[g * to_step + r] = operand g of rows[r], for `count` elements; the lanes up to a whole vector are 0. */
static void operands_transposed(attn_dtype dtype, const void *const *rows, int64_t row_count, int64_t step, int64_t count,
                                operand *block, int64_t to_step, operand *line) {
  (void)line;
  load_transposed(dtype, rows, row_count, step, count, block, to_step);
}
