/* Runs the backward of an attention problem on the threads: first delta, then the gradients of q, k and v, then those of the
 * bias and the sinks. A task writes what no other task writes, and sums in an order that the problem alone decides. */
#include "attention_tasks.h"
#include "scratch.h"
#include "threads.h"

#include <math.h>
#include <string.h>

typedef struct job {
  const attn_backward *backward;
  const attn_problem *problem;
  const attn_backward_plan *plan;
  const attn_kernels *kernels;
  char *delta; /* [row_count] reals */
  char *scratch;
  size_t scratch_each, kernel_scratch, real_size; /* of a thread; of that, the kernel's part */
  attn_dtype real_dtype;
} job;

static int64_t whole_vectors(const job *j, int64_t count) {
  const int64_t lanes = j->kernels->lanes;
  return (count + lanes - 1) / lanes * lanes;
}

static void *thread_scratch(const job *j, int thread) { return j->scratch + j->scratch_each * (size_t)thread; }

static const char *delta_of(const job *j, const attn_sequence *sequence) {
  return j->delta + (size_t)j->backward->gradients[sequence - j->problem->sequences].first_row * j->real_size;
}

/* ---- delta, and the sinks, whose gradient is -sum of p_sink delta ---- */

static void run_delta(void *context, int64_t task, int thread) {
  const job *j = context;
  const int64_t sequence = task / j->problem->q_heads, head = task % j->problem->q_heads;
  const int64_t row = j->backward->gradients[sequence].first_row + head * j->problem->sequences[sequence].q_rows;
  j->kernels->backward_delta(j->backward, sequence, head, j->delta + (size_t)row * j->real_size, thread_scratch(j, thread));
}

static double real_at(const job *j, const void *reals, int64_t i) {
  return j->real_dtype == ATTN_F64 ? ((const double *)reals)[i] : (double)((const float *)reals)[i];
}

static void run_sink(void *context, int64_t head, int thread) {
  (void)thread;
  const job *j = context;
  const attn_problem *P = j->problem;
  double sum = 0;
  for (int64_t s = 0; s < P->sequence_count; s++) {
    const attn_sequence *S = &P->sequences[s];
    for (int64_t i = 0; i < S->q_rows; i++) {
      const double lse = real_at(j, S->lse, head * P->lse.head + i * P->lse.row);
      const double delta = real_at(j, delta_of(j, S), head * S->q_rows + i);
      if (delta != 0) sum -= exp(fmin(P->sinks[head] - lse, 0)) * delta;
    }
  }
  j->backward->d_sinks[head] = sum;
}

/* ---- q, k and v ---- */

static int64_t tiles_of(int64_t count, int64_t each) { return (count + each - 1) / each; }

/* How the queries of a key/value head are cut: tiles of `rows` queries of `heads` heads. The sums over a tile are rounded as
 * one, so this depends on the sequence alone. */
typedef struct query_cut { int64_t group, heads, rows, head_tiles, row_tiles; } query_cut;

static query_cut cut_queries(const attn_problem *P, const attn_kernels *kernels, const attn_sequence *sequence) {
  query_cut cut = { .group = P->q_heads / P->kv_heads };
  if (!cut.group || !sequence->q_rows) return cut;
  cut.rows = sequence->q_rows < kernels->tile_rows ? sequence->q_rows : kernels->tile_rows;
  cut.heads = cut.group < kernels->tile_rows / cut.rows ? cut.group : kernels->tile_rows / cut.rows;
  cut.head_tiles = tiles_of(cut.group, cut.heads);
  cut.row_tiles = tiles_of(sequence->q_rows, cut.rows);
  return cut;
}

static attn_tile tile_at(const query_cut *cut, const attn_sequence *sequence, int64_t kv_head, int64_t head_tile,
                         int64_t row_tile) {
  const int64_t part = head_tile * cut->heads, row = row_tile * cut->rows;
  const int64_t heads = cut->group - part, rows = sequence->q_rows - row;
  return (attn_tile){
    .sequence = sequence,
    .first_head = kv_head * cut->group + part,
    .heads = heads < cut->heads ? heads : cut->heads,
    .first_row = row,
    .rows = rows < cut->rows ? rows : cut->rows,
  };
}

/* A gradient's rows of one head, and where they are summed: in place, if they are lines of reals, else in memory. */
typedef struct key_gradient {
  const attn_gradient *gradient;
  char *out; /* row 0; NULL: not wanted */
  int64_t dim;
  void *sums;
  int64_t step;
} key_gradient;

static key_gradient begin_sums(const job *j, const attn_gradient *gradient, void *data, int64_t head, int64_t dim,
                               int64_t first, int64_t count, char **memory) {
  key_gradient G = { .gradient = gradient, .dim = dim };
  if (!data) return G;
  const attn_strides *S = &gradient->strides;
  G.out = (char *)data + (head * S->head + first * S->row) * (int64_t)attn_dtype_size(gradient->dtype);
  const bool in_place = gradient->dtype == j->real_dtype && S->element == 1 && dim % j->kernels->lanes == 0;
  G.sums = in_place ? G.out : *memory;
  G.step = in_place ? S->row : whole_vectors(j, dim);
  const size_t bytes = (size_t)whole_vectors(j, dim) * j->real_size;
  if (!in_place) *memory += bytes * (size_t)count;
  for (int64_t i = 0; i < count; i++) memset((char *)G.sums + i * G.step * (int64_t)j->real_size, 0, bytes);
  return G;
}

static void end_sums(const job *j, const key_gradient *G, int64_t count) {
  if (!G->out || G->sums == G->out) return;
  const int64_t row = G->gradient->strides.row * (int64_t)attn_dtype_size(G->gradient->dtype);
  for (int64_t i = 0; i < count; i++)
    j->kernels->store_row(G->gradient->dtype, (char *)G->sums + i * G->step * (int64_t)j->real_size, G->dim, G->out + i * row,
                          G->gradient->strides.element);
}

/* All queries of a key/value head against `count` keys from `first`. */
static void run_keys(const job *j, const attn_sequence *sequence, int64_t kv_head, int64_t first, int64_t count, bool dq,
                     int thread) {
  const attn_backward *B = j->backward;
  const attn_problem *P = j->problem;
  const attn_sequence_gradients *G = &B->gradients[sequence - P->sequences];
  char *scratch = thread_scratch(j, thread), *memory = scratch + j->kernel_scratch;
  const key_gradient dk = begin_sums(j, &B->dk, G->dk, kv_head, P->head_dim, first, count, &memory);
  const key_gradient dv = begin_sums(j, &B->dv, G->dv, kv_head, P->value_dim, first, count, &memory);
  const attn_key_sums sums = { dk.sums, dv.sums, dk.step, dv.step, first };
  const query_cut cut = cut_queries(P, j->kernels, sequence);
  for (int64_t part = 0; part < cut.head_tiles; part++)
    for (int64_t row = 0; row < cut.row_tiles; row++) {
      const attn_tile tile = tile_at(&cut, sequence, kv_head, part, row);
      j->kernels->backward_tile(B, &tile, delta_of(j, sequence), first, first + count, &sums, dq, scratch);
    }
  end_sums(j, &dk, count);
  end_sums(j, &dv, count);
}

/* In two passes the tasks of a sequence are blocks of keys, head by head, then tiles of queries. */
static int64_t key_tasks(const attn_backward *B, const attn_sequence *sequence, int64_t block) {
  return B->wants_dk || B->wants_dv ? B->problem->kv_heads * tiles_of(sequence->kv_rows, block) : 0;
}

int64_t attn_backward_tasks(const attn_backward *backward, const attn_backward_plan *plan, const attn_sequence *sequence) {
  const attn_problem *P = backward->problem;
  const attn_kernels *kernels = attn_backward_for(P);
  if (plan->one_pass || !P->kv_heads) return P->kv_heads;
  const query_cut cut = cut_queries(P, kernels, sequence);
  return key_tasks(backward, sequence, kernels->backward_keys)
      + (backward->wants_dq ? P->kv_heads * cut.head_tiles * cut.row_tiles : 0);
}

static void run_task(void *context, int64_t task, int thread) {
  const job *j = context;
  const attn_backward *B = j->backward;
  const attn_sequence *sequence = attn_sequence_of(j->problem, task);
  const int64_t heads = j->problem->kv_heads, block = j->kernels->backward_keys;
  int64_t index = task - sequence->first_task;
  if (j->plan->one_pass) {
    run_keys(j, sequence, index, 0, sequence->kv_rows, B->wants_dq, thread);
    return;
  }
  const int64_t keys = key_tasks(B, sequence, block);
  if (index < keys) {
    const int64_t first = index / heads * block, left = sequence->kv_rows - first;
    run_keys(j, sequence, index % heads, first, left < block ? left : block, false, thread);
    return;
  }
  index -= keys;
  const query_cut cut = cut_queries(j->problem, j->kernels, sequence);
  const int64_t head = index % heads, part = index / heads % cut.head_tiles, row = index / heads / cut.head_tiles;
  const attn_tile tile = tile_at(&cut, sequence, head, part, row);
  j->kernels->backward_tile(B, &tile, delta_of(j, sequence), 0, sequence->kv_rows, NULL, true, thread_scratch(j, thread));
}

/* ---- the bias ---- */

/* The entries of d_bias that a task writes: of one group, one head (or all), a tile of rows (or one for all), a block of keys
 * (or one for all). */
typedef struct bias_cut { int64_t heads, rows, keys; } bias_cut;

static bias_cut bias_tasks(const job *j) {
  const attn_backward *B = j->backward;
  const attn_sequence *S = j->problem->sequences; /* all are of one size */
  return (bias_cut){
    B->bias_has_heads ? j->problem->q_heads : 1,
    B->bias_has_rows ? tiles_of(S->q_rows, j->kernels->tile_rows) : 1,
    B->bias_has_keys ? tiles_of(S->kv_rows, j->kernels->backward_keys) : 1,
  };
}

static void store_bias(const job *j, char *out, const char *sums, int64_t rows, int64_t keys) {
  const attn_gradient *G = &j->backward->d_bias;
  const int64_t size = (int64_t)attn_dtype_size(G->dtype), lanes = j->kernels->tile_rows;
  const int64_t block = j->kernels->backward_keys;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < keys; k++) {
      double sum = 0; /* of the rows or keys that the bias is broadcast over */
      for (int64_t t = k; t < (j->backward->bias_has_keys ? k + 1 : block); t++)
        for (int64_t r = i; r < (j->backward->bias_has_rows ? i + 1 : lanes); r++) sum += real_at(j, sums, t * lanes + r);
      const float narrow = (float)sum;
      j->kernels->store_row(G->dtype, j->real_dtype == ATTN_F64 ? (const void *)&sum : &narrow, 1,
                            out + (i * G->strides.row + k * G->strides.element) * size, 1);
    }
}

static void run_bias(void *context, int64_t task, int thread) {
  const job *j = context;
  const attn_backward *B = j->backward;
  const attn_problem *P = j->problem;
  const bias_cut cut = bias_tasks(j);
  const int64_t lanes = j->kernels->tile_rows, block = j->kernels->backward_keys;
  const int64_t key_task = task % cut.keys, row_task = task / cut.keys % cut.rows;
  const int64_t head_task = task / cut.keys / cut.rows % cut.heads;
  const attn_bias_group *group = &B->bias_groups[task / cut.keys / cut.rows / cut.heads];
  const attn_sequence *S = P->sequences;
  char *scratch = thread_scratch(j, thread), *sums = scratch + j->kernel_scratch;
  memset(sums, 0, (size_t)(lanes * block) * j->real_size);
  const int64_t row_end = B->bias_has_rows ? (row_task + 1) * lanes : S->q_rows;
  const int64_t key_end = B->bias_has_keys ? (key_task + 1) * block : S->kv_rows;
  for (int64_t i = 0; i < group->count; i++)
    for (int64_t head = head_task; head < (B->bias_has_heads ? head_task + 1 : P->q_heads); head++)
      for (int64_t row = row_task * lanes; row < row_end && row < S->q_rows; row += lanes) {
        const attn_sequence *sequence = &P->sequences[group->sequences[i]];
        const int64_t left = S->q_rows - row;
        const attn_tile tile = { sequence, head, 1, row, left < lanes ? left : lanes };
        for (int64_t key = key_task * block; key < key_end && key < S->kv_rows; key += block)
          j->kernels->backward_bias(B, &tile, delta_of(j, sequence), key, sums, scratch);
      }
  const attn_strides *strides = &B->d_bias.strides;
  const int64_t rows = S->q_rows - row_task * lanes, keys = S->kv_rows - key_task * block;
  const int64_t at = head_task * strides->head + row_task * lanes * strides->row + key_task * block * strides->element;
  store_bias(j, (char *)group->d_bias + at * (int64_t)attn_dtype_size(B->d_bias.dtype), sums,
             B->bias_has_rows ? (rows < lanes ? rows : lanes) : 1, B->bias_has_keys ? (keys < block ? keys : block) : 1);
}

/* ---- all ---- */

static size_t sums_size(const job *j) {
  const attn_problem *P = j->problem;
  int64_t keys = 0;
  for (int64_t s = 0; s < P->sequence_count; s++)
    if (P->sequences[s].kv_rows > keys) keys = P->sequences[s].kv_rows;
  if (!j->plan->one_pass && keys > j->kernels->backward_keys) keys = j->kernels->backward_keys;
  const size_t rows = (size_t)(keys * (whole_vectors(j, P->head_dim) + whole_vectors(j, P->value_dim)));
  const size_t bias = j->backward->bias_groups ? (size_t)(j->kernels->backward_keys * j->kernels->tile_rows) : 0;
  return (rows > bias ? rows : bias) * j->real_size;
}

static void run(job *j, int64_t tasks, attn_task_body body) {
  attn_run_tasks(attn_threads_for(j->plan->threads, tasks), tasks, body, j);
}

bool attn_backward_run(const attn_backward *backward, const attn_backward_plan *plan) {
  const attn_problem *P = backward->problem;
  const attn_dtype real_dtype = P->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
  job j = { .backward = backward, .problem = P, .plan = plan, .kernels = attn_backward_for(P),
            .real_dtype = real_dtype, .real_size = attn_dtype_size(real_dtype) };
  j.kernel_scratch = (j.kernels->backward_scratch(backward) + 63) / 64 * 64;
  j.scratch_each = (j.kernel_scratch + sums_size(&j) + 63) / 64 * 64;
  j.scratch = attn_scratch_take(j.scratch_each * (size_t)attn_threads_for(plan->threads, INT64_MAX));
  j.delta = attn_allocate((size_t)backward->row_count * j.real_size + 1);
  if (!j.scratch || !j.delta) {
    attn_free(j.delta);
    return false;
  }
  run(&j, P->sequence_count * P->q_heads, run_delta);
  run(&j, plan->task_count, run_task);
  if (backward->bias_groups) {
    const bias_cut cut = bias_tasks(&j);
    run(&j, backward->bias_group_count * cut.heads * cut.rows * cut.keys, run_bias);
  }
  if (backward->d_sinks) run(&j, P->q_heads, run_sink);
  attn_free(j.delta);
  attn_scratch_trim();
  return true;
}
