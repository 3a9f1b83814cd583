/* Products with quantised weights: Arm NEON. */
#if defined(__aarch64__)
#include <math.h>
#include <arm_neon.h>

#include "../quant.h"

#define ISA neon

#include "../vec/neon.h"
#include "../vec/quant_words.h"

#include "../templates/quant.h"
#else
typedef int attn_not_this_machine; /* a translation unit must not be empty */
#endif
