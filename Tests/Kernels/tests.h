/* The variant under test, and the tests of its table entries. */
#ifndef TESTS_H
#define TESTS_H

#include "check.h"
#include "memory.h"
#include "quant.h"

typedef struct subject {
  const char *isa, *real; /* "avx2", "float" */
  const attn_kernels *kernels, *portable;
  attn_dtype real_dtype;
  attn_dtype dtypes[3]; /* of tensors that compute in this type */
  int dtype_count;
  double roundoff;
} subject;

void test_attention(const subject *s);
void test_attention_edges(const subject *s);
void test_attention_bits(const subject *s);
void test_attention_stored(const subject *s);
void test_attention_nonfinite(const subject *s);
void test_attention_backward(const subject *s);
void test_exp2(const subject *s);
void test_pack(const subject *s);
void test_multiply(const subject *s);
void test_multiply_panels(const subject *s);
void test_stream(const subject *s);
void test_finish(const subject *s);
void test_softmax(const subject *s);
void test_activation(const subject *s);
void test_norm(const subject *s);
void test_sum(const subject *s);
void test_rotary(const subject *s);
void test_dropout(const subject *s);
void test_gradients(const subject *s);
void test_additive(const subject *s);
void test_load(const subject *s);
void test_store(const subject *s);
void test_packed_products(const subject *s);
void test_tiles(const subject *s);
void test_drivers(void);

void test_quant_pack(void);
void test_quant_tile(const char *name, const attn_quant_kernels *kernels);
void test_quant_run(void);

/* One table: entries down, variants across. */
void bench(const subject *subjects, int count);
void bench_quant(const char *name, const attn_quant_kernels *kernels);

/* activation(x) with the C library, in long double where `wide`, else in double; and the largest error of a kernel. */
double activation_reference(attn_activation activation, double x, bool wide);
double activation_bound(const subject *s, attn_activation activation, double x);

#endif
