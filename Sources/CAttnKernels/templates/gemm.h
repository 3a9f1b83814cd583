/* The parts of a blocked matrix product that know vectors: packing, the register tile, the epilogue. */

#define GEMM_NR (PRODUCT_VECS * LANES)
#define GEMM_BLOCK 128 /* operands: short sums round less, half the error of 512; a panel of 128 x 64 is 32 KB of L1 */

/* Whole lines of a panel of single numbers, `step` bytes apart. */
WORD void pack_lines_of(attn_dtype dtype, const char *line, int64_t step, int64_t k, real *to) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  for (int64_t p = 0; p < k; p++, line += step, to += GEMM_NR) {
    __builtin_prefetch(line + GEMM_NR * size); /* of the panel that is packed next */
    EACH(v, PRODUCT_VECS) v_store(to + v * LANES, load_some(dtype, line + v * LANES * size, 1, LANES));
  }
}

static void pack_b(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t columns, void *panel) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  const char *from = b->data;
  operand *to = panel;
  if (b->row == 1 && k > 1) { /* columns are contiguous, as in x . weight^T */
    const void *row[GEMM_NR];
    operand line[GEMM_BLOCK];
    for (int64_t j = 0; j < columns; j++) {
      row[j] = from + j * b->column * size;
      /* what follows in these rows is packed next; their number is beyond the hardware's own prefetching */
      for (int64_t at = 0; at < k * size; at += 64) __builtin_prefetch((const char *)row[j] + k * size + at);
    }
    operands_transposed(dtype, row, columns, 1, k, to, GEMM_NR, line);
    const int64_t filled = (columns + LANES - 1) / LANES * LANES;
    for (int64_t g = 0; filled < GEMM_NR && g < GROUPS(k); g++)
      memset(to + g * GEMM_NR + filled, 0, (size_t)(GEMM_NR - filled) * sizeof *to);
    return;
  }
  if (DEPTH == 1 && b->column == 1 && columns == GEMM_NR) {
    OF_ANY_DTYPE(dtype, pack_lines_of, from, b->row * size, k, (real *)to);
    return;
  }
  real lines[DEPTH][GEMM_NR];
  for (int64_t p = 0; p < k; p += DEPTH, to += GEMM_NR) {
    for (int64_t i = 0; i < DEPTH; i++) {
      const int64_t filled = p + i < k ? columns : 0;
      const char *line = from + (p + i) * b->row * size;
      if (filled) load_row(dtype, line, b->column, filled, lines[i]);
      __builtin_prefetch(line + GEMM_NR * b->column * size); /* of the panel that is packed next */
      for (int64_t j = filled; j < GEMM_NR; j++) lines[i][j] = 0;
    }
    const operand *packed = operand_lanes(lines[0], DEPTH, PRODUCT_VECS, GEMM_NR, to);
    if (packed != to) memcpy(to, packed, GEMM_NR * sizeof *to);
  }
}

/* Rows of a that lie side by side, as in gradient^T . x: squares are read along the memory and turned, those of a cache line
 * one after the other. */
WORD void pack_turned_of(attn_dtype dtype, const attn_matrix *a, int64_t m, int64_t groups, operand *block, int64_t width) {
  const int64_t size = (int64_t)attn_dtype_size(dtype), step = a->column * size;
  const int64_t across = LANES * size < CACHE_LINE ? CACHE_LINE / size : LANES;
  for (int64_t first = 0; first < m; first += across)
    for (int64_t g = 0; g < groups; g += LANES) {
      const char *line = (const char *)a->data + g * DEPTH * step + first * size;
      for (int t = 0; t < LANES * DEPTH; t++) __builtin_prefetch(line + t * step + across * size);
      for (int64_t i = first; i < m && i < first + across; i += LANES) {
        const char *from = line + (i - first) * size;
        operand *to = block + i * width + g;
        vec square[LANES];
        if (DEPTH == 1 && dtype == REAL_DTYPE) {
          load_square(dtype, from, step, square);
        } else {
          for (int t = 0; t < LANES; t++) {
            vec lines[DEPTH];
            operand packed[LANES];
            for (int d = 0; d < DEPTH; d++) lines[d] = load_some(dtype, from + (t * DEPTH + d) * step, 1, LANES);
            square[t] = v_load(operand_lanes((const real *)lines, DEPTH, 1, LANES, packed));
          }
          transpose(square);
        }
        for (int r = 0; r < LANES; r++) v_store((real *)(to + r * width), square[r]);
      }
    }
}

static void pack_a(attn_dtype dtype, const attn_matrix *a, int64_t m, int64_t k, void *block) {
  const int64_t size = (int64_t)attn_dtype_size(dtype), groups = k / DEPTH / LANES * LANES;
  const int64_t turned = a->row == 1 && a->column != 1 ? m / LANES * LANES : 0;
  OF_ANY_DTYPE(dtype, pack_turned_of, a, turned, groups, block, GROUPS(k));
  for (int64_t i = groups * DEPTH == k ? turned : 0; i < m; i++) {
    const int64_t first = i < turned ? groups : 0;
    const char *row = (const char *)a->data + i * a->row * size;
    /* a few rows ahead: each is too short for the hardware's own prefetching */
    for (int64_t at = 0; a->column == 1 && at < k * size; at += 64) __builtin_prefetch(row + 4 * a->row * size + at);
    operand_line(dtype, row + first * DEPTH * a->column * size, a->column, k - first * DEPTH,
                 (operand *)block + i * GROUPS(k) + first);
  }
}

#define POINTED_ROWS (16 * PRODUCT_ROWS) /* addresses written at once: a load of what was stored just before waits */

/* So few rows that a panel's way from memory takes as long as the products, and so many that these do not wait for it alone. */
#define ASKING_FROM 5
#define ASKING_TO (8 * PRODUCT_ROWS)

#define ASKING(R)                                                                       \
  static void asking_##R(PRODUCT_ARGUMENTS) {                                           \
    product_tile(R, PRODUCT_VECS, true, n, a, a_step, b, b_step, c, c_step, add, decay); \
  }
ASKING(1) ASKING(2) ASKING(3) ASKING(4) ASKING(5) ASKING(6)
static const product_fn asking_products[PRODUCT_ROWS] = { asking_1, asking_2, asking_3, asking_4, asking_5, asking_6 };

WORD void asking_block(int64_t rows, PRODUCT_ARGUMENTS) {
  for (int64_t i = 0, some; i < rows; i += some) {
    some = tile_rows(rows - i, PRODUCT_ROWS);
    asking_products[some - 1](n, a + i, a_step, b, b_step, c + i * c_step, c_step, add, decay);
  }
}

static void multiply(int64_t m, int64_t k, const void *block, const void *panel, void *c, int64_t c_step, bool add) {
  const operand *row[POINTED_ROWS];
  for (int64_t i = 0; i < m; i += POINTED_ROWS) {
    const int64_t some = m - i < POINTED_ROWS ? m - i : POINTED_ROWS;
    real *out = (real *)c + i * c_step;
    for (int64_t r = 0; r < some; r++) row[r] = (const operand *)block + (i + r) * GROUPS(k);
    if (m >= ASKING_FROM && m <= ASKING_TO) asking_block(some, GROUPS(k), row, 1, panel, GEMM_NR, out, c_step, add, NULL);
    else product_block(some, PRODUCT_VECS, GROUPS(k), row, 1, panel, GEMM_NR, out, c_step, add, NULL);
  }
}

/* product_tile's sums of a few rows by several panels, each of which comes from memory. Apart from it, since every vector of b is
 * loaded where it is used: three rows have no registers for all of them, and took longer. */
WORD void multiply_panels_of(const int rows, const int panels, int64_t k, const operand *row, const operand *panel,
                             int64_t panel_step, real *c, int64_t c_step, bool add) {
  vec sum[3][4][PRODUCT_VECS];
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int q = 0; q < panels; q++)
#pragma clang loop unroll(full)
      for (int v = 0; v < PRODUCT_VECS; v++) sum[i][q][v] = (vec){0};
  for (int64_t p = 0; p < k; p++)
#pragma clang loop unroll(full)
    for (int q = 0; q < panels; q++)
#pragma clang loop unroll(full)
      for (int v = 0; v < PRODUCT_VECS; v++) {
        const operands lanes = v_operands(panel + q * panel_step + p * GEMM_NR + v * LANES);
#pragma clang loop unroll(full)
        for (int i = 0; i < rows; i++) sum[i][q][v] = v_dot(v_repeat(row[i * k + p]), lanes, sum[i][q][v]);
      }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int q = 0; q < panels; q++)
#pragma clang loop unroll(full)
      for (int v = 0; v < PRODUCT_VECS; v++) {
        real *out = c + i * c_step + q * GEMM_NR + v * LANES;
        v_store(out, add ? v_load(out) + sum[i][q][v] : sum[i][q][v]);
      }
}

#define PANELS(M) \
  case M: multiply_panels_of(M, attn_panels_together(M), GROUPS(k), block, panel, step, c, c_step, add); break

static void multiply_panels(int64_t m, int64_t k, const void *block, const void *panel, int64_t panel_step, void *c,
                            int64_t c_step, bool add) {
  const int64_t step = panel_step / (int64_t)sizeof(operand);
  switch (m) {
    PANELS(1);
    PANELS(2);
    PANELS(3);
  }
}

static void pack_few(attn_dtype dtype, const attn_matrix *a, int64_t m, int64_t k, void *block) {
  const void *row[STREAM_ROWS];
  for (int64_t i = 0; i < m; i++) row[i] = (const char *)a->data + i * a->row * (int64_t)attn_dtype_size(dtype);
  operands_side_by_side(dtype, row, m, a->column, k, block);
}

static void stream(attn_dtype dtype, int64_t m, int64_t k, int64_t summed, const void *block, const attn_matrix *b,
                   int64_t columns, void *c, int64_t c_step, void *lines) {
  const lying_rows rows = rows_that_lie(dtype, b->data, b->column, 1, columns, k, lines);
  ahead nothing = { rows.first, 0, 0, 0 }; /* long rows: the hardware follows them */
  stream_rows(rows.dtype, m, GROUPS(k), GROUPS(summed), block, rows.first, rows.step, columns, c, c_step, &nothing);
}

#define FINISHED_ROWS 4 /* where rows lie a power of two apart, their lines share the 8 places of one set of the cache */

WORD void finish_of(attn_dtype dtype, attn_activation activation, const attn_gemm *gemm, const void *sums,
                    int64_t sums_step, const attn_matrix *c, int64_t c_column, const attn_matrix *residual,
                    const void *bias, int64_t m, int64_t n) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  /* some rows at a time: their cache lines, of which a vector may be a part, stay for the next columns */
  for (int64_t first = 0; first < m; first += FINISHED_ROWS)
    for (int64_t j = 0; j < n; j += LANES) {
      const int64_t some = n - j < LANES ? n - j : LANES, end = m - first < FINISHED_ROWS ? m : first + FINISHED_ROWS;
      const vec shift = bias ? load_some(dtype, (const char *)bias + j * gemm->bias_stride * size, gemm->bias_stride, some)
                             : (vec){0};
      for (int64_t i = first; i < end; i++) {
        vec y = activate(activation, v_load((const real *)sums + i * sums_step + j) + shift);
        if (residual)
          y += load_some(dtype, (const char *)residual->data + (i * residual->row + j * residual->column) * size,
                         residual->column, some);
        store_some(dtype, y, (char *)c->data + (i * c->row + j * c_column) * size, c_column, some);
      }
    }
}

static void finish(const attn_gemm *gemm, const void *sums, int64_t sums_step, const attn_matrix *c,
                   const attn_matrix *residual, const void *bias, int64_t m, int64_t n) {
  if (gemm->dtype == ROW_REAL && gemm->activation == ATTN_IDENTITY && c->column == 1 && !residual)
    finish_of(ROW_REAL, ATTN_IDENTITY, gemm, sums, sums_step, c, 1, NULL, bias, m, n); /* most products are of this kind */
  else
    finish_of(gemm->dtype, gemm->activation, gemm, sums, sums_step, c, c->column, residual, bias, m, n);
}
