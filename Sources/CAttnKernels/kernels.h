/* The table of kernels that every ISA fills in, one for float and one for double. */
#ifndef ATTN_KERNELS_H
#define ATTN_KERNELS_H

#include "CAttnKernels.h"

/* Query rows [first_row, first_row + rows) of query heads [first_head, first_head + heads), all of one group. */
typedef struct attn_tile {
  const attn_sequence *sequence;
  int64_t first_head, heads, first_row, rows;
} attn_tile;

/* Sums of a key/value head's gradients, in reals: key j at dk + (j - first_key) * dk_step. NULL: not wanted. */
typedef struct attn_key_sums {
  void *dk, *dv;
  int64_t dk_step, dv_step, first_key;
} attn_key_sums;

/* Of so few rows memory is the limit, and a core gets more of it from several places at a time. */
static inline int attn_panels_together(int64_t m) { return m == 1 ? 4 : m <= 3 ? 2 : 1; }

typedef struct attn_kernels {
  const char *isa;
  int lanes; /* reals in a vector */

  /* Attention: one tile of at most tile_rows lanes against all its keys. The scratch is 64-byte aligned. */
  int tile_rows;
  size_t (*attention_scratch)(const attn_problem *problem);
  void (*attention_tile)(const attn_problem *problem, const attn_tile *tile, void *scratch);
  /* The same in parts: the state of one chunk of chunk_keys keys, and states merged in order into the total that the
   * scratch keeps from call to call, the first call beginning it and the last one writing the results. Same bits. */
  int chunk_keys;
  size_t (*attention_state)(const attn_problem *problem);
  void (*attention_chunk)(const attn_problem *problem, const attn_tile *tile, int64_t chunk, void *scratch, void *state);
  void (*attention_merge)(const attn_problem *problem, const attn_tile *tile, bool begins, const void *states,
                          int64_t count, bool ends, void *scratch);

  /* Attention backward; not in tables whose operands are pairs. Keys are taken in blocks of backward_keys, from key 0. */
  int backward_keys;
  size_t (*backward_scratch)(const attn_backward *backward);
  /* delta[row] = sum over value dims of d_o o, for the rows of a head; 0 where a row sees no key. */
  void (*backward_delta)(const attn_backward *backward, int64_t sequence, int64_t head, void *delta, void *scratch);
  /* Queries of a tile against the keys in [first, last), whole blocks: adds to the sums, whose rows are whole vectors, and
   * with dq writes the tile's part of it. */
  void (*backward_tile)(const attn_backward *backward, const attn_tile *tile, const void *delta, int64_t first,
                        int64_t last, const attn_key_sums *sums, bool dq, void *scratch);
  /* sums[backward_keys][tile_rows] += the gradient of the scores of a tile of one head and the block of keys from `key`. */
  void (*backward_bias)(const attn_backward *backward, const attn_tile *tile, const void *delta, int64_t key, void *sums,
                        void *scratch);

  /* Matrix product: mr rows by nr columns in registers. An operand holds `depth` elements along k; a running sum is of at
   * most `block` elements, behind which the kernels may keep `block_extra` bytes. */
  int mr, nr, depth, operand_size, block, block_extra;
  /* Whose panels of float a weight is packed in for these kernels, which then pack them on; NULL: their own. */
  const struct attn_kernels *packed_by;
  /* panel[k / depth][nr] = b[p, j]: columns [0, columns) of k rows, zero-padded to nr. */
  void (*pack_b)(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t columns, void *panel);
  /* block[m][k / depth] = a[i, p]. */
  void (*pack_a)(attn_dtype dtype, const attn_matrix *a, int64_t m, int64_t k, void *block);
  /* c[m][c_step] (+)= block . panel, nr columns wide. Rows up to a multiple of mr may be read and written. */
  void (*multiply)(int64_t m, int64_t k, const void *block, const void *panel, void *c, int64_t c_step, bool add);
  /* The same with attn_panels_together(m) panels, `panel_step` bytes apart, nr columns of c each. NULL: one by one. */
  void (*multiply_panels)(int64_t m, int64_t k, const void *block, const void *panel, int64_t panel_step, void *c,
                          int64_t c_step, bool add);
  /* For m <= stream_rows rows: c[m][lane] = block . b, up to `columns` of b whose elements along k are neighbours, read
   * where they lie; sums over runs of `summed` elements, as multiply's over blocks. `line` holds operands of k elements for
   * each of stream_columns. */
  int stream_rows, stream_columns;
  /* block[k / depth][m] = a[i, p], for stream. */
  void (*pack_few)(attn_dtype dtype, const attn_matrix *a, int64_t m, int64_t k, void *block);
  void (*stream)(attn_dtype dtype, int64_t m, int64_t k, int64_t summed, const void *block, const attn_matrix *b,
                 int64_t columns, void *c, int64_t c_step, void *lines);
  /* Of the dtype's own kernels: c[m, 0..n) = residual + activation(sums + bias), rounded to the dtype. */
  void (*finish)(const attn_gemm *gemm, const void *sums, int64_t sums_step, const attn_matrix *c,
                 const attn_matrix *residual, const void *bias, int64_t m, int64_t n);

  void (*softmax_row)(const attn_rows *shape, const void *x, void *out, void *scratch);
  void (*norm_row)(const attn_norm *norm, const void *x, void *out, void *scratch);
  void (*activation_row)(const attn_rows *shape, attn_activation activation, const void *x, const void *up,
                         int64_t up_column, void *out);
  void (*sum_row)(const attn_rows *shape, const void *x, const void *added, int64_t added_column, void *out);
  void (*rotary_row)(const attn_rotary *rotary, const void *x, const void *cosines, const void *sines, void *out);
  void (*exp_sum_row)(const attn_rows *shape, const void *x, void *scratch, attn_exp_sum *result);
  void (*loss_row)(const attn_loss *loss, const void *x, int64_t target, void *grad, void *scratch, double *result);

  /* Gradients: attn_softmax_gradients and the functions after it, and additive attention. */
  void (*softmax_gradient)(int64_t n, const void *y, const void *grad, void *dx, bool stream);
  void (*norm_gradient)(const attn_norm *norm, const void *x, const void *grad, void *dx, void *weights, void *biases);
  void (*activation_gradient)(const attn_activation_gradient *problem);
  void (*take_sums)(int64_t n, void *part, void *sums);
  void (*add_rows)(attn_dtype dtype, int64_t n, const void *x, int64_t step, int64_t column, const int64_t *rows,
                   int64_t count, void *sums);
  void (*dropout_row)(const attn_dropout *drop, int64_t first, int64_t n, const void *x, int64_t x_column, void *out,
                      int64_t out_column);
  void (*additive_prepare)(int64_t hidden, int64_t padded, void *sums, void *exps, void *largest);
  void (*additive_scores)(const attn_additive *problem, int64_t query, const void *mask, int64_t mask_column, void *scores);
  void (*additive_values)(int64_t keys, int64_t columns, const void *scores, const void *weights, const void *values,
                          int64_t step, void *out);
  void (*additive_gradient)(const attn_additive *problem, const void *own, const void *other, int64_t count,
                            const void *grads, int64_t grad_step, void *sums, void *shares);
  void (*additive_score_gradients)(int64_t keys, int64_t columns, const void *scores, const void *weights,
                                   const void *grad, const void *values, int64_t step, void *grads);

  void (*load_row)(attn_dtype dtype, const void *x, int64_t stride, int64_t count, void *reals);
  void (*store_row)(attn_dtype dtype, const void *reals, int64_t count, void *out, int64_t stride);
} attn_kernels;

/* The kernels of the chosen ISA that compute in the type of this dtype, or NULL if SWIFTATTN_ISA cannot be had. */
const attn_kernels *attn_kernels_for(attn_dtype dtype);
/* Those for attention and matrix products of these tensors at this precision. */
const attn_kernels *attn_products_for(attn_dtype dtype, attn_precision precision);
const attn_kernels *attn_attention_for(const attn_problem *problem);
/* Those for its backward; in float where the kernels for the forward have none. */
const attn_kernels *attn_backward_for(const attn_problem *problem);

static inline size_t attn_dtype_size(attn_dtype dtype) {
  switch (dtype) {
    case ATTN_F64: return 8;
    case ATTN_F32: return 4;
    case ATTN_BOOL: case ATTN_I8: return 1;
    default: return 2;
  }
}

#endif
