/* How many threads a piece of work gets. */
#ifndef ATTN_THREADS_H
#define ATTN_THREADS_H
#include "CAttnKernels.h"

/* At most `wanted` (0: as many as set), at most one per task, at least 1. */
int attn_threads_for(int32_t wanted, int64_t tasks);
/* body(context, task, thread) for every task in [0, tasks): threads take tasks in order, one by one; 0 <= thread < threads. */
typedef void (*attn_task_body)(void *context, int64_t task, int thread);
void attn_run_tasks(int threads, int64_t tasks, attn_task_body body, void *context);
#endif
