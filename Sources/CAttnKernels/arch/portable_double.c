/* Kernels of The baseline of the target, double. */
#include <math.h>

#include "../kernels.h"

#define ISA portable
#define REAL_NAME double
#define PRODUCT_VECS 2 /* 6 x 2: 12 accumulators + 2 of b + 1 of a = 15 of 16 xmm */

#define VEC_BYTES 16
#include "../vec/double.h"

#include "../templates/kernels.h"
