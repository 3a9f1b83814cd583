/* Blocked matrix product: loops, packing and threads around the register tile.
 *
 * C is cut in tiles of MC x NC that threads take one by one; each is summed over blocks of KC in order, in a float tile
 * of its own, and finished once. The order of a sum depends on k alone, so the result does not depend on the cutting,
 * the threads or the number of rows. */
#include "kernels.h"
#include "scratch.h"
#include "threads.h"

#define KC 128 /* short sums round less: half the error of 512; a panel of KC x 64 floats is 32 KB of L1 */
#define MC 384 /* a multiple of 6; MC x KC floats of a are 192 KB of L2 */
#define NC 512 /* a multiple of every nr; MC x NC sums are 768 KB, touched once for each block of k */

#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct job {
  const attn_gemm *gemm;
  const attn_kernels *kernels;
  int64_t row_tiles, column_tiles, mc, nc; /* mc x nc: what a task computes of C */
  size_t a_size, b_size, each; /* bytes of a thread's buffers: a, b, sums */
  char *scratch;
} job;

/* x / y and x to a multiple of y, both rounded up. */
static int64_t over(int64_t x, int64_t y) { return (x + y - 1) / y; }
static int64_t rounded(int64_t x, int64_t y) { return over(x, y) * y; }

static attn_matrix at(const attn_matrix *x, int64_t i, int64_t j, int64_t size) {
  return (attn_matrix){ (const char *)x->data + (i * x->row + j * x->column) * size, x->row, x->column };
}

static void run_tile(void *context, int64_t task, int thread) {
  const job *J = context;
  const attn_gemm *g = J->gemm;
  const attn_kernels *kernels = J->kernels;
  const int64_t entry = task / (J->row_tiles * J->column_tiles);
  const int64_t i0 = task / J->column_tiles % J->row_tiles * J->mc, j0 = task % J->column_tiles * J->nc;
  char *a_block = J->scratch + J->each * (size_t)thread, *b_panel = a_block + J->a_size, *sums = b_panel + J->b_size;

  const int64_t size = (int64_t)attn_dtype_size(g->dtype), real = g->dtype == ATTN_F64 ? 8 : 4;
  const int64_t nr = kernels->nr, m = MIN(J->mc, g->m - i0), n = MIN(J->nc, g->n - j0), panels = over(n, nr);
  for (int64_t p0 = 0; p0 < g->k || p0 == 0; p0 += KC) {
    const int64_t k = MIN(KC, g->k - p0);
    const attn_matrix a = at(&g->a[entry], i0, p0, size);
    kernels->pack_a(g->dtype, &a, m, k, a_block);
    for (int64_t panel = 0; panel < panels; panel++) {
      const attn_matrix b = at(&g->b[entry], p0, j0 + panel * nr, size);
      kernels->pack_b(g->dtype, &b, k, MIN(nr, n - panel * nr), b_panel);
      kernels->multiply(m, k, a_block, b_panel, sums + panel * nr * real, panels * nr, p0 > 0);
    }
  }
  const attn_matrix c = at(&g->c[entry], i0, j0, size);
  const attn_matrix residual = g->residual ? at(&g->residual[entry], i0, j0, size) : c;
  const char *bias = g->bias ? (const char *)g->bias + j0 * g->bias_stride * size : NULL;
  kernels->finish(g, sums, panels * nr, &c, g->residual ? &residual : NULL, bias, m, n);
}

bool attn_gemm_run(const attn_gemm *g) {
  const attn_kernels *kernels = attn_kernels_for(g->dtype);
  const int64_t real = g->dtype == ATTN_F64 ? 8 : 4;
  job J = { .gemm = g, .kernels = kernels };
  /* Rows in equal parts; columns in as many parts as keep all threads busy to the end. */
  const int64_t available = attn_threads_for(g->threads, INT32_MAX);
  J.mc = rounded(over(g->m, over(g->m, MC)), kernels->mr);
  J.nc = rounded(over(g->n, available * over(g->n, available * NC)), kernels->nr);
  J.row_tiles = over(g->m, J.mc);
  J.column_tiles = over(g->n, J.nc);
  const int64_t tiles = g->batch * J.row_tiles * J.column_tiles;
  const int threads = attn_threads_for(g->threads, tiles);

  const int64_t k = MIN(KC, g->k);
  J.a_size = (size_t)rounded(J.mc * k * real, 64);
  J.b_size = (size_t)rounded(kernels->nr * k * real, 64);
  J.each = J.a_size + J.b_size + (size_t)rounded(J.mc * J.nc * real, 64);
  J.scratch = attn_scratch_take(J.each * (size_t)threads);
  if (!J.scratch) return false;
  attn_run_tasks(threads, tiles, run_tile, &J);
  attn_scratch_trim();
  return true;
}
