/* Instantiates the templates of attention and matrix products on tiles, as the table attn_kernels_<ISA>_<REAL_NAME>. What
 * tiles cannot multiply runs on the register tile of floats. */
#define PRODUCT_ROWS 6
#include "../vec/operand_single.h"
#include "product.h"
#include "pack.h"
#include "operands_single.h"
#include "stream.h"
#include "math.h"
#include "attention.h"
#include "../vec/tile_amx.h"
#include "../vec/operand_split.h"
#include "tile_product.h"
#include "gemm_tiles.h"

#define TABLE_NAME_(isa, real_name) attn_kernels_##isa##_##real_name
#define TABLE_NAME(isa, real_name) TABLE_NAME_(isa, real_name)
#define ISA_STRING_(isa) #isa
#define ISA_STRING(isa) ISA_STRING_(isa)

const attn_kernels TABLE_NAME(ISA, REAL_NAME) = {
  .isa = ISA_STRING(ISA),
  .tile_rows = TILE,
  .attention_scratch = attention_scratch,
  .attention_tile = attention_tile,
  .chunk_keys = CHUNK,
  .attention_state = attention_state,
  .attention_chunk = attention_chunk,
  .attention_merge = attention_merge,
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
};
