/* Speed of memory over all OpenMP threads: reading a buffer, and copying one half of it to the other. */
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* As wide as the registers: the compiler sends wider vectors through memory. */
#ifdef __AVX512F__
typedef uint64_t vector __attribute__((vector_size(64)));
#else
typedef uint64_t vector __attribute__((vector_size(32)));
#endif

static volatile uint64_t sink;

/* A buffer in huge pages where the machine gives them, as NumPy asks for too. */
uint8_t *buffer_create(size_t bytes) {
  size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  uint8_t *buffer = aligned_alloc(HUGE_PAGE, rounded);
  if (!buffer) return NULL;
  madvise(buffer, rounded, MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
  for (size_t page = 0; page < rounded; page += 4096) memset(buffer + page, 1, 4096);
  return buffer;
}

void buffer_destroy(uint8_t *buffer) { free(buffer); }

/* A thread's part of `bytes`, in whole blocks of 512 bytes. */
static size_t share(size_t bytes, size_t *start) {
  size_t blocks = bytes / 512, threads = omp_get_num_threads(), thread = omp_get_thread_num();
  *start = blocks * thread / threads * 512;
  return blocks * (thread + 1) / threads * 512 - *start;
}

#define PLACES 4 /* that a thread reads from at a time: the hardware's prefetching then brings more */

__attribute__((noinline)) static void read_all(const uint8_t *data, size_t bytes) {
  vector sum[8] = {0};
  const size_t part = bytes / PLACES / sizeof sum * sizeof sum;
  for (size_t at = 0; at < part; at += sizeof sum)
    for (int place = 0; place < PLACES; place++)
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) sum[i] += ((const vector *)(data + place * part + at))[i];
  for (const vector *at = (const vector *)(data + PLACES * part); at < (const vector *)(data + bytes); at++) sum[0] += *at;
  for (int i = 1; i < 8; i++) sum[0] += sum[i];
  sink = sum[0][0];
}

/* Bytes per second of `times` passes over the buffer. */
double read_speed(const uint8_t *buffer, size_t bytes, int64_t times) {
  double start = omp_get_wtime();
#pragma omp parallel
  {
    size_t offset, mine = share(bytes, &offset);
    for (int64_t pass = 0; pass < times; pass++) read_all(buffer + offset, mine);
  }
  return (double)bytes * times / (omp_get_wtime() - start);
}

/* As read_speed; every byte of the buffer is either read or written. memcpy streams past the cache where that helps. */
double copy_speed(uint8_t *buffer, size_t bytes, int64_t times) {
  size_t half = bytes / 1024 * 512;
  double start = omp_get_wtime();
#pragma omp parallel
  {
    size_t offset, mine = share(half, &offset);
    for (int64_t pass = 0; pass < times; pass++) memcpy(buffer + half + offset, buffer + offset, mine);
  }
  return 2.0 * half * times / (omp_get_wtime() - start);
}
