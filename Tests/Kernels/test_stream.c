/* stream: the same bits as packing and multiplying block by block, and no byte read beyond the operands. */
#include "tests.h"

enum { SUMMED = 128 };

static void fill(const view *v) {
  for (int64_t i = 0; i < v->extent[1]; i++)
    for (int64_t j = 0; j < v->extent[2]; j++) view_put(v, 0, i, j, random_normal());
}

void test_stream(const subject *s) {
  check_begin(s->isa, s->real, "stream");
  const attn_kernels *kernels = s->kernels;
  const int64_t lanes = kernels->stream_columns, nr = kernels->nr, real = (int64_t)attn_dtype_size(s->real_dtype);
  for (int trial = 0; trial < check_trials(500); trial++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
    const int64_t size = (int64_t)attn_dtype_size(dtype);
    const int64_t m = random_int(1, kernels->stream_rows), columns = random_chance(2) ? lanes : random_int(1, lanes);
    const int64_t k = random_chance(3) ? SUMMED * random_int(1, 3) : random_int(1, 400);
    view a = view_new(dtype, 1, m, k, VIEW_DENSE), b = view_new(dtype, 1, columns, k, VIEW_DENSE);
    fill(&a);
    fill(&b);
    guard_seal();
    check_context("stream %s m %ld k %ld columns %ld", dtype_name(dtype), (long)m, (long)k, (long)columns);

    const int64_t row = (k + kernels->depth - 1) / kernels->depth * kernels->operand_size;
    char *block = guard_new((size_t)(m * row), (size_t)kernels->operand_size);
    char *lines = guard_new((size_t)(lanes * row), (size_t)kernels->operand_size);
    char *got = guard_new((size_t)(m * lanes * real), (size_t)real);
    const attn_matrix of_a = { a.data, k, 1 }, of_b = { b.data, 1, k };
    kernels->pack_few(dtype, &of_a, m, k, block);
    kernels->stream(dtype, m, k, SUMMED, block, &of_b, columns, got, lanes, lines);

    char *panel = guard_new((size_t)(SUMMED * nr * kernels->operand_size), 64);
    char *part = guard_new((size_t)(m * SUMMED * kernels->operand_size), 64);
    char *expected = guard_new((size_t)(m * nr * real), (size_t)real);
    for (int64_t p = 0; p < k; p += SUMMED) {
      const int64_t some = k - p < SUMMED ? k - p : SUMMED;
      const attn_matrix a_part = { a.data + p * size, k, 1 }, b_part = { b.data + p * size, 1, k };
      kernels->pack_a(dtype, &a_part, m, some, part);
      kernels->pack_b(dtype, &b_part, some, columns, panel);
      kernels->multiply(m, some, part, panel, expected, nr, p > 0);
    }
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < columns; j++)
        CHECK(same_bits(element_get(s->real_dtype, got + (i * lanes + j) * real),
                        element_get(s->real_dtype, expected + (i * nr + j) * real)),
              "row %ld, column %ld differs from the packed product", (long)i, (long)j);
  }
  check_end();
}
