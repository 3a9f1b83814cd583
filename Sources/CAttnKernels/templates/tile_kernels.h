/* Instantiates the templates of attention and matrix products on tiles, as the table attn_kernels_<ISA>_<REAL_NAME>. What
 * tiles cannot multiply runs on the register tile of floats; of its templates some parts stay unused. */
#pragma clang diagnostic ignored "-Wunused-function"
#define PRODUCT_ROWS 6
#include "../vec/operand_single.h"
#include "product.h"
#include "pack.h"
#include "operands_single.h"
#include "stream.h"
#include "math.h"
#include "../vec/tile_amx.h"
#include "../vec/operand_split.h"
#include "tile_product.h"
#include "gemm_tiles.h"
#define O_ROWS(value_dim) (((value_dim) + TILE_EDGE - 1) / TILE_EDGE * TILE_EDGE)
#define WEIGHT_SCORES tile_scores
#include "attention.h"
#include "attention_tile_operands.h"
#include "attention_tiles.h"
#include "attention_backward.h"
#include "attention_backward_tiles.h"

#define TABLE_NAME_(isa, real_name) attn_kernels_##isa##_##real_name
#define TABLE_NAME(isa, real_name) TABLE_NAME_(isa, real_name)
#define ISA_STRING_(isa) #isa
#define ISA_STRING(isa) ISA_STRING_(isa)

const attn_kernels TABLE_NAME(ISA, REAL_NAME) = {
  .isa = ISA_STRING(ISA),
  .lanes = LANES,
  .tile_rows = GROUP_LANES,
  .attention_scratch = group_scratch,
  .attention_tile = group_tile,
  .chunk_keys = CHUNK,
  .attention_state = group_state,
  .attention_chunk = group_chunk,
  .attention_merge = group_merge,
  .backward_keys = KEYS,
  .backward_scratch = gradient_scratch,
  .backward_delta = backward_delta,
  .backward_tile = gradient_tile,
  .backward_bias = gradient_bias,
  .mr = TILE_EDGE,
  .nr = GEMM_NR,
  .depth = TILE_STEP,
  .operand_size = PARTS * TILE_ROW,
  .block = GEMM_BLOCK,
  .block_extra = GEMM_EXTRA,
#ifdef PACKED_BY
  .packed_by = &PACKED_BY,
#endif
  .pack_b = pack_b,
  .pack_a = pack_a,
  .multiply = multiply,
  .store_row = store_row,
};
