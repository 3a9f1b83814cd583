/* Kernels of Arm NEON, double. */
#if defined(__aarch64__)
#include <math.h>

#include "../kernels.h"

#define ISA neon
#define REAL_NAME double
#define PRODUCT_VECS 4 /* 6 x 4: 24 accumulators + 4 of b + 1 of a = 29 of 32 registers */

#define VEC_BYTES 16
#define DOUBLE_HAS_FMA
#include "../vec/double.h"

#include "../templates/kernels.h"
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
