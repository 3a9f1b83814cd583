/* Products for few rows: each element of the large operand is read once, where it lies, and serves all rows.
 *
 * The sums are those of product.h, operation for operation: from zero over `summed` operands in order, and these short
 * sums added in order. Which of the two runs therefore changes no bit. */

#define STREAM_ROWS 8 /* 8 sums and 16 transposed vectors, of 32 registers */

#define STREAM_ARGUMENTS                                                                                               \
  int64_t n, int64_t summed, const operand *const *a, const operand *const *b, int64_t lanes, real *c, int64_t c_step

/* sum[i] += sum over t < count of a[i][p + t] * square[t] */
WORD void stream_square(const int rows, const int count, const operand *const *a, int64_t p, const vec *square, vec *sum) {
#pragma clang loop unroll(full)
  for (int t = 0; t < count; t++)
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) sum[i] = v_dot(v_repeat(a[i][p + t]), v_as_operands(square[t]), sum[i]);
}

/* The end of a run, or lanes without a row: nothing is read beyond. */
static __attribute__((noinline)) void load_square(const operand *const *b, int64_t lanes, int64_t p, int64_t count,
                                                  vec *square) {
  for (int r = 0; r < LANES; r++) square[r] = r < lanes ? load_some(REAL_DTYPE, b[r] + p, 1, count) : (vec){0};
}

/* c[i][lane] = sum over p < n of a[i][p] * b[lane][p], for up to LANES rows b: LANES x LANES operands of b at a time are
 * transposed in registers. */
WORD void stream_rows_of(const int rows, STREAM_ARGUMENTS) {
  vec total[STREAM_ROWS];
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) total[i] = (vec){0};
  for (int64_t p0 = 0; p0 < n; p0 += summed) {
    const int64_t end = p0 + summed < n ? p0 + summed : n;
    vec sum[STREAM_ROWS], square[LANES];
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) sum[i] = (vec){0};
    int64_t p = p0;
    for (; p + LANES <= end; p += LANES) {
      if (lanes == LANES) {
#pragma clang loop unroll(full)
        for (int r = 0; r < LANES; r++) square[r] = v_load(b[r] + p);
      } else {
        load_square(b, lanes, p, LANES, square);
      }
      transpose(square);
      stream_square(rows, LANES, a, p, square, sum);
    }
    if (p < end) {
      load_square(b, lanes, p, end - p, square);
      transpose(square);
      for (int t = 0; p + t < end; t++) stream_square(rows, 1, a, p + t, square + t, sum);
    }
    /* The first short sum is taken as it is: 0 + x would turn -0 into 0. */
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) total[i] = p0 > 0 ? total[i] + sum[i] : sum[i];
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) v_store(c + i * c_step, total[i]);
}

static void stream_rows(int64_t rows, STREAM_ARGUMENTS) {
  switch (rows) {
    case 1: stream_rows_of(1, n, summed, a, b, lanes, c, c_step); break;
    case 2: stream_rows_of(2, n, summed, a, b, lanes, c, c_step); break;
    case 3: stream_rows_of(3, n, summed, a, b, lanes, c, c_step); break;
    case 4: stream_rows_of(4, n, summed, a, b, lanes, c, c_step); break;
    case 5: stream_rows_of(5, n, summed, a, b, lanes, c, c_step); break;
    case 6: stream_rows_of(6, n, summed, a, b, lanes, c, c_step); break;
    case 7: stream_rows_of(7, n, summed, a, b, lanes, c, c_step); break;
    default: stream_rows_of(8, n, summed, a, b, lanes, c, c_step); break;
  }
}
