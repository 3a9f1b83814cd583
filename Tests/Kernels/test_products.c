/* Packing and multiplying block by block, as the driver does, in any dtype: against long double, and row by row. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests.h"

typedef enum numbers { NORMAL, WIDE, SMALL, SPECIAL, NUMBERS } numbers;
static const char *const numbers_name[] = { "normal", "wide", "small", "special" };

static double number(numbers kind, attn_dtype dtype) {
  const double x = random_normal();
  const int reach = dtype == ATTN_F16 ? 7 : 55; /* binary exponents whose products stay in range */
  switch (kind) {
    case WIDE: return ldexp(x, (int)random_int(-reach, reach));
    case SMALL: return random_chance(3) ? 0 : ldexp(x, dtype == ATTN_F16 ? -(int)random_int(8, 24) : -(int)random_int(40, 149));
    case SPECIAL:
      if (!random_chance(60)) return x;
      return (double[]){ INFINITY, -INFINITY, NAN, dtype == ATTN_F16 ? 65504 : FLT_MAX, -(double)FLT_MAX / 4, 0x1p-130, 0x1p-149,
                         0x1p90, 0x1p-60 }[random_int(0, 8)];
    default: return x;
  }
}

static void fill(const view *v, numbers kind) {
  for (int64_t i = 0; i < v->extent[1]; i++)
    for (int64_t j = 0; j < v->extent[2]; j++) view_put(v, 0, i, j, number(kind, v->dtype));
}

static attn_matrix part(const view *v, int64_t row, int64_t column) {
  return (attn_matrix){ view_at(v, 0, row, column), v->stride[1], v->stride[2] };
}

static int64_t over(int64_t x, int64_t y) { return (x + y - 1) / y; }

/* c[rounded m][nr] = a . b of one panel */
static float *multiply(const attn_kernels *kernels, const view *a, const view *b, int64_t first, int64_t m) {
  const int64_t k = a->extent[2], columns = b->extent[2], rows = over(m, kernels->mr) * kernels->mr;
  const int64_t line = over(kernels->block, kernels->depth) * kernels->operand_size + kernels->block_extra;
  float *c = guard_new((size_t)(rows * kernels->nr) * sizeof *c, 64);
  char *block = guard_new((size_t)(rows * line), 64), *panel = guard_new((size_t)(kernels->nr * line), 64);
  for (int64_t p = 0; p < k || p == 0; p += kernels->block) {
    const int64_t some = k - p < kernels->block ? k - p : kernels->block;
    const attn_matrix a_part = part(a, first, p), b_part = part(b, p, 0);
    kernels->pack_a(a->dtype, &a_part, m, some, block);
    kernels->pack_b(a->dtype, &b_part, some, columns, panel);
    kernels->multiply(m, some, block, panel, c, kernels->nr, p > 0);
  }
  return c;
}

typedef struct losses { double got, plain; int64_t count; } losses;

static void compare(const subject *s, const view *a, const view *b, const float *c, losses *l) {
  const int64_t k = a->extent[2], nr = s->kernels->nr;
  for (int64_t i = 0; i < a->extent[1]; i++)
    for (int64_t j = 0; j < b->extent[2]; j++) {
      long double sum = 0, size = 0, finite = 0;
      float plain = 0;
      for (int64_t p = 0; p < k; p++) {
        const double x = view_get(a, 0, i, p), y = view_get(b, 0, p, j);
        sum += (long double)x * y;
        size += fabsl((long double)x * y);
        if (isfinite(x * y)) finite += fabsl((long double)x * y);
        plain = fmaf((float)x, (float)y, plain);
      }
      const double got = (double)c[i * nr + j], truth = (double)sum;
      if (!(size <= FLT_MAX / 4)) { /* the operands' Inf and NaN; where finite terms overflow besides, it is any of them */
        if (!isfinite(truth))
          CHECK(same_bits(got, truth) || (finite > FLT_MAX / 4 && !isfinite(got)), "c[%ld][%ld] is %g, expected %g", (long)i,
                (long)j, got, truth);
        continue;
      }
      const double error = fabs(got - truth), lost = fabs((double)plain - truth);
      const double subnormal = (s->roundoff < 0x1p-15 ? 0x1p-149 : 0x1p-125) * (double)k;
      check_error(error, 2 * lost + (3 + 0.5 * sqrt((double)k)) * s->roundoff * (double)size + subnormal, "c", i * nr + j);
      if (size < 0x1p-100L) continue;
      l->got += error * error / (double)(size * size);
      l->plain += lost * lost / (double)(size * size);
      l->count++;
    }
}

static void check_row_alone(const subject *s, const view *a, const view *b, const float *c) {
  const int64_t row = random_int(0, a->extent[1] - 1), nr = s->kernels->nr;
  const float *alone = multiply(s->kernels, a, b, row, 1);
  for (int64_t j = 0; j < b->extent[2]; j++)
    CHECK(same_bits((double)alone[j], (double)c[row * nr + j]), "row %ld, column %ld is %a among others, %a alone", (long)row,
          (long)j, (double)c[row * nr + j], (double)alone[j]);
}

void test_packed_products(const subject *s) {
  for (numbers kind = NORMAL; kind < NUMBERS; kind++) {
    if (kind > WIDE && s->roundoff > 0x1p-15) continue; /* one bfloat16 takes small numbers for 0, and large ones for Inf */
    char entry[32] = "products, ";
    check_begin(s->isa, s->real, strcat(entry, numbers_name[kind]));
    losses l = {0};
    for (int i = 0; i < check_trials(60); i++) {
      guard_reset();
      guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
      const attn_dtype dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
      const int64_t m = random_int(1, random_chance(4) ? 70 : 20);
      const int64_t columns = random_chance(3) ? s->kernels->nr : random_int(1, s->kernels->nr);
      const int64_t k = random_chance(3) ? random_int(1, 600) : random_int(0, 70);
      view a = view_new(dtype, 1, m, k, (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST)), b;
      if (random_chance(2)) { /* columns side by side, as x . weight^T */
        b = view_new(dtype, 1, columns, k, VIEW_DENSE);
        b.extent[1] = k, b.extent[2] = columns, b.stride[1] = 1, b.stride[2] = k;
      } else {
        b = view_new(dtype, 1, k, columns, (view_layout)random_int(VIEW_DENSE, VIEW_BROADCAST));
      }
      fill(&a, kind);
      fill(&b, kind == SPECIAL && random_chance(2) ? NORMAL : kind);
      guard_seal();
      check_context("%s %s m %ld k %ld columns %ld strides %ld %ld, %ld %ld", dtype_name(dtype), numbers_name[kind], (long)m,
                    (long)k, (long)columns, (long)a.stride[1], (long)a.stride[2], (long)b.stride[1], (long)b.stride[2]);
      const float *c = multiply(s->kernels, &a, &b, 0, m);
      compare(s, &a, &b, c, &l);
      check_row_alone(s, &a, &b, c);
    }
    const double got = sqrt(l.got / fmax(1, (double)l.count)), plain = sqrt(l.plain / fmax(1, (double)l.count));
    if (s->roundoff < 0x1p-18) CHECK(got <= 1.1 * plain, "rms error %.3g, of a plain loop %.3g", got, plain);
    check_note("rms %.2e of sum |a b|, a plain loop %.2e", got, plain);
    check_end();
  }
}
