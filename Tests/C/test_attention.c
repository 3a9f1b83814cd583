/* Scaled dot-product attention against the reference: every option alone and in company. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "problem.h"

static void philox_matches_published_vectors(void) {
  static const uint32_t vectors[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
       0x24126ea1}};
  for (int n = 0; n < 3; n++) {
    uint32_t words[4];
    reference_philox(vectors[n], vectors[n] + 4, words);
    CHECK(memcmp(words, vectors[n] + 6, sizeof words) == 0, "vector %d differs", n);
  }
}

/* Two keys with scores ln 1 and ln 3: the weights are 1/4 and 3/4. */
static void small_case_by_hand(void) {
  const double expected_out[2] = {0.25 * 4 + 0.75 * 8, 0.25 * 10 - 0.75 * 2}, expected_lse = log(4.0);
  double ln3 = log(3.0);
  swiftattn_tensor q = TENSOR(F64, LAYOUT_DENSE, 1, 1), k = TENSOR(F64, LAYOUT_DENSE, 2, 1);
  swiftattn_tensor v = TENSOR(F64, LAYOUT_DENSE, 2, 2), out = TENSOR(F64, LAYOUT_DENSE, 1, 2);
  swiftattn_tensor lse = TENSOR(F64, LAYOUT_DENSE, 1);
  const double values[4] = {4, 10, 8, -2}, bound[2] = {1e-14, 1e-14};
  memcpy(v.data, values, sizeof values);
  tensor_fill(&q, 1);
  ((double *)k.data)[0] = 0;
  ((double *)k.data)[1] = ln3;
  CHECK(swiftattn_scaled_dot_product_attention(&q, &k, &v, NULL, &out, &lse, NULL) == 0, "%s", swiftattn_last_error());
  tensor_compare("out", &out, expected_out, bound);
  tensor_compare("lse", &lse, &expected_lse, bound);
}

static void random_problems(swiftattn_dtype dtype, int count) {
  for (int n = 0; n < count; n++) {
    problem p;
    problem_make_strided(&p, dtype, sizes_random());
    problem_add_options(&p);
    problem_describe(&p);
    problem_check(&p);
    buffer_free_all();
  }
}

static int problems(void) { return check_quick ? 12 : 150; }
static void random_float32(void) { random_problems(F32, problems()); }
static void random_float16(void) { random_problems(F16, problems()); }
static void random_bfloat16(void) { random_problems(BF16, problems()); }
static void random_float64(void) { random_problems(F64, problems()); }

static sizes usual(void) {
  sizes n = {2, 4, 2, 37, 53, 24, 24};
  return n;
}

static void checked(problem *p) {
  problem_describe(p);
  problem_check(p);
}

static void causal_kinds(void) {
  static const int64_t lengths[][2] = {{1, 1}, {1, 9}, {9, 1}, {5, 9}, {9, 5}, {33, 64}, {64, 33}, {70, 70}};
  for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
    for (int32_t causal = SWIFTATTN_CAUSAL_NONE; causal <= SWIFTATTN_CAUSAL_LOWER_RIGHT; causal++) {
      sizes s = usual();
      problem p;
      s.q_len = lengths[n][0];
      s.k_len = lengths[n][1];
      problem_make(&p, F32, s);
      p.options.causal = causal;
      checked(&p);
    }
}

static void query_offsets(void) {
  for (int64_t offset = -60; offset <= 60; offset += 12) {
    problem p;
    problem_make(&p, F32, usual());
    p.options.causal = SWIFTATTN_CAUSAL_UPPER_LEFT;
    p.options.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
    p.options.query_offset = offset;
    checked(&p);
    p.options.flags = 0;
    problem_add_query_offsets(&p, offset % 24 ? I32 : I64);
    checked(&p);
  }
}

static void windows(void) {
  static const int64_t sides[] = {-1, 0, 1, 7, 40, INT64_MAX};
  for (int left = 0; left < 6; left++)
    for (int right = 0; right < 6; right++) {
      problem p;
      problem_make(&p, F32, usual());
      p.options.flags = SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT | SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT;
      p.options.window_left = sides[left] == INT64_MAX ? 1000000 : sides[left];
      p.options.window_right = sides[right] == INT64_MAX ? 1000000 : sides[right];
      checked(&p);
      if (sides[left] != INT64_MAX && sides[right] != INT64_MAX) continue;
      swiftattn_tensor plain = tensor_like(&p.out);
      memcpy(plain.data, p.out.data, (size_t)tensor_count(&plain) * sizeof(float));
      p.options.window_left = sides[left];
      p.options.window_right = sides[right];
      CHECK(problem_run(&p) == 0, "%s", swiftattn_last_error());
      CHECK(tensor_same_bits(&plain, &p.out), "a window of INT64_MAX differs from a very wide one");
    }
}

static void window_flag_without_value_is_zero(void) {
  problem p;
  problem_make(&p, F32, usual());
  p.options.flags = SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT;
  checked(&p);
  p.options.flags = SWIFTATTN_ATTENTION_HAS_SCALE;
  checked(&p);
}

static void masks_of_every_rank(void) {
  static const int64_t full[4] = {2, 4, 37, 53};
  static const swiftattn_dtype dtypes[] = {{SWIFTATTN_DTYPE_CODE_BOOL, 8, 1}, {SWIFTATTN_DTYPE_CODE_FLOAT, 32, 1}};
  for (int kind = 0; kind < 2; kind++)
    for (int ndim = 1; ndim <= 4; ndim++)
      for (int ones = 0; ones < 1 << ndim; ones++) {
        int64_t shape[4];
        problem p;
        for (int d = 0; d < ndim; d++) shape[d] = ones >> d & 1 ? 1 : full[4 - ndim + d];
        problem_make(&p, F32, usual());
        problem_add_mask(&p, dtypes[kind], ndim, shape);
        checked(&p);
        buffer_free_all();
      }
}

static void mask_of_own_dtype(void) {
  const swiftattn_dtype dtypes[] = {F16, BF16, F64, F32};
  for (int n = 0; n < 4; n++)
    for (int own = 0; own < 2; own++) {
      const int64_t shape[2] = {37, 53};
      problem p;
      problem_make(&p, dtypes[n], usual());
      problem_add_mask(&p, own ? dtypes[n] : F32, 2, shape);
      checked(&p);
    }
}

static void nan_in_mask_hides_its_key(void) {
  const int64_t shape[1] = {53};
  problem p;
  if (check_quick) return; /* valgrind 3.19 takes NaN != -inf, ordered, for true in AVX registers */
  problem_make(&p, F32, usual());
  problem_add_mask(&p, F32, 1, shape);
  tensor_store1(&p.attn_mask, 5, NAN);
  tensor_store1(&p.attn_mask, 52, NAN);
  checked(&p);
}

static void softcap_alibi_sinks(void) {
  for (int n = 0; n < 12; n++) {
    problem p;
    problem_make(&p, n % 3 == 2 ? F64 : F32, usual());
    if (n & 1) p.options.softcap = n & 2 ? 0.25 : 30;
    if (n & 2) problem_add_alibi(&p);
    if (n & 4 || n == 0) problem_add_sinks(&p);
    p.options.causal = n % 3;
    checked(&p);
  }
}

static void lengths(void) {
  for (int n = 0; n < 8; n++) {
    problem p;
    problem_make(&p, F32, usual());
    p.options.causal = n % 3;
    problem_add_lengths(&p, n & 1 ? I32 : I64);
    if (n & 2) p.options.q_lengths = NULL;
    if (n & 4) p.options.kv_lengths = NULL;
    if (n == 0) tensor_fill(&p.kv_lengths, 0);
    checked(&p);
  }
}

static void dropout(void) {
  static const uint64_t seeds[] = {0, 1, 0xFFFFFFFFu, 0x123456789ABCDEF0u, UINT64_MAX};
  static const double rates[] = {0x1p-32, 0.1, 0.5, 0.999};
  for (int s = 0; s < 5; s++)
    for (int r = 0; r < 4; r++) {
      problem p;
      problem_make(&p, s & 1 ? F16 : F32, usual());
      p.options.seed = seeds[s];
      p.options.dropout_p = rates[r];
      p.options.causal = r % 3;
      checked(&p);
      buffer_free_all();
    }
}

static void weights_stages(void) {
  const int64_t shape[2] = {37, 53};
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  for (int32_t stage = 0; stage < 4; stage++)
    for (int n = 0; n < 4; n++)
      for (int own = 0; own < 2; own++) {
        problem p;
        problem_make(&p, dtypes[n], usual());
        if (own) p.weights = tensor_make(dtypes[n], LAYOUT_SWAPPED, 4, p.weights.shape);
        problem_add_mask(&p, own ? BOOL8 : F32, 2, shape);
        problem_add_lengths(&p, I32);
        p.options.weights_stage = stage;
        p.options.causal = SWIFTATTN_CAUSAL_LOWER_RIGHT;
        p.options.softcap = 3;
        checked(&p);
        buffer_free_all();
      }
}

static void precisions(void) {
  for (int32_t precision = 0; precision < 3; precision++)
    for (int n = 0; n < 6; n++) {
      problem p;
      problem_make_strided(&p, F32, sizes_random());
      p.options.precision = precision;
      p.options.causal = n % 3;
      checked(&p);
      buffer_free_all();
    }
}

static void head_dims(void) {
  static const int64_t dims[] = {1, 2, 5, 48, 127, 160, 255, 256, 257, 512, 513, 1000};
  const swiftattn_dtype dtypes[] = {F32, BF16, F16, F64};
  int last = check_quick ? 5 : 12;
  for (int n = 0; n < last; n++)
    for (int values = 0; values < last; values += 5) {
      sizes s = {1, 2, 1, 5, 19, dims[n], dims[values]};
      problem p;
      problem_make(&p, dtypes[n % 4], s);
      checked(&p);
      buffer_free_all();
    }
}

/* Long enough to cross the blocks of any sensible tiling, with few heads. */
static void long_sequences(void) {
  static const int64_t shapes[][2] = {{1, 5000}, {3, 1025}, {257, 513}, {513, 130}, {129, 1}};
  int count = check_quick ? 0 : 5;
  for (int n = 0; n < count; n++)
    for (int causal = 0; causal < 3; causal++) {
      sizes s = {1, 2, 1, shapes[n][0], shapes[n][1], 32, 32};
      problem p;
      problem_make(&p, causal == 1 ? BF16 : F32, s);
      p.options.causal = causal;
      p.has_weights = n != 0;
      checked(&p);
      buffer_free_all();
    }
}

void run_attention(void) {
  check_run("attention: the reference's Philox matches the published vectors", philox_matches_published_vectors);
  check_run("attention: a case by hand", small_case_by_hand);
  check_run("attention: causal kinds", causal_kinds);
  check_run("attention: query offsets", query_offsets);
  check_run("attention: windows", windows);
  check_run("attention: a set flag makes 0 a value", window_flag_without_value_is_zero);
  check_run("attention: masks of every broadcast shape", masks_of_every_rank);
  check_run("attention: float masks of both dtypes", mask_of_own_dtype);
  check_run("attention: NaN in a float mask hides its key", nan_in_mask_hides_its_key);
  check_run("attention: softcap, ALiBi, sinks", softcap_alibi_sinks);
  check_run("attention: lengths", lengths);
  check_run("attention: dropout", dropout);
  check_run("attention: weights at every stage", weights_stages);
  check_run("attention: precisions", precisions);
  check_run("attention: head dims", head_dims);
  check_run("attention: long sequences", long_sequences);
  check_run("attention: random problems, float32", random_float32);
  check_run("attention: random problems, float16", random_float16);
  check_run("attention: random problems, bfloat16", random_bfloat16);
  check_run("attention: random problems, float64", random_float64);
}
