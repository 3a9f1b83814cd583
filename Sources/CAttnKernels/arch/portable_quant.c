/* Products with quantised weights: the baseline of the target. */
#include <math.h>

#include "../quant.h"

#define ISA portable

#include "../vec/portable.h"
#include "../vec/quant_words.h"

#include "../templates/quant.h"
