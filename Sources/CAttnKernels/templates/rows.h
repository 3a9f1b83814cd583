/* Words for rows: elements of any dtype that lie side by side, vector by vector, converted in registers. Where a dtype is
 * passed to a WORD it is a constant, so that each loop is of one kind. */

#define ROW_REAL (REAL_IS_FLOAT ? ATTN_F32 : ATTN_F64)
#define SHORT_SUM 16 /* vectors summed before their sum joins the others: a long running sum would lose digits */
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

WORD vec row_load(attn_dtype dtype, const void *row, int64_t j) {
  return load_some(dtype, (const char *)row + j * (int64_t)attn_dtype_size(dtype), 1, LANES);
}

WORD void row_store(attn_dtype dtype, void *row, int64_t j, vec v) {
  store_some(dtype, v, (char *)row + j * (int64_t)attn_dtype_size(dtype), 1, LANES);
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

/* Asks for what lies a row behind x[j], in a pass over a row that is in the cache already: memory works on meanwhile.
 * Behind the last row it asks for nothing that exists, which does no harm. */
WORD void row_ask(attn_dtype dtype, const void *row, int64_t n, int64_t j) {
  __builtin_prefetch((const char *)row + (n + j) * (int64_t)attn_dtype_size(dtype));
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

/* out[j] = VALUE for every vector of a row of n >= LANES elements; VALUE is an expression in j that may read out where it
 * is written. Whole vectors begin where their stores are aligned; the first and the last vector overlap them, so these are
 * computed before anything is written and stored at the end. */
#define WRITE_ROW(dtype, out, n, stream, VALUE)                                          \
  do {                                                                                   \
    int64_t j = 0;                                                                       \
    const vec first_vector = (VALUE);                                                    \
    j = (n) - LANES;                                                                     \
    const vec last_vector = (VALUE);                                                     \
    j = row_aligned(dtype, out);                                                         \
    if (stream)                                                                          \
      for (; j < (n) - LANES; j += LANES) row_stream(dtype, out, j, (VALUE));            \
    else                                                                                 \
      for (; j < (n) - LANES; j += LANES) row_store(dtype, out, j, (VALUE));             \
    row_store(dtype, out, 0, first_vector);                                              \
    row_store(dtype, out, (n) - LANES, last_vector);                                     \
  } while (0)

/* out = x + added, or the very bits of x without it. */
WORD void sum_vectors(attn_dtype dtype, int64_t n, const void *x, const void *added, void *out, bool stream) {
  if (n < LANES)
    store_some(dtype, load_some(dtype, x, 1, n) + load_some(dtype, added, 1, n), out, 1, n);
  else
    WRITE_ROW(dtype, out, n, stream, row_load(dtype, x, j) + row_load(dtype, added, j));
}

static void copy_row(const attn_rows *shape, const char *x, char *out) {
  const size_t size = attn_dtype_size(shape->dtype), bytes = (size_t)shape->columns * size;
  if (shape->x_column == 1 && shape->out_column == 1) {
    size_t i = 0;
    if (shape->stream && bytes >= 2 * VEC_BYTES) {
      const size_t ahead = (VEC_BYTES - (uintptr_t)out % VEC_BYTES) % VEC_BYTES;
      memcpy(out, x, VEC_BYTES);
      for (i = ahead; i + VEC_BYTES <= bytes; i += VEC_BYTES) {
        vec v;
        memcpy(&v, x + i, VEC_BYTES);
        __builtin_nontemporal_store(v, (vec *)(out + i));
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
