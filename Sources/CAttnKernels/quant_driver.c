/* Products with quantised weights: x is rounded to integers once, then threads take runs of panels. */
#include "kernels.h"
#include "quant.h"
#include "scratch.h"
#include "threads.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MOST_ROWS 16     /* of a tile */
#define TASK_BYTES 49152 /* of weights: long enough to stream, short enough to share out */
#define BLOCK_BYTES (1 << 18) /* of integers of x that a task's panels go over in turn: half of an L2 cache */

typedef struct job {
  const attn_quant_product *product;
  const attn_quant_kernels *kernels;
  bool coarse;
  int64_t blocks, panels_per_task, rows_per_block;
  int64_t row_bytes; /* of integers of x */
  char *operands;
  attn_quant_facts *facts;
} job;

/* Rows of the tile that begins at row i: whole ones, then the powers of two that are left. */
static int64_t tile_rows(const job *J, int64_t i) {
  const int64_t left = J->product->m - i;
  int64_t rows = J->kernels->rows;
  while (rows > left) rows /= 2;
  return rows;
}

static void quantise_tile(void *context, int64_t tile, int thread) {
  (void)thread;
  const job *J = context;
  const attn_quant_product *p = J->product;
  const int64_t end = MIN((tile + 1) * J->kernels->rows, p->m);
  for (int64_t i = tile * J->kernels->rows; i < end;) {
    const int64_t rows = tile_rows(J, i);
    for (int64_t r = 0; r < rows; r++)
      J->kernels->quantise(p->x + (i + r) * p->x_row, p->k, J->coarse, rows,
                           J->operands + i * J->row_bytes + r * quant_operand_bytes(J->coarse), J->facts + i * J->blocks + r);
    i += rows;
  }
}

/* A panel that is not whole, or goes through an activation: by way of its sums. */
static void finish(const attn_quant_output *o, const float *sums, int64_t i, int64_t rows, int64_t column) {
  const attn_gemm gemm = { .dtype = ATTN_F32, .bias_stride = 1, .activation = o->activation };
  const attn_matrix c = { o->c + i * o->c_row + column, o->c_row, 1 };
  const attn_matrix residual = { o->residual ? o->residual + i * o->residual_row + column : NULL, o->residual_row, 1 };
  attn_kernels_for(ATTN_F32)->finish(&gemm, sums, PANEL, &c, o->residual ? &residual : NULL,
                                     o->bias ? o->bias + column : NULL, rows, MIN(PANEL, o->n - column));
}

/* Rows [first, last) of x with one panel. */
static void run_panel(const job *J, const attn_quant_output *o, int64_t panel, int64_t first, int64_t last) {
  const int64_t k = J->product->k, column = panel * PANEL;
  const char *weights = (const char *)o->packed + panel * quant_panel_bytes(o->format, k);
  const bool direct = o->activation == ATTN_IDENTITY && column + PANEL <= o->n;
  float sums[MOST_ROWS * PANEL] __attribute__((aligned(64)));
  attn_quant_place place = { sums, PANEL, NULL, NULL, 0 };
  for (int64_t i = first, rows; i < last; i += rows) {
    rows = tile_rows(J, i);
    if (direct)
      place = (attn_quant_place){ o->c + i * o->c_row + column, o->c_row, o->bias ? o->bias + column : NULL,
                                  o->residual ? o->residual + i * o->residual_row + column : NULL, o->residual_row };
    J->kernels->tile(o->format, J->coarse, rows, k, J->operands + i * J->row_bytes, J->facts + i * J->blocks, weights, &place);
    if (!direct) finish(o, sums, i, rows, column);
  }
}

static int64_t panels_of(const attn_quant_output *o) { return (o->n + PANEL - 1) / PANEL; }
static int64_t tasks_of(const job *J, const attn_quant_output *o) {
  return (panels_of(o) + J->panels_per_task - 1) / J->panels_per_task;
}

static void run_panels(void *context, int64_t task, int thread) {
  (void)thread;
  const job *J = context;
  const attn_quant_output *o = J->product->outputs;
  for (int64_t tasks; task >= (tasks = tasks_of(J, o)); o++) task -= tasks;
  const int64_t end = MIN((task + 1) * J->panels_per_task, panels_of(o));
  for (int64_t i = 0; i < J->product->m; i += J->rows_per_block)
    for (int64_t panel = task * J->panels_per_task; panel < end; panel++)
      run_panel(J, o, panel, i, MIN(i + J->rows_per_block, J->product->m));
}

bool attn_quant_run(const attn_quant_product *p) {
  const attn_quant_kernels *kernels = attn_quant_kernels_chosen();
  job J = { .product = p, .kernels = kernels, .coarse = p->coarse && kernels->coarse, .blocks = p->k / QUANT_BLOCK };
  J.row_bytes = J.blocks * quant_operand_bytes(J.coarse);
  J.rows_per_block = BLOCK_BYTES / J.row_bytes / kernels->rows * kernels->rows;
  if (!J.rows_per_block) J.rows_per_block = kernels->rows;
  const size_t operands = (size_t)(p->m * J.row_bytes + 63) / 64 * 64;
  J.operands = attn_scratch_take(operands + (size_t)(p->m * J.blocks) * sizeof *J.facts + 1);
  if (!J.operands) return false;
  J.facts = (attn_quant_facts *)(void *)(J.operands + operands);

  const int threads = attn_threads_for(p->threads, INT32_MAX);
  const int64_t tiles = (p->m + kernels->rows - 1) / kernels->rows;
  attn_run_tasks(tiles < 2 * threads ? 1 : threads, tiles, quantise_tile, &J);

  int64_t bytes = 0, panels = 0, tasks = 0;
  for (int64_t o = 0; o < p->output_count; o++) {
    panels += panels_of(&p->outputs[o]);
    bytes += panels_of(&p->outputs[o]) * quant_panel_bytes(p->outputs[o].format, p->k);
  }
  /* Runs of panels of about TASK_BYTES, but several for each thread. */
  const int64_t parts = bytes / TASK_BYTES > 4 * threads ? bytes / TASK_BYTES : 4 * threads;
  J.panels_per_task = panels > parts ? panels / parts : 1;
  for (int64_t o = 0; o < p->output_count; o++) tasks += tasks_of(&J, &p->outputs[o]);
  attn_run_tasks(attn_threads_for(threads, tasks), tasks, run_panels, &J);
  attn_scratch_trim();
  return true;
}
