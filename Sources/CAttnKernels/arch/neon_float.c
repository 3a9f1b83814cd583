/* Kernels of Arm NEON, float. */
#if defined(__aarch64__)
#include <math.h>
#include <arm_neon.h>

#include "../kernels.h"

#define ISA neon
#define REAL_NAME float
#define PRODUCT_VECS 4 /* 6 x 4: 24 accumulators + 4 of b + 1 of a = 29 of 32 registers */

#include "../vec/neon.h"

#include "../templates/kernels.h"
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
