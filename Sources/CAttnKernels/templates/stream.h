/* Products for few rows: each element of the large operand is read once, where it lies, and serves all rows.
 *
 * The sums are those of product.h, operation for operation: from zero over `summed` operands in order, and these short
 * sums added in order. Which of the two runs therefore changes no bit. */

#define STREAM_ROWS 8 /* 8 sums, 8 sums of these, and 8 columns as they are transposed, of 32 registers */

#define STREAM_LINE 128 /* operands of a row at a time, on their way to the others */

/* block[g][i] = operand g of rows[i], for `width` elements: an operand of every row by one address. */
static void operands_side_by_side(attn_dtype dtype, const void *const *rows, int64_t count, int64_t step, int64_t width,
                                  operand *block) {
  const int64_t bytes = step * (int64_t)attn_dtype_size(dtype);
  operand line[STREAM_LINE];
  for (int64_t at = 0; at < width; at += STREAM_LINE * DEPTH, block += STREAM_LINE * count) {
    const int64_t some = width - at < STREAM_LINE * DEPTH ? width - at : STREAM_LINE * DEPTH;
    for (int64_t i = 0; i < count; i++) {
      operand_line(dtype, (const char *)rows[i] + at * bytes, step, some, line);
      for (int64_t g = 0; g < GROUPS(some); g++) block[g * count + i] = line[g];
    }
  }
}

/* Rows that are read later, asked for in their order while others are worked on: the hardware foresees neither a change of matrix
 * nor steps across many rows. Requests come one by one between the operations, for a
 * core drops part of those that come all at once. They go to the second-level cache; to the first-level one was slower. Behind the
 * last row nothing exists, which does no harm. */
typedef struct ahead {
  const char *row;
  int64_t at, width, step; /* bytes; rows that lie side by side are one, and none is one of width 0 that never ends */
} ahead;

/* Where the next `bytes` lie. */
WORD const char *go_on(ahead *next, int64_t bytes) {
  const char *here = next->row + next->at;
  const bool ends = (next->at += bytes) >= next->width;
  next->row += ends ? next->step : 0;
  next->at = ends ? 0 : next->at;
  return here;
}

WORD void ask(const char *line) { __builtin_prefetch(line, 0, 2); }

/* a as operands_side_by_side left it; rows of b, as operands_lie says, are b_step bytes apart. */
#define STREAM_ARGUMENTS                                                                                              \
  int64_t n, int64_t summed, const operand *a, const char *b, int64_t b_step, int64_t lanes, real *c, int64_t c_step, \
      ahead *next

/* sum[i] += a[i] * column */
WORD void stream_column(const int rows, const operand *a, vec column, vec *sum) {
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) sum[i] = v_dot(v_repeat(a[i]), v_as_operands(column), sum[i]);
}

/* The end of a run, or lanes without a row: nothing is read beyond. Apart, so that the rest stays in registers. */
static __attribute__((noinline)) void load_edge(attn_dtype dtype, const char *b, int64_t b_step, int64_t lanes, int64_t count,
                                                vec *square) {
  for (int r = 0; r < LANES; r++) square[r] = r < lanes ? load_some(dtype, b + r * b_step, 1, count) : (vec){0};
  transpose(square);
}

/* sum[h][i] += a[i] * `count` columns of each group h, one by one. */
WORD void stream_edge(const attn_dtype dtype, const int rows, const int groups, int64_t count, const operand *a, const char *b,
                      int64_t b_step, int64_t lanes, vec (*sum)[STREAM_ROWS]) {
  for (int h = 0; h < groups; h++) {
    vec edge[LANES];
    load_edge(COLUMN_DTYPE(dtype), b + h * LANES * b_step, b_step, lanes - h * LANES, count, edge);
    for (int t = 0; t < count; t++) stream_column(rows, a + t * rows, edge[t], sum[h]);
  }
}

#define ASKED_COLUMNS (LANES < 8 ? LANES : 8) /* for which rows ahead go on at once; LOADED_COLUMNS divides it */
_Static_assert(ASKED_COLUMNS % LOADED_COLUMNS == 0, "a piece is asked for whole");

/* Sums over operands [p, end), from zero: sum[h][i] of LANES rows b for each h. */
WORD void stream_run(const attn_dtype dtype, const int rows, const int groups, int64_t p, int64_t end, const operand *a,
                     const char *b, int64_t b_step, int64_t lanes, vec (*sum)[STREAM_ROWS], ahead *next) {
  const int64_t size = OPERAND_BYTES(dtype), piece = LANES * size; /* a column's share of what is asked for */
  const char *later = NULL;
#pragma clang loop unroll(full)
  for (int h = 0; h < groups; h++)
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) sum[h][i] = (vec){0};
  for (; lanes == groups * LANES && p + LANES <= end; p += LANES)
#pragma clang loop unroll(full)
    for (int t = 0; t < LANES; t += LOADED_COLUMNS) /* few at a time: their sums run beside the next ones' shuffles */
#pragma clang loop unroll(full)
      for (int h = 0; h < groups; h++) {
        vec columns[LOADED_COLUMNS];
        load_columns(COLUMN_DTYPE(dtype), b + h * LANES * b_step + (p + t) * size, b_step, columns);
        const int at = (t * groups + h * LOADED_COLUMNS) % ASKED_COLUMNS;
        if (at == 0) later = go_on(next, ASKED_COLUMNS * piece);
#pragma clang loop unroll(full)
        for (int i = 0; i < LOADED_COLUMNS; i++) {
          if ((at + i) * piece % 64 == 0) ask(later + (at + i) * piece);
          stream_column(rows, a + (p + t + i) * rows, columns[i], sum[h]);
        }
      }
  for (; p < end; p += LANES)
    stream_edge(dtype, rows, groups, end - p < LANES ? end - p : LANES, a + p * rows, b + p * size, b_step, lanes, sum);
}

/* c[i][lane] = sum over p < n of a[p][i] * b[lane][p], for rows b in groups of LANES, whose operands are transposed in
 * registers. The first short sum is taken as it is: 0 + x would turn -0 into 0. */
WORD void stream_rows_of(const attn_dtype dtype, const int rows, const int groups, STREAM_ARGUMENTS) {
  vec total[2][STREAM_ROWS], sum[2][STREAM_ROWS];
  ahead later = *next; /* in registers */
  stream_run(dtype, rows, groups, 0, summed < n ? summed : n, a, b, b_step, lanes, total, &later);
  for (int64_t p = summed; p < n; p += summed) {
    stream_run(dtype, rows, groups, p, p + summed < n ? p + summed : n, a, b, b_step, lanes, sum, &later);
#pragma clang loop unroll(full)
    for (int h = 0; h < groups; h++)
#pragma clang loop unroll(full)
      for (int i = 0; i < rows; i++) total[h][i] += sum[h][i];
  }
  *next = later;
#pragma clang loop unroll(full)
  for (int h = 0; h < groups; h++)
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) v_store(c + i * c_step + h * LANES, total[h][i]);
}

#if PRODUCT_VECS == 2
/* Where registers are few and columns of two bytes take longer to turn: two groups of LANES rows b, since one alone would wait
 * for its own additions. While the columns of one piece are multiplied those of the next are turned, and wait in memory. */

#define TURNED_ROWS 4 /* rows a at most */
typedef vec turned_piece[LANES][2]; /* LANES columns of both groups */

/* Half of the next piece: columns of group h. */
WORD void turn_columns(const attn_dtype dtype, int h, const char *b, int64_t b_step, turned_piece columns, ahead *next) {
  const int64_t bytes = LANES * LANES * OPERAND_BYTES(dtype);
  vec square[LANES];
  load_square(COLUMN_DTYPE(dtype), b + h * LANES * b_step, b_step, square);
  const char *later = go_on(next, bytes);
#pragma clang loop unroll(full)
  for (int t = 0; t < LANES; t++) columns[t][h] = square[t];
#pragma clang loop unroll(full)
  for (int64_t line = 0; line < bytes; line += 64) ask(later + line);
}

/* Half of this piece: LANES / 2 columns of both groups. */
WORD void sum_columns(const int rows, const operand *a, vec (*columns)[2], vec (*sum)[STREAM_ROWS]) {
#pragma clang loop unroll(full)
  for (int t = 0; t < LANES / 2; t++)
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
      for (int h = 0; h < 2; h++)
        sum[h][i] = v_dot(v_repeat(a[t * rows + i]), v_as_operands(columns[t][h]), sum[h][i]);
}

/* stream_rows_of for two whole groups; LANES divides `summed`. */
WORD void stream_turned_of(const attn_dtype dtype, const int rows, STREAM_ARGUMENTS) {
  const int64_t size = OPERAND_BYTES(dtype), half = LANES / 2;
  turned_piece pieces[2];
  vec total[2][STREAM_ROWS] = { 0 }, sum[2][STREAM_ROWS] = { 0 };
  ahead later = *next;
  for (int h = 0; h < 2 && n >= LANES; h++) turn_columns(dtype, h, b, b_step, pieces[0], &later);
  for (int64_t p = 0; p < n; p += LANES, a += LANES * rows) {
    vec (*now)[2] = pieces[p / LANES % 2], (*then)[2] = pieces[p / LANES % 2 ^ 1];
    if (p + 2 * LANES <= n) { /* a branch of its own: with one around turn_columns alone the loop took a tenth longer */
#pragma clang loop unroll(full)
      for (int h = 0; h < 2; h++) {
        turn_columns(dtype, h, b + (p + LANES) * size, b_step, then, &later);
        sum_columns(rows, a + h * half * rows, now + h * half, sum);
      }
    } else if (p + LANES <= n) {
      for (int h = 0; h < 2; h++) sum_columns(rows, a + h * half * rows, now + h * half, sum);
    } else {
      stream_edge(dtype, rows, 2, n - p, a, b + p * size, b_step, lanes, sum);
    }
    if ((p + LANES) % summed && p + LANES < n) continue;
#pragma clang loop unroll(full)
    for (int h = 0; h < 2; h++)
#pragma clang loop unroll(full)
      for (int i = 0; i < rows; i++) {
        total[h][i] = p < summed ? sum[h][i] : total[h][i] + sum[h][i];
        sum[h][i] = (vec){0};
      }
  }
  *next = later;
#pragma clang loop unroll(full)
  for (int h = 0; h < 2; h++)
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) v_store(c + i * c_step + h * LANES, total[h][i]);
}

/* Where that was faster, measured with AVX2. */
WORD bool stream_turns(attn_dtype dtype, int64_t rows) {
  return dtype == ATTN_BF16 ? rows >= 2 && rows <= TURNED_ROWS : dtype == ATTN_F16 && rows == TURNED_ROWS;
}
WORD int64_t stream_width(attn_dtype dtype, int64_t rows) {
  return rows == 1 || stream_turns(dtype, rows) ? 2 * LANES : LANES;
}

#define STREAM_TURNED(DTYPE, R) \
  if (stream_turns(DTYPE, R)) stream_turned_of(DTYPE, R, n, summed, a, b, b_step, lanes, c, c_step, next); break
#define STREAM_PAIR(DTYPE)             \
    case -1: STREAM(DTYPE, 1, 2);      \
    case -2: STREAM_TURNED(DTYPE, 2);  \
    case -3: STREAM_TURNED(DTYPE, 3);  \
    case -4: STREAM_TURNED(DTYPE, 4);
#define STREAM_COLUMNS (2 * LANES)
#else
#define STREAM_PAIR(DTYPE)
WORD int64_t stream_width(attn_dtype dtype, int64_t rows) { return (void)dtype, (void)rows, LANES; }
#define STREAM_COLUMNS LANES
#endif

#define STREAM(DTYPE, R, G) stream_rows_of(DTYPE, R, G, n, summed, a, b, b_step, lanes, c, c_step, next); break
#define STREAM_ALL(DTYPE, rows)              \
  switch (lanes > LANES ? -rows : rows) {    \
    STREAM_PAIR(DTYPE)                       \
    case 1: STREAM(DTYPE, 1, 1);             \
    case 2: STREAM(DTYPE, 2, 1);             \
    case 3: STREAM(DTYPE, 3, 1);             \
    case 4: STREAM(DTYPE, 4, 1);             \
    case 5: STREAM(DTYPE, 5, 1);             \
    case 6: STREAM(DTYPE, 6, 1);             \
    case 7: STREAM(DTYPE, 7, 1);             \
    default: STREAM(DTYPE, 8, 1);            \
  }

/* As many lanes as one of the above takes; b of a dtype whose operands lie. */
static void stream_lanes(attn_dtype dtype, int64_t rows, STREAM_ARGUMENTS) { OF_LYING(dtype, STREAM_ALL, rows); }

static void stream_rows(attn_dtype dtype, int64_t rows, STREAM_ARGUMENTS) {
  const int64_t wide = stream_width(dtype, rows);
  for (int64_t j = 0, width; j < lanes; j += width) {
    width = lanes - j < wide ? LANES : wide;
    stream_lanes(dtype, rows, n, summed, a, b + j * b_step, b_step, lanes - j < width ? lanes - j : width, c + j, c_step,
                 next);
  }
}

/* Rows b for stream_rows, `step` bytes apart. */
typedef struct lying_rows {
  attn_dtype dtype;
  const char *first;
  int64_t step;
} lying_rows;

/* Rows of x, `row` elements apart: where they lie, else as operands in block[count][groups of width]. */
static lying_rows rows_that_lie(attn_dtype dtype, const char *x, int64_t row, int64_t element, int64_t count, int64_t width,
                                operand *block) {
  const int64_t bytes = row * (int64_t)attn_dtype_size(dtype), groups = GROUPS(width);
  if (operands_lie(dtype, element, width)) return (lying_rows){ dtype, x, bytes };
  for (int64_t j = 0; j < count; j++) operand_line(dtype, x + j * bytes, element, width, block + j * groups);
  return (lying_rows){ REAL_DTYPE, (const char *)block, groups * (int64_t)sizeof(operand) };
}
