/* Ways of product operands in and out of memory, where operands are pairs of bfloat16 numbers: bfloat16 tensors as they
 * are, others rounded. An odd last one is paired with 0. */

#define GROUPS(count) (((count) + 1) / 2)
#define REAL_DTYPE ATTN_F32

static void rounded_line(attn_dtype dtype, const char *x, int64_t step, int64_t count, operand *line) {
  const int64_t bytes = step * (int64_t)attn_dtype_size(dtype);
  for (int64_t i = 0; i < count; i += 2 * LANES) {
    const int64_t some = count - i < 2 * LANES ? count - i : 2 * LANES, low = some < LANES ? some : LANES;
    const vec a = load_some(dtype, x + i * bytes, step, low);
    const vec b = some > LANES ? load_some(dtype, x + (i + LANES) * bytes, step, some - LANES) : (vec){0};
    operand pairs[LANES];
    v_store_rounded(pairs, a, b);
    memcpy(line + i / 2, pairs, (size_t)GROUPS(some) * sizeof *pairs);
  }
}

/* line[g] = elements (2g, 2g + 1) of a row */
static void operand_line(attn_dtype dtype, const void *x, int64_t step, int64_t count, operand *line) {
  if (dtype != ATTN_BF16) {
    rounded_line(dtype, x, step, count, line);
    return;
  }
  const uint16_t *from = x;
  uint16_t *half = (uint16_t *)line;
  if (step == 1) memcpy(half, from, (size_t)count * sizeof *half);
  else for (int64_t i = 0; i < count; i++) half[i] = from[i * step];
  if (count & 1) half[count] = 0;
}

/* rows[j] points at the pairs of row j of x, which lie 1 apart; in place if the row is pairs already, else copied to
 * block. */
static int64_t operand_rows(attn_dtype dtype, const void *x, int64_t row_step, int64_t step, int64_t count, int64_t width,
                            operand *block, const operand **rows) {
  const bool in_place = dtype == ATTN_BF16 && step == 1 && width % 2 == 0;
  const int64_t bytes = row_step * (int64_t)attn_dtype_size(dtype);
  for (int64_t j = 0; j < count; j++) {
    const char *row = (const char *)x + j * bytes;
    if (!in_place) operand_line(dtype, row, step, width, block + j * GROUPS(width));
    rows[j] = in_place ? (const operand *)row : block + j * GROUPS(width);
  }
  return 1;
}

/* Column d of x begins at first + d * next, and its operands lie `step` apart. */
typedef struct column_operands { const operand *first; int64_t next, step; } column_operands;

/* block[g][d] = elements d of rows (2g, 2g + 1) */
static column_operands operand_columns(attn_dtype dtype, const void *x, int64_t row_step, int64_t step, int64_t count,
                                       int64_t width, operand *block) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  for (int64_t j = 0; j < count; j += 2) {
    const char *low = (const char *)x + j * row_step * size, *high = low + row_step * size;
    int64_t d = 0;
    for (; dtype == ATTN_BF16 && step == 1 && j + 1 < count && d + 2 * LANES <= width; d += 2 * LANES)
      v_store_neighbours(block + j / 2 * width + d, (const uint16_t *)low + d, (const uint16_t *)high + d);
    for (; d < width; d += LANES) {
      const int64_t some = width - d < LANES ? width - d : LANES;
      const vec a = load_some(dtype, low + d * step * size, step, some);
      const vec b = j + 1 < count ? load_some(dtype, high + d * step * size, step, some) : (vec){0};
      operand pairs[LANES];
      v_store_pairs(pairs, a, b);
      memcpy(block + j / 2 * width + d, pairs, (size_t)some * sizeof *pairs);
    }
  }
  return (column_operands){ block, 1, width };
}

/* Lanes of s[count][step] as operands along the rows, rounded. */
static const operand *operand_lanes(const real *s, int64_t count, int64_t vecs, int64_t step, operand *block) {
  for (int64_t j = 0; j < count; j += 2)
    for (int64_t v = 0; v < vecs; v++) {
      const real *low = s + j * step + v * LANES;
      v_store_pairs(block + j / 2 * step + v * LANES, v_load(low), j + 1 < count ? v_load(low + step) : (vec){0});
    }
  return block;
}

/* Whether rows of `width` elements, `step` apart, can be read as operands where they lie. */
static bool operands_lie(attn_dtype dtype, int64_t step, int64_t width) {
  return dtype == ATTN_BF16 && step == 1 && width % 2 == 0;
}

#define OF_LYING(dtype, FUNCTION, ...) \
  switch (dtype) { default: FUNCTION(ATTN_BF16, __VA_ARGS__); }
#define OPERAND_BYTES(dtype) ((void)(dtype), (int64_t)sizeof(operand))
#define COLUMN_DTYPE(dtype) ((void)(dtype), ATTN_F32) /* pairs move as floats do */

#define VALUE_VECS 2 /* of value dims that are loaded at a time */
/* Value dims of two keys as pairs; NULL: there is no second key. */
WORD void load_values(const attn_dtype dtype, const char *row, const char *next_row, const int vecs, operands *lanes) {
  (void)dtype;
  static const uint16_t nothing[PRODUCT_VECS * LANES];
  const uint16_t *low = (const uint16_t *)row, *high = next_row ? (const uint16_t *)next_row : nothing;
#pragma clang loop unroll(full)
  for (int k = 0; k < vecs; k += 2) v_neighbours(low + k * LANES, high + k * LANES, lanes + k);
}

/* A row of reals as operands, rounded; x may be read up to a multiple of 2 * LANES, 0 behind an odd count. */
static const operand *operand_reals(const real *x, int64_t count, operand *block) {
  for (int64_t i = 0; i < count; i += 2 * LANES) v_store_rounded(block + i / 2, v_load(x + i), v_load(x + i + LANES));
  return block;
}

/* block[g * to_step + r] = operand g of rows[r], for `count` elements; the lanes up to a whole vector are 0. Pairs move as
 * floats do. `line` has room for the operands of a row. */
static void operands_transposed(attn_dtype dtype, const void *const *rows, int64_t row_count, int64_t step, int64_t count,
                                operand *block, int64_t to_step, operand *line) {
  if (dtype == ATTN_BF16 && step == 1 && count % 2 == 0) {
    load_transposed(ATTN_F32, rows, row_count, 1, count / 2, (real *)block, to_step);
    return;
  }
  const int64_t whole = (row_count + LANES - 1) / LANES * LANES;
  for (int64_t r = 0; r < whole; r++) {
    if (r < row_count) operand_line(dtype, rows[r], step, count, line);
    for (int64_t g = 0; g < GROUPS(count); g++) block[g * to_step + r] = r < row_count ? line[g] : 0;
  }
}
