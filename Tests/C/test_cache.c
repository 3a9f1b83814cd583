/* Caches of keys and values as a C program uses them: handles, views, errors, and the bits of plain attention. */
#include <string.h>

#include "check.h"
#include "tensor.h"

static const swiftattn_kv_cache_options small = {sizeof(swiftattn_kv_cache_options), 0, 2, 2, 40, 16, 0, {0, 0, 0}, 0};

#define OK(call) CHECK((call) == 0, "%s", swiftattn_last_error())
#define FAILS(call, status, text)                                                                            \
  do {                                                                                                       \
    int32_t got_ = (call);                                                                                   \
    CHECK(got_ == (status), "status %d, expected %d", got_, status);                                         \
    CHECK(strstr(swiftattn_last_error(), text) != NULL, "%s lacks \"%s\"", swiftattn_last_error(), text);    \
  } while (0)

/* Tokens in any layout, appended in steps; then attention, against the same tokens in tensors. */
static void same_bits(void) {
  for (int n = 0; n < (check_quick ? 4 : 24); n++) {
    const swiftattn_dtype dtypes[] = {F32, F16, BF16};
    swiftattn_dtype dtype = dtypes[n % 3];
    swiftattn_kv_cache_options sizes = small;
    swiftattn_attention_options options = SWIFTATTN_ATTENTION_OPTIONS_INIT;
    swiftattn_kv_cache *cache = NULL;
    swiftattn_tensor key = TENSOR(dtype, tensor_random_layout(), 2, 2, 40, 16),
                     value = TENSOR(dtype, tensor_random_layout(), 2, 2, 40, 16),
                     query = TENSOR(dtype, tensor_random_layout(), 2, 4, 3, 16),
                     plain = TENSOR(dtype, LAYOUT_DENSE, 2, 4, 3, 16), out = tensor_like(&plain),
                     lse = TENSOR(F32, LAYOUT_DENSE, 2, 4, 3), keys, lengths;
    tensor_fill_normal(&key, 1);
    tensor_fill_normal(&value, 1);
    tensor_fill_normal(&query, 1);
    check_context("%s", dtype_name(dtype));
    sizes.dtype = dtype;
    options.causal = SWIFTATTN_CAUSAL_LOWER_RIGHT;
    OK(swiftattn_kv_cache_create(&sizes, &cache));
    for (int64_t at = 0, some; at < 40; at += some) {
      swiftattn_tensor k, v;
      some = random_int(1, 40 - at);
      k = tensor_slice(&key, 2, at, some);
      v = tensor_slice(&value, 2, at, some);
      OK(swiftattn_kv_cache_append(cache, &k, &v, NULL));
    }
    OK(swiftattn_attention_kv_cache(&query, cache, &options, &out, &lse, NULL));
    OK(swiftattn_scaled_dot_product_attention(&query, &key, &value, &options, &plain, NULL, NULL));
    CHECK(tensor_same_bits(&out, &plain), "attention over the cache differs");
    OK(swiftattn_kv_cache_view(cache, &keys, NULL, NULL, NULL, &lengths));
    CHECK(keys.ndim == 4 && keys.shape[2] == 40 && dtype_equal(keys.dtype, dtype), "the view of the keys");
    CHECK(tensor_load1(&lengths, 0) == 40 && tensor_load1(&lengths, 1) == 40, "the lengths");
    CHECK(tensor_same_bits(&keys, &key), "the keys are not those that were appended");
    swiftattn_kv_cache_destroy(cache);
    buffer_free_all();
  }
}

static void errors(void) {
  swiftattn_kv_cache *cache = NULL, *untouched = NULL;
  swiftattn_kv_cache_options o = small;
  swiftattn_tensor key = TENSOR(F32, LAYOUT_DENSE, 2, 2, 25, 16), query = TENSOR(F32, LAYOUT_DENSE, 2, 4, 1, 16),
                   out = tensor_like(&query), scales;
  tensor_fill_normal(&key, 1);
  tensor_fill_normal(&query, 1);
  FAILS(swiftattn_kv_cache_create(NULL, &untouched), SWIFTATTN_ERROR_NULL_POINTER, "options: is NULL");
  FAILS(swiftattn_kv_cache_create(&o, NULL), SWIFTATTN_ERROR_NULL_POINTER, "cache: is NULL");
  o.struct_size = 8;
  FAILS(swiftattn_kv_cache_create(&o, &untouched), SWIFTATTN_ERROR_STRUCT_SIZE, "struct_size is 8");
  o = small;
  o.flags = 2;
  FAILS(swiftattn_kv_cache_create(&o, &untouched), SWIFTATTN_ERROR_INVALID_ARGUMENT, "flags");
  o = small;
  o.reserved = 1;
  FAILS(swiftattn_kv_cache_create(&o, &untouched), SWIFTATTN_ERROR_INVALID_ARGUMENT, "reserved");
  o = small;
  o.dtype = F64;
  FAILS(swiftattn_kv_cache_create(&o, &untouched), SWIFTATTN_ERROR_INVALID_DTYPE, "got float64");
  o = small;
  o.max_len = INT64_MAX;
  FAILS(swiftattn_kv_cache_create(&o, &untouched), SWIFTATTN_ERROR_OUT_OF_MEMORY, "memory");
  CHECK(!untouched, "a failure wrote the handle");
  OK(swiftattn_kv_cache_create(&small, &cache));
  OK(swiftattn_kv_cache_view(cache, NULL, NULL, &scales, NULL, NULL));
  CHECK(!scales.data && scales.ndim == 1 && scales.shape[0] == 0, "float storage has no scales");
  OK(swiftattn_kv_cache_append(cache, &key, &key, NULL));
  FAILS(swiftattn_kv_cache_append(cache, &key, &key, NULL), SWIFTATTN_ERROR_INVALID_ARGUMENT, "entry 0 holds 25 tokens");
  FAILS(swiftattn_kv_cache_append(NULL, &key, &key, NULL), SWIFTATTN_ERROR_NULL_POINTER, "cache: is NULL");
  FAILS(swiftattn_kv_cache_append(cache, NULL, &key, NULL), SWIFTATTN_ERROR_NULL_POINTER, "key: is NULL");
  FAILS(swiftattn_kv_cache_truncate(NULL, 0, NULL), SWIFTATTN_ERROR_NULL_POINTER, "cache: is NULL");
  FAILS(swiftattn_kv_cache_view(NULL, NULL, NULL, NULL, NULL, NULL), SWIFTATTN_ERROR_NULL_POINTER, "cache: is NULL");
  FAILS(swiftattn_kv_cache_fork(cache, NULL, NULL), SWIFTATTN_ERROR_NULL_POINTER, "fork: is NULL");
  FAILS(swiftattn_kv_cache_reorder(cache, NULL), SWIFTATTN_ERROR_NULL_POINTER, "indices: is NULL");
  FAILS(swiftattn_attention_kv_cache(&query, NULL, NULL, &out, NULL, NULL), SWIFTATTN_ERROR_NULL_POINTER, "cache: is NULL");
  swiftattn_kv_cache_destroy(cache);
  swiftattn_kv_cache_destroy(NULL);
  buffer_free_all();
}

/* A prompt, two continuations of it, and what they attend to. */
static void blocks(void) {
  swiftattn_paged_kv_cache_options sizes = SWIFTATTN_PAGED_KV_CACHE_OPTIONS_INIT;
  swiftattn_paged_kv_cache *cache = NULL;
  int64_t prompt, beam, free_blocks;
  swiftattn_tensor key = TENSOR(F32, LAYOUT_DENSE, 1, 2, 21, 16), value = TENSOR(F32, LAYOUT_DENSE, 1, 2, 21, 16),
                   next = TENSOR(F32, LAYOUT_DENSE, 2, 2, 1, 16), query = TENSOR(F32, LAYOUT_DENSE, 2, 4, 1, 16),
                   out = tensor_like(&query), plain = tensor_like(&query), one = TENSOR(I64, LAYOUT_DENSE, 1),
                   both = TENSOR(I32, LAYOUT_DENSE, 2), lengths = TENSOR(I32, LAYOUT_DENSE, 2),
                   table = TENSOR(I32, LAYOUT_DENSE, 2, 4), keys, values;
  tensor_fill_normal(&key, 1);
  tensor_fill_normal(&value, 1);
  tensor_fill_normal(&next, 1);
  tensor_fill_normal(&query, 1);
  sizes.num_blocks = 5;
  sizes.block_size = 8;
  sizes.kv_heads = 2;
  sizes.head_dim = 16;
  OK(swiftattn_paged_kv_cache_create(&sizes, &cache));
  OK(swiftattn_paged_kv_cache_open(cache, &prompt));
  tensor_store1(&one, 0, (double)prompt);
  OK(swiftattn_paged_kv_cache_append(cache, &one, &key, &value, NULL));
  OK(swiftattn_paged_kv_cache_fork(cache, prompt, -1, &beam));
  tensor_store1(&both, 0, (double)prompt);
  tensor_store1(&both, 1, (double)beam);
  OK(swiftattn_paged_kv_cache_append(cache, &both, &next, &next, NULL));
  OK(swiftattn_paged_kv_cache_table(cache, &both, &table, &lengths, &free_blocks));
  CHECK(free_blocks == 1, "%lld blocks are free", (long long)free_blocks);
  CHECK(((int32_t *)table.data)[0] == ((int32_t *)table.data)[4], "the first block is shared");
  CHECK(((int32_t *)table.data)[2] != ((int32_t *)table.data)[6], "the last block is not");
  CHECK(((int32_t *)table.data)[3] == -1 && ((int32_t *)table.data)[7] == -1, "the table ends in -1");
  OK(swiftattn_paged_kv_cache_view(cache, &keys, &values, NULL, NULL));
  OK(swiftattn_attention_paged_kv_cache(&query, cache, &both, NULL, &out, NULL, NULL));
  OK(swiftattn_attention_paged(&query, &keys, &values, &table, &lengths, NULL, &plain, NULL, NULL));
  CHECK(tensor_same_bits(&out, &plain), "attention over the cache and over its blocks differ");
  OK(swiftattn_paged_kv_cache_truncate(cache, beam, 8));
  OK(swiftattn_paged_kv_cache_close(cache, prompt));
  FAILS(swiftattn_paged_kv_cache_close(cache, prompt), SWIFTATTN_ERROR_INVALID_ARGUMENT, "is not open");
  FAILS(swiftattn_paged_kv_cache_open(NULL, &prompt), SWIFTATTN_ERROR_NULL_POINTER, "cache: is NULL");
  FAILS(swiftattn_paged_kv_cache_table(cache, &both, NULL, NULL, NULL), SWIFTATTN_ERROR_INVALID_ARGUMENT, "is not open");
  swiftattn_paged_kv_cache_destroy(cache);
  swiftattn_paged_kv_cache_destroy(NULL);
  buffer_free_all();
}

void run_cache(void) {
  check_run("cache: the bits of attention on tensors", same_bits);
  check_run("cache: errors", errors);
  check_run("cache: blocks that are shared", blocks);
}
