/* 2^x inside attention_tile, in ulp: with scale = ln 2, a key of score 0 and all others far below it, l rounds to 1 and
 * the weights are 2^score as computed. */
#include <math.h>

#include "attention_case.h"

void test_exp2(const subject *s) {
  check_begin(s->isa, s->real, "exp2 of scores");
  const bool wide = s->real_dtype == ATTN_F64;
  const int64_t keys = 96, rows = s->kernels->tile_rows;
  const double lowest = wide ? -1022 : -126, highest = wide ? -70 : -40, grid = 0x1p-17;
  attention_options o = attention_plain(s, rows, keys, 2);
  o.weights_dtype = s->real_dtype;
  o.scale = 0.6931471805599453;
  attention_case c;
  double worst = 0, worst_at = 0, flushed = 0;
  for (int trial = 0; trial < check_trials(60); trial++) {
    attention_build(&c, &o);
    guard_open();
    /* score = k0 q0 + k1 q1 = -(key part) - (row part), both multiples of the grid: exact. */
    for (int64_t j = 0; j < keys; j++) {
      const double part = j ? rint((-highest + (highest - lowest + 4) * random_uniform()) / grid) * grid : 0;
      view_put(&c.k, 0, j, 0, -part);
      view_put(&c.k, 0, j, 1, j ? -1 : 0);
    }
    for (int64_t i = 0; i < rows; i++) {
      view_put(&c.q, 0, i, 0, 1);
      view_put(&c.q, 0, i, 1, (double)i * (1 / 64.0 + grid));
    }
    guard_seal();
    attention_result got;
    attention_run_whole(&c, s->kernels, &got);
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < keys; j++) {
        const double x = view_get(&c.k, 0, j, 0) + view_get(&c.q, 0, i, 1) * view_get(&c.k, 0, j, 1);
        const double error = fabs(got.weights[i * keys + j] - (double)exp2l((long double)x));
        if (x < lowest) {
          flushed = fmax(flushed, error / exp2(lowest));
          continue;
        }
        const double ulp = exp2(floor(x) - (wide ? 52 : 23));
        if (error / ulp > worst) worst = error / ulp, worst_at = x;
      }
    attention_free(&got);
  }
  check_context("2^%.9g", worst_at);
  check_error(worst, 2, "error in ulp of sample", 0);
  check_error(flushed, 1, "subnormal result", 0);
  check_note("worst %.2f ulp", worst);
  check_end();
}
