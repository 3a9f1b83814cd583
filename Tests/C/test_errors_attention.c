/* Misuse of the tensors of attention: each refused with its status, a telling message, and nothing touched. */
#include "errors.h"

static void accepted(void) {
  attention_call c;
  attention_call_make(&c);
  CHECK(attention_call_run(&c) == 0, "%s", swiftattn_last_error());
  c.options = NULL;
  CHECK(attention_call_run(&c) == 0, "%s", swiftattn_last_error());
}

static swiftattn_tensor bools(int ndim, const int64_t *shape) {
  swiftattn_tensor t = tensor_make(BOOL8, LAYOUT_DENSE, ndim, shape);
  tensor_fill(&t, 1);
  return t;
}
#define BOOLS(...) bools((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

static void null_pointers(void) {
  ATTENTION("query is NULL", NULL_POINTER, "query", "NULL", c.query = NULL);
  ATTENTION("key is NULL", NULL_POINTER, "key", "NULL", c.key = NULL);
  ATTENTION("value is NULL", NULL_POINTER, "value", "NULL", c.value = NULL);
  ATTENTION("out is NULL", NULL_POINTER, "out", "NULL", c.out = NULL);
  ATTENTION("query without data", NULL_POINTER, "query", "NULL", c.p.query.data = NULL);
  ATTENTION("key without data", NULL_POINTER, "key", "NULL", c.p.key.data = NULL);
  ATTENTION("value without data", NULL_POINTER, "value", "NULL", c.p.value.data = NULL);
  ATTENTION("out without data", NULL_POINTER, "out", "NULL", c.p.out.data = NULL);
  ATTENTION("lse without data", NULL_POINTER, "lse", "NULL", c.p.lse.data = NULL);
  ATTENTION("weights without data", NULL_POINTER, "weights", "NULL", c.p.weights.data = NULL);
}

static void ranks(void) {
  ATTENTION("query of rank 1", INVALID_SHAPE, "query", "1", c.p.query.ndim = 1);
  ATTENTION("query of rank 0", INVALID_SHAPE, "query", "0", c.p.query.ndim = 0);
  ATTENTION("query of rank -3", INVALID_SHAPE, "query", "-3", c.p.query.ndim = -3);
  ATTENTION("query of rank 9", INVALID_SHAPE, "query", "9", c.p.query.ndim = 9);
  ATTENTION("key of rank 1000000", INVALID_SHAPE, "key", "1000000", c.p.key.ndim = 1000000);
  ATTENTION("value of rank 1", INVALID_SHAPE, "value", "1", c.p.value.ndim = 1);
  ATTENTION("out of rank 3", INVALID_SHAPE, "out", "(2, 4, 5)", c.p.out.ndim = 3);
  ATTENTION("lse of rank 2", INVALID_SHAPE, "lse", "(2, 4)", c.p.lse.ndim = 2);
  ATTENTION("weights of rank 3", INVALID_SHAPE, "weights", "(2, 4, 5)", c.p.weights.ndim = 3);
}

static void shapes(void) {
  ATTENTION("head_dim of key", INVALID_SHAPE, "key", "6", c.p.key.shape[3] = 6);
  ATTENTION("length of value", INVALID_SHAPE, "value", "3", c.p.value.shape[2] = 3);
  ATTENTION("heads of value", INVALID_SHAPE, "value", "1", c.p.value.shape[1] = 1);
  ATTENTION("heads that do not divide", INVALID_SHAPE, "key", "3", c.p.key = TENSOR(F32, LAYOUT_DENSE, 2, 3, 7, 8);
            c.p.value = TENSOR(F32, LAYOUT_DENSE, 2, 3, 7, 8));
  ATTENTION("more key heads than query heads", INVALID_SHAPE, "key", "8",
            c.p.key = TENSOR(F32, LAYOUT_DENSE, 2, 8, 7, 8);
            c.p.value = TENSOR(F32, LAYOUT_DENSE, 2, 8, 7, 8));
  ATTENTION("no key heads", INVALID_SHAPE, "key", "0", c.p.key.shape[1] = c.p.value.shape[1] = 0);
  ATTENTION("batch of key", INVALID_SHAPE, "key", "3", c.p.key = TENSOR(F32, LAYOUT_DENSE, 3, 2, 7, 8);
            c.p.value = TENSOR(F32, LAYOUT_DENSE, 3, 2, 7, 8));
  ATTENTION("batch of out", INVALID_SHAPE, "out", "1", c.p.out.shape[0] = 1);
  ATTENTION("heads of out", INVALID_SHAPE, "out", "2", c.p.out.shape[1] = 2);
  ATTENTION("length of out", INVALID_SHAPE, "out", "4", c.p.out.shape[2] = 4);
  ATTENTION("value dim of out", INVALID_SHAPE, "out", "6", c.p.out.shape[3] = 6);
  ATTENTION("length of lse", INVALID_SHAPE, "lse", "3", c.p.lse.shape[2] = 3);
  ATTENTION("keys of weights", INVALID_SHAPE, "weights", "6", c.p.weights.shape[3] = 6);
  ATTENTION("a negative dim", INVALID_SHAPE, "query", "-5", c.p.query.shape[2] = -5);
  ATTENTION("the most negative dim", INVALID_SHAPE, "key", "-9223372036854775808", c.p.key.shape[0] = INT64_MIN);
  ATTENTION("a dim beyond any memory", INVALID_SHAPE, "query", "4611686018427387904",
            c.p.query.shape[2] = c.p.out.shape[2] = c.p.lse.shape[2] = c.p.weights.shape[2] = (int64_t)1 << 62);
}

static void strides(void) {
  ATTENTION("out with a zero stride", INVALID_SHAPE, "out", "0", c.p.out.strides[2] = 0);
  ATTENTION("lse with a zero stride", INVALID_SHAPE, "lse", "0", c.p.lse.strides[1] = 0);
  ATTENTION("weights with a zero stride", INVALID_SHAPE, "weights", "0", c.p.weights.strides[0] = 0);
  ATTENTION("a stride that leaves the address space", INVALID_SHAPE, "key", "4611686018427387904",
            c.p.key.strides[0] = (int64_t)1 << 62);
  ATTENTION("the most negative stride", INVALID_SHAPE, "value", "-9223372036854775808",
            c.p.value.strides[0] = INT64_MIN);
  ATTENTION("a byte_offset beyond the address space", INVALID_ARGUMENT, "value", "18446744073709551612",
            c.p.value.byte_offset = UINT64_MAX - 3);
  ATTENTION("misaligned query", INVALID_ARGUMENT, "query", "4", c.p.query.data = (char *)c.p.query.data + 1);
  ATTENTION("misaligned byte_offset", INVALID_ARGUMENT, "key", "4", c.p.key.byte_offset = 2);
  ATTENTION("misaligned out", INVALID_ARGUMENT, "out", "4", c.p.out.data = (char *)c.p.out.data + 3);
}

static void dtypes(void) {
  ATTENTION("integers as query", INVALID_DTYPE, "query", "int32", c.p.query.dtype = I32);
  ATTENTION("two dtypes", INVALID_DTYPE, "key", "float16", c.p.key.dtype = F16);
  ATTENTION("value of another dtype", INVALID_DTYPE, "value", "bfloat16", c.p.value.dtype = BF16);
  ATTENTION("out of another dtype", INVALID_DTYPE, "out", "bfloat16", c.p.out.dtype = BF16);
  ATTENTION("lse in float16", INVALID_DTYPE, "lse", "float16", c.p.lse.dtype = F16);
  ATTENTION("weights in bfloat16 for float32", INVALID_DTYPE, "weights", "bfloat16", c.p.weights.dtype = BF16);
  ATTENTION("an unknown type code", INVALID_DTYPE, "query", "77", c.p.query.dtype.code = 77);
  ATTENTION("8 bit floats", INVALID_DTYPE, "query", "8", c.p.query.dtype.bits = 8);
  ATTENTION("two lanes", INVALID_DTYPE, "query", "2", c.p.query.dtype.lanes = 2);
  ATTENTION("no lanes", INVALID_DTYPE, "value", "0", c.p.value.dtype.lanes = 0);
}

static void aliasing(void) {
  ATTENTION("out is query", ALIASING, "out", "query", c.p.out = c.p.query);
  ATTENTION("out begins within value", ALIASING, "out", "value", c.p.out.data = (char *)c.p.value.data + 64;
            c.p.out.shape[0] = c.p.query.shape[0] = c.p.key.shape[0] = c.p.value.shape[0] = c.p.lse.shape[0] =
                c.p.weights.shape[0] = 1;
            c.p.out.shape[1] = c.p.query.shape[1] = c.p.key.shape[1] = c.p.value.shape[1] = c.p.lse.shape[1] =
                c.p.weights.shape[1] = 1);
  ATTENTION("out reads key backwards", ALIASING, "out", "key", c.p.key = TENSOR(F32, LAYOUT_REVERSED, 2, 2, 7, 8);
            c.p.out = TENSOR(F32, LAYOUT_DENSE, 2, 4, 5, 8); c.p.out.data = c.p.key.data;
            c.p.out.shape[0] = c.p.query.shape[0] = c.p.key.shape[0] = c.p.value.shape[0] = c.p.lse.shape[0] =
                c.p.weights.shape[0] = 1;
            c.p.key.byte_offset = 111 * 4);
  ATTENTION("lse within out", ALIASING, "lse", "out", c.p.lse.data = (char *)c.p.out.data + 32);
  ATTENTION("weights over out", ALIASING, "weights", "out", c.p.weights.data = c.p.out.data);
  ATTENTION("out over attn_mask", ALIASING, "out", "attn_mask", c.p.attn_mask = BOOLS(5, 7);
            c.p.attn_mask.data = c.p.out.data; c.p.options.attn_mask = &c.p.attn_mask);
  ATTENTION("lse over sinks", ALIASING, "lse", "sinks", c.p.sinks = TENSOR(F32, LAYOUT_DENSE, 4);
            c.p.sinks.data = c.p.lse.data; c.p.options.sinks = &c.p.sinks);
}

void run_errors_attention(void) {
  check_run("misuse: attention: the call that the cases spoil succeeds", accepted);
  null_pointers();
  ranks();
  shapes();
  strides();
  dtypes();
  aliasing();
}
