/* Runs the tiles of an attention problem on the threads. A tile writes rows that no other tile writes. */
#include "attention_tasks.h"
#include "scratch.h"
#include "threads.h"

/* Tasks of a sequence, in order: a few heads at a time, whose keys and values stay in the caches; of these the row blocks
 * from the last (under a causal mask the longest) to the first; within a block the heads. */
static attn_tile tile_of(const attn_problem *problem, const attn_plan *plan, int64_t task) {
  const attn_sequence *sequence = attn_sequence_of(problem, task);
  const int64_t group = problem->q_heads / problem->kv_heads;
  const int64_t parts = (group + plan->heads_per_tile - 1) / plan->heads_per_tile;
  const int64_t head_tiles = problem->kv_heads * parts;
  const int64_t row_tiles = (sequence->q_rows + plan->rows_per_tile - 1) / plan->rows_per_tile;
  const int64_t index = task - sequence->first_task;
  const int64_t first_head = index / (plan->heads_together * row_tiles) * plan->heads_together;
  const int64_t left = head_tiles - first_head, together = left < plan->heads_together ? left : plan->heads_together;
  const int64_t place = index - first_head * row_tiles;
  const int64_t head_tile = first_head + place % together, row_tile = row_tiles - 1 - place / together;
  const int64_t part = head_tile % parts * plan->heads_per_tile;
  const int64_t first_row = row_tile * plan->rows_per_tile;
  const int64_t rows = sequence->q_rows - first_row;
  return (attn_tile){
    .sequence = sequence,
    .first_head = head_tile / parts * group + part,
    .heads = group - part < plan->heads_per_tile ? group - part : plan->heads_per_tile,
    .first_row = first_row,
    .rows = rows < plan->rows_per_tile ? rows : plan->rows_per_tile,
  };
}

typedef struct job {
  const attn_problem *problem;
  const attn_plan *plan;
  const attn_kernels *kernels;
  char *scratch;
  size_t scratch_each;
} job;

static void run_tile(void *context, int64_t task, int thread) {
  const job *j = context;
  const attn_tile tile = tile_of(j->problem, j->plan, task);
  j->kernels->attention_tile(j->problem, &tile, j->scratch + j->scratch_each * (size_t)thread);
}

/* Split keys: the tasks of a wave are chunks of one tile; their states wait in memory and are merged in order. */
#define WAVE 32 /* bounds the memory, whatever the number of keys */

typedef struct wave {
  const job *job;
  attn_tile tile;
  int64_t first_chunk;
  char *states;
  size_t state_size;
} wave;

static void run_chunk(void *context, int64_t task, int thread) {
  const wave *w = context;
  const job *j = w->job;
  j->kernels->attention_chunk(j->problem, &w->tile, w->first_chunk + task, j->scratch + j->scratch_each * (size_t)thread,
                              w->states + (size_t)task * w->state_size);
}

static void run_split(const job *j, char *states, size_t state_size, int threads) {
  const int64_t chunk_keys = j->kernels->chunk_keys;
  for (int64_t task = 0; task < j->plan->task_count; task++) {
    wave w = { j, tile_of(j->problem, j->plan, task), 0, states, state_size };
    const int64_t chunks = (w.tile.sequence->kv_len + chunk_keys - 1) / chunk_keys;
    do {
      const int64_t left = chunks - w.first_chunk, count = left < WAVE ? left : WAVE;
      attn_run_tasks(attn_threads_for(threads, count), count, run_chunk, &w);
      const bool begins = w.first_chunk == 0;
      w.first_chunk += count;
      /* the total lives in a part of the scratch that chunks do not use */
      j->kernels->attention_merge(j->problem, &w.tile, begins, states, count, w.first_chunk == chunks, j->scratch);
    } while (w.first_chunk < chunks);
  }
}

bool attn_forward(const attn_problem *problem, const attn_plan *plan) {
  const attn_kernels *kernels = attn_attention_for(problem);
  const int threads = plan->split_keys ? attn_threads_for(plan->threads, WAVE)
                                       : attn_threads_for(plan->threads, plan->task_count);
  const size_t each = (kernels->attention_scratch(problem) + 63) / 64 * 64;
  const size_t state_size = kernels->attention_state(problem); /* whole tiles of lanes: stays aligned */
  const size_t states_size = plan->split_keys ? WAVE * state_size : 0;
  job j = { problem, plan, kernels, attn_scratch_take(each * (size_t)threads + states_size), each };
  if (!j.scratch) return false;
  if (plan->split_keys) run_split(&j, j.scratch + each * (size_t)threads, state_size, threads);
  else attn_run_tasks(threads, plan->task_count, run_tile, &j);
  attn_scratch_trim();
  return true;
}
