/* Quantised weights: packing, rows of x as integers, and tiles of every variant. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests.h"

/* n random rows of k weights as a file stores them: random codes, and scales of which no weight is large. */
static uint8_t *random_stored(attn_quant format, int64_t n, int64_t k) {
  const int64_t bytes = attn_quant_block_bytes(format), blocks = n * k / attn_quant_block(format);
  uint8_t *stored = guard_new((size_t)(blocks * bytes), 1);
  for (int64_t i = 0; i < blocks * bytes; i++) stored[i] = (uint8_t)random_bits();
  for (int64_t b = 0; b < blocks; b++) {
    uint8_t *at = stored + b * bytes;
    const uint16_t d = half_pattern(ATTN_F16, 0.02 * random_normal()), m = half_pattern(ATTN_F16, 0.02 * random_normal());
    memcpy(format == ATTN_Q6_K ? at + 208 : at, &d, 2);
    if (format == ATTN_Q4_1 || format == ATTN_Q4_K) memcpy(at + 2, &m, 2);
  }
  return stored;
}

static const char *const format_names[] = { "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K" };

static int64_t random_width(attn_quant format) {
  return attn_quant_block(format) * random_int(1, format >= ATTN_Q4_K ? 3 : 9);
}

/* A packed row has the bits of the stored one. */
void test_quant_pack(void) {
  check_begin("all", "quant", "pack");
  for (int i = 0; i < check_trials(200); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_quant format = (attn_quant)random_int(ATTN_Q4_0, ATTN_Q6_K);
    const int64_t n = random_int(1, 40), k = random_width(format);
    const int64_t row_bytes = k / attn_quant_block(format) * attn_quant_block_bytes(format);
    uint8_t *stored = random_stored(format, n, k);
    guard_seal();
    void *packed = guard_new(attn_quant_packed_size(format, n, k), 64);
    float *expected = guard_new((size_t)k * 4, 4), *got = guard_new((size_t)k * 4, 4);
    check_context("%s (%ld, %ld)", format_names[format], (long)n, (long)k);
    attn_quant_pack(format, stored, n, k, packed);
    for (int64_t row = 0; row < n; row++) {
      attn_quant_load_row(format, stored + row * row_bytes, k, expected);
      attn_quant_packed_row(format, packed, k, row, got);
      for (int64_t j = 0; j < k; j++)
        CHECK(same_bits(got[j], expected[j]), "weight %ld of row %ld is %g, stored %g", (long)j, (long)row, got[j], expected[j]);
    }
  }
  check_end();
}

typedef struct operand_rows { char *operands; attn_quant_facts *facts; } operand_rows;

static operand_rows quantised(const attn_quant_kernels *kernels, const float *x, bool coarse, int64_t m, int64_t k) {
  const int64_t blocks = k / QUANT_BLOCK, bytes = quant_operand_bytes(coarse);
  operand_rows o = { guard_new((size_t)(m * blocks * bytes), 64), guard_new((size_t)(m * blocks) * sizeof *o.facts, 4) };
  for (int64_t r = 0; r < m; r++) kernels->quantise(x + r * k, k, coarse, m, o.operands + r * bytes, o.facts + r);
  return o;
}

/* Against the dequantised weights in long double. x is rounded to a 65024th of its block's range, coarsely to a 254th, sums
 * to floats. */
void test_quant_tile(const char *name, const attn_quant_kernels *kernels) {
  check_begin(name, "quant", "quantise tile");
  for (int i = 0; i < check_trials(300); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const attn_quant format = (attn_quant)random_int(ATTN_Q4_0, ATTN_Q6_K);
    const int64_t k = random_width(format), blocks = k / QUANT_BLOCK;
    int64_t m = kernels->rows;
    while (m > 1 && random_chance(2)) m /= 2;
    uint8_t *stored = random_stored(format, PANEL, k);
    float *x = guard_new((size_t)(m * k) * 4, 4);
    for (int64_t j = 0; j < m * k; j++) x[j] = (float)(random_normal() * (random_chance(20) ? 30 : 1));
    if (random_chance(4)) memset(x, 0, 32 * sizeof *x);
    const int64_t bad = random_chance(6) ? random_int(0, m - 1) : -1; /* a row with NaN or Inf */
    if (bad >= 0) x[bad * k + random_int(0, k - 1)] = random_chance(2) ? NAN : -INFINITY;
    guard_seal();
    char *panel = guard_new((size_t)quant_panel_bytes(format, k), 64);
    attn_quant_pack(format, stored, PANEL, k, panel);
    const bool coarse = kernels->coarse && random_chance(2);
    check_context("%s %s m %ld k %ld", format_names[format], coarse ? "coarse" : "fine", (long)m, (long)k);
    const operand_rows o = quantised(kernels, x, coarse, m, k);
    float *sums = guard_new((size_t)(m * PANEL) * 4, 64), *w = guard_new((size_t)k * 4, 4);
    const attn_quant_place place = { sums, PANEL, NULL, NULL, 0 };
    kernels->tile(format, coarse, m, k, o.operands, o.facts, panel, &place);
    for (int64_t j = 0; j < PANEL; j++) {
      attn_quant_packed_row(format, panel, k, j, w);
      for (int64_t r = 0; r < m; r++) {
        const double got = (double)sums[r * PANEL + j];
        if (r == bad) {
          CHECK(isnan(got), "row %ld has NaN or Inf, but column %ld is %g", (long)r, (long)j, got);
          continue;
        }
        long double sum = 0;
        double bound = 0, size = 0;
        for (int64_t b = 0; b < blocks; b++) {
          double largest = 0, weights = 0;
          for (int64_t t = b * 32; t < b * 32 + 32; t++) {
            sum += (long double)x[r * k + t] * (long double)w[t];
            largest = fmax(largest, fabs((double)x[r * k + t]));
            weights += fabs((double)w[t]);
            size += fabs((double)x[r * k + t] * (double)w[t]);
          }
          bound += largest / (coarse ? QUANT_COARSEST : QUANT_LARGEST) * 0.5 * weights;
          size += largest * weights / 8; /* d c and m of a block may be larger than d c + m */
        }
        bound += size * 0x1p-22;
        const double error = fabs(got - (double)sum);
        check_error(error, bound, "sums", r * PANEL + j);
      }
    }
    /* A row alone has the bits it has among others. */
    const int64_t row = random_int(0, m - 1);
    const operand_rows alone = quantised(kernels, x + row * k, coarse, 1, k);
    float *single = guard_new(PANEL * 4, 64);
    const attn_quant_place own = { single, PANEL, NULL, NULL, 0 };
    kernels->tile(format, coarse, 1, k, alone.operands, alone.facts, panel, &own);
    for (int64_t j = 0; j < PANEL; j++)
      CHECK(same_bits(single[j], sums[row * PANEL + j]), "row %ld, column %ld differs when the row is alone", (long)row, (long)j);
  }
  check_end();
}

/* The driver: several weights on one x, with bias, residual and activation; m and n of any size. */
void test_quant_run(void) {
  check_begin(attn_quant_kernels_chosen()->isa, "quant", "driver");
  for (int i = 0; i < check_trials(100); i++) {
    guard_reset();
    guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
    const int64_t m = random_chance(3) ? 1 : random_int(1, 90), k = 256 * random_int(1, 2);
    float *x = guard_new((size_t)(m * k) * 4, 4);
    for (int64_t j = 0; j < m * k; j++) x[j] = (float)random_normal();
    attn_quant_output outputs[3];
    const float *residuals[3];
    const int count = (int)random_int(1, 3);
    for (int o = 0; o < count; o++) {
      const attn_quant format = (attn_quant)random_int(ATTN_Q4_0, ATTN_Q6_K);
      const int64_t n = random_int(1, 50);
      uint8_t *stored = random_stored(format, n, k);
      void *packed = guard_new(attn_quant_packed_size(format, n, k), 64);
      attn_quant_pack(format, stored, n, k, packed);
      float *bias = guard_new((size_t)n * 4, 4), *residual = guard_new((size_t)(m * n) * 4, 4);
      for (int64_t j = 0; j < n; j++) bias[j] = (float)random_normal();
      for (int64_t j = 0; j < m * n; j++) residual[j] = (float)random_normal();
      outputs[o] = (attn_quant_output){ format, n, packed, NULL, n, random_chance(2) ? bias : NULL,
                                        random_chance(2) ? residual : NULL, n, random_chance(2) ? ATTN_SILU : ATTN_IDENTITY };
      residuals[o] = outputs[o].residual;
    }
    guard_seal();
    for (int o = 0; o < count; o++) {
      outputs[o].c = guard_new((size_t)(m * outputs[o].n) * 4, 4);
      if (outputs[o].residual && random_chance(2)) { /* in place */
        memcpy(outputs[o].c, outputs[o].residual, (size_t)(m * outputs[o].n) * 4);
        outputs[o].residual = outputs[o].c;
      }
    }
    check_context("m %ld k %ld, %d weights", (long)m, (long)k, count);
    const attn_quant_product product = { m, k, x, k, outputs, count, random_chance(2), 1 };
    CHECK(attn_quant_run(&product), "out of memory");
    float w[512];
    for (int o = 0; o < count; o++)
      for (int64_t j = 0; j < outputs[o].n; j++) {
        attn_quant_packed_row(outputs[o].format, outputs[o].packed, k, j, w);
        for (int64_t r = 0; r < m; r++) {
          double sum = outputs[o].bias ? outputs[o].bias[j] : 0, size = 1;
          for (int64_t t = 0; t < k; t++) {
            sum += (double)x[r * k + t] * (double)w[t];
            size += fabs((double)w[t]);
          }
          double expected = outputs[o].activation == ATTN_SILU ? sum / (1 + exp(-sum)) : sum;
          if (residuals[o]) expected += residuals[o][r * outputs[o].n + j];
          check_error(fabs(outputs[o].c[r * outputs[o].n + j] - expected), (product.coarse ? 2e-2 : 1e-4) * size, "c", r * outputs[o].n + j);
        }
      }
  }
  check_end();
}
