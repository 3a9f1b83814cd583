/* Walks kernel_list.h: every variant that this machine has is checked, entry by entry, or timed with --bench. */
#include <stdio.h>
#include <string.h>

#include "amx_emulator.h"
#include "cpu_features.h"
#include "kernel_list.h"
#include "tests.h"

#define DECLARE(isa, tables, has, may) extern const attn_kernels attn_kernels_##tables##_float, attn_kernels_##tables##_double;
ATTN_ISA_LIST(DECLARE)
#define DECLARE_BF16(isa, has) extern const attn_kernels attn_kernels_##isa##_bfloat16;
ATTN_BF16_LIST(DECLARE_BF16)
#define DECLARE_PRODUCTS(isa, kernels, dtype, precision, has) extern const attn_kernels attn_kernels_##isa##_##kernels;
ATTN_PRODUCTS_LIST(DECLARE_PRODUCTS)
#define DECLARE_QUANT(name, isa, has) extern const attn_quant_kernels attn_quant_kernels_##name;
ATTN_QUANT_LIST(DECLARE_QUANT)

static void test(const subject *s) {
  test_attention(s);
  test_attention_edges(s);
  test_attention_bits(s);
  test_attention_stored(s);
  test_attention_nonfinite(s);
  test_attention_backward(s);
  test_exp2(s);
  test_pack(s);
  test_multiply(s);
  test_multiply_panels(s);
  test_stream(s);
  if (s->real_dtype == ATTN_F32) test_packed_products(s);
  test_finish(s);
  test_softmax(s);
  test_activation(s);
  test_norm(s);
  test_sum(s);
  test_rotary(s);
  test_dropout(s);
  test_gradients(s);
  test_additive(s);
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

/* Kernels with bfloat16 products, on machines that list some: what they share with the float ones is tested there. */
__attribute__((unused)) static subject of_bfloat16(const char *isa, const attn_kernels *kernels) {
  return (subject){ isa, "bfloat16", kernels, &attn_kernels_portable_float, ATTN_F32, { ATTN_BF16 }, 1,
                    0x1p-9 /* probabilities are rounded for the product with the values */ };
}

/* Kernels for attention and matrix products alone. What they lose: p as one bfloat16, both operands likewise at medium, and
 * what is beyond two bfloat16 at high. */
__attribute__((unused)) static subject of_products(const char *isa, const char *name, const attn_kernels *kernels,
                                                   attn_dtype dtype, attn_precision precision) {
  const double roundoff = dtype == ATTN_BF16 ? 0x1p-9 : (double[]){ 0x1p-24, 0x1p-16, 0x1p-8 }[precision];
  return (subject){ isa, name, kernels, &attn_kernels_portable_float, ATTN_F32, { dtype }, 1, roundoff };
}

static void test_products(const subject *s) {
  check_slow = amx_emulator_used() && !strcmp(s->isa, "amx");
  test_attention(s);
  if (s->roundoff == 0x1p-24 && s->dtypes[0] == s->real_dtype) test_attention_edges(s);
  test_attention_bits(s);
  test_attention_stored(s);
  test_attention_nonfinite(s);
  if (s->roundoff == 0x1p-24) check_slow = false;
  if (s->kernels->backward_tile) test_attention_backward(s);
  check_slow = false;
  if (s->kernels->stream_rows) test_stream(s);
  if (s->kernels->multiply_panels) test_multiply_panels(s);
  test_packed_products(s);
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
#define ADD(isa, tables, has, may)                                            \
  if ((only && strcmp(only, #isa)) || strcmp(#isa, #tables)) {                \
  } else if (has) {                                                           \
    subjects[count++] = of_float(#isa, &attn_kernels_##tables##_float);       \
    subjects[count++] = of_double(#isa, &attn_kernels_##tables##_double);     \
  } else {                                                                    \
    printf("%s: not on this machine\n", #isa);                                \
  }
  ATTN_ISA_LIST(ADD)
  const int all = count;
#define ADD_BF16(isa, has) \
  if ((!only || !strcmp(only, #isa)) && (has)) subjects[count++] = of_bfloat16(#isa, &attn_kernels_##isa##_bfloat16);
  ATTN_BF16_LIST(ADD_BF16)
#define ADD_PRODUCTS(isa, kernels, dtype, precision, has)              \
  if ((!only || !strcmp(only, #isa)) && (has))                          \
    subjects[count++] = of_products(#isa, #kernels, &attn_kernels_##isa##_##kernels, dtype, precision);
  ATTN_PRODUCTS_LIST(ADD_PRODUCTS)
  if (!count) return fprintf(stderr, "no variant to test\n"), 2;
  if (time) bench(subjects, count);
#define EACH_QUANT(name, isa, has)                                                   \
  if ((only && strcmp(only, #isa)) || !(has)) {                                      \
  } else if (time) {                                                                 \
    bench_quant(#name, &attn_quant_kernels_##name);                                  \
  } else {                                                                           \
    test_quant_tile(#name, &attn_quant_kernels_##name);                              \
  }
  ATTN_QUANT_LIST(EACH_QUANT)
  if (time) return 0;
  test_quant_pack();
  test_quant_run();
  test_tiles(&subjects[0]);
  for (int i = 0; i < count; i++) {
    const subject *s = &subjects[i];
    if (strcmp(s->kernels->isa, s->isa)) return fprintf(stderr, "%s: table says %s\n", s->isa, s->kernels->isa), 2;
    if (i < all) test(s);
    else test_products(s);
  }
  check_slow = amx_emulator_used() && !strcmp(attn_isa_name(), "amx");
  if (!only || !strcmp(only, attn_isa_name())) test_drivers();
  return check_report();
}
