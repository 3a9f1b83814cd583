/* The kernels for quantised weights that go with the chosen ISA: the best ones that need no better an ISA. */
#include <pthread.h>
#include <string.h>

#include "cpu_features.h"
#include "kernel_list.h"
#include "quant.h"

#define DECLARE(name, isa, has) extern const attn_quant_kernels attn_quant_kernels_##name;
ATTN_QUANT_LIST(DECLARE)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const attn_quant_kernels *chosen;

/* Place in the list of ISAs, best first. */
static int rank_of(const char *wanted) {
  int rank = 0;
#define RANK(isa, tables, has, may) \
  if (!strcmp(wanted, #isa)) return rank; \
  rank++;
  ATTN_ISA_LIST(RANK)
  return rank;
}

static void choose(void) {
  const int limit = rank_of(attn_isa_name());
#define CHOOSE(name, isa, has) \
  if (!chosen && rank_of(#isa) >= limit && (has)) chosen = &attn_quant_kernels_##name;
  ATTN_QUANT_LIST(CHOOSE)
}

const attn_quant_kernels *attn_quant_kernels_chosen(void) {
  pthread_once(&once, choose);
  return chosen;
}
