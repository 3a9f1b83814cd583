/* Products for few rows: each element of the large operand is read once, where it lies, and serves all rows.
 *
 * The sums are those of product.h, operation for operation: from zero over `summed` operands in order, and these short
 * sums added in order. Which of the two runs therefore changes no bit. */

#define STREAM_ROWS 8 /* 8 sums and 16 transposed vectors, of 32 registers */

#define STREAM_ARGUMENTS                                                                                              \
  int64_t n, int64_t summed, const operand *const *a, int64_t a_step, const operand *const *b, int64_t lanes, real *c, \
      int64_t c_step

/* c[i][lane] = sum over p < n of a[i][p * a_step] * b[lane][p], for up to LANES rows b: LANES x LANES operands of b at a
 * time are transposed in registers. */
WORD void stream_rows_of(const int rows, STREAM_ARGUMENTS) {
  vec total[STREAM_ROWS];
  for (int64_t p0 = 0; p0 < n || p0 == 0; p0 += summed) {
    const int64_t end = p0 + summed < n ? p0 + summed : n;
    vec sum[STREAM_ROWS];
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) sum[i] = (vec){0};
    for (int64_t p = p0; p < end; p += LANES) {
      const int64_t some = end - p < LANES ? end - p : LANES;
      vec square[LANES];
      if (some == LANES && lanes == LANES) {
#pragma clang loop unroll(full)
        for (int r = 0; r < LANES; r++) square[r] = v_load((const real *)b[r] + p);
      } else {
        for (int r = 0; r < LANES; r++) square[r] = r < lanes ? load_some(REAL_DTYPE, b[r] + p, 1, some) : (vec){0};
      }
      transpose(square);
#pragma clang loop unroll(full)
      for (int t = 0; t < LANES; t++) {
        if (t >= some) break;
#pragma clang loop unroll(full)
        for (int i = 0; i < rows; i++) sum[i] = v_dot(v_repeat(a[i][(p + t) * a_step]), v_as_operands(square[t]), sum[i]);
      }
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) total[i] = p0 > 0 ? total[i] + sum[i] : sum[i];
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) v_store(c + i * c_step, total[i]);
}

static void stream_rows(int64_t rows, STREAM_ARGUMENTS) {
  switch (rows) {
    case 1: stream_rows_of(1, n, summed, a, a_step, b, lanes, c, c_step); break;
    case 2: stream_rows_of(2, n, summed, a, a_step, b, lanes, c, c_step); break;
    case 3: stream_rows_of(3, n, summed, a, a_step, b, lanes, c, c_step); break;
    case 4: stream_rows_of(4, n, summed, a, a_step, b, lanes, c, c_step); break;
    case 5: stream_rows_of(5, n, summed, a, a_step, b, lanes, c, c_step); break;
    case 6: stream_rows_of(6, n, summed, a, a_step, b, lanes, c, c_step); break;
    case 7: stream_rows_of(7, n, summed, a, a_step, b, lanes, c, c_step); break;
    default: stream_rows_of(8, n, summed, a, a_step, b, lanes, c, c_step); break;
  }
}
