/* How many threads a piece of work gets. */
#ifndef ATTN_THREADS_H
#define ATTN_THREADS_H
#include "CAttnKernels.h"

/* At most `wanted` (0: as many as set), at most one per task, at least 1. */
int attn_threads_for(int32_t wanted, int64_t tasks);
/* Number of the running thread within the team. */
int attn_thread_number(void);
#endif
