/* Kernels of The baseline of the target, float. */
#include <math.h>

#include "../kernels.h"

#define ISA portable
#define REAL_NAME float
#define PRODUCT_VECS 2 /* 6 x 2: 12 accumulators + 2 of b + 1 of a = 15 of 16 xmm */

#include "../vec/portable.h"

#include "../templates/kernels.h"
