/* Buffers between guard pages, and strided views of them in any dtype. */
#ifndef MEMORY_H
#define MEMORY_H

#include "kernels.h"

/* Which end of a buffer touches a guard page. */
typedef enum guard_side { GUARD_BEHIND, GUARD_BEFORE } guard_side;
void guard_choose(guard_side side);

/* A buffer filled with 0xff bytes (NaN in every dtype), valid until guard_reset. With GUARD_BEHIND the bytes after its
 * last one fault as far as `alignment` lets it lie there. */
void *guard_new(size_t bytes, size_t alignment);
/* Makes the buffers handed out so far read-only: they are the inputs. One case in four: system calls are slow. */
void guard_seal(void);
/* Makes the inputs writable, until guard_seal. */
void guard_open(void);
/* Takes the last buffer back. */
void guard_return(void);
void guard_reset(void);

/* ---- elements ---- */

double element_get(attn_dtype dtype, const void *at); /* ATTN_BOOL: 1 or 0 */
void element_put(attn_dtype dtype, void *at, double value); /* to nearest even */
double half_value(attn_dtype dtype, uint16_t pattern);
uint16_t half_pattern(attn_dtype dtype, double value);
double element_roundoff(attn_dtype dtype); /* half an ulp of 1 */
double element_tiny(attn_dtype dtype);     /* what flushing or rounding subnormals may cost */
const char *dtype_name(attn_dtype dtype);
bool same_bits(double a, double b); /* any NaN equals any NaN; -0 is not 0 */

/* ---- views ---- */

typedef struct view {
  attn_dtype dtype;
  int64_t extent[3], stride[3]; /* strides count elements */
  char *data;                   /* element 0, 0, 0 */
  char *buffer;
  size_t bytes;
} view;

typedef enum view_layout {
  VIEW_DENSE,
  VIEW_STRIDED,  /* dimensions permuted, gaps, negative strides */
  VIEW_BROADCAST /* the same, and zero strides */
} view_layout;

view view_new(attn_dtype dtype, int64_t a, int64_t b, int64_t c, view_layout layout);
char *view_at(const view *v, int64_t a, int64_t b, int64_t c);
double view_get(const view *v, int64_t a, int64_t b, int64_t c);
void view_put(const view *v, int64_t a, int64_t b, int64_t c, double value);
int64_t view_count(const view *v);
/* Copies the elements, dense and in order. */
void view_gather(const view *v, double *out);
/* Fails the test if a byte between the elements is no longer 0xff. */
void view_check_gaps(const view *v, const char *what);

#endif
