/* What is frozen in the ABI: layouts, numbers, defaults; and the functions about the library itself. */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "problem.h"

/* In test_abi_cpp.cpp: the same layouts as a C++ compiler sees them. */
int cpp_sees_the_same_layout(size_t tensor_size, size_t options_size, size_t linear_options_size);
int cpp_calls_the_library(void);

static void struct_layouts(void) {
#define AT(type, field, offset) \
  CHECK(offsetof(type, field) == (offset), #type "." #field " is at %zu", offsetof(type, field))
  CHECK(sizeof(swiftattn_dtype) == 4, "%zu", sizeof(swiftattn_dtype));
  AT(swiftattn_dtype, code, 0);
  AT(swiftattn_dtype, bits, 1);
  AT(swiftattn_dtype, lanes, 2);
  CHECK(sizeof(swiftattn_tensor) == 152, "%zu", sizeof(swiftattn_tensor));
  AT(swiftattn_tensor, data, 0);
  AT(swiftattn_tensor, ndim, 8);
  AT(swiftattn_tensor, dtype, 12);
  AT(swiftattn_tensor, shape, 16);
  AT(swiftattn_tensor, strides, 80);
  AT(swiftattn_tensor, byte_offset, 144);
  CHECK(sizeof(swiftattn_attention_options) == 128, "%zu", sizeof(swiftattn_attention_options));
  AT(swiftattn_attention_options, struct_size, 0);
  AT(swiftattn_attention_options, flags, 4);
  AT(swiftattn_attention_options, scale, 8);
  AT(swiftattn_attention_options, softcap, 16);
  AT(swiftattn_attention_options, causal, 24);
  AT(swiftattn_attention_options, precision, 28);
  AT(swiftattn_attention_options, query_offset, 32);
  AT(swiftattn_attention_options, window_left, 40);
  AT(swiftattn_attention_options, window_right, 48);
  AT(swiftattn_attention_options, dropout_p, 56);
  AT(swiftattn_attention_options, seed, 64);
  AT(swiftattn_attention_options, query_offsets, 72);
  AT(swiftattn_attention_options, attn_mask, 80);
  AT(swiftattn_attention_options, alibi_slopes, 88);
  AT(swiftattn_attention_options, sinks, 96);
  AT(swiftattn_attention_options, q_lengths, 104);
  AT(swiftattn_attention_options, kv_lengths, 112);
  AT(swiftattn_attention_options, weights_stage, 120);
  AT(swiftattn_attention_options, reserved, 124);
  CHECK(sizeof(swiftattn_linear_options) == 12, "%zu", sizeof(swiftattn_linear_options));
  AT(swiftattn_linear_options, struct_size, 0);
  AT(swiftattn_linear_options, activation, 4);
  AT(swiftattn_linear_options, precision, 8);
#undef AT
}

static void constants(void) {
  static const int status[] = {SWIFTATTN_SUCCESS,
                               SWIFTATTN_ERROR_NULL_POINTER,
                               SWIFTATTN_ERROR_INVALID_ARGUMENT,
                               SWIFTATTN_ERROR_INVALID_SHAPE,
                               SWIFTATTN_ERROR_INVALID_DTYPE,
                               SWIFTATTN_ERROR_ALIASING,
                               SWIFTATTN_ERROR_STRUCT_SIZE,
                               SWIFTATTN_ERROR_OUT_OF_MEMORY,
                               SWIFTATTN_ERROR_UNSUPPORTED_ISA};
  static const int from_zero[][4] = {
      {SWIFTATTN_CAUSAL_NONE, SWIFTATTN_CAUSAL_UPPER_LEFT, SWIFTATTN_CAUSAL_LOWER_RIGHT, 3},
      {SWIFTATTN_PRECISION_HIGHEST, SWIFTATTN_PRECISION_HIGH, SWIFTATTN_PRECISION_MEDIUM, 3},
      {SWIFTATTN_WEIGHTS_PROBABILITIES, SWIFTATTN_WEIGHTS_SCALED, SWIFTATTN_WEIGHTS_CAPPED, SWIFTATTN_WEIGHTS_BIASED},
      {SWIFTATTN_ACTIVATION_NONE, SWIFTATTN_ACTIVATION_RELU, SWIFTATTN_ACTIVATION_GELU, SWIFTATTN_ACTIVATION_GELU_TANH},
      {SWIFTATTN_GELU_NONE, SWIFTATTN_GELU_TANH, 2, 3}};
  for (int n = 0; n < 9; n++) CHECK(status[n] == -n, "status %d is %d", -n, status[n]);
  for (int row = 0; row < 5; row++)
    for (int n = 0; n < 4; n++) CHECK(from_zero[row][n] == n, "row %d: %d is %d", row, n, from_zero[row][n]);
  CHECK(SWIFTATTN_ACTIVATION_SILU == 4, "silu");
  CHECK(SWIFTATTN_ATTENTION_HAS_SCALE == 1 && SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET == 2 &&
            SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT == 4 && SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT == 8,
        "flags");
  CHECK(SWIFTATTN_DTYPE_CODE_INT == 0 && SWIFTATTN_DTYPE_CODE_UINT == 1 && SWIFTATTN_DTYPE_CODE_FLOAT == 2 &&
            SWIFTATTN_DTYPE_CODE_BFLOAT == 4 && SWIFTATTN_DTYPE_CODE_BOOL == 6,
        "DLPack's type codes");
}

static void init_equals_zeroed(void) {
  static const swiftattn_attention_options init = SWIFTATTN_ATTENTION_OPTIONS_INIT;
  static const swiftattn_linear_options linear_init = SWIFTATTN_LINEAR_OPTIONS_INIT;
  swiftattn_attention_options zeroed;
  swiftattn_linear_options linear_zeroed;
  memset(&zeroed, 0, sizeof zeroed);
  memset(&linear_zeroed, 0, sizeof linear_zeroed);
  zeroed.struct_size = sizeof zeroed;
  linear_zeroed.struct_size = sizeof linear_zeroed;
  CHECK(memcmp(&init, &zeroed, sizeof init) == 0, "attention options");
  CHECK(memcmp(&linear_init, &linear_zeroed, sizeof linear_init) == 0, "linear options");
}

/* A later version's struct: larger, and what this version does not know is zero. */
static void larger_struct_with_zero_tail(void) {
  struct {
    swiftattn_attention_options known;
    uint64_t later[3];
  } larger;
  sizes s = {1, 2, 1, 3, 5, 8, 8};
  problem p;
  swiftattn_tensor out;
  problem_make(&p, F32, s);
  p.options.causal = SWIFTATTN_CAUSAL_LOWER_RIGHT;
  problem_check(&p);
  memset(&larger, 0, sizeof larger);
  larger.known = p.options;
  larger.known.struct_size = sizeof larger;
  out = tensor_like(&p.out);
  CHECK(swiftattn_scaled_dot_product_attention(&p.query, &p.key, &p.value, &larger.known, &out, NULL, NULL) == 0, "%s",
        swiftattn_last_error());
  CHECK(tensor_same_bits(&p.out, &out), "the result differs");
}

static void same_from_cpp(void) {
  CHECK(cpp_sees_the_same_layout(sizeof(swiftattn_tensor), sizeof(swiftattn_attention_options),
                                 sizeof(swiftattn_linear_options)),
        "C++ sees other sizes");
  CHECK(cpp_calls_the_library(), "a call from C++ failed: %s", swiftattn_last_error());
}

static void version(void) {
  char expected[32];
  snprintf(expected, sizeof expected, "%d.%d.%d", SWIFTATTN_VERSION_MAJOR, SWIFTATTN_VERSION_MINOR,
           SWIFTATTN_VERSION_PATCH);
  CHECK(strcmp(swiftattn_version(), expected) == 0, "version is %s, header has %s", swiftattn_version(), expected);
  CHECK(swiftattn_version() == swiftattn_version(), "the string moved");
}

static void isa(void) {
  static const char *const known[] = {"portable", "avx2", "avx512", "amx", "neon"};
  const char *forced = getenv("SWIFTATTN_ISA");
  int is_known = 0;
  for (int n = 0; n < 5; n++) is_known |= strcmp(swiftattn_cpu_isa(), known[n]) == 0;
  CHECK(is_known, "isa is %s", swiftattn_cpu_isa());
  CHECK(!forced || !*forced || strcmp(forced, swiftattn_cpu_isa()) == 0, "asked for %s, got %s", forced,
        swiftattn_cpu_isa());
}

static void features(void) {
  const char *isa = swiftattn_cpu_isa(), *all = swiftattn_cpu_features();
  CHECK(all == swiftattn_cpu_features(), "the string moved");
  CHECK(!strcmp(isa, "portable") || strstr(all, isa), "isa is %s, the features are %s", isa, all);
#if defined(__x86_64__)
  CHECK(!strstr(all, "neon") && (!strstr(all, "avx512") || strstr(all, "avx2 avx512")), "features are %s", all);
#endif
}

static void thread_count(void) {
  int32_t before = swiftattn_get_num_threads();
  const char *asked = getenv("OMP_NUM_THREADS");
  CHECK(!asked || atoi(asked) == before, "OMP_NUM_THREADS is %s, got %d", asked, before);
  CHECK(before >= 1 && before <= 1024, "%d threads by default", before);
  for (int32_t n = 1; n <= 1024; n = n * 3 + 1) {
    CHECK(swiftattn_set_num_threads(n) == 0, "%d: %s", n, swiftattn_last_error());
    CHECK(swiftattn_get_num_threads() == n, "%d after setting %d", swiftattn_get_num_threads(), n);
  }
  CHECK(swiftattn_set_num_threads(1024) == 0 && swiftattn_get_num_threads() == 1024, "1024");
  CHECK(swiftattn_set_num_threads(0) == 0 && swiftattn_get_num_threads() == before, "0 does not restore the default");
}

static void *fail_in_thread(void *argument) {
  char *seen = argument;
  snprintf(seen, 64, "[%s]", swiftattn_last_error());
  swiftattn_set_num_threads(-7);
  snprintf(seen + 64, 192, "%s", swiftattn_last_error());
  return NULL;
}

static void last_error_is_per_thread(void) {
  char seen[256] = "", mine[256];
  pthread_t thread;
  CHECK(swiftattn_set_num_threads(5000) == SWIFTATTN_ERROR_INVALID_ARGUMENT, "5000 threads were taken");
  snprintf(mine, sizeof mine, "%s", swiftattn_last_error());
  CHECK(strstr(mine, "5000"), "message: %s", mine);
  pthread_create(&thread, NULL, fail_in_thread, seen);
  pthread_join(thread, NULL);
  CHECK(strcmp(seen, "[]") == 0, "a new thread begins with the error %s", seen);
  CHECK(strstr(seen + 64, "-7"), "message in the thread: %s", seen + 64);
  CHECK(strcmp(swiftattn_last_error(), mine) == 0, "another thread changed the message to %s", swiftattn_last_error());
  CHECK(swiftattn_set_num_threads(0) == 0, "%s", swiftattn_last_error());
  CHECK(strcmp(swiftattn_last_error(), mine) == 0, "a success changed the message to %s", swiftattn_last_error());
}

void run_abi(void) {
  check_run("abi: struct layouts", struct_layouts);
  check_run("abi: constants", constants);
  check_run("abi: INIT macros equal zeroed structs", init_equals_zeroed);
  check_run("abi: a larger struct with a zero tail", larger_struct_with_zero_tail);
  check_run("abi: the same from C++", same_from_cpp);
  check_run("abi: version", version);
  check_run("abi: isa", isa);
  check_run("abi: features", features);
  check_run("abi: thread count", thread_count);
  check_run("abi: last error is per thread", last_error_is_per_thread);
}
