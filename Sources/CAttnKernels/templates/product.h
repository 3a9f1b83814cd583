/* The register tile under every product of the library: a broadcast, b in lanes.
 *
 *   c[i][lane] (+)= sum over p of a[i][p * a_step] * b[p * b_step + lane]
 *
 * An operand is a number, or a group of DEPTH numbers of which one instruction takes the scalar product; the vocabulary
 * has the words for it (operand, v_operands, v_repeat, v_dot) and operands_*.h the ways in and out of memory. Where there is a
 * decay, of each lane, c becomes decay c + sum.
 *
 * Each sum starts from zero and runs over p in order, so its bits depend on n and the operands alone. The arch file
 * defines PRODUCT_VECS, the widest tile that fits the registers with PRODUCT_ROWS rows: PRODUCT_ROWS * PRODUCT_VECS
 * accumulators + PRODUCT_VECS of b + 1 of a. Where there are fewer lanes than that, taller tiles keep as many
 * multiply-adds in flight. */
#define PRODUCT_SUMS (PRODUCT_ROWS * PRODUCT_VECS)
#define PRODUCT_ARGUMENTS                                                                                                   \
  int64_t n, const operand *const *a, int64_t a_step, const operand *b, int64_t b_step, real *c, int64_t c_step, bool add, \
      const real *decay

/* asks: b comes from memory, and what lies behind it is next. */
WORD void product_tile(const int rows, const int vecs, const bool asks, PRODUCT_ARGUMENTS) {
  vec sum[PRODUCT_SUMS][PRODUCT_VECS];
  const operand *row[PRODUCT_SUMS];
  const int64_t later = n * b_step * (int64_t)sizeof *b;
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) {
    row[i] = a[i];
#pragma clang loop unroll(full)
    for (int v = 0; v < vecs; v++) sum[i][v] = (vec){0};
  }
  for (int64_t p = 0, at = 0; p < n; p++, at += a_step, b += b_step) {
    operands lanes[PRODUCT_VECS];
    if (asks)
#pragma clang loop unroll(full)
      for (int line = 0; line < vecs * VEC_BYTES; line += 64) __builtin_prefetch((const char *)b + later + line);
#pragma clang loop unroll(full)
    for (int v = 0; v < vecs; v++) lanes[v] = v_operands(b + v * LANES);
#pragma clang loop unroll(full)
    for (int i = 0; i < rows; i++) {
      const operands broadcast = v_repeat(row[i][at]);
#pragma clang loop unroll(full)
      for (int v = 0; v < vecs; v++) sum[i][v] = v_dot(broadcast, lanes[v], sum[i][v]);
    }
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int v = 0; v < vecs; v++) {
      real *out = c + i * c_step + v * LANES;
      v_store(out, decay ? v_fma(v_load(out), v_load(decay + v * LANES), sum[i][v])
                   : add ? v_load(out) + sum[i][v] : sum[i][v]);
    }
}

#define PRODUCT(R, V)                                                               \
  static void product_##R##x##V(PRODUCT_ARGUMENTS) {                                \
    product_tile(R, V, false, n, a, a_step, b, b_step, c, c_step, add, decay);      \
  }
#define PRODUCT_ROWS_OF(V) PRODUCT(1, V) PRODUCT(2, V) PRODUCT(3, V) PRODUCT(4, V) PRODUCT(5, V) PRODUCT(6, V)
#define PRODUCT_NAMES(V) { product_1x##V, product_2x##V, product_3x##V, product_4x##V, product_5x##V, product_6x##V }
_Static_assert(PRODUCT_ROWS == 6, "PRODUCT_ROWS_OF and PRODUCT_NAMES list six sizes");

typedef void (*product_fn)(PRODUCT_ARGUMENTS);
PRODUCT_ROWS_OF(1)
PRODUCT_ROWS_OF(2)
#if PRODUCT_VECS == 4
PRODUCT_ROWS_OF(3)
PRODUCT_ROWS_OF(4)
PRODUCT(24, 1)
PRODUCT(12, 2)
PRODUCT(8, 3)
static const product_fn products[4][6] = { PRODUCT_NAMES(1), PRODUCT_NAMES(2), PRODUCT_NAMES(3), PRODUCT_NAMES(4) };
static const product_fn tall_products[4] = { product_24x1, product_12x2, product_8x3, product_6x4 };
#else
_Static_assert(PRODUCT_VECS == 2, "register tiles are 2 or 4 vectors wide");
PRODUCT(12, 1)
static const product_fn products[2][6] = { PRODUCT_NAMES(1), PRODUCT_NAMES(2) };
static const product_fn tall_products[2] = { product_12x1, product_6x2 };
#endif

/* Of the next tile, where `rows` are left: what does not fill two tiles goes in equal parts, for sums of a very low tile wait for
 * themselves. */
static int64_t tile_rows(int64_t rows, int64_t tall) {
  if (tall > PRODUCT_ROWS && rows >= tall) return tall;
  if (rows > PRODUCT_ROWS && rows < 2 * PRODUCT_ROWS) return (rows + 1) / 2;
  return rows < PRODUCT_ROWS ? rows : PRODUCT_ROWS;
}

/* The same for any number of rows, and lane_vecs vectors of lanes. */
static void product_block(int64_t rows, int64_t lane_vecs, PRODUCT_ARGUMENTS) {
  for (int64_t v = 0; v < lane_vecs; v += PRODUCT_VECS) {
    const int64_t vecs = lane_vecs - v < PRODUCT_VECS ? lane_vecs - v : PRODUCT_VECS;
    const int64_t tall = PRODUCT_SUMS / vecs;
    const operand *lanes = b + v * LANES;
    real *out = c + v * LANES;
    for (int64_t i = 0, some; i < rows; i += some) {
      some = tile_rows(rows - i, tall);
      const product_fn product = some == tall ? tall_products[vecs - 1] : products[vecs - 1][some - 1];
      product(n, a + i, a_step, lanes, b_step, out + i * c_step, c_step, add, decay ? decay + v * LANES : NULL);
    }
  }
}
