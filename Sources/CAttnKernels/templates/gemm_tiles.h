/* The parts of a blocked matrix product that know tiles: packing in parts of bfloat16, and the product.
 *
 *   block[i]  [part][step][32 elements]                            a row of a, then its mark
 *   panel     [part][pair][GEMM_NR lanes]                          then the marks of its tiles of lanes
 *
 * A row of a, or a column of b, with numbers that parts cannot multiply (v_hard) is marked and holds floats in place of its
 * first two parts. Where it meets the other operand the product is one of floats, with the sums of the kernels for float.
 * Rows and columns are marked one by one, so an element's bits depend on no other row or column. */

#define GEMM_LANES 4 /* tiles */
#define GEMM_NR (GEMM_LANES * TILE_EDGE)
#define GEMM_BLOCK (PARTS > 1 ? 128 : 256) /* elements: as the kernels for float, and as those for pairs of bfloat16 */
#define GEMM_EXTRA 64                      /* bytes for marks; and rows begin in different sets of the cache */
#define GEMM_MARKS (PARTS > 1)

#define STEPS(k) (((k) + TILE_STEP - 1) / TILE_STEP)
#define GEMM_A_ROW(k) (PARTS * STEPS(k) * TILE_ROW + GEMM_EXTRA)
#define GEMM_A_PART(k) (STEPS(k) * TILE_ROW)
#define GEMM_B_ROW ((int64_t)(GEMM_NR * sizeof(pair)))
#define GEMM_B_PART(k) (STEPS(k) * TILE_EDGE * GEMM_B_ROW)

static uint32_t *marks_of_row(char *row, int64_t k) { return (uint32_t *)(row + PARTS * GEMM_A_PART(k)); }
static uint32_t *marks_of_panel(char *panel, int64_t k) { return (uint32_t *)(panel + PARTS * GEMM_B_PART(k)); }

/* Elements [at, at + LANES) of `count`, 0 behind them. */
static vec load_within(attn_dtype dtype, const char *x, int64_t step, int64_t at, int64_t count) {
  if (at >= count) return (vec){0};
  return load_some(dtype, x + at * step * (int64_t)attn_dtype_size(dtype), step, least(LANES, count - at));
}

/* All parts of 32 neighbours from element p of a line of k on, `part` bytes apart. Says which are hard. */
WORD lanemask take_parts(attn_dtype dtype, const char *line, int64_t step, int64_t p, int64_t k, const int lowest, char *to,
                         int64_t part) {
  if (PARTS == 1 && dtype == ATTN_BF16 && step == 1 && p + TILE_STEP <= k) {
    v_store((real *)to, v_load(line + p * 2));
    return (lanemask){0};
  }
  vec low = load_within(dtype, line, step, p, k), high = load_within(dtype, line, step, p + LANES, k);
  const lanemask hard = v_hard(low, lowest) | v_hard(high, lowest);
#pragma clang loop unroll(full)
  for (int i = 0; i < PARTS; i++) v_store((real *)(to + i * part), v_take_neighbours(&low, &high));
  return hard;
}

static void pack_a(attn_dtype dtype, const attn_matrix *a, int64_t m, int64_t k, void *block) {
  const int64_t bytes = a->row * (int64_t)attn_dtype_size(dtype);
  for (int64_t i = 0; i < m; i++) {
    const char *from = (const char *)a->data + i * bytes;
    char *row = (char *)block + i * GEMM_A_ROW(k);
    lanemask found = {0};
    for (int64_t p = 0; p < k; p += TILE_STEP)
      found |= take_parts(dtype, from, a->column, p, k, BOTH_SMALL, row + p * 2, GEMM_A_PART(k));
    if (!GEMM_MARKS) continue;
    const bool hard = v_any(found);
    *marks_of_row(row, k) = hard;
    for (int64_t p = 0; hard && p < STEPS(k) * TILE_STEP; p += LANES)
      v_store((real *)row + p, load_within(dtype, from, a->column, p, k));
  }
}

#if PARTS > 1
/* A row of floats of a packed one, hard or not. */
static void unpack_a(char *row, int64_t k, real *floats) {
  if (*marks_of_row(row, k)) {
    memcpy(floats, row, (size_t)k * sizeof *floats);
    return;
  }
  for (int64_t p = 0; p < k; p += TILE_STEP)
    for (int64_t i = 0; i < TILE_STEP; i++) {
      real sum = 0;
      for (int part = 0; part < PARTS; part++) {
        uint32_t bits = (uint32_t)((const uint16_t *)(row + part * GEMM_A_PART(k)))[p + i] << 16;
        real x;
        memcpy(&x, &bits, sizeof x);
        sum += x;
      }
      floats[p + i] = sum;
    }
}
#endif

static char *pairs_at(char *panel, int64_t k, int part, int64_t p, int64_t lane) {
  return panel + part * GEMM_B_PART(k) + p / 2 * GEMM_B_ROW + lane * (int64_t)sizeof(pair);
}

/* Columns whose elements lie side by side, 16 of them and 32 elements at a time: parts are taken along k and then turned. */
static uint32_t pack_turned(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t lane, int64_t columns, char *panel) {
  const int64_t bytes = b->column * (int64_t)attn_dtype_size(dtype);
  lanemask found[LANES] = {0};
  for (int64_t p = 0; p < k; p += TILE_STEP) {
    vec squares[PARTS][LANES];
    for (int64_t r = 0; r < LANES; r++) {
      const char *column = (const char *)b->data + (lane + r) * bytes;
      const int64_t count = lane + r < columns ? k : 0;
      found[r] |= take_parts(dtype, column, 1, p, count, BOTH_SMALL, (char *)&squares[0][r], sizeof squares[0]);
    }
    for (int part = 0; part < PARTS; part++) {
      transpose(squares[part]);
      for (int64_t g = 0; g < TILE_EDGE; g++)
        v_store((real *)pairs_at(panel, k, part, p + 2 * g, lane), squares[part][g]);
    }
  }
  uint32_t hard = 0;
  for (int r = 0; GEMM_MARKS && r < LANES; r++) hard |= (uint32_t)v_any(found[r]) << r;
  return hard;
}

/* Any strides, row by row. */
static uint32_t pack_rows_of(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t lane, int64_t columns, char *panel) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  const int64_t some = columns - lane < LANES ? (columns > lane ? columns - lane : 0) : LANES;
  const char *from = (const char *)b->data + lane * b->column * size;
  lanemask found = {0};
  for (int64_t p = 0; p < STEPS(k) * TILE_STEP; p += 2) {
    vec row[2];
    for (int i = 0; i < 2; i++)
      row[i] = some && p + i < k ? load_some(dtype, from + (p + i) * b->row * size, b->column, some) : (vec){0};
    found |= v_hard(row[0], BOTH_SMALL) | v_hard(row[1], BOTH_SMALL);
#pragma clang loop unroll(full)
    for (int i = 0; i < PARTS; i++) v_store((real *)pairs_at(panel, k, i, p, lane), v_take_pairs(&row[0], &row[1]));
  }
  return GEMM_MARKS ? v_bits(found) : 0;
}

static void keep_floats(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t lane, uint32_t marked, char *panel) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  for (int64_t j = 0; j < LANES; j++)
    for (int64_t p = 0; marked >> j & 1 && p < k; p++)
      load_row(dtype, (const char *)b->data + (p * b->row + (lane + j) * b->column) * size, 1, 1,
               (real *)pairs_at(panel, k, (int)(p % 2), p, lane) + j);
}

static void pack_b(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t columns, void *panel) {
  for (int64_t lane = 0; lane < GEMM_NR; lane += LANES) {
    const bool turned = b->row == 1 && k > 1;
    const uint32_t marked = turned ? pack_turned(dtype, b, k, lane, columns, panel)
                                   : pack_rows_of(dtype, b, k, lane, columns, panel);
    if (!GEMM_MARKS) continue;
    marks_of_panel(panel, k)[lane / LANES] = marked;
    if (marked) keep_floats(dtype, b, k, lane, marked, panel);
  }
}

#if PARTS > 1
/* 16 lanes of floats of a packed panel, hard or not. */
static void unpack_b(char *panel, int64_t k, int64_t lane, real *floats) {
  const lanemask hard = v_lanes_of(marks_of_panel(panel, k)[lane / LANES]);
  for (int64_t p = 0; p < k; p++) {
    vec sum = {0};
    for (int part = 0; part < PARTS; part++) {
      const vec pairs = v_load(pairs_at(panel, k, part, p, lane));
      sum += p % 2 ? v_high_of(pairs) : v_low_of(pairs);
    }
    v_store(floats + p * LANES, v_select(hard, v_load(pairs_at(panel, k, (int)(p % 2), p, lane)), sum));
  }
}

/* sums[row][lane] of 16 rows, products of floats in the marked rows and lanes. */
static __attribute__((noinline)) void mend(int64_t m, uint32_t rows, char *block, int64_t k, char *panel, int64_t lane,
                                           real *sums, int64_t step) {
  const uint32_t lanes = marks_of_panel(panel, k)[lane / LANES];
  real floats[GEMM_BLOCK * LANES], lines[TILE_EDGE][GEMM_BLOCK], mended[TILE_EDGE * LANES];
  const real *row[TILE_EDGE];
  int number[TILE_EDGE], count = 0;
  unpack_b(panel, k, lane, floats);
  for (int i = 0; i < least(m, TILE_EDGE); i++) {
    if (!lanes && !(rows >> i & 1)) continue;
    unpack_a(block + i * GEMM_A_ROW(k), k, lines[count]);
    row[count] = lines[count];
    number[count++] = i;
  }
  product_block(count, 1, k, row, 1, floats, LANES, mended, LANES, false, NULL);
  for (int i = 0; i < count; i++) {
    real *to = sums + number[i] * step;
    v_store(to, v_select(v_lanes_of(rows >> number[i] & 1 ? 0xffff : lanes), v_load(mended + i * LANES), v_load(to)));
  }
}

/* Which of the rows [0, count) of 16 are marked. */
static uint32_t marked_rows(char *block, int64_t k, int64_t count) {
  uint32_t rows = 0;
  for (int64_t i = 0; i < least(count, TILE_EDGE); i++) rows |= *marks_of_row(block + i * GEMM_A_ROW(k), k) << i;
  return rows;
}

/* The sums of up to two rows of tiles, 32 lanes at a time, mended where they are hard. */
static void multiply_rows(int64_t m, int64_t k, char *block, char *panel, real *c, int64_t c_step, bool add) {
  real sums[2 * TILE_EDGE * 2 * TILE_EDGE] __attribute__((aligned(64)));
  const int64_t rows = (m + TILE_EDGE - 1) / TILE_EDGE, step = 2 * TILE_EDGE;
  const uint32_t marked[2] = { marked_rows(block, k, m),
                               marked_rows(block + TILE_EDGE * GEMM_A_ROW(k), k, m > TILE_EDGE ? m - TILE_EDGE : 0) };
  const uint32_t *lanes_marked = marks_of_panel(panel, k);
  for (int64_t lane = 0; lane < GEMM_NR; lane += 2 * TILE_EDGE) {
    tile_job job = product_of_tiles(rows, 2, STEPS(k), (tile_operand){ block, GEMM_A_ROW(k), GEMM_A_PART(k) },
                                    (tile_operand){ panel + lane * (int64_t)sizeof(pair), GEMM_B_ROW, GEMM_B_PART(k) },
                                    sums, step, false);
    complete(&job);
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < 2; j++)
        if (marked[i] || lanes_marked[lane / TILE_EDGE + j])
          mend(m - i * TILE_EDGE, marked[i], block + i * TILE_EDGE * GEMM_A_ROW(k), k, panel, lane + j * TILE_EDGE,
               sums + i * TILE_EDGE * step + j * TILE_EDGE, step);
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < step; j += LANES) {
        real *to = c + i * c_step + lane + j;
        const vec sum = v_load(sums + i * step + j);
        v_store(to, add ? v_load(to) + sum : sum);
      }
  }
}
#else
static void multiply_rows(int64_t m, int64_t k, char *block, char *panel, real *c, int64_t c_step, bool add) {
  tile_job job = product_of_tiles((m + TILE_EDGE - 1) / TILE_EDGE, GEMM_LANES, STEPS(k),
                                  (tile_operand){ block, GEMM_A_ROW(k), 0 }, (tile_operand){ panel, GEMM_B_ROW, 0 }, c,
                                  c_step, add);
  complete(&job);
}
#endif

/* Rows of a and of c come in sixteens: those behind m are written where nothing is kept. */
static void multiply(int64_t m, int64_t k, const void *block, const void *panel, void *c, int64_t c_step, bool add) {
  if (k == 0) {
    for (int64_t i = 0; !add && i < m; i++) memset((real *)c + i * c_step, 0, GEMM_NR * sizeof(real));
    return;
  }
  tiles_begin();
  for (int64_t i = 0; i < m; i += 2 * TILE_EDGE)
    multiply_rows(least(m - i, 2 * TILE_EDGE), k, (char *)block + i * GEMM_A_ROW(k), (char *)panel, (real *)c + i * c_step,
                  c_step, add);
  tiles_end();
}
