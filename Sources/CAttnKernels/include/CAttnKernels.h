/* What the Swift core sees of the kernels: drivers that take validated problems. Nothing here checks its arguments. */
#ifndef CATTNKERNELS_H
#define CATTNKERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- dtypes and selection ---- */

typedef enum attn_dtype { ATTN_F32 = 0, ATTN_F16 = 1, ATTN_BF16 = 2, ATTN_F64 = 3, ATTN_BOOL = 4, ATTN_I8 = 5 } attn_dtype;

/* Of the products of float32 tensors: as exact as float, about 16 significand bits, bfloat16. */
typedef enum attn_precision { ATTN_HIGHEST = 0, ATTN_HIGH = 1, ATTN_MEDIUM = 2 } attn_precision;

/* Name of the chosen ISA, or NULL if SWIFTATTN_ISA names one that is unknown or absent. */
const char *attn_isa_name(void);
/* What is wrong with SWIFTATTN_ISA, when attn_isa_name() is NULL. */
const char *attn_isa_error(void);
/* Name of number n, from 0, among the features of this machine that have kernels of their own; NULL behind the last. */
const char *attn_cpu_feature(int n);

/* ---- memory ---- */

/* Whether the system would allocate this much now. */
bool attn_memory_available(size_t bytes);
/* 64-byte aligned, or NULL; large blocks in huge pages where the system has them. */
void *attn_allocate(size_t bytes);
void attn_free(void *memory);

/* ---- threads ---- */

void attn_set_num_threads(int32_t threads); /* 0: default */
int32_t attn_get_num_threads(void);

/* body(context, first, last) over [0, count) in ranges of at most `grain`; ranges run on up to the set number of
 * threads. Work of less than two grains runs on the caller alone. */
typedef void (*attn_range_body)(void *context, int64_t first, int64_t last);
void attn_parallel_for(int64_t count, int64_t grain, attn_range_body body, void *context);

/* ---- attention forward ---- */

/* One batch entry. Pointers are at head 0, row 0, element 0. */
typedef struct attn_sequence {
  const void *q, *k, *v, *mask; /* mask may be NULL */
  void *o, *lse, *weights;      /* lse and weights may be NULL */
  const float *k_scales, *v_scales; /* int8 row j of k stands for k_scales[j] * k[j]; NULL with other dtypes */
  const int64_t *blocks;        /* row j of k and v is row j % block_rows of block blocks[j / block_rows]; NULL: rows lie
                                   evenly. Not read for rows from kv_len on */
  int64_t q_rows;               /* rows of o to write */
  int64_t q_len;                /* of these, rows that see keys */
  int64_t kv_rows;              /* columns of weights */
  int64_t kv_len;               /* of these, keys that can be visible */
  int64_t query_offset;         /* position of row 0 */
  int64_t batch;                /* b of the dropout counter */
  int64_t first_task;           /* tasks of the sequences before this one */
} attn_sequence;

/* Strides count elements. */
typedef struct attn_strides { int64_t head, row, element; } attn_strides;

typedef enum attn_weights_stage {
  ATTN_PROBABILITIES = 0, ATTN_SCALED = 1, ATTN_CAPPED = 2, ATTN_BIASED = 3
} attn_weights_stage;

typedef struct attn_problem {
  attn_dtype dtype;         /* of q and o */
  attn_dtype kv_dtype;      /* of k and v: dtype, or with any dtype but ATTN_F64 one that is widened to float on the way in:
                               ATTN_F32, ATTN_F16, ATTN_BF16, or ATTN_I8 with scales and element stride 1 */
  attn_dtype mask_dtype, weights_dtype;
  attn_precision precision; /* of q.k and p.v */
  int64_t q_heads, kv_heads, head_dim, value_dim;
  attn_strides q, k, v, o, lse, mask, weights; /* lse has no element stride */
  attn_strides scales;      /* of k_scales and v_scales; no element stride */
  int64_t block_rows;       /* of sequences with blocks, else 0 */
  int64_t k_block, v_block, scale_block; /* strides from block to block */
  double scale, softcap;    /* softcap 0: none */
  bool causal;
  int64_t window_left, window_right; /* -1: unlimited */
  const double *slopes, *sinks;      /* [q_heads] or NULL */
  uint32_t dropout_threshold;        /* 0: no dropout */
  double dropout_scale;
  uint64_t seed;
  attn_weights_stage weights_stage;
  const attn_sequence *sequences;
  int64_t sequence_count;
} attn_problem;

/* How a problem is cut up; none of it changes a result. */
typedef struct attn_plan {
  int64_t heads_per_tile; /* query heads of one group that share a tile */
  int64_t rows_per_tile;  /* queries of each */
  int64_t heads_together; /* so many tiles of heads go through all their rows before the next ones */
  int64_t task_count;
  int32_t threads;
  bool split_keys;        /* chunks of a tile's keys become tasks of their own: for fewer tiles than threads can share */
} attn_plan;

/* Rows of the widest tile for this problem's dtypes. */
int64_t attn_tile_rows(const attn_problem *problem);

/* false: the scratch could not be allocated, nothing was written. */
bool attn_forward(const attn_problem *problem, const attn_plan *plan);

/* ---- attention backward ---- */

/* A gradient that is written: of this dtype, whatever the input's is. */
typedef struct attn_gradient { attn_dtype dtype; attn_strides strides; } attn_gradient;

/* Of one batch entry, beside its attn_sequence, whose o and lse are read here. Those that are not wanted are NULL. */
typedef struct attn_sequence_gradients {
  const void *d_o;
  void *dq, *dk, *dv;
  int64_t first_row; /* q_heads * q_rows of the sequences before this one */
} attn_sequence_gradients;

/* The sequences that share one entry of a bias that is broadcast over the batch. */
typedef struct attn_bias_group {
  void *d_bias;
  const int64_t *sequences; /* ascending */
  int64_t count;
} attn_bias_group;

typedef struct attn_backward {
  const attn_problem *problem;
  attn_strides d_o;
  attn_gradient dq, dk, dv, d_bias;
  bool wants_dq, wants_dk, wants_dv;
  const attn_sequence_gradients *gradients; /* [sequence_count] */
  int64_t row_count;                        /* q_heads * q_rows of all sequences */
  const attn_bias_group *bias_groups;       /* NULL: d_bias is not wanted */
  int64_t bias_group_count;
  bool bias_has_heads, bias_has_rows, bias_has_keys; /* else the bias is broadcast over them: d_bias is their sum */
  double *d_sinks;                          /* [q_heads], or NULL */
} attn_backward;

/* How it is cut up; none of it changes a result. */
typedef struct attn_backward_plan {
  int64_t task_count;
  int32_t threads;
  bool one_pass; /* a task is a key/value head with all its queries; else blocks of keys and tiles of queries apart, which
                    computes the scores twice */
} attn_backward_plan;

/* Tasks of a sequence; their running sum is its first_task. */
int64_t attn_backward_tasks(const attn_backward *backward, const attn_backward_plan *plan, const attn_sequence *sequence);
/* false: memory could not be allocated, nothing was written. */
bool attn_backward_run(const attn_backward *backward, const attn_backward_plan *plan);

/* ---- matrix product ---- */

typedef enum attn_activation {
  ATTN_IDENTITY = 0, ATTN_RELU = 1, ATTN_GELU = 2, ATTN_GELU_TANH = 3, ATTN_SILU = 4
} attn_activation;

/* A matrix of one batch entry: element (i, j) at data + i*row + j*column elements. */
typedef struct attn_matrix { const void *data; int64_t row, column; } attn_matrix;

/* c[m,n] = residual[m,n] + activation(sum_k a[m,k] b[k,n] + bias[n]), for `batch` entries. */
typedef struct attn_gemm {
  attn_dtype dtype;                     /* of all operands but b */
  attn_dtype b_dtype;                   /* the same, or any that is computed in the same type */
  attn_precision precision;
  int64_t m, n, k, batch;
  const attn_matrix *a, *b, *residual;  /* [batch]; residual may be NULL */
  const void *packed_b;                 /* b of every entry as attn_pack left it, or NULL; b is then not read */
  const attn_matrix *c;                 /* [batch]; written */
  const void *bias; int64_t bias_stride; /* bias may be NULL */
  attn_activation activation;
  int32_t threads;
} attn_gemm;

bool attn_gemm_run(const attn_gemm *gemm); /* false: out of memory, nothing was written */

/* b (k, n) in the order in which products read it, 64-byte aligned; good for the kernels of this process, at every
 * precision. */
size_t attn_packed_size(attn_dtype dtype, int64_t k, int64_t n);
void attn_pack(attn_dtype dtype, const attn_matrix *b, int64_t k, int64_t n, void *packed);

/* ---- quantised weights ---- */

/* Formats of GGUF files, with weights in blocks of 32 or 256 neighbours of a row: code c stands for d c + m, with d and m
 * of the block. */
typedef enum attn_quant { ATTN_Q4_0 = 0, ATTN_Q4_1 = 1, ATTN_Q8_0 = 2, ATTN_Q4_K = 3, ATTN_Q6_K = 4 } attn_quant;

/* Weights and bytes of a block, as stored in a file. */
int64_t attn_quant_block(attn_quant format);
int64_t attn_quant_block_bytes(attn_quant format);
/* out[k] = the weights of a stored row; k is a multiple of the block. */
void attn_quant_load_row(attn_quant format, const void *stored, int64_t k, float *out);

/* A weight (n, k) in the order in which products read it; 64-byte aligned. Not larger than stored but for rows up to a
 * multiple of 16, and 3 % with Q4_K. */
size_t attn_quant_packed_size(attn_quant format, int64_t n, int64_t k);
void attn_quant_pack(attn_quant format, const void *stored, int64_t n, int64_t k, void *packed);
/* out[k] = row `row` of a packed weight, as attn_quant_load_row. */
void attn_quant_packed_row(attn_quant format, const void *packed, int64_t k, int64_t row, float *out);

/* c = residual + activation(x . weight^T + bias), for one of several weights that are applied to the same x. */
typedef struct attn_quant_output {
  attn_quant format;
  int64_t n;
  const void *packed;
  float *c;
  int64_t c_row;
  const float *bias, *residual; /* may be NULL; residual may be c */
  int64_t residual_row;
  attn_activation activation;
} attn_quant_output;

/* x (m, k) is rounded to 16-bit integers, with a scale for every 32 neighbours; sums over blocks are exact, and added in
 * float in order. So the bits of a row depend on this row alone. Where `coarse` is set and the ISA gains by it, x is rounded
 * to 8 bits. */
typedef struct attn_quant_product {
  int64_t m, k;
  const float *x;
  int64_t x_row;
  const attn_quant_output *outputs;
  int64_t output_count;
  bool coarse;
  int32_t threads;
} attn_quant_product;

bool attn_quant_run(const attn_quant_product *product); /* false: out of memory, nothing was written */

/* ---- rows ---- */

/* One row of each operand; elements lie x_column (out_column) elements apart. out may be an input. */
typedef struct attn_rows {
  attn_dtype dtype;
  int64_t columns;
  int64_t x_column, out_column;
  bool stream; /* out goes past the caches; it is no input then. Ends with attn_streamed() on the thread that wrote */
} attn_rows;

/* Rows of so many elements need no scratch for a softmax: its exponentials stay in the L1 cache. */
#define ATTN_NEAR_COLUMNS 4096

/* scratch: columns reals. It may be NULL for near rows, and where x and out are contiguous reals. */
void attn_softmax_row(const attn_rows *shape, const void *x, void *out, void *scratch);

/* (x - mean) / sqrt(variance + eps) * weight + bias; without a centre the mean is taken as 0. */
typedef struct attn_norm {
  attn_rows shape;
  bool centred;
  double eps;
  const void *weight, *bias; /* columns contiguous reals, or NULL */
} attn_norm;

/* scratch: columns reals; not used where x and out are contiguous. */
void attn_norm_row(const attn_norm *norm, const void *x, void *out, void *scratch);
/* out = activation(x), or activation(x) * up with up != NULL (columns up_column apart). */
void attn_activation_row(const attn_rows *shape, attn_activation activation, const void *x,
                         const void *up, int64_t up_column, void *out);

/* Rotary positions: the first 2 * pairs elements of a row are turned, the rest is copied. */
typedef struct attn_rotary {
  attn_rows shape;
  int64_t pairs;
  bool neighbours; /* pairs are (2i, 2i + 1), else (i, i + pairs) */
  bool back;       /* by the same angles the other way round */
} attn_rotary;

/* cosines, sines: of each pair, contiguous reals. out may be x. */
void attn_rotary_row(const attn_rotary *rotary, const void *x, const void *cosines, const void *sines, void *out);

/* sum of e^(x - top), top the maximum: NaN where x holds one, else top +inf gives 1 and top -inf 0. */
typedef struct attn_exp_sum { double top, sum; } attn_exp_sum;

/* scratch: columns reals; not used where x is contiguous. */
void attn_exp_sum_row(const attn_rows *shape, const void *x, void *scratch, attn_exp_sum *result);

/* Cross-entropy of a row of logits with smoothing / columns for every class, and the rest for the target. */
typedef struct attn_loss {
  attn_rows shape; /* out: of the gradient */
  double smoothing, scale; /* scale: of the gradient */
} attn_loss;

/* The loss, and its gradient * scale unless grad is NULL; grad may be x. scratch as above, for x and grad. */
void attn_loss_row(const attn_loss *loss, const void *x, int64_t target, void *grad, void *scratch, double *result);

/* ---- gradients of rows ---- */

/* Below, reals are in the computing type of `dtype` (norm->shape.dtype) and contiguous. */

/* Rows that lie evenly, so many bytes apart. */
typedef struct attn_gradient_rows {
  int64_t count;
  const void *x, *grad;
  void *dx;
  int64_t x_step, grad_step, dx_step;
} attn_gradient_rows;

/* dx = x (grad - sum x grad) for softmax's result x; dx may be x or grad. `stream` as in attn_rows. */
void attn_softmax_gradients(attn_dtype dtype, int64_t n, const attn_gradient_rows *rows, bool stream);

/* The norm's dx, which may be x or grad, and what the rows add to the gradients of weight and bias; each may be NULL. */
void attn_norm_gradients(const attn_norm *norm, const attn_gradient_rows *rows, void *weights, void *biases);

/* Elements of a row, `column` apart; data NULL: there are none. */
typedef struct attn_operand { void *data; int64_t column; } attn_operand;

/* dx = grad * activation'(x) (* up), dup = grad * activation(x). Outputs may be inputs, element by element. */
typedef struct attn_activation_gradient {
  attn_dtype dtype;
  attn_activation activation;
  int64_t columns;
  attn_operand x, up, grad, dx, dup; /* up, dx and dup may be missing */
  bool stream;                       /* as in attn_rows */
} attn_activation_gradient;
void attn_activation_gradient_row(const attn_activation_gradient *problem);

/* sums[j] += part[j], and 0 in part[j]. */
void attn_take_sums(attn_dtype dtype, int64_t n, void *part, void *sums);

/* sums[j] += x[rows[0]][j] + ... + x[rows[count - 1]][j] in an order that count decides; rows lie `step` bytes apart, NULL stands for 0, 1, ... */
void attn_add_rows(attn_dtype dtype, int64_t n, const void *x, int64_t step, int64_t column, const int64_t *rows,
                   int64_t count, void *sums);

/* out = x, which is no other part of out. */
void attn_copy_row(const attn_rows *shape, const void *x, void *out);

typedef struct attn_dropout {
  attn_dtype dtype;
  uint32_t threshold; /* words below it drop their element */
  double scale;       /* of those that are kept */
  uint64_t seed, draw;
} attn_dropout;

/* Elements first, first + 1, ... of the tensor; out may be x. */
void attn_dropout_row(const attn_dropout *drop, int64_t first, int64_t n, const void *x, int64_t x_column, void *out,
                      int64_t out_column);

/* ---- additive attention ---- */

/* Rows hold a multiple of so many reals, 0 behind the last. */
#define ATTN_ADDITIVE_BLOCK 32

/* Projected queries or keys: [rows][padded] sums, e^(2 sums), and [rows] the largest |sum|. */
typedef struct attn_additive_rows { void *sums, *exps, *largest; } attn_additive_rows;

typedef struct attn_additive {
  attn_dtype dtype, mask_dtype;
  int64_t keys, padded;
  const void *v; /* [padded], 0 behind the last */
  bool exact;    /* tanh of each sum, without the short cut by exponentials */
  attn_additive_rows q, k;
} attn_additive;

/* Pads `sums` and fills exps and largest. */
void attn_additive_prepare(attn_dtype dtype, int64_t hidden, int64_t padded, void *sums, void *exps, void *largest);
/* scores[j] = sum_h v[h] tanh(q[query][h] + k[j][h]) + mask[j]; -inf where the mask hides key j. mask may be NULL. */
void attn_additive_scores(const attn_additive *problem, int64_t query, const void *mask, int64_t mask_column, void *scores);
/* out[d] = sum over visible keys of weights[j] values[j][d]; values `step` reals apart. */
void attn_additive_values(attn_dtype dtype, int64_t keys, int64_t columns, const void *scores, const void *weights,
                          const void *values, int64_t step, void *out);
/* For a row of sums and `count` rows on the other side, with gradients grads[j * grad_step] of their scores: sums[h] = v[h]
 * sum_j grads[j] (1 - t^2), shares[h] = sum_j grads[j] t, or shares NULL. Both padded. */
void attn_additive_gradient(const attn_additive *problem, const void *own, const void *other, int64_t count,
                            const void *grads, int64_t grad_step, void *sums, void *shares);
/* Gradients of the scores through softmax: weights[j] (grad . values[j] - mean), 0 for hidden keys. */
void attn_additive_score_gradients(attn_dtype dtype, int64_t keys, int64_t columns, const void *scores, const void *weights,
                                   const void *grad, const void *values, int64_t step, void *grads);

/* Rows of a table by number; steps between ids, rows of the table, of out and of added count bytes. */
typedef struct attn_gather {
  attn_rows shape; /* x: of the table */
  const void *table;
  int64_t table_step;
  int32_t id_size; /* 4 or 8 bytes */
  int64_t id_step, out_step, added_step, added_column;
} attn_gather;

/* out = table[id] + added for `count` ids in range; without added (NULL) a copy, bit by bit. */
void attn_gather_rows(const attn_gather *gather, const void *ids, int64_t count, const void *added, void *out);
/* Streamed stores become visible in order with what this thread does next. */
void attn_streamed(void);
/* Conversion between a dtype's elements and its computing type (float; double for ATTN_F64). */
void attn_load_row(attn_dtype dtype, const void *x, int64_t stride, int64_t count, void *reals);
void attn_store_row(attn_dtype dtype, const void *reals, int64_t count, void *out, int64_t stride);

#endif
