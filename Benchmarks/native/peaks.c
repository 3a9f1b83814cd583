/* Peaks of the arithmetic units over all OpenMP threads: float32 multiply-add, bfloat16 dot product, AMX tiles.
 *
 * Each function does `rounds` rounds of independent operations that stay in registers and returns flops per second,
 * or 0 if the machine lacks the unit. WIDTH is the width of a float32 vector in bytes. */
#include <omp.h>
#include <stdint.h>

typedef float vector __attribute__((vector_size(WIDTH), aligned(WIDTH)));

#define LANES (WIDTH / 4)
#define CHAINS 12 /* latency 4 times 2 units needs 8; 12 + 2 operands still fit in 16 registers */

static volatile float sink;

/* Seconds from before the first thread starts its rounds until the last has ended them. */
#define TIMED(body)                                        \
  double seconds = 0;                                      \
  int threads = 1;                                         \
  _Pragma("omp parallel") {                                \
    _Pragma("omp single") threads = omp_get_num_threads(); \
    _Pragma("omp barrier") double start = omp_get_wtime(); \
    body;                                                  \
    _Pragma("omp barrier") double end = omp_get_wtime();   \
    _Pragma("omp master") seconds = end - start;           \
  }

__attribute__((noinline)) static void multiply_add(int64_t rounds) {
  /* The factors come from memory that the compiler cannot see through, or it would fold the loop. */
  static volatile float factor = 0.5f, addend = 1.0f;
  vector x = {0}, y = {0}, sum[CHAINS];
  x += factor;
  y += addend;
  for (int c = 0; c < CHAINS; c++) sum[c] = y * (float)c;
  for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sum[c] = sum[c] * x + y;
  for (int c = 1; c < CHAINS; c++) sum[0] += sum[c];
  sink = sum[0][0];
}

double fma_peak(int64_t rounds) {
#if WIDTH == 64 && !defined(__AVX512F__)
  return 0;
#else
  TIMED(multiply_add(rounds))
  return 2.0 * LANES * CHAINS * rounds * threads / seconds;
#endif
}

#ifdef __AVX512BF16__
#include <immintrin.h>

__attribute__((noinline)) static void dot_products(int64_t rounds) {
  static volatile float factor = 0.5f;
  __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(factor), _mm512_set1_ps(factor));
  __m512 sum[CHAINS];
  for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps(factor * c);
  for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_dpbf16_ps(sum[c], x, x);
  for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  sink = _mm512_reduce_add_ps(sum[0]);
}

double bf16_dot_peak(int64_t rounds) {
  TIMED(dot_products(rounds))
  return 2.0 * 32 * CHAINS * rounds * threads / seconds;
}
#else
double bf16_dot_peak(int64_t rounds) {
  (void)rounds;
  return 0;
}
#endif

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

/* Eight tiles of 16 rows of 64 bytes. Static, because a compiler may drop stores to a configuration on the stack. */
static const struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tiles __attribute__((aligned(64))) = {
    1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/* Two tiles of A by two of B into four accumulators, as a matrix product does. */
__attribute__((noinline)) static void tile_products(int64_t rounds) {
  static const uint8_t zeros[1024] __attribute__((aligned(64)));
  _tile_loadconfig(&tiles);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
  for (int64_t round = 0; round < rounds; round++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

double amx_peak(int64_t rounds) {
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)) return 0;
  TIMED(tile_products(rounds))
  return 4.0 * 2 * 16 * 16 * 32 * rounds * threads / seconds;
}
#else
double amx_peak(int64_t rounds) {
  (void)rounds;
  return 0;
}
#endif
