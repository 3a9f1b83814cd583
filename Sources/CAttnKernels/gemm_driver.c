/* Blocked matrix product: loops, packing and threads around the register tile.
 *
 * C is cut in tiles of MC x NC that threads take one by one; each is summed over blocks of KC in order, in a float tile
 * of its own, and finished once. The order of a sum depends on k alone, so the result does not depend on the cutting,
 * the threads or the number of rows. */
#include "kernels.h"
#include "scratch.h"
#include "threads.h"

#define KC 256 /* a panel of KC x 64 floats is 64 KB: with MC rows of a, it stays in L2 */
#define MC 192 /* a multiple of 6; MC x KC floats of a are 192 KB */
#define NC 512 /* a multiple of every nr; KC x NC floats of b are 512 KB, MC x NC sums 384 KB */

#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct buffers { char *a, *b, *sums; } buffers;

static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static attn_matrix at(const attn_matrix *x, int64_t i, int64_t j, int64_t size) {
  return (attn_matrix){ (const char *)x->data + (i * x->row + j * x->column) * size, x->row, x->column };
}

static void tile(const attn_gemm *g, const attn_kernels *kernels, int64_t entry, int64_t i0, int64_t j0, int64_t nc,
                 buffers buffer) {
  const int64_t size = (int64_t)attn_dtype_size(g->dtype), real = g->dtype == ATTN_F64 ? 8 : 4;
  const int64_t nr = kernels->nr, m = MIN(MC, g->m - i0), n = MIN(nc, g->n - j0), panels = (n + nr - 1) / nr;
  for (int64_t p0 = 0; p0 < g->k || p0 == 0; p0 += KC) {
    const int64_t k = MIN(KC, g->k - p0);
    const attn_matrix a = at(&g->a[entry], i0, p0, size);
    kernels->pack_a(g->dtype, &a, m, k, buffer.a);
    for (int64_t panel = 0; panel < panels; panel++) {
      const attn_matrix b = at(&g->b[entry], p0, j0 + panel * nr, size);
      kernels->pack_b(g->dtype, &b, k, MIN(nr, n - panel * nr), buffer.b);
      kernels->multiply(m, k, buffer.a, buffer.b, buffer.sums + panel * nr * real, panels * nr, p0 > 0);
    }
  }
  const attn_matrix c = at(&g->c[entry], i0, j0, size);
  const attn_matrix residual = g->residual ? at(&g->residual[entry], i0, j0, size) : c;
  const char *bias = g->bias ? (const char *)g->bias + j0 * g->bias_stride * size : NULL;
  kernels->finish(g, buffer.sums, panels * nr, &c, g->residual ? &residual : NULL, bias, m, n);
}

bool attn_gemm_run(const attn_gemm *g) {
  const attn_kernels *kernels = attn_kernels_for(g->dtype);
  const size_t real = g->dtype == ATTN_F64 ? 8 : 4;
  const int64_t row_tiles = (g->m + MC - 1) / MC;
  /* Narrower tiles where whole ones would leave threads idle. */
  int64_t nc = NC;
  const int32_t available = attn_threads_for(g->threads, INT32_MAX);
  while (nc > kernels->nr && g->batch * row_tiles * ((g->n + nc - 1) / nc) < available) nc /= 2;
  if (nc < kernels->nr) nc = kernels->nr;
  const int64_t column_tiles = (g->n + nc - 1) / nc, tiles = g->batch * row_tiles * column_tiles;
  const int threads = attn_threads_for(g->threads, tiles);

  const size_t a_size = rounded(MIN(MC, (size_t)g->m) * MIN(KC, (size_t)g->k) * real);
  const size_t b_size = rounded(MIN(KC, (size_t)g->k) * (size_t)kernels->nr * real);
  const size_t sums_size = rounded(MIN(MC, (size_t)g->m) * (size_t)nc * real);
  const size_t each = a_size + b_size + sums_size;
  char *scratch = attn_scratch_take(each * (size_t)threads);
  if (!scratch) return false;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < tiles; t++) {
    char *mine = scratch + each * (size_t)attn_thread_number();
    const buffers buffer = { mine, mine + a_size, mine + a_size + b_size };
    tile(g, kernels, t / (row_tiles * column_tiles), t / column_tiles % row_tiles * MC, t % column_tiles * nc, nc,
         buffer);
  }
  attn_scratch_trim();
  return true;
}
