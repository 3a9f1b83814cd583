/* Moving elements between memory in any dtype and stride and dense blocks of the computing type. */

/* count (<= LANES) elements, converted; the lanes behind them are 0. */
WORD vec load_some(attn_dtype dtype, const void *x, int64_t stride, int64_t count) {
  const bool whole = stride == 1 && count == LANES;
  if (dtype == ATTN_BOOL) { /* a mask: 0 where true, -inf where false */
    int8_t bytes[LANES];
    memset(bytes, 1, sizeof bytes);
    if (whole) memcpy(bytes, x, sizeof bytes);
    else for (int64_t i = 0; i < count; i++) bytes[i] = ((const int8_t *)x)[i * stride];
    return v_select(v_from_i8(bytes) == (vec){0}, v_set1(-(real)__builtin_inff()), (vec){0});
  }
#if REAL_IS_FLOAT
  if (dtype != ATTN_F32) {
    uint16_t half[LANES] __attribute__((aligned(VEC_BYTES))) = {0};
    const uint16_t *from = x;
    if (whole) memcpy(half, from, sizeof half);
    else for (int64_t i = 0; i < count; i++) half[i] = from[i * stride];
    return dtype == ATTN_F16 ? v_from_f16(v_load_half(half)) : v_from_bf16(v_load_half(half));
  }
#endif
  real some[LANES] = {0};
#if !REAL_IS_FLOAT
  if (dtype != ATTN_F64) {
    for (int64_t i = 0; i < count; i++) some[i] = ((const float *)x)[i * stride];
    return v_load(some);
  }
#endif
  if (whole) return v_load(x);
  typedef real unaligned __attribute__((aligned(2))); /* it may be a pair of 16-bit numbers */
  const unaligned *from = x;
  for (int64_t i = 0; i < count; i++) some[i] = from[i * stride];
  return v_load(some);
}

/* Stores the first count (<= LANES) lanes, rounded to the dtype. */
WORD void store_some(attn_dtype dtype, vec v, void *out, int64_t stride, int64_t count) {
#if REAL_IS_FLOAT
  if (dtype != ATTN_F32) {
    uint16_t half[LANES] __attribute__((aligned(VEC_BYTES)));
    v_store_half(half, dtype == ATTN_F16 ? v_to_f16(v) : v_to_bf16(v));
    uint16_t *to = out;
    if (stride == 1 && count == LANES) memcpy(to, half, sizeof half);
    else for (int64_t i = 0; i < count; i++) to[i * stride] = half[i];
    return;
  }
#else
  if (dtype == ATTN_F32) {
    for (int64_t i = 0; i < count; i++) ((float *)out)[i * stride] = (float)v[i];
    return;
  }
#endif
  real *to = out;
  if (stride == 1 && count == LANES) v_store(to, v);
  else for (int64_t i = 0; i < count; i++) to[i * stride] = v[i];
}

/* FUNCTION(dtype, ...) with the dtype as a constant, so that each loop is of one kind. */
#if REAL_IS_FLOAT
#define OF_ANY_DTYPE(dtype, FUNCTION, ...)                   \
  switch (dtype) {                                           \
    case ATTN_F16: FUNCTION(ATTN_F16, __VA_ARGS__); break;   \
    case ATTN_BF16: FUNCTION(ATTN_BF16, __VA_ARGS__); break; \
    case ATTN_BOOL: FUNCTION(ATTN_BOOL, __VA_ARGS__); break; \
    default: FUNCTION(ATTN_F32, __VA_ARGS__); break;         \
  }
#else
#define OF_ANY_DTYPE(dtype, FUNCTION, ...)                   \
  switch (dtype) {                                           \
    case ATTN_F32: FUNCTION(ATTN_F32, __VA_ARGS__); break;   \
    case ATTN_BOOL: FUNCTION(ATTN_BOOL, __VA_ARGS__); break; \
    default: FUNCTION(ATTN_F64, __VA_ARGS__); break;         \
  }
#endif

WORD void load_row_of(attn_dtype dtype, const void *x, int64_t stride, int64_t count, real *to) {
  const int64_t step = stride * (int64_t)attn_dtype_size(dtype);
  const char *from = x;
  int64_t i = 0;
  if (stride == 1)
    for (; i + LANES <= count; i += LANES) v_store(to + i, load_some(dtype, from + i * step, 1, LANES));
  for (; i + LANES <= count; i += LANES) v_store(to + i, load_some(dtype, from + i * step, stride, LANES));
  if (i == count) return;
  const vec last = load_some(dtype, from + i * step, stride, count - i);
  for (int64_t j = 0; i + j < count; j++) to[i + j] = last[j];
}

static void load_row(attn_dtype dtype, const void *x, int64_t stride, int64_t count, void *reals) {
  OF_ANY_DTYPE(dtype, load_row_of, x, stride, count, reals);
}

WORD void store_row_of(attn_dtype dtype, const real *from, int64_t count, void *out, int64_t stride) {
  const int64_t step = stride * (int64_t)attn_dtype_size(dtype);
  char *to = out;
  int64_t i = 0;
  if (stride == 1)
    for (; i + LANES <= count; i += LANES) store_some(dtype, v_load(from + i), to + i * step, 1, LANES);
  for (; i + LANES <= count; i += LANES) store_some(dtype, v_load(from + i), to + i * step, stride, LANES);
  if (i == count) return;
  vec last = {0};
  for (int64_t j = 0; i + j < count; j++) last[j] = from[i + j];
  store_some(dtype, last, to + i * step, stride, count - i);
}

/* Not every table has rows to store. */
static __attribute__((unused)) void store_row(attn_dtype dtype, const void *reals, int64_t count, void *out,
                                              int64_t stride) {
  OF_ANY_DTYPE(dtype, store_row_of, reals, count, out, stride);
}

#ifndef HAS_TRANSPOSE
/* In place: lane j of square[i] becomes lane i of square[j]. log2(LANES) rounds of a perfect shuffle. */
WORD void transpose(vec square[LANES]) {
#pragma clang loop unroll(full)
  for (int round = 1; round < LANES; round *= 2) {
    vec next[LANES];
#pragma clang loop unroll(full)
    for (int i = 0; i < LANES / 2; i++) {
      next[2 * i] = v_zip_lo(square[i], square[i + LANES / 2]);
      next[2 * i + 1] = v_zip_hi(square[i], square[i + LANES / 2]);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < LANES; i++) square[i] = next[i];
  }
}
#endif

#ifndef LOADED_COLUMNS
#define LOADED_COLUMNS LANES /* that are loaded from LANES rows at a time */
/* columns[t] = element t of LANES rows, `step` bytes apart. */
WORD void load_columns(const attn_dtype dtype, const char *rows, int64_t step, vec columns[LANES]) {
#pragma clang loop unroll(full)
  for (int r = 0; r < LANES; r++) columns[r] = load_some(dtype, rows + r * step, 1, LANES);
  transpose(columns);
}
#endif

/* The same for LANES columns. */
WORD void load_square(const attn_dtype dtype, const char *rows, int64_t step, vec square[LANES]) {
#ifdef HAS_BF16_SQUARE
  if (dtype == ATTN_BF16) {
    load_bf16_square(rows, step, square);
    return;
  }
#endif
#pragma clang loop unroll(full)
  for (int t = 0; t < LANES; t += LOADED_COLUMNS)
    load_columns(dtype, rows + t * (int64_t)attn_dtype_size(dtype), step, square + t);
}

WORD void load_transposed_of(attn_dtype dtype, const void *const *rows, int64_t row_count, int64_t stride, int64_t count,
                             real *columns, int64_t step) {
  const int64_t size = (int64_t)attn_dtype_size(dtype);
  for (int64_t r = 0; r < row_count; r += LANES)
    for (int64_t c = 0; c < count; c += LANES) {
      const int64_t some = count - c < LANES ? count - c : LANES, filled = row_count - r < LANES ? row_count - r : LANES;
      vec square[LANES];
      if (stride == 1 && some == LANES && filled == LANES) {
#pragma clang loop unroll(full)
        for (int i = 0; i < LANES; i++) square[i] = load_some(dtype, (const char *)rows[r + i] + c * size, 1, LANES);
      } else {
        for (int i = 0; i < LANES; i++)
          square[i] = i < filled ? load_some(dtype, (const char *)rows[r + i] + c * stride * size, stride, some) : (vec){0};
      }
      transpose(square);
      for (int i = 0; i < some; i++) v_store(columns + (c + i) * step + r, square[i]);
    }
}

/* columns[c * step + r] = rows[r][c * stride] for `count` columns; lanes from row_count up to the next multiple of
 * LANES are 0. */
static void load_transposed(attn_dtype dtype, const void *const *rows, int64_t row_count, int64_t stride, int64_t count,
                            real *columns, int64_t step) {
  OF_ANY_DTYPE(dtype, load_transposed_of, rows, row_count, stride, count, columns, step);
}

/* rows[r][c * stride] = columns[c * step + r], rounded to the dtype: the way back. */
static void store_transposed(attn_dtype dtype, const real *columns, int64_t step, int64_t row_count, int64_t count,
                             void *const *rows, int64_t stride) {
  const int64_t bytes = stride * (int64_t)attn_dtype_size(dtype);
  for (int64_t r = 0; r < row_count; r += LANES)
    for (int64_t c = 0; c < count; c += LANES) {
      const int64_t some = count - c < LANES ? count - c : LANES;
      vec square[LANES];
      for (int i = 0; i < LANES; i++) square[i] = i < some ? v_load(columns + (c + i) * step + r) : (vec){0};
      transpose(square);
      for (int i = 0; i < LANES && r + i < row_count; i++)
        store_some(dtype, square[i], (char *)rows[r + i] + c * bytes, stride, some);
    }
}
