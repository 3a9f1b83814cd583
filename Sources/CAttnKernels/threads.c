/* The process-wide number of threads, and the loop that the Swift kernels run on them. */
#include "threads.h"

#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
static int default_threads(void) { return omp_get_max_threads(); }
int attn_thread_number(void) { return omp_get_thread_num(); }
#else
static int default_threads(void) { return 1; }
int attn_thread_number(void) { return 0; }
#endif

static atomic_int set_threads;

void attn_set_num_threads(int32_t threads) { atomic_store(&set_threads, threads); }

int32_t attn_get_num_threads(void) {
  const int threads = atomic_load(&set_threads);
  return threads ? threads : default_threads();
}

int attn_threads_for(int32_t wanted, int64_t tasks) {
  const int64_t threads = wanted ? wanted : attn_get_num_threads();
  return (int)(tasks < threads ? (tasks > 1 ? tasks : 1) : threads);
}

void attn_parallel_for(int64_t count, int64_t grain, attn_range_body body, void *context) {
  const int64_t ranges = count / grain;
  if (ranges < 2) {
    if (count > 0) body(context, 0, count);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(attn_threads_for(0, ranges))
  for (int64_t r = 0; r < ranges; r++)
    body(context, r * grain, r == ranges - 1 ? count : (r + 1) * grain);
}
