/* Instantiates every template with the vocabulary and tile that the including arch file has chosen, as the table
 * attn_kernels_<ISA>_<REAL_NAME>. */
#define PRODUCT_ROWS 6
#ifdef OPERANDS_ARE_BF16_PAIRS
#include "../vec/operand_bf16_pair.h"
#include "product.h"
#include "pack.h"
#include "operands_bf16_pair.h"
#else
#include "../vec/operand_single.h"
#include "product.h"
#include "pack.h"
#include "operands_single.h"
#endif
#include "stream.h"
#include "math.h"
#include "attention.h"
#ifndef OPERANDS_ARE_BF16_PAIRS
#include "attention_backward.h"
#endif
#include "rows.h"
#include "softmax.h"
#include "norms.h"
#include "activations.h"
#include "rotary.h"
#include "loss.h"
#include "row_gradients.h"
#include "activation_gradients.h"
#include "dropout.h"
#include "additive.h"
#include "gemm.h"

#define TABLE_NAME_(isa, real_name) attn_kernels_##isa##_##real_name
#define TABLE_NAME(isa, real_name) TABLE_NAME_(isa, real_name)
#define ISA_STRING_(isa) #isa
#define ISA_STRING(isa) ISA_STRING_(isa)

const attn_kernels TABLE_NAME(ISA, REAL_NAME) = {
  .isa = ISA_STRING(ISA),
  .lanes = LANES,
  .tile_rows = TILE,
  .attention_scratch = attention_scratch,
  .attention_tile = attention_tile,
  .chunk_keys = CHUNK,
  .attention_state = attention_state,
  .attention_chunk = attention_chunk,
  .attention_merge = attention_merge,
#ifndef OPERANDS_ARE_BF16_PAIRS
  .backward_keys = KEYS,
  .backward_scratch = backward_scratch,
  .backward_delta = backward_delta,
  .backward_tile = backward_tile,
  .backward_bias = backward_bias,
#endif
  .mr = PRODUCT_ROWS,
  .nr = GEMM_NR,
  .depth = DEPTH,
  .operand_size = sizeof(operand),
  .block = GEMM_BLOCK * DEPTH,
#ifdef PACKED_BY
  .packed_by = &PACKED_BY,
#endif
  .pack_b = pack_b,
  .pack_a = pack_a,
  .multiply = multiply,
  .multiply_panels = multiply_panels,
  .stream_rows = STREAM_ROWS,
  .stream_columns = STREAM_COLUMNS,
  .pack_few = pack_few,
  .stream = stream,
  .finish = finish,
  .softmax_row = softmax_row,
  .norm_row = norm_row,
  .activation_row = activation_row,
  .sum_row = sum_row,
  .rotary_row = rotary_row,
  .exp_sum_row = exp_sum_row,
  .loss_row = loss_row,
  .softmax_gradient = softmax_gradient,
  .norm_gradient = norm_gradient,
  .activation_gradient = activation_gradient,
  .take_sums = take_sums,
  .add_rows = add_rows,
  .dropout_row = dropout_row,
  .additive_prepare = additive_prepare,
  .additive_scores = additive_scores,
  .additive_values = additive_values,
  .additive_gradient = additive_gradient,
  .additive_score_gradients = additive_score_gradients,
  .load_row = load_row,
  .store_row = store_row,
};
