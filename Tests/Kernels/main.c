/* Walks kernel_list.h: every variant that this machine has is checked, entry by entry, or timed with --bench. */
#include <stdio.h>
#include <string.h>

#include "cpu_features.h"
#include "kernel_list.h"
#include "tests.h"

#define DECLARE(isa, has) extern const attn_kernels attn_kernels_##isa##_float, attn_kernels_##isa##_double;
ATTN_ISA_LIST(DECLARE)

static void test(const subject *s) {
  test_attention(s);
  test_attention_edges(s);
  test_attention_bits(s);
  test_attention_nonfinite(s);
  test_exp2(s);
  test_pack(s);
  test_multiply(s);
  test_finish(s);
  test_softmax(s);
  test_activation(s);
  test_load(s);
  test_store(s);
}

static subject of_float(const char *isa, const attn_kernels *kernels) {
  return (subject){ isa, "float", kernels, &attn_kernels_portable_float, ATTN_F32, { ATTN_F32, ATTN_F16, ATTN_BF16 }, 3,
                    0x1p-24 };
}

static subject of_double(const char *isa, const attn_kernels *kernels) {
  return (subject){ isa, "double", kernels, &attn_kernels_portable_double, ATTN_F64, { ATTN_F64 }, 1, 0x1p-53 };
}

int main(int argc, char **argv) {
  bool time = false;
  const char *only = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--quick")) check_quick = true;
    else if (!strcmp(argv[i], "--bench")) time = true;
    else if (argv[i][0] != '-' && !only) only = argv[i];
    else return fprintf(stderr, "usage: %s [--quick] [--bench] [isa]\n", argv[0]), 2;
  }
  subject subjects[32];
  int count = 0;
#define ADD(isa, has)                                                         \
  if (only && strcmp(only, #isa)) {                                           \
  } else if (has) {                                                           \
    subjects[count++] = of_float(#isa, &attn_kernels_##isa##_float);          \
    subjects[count++] = of_double(#isa, &attn_kernels_##isa##_double);        \
  } else {                                                                    \
    printf("%s: not on this machine\n", #isa);                                \
  }
  ATTN_ISA_LIST(ADD)
  if (!count) return fprintf(stderr, "no variant to test\n"), 2;
  if (time) return bench(subjects, count), 0;
  for (int i = 0; i < count; i++) {
    const subject *s = &subjects[i];
    if (strcmp(s->kernels->isa, s->isa)) return fprintf(stderr, "%s: table says %s\n", s->isa, s->kernels->isa), 2;
    test(s);
  }
  return check_report();
}
