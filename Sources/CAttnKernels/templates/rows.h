/* Words for rows: elements of any dtype that lie side by side, vector by vector, converted in registers. Where a dtype is
 * passed to a WORD it is a constant, so that each loop is of one kind. */

#define ROW_REAL (REAL_IS_FLOAT ? ATTN_F32 : ATTN_F64)
#define SHORT_SUM 16 /* vectors summed before their sum joins the others: a long running sum would lose digits */
#define CACHE_LINE 64 /* only whole ones are stored past the caches: one that is also stored to is fetched, and thrown out */
#define WRITE_AHEAD 512 /* bytes */
#define PIECE 512    /* elements of a strided row converted at a time: stays in L1 */

/* FUNCTION(dtype, ...) with the dtype as a constant. */
#if REAL_IS_FLOAT
#define OF_DTYPE(dtype, FUNCTION, ...)                    \
  switch (dtype) {                                        \
    case ATTN_F16: FUNCTION(ATTN_F16, __VA_ARGS__); break; \
    case ATTN_BF16: FUNCTION(ATTN_BF16, __VA_ARGS__); break; \
    default: FUNCTION(ATTN_F32, __VA_ARGS__); break;      \
  }
#else
#define OF_DTYPE(dtype, FUNCTION, ...) FUNCTION(ATTN_F64, __VA_ARGS__); (void)(dtype)
#endif

/* Where the short sum that begins at element j ends. */
WORD int64_t short_end(int64_t j, int64_t n) { return n - j < SHORT_SUM * LANES ? n : j + SHORT_SUM * LANES; }

WORD vec row_load(attn_dtype dtype, const void *row, int64_t j) {
  return load_some(dtype, (const char *)row + j * (int64_t)attn_dtype_size(dtype), 1, LANES);
}

WORD void row_store(attn_dtype dtype, void *row, int64_t j, vec v) {
  store_some(dtype, v, (char *)row + j * (int64_t)attn_dtype_size(dtype), 1, LANES);
}

WORD void row_load_many(const int count, attn_dtype dtype, const void *row, int64_t j, vec *v) {
  EACH(i, count) v[i] = row_load(dtype, row, j + i * LANES);
}

/* Past the caches; the place is aligned to what is stored. */
WORD void row_stream(attn_dtype dtype, void *row, int64_t j, vec v) {
  char *at = (char *)row + j * (int64_t)attn_dtype_size(dtype);
#if REAL_IS_FLOAT
  if (dtype != ATTN_F32) {
    __builtin_nontemporal_store(dtype == ATTN_F16 ? v_to_f16(v) : v_to_bf16(v), (halfvec *)at);
    return;
  }
#endif
  __builtin_nontemporal_store(v, (vec *)at);
}

/* Where the stores of a row may begin that do not straddle cache lines: at an element of its first vector, or behind it. */
WORD int64_t row_aligned(attn_dtype dtype, const void *row) {
  const uintptr_t size = attn_dtype_size(dtype), step = LANES * size;
  return (int64_t)((step - (uintptr_t)row % step) / size);
}

/* From where on they fill whole cache lines, at most `end`. */
WORD int64_t row_line(attn_dtype dtype, const void *row, int64_t aligned, int64_t end) {
  const uintptr_t size = attn_dtype_size(dtype), over = ((uintptr_t)row + (uintptr_t)aligned * size) % CACHE_LINE;
  const int64_t line = aligned + (int64_t)((CACHE_LINE - over) % CACHE_LINE / size);
  return line < end ? line : end;
}

/* Asks for what lies n elements behind x[j] and the vectors after it, once for each line. With the row's length as n, in a pass
 * over a row that is in the cache already, memory works on the next one meanwhile. Behind the last row it asks for nothing that
 * exists, which does no harm. */
WORD void row_ask(const int count, attn_dtype dtype, const void *row, int64_t n, int64_t j) {
  const int size = (int)attn_dtype_size(dtype), step = LANES * size < CACHE_LINE ? CACHE_LINE / (LANES * size) : 1;
  EACH(i, (count + step - 1) / step) __builtin_prefetch((const char *)row + (n + j + i * step * LANES) * size);
}

/* Asks for lines before they are stored to: worth it where a row takes next to no arithmetic. */
WORD void row_ask_written(const int count, attn_dtype dtype, const void *row, int64_t j) {
  row_ask(count, dtype, row, WRITE_AHEAD / (int64_t)attn_dtype_size(dtype), j);
}

/* What is left behind the whole vectors of a row of n elements. A row of at least one vector has it as the upper lanes of
 * its last one, a shorter row as the lower lanes of its only one. */
typedef struct row_rest {
  vec x;
  lanemask own;
} row_rest;

WORD row_rest row_load_rest(attn_dtype dtype, const void *row, int64_t n) {
  ivec lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
  if (n < LANES) return (row_rest){ load_some(dtype, row, 1, n), lane < (bits)n };
  return (row_rest){ row_load(dtype, row, n - LANES), lane >= (bits)(LANES - n % LANES) };
}

/* Writes every vector of a row of n >= LANES elements. VALUES is a statement that sets v[0], ..., v[count - 1] to those that
 * begin at element j; it may read out where it is written. Whole vectors begin where their stores are aligned; the first and the
 * last vector overlap them, so these are computed before anything is written and stored at the end. */
#define WRITE_ROW(dtype, out, n, stream, VALUES)                                         \
  do {                                                                                   \
    vec first_vector, last_vector, values[MANY];                                         \
    SET_VECTORS(&first_vector, 1, 0, VALUES);                                            \
    SET_VECTORS(&last_vector, 1, (n) - LANES, VALUES);                                   \
    const int64_t end = (n) - LANES, begin = row_aligned(dtype, out);                    \
    int64_t at = begin;                                                                  \
    if (stream) WRITE_SINGLES(dtype, out, row_line(dtype, out, begin, end), VALUES);     \
    for (; at + (MANY - 1) * LANES < end; at += MANY * LANES) {                          \
      SET_VECTORS(values, MANY, at, VALUES);                                             \
      if ((stream) && at + MANY * LANES <= end)                                          \
        EACH(k, MANY) row_stream(dtype, out, at + k * LANES, values[k]);                 \
      else                                                                               \
        EACH(k, MANY) row_store(dtype, out, at + k * LANES, values[k]);                  \
    }                                                                                    \
    WRITE_SINGLES(dtype, out, end, VALUES);                                              \
    row_store(dtype, out, 0, first_vector);                                              \
    row_store(dtype, out, end, last_vector);                                             \
  } while (0)

#define WRITE_SINGLES(dtype, out, END, VALUES)                                           \
  for (const int64_t until = (END); at < until; at += LANES) {                           \
    SET_VECTORS(values, 1, at, VALUES);                                                  \
    row_store(dtype, out, at, values[0]);                                                \
  }

#define SET_VECTORS(VECTORS, COUNT, J, VALUES)                                           \
  do {                                                                                   \
    vec *const v = (VECTORS);                                                            \
    const int count = (COUNT);                                                           \
    const int64_t j = (J);                                                               \
    VALUES;                                                                              \
  } while (0)

/* out = x + added, or the very bits of x without it. */
WORD void sum_vectors(attn_dtype dtype, int64_t n, const void *x, const void *added, void *out, bool stream) {
  if (n < LANES)
    store_some(dtype, load_some(dtype, x, 1, n) + load_some(dtype, added, 1, n), out, 1, n);
  else
    WRITE_ROW(dtype, out, n, stream,
              EACH(i, count) v[i] = row_load(dtype, x, j + i * LANES) + row_load(dtype, added, j + i * LANES));
}

static void copy_row(const attn_rows *shape, const char *x, char *out) {
  const size_t size = attn_dtype_size(shape->dtype), bytes = (size_t)shape->columns * size;
  if (shape->x_column == 1 && shape->out_column == 1) {
    size_t i = 0;
    if (shape->stream && bytes >= 2 * CACHE_LINE) {
      i = (CACHE_LINE - (uintptr_t)out % CACHE_LINE) % CACHE_LINE;
      memcpy(out, x, i);
      for (; i + CACHE_LINE <= bytes; i += CACHE_LINE)
        EACH(k, CACHE_LINE / VEC_BYTES) {
          vec v;
          memcpy(&v, x + i + k * VEC_BYTES, VEC_BYTES);
          __builtin_nontemporal_store(v, (vec *)(out + i + k * VEC_BYTES));
        }
    }
    memcpy(out + i, x + i, bytes - i);
    return;
  }
  for (int64_t j = 0; j < shape->columns; j++)
    memcpy(out + j * shape->out_column * (int64_t)size, x + j * shape->x_column * (int64_t)size, size);
}

static void sum_row(const attn_rows *shape, const void *x, const void *added, int64_t added_column, void *out) {
  const attn_dtype dtype = shape->dtype;
  const int64_t size = (int64_t)attn_dtype_size(dtype), n = shape->columns;
  if (!added) {
    copy_row(shape, x, out);
    return;
  }
  if (shape->x_column == 1 && shape->out_column == 1 && added_column == 1) {
    OF_DTYPE(dtype, sum_vectors, n, x, added, out, shape->stream);
    return;
  }
  real piece[PIECE], other[PIECE];
  for (int64_t j = 0; j < n; j += PIECE) {
    const int64_t some = n - j < PIECE ? n - j : PIECE;
    load_row(dtype, (const char *)x + j * shape->x_column * size, shape->x_column, some, piece);
    load_row(dtype, (const char *)added + j * added_column * size, added_column, some, other);
    for (int64_t i = 0; i < some; i++) piece[i] += other[i];
    store_row(dtype, piece, some, (char *)out + j * shape->out_column * size, shape->out_column);
  }
}
