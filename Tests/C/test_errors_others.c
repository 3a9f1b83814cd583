/* Misuse of every function but scaled_dot_product_attention. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "errors.h"

/* A call of any of the other functions: tensors by role, scalars, and a function that knows which is which. */
typedef struct call {
  swiftattn_tensor a, b, d, e, out, second, parts[2], states[2];
  const swiftattn_tensor *pa, *pb, *pd, *pe, *pout, *psecond, *pparts, *pstates;
  swiftattn_attention_options options;
  swiftattn_linear_options linear;
  int64_t number;
  double eps;
} call;

static swiftattn_tensor normal(swiftattn_dtype dtype, int64_t rows, int64_t columns) {
  swiftattn_tensor t = TENSOR(dtype, LAYOUT_DENSE, rows, columns);
  tensor_fill_normal(&t, 1);
  return t;
}

static swiftattn_tensor integers(int64_t first, int64_t second, int64_t third) {
  swiftattn_tensor t = TENSOR(I32, LAYOUT_DENSE, 3);
  tensor_store1(&t, 0, (double)first);
  tensor_store1(&t, 1, (double)second);
  tensor_store1(&t, 2, (double)third);
  return t;
}

/* Everything set to what most functions take: (3, 4) arrays. */
static void make(call *c) {
  static const swiftattn_attention_options options = SWIFTATTN_ATTENTION_OPTIONS_INIT;
  static const swiftattn_linear_options linear = SWIFTATTN_LINEAR_OPTIONS_INIT;
  memset(c, 0, sizeof *c);
  c->a = normal(F32, 3, 4);
  c->b = normal(F32, 3, 4);
  c->out = normal(F32, 3, 4);
  c->pa = &c->a, c->pb = &c->b, c->pout = &c->out;
  c->options = options;
  c->linear = linear;
  c->eps = 1e-5;
}

/* query (5, 4, 8), key and value (9, 2, 8), entries of 2 and 3 queries, 4 and 5 keys. */
static void make_varlen(call *c) {
  make(c);
  c->a = TENSOR(F32, LAYOUT_DENSE, 5, 4, 8);
  c->b = TENSOR(F32, LAYOUT_DENSE, 9, 2, 8);
  c->d = integers(0, 2, 5);
  c->e = integers(0, 4, 9);
  c->out = TENSOR(F32, LAYOUT_DENSE, 5, 4, 8);
  c->second = TENSOR(F32, LAYOUT_DENSE, 4, 5);
  tensor_fill_normal(&c->a, 1);
  tensor_fill_normal(&c->b, 1);
  c->pd = &c->d, c->pe = &c->e, c->psecond = &c->second;
}
static int32_t run_varlen_call(const call *c) {
  return swiftattn_attention_varlen(c->pa, c->pb, c->pb, c->pd, c->pe, &c->options, c->pout, c->psecond);
}

static void make_merge(call *c) {
  make(c);
  for (int n = 0; n < 2; n++) {
    c->parts[n] = normal(F32, 3, 4);
    c->states[n] = TENSOR(F32, LAYOUT_DENSE, 3);
    tensor_fill(&c->states[n], n);
  }
  c->second = TENSOR(F32, LAYOUT_DENSE, 3);
  c->pparts = c->parts, c->pstates = c->states, c->psecond = &c->second;
  c->number = 2;
}
static int32_t run_merge_call(const call *c) {
  return swiftattn_merge_attention_states(c->pparts, c->pstates, c->number, c->pout, c->psecond);
}

static void make_slopes(call *c) {
  make(c);
  c->out = TENSOR(F32, LAYOUT_DENSE, 6);
}
static int32_t run_slopes(const call *c) { return swiftattn_alibi_slopes(c->pout); }

static void make_matmul(call *c) {
  make(c);
  c->b = normal(F32, 4, 5);
  c->out = normal(F32, 3, 5);
}
static int32_t run_matmul_call(const call *c) { return swiftattn_matmul(c->pa, c->pb, (int32_t)c->number, c->pout); }

/* x (3, 4), weight (5, 4), bias (5,), residual (3, 5). */
static void make_linear(call *c) {
  make(c);
  c->b = normal(F32, 5, 4);
  c->d = TENSOR(F32, LAYOUT_DENSE, 5);
  tensor_fill(&c->d, 1);
  c->e = normal(F32, 3, 5);
  c->out = normal(F32, 3, 5);
  c->pd = &c->d, c->pe = &c->e;
}
static int32_t run_linear(const call *c) { return swiftattn_linear(c->pa, c->pb, c->pd, c->pe, &c->linear, c->pout); }

static int32_t run_softmax(const call *c) { return swiftattn_softmax(c->pa, c->number, c->pout); }

static void make_norm(call *c) {
  make(c);
  c->d = TENSOR(F32, LAYOUT_DENSE, 4);
  c->e = TENSOR(F32, LAYOUT_DENSE, 4);
  tensor_fill(&c->d, 1);
  tensor_fill(&c->e, 1);
  c->pd = &c->d, c->pe = &c->e;
}
static int32_t run_layer_norm(const call *c) { return swiftattn_layer_norm(c->pa, c->pd, c->pe, c->eps, c->pout); }
static int32_t run_rms_norm(const call *c) { return swiftattn_rms_norm(c->pa, c->pd, c->eps, c->pout); }
static int32_t run_relu(const call *c) { return swiftattn_relu(c->pa, c->pout); }
static int32_t run_silu(const call *c) { return swiftattn_silu(c->pa, c->pout); }
static int32_t run_gelu(const call *c) { return swiftattn_gelu(c->pa, (int32_t)c->number, c->pout); }
static int32_t run_swiglu(const call *c) { return swiftattn_swiglu(c->pa, c->pb, c->pout); }
static int32_t run_geglu(const call *c) { return swiftattn_geglu(c->pa, c->pb, (int32_t)c->number, c->pout); }

/* ids (3,), table (7, 4). */
static void make_embedding(call *c) {
  make(c);
  c->a = integers(0, 6, 2);
  c->b = normal(F32, 7, 4);
  c->d = normal(F32, 3, 4);
  c->pd = &c->d;
}
static int32_t run_embedding(const call *c) { return swiftattn_embedding(c->pa, c->pb, c->pd, c->pout); }
static int32_t run_sinusoidal(const call *c) { return swiftattn_sinusoidal_positions(c->pout); }

static void accepted(void) {
  static const struct {
    const char *name;
    void (*make)(call *);
    int32_t (*run)(const call *);
  } calls[] = {{"varlen", make_varlen, run_varlen_call},
               {"merge", make_merge, run_merge_call},
               {"alibi_slopes", make_slopes, run_slopes},
               {"matmul", make_matmul, run_matmul_call},
               {"linear", make_linear, run_linear},
               {"softmax", make, run_softmax},
               {"layer_norm", make_norm, run_layer_norm},
               {"rms_norm", make_norm, run_rms_norm},
               {"relu", make, run_relu},
               {"silu", make, run_silu},
               {"gelu", make, run_gelu},
               {"swiglu", make, run_swiglu},
               {"geglu", make, run_geglu},
               {"embedding", make_embedding, run_embedding},
               {"sinusoidal_positions", make, run_sinusoidal}};
  for (size_t n = 0; n < sizeof calls / sizeof *calls; n++) {
    call c;
    calls[n].make(&c);
    CHECK(calls[n].run(&c) == 0, "%s: %s", calls[n].name, swiftattn_last_error());
  }
}

#define VARLEN(...) MISUSE_OF("varlen", call, make_varlen, run_varlen_call, __VA_ARGS__)
#define MERGE(...) MISUSE_OF("merge", call, make_merge, run_merge_call, __VA_ARGS__)
#define SLOPES(...) MISUSE_OF("alibi_slopes", call, make_slopes, run_slopes, __VA_ARGS__)
#define MATMUL(...) MISUSE_OF("matmul", call, make_matmul, run_matmul_call, __VA_ARGS__)
#define LINEAR(...) MISUSE_OF("linear", call, make_linear, run_linear, __VA_ARGS__)
#define SOFTMAX(...) MISUSE_OF("softmax", call, make, run_softmax, __VA_ARGS__)
#define LAYER_NORM(...) MISUSE_OF("layer_norm", call, make_norm, run_layer_norm, __VA_ARGS__)
#define RMS_NORM(...) MISUSE_OF("rms_norm", call, make_norm, run_rms_norm, __VA_ARGS__)
#define ACTIVATION(function, ...) MISUSE_OF(#function, call, make, run_##function, __VA_ARGS__)
#define EMBEDDING(...) MISUSE_OF("embedding", call, make_embedding, run_embedding, __VA_ARGS__)
#define SINUSOIDAL(...) MISUSE_OF("sinusoidal_positions", call, make, run_sinusoidal, __VA_ARGS__)

static void varlen(void) {
  VARLEN("cu_seqlens_q is NULL", NULL_POINTER, "cu_seqlens_q", "NULL", c.pd = NULL);
  VARLEN("cu_seqlens_k is NULL", NULL_POINTER, "cu_seqlens_k", "NULL", c.pe = NULL);
  VARLEN("cu_seqlens_q begins late", INVALID_ARGUMENT, "cu_seqlens_q", "1", tensor_store1(&c.d, 0, 1));
  VARLEN("cu_seqlens_q decreases", INVALID_ARGUMENT, "cu_seqlens_q", "6", tensor_store1(&c.d, 1, 6));
  VARLEN("cu_seqlens_k ends early", INVALID_ARGUMENT, "cu_seqlens_k", "8", tensor_store1(&c.e, 2, 8));
  VARLEN("cu_seqlens_k ends late", INVALID_ARGUMENT, "cu_seqlens_k", "10", tensor_store1(&c.e, 2, 10));
  VARLEN("cu_seqlens_k negative", INVALID_ARGUMENT, "cu_seqlens_k", "-4", tensor_store1(&c.e, 1, -4));
  VARLEN("cu_seqlens_q of floats", INVALID_DTYPE, "cu_seqlens_q", "float32", c.d.dtype = F32);
  VARLEN("cu_seqlens_q of rank 2", INVALID_SHAPE, "cu_seqlens_q", "(3, 1)", c.d.ndim = 2; c.d.shape[1] = 1;
         c.d.strides[1] = 1);
  VARLEN("cu_seqlens_q empty", INVALID_SHAPE, "cu_seqlens_q", "0", c.d.shape[0] = 0);
  VARLEN("another number of entries", INVALID_SHAPE, "cu_seqlens_k", "2", c.e.shape[0] = 2; tensor_store1(&c.e, 1, 9));
  VARLEN("attn_mask is given", INVALID_ARGUMENT, "attn_mask", "NULL", c.options.attn_mask = &c.second);
  VARLEN("q_lengths are given", INVALID_ARGUMENT, "q_lengths", "NULL", c.options.q_lengths = &c.d);
  VARLEN("kv_lengths are given", INVALID_ARGUMENT, "kv_lengths", "NULL", c.options.kv_lengths = &c.d);
  VARLEN("query of rank 4", INVALID_SHAPE, "query", "4", c.a.ndim = 4; c.a.shape[3] = c.a.strides[3] = 1);
  VARLEN("length of out", INVALID_SHAPE, "out", "4", c.out.shape[0] = 4);
  VARLEN("lse laid out as (total_q, Hq)", INVALID_SHAPE, "lse", "5", c.second = TENSOR(F32, LAYOUT_DENSE, 5, 4));
  VARLEN("lse over cu_seqlens_q", ALIASING, "lse", "cu_seqlens_q", c.d.data = c.second.data; tensor_store1(&c.d, 0, 0);
         tensor_store1(&c.d, 1, 2); tensor_store1(&c.d, 2, 5));
}

static void merge(void) {
  MERGE("outs is NULL", NULL_POINTER, "outs", "NULL", c.pparts = NULL);
  MERGE("lses is NULL", NULL_POINTER, "lses", "NULL", c.pstates = NULL);
  MERGE("out is NULL", NULL_POINTER, "out", "NULL", c.pout = NULL);
  MERGE("lse is NULL", NULL_POINTER, "lse", "NULL", c.psecond = NULL);
  MERGE("a part without data", NULL_POINTER, "outs[1]", "NULL", c.parts[1].data = NULL);
  MERGE("no parts", INVALID_ARGUMENT, "count", "0", c.number = 0);
  MERGE("a negative count", INVALID_ARGUMENT, "count", "-2", c.number = -2);
  MERGE("parts of two shapes", INVALID_SHAPE, "outs[1]", "2", c.parts[1].shape[0] = 2);
  MERGE("parts of two dtypes", INVALID_DTYPE, "outs[1]", "float16", c.parts[1].dtype = F16);
  MERGE("lses of another shape", INVALID_SHAPE, "lses[1]", "2", c.states[1].shape[0] = 2);
  MERGE("lses in float16", INVALID_DTYPE, "lses[0]", "float16", c.states[0].dtype = F16);
  MERGE(
      "out overlaps a part", ALIASING, "out", "outs[0]", c.out.data = (char *)c.parts[0].data + 16; c.out.shape[0] = 2;
      c.parts[0].shape[0] = c.parts[1].shape[0] = c.states[0].shape[0] = c.states[1].shape[0] = c.second.shape[0] = 2);
  MERGE("out is lses", ALIASING, "out", "lses[0]", c.states[0].data = c.out.data);
  SLOPES("out is NULL", NULL_POINTER, "out", "NULL", c.pout = NULL);
  SLOPES("rank 2", INVALID_SHAPE, "out", "2", c.out.ndim = 2; c.out.shape[1] = c.out.strides[1] = 1);
  SLOPES("float16", INVALID_DTYPE, "out", "float16", c.out.dtype = F16);
  SLOPES("a zero stride", INVALID_SHAPE, "out", "0", c.out.strides[0] = 0);
}

static void products(void) {
  MATMUL("a is NULL", NULL_POINTER, "a", "NULL", c.pa = NULL);
  MATMUL("b is NULL", NULL_POINTER, "b", "NULL", c.pb = NULL);
  MATMUL("inner dims differ", INVALID_SHAPE, "b", "3", c.b.shape[0] = 3);
  MATMUL("a of rank 0", INVALID_SHAPE, "a", "0", c.a.ndim = 0);
  MATMUL("out of another shape", INVALID_SHAPE, "out", "4", c.out.shape[1] = 4);
  MATMUL("leading dims that do not fit", INVALID_SHAPE, "b", "3", c.a = TENSOR(F32, LAYOUT_BROADCAST, 2, 3, 4);
         c.b = TENSOR(F32, LAYOUT_BROADCAST, 3, 4, 5); c.out = TENSOR(F32, LAYOUT_DENSE, 2, 3, 5));
  MATMUL("two dtypes", INVALID_DTYPE, "b", "bfloat16", c.b.dtype = BF16);
  MATMUL("integers", INVALID_DTYPE, "a", "int32", c.a.dtype = c.b.dtype = c.out.dtype = I32);
  MATMUL("an unknown precision", INVALID_ARGUMENT, "precision", "9", c.number = 9);
  MATMUL("out is a", ALIASING, "out", "a", c.a = normal(F32, 3, 5); c.a.shape[1] = 4; c.out.data = c.a.data);
  MATMUL("out with a zero stride", INVALID_SHAPE, "out", "0", c.out.strides[0] = 0);
  LINEAR("weight is NULL", NULL_POINTER, "weight", "NULL", c.pb = NULL);
  LINEAR("struct_size 0", STRUCT_SIZE, "struct_size", "0", c.linear.struct_size = 0);
  LINEAR("struct_size 8", STRUCT_SIZE, "struct_size", "8", c.linear.struct_size = 8);
  LINEAR("an unknown activation", INVALID_ARGUMENT, "activation", "5", c.linear.activation = 5);
  LINEAR("an unknown precision", INVALID_ARGUMENT, "precision", "-1", c.linear.precision = -1);
  LINEAR("inner dims differ", INVALID_SHAPE, "weight", "3", c.b.shape[1] = 3);
  LINEAR("weight of rank 3", INVALID_SHAPE, "weight", "3", c.b.ndim = 3; c.b.shape[2] = c.b.strides[2] = 1);
  LINEAR("bias of another width", INVALID_SHAPE, "bias", "4", c.d.shape[0] = 4);
  LINEAR("bias of another dtype", INVALID_DTYPE, "bias", "float16", c.d.dtype = F16);
  LINEAR("residual of another shape", INVALID_SHAPE, "residual", "2", c.e.shape[0] = 2);
  LINEAR("out is x", ALIASING, "out", "x", c.out.data = c.a.data; c.out.shape[1] = c.out.strides[0] = 4;
         c.b.shape[0] = 4; c.d.shape[0] = 4; c.e.shape[1] = 4);
  LINEAR("out shifted against residual", ALIASING, "out", "residual", c.e = normal(F32, 4, 5); c.e.shape[0] = 3;
         c.out.data = (char *)c.e.data + 20);
}

static void rows(void) {
  SOFTMAX("axis 2 of 2", INVALID_ARGUMENT, "axis", "2", c.number = 2);
  SOFTMAX("axis -3 of 2", INVALID_ARGUMENT, "axis", "-3", c.number = -3);
  SOFTMAX("out of another shape", INVALID_SHAPE, "out", "2", c.out.shape[0] = 2);
  SOFTMAX("integers", INVALID_DTYPE, "x", "int32", c.a.dtype = c.out.dtype = I32);
  SOFTMAX("out shifted against x", ALIASING, "out", "x", c.a.shape[0] = c.out.shape[0] = 2;
          c.out.data = (char *)c.a.data + 16);
  LAYER_NORM("eps NaN", INVALID_ARGUMENT, "eps", "nan", c.eps = NAN);
  LAYER_NORM("eps negative", INVALID_ARGUMENT, "eps", "-0.5", c.eps = -0.5);
  LAYER_NORM("eps infinite", INVALID_ARGUMENT, "eps", "inf", c.eps = INFINITY);
  LAYER_NORM("weight of another width", INVALID_SHAPE, "weight", "3", c.d.shape[0] = 3);
  LAYER_NORM("bias of a third dtype", INVALID_DTYPE, "bias", "bfloat16", c.e.dtype = BF16);
  LAYER_NORM("x of rank 0", INVALID_SHAPE, "x", "0", c.a.ndim = c.out.ndim = 0);
  LAYER_NORM("out over weight", ALIASING, "out", "weight", c.d.data = c.out.data);
  RMS_NORM("eps negative", INVALID_ARGUMENT, "eps", "-1", c.eps = -1);
  RMS_NORM("x is NULL", NULL_POINTER, "x", "NULL", c.pa = NULL);
  RMS_NORM("weight of rank 2", INVALID_SHAPE, "weight", "2", c.d.ndim = 2; c.d.shape[1] = c.d.strides[1] = 1);
  ACTIVATION(relu, "out is NULL", NULL_POINTER, "out", "NULL", c.pout = NULL);
  ACTIVATION(relu, "out of another dtype", INVALID_DTYPE, "out", "float16", c.out.dtype = F16);
  ACTIVATION(silu, "out of another shape", INVALID_SHAPE, "out", "3", c.out.shape[1] = 3);
  ACTIVATION(gelu, "approximate 2", INVALID_ARGUMENT, "approximate", "2", c.number = 2);
  ACTIVATION(swiglu, "up of another shape", INVALID_SHAPE, "up", "2", c.b.shape[0] = 2);
  ACTIVATION(swiglu, "up of another dtype", INVALID_DTYPE, "up", "float16", c.b.dtype = F16);
  ACTIVATION(geglu, "approximate -1", INVALID_ARGUMENT, "approximate", "-1", c.number = -1);
  ACTIVATION(geglu, "gate is NULL", NULL_POINTER, "gate", "NULL", c.pa = NULL);
}

static void embeddings(void) {
  EMBEDDING("an id of V", INVALID_ARGUMENT, "ids", "7", tensor_store1(&c.a, 2, 7));
  EMBEDDING("a negative id", INVALID_ARGUMENT, "ids", "-1", tensor_store1(&c.a, 1, -1));
  EMBEDDING("ids of floats", INVALID_DTYPE, "ids", "float32", c.a.dtype = F32);
  EMBEDDING("table of rank 1", INVALID_SHAPE, "table", "1", c.b.ndim = 1);
  EMBEDDING("out of another width", INVALID_SHAPE, "out", "3", c.out.shape[1] = 3);
  EMBEDDING("residual of another shape", INVALID_SHAPE, "residual", "2", c.d.shape[0] = 2);
  EMBEDDING("table is NULL", NULL_POINTER, "table", "NULL", c.pb = NULL);
  EMBEDDING("out over ids", ALIASING, "out", "ids", memcpy(c.out.data, c.a.data, 12); c.a.data = c.out.data);
  SINUSOIDAL("out is NULL", NULL_POINTER, "out", "NULL", c.pout = NULL);
  SINUSOIDAL("rank 1", INVALID_SHAPE, "out", "1", c.out.ndim = 1);
  SINUSOIDAL("integers", INVALID_DTYPE, "out", "int64", c.out.dtype = I64);
}

static void thread_numbers(void) {
  static const int32_t bad[] = {-1, 1025, INT32_MAX, INT32_MIN};
  int32_t before = swiftattn_get_num_threads();
  for (int n = 0; n < 4; n++) {
    char text[16];
    snprintf(text, sizeof text, "%d", bad[n]);
    error_prepare();
    error_verify(swiftattn_set_num_threads(bad[n]), SWIFTATTN_ERROR_INVALID_ARGUMENT, "threads", text);
    CHECK(swiftattn_get_num_threads() == before, "a refused call changed the number of threads");
  }
}

void run_errors_others(void) {
  check_run("misuse: others: the calls that the cases spoil succeed", accepted);
  varlen();
  merge();
  products();
  rows();
  embeddings();
  check_run("misuse: numbers of threads", thread_numbers);
}
