/* Blocked matrix product: loops, packing and threads around the register tile.
 *
 * C is cut in tiles of mc x nc that threads take one by one. Every sum runs over blocks of k in order, each block's sum
 * from zero, in a tile of floats that is finished once. The order of a sum depends on k alone, so the result does not
 * depend on the cutting, the threads or the number of rows. */
#include "kernels.h"
#include "scratch.h"
#include "threads.h"

#define MC 1032           /* a multiple of 12: so many rows share a packed panel of b; a block of MC rows of a is 516 KB */
#define NC 256            /* a multiple of every nr; MC x NC sums are 1 MB, touched once for each block of k */
#define RESIDENT (1 << 19) /* bytes of a that may be packed for all of k: then b streams through panel by panel, once */

#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct job {
  const attn_gemm *gemm;
  const attn_kernels *kernels, *finishing;
  int64_t row_tiles, column_tiles, mc, nc; /* mc x nc: what a task computes of C */
  bool resident, streamed;
  size_t a_size, b_size, each; /* bytes of a thread's buffers: a, b, sums */
  char *scratch;
} job;

/* x / y and x to a multiple of y, both rounded up. */
static int64_t over(int64_t x, int64_t y) { return (x + y - 1) / y; }
static int64_t rounded(int64_t x, int64_t y) { return over(x, y) * y; }

static attn_matrix at(const attn_matrix *x, int64_t i, int64_t j, int64_t size) {
  return (attn_matrix){ (const char *)x->data + (i * x->row + j * x->column) * size, x->row, x->column };
}

/* One task at work: rows [i0, i0 + m), columns [j0, j0 + n) of entry `entry`. */
typedef struct tile {
  const job *job;
  int64_t entry, i0, j0, m, n;
  char *a, *b, *sums;
} tile;

/* Bytes of `count` elements along k, in operands, block by block. */
static int64_t operands(const attn_kernels *kernels, int64_t count) {
  return over(count, kernels->depth) * kernels->operand_size + over(count, kernels->block) * kernels->block_extra;
}

static const attn_kernels *packer_of(const attn_kernels *kernels) {
  return kernels->packed_by ? kernels->packed_by : kernels;
}

/* Where row p0 of a panel begins in a packed matrix of k rows. */
static int64_t packed_at(const attn_kernels *packer, int64_t k, int64_t panel, int64_t p0) {
  return (panel * operands(packer, k) + operands(packer, p0)) * packer->nr;
}

static void pack_rows(const tile *t, int64_t p0, int64_t k, char *block) {
  const attn_gemm *g = t->job->gemm;
  const attn_matrix a = at(&g->a[t->entry], t->i0, p0, (int64_t)attn_dtype_size(g->dtype));
  t->job->kernels->pack_a(g->dtype, &a, t->m, k, block);
}

/* Whether a lies as pack_rows would leave it: one block of numbers, row behind row. */
static bool lies_packed(const attn_kernels *kernels, const attn_gemm *g, const attn_matrix *a) {
  return kernels->depth == 1 && kernels->operand_size == (int64_t)attn_dtype_size(g->dtype) && g->k <= kernels->block
      && a->column == 1 && a->row == g->k;
}

/* sums (+)= a[., p0 : p0 + k] . b of `count` panels: one, or what panels_together says */
static void multiply_panel(const tile *t, int64_t panel, int64_t count, int64_t p0, int64_t k, const char *a_block,
                           char *sums, int64_t sums_step) {
  const attn_gemm *g = t->job->gemm;
  const attn_kernels *kernels = t->job->kernels;
  const int64_t nr = kernels->nr;
  const char *packed = g->packed_b;
  if (packed) packed += packed_at(packer_of(kernels), g->k, t->j0 / nr + panel, p0);
  if (packed && kernels->packed_by) {
    const attn_matrix b = { packed, nr, 1 };
    kernels->pack_b(ATTN_F32, &b, k, nr, t->b);
    packed = t->b;
  } else if (!packed) {
    const attn_matrix b = at(&g->b[t->entry], p0, t->j0 + panel * nr, (int64_t)attn_dtype_size(g->b_dtype));
    kernels->pack_b(g->b_dtype, &b, k, MIN(nr, t->n - panel * nr), t->b);
    packed = t->b;
  }
  if (count == 1) kernels->multiply(t->m, k, a_block, packed, sums, sums_step, p0 > 0);
  else kernels->multiply_panels(t->m, k, a_block, packed, packed_at(kernels, g->k, 1, 0), sums, sums_step, p0 > 0);
}

/* Panels that lie packed in memory, of which `left` are to come. */
static int64_t panels_together(const tile *t, int64_t left) {
  const attn_kernels *kernels = t->job->kernels;
  const int64_t count = attn_panels_together(t->m);
  return t->job->gemm->packed_b && !kernels->packed_by && kernels->multiply_panels && count <= left ? count : 1;
}

static void finish(const tile *t, int64_t column, int64_t columns, const char *sums, int64_t sums_step) {
  const attn_gemm *g = t->job->gemm;
  const int64_t size = (int64_t)attn_dtype_size(g->dtype), j = t->j0 + column;
  const attn_matrix c = at(&g->c[t->entry], t->i0, j, size);
  const attn_matrix residual = g->residual ? at(&g->residual[t->entry], t->i0, j, size) : c;
  const char *bias = g->bias ? (const char *)g->bias + j * g->bias_stride * size : NULL;
  t->job->finishing->finish(g, sums, sums_step, &c, g->residual ? &residual : NULL, bias, t->m, columns);
}

/* Few rows: b is read once, where it lies. */
static void stream_tile(const tile *t) {
  const attn_gemm *g = t->job->gemm;
  const attn_kernels *kernels = t->job->kernels;
  const attn_matrix a = at(&g->a[t->entry], t->i0, 0, (int64_t)attn_dtype_size(g->dtype));
  kernels->pack_few(g->dtype, &a, t->m, g->k, t->a);
  const int64_t block = kernels->block;
  for (int64_t j = 0; j < t->n; j += kernels->stream_columns) {
    const int64_t columns = MIN(kernels->stream_columns, t->n - j);
    const attn_matrix b = at(&g->b[t->entry], 0, t->j0 + j, (int64_t)attn_dtype_size(g->b_dtype));
    kernels->stream(g->b_dtype, t->m, g->k, block, t->a, &b, columns, t->sums, kernels->stream_columns, t->b);
    finish(t, j, columns, t->sums, kernels->stream_columns);
  }
}

static void run_tile(void *context, int64_t task, int thread) {
  const job *J = context;
  const attn_gemm *g = J->gemm;
  const attn_kernels *kernels = J->kernels;
  const int64_t i0 = task / J->column_tiles % J->row_tiles * J->mc, j0 = task % J->column_tiles * J->nc;
  char *scratch = J->scratch + J->each * (size_t)thread;
  const tile t = { J, task / (J->row_tiles * J->column_tiles), i0, j0, MIN(J->mc, g->m - i0), MIN(J->nc, g->n - j0),
                   scratch, scratch + J->a_size, scratch + J->a_size + J->b_size };
  const int64_t real = g->dtype == ATTN_F64 ? 8 : 4, nr = kernels->nr, panels = over(t.n, nr), block = kernels->block;

  if (J->streamed) {
    stream_tile(&t);
    return;
  }
  if (J->resident) {
    const attn_matrix *a = &g->a[t.entry];
    const bool lies = lies_packed(kernels, g, a);
    const char *packed = lies ? at(a, t.i0, 0, (int64_t)attn_dtype_size(g->dtype)).data : t.a;
    for (int64_t p0 = 0; !lies && p0 < g->k; p0 += block)
      pack_rows(&t, p0, MIN(block, g->k - p0), t.a + t.m * operands(kernels, p0));
    for (int64_t panel = 0, count; panel < panels; panel += count) {
      count = panels_together(&t, panels - panel);
      for (int64_t p0 = 0; p0 < g->k || p0 == 0; p0 += block)
        multiply_panel(&t, panel, count, p0, MIN(block, g->k - p0), packed + t.m * operands(kernels, p0), t.sums, count * nr);
      finish(&t, panel * nr, MIN(count * nr, t.n - panel * nr), t.sums, count * nr);
    }
    return;
  }
  for (int64_t p0 = 0; p0 < g->k; p0 += block) {
    const int64_t k = MIN(block, g->k - p0);
    pack_rows(&t, p0, k, t.a);
    for (int64_t panel = 0; panel < panels; panel++)
      multiply_panel(&t, panel, 1, p0, k, t.a, t.sums + panel * nr * real, panels * nr);
  }
  finish(&t, 0, t.n, t.sums, panels * nr);
}

bool attn_gemm_run(const attn_gemm *g) {
  const attn_kernels *kernels = attn_products_for(g->dtype, g->precision);
  const int64_t real = g->dtype == ATTN_F64 ? 8 : 4;
  job J = { .gemm = g, .kernels = kernels, .finishing = attn_kernels_for(g->dtype) };
  J.streamed = g->m <= kernels->stream_rows && g->b[0].row == 1 && !g->packed_b;
  /* Columns in as many parts as keep all threads busy to the end; rows in equal parts, more where the columns are few. */
  const int64_t available = attn_threads_for(g->threads, INT32_MAX);
  J.nc = rounded(over(g->n, available * over(g->n, available * NC)), kernels->nr);
  J.column_tiles = over(g->n, J.nc);
  const int64_t idle = J.streamed ? 1 : over(available, g->batch * J.column_tiles);
  /* Narrow panels read a's block more often: it is to fit in a level 2 cache of 512 KB. */
  const int64_t parts = over(g->m, kernels->nr < 32 ? MC / 2 : MC);
  J.mc = rounded(over(g->m, parts > idle ? parts : idle), kernels->mr);
  J.row_tiles = over(g->m, J.mc);
  const int64_t tiles = g->batch * J.row_tiles * J.column_tiles;
  const int threads = attn_threads_for(g->threads, tiles);

  J.resident = J.streamed || J.mc * operands(kernels, g->k) <= RESIDENT;
  const int64_t k = MIN(kernels->block, g->k);
  J.a_size = (size_t)rounded(J.mc * operands(kernels, J.resident ? g->k : k), 64);
  J.b_size = (size_t)rounded(J.streamed ? kernels->stream_columns * operands(kernels, g->k)
                                        : kernels->nr * operands(kernels, k), 64);
  J.each = J.a_size + J.b_size + (size_t)rounded(J.mc * (J.resident ? kernels->nr : J.nc) * real, 64);
  J.scratch = attn_scratch_take(J.each * (size_t)threads);
  if (!J.scratch) return false;
  attn_run_tasks(threads, tiles, run_tile, &J);
  attn_scratch_trim();
  return true;
}

size_t attn_packed_size(attn_dtype dtype, int64_t k, int64_t n) {
  const attn_kernels *packer = packer_of(attn_products_for(dtype, ATTN_HIGHEST));
  return (size_t)(rounded(n, packer->nr) * operands(packer, k));
}

typedef struct packing {
  attn_dtype dtype;
  const attn_matrix *b;
  int64_t k, n;
  char *packed;
} packing;

static void pack_panel(void *context, int64_t panel, int thread) {
  (void)thread;
  const packing *P = context;
  const attn_kernels *packer = packer_of(attn_products_for(P->dtype, ATTN_HIGHEST));
  const int64_t nr = packer->nr, block = packer->block;
  for (int64_t p0 = 0; p0 < P->k; p0 += block) {
    const attn_matrix b = at(P->b, p0, panel * nr, (int64_t)attn_dtype_size(P->dtype));
    packer->pack_b(P->dtype, &b, MIN(block, P->k - p0), MIN(nr, P->n - panel * nr),
                   P->packed + packed_at(packer, P->k, panel, p0));
  }
}

void attn_pack(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t n, void *packed) {
  packing P = { dtype, b, k, n, packed };
  const int64_t panels = over(n, packer_of(attn_products_for(dtype, ATTN_HIGHEST))->nr);
  attn_run_tasks(attn_threads_for(0, panels), panels, pack_panel, &P);
}
