/* How the drivers of attention number their tasks: sequence after sequence. */
#ifndef ATTN_ATTENTION_TASKS_H
#define ATTN_ATTENTION_TASKS_H
#include "kernels.h"

/* The sequence that task `task` belongs to: the last one with first_task <= task. */
static inline const attn_sequence *attn_sequence_of(const attn_problem *problem, int64_t task) {
  int64_t low = 0, high = problem->sequence_count - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (problem->sequences[middle].first_task <= task) low = middle;
    else high = middle - 1;
  }
  return &problem->sequences[low];
}

#endif
