/* The drivers on the chosen ISA: the same bits from any number of threads, rows at a time, packed weights and split keys. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_case.h"
#include "cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
/* What any other library on this thread may do between two calls. */
__attribute__((target("amx-tile"))) static void disturb_tiles(void) {
  static const struct { uint8_t palette, rest[15]; uint16_t bytes[16]; uint8_t rows[16]; } narrow = {
    1, {0}, { 4, 8, 12, 16, 20, 24, 28, 32 }, { 1, 2, 3, 4, 5, 6, 7, 8 }
  };
  if (strcmp(attn_isa_name(), "amx")) return;
  if (random_chance(2)) _tile_loadconfig(&narrow);
  else _tile_release();
}
#else
static void disturb_tiles(void) {}
#endif

static const struct { attn_dtype dtype; attn_precision precision; double roundoff; const char *name; } kinds[] = {
  { ATTN_F32, ATTN_HIGHEST, 0x1p-24, "f32 highest" }, { ATTN_F32, ATTN_HIGH, 0x1p-16, "f32 high" },
  { ATTN_F32, ATTN_MEDIUM, 0x1p-8, "f32 medium" },    { ATTN_F16, ATTN_HIGHEST, 0x1p-11, "f16" },
  { ATTN_BF16, ATTN_HIGHEST, 0x1p-8, "bf16" },        { ATTN_F64, ATTN_HIGHEST, 0x1p-53, "f64" },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void fill(const view *v) {
  for (int64_t a = 0; a < v->extent[0]; a++)
    for (int64_t i = 0; i < v->extent[1]; i++)
      for (int64_t j = 0; j < v->extent[2]; j++) view_put(v, a, i, j, random_normal());
}

static attn_matrix entry(const view *v, int64_t batch, int64_t row) {
  return (attn_matrix){ view_at(v, batch, row, 0), v->stride[1], v->stride[2] };
}

static double *run_gemm(attn_gemm gemm, const view *c) {
  disturb_tiles();
  CHECK(attn_gemm_run(&gemm), "out of memory");
  double *out = malloc((size_t)view_count(c) * sizeof *out);
  view_gather(c, out);
  return out;
}

static void same(const char *what, const double *expected, double *got, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (!same_bits(expected[i], got[i])) {
      check_fail("element %ld is %.9g %s, expected %.9g", (long)i, got[i], what, expected[i]);
      break;
    }
  free(got);
}

static void a_gemm(int kind) {
  guard_reset();
  const attn_dtype dtype = kinds[kind].dtype;
  const int64_t batch = random_int(1, 2), m = random_int(1, random_chance(2) ? 8 : 90), n = random_int(1, 150);
  const int64_t k = random_int(1, random_chance(2) ? 300 : 70);
  view a = view_new(dtype, batch, m, k, VIEW_DENSE), w = view_new(dtype, batch, n, k, VIEW_DENSE);
  fill(&a);
  fill(&w);
  guard_seal();
  view c = view_new(dtype, batch, m, n, VIEW_DENSE);
  attn_matrix of_a[2], of_b[2], of_c[2];
  for (int64_t i = 0; i < batch; i++) {
    of_a[i] = entry(&a, i, 0);
    of_b[i] = (attn_matrix){ view_at(&w, i, 0, 0), 1, k };
    of_c[i] = entry(&c, i, 0);
  }
  attn_gemm gemm = { .dtype = dtype, .b_dtype = dtype, .precision = kinds[kind].precision, .m = m, .n = n, .k = k, .batch = batch, .a = of_a,
                     .b = of_b, .c = of_c, .activation = ATTN_IDENTITY, .threads = 1 };
  check_context("gemm %s batch %ld m %ld n %ld k %ld", kinds[kind].name, (long)batch, (long)m, (long)n, (long)k);
  double *expected = run_gemm(gemm, &c);
  for (int64_t i = 0; i < view_count(&c); i++) {
    const int64_t e = i / (m * n), row = i / n % m, column = i % n;
    double sum = 0, size = 0;
    for (int64_t p = 0; p < k; p++) {
      const double term = view_get(&a, e, row, p) * view_get(&w, e, column, p);
      sum += term;
      size += fabs(term);
    }
    check_error(fabs(expected[i] - sum), kinds[kind].roundoff * (3 + sqrt((double)k)) * size, "c", i);
  }
  for (int32_t threads = 2; threads <= 3; threads++) {
    gemm.threads = threads;
    same("on more threads", expected, run_gemm(gemm, &c), view_count(&c));
  }
  void *packed = attn_allocate(attn_packed_size(dtype, k, n));
  attn_pack(dtype, &of_b[0], k, n, packed);
  attn_gemm with = gemm;
  with.batch = 1;
  with.packed_b = packed;
  same("with a packed weight", expected, run_gemm(with, &c), m * n);
  attn_free(packed);
  const int64_t row = random_int(0, m - 1);
  of_a[0] = entry(&a, 0, row);
  gemm.batch = gemm.m = 1;
  same("with its row alone", expected + row * n, run_gemm(gemm, &c), n);
  free(expected);
}

static attn_plan plan_of(attention_case *c, int32_t threads, bool split) {
  const attention_options *o = &c->options;
  const int64_t group = o->q_heads / o->kv_heads, lanes = attn_tile_rows(&c->problem);
  const int64_t rows = random_int(1, o->q_rows < lanes ? o->q_rows : lanes);
  const int64_t heads = group < lanes / rows ? group : lanes / rows;
  const int64_t tiles = o->kv_heads * ((group + heads - 1) / heads) * ((o->q_rows + rows - 1) / rows);
  c->problem.sequences = &c->sequence;
  return (attn_plan){ heads, rows, random_int(1, 4), tiles, threads, split };
}

static double *run_attention(attention_case *c, int32_t threads, bool split) {
  const attn_plan plan = plan_of(c, threads, split);
  disturb_tiles();
  CHECK(attn_forward(&c->problem, &plan), "out of memory");
  double *out = malloc((size_t)view_count(&c->o) * sizeof *out + 1);
  view_gather(&c->o, out);
  return out;
}

static void an_attention(int kind) {
  subject s = { .real_dtype = kinds[kind].dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32, .dtypes = { kinds[kind].dtype },
                .dtype_count = 1 };
  attention_options o = attention_random(&s);
  if (o.q_rows == 0 || random_chance(4)) o.q_rows = o.q_len = random_int(1, 300);
  attention_case c;
  attention_build(&c, &o);
  c.problem.precision = kinds[kind].precision;
  double *expected = run_attention(&c, 1, false);
  for (int32_t threads = 1; threads <= 3; threads++) {
    same("on more threads", expected, run_attention(&c, threads, false), view_count(&c.o));
    same("with split keys", expected, run_attention(&c, threads, true), view_count(&c.o));
  }
  free(expected);
}

void test_drivers(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    check_begin(attn_isa_name(), "drivers", kinds[kind].name);
    for (int i = 0; i < check_trials(30); i++) {
      a_gemm(kind);
      an_attention(kind);
    }
    check_end();
  }
}
