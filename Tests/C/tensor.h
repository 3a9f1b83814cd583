/* Buffers that notice stray writes, and tensors of every dtype and memory layout on top of them. */
#ifndef TENSOR_H
#define TENSOR_H

#include <swiftattn.h>

extern const swiftattn_dtype F32, F16, BF16, F64, I32, I64, BOOL8;

/* Where a buffer lies: on the heap, or against an unreadable page behind or before it. */
enum { BUFFER_HEAP, BUFFER_GUARD_AFTER, BUFFER_GUARD_BEFORE };
int buffer_mode(int mode); /* returns the mode before */

/* New buffers hold 0xFF bytes, a NaN in every floating dtype, so that padding which is read or elements which are
 * not written show. They live until buffer_free_all. */
void *buffer_new(size_t bytes);
void buffer_free_all(void);

/* Makes all guarded buffers of this moment read-only, so that a write to an input is a fault. */
void buffer_freeze(void);

/* A copy of every live buffer, and whether they all still hold it. */
void buffer_snapshot(void);
int buffer_unchanged(void);

enum {
  LAYOUT_DENSE,
  LAYOUT_PADDED,   /* gaps after each row and matrix */
  LAYOUT_SWAPPED,  /* dims -2 and -3 exchanged in memory, as (B, T, H, D) */
  LAYOUT_COLUMN,   /* dims -1 and -2 exchanged in memory */
  LAYOUT_SPACED,   /* every second element */
  LAYOUT_REVERSED, /* all strides negative, data reached through byte_offset */
  LAYOUT_COUNT,
  LAYOUT_BROADCAST /* stride 0 in dim 0; inputs only */
};

swiftattn_tensor tensor_make(swiftattn_dtype dtype, int layout, int ndim, const int64_t *shape);
#define TENSOR(dtype, layout, ...) \
  tensor_make(dtype, layout, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

int tensor_random_layout(void);
int64_t tensor_count(const swiftattn_tensor *t);
size_t dtype_size(swiftattn_dtype dtype);
const char *dtype_name(swiftattn_dtype dtype);
int dtype_equal(swiftattn_dtype a, swiftattn_dtype b);

/* Unit roundoff of a store to the dtype, and a size below which results may be flushed to zero. */
double dtype_roundoff(swiftattn_dtype dtype);
double dtype_tiny(swiftattn_dtype dtype);

/* Unit roundoff of the arithmetic that the dtype is computed in. */
double dtype_compute_roundoff(swiftattn_dtype dtype);

/* The same for probabilities on their way to the values: machines with bfloat16 products round them for these. */
double dtype_probability_roundoff(swiftattn_dtype dtype);

void *tensor_at(const swiftattn_tensor *t, const int64_t *index);
double tensor_load(const swiftattn_tensor *t, const int64_t *index);
void tensor_store(const swiftattn_tensor *t, const int64_t *index, double value);
double tensor_load1(const swiftattn_tensor *t, int64_t i);
void tensor_store1(const swiftattn_tensor *t, int64_t i, double value);

/* Steps index in row-major order; 0 after the last. Start from zeros, with tensor_count > 0. */
int tensor_next(const swiftattn_tensor *t, int64_t *index);

void tensor_fill(const swiftattn_tensor *t, double value);
void tensor_fill_normal(const swiftattn_tensor *t, double scale);

/* The elements as row-major doubles, broadcast to shape (aligned at the last dim). */
double *tensor_dense(const swiftattn_tensor *t, int ndim, const int64_t *shape);
int tensor_broadcasts(const swiftattn_tensor *t, int ndim, const int64_t *shape);

/* The part [start, start + length) of a dim. */
swiftattn_tensor tensor_slice(const swiftattn_tensor *t, int dim, int64_t start, int64_t length);

/* An output like t, dense and unwritten. */
swiftattn_tensor tensor_like(const swiftattn_tensor *t);
int tensor_same_bits(const swiftattn_tensor *a, const swiftattn_tensor *b);

/* Fails the test where an output differs from row-major expected values by more than one rounding and bound[i]
 * (NULL: no more), or where bytes between its elements were written. */
void tensor_compare(const char *name, const swiftattn_tensor *got, const double *expected, const double *bound);

#endif
