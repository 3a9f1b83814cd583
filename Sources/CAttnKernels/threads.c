/* The process-wide number of threads, and the loop that the Swift kernels run on them. */
#include "threads.h"

#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
static int default_threads(void) { return omp_get_max_threads(); }
static int thread_number(void) { return omp_get_thread_num(); }
#else
static int default_threads(void) { return 1; }
static int thread_number(void) { return 0; }
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

/* A counter of our own in place of an OpenMP loop with a dynamic schedule: the compiler ends such a loop with a call that
 * libomp before version 17 does not have. */
void attn_run_tasks(int threads, int64_t tasks, attn_task_body body, void *context) {
  if (threads == 1) {
    for (int64_t task = 0; task < tasks; task++) body(context, task, 0);
    return;
  }
  _Atomic int64_t next = 0;
#pragma omp parallel num_threads(threads)
  for (int64_t task; (task = atomic_fetch_add(&next, 1)) < tasks;) body(context, task, thread_number());
}

typedef struct ranges {
  int64_t count, grain, last;
  attn_range_body body;
  void *context;
} ranges;

static void run_range(const ranges *r, int64_t task) {
  r->body(r->context, task * r->grain, task == r->last ? r->count : (task + 1) * r->grain);
}

/* Each thread takes the ranges of a part of its own, the same part in every call of a size, so that what one call leaves in a
 * core's cache the next one finds there; then it helps with the others' parts. */
static void run_ranges(const ranges *r, int64_t tasks, int threads) {
  _Atomic int64_t next[threads];
  for (int i = 0; i < threads; i++) next[i] = tasks * i / threads;
#pragma omp parallel num_threads(threads)
  for (int i = 0; i < threads; i++) {
    const int part = (thread_number() + i) % threads;
    const int64_t end = tasks * (part + 1) / threads;
    for (int64_t task; (task = atomic_fetch_add(&next[part], 1)) < end;) run_range(r, task);
  }
}

void attn_parallel_for(int64_t count, int64_t grain, attn_range_body body, void *context) {
  if (count <= 0) return;
  const int64_t tasks = count < 2 * grain ? 1 : count / grain;
  ranges r = { count, grain, tasks - 1, body, context };
  const int threads = attn_threads_for(0, tasks);
  if (threads > 1) run_ranges(&r, tasks, threads);
  else for (int64_t task = 0; task < tasks; task++) run_range(&r, task);
}
