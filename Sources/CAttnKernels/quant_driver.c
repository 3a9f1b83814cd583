/* Products with quantised weights: x is rounded to integers once, then threads take runs of panels. */
#include "kernels.h"
#include "quant.h"
#include "scratch.h"
#include "threads.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define TASK_BYTES 49152 /* of weights: long enough to stream, short enough to share out */
#define MOST_ROWS 64     /* rows of x whose sums with a panel are kept */

typedef struct job {
  const attn_quant_product *product;
  const attn_quant_kernels *kernels;
  int64_t blocks, panels_per_task;
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
      J->kernels->quantise(p->x + (i + r) * p->x_row, p->k, rows,
                           J->operands + (i * J->blocks + r) * QUANT_OPERAND_BYTES, J->facts + i * J->blocks + r);
    i += rows;
  }
}

/* c[i .. i + rows, first column of the panel ..) from sums */
static void finish(const attn_quant_output *o, const float *sums, int64_t i, int64_t rows, int64_t column) {
  const attn_gemm gemm = { .dtype = ATTN_F32, .bias_stride = 1, .activation = o->activation };
  const attn_matrix c = { o->c + i * o->c_row + column, o->c_row, 1 };
  const attn_matrix residual = { o->residual ? o->residual + i * o->residual_row + column : NULL, o->residual_row, 1 };
  attn_kernels_for(ATTN_F32)->finish(&gemm, sums, PANEL, &c, o->residual ? &residual : NULL,
                                     o->bias ? o->bias + column : NULL, rows, MIN(PANEL, o->n - column));
}

static void run_panel(const job *J, const attn_quant_output *o, int64_t panel) {
  const attn_quant_product *p = J->product;
  const char *weights = (const char *)o->packed + panel * quant_panel_bytes(o->format, p->k);
  float sums[MOST_ROWS * PANEL] __attribute__((aligned(64)));
  int64_t done = 0, first = 0;
  for (int64_t i = 0; i < p->m;) {
    const int64_t rows = tile_rows(J, i);
    J->kernels->tile(o->format, rows, p->k, J->operands + i * J->blocks * QUANT_OPERAND_BYTES, J->facts + i * J->blocks,
                     weights, sums + done * PANEL);
    i += rows;
    done += rows;
    if (done + J->kernels->rows > MOST_ROWS || i == p->m) {
      finish(o, sums, first, done, panel * PANEL);
      first = i;
      done = 0;
    }
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
  for (int64_t panel = task * J->panels_per_task; panel < end; panel++) run_panel(J, o, panel);
}

bool attn_quant_run(const attn_quant_product *p) {
  const attn_quant_kernels *kernels = attn_quant_kernels_chosen();
  job J = { .product = p, .kernels = kernels, .blocks = p->k / QUANT_BLOCK };
  const size_t operands = (size_t)(p->m * J.blocks) * QUANT_OPERAND_BYTES;
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
