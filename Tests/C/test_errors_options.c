/* Misuse of attention's options. */
#include <math.h>
#include <string.h>
#include <sys/types.h>

#include "errors.h"

#define OPTIONS c.p.options

/* Options followed by a field that a later version might add. */
typedef struct later_options {
  swiftattn_attention_options known;
  uint64_t later;
} later_options;

static void struct_sizes(void) {
  static later_options larger;
  ATTENTION("struct_size 0", STRUCT_SIZE, "struct_size", "0", OPTIONS.struct_size = 0);
  ATTENTION("struct_size 4", STRUCT_SIZE, "struct_size", "4", OPTIONS.struct_size = 4);
  ATTENTION("struct_size one field short", STRUCT_SIZE, "struct_size", "124", OPTIONS.struct_size = 124);
  ATTENTION("a larger struct with something in the tail", STRUCT_SIZE, "struct_size", "136", larger.known = OPTIONS;
            larger.known.struct_size = sizeof larger; larger.later = 1; c.options = &larger.known);
}

static void scalars(void) {
  ATTENTION("an unknown flag", INVALID_ARGUMENT, "flags", "16", OPTIONS.flags = 16u);
  ATTENTION("reserved is set", INVALID_ARGUMENT, "reserved", "5", OPTIONS.reserved = 5);
  ATTENTION("scale NaN", INVALID_ARGUMENT, "scale", "nan", OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_SCALE;
            OPTIONS.scale = NAN);
  ATTENTION("scale infinite", INVALID_ARGUMENT, "scale", "inf", OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_SCALE;
            OPTIONS.scale = -INFINITY);
  ATTENTION("softcap NaN", INVALID_ARGUMENT, "softcap", "nan", OPTIONS.softcap = NAN);
  ATTENTION("softcap infinite", INVALID_ARGUMENT, "softcap", "inf", OPTIONS.softcap = INFINITY);
  ATTENTION("softcap negative", INVALID_ARGUMENT, "softcap", "-2.5", OPTIONS.softcap = -2.5);
  ATTENTION("causal 3", INVALID_ARGUMENT, "causal", "3", OPTIONS.causal = 3);
  ATTENTION("causal -1", INVALID_ARGUMENT, "causal", "-1", OPTIONS.causal = -1);
  ATTENTION("precision 3", INVALID_ARGUMENT, "precision", "3", OPTIONS.precision = 3);
  ATTENTION("precision -7", INVALID_ARGUMENT, "precision", "-7", OPTIONS.precision = -7);
  ATTENTION("weights_stage 4", INVALID_ARGUMENT, "weights_stage", "4", OPTIONS.weights_stage = 4);
  ATTENTION("dropout_p 1", INVALID_ARGUMENT, "dropout_p", "1", OPTIONS.dropout_p = 1);
  ATTENTION("dropout_p negative", INVALID_ARGUMENT, "dropout_p", "-0.25", OPTIONS.dropout_p = -0.25);
  ATTENTION("dropout_p NaN", INVALID_ARGUMENT, "dropout_p", "nan", OPTIONS.dropout_p = NAN);
  ATTENTION("window_left -2", INVALID_ARGUMENT, "window_left", "-2",
            OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT;
            OPTIONS.window_left = -2);
  ATTENTION("window_right far below 0", INVALID_ARGUMENT, "window_right", "-9223372036854775808",
            OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT;
            OPTIONS.window_right = INT64_MIN);
}

static swiftattn_tensor numbers(swiftattn_dtype dtype, int64_t first, int64_t second) {
  swiftattn_tensor t = TENSOR(dtype, LAYOUT_DENSE, 2);
  tensor_store1(&t, 0, (double)first);
  tensor_store1(&t, 1, (double)second);
  return t;
}

#define SET(field, tensor) \
  c.p.field = (tensor);    \
  OPTIONS.field = &c.p.field

static void lengths(void) {
  ATTENTION("q_lengths beyond Tq", INVALID_ARGUMENT, "q_lengths", "6", SET(q_lengths, numbers(I64, 5, 6)));
  ATTENTION("q_lengths negative", INVALID_ARGUMENT, "q_lengths", "-1", SET(q_lengths, numbers(I32, -1, 5)));
  ATTENTION("kv_lengths beyond Tk", INVALID_ARGUMENT, "kv_lengths", "8", SET(kv_lengths, numbers(I32, 0, 8)));
  ATTENTION("kv_lengths far beyond Tk", INVALID_ARGUMENT, "kv_lengths", "4294967296",
            SET(kv_lengths, numbers(I64, 0, 4294967296)));
  ATTENTION("kv_lengths negative", INVALID_ARGUMENT, "kv_lengths", "-3", SET(kv_lengths, numbers(I64, 7, -3)));
  ATTENTION("kv_lengths of floats", INVALID_DTYPE, "kv_lengths", "float32", SET(kv_lengths, numbers(F32, 1, 2)));
  ATTENTION("q_lengths of bytes", INVALID_DTYPE, "q_lengths", "8 bits", SET(q_lengths, numbers(I32, 1, 2));
            c.p.q_lengths.dtype.code = SWIFTATTN_DTYPE_CODE_UINT; c.p.q_lengths.dtype.bits = 8);
  ATTENTION("kv_lengths for one entry", INVALID_SHAPE, "kv_lengths", "1", SET(kv_lengths, numbers(I32, 1, 2));
            c.p.kv_lengths.shape[0] = 1);
  ATTENTION("kv_lengths of rank 2", INVALID_SHAPE, "kv_lengths", "(2, 1)",
            SET(kv_lengths, TENSOR(I32, LAYOUT_DENSE, 2, 1)));
  ATTENTION("kv_lengths without data", NULL_POINTER, "kv_lengths", "NULL", SET(kv_lengths, numbers(I32, 1, 2));
            c.p.kv_lengths.data = NULL);
}

static void query_offsets(void) {
  ATTENTION("query_offset too far", INVALID_ARGUMENT, "query_offset", "281474976710657",
            OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
            OPTIONS.query_offset = ((int64_t)1 << 48) + 1);
  ATTENTION("query_offset as negative as can be", INVALID_ARGUMENT, "query_offset", "-9223372036854775808",
            OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
            OPTIONS.query_offset = INT64_MIN);
  ATTENTION("query_offsets too far", INVALID_ARGUMENT, "query_offsets", "281474976710658",
            SET(query_offsets, numbers(I64, 0, ((int64_t)1 << 48) + 2)));
  ATTENTION("query_offset and query_offsets", INVALID_ARGUMENT, "query_offsets", "query_offset",
            SET(query_offsets, numbers(I32, 1, 2));
            OPTIONS.flags = SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET);
  ATTENTION("query_offsets of floats", INVALID_DTYPE, "query_offsets", "float32",
            SET(query_offsets, numbers(F32, 1, 2)));
  ATTENTION("query_offsets for three entries", INVALID_SHAPE, "query_offsets", "3",
            SET(query_offsets, TENSOR(I64, LAYOUT_DENSE, 3)));
  ATTENTION("query_offsets without data", NULL_POINTER, "query_offsets", "NULL", SET(query_offsets, numbers(I32, 1, 2));
            c.p.query_offsets.data = NULL);
}

static void masks(void) {
  ATTENTION("attn_mask of integers", INVALID_DTYPE, "attn_mask", "int32",
            SET(attn_mask, TENSOR(I32, LAYOUT_DENSE, 5, 7)));
  ATTENTION("attn_mask of a third dtype", INVALID_DTYPE, "attn_mask", "float16",
            SET(attn_mask, TENSOR(F16, LAYOUT_DENSE, 5, 7)));
  ATTENTION("attn_mask of another width", INVALID_SHAPE, "attn_mask", "6",
            SET(attn_mask, TENSOR(F32, LAYOUT_DENSE, 5, 6)));
  ATTENTION("attn_mask of another height", INVALID_SHAPE, "attn_mask", "4",
            SET(attn_mask, TENSOR(F32, LAYOUT_DENSE, 4, 7)));
  ATTENTION("attn_mask for three heads", INVALID_SHAPE, "attn_mask", "3",
            SET(attn_mask, TENSOR(BOOL8, LAYOUT_DENSE, 3, 5, 7)));
  ATTENTION("attn_mask for three entries", INVALID_SHAPE, "attn_mask", "3",
            SET(attn_mask, TENSOR(BOOL8, LAYOUT_DENSE, 3, 1, 5, 7)));
  ATTENTION("attn_mask of rank 0", INVALID_SHAPE, "attn_mask", "0",
            SET(attn_mask, tensor_make(F32, LAYOUT_DENSE, 0, NULL)));
  ATTENTION("attn_mask of rank 5", INVALID_SHAPE, "attn_mask", "5",
            SET(attn_mask, TENSOR(F32, LAYOUT_DENSE, 1, 2, 4, 5, 7)));
  ATTENTION("attn_mask without data", NULL_POINTER, "attn_mask", "NULL",
            SET(attn_mask, TENSOR(F32, LAYOUT_DENSE, 5, 7));
            c.p.attn_mask.data = NULL);
  ATTENTION("attn_mask misaligned", INVALID_ARGUMENT, "attn_mask", "4", SET(attn_mask, TENSOR(F32, LAYOUT_DENSE, 5, 7));
            c.p.attn_mask.byte_offset = 2);
}

static void per_head(void) {
  ATTENTION("alibi_slopes for three heads", INVALID_SHAPE, "alibi_slopes", "3",
            SET(alibi_slopes, TENSOR(F32, LAYOUT_DENSE, 3)));
  ATTENTION("alibi_slopes of rank 2", INVALID_SHAPE, "alibi_slopes", "(4, 1)",
            SET(alibi_slopes, TENSOR(F32, LAYOUT_DENSE, 4, 1)));
  ATTENTION("alibi_slopes in float16", INVALID_DTYPE, "alibi_slopes", "float16",
            SET(alibi_slopes, TENSOR(F16, LAYOUT_DENSE, 4)));
  ATTENTION("sinks for the key heads", INVALID_SHAPE, "sinks", "2", SET(sinks, TENSOR(F32, LAYOUT_DENSE, 2)));
  ATTENTION("sinks in float64", INVALID_DTYPE, "sinks", "float64", SET(sinks, TENSOR(F64, LAYOUT_DENSE, 4)));
  ATTENTION("sinks without data", NULL_POINTER, "sinks", "NULL", SET(sinks, TENSOR(F32, LAYOUT_DENSE, 4));
            c.p.sinks.data = NULL);
}

void run_errors_options(void) {
  struct_sizes();
  scalars();
  lengths();
  query_offsets();
  masks();
  per_head();
}
