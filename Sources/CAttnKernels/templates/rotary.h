/* Rotary positions of a row: (a, b) becomes (a cos - b sin, b cos + a sin) for each pair of elements, with the angles the
 * other way round for `back`. Pairs are (i, i + pairs), or (2i, 2i + 1). */

/* A pair's first element turned by the angle, or with a and b exchanged and -sin its second. */
WORD vec turned(vec a, vec b, vec cosine, vec sine) { return v_fma(a, cosine, -(b * sine)); }

WORD void rotate_halves(attn_dtype dtype, int64_t pairs, const bool back, const void *x, const real *cosines,
                        const real *sines, void *out) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  const char *from = x;
  char *to = out;
  for (int64_t i = 0; i < pairs; i += LANES) {
    const int64_t some = pairs - i < LANES ? pairs - i : LANES;
    const vec cosine = load_some(ROW_REAL, cosines + i, 1, some), sine = load_some(ROW_REAL, sines + i, 1, some);
    const vec turn = back ? -sine : sine;
    const vec a = load_some(dtype, from + i * size, 1, some), b = load_some(dtype, from + (pairs + i) * size, 1, some);
    store_some(dtype, turned(a, b, cosine, turn), to + i * size, 1, some);
    store_some(dtype, turned(b, a, cosine, -turn), to + (pairs + i) * size, 1, some);
  }
}

/* Two vectors hold LANES pairs; where there are fewer, the second may hold none. */
WORD void rotate_neighbours(attn_dtype dtype, int64_t pairs, const bool back, const void *x, const real *cosines,
                            const real *sines, void *out) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  const char *from = x;
  char *to = out;
  for (int64_t i = 0; i < pairs; i += LANES) {
    const int64_t some = pairs - i < LANES ? pairs - i : LANES;
    const int64_t low = 2 * some < LANES ? 2 * some : LANES, high = 2 * some - low;
    const vec cosine = load_some(ROW_REAL, cosines + i, 1, some), sine = load_some(ROW_REAL, sines + i, 1, some);
    const vec turn = back ? -sine : sine;
    const vec a = load_some(dtype, from + 2 * i * size, 1, low), b = load_some(dtype, from + (2 * i + LANES) * size, 1, high);
    store_some(dtype, turned(a, v_swap(a), v_zip_lo(cosine, cosine), v_zip_lo(turn, -turn)), to + 2 * i * size, 1, low);
    store_some(dtype, turned(b, v_swap(b), v_zip_hi(cosine, cosine), v_zip_hi(turn, -turn)), to + (2 * i + LANES) * size, 1,
               high);
  }
}

WORD void rotate_dense(attn_dtype dtype, const attn_rotary *rotary, int64_t pairs, const void *x, const real *cosines,
                       const real *sines, void *out) {
  if (rotary->neighbours && rotary->back) rotate_neighbours(dtype, pairs, true, x, cosines, sines, out);
  else if (rotary->neighbours) rotate_neighbours(dtype, pairs, false, x, cosines, sines, out);
  else if (rotary->back) rotate_halves(dtype, pairs, true, x, cosines, sines, out);
  else rotate_halves(dtype, pairs, false, x, cosines, sines, out);
}

/* `some` pairs from the first on, between a row and halves (or neighbours) of their own. */
WORD void move_pairs(const attn_rotary *rotary, bool load, char *row, int64_t column, int64_t first, int64_t some, real *piece) {
  const attn_dtype dtype = rotary->shape.dtype;
  const int64_t step = column * (int64_t)attn_dtype_size(dtype);
  const int parts = rotary->neighbours ? 1 : 2;
  for (int part = 0; part < parts; part++) {
    char *at = row + (rotary->neighbours ? 2 * first : first + part * rotary->pairs) * step;
    const int64_t count = rotary->neighbours ? 2 * some : some;
    if (load) load_row(dtype, at, column, count, piece + part * some);
    else store_row(dtype, piece + part * some, count, at, column);
  }
}

static void rotary_row(const attn_rotary *rotary, const void *x, const void *cosines, const void *sines, void *out) {
  const attn_rows *shape = &rotary->shape;
  const attn_dtype dtype = shape->dtype;
  const int64_t size = (int64_t)attn_dtype_size(dtype), turning = 2 * rotary->pairs;
  if (shape->x_column == 1 && shape->out_column == 1) {
    OF_DTYPE(dtype, rotate_dense, rotary, rotary->pairs, x, cosines, sines, out);
  } else {
    real piece[PIECE];
    for (int64_t i = 0; i < rotary->pairs; i += PIECE / 2) {
      const int64_t some = rotary->pairs - i < PIECE / 2 ? rotary->pairs - i : PIECE / 2;
      move_pairs(rotary, true, (char *)x, shape->x_column, i, some, piece);
      rotate_dense(ROW_REAL, rotary, some, piece, (const real *)cosines + i, (const real *)sines + i, piece);
      move_pairs(rotary, false, out, shape->out_column, i, some, piece);
    }
  }
  if (x == out || turning == shape->columns) return;
  attn_rows rest = *shape;
  rest.columns -= turning;
  copy_row(&rest, (const char *)x + turning * shape->x_column * size, (char *)out + turning * shape->out_column * size);
}
