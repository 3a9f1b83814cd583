/* AMX itself, the machine's or the emulator's: the order of TDPBF16PS's sums, its flushes, and the words around it. */
#include <math.h>
#include <string.h>

#include "cpu_features.h"
#include "tests.h"

#if defined(__x86_64__)
#include <immintrin.h>

typedef struct tile_config { uint8_t palette, start, rest[14]; uint16_t bytes[16]; uint8_t rows[16]; } tile_config;

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static float wide(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float x;
  memcpy(&x, &bits, 4);
  return flushed(x);
}

static uint16_t any_bf16(void) {
  const int kind = (int)random_int(0, 15);
  if (kind == 0) return (uint16_t)random_bits();
  if (kind == 1) return (uint16_t)(random_bits() & 0x80ff); /* subnormal, or nearly */
  return half_pattern(ATTN_BF16, random_normal() * ldexp(1, kind == 2 ? (int)random_int(-70, 70) : 0));
}

__attribute__((target("amx-tile,amx-bf16"))) static void run(const tile_config *config, const void *a, const void *b, void *c,
                                                            int64_t step, tile_config *found) {
  _tile_loadconfig(config);
  _tile_loadd(5, a, 64);
  _tile_stream_loadd(6, b, 64);
  _tile_loadd(2, c, step);
  _tile_dpbf16ps(2, 5, 6);
  _tile_stored(2, c, step);
  _tile_zero(2);
  _tile_stored(2, (char *)c + 64, step); /* tells that rows and columns beyond the tile stay as they are */
  _tile_storeconfig(found);
  _tile_release();
}

static void a_product(void) {
  const int rows = (int)random_int(1, 16), pairs = (int)random_int(1, 16), lanes = (int)random_int(1, 16);
  tile_config config = { .palette = 1 }, found;
  config.rows[2] = config.rows[5] = (uint8_t)rows;
  config.bytes[5] = (uint16_t)(4 * pairs);
  config.rows[6] = (uint8_t)pairs;
  config.bytes[2] = config.bytes[6] = (uint16_t)(4 * lanes);
  uint16_t a[16][32], b[16][32];
  float c[16][32], before[16][32];
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 32; j++) {
      a[i][j] = any_bf16();
      b[i][j] = any_bf16();
      before[i][j] = c[i][j] = (float)(random_normal() * (random_chance(8) ? 0x1p-127 : 1));
    }
  run(&config, a, b, c, 128, &found);
  CHECK(!memcmp(&config, &found, sizeof config), "the configuration reads back otherwise");
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) {
      CHECK(c[i][16 + j] == (i < rows && j < lanes ? 0 : before[i][16 + j]), "row %d, lane %d is no zeroed tile's", i, j);
      float even = 0, odd = 0;
      for (int g = 0; g < pairs; g++) {
        even = flushed(fmaf(wide(a[i][2 * g]), wide(b[g][2 * j]), even));
        odd = flushed(fmaf(wide(a[i][2 * g + 1]), wide(b[g][2 * j + 1]), odd));
      }
      const float expected = i < rows && j < lanes ? flushed(flushed(before[i][j]) + flushed(even + odd)) : before[i][j];
      CHECK(same_bits((double)c[i][j], (double)expected), "sum %d, %d is %a, expected %a", i, j, (double)c[i][j],
            (double)expected);
    }
}

void test_tiles(const subject *s) {
  if (!attn_cpu_has_amx() || !attn_cpu_may_use_amx()) return;
  check_begin(s->isa, "tiles", "TDPBF16PS");
  for (int i = 0; i < check_trials(300); i++) {
    check_context("product %d", i);
    a_product();
  }
  check_end();
}
#else
void test_tiles(const subject *s) { (void)s; }
#endif
