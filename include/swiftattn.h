/* swiftattn: transformer attention on the CPU, behind one C ABI. This header is the specification.
 *
 * Status.        Every computing function returns int32_t: 0 on success, a negative SWIFTATTN_ERROR_* otherwise.
 *                After a failure swiftattn_last_error() names the argument, what was expected and what came,
 *                and no output has been touched.
 * Ownership.     The library borrows every pointer for the duration of the call and keeps none of them.
 * Threads.       Every function may be called from any number of threads at once. A call uses up to
 *                swiftattn_get_num_threads() threads; the result never depends on how many.
 * Memory.        Inputs may overlap one another; an output may overlap neither an input nor another output
 *                (element-wise functions say where they also work in place).
 * Data types.    float32, float16, bfloat16 and float64. Below, "floating" means one of these four. float16 is computed
 *                in float32 and rounded once, on output. So is bfloat16, but where the machine has instructions for its
 *                products, they are used: exact products, summed in float32, with subnormal bfloat16 numbers taken for
 *                0, and in attention the probabilities rounded to bfloat16. float64 is computed in float64.
 */
#ifndef SWIFTATTN_H
#define SWIFTATTN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SWIFTATTN_VERSION_MAJOR 0
#define SWIFTATTN_VERSION_MINOR 1
#define SWIFTATTN_VERSION_PATCH 0

/* ---- Status ------------------------------------------------------------------------------------------------ */

/* The numbers are frozen: a value never changes its meaning. */
#define SWIFTATTN_SUCCESS 0
#define SWIFTATTN_ERROR_NULL_POINTER (-1)     /* a required pointer is NULL */
#define SWIFTATTN_ERROR_INVALID_ARGUMENT (-2) /* a scalar, an option, a length or an index is out of range */
#define SWIFTATTN_ERROR_INVALID_SHAPE (-3)    /* rank, shape or strides do not fit */
#define SWIFTATTN_ERROR_INVALID_DTYPE (-4)    /* a data type that the argument does not take */
#define SWIFTATTN_ERROR_ALIASING (-5)         /* an output overlaps an input or another output */
#define SWIFTATTN_ERROR_STRUCT_SIZE (-6)      /* a struct_size too small, or larger with unknown options set */
#define SWIFTATTN_ERROR_OUT_OF_MEMORY (-7)    /* memory could not be had */
#define SWIFTATTN_ERROR_UNSUPPORTED_ISA (-8)  /* SWIFTATTN_ISA names an unknown ISA or one this machine lacks */

/* Text of the newest failure on the calling thread, one line of UTF-8, for example
 * "key: head_dim is 96, query has 128". Empty before the first failure; a success leaves it alone.
 * The pointer stays valid until the next failing call on the same thread. Never NULL. */
const char *swiftattn_last_error(void);

/* ---- Library ----------------------------------------------------------------------------------------------- */

/* Version of the library as "MAJOR.MINOR.PATCH"; a constant string. */
const char *swiftattn_version(void);

/* Instruction set of the kernels in use: "portable", "avx2", "avx512", "amx" or "neon"; a constant string. The best one
 * that the machine has is chosen on the first call, unless the environment variable SWIFTATTN_ISA names another.
 * If it names one that is unknown or that the machine lacks, this returns "unsupported" and every computing
 * function returns SWIFTATTN_ERROR_UNSUPPORTED_ISA. */
const char *swiftattn_cpu_isa(void);

/* What the machine has, whatever SWIFTATTN_ISA says, among the features that have kernels of their own: words of "avx2",
 * "avx512", "avx512_vnni", "avx512_bf16", "amx" and "neon" with spaces between them; a constant string, maybe empty. */
const char *swiftattn_cpu_features(void);

/* Largest number of threads that a later call may use, for the whole process: 1 to 1024, or 0 for the default
 * (OMP_NUM_THREADS if set, else the processors in the affinity mask of the process). */
int32_t swiftattn_set_num_threads(int32_t threads);
int32_t swiftattn_get_num_threads(void);

/* ---- Tensors ----------------------------------------------------------------------------------------------- */

/* Element type, laid out and numbered as DLPack's DLDataType. */
typedef struct swiftattn_dtype {
  uint8_t code;   /* one of SWIFTATTN_DTYPE_CODE_* */
  uint8_t bits;   /* 8, 16, 32 or 64 */
  uint16_t lanes; /* 1 */
} swiftattn_dtype;

#define SWIFTATTN_DTYPE_CODE_INT 0
#define SWIFTATTN_DTYPE_CODE_UINT 1
#define SWIFTATTN_DTYPE_CODE_FLOAT 2
#define SWIFTATTN_DTYPE_CODE_BFLOAT 4
#define SWIFTATTN_DTYPE_CODE_BOOL 6 /* 8 bits: 0 is false, anything else true */

#define SWIFTATTN_MAX_DIMS 8

/* A borrowed strided array. The field names are those of DLPack's DLTensor, the shape and the strides are held in
 * place. Element [i0, i1, ...] is at data + byte_offset + sizeof(element) * (i0 * strides[0] + i1 * strides[1] + ...).
 * Strides count elements and may be zero (broadcast; inputs only) or negative; no two elements of an output may share a
 * place. data must be aligned to its element and may be NULL only if some shape[i] is 0. Entries past ndim are ignored.
 * Misaligned data and a byte_offset beyond the address space are INVALID_ARGUMENT, strides that leave it INVALID_SHAPE. */
typedef struct swiftattn_tensor {
  void *data;
  int32_t ndim; /* 0 to SWIFTATTN_MAX_DIMS */
  swiftattn_dtype dtype;
  int64_t shape[SWIFTATTN_MAX_DIMS];
  int64_t strides[SWIFTATTN_MAX_DIMS];
  uint64_t byte_offset;
} swiftattn_tensor;

/* ---- Attention --------------------------------------------------------------------------------------------- */

/* Values of swiftattn_attention_options.causal. */
#define SWIFTATTN_CAUSAL_NONE 0
#define SWIFTATTN_CAUSAL_UPPER_LEFT 1  /* query 0 stands at key 0, as PyTorch's is_causal */
#define SWIFTATTN_CAUSAL_LOWER_RIGHT 2 /* the last query stands at the last key, as FlashAttention and KV caches */

/* Values of the precision fields; they concern float32 alone. Which products a value permits:
 * HIGHEST float32 or better, HIGH about 16 significand bits, MEDIUM bfloat16. A kernel may be better than asked. */
#define SWIFTATTN_PRECISION_HIGHEST 0
#define SWIFTATTN_PRECISION_HIGH 1
#define SWIFTATTN_PRECISION_MEDIUM 2

/* Values of swiftattn_attention_options.weights_stage: what the weights output holds. */
#define SWIFTATTN_WEIGHTS_PROBABILITIES 0 /* P */
#define SWIFTATTN_WEIGHTS_SCALED 1        /* scale * q.k, visible or not */
#define SWIFTATTN_WEIGHTS_CAPPED 2        /* after softcap, visible or not */
#define SWIFTATTN_WEIGHTS_BIASED 3        /* after attn_mask and ALiBi, -inf where not visible */

/* Bits of swiftattn_attention_options.flags: the field is set, even if it holds 0. */
#define SWIFTATTN_ATTENTION_HAS_SCALE 1u
#define SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET 2u
#define SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT 4u
#define SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT 8u

/* Options of the attention functions. Start from SWIFTATTN_ATTENTION_OPTIONS_INIT, or zero the struct and set
 * struct_size to sizeof(swiftattn_attention_options): both mean the defaults. A larger struct_size is a newer header's: it is
 * taken as long as all that this version does not know is zero. */
typedef struct swiftattn_attention_options {
  uint32_t struct_size;
  uint32_t flags;          /* SWIFTATTN_ATTENTION_HAS_* */
  double scale;            /* of the scores; default 1/sqrt(D). Finite; may be 0 or negative. HAS_SCALE */
  double softcap;          /* 0: none; > 0: s = softcap * tanh(s / softcap). Finite */
  int32_t causal;          /* SWIFTATTN_CAUSAL_* */
  int32_t precision;       /* SWIFTATTN_PRECISION_* */
  int64_t query_offset;    /* position of query 0 in every batch entry, -2^48 to 2^48. HAS_QUERY_OFFSET */
  int64_t window_left;     /* keys before the query's position that are visible, -1: all. HAS_WINDOW_LEFT */
  int64_t window_right;    /* keys after it, -1: all. HAS_WINDOW_RIGHT */
  double dropout_p;        /* 0 <= dropout_p < 1, on the probabilities */
  uint64_t seed;           /* key of the dropout's Philox generator */
  const swiftattn_tensor *query_offsets; /* (B,) int32 or int64: query_offset for each batch entry; excludes it */
  const swiftattn_tensor *attn_mask;     /* bool (true = visible) or float of q's dtype or float32 (added to the
                                            scores); rank 1 to 4, broadcast to (B, Hq, Tq, Tk) */
  const swiftattn_tensor *alibi_slopes;  /* (Hq,) float32 (or float64 with float64 inputs) */
  const swiftattn_tensor *sinks;         /* (Hq,) float32 (or float64 with float64 inputs): a logit without a value */
  const swiftattn_tensor *q_lengths;     /* (B,) int32 or int64, 0 to Tq: queries at or past it see no key */
  const swiftattn_tensor *kv_lengths;    /* (B,) int32 or int64, 0 to Tk: keys at or past it are not visible */
  int32_t weights_stage;                 /* SWIFTATTN_WEIGHTS_* */
  int32_t reserved;                      /* 0 */
} swiftattn_attention_options;

#define SWIFTATTN_ATTENTION_OPTIONS_INIT { sizeof(swiftattn_attention_options), \
  0u, 0.0, 0.0, SWIFTATTN_CAUSAL_NONE, SWIFTATTN_PRECISION_HIGHEST, 0, 0, 0, 0.0, 0u, \
  NULL, NULL, NULL, NULL, NULL, NULL, SWIFTATTN_WEIGHTS_PROBABILITIES, 0 }

/* Scaled dot-product attention.
 *
 * B batch, Hq/Hkv query and key/value heads, Tq/Tk query and key length, D head dim of q and k, Dv of v.
 * For query head h, key/value head h / (Hq / Hkv), query i at position p = i + query_offset[b], key j:
 *
 *   s[i,j] = scale * q[i].k[j]
 *   s      = softcap * tanh(s / softcap)                 if softcap > 0
 *   s     += attn_mask[b,h,i,j]                          if it is a float mask
 *   s     += -alibi_slopes[h] * |p - j|                  if given
 *   s      = -inf where key j is not visible
 *   m      = max(max_j s, sinks[h]);  l = sum_j exp(s - m) + exp(sinks[h] - m)     sink terms only if given
 *   P      = exp(s - m) / l                              weights; dropout comes after
 *   out    = dropout(P) . v;   lse = m + ln(l)
 *
 * Key j is visible if all of these hold:
 *   causal         j <= p
 *   window         p - window_left <= j <= p + window_right
 *   attn_mask      true, or > -inf (a NaN hides its key)
 *   kv_lengths     j < kv_lengths[b]
 *   q_lengths      i < q_lengths[b]
 * Positions: query_offsets or query_offset if set, else kv_length - q_length with LOWER_RIGHT, else 0.
 * Dropout: Philox4x32-10, key (low, high 32 bits of seed), counter (j >> 2, i, h, b), word j & 3; an entry is dropped
 * where word < floor(dropout_p * 2^32); the kept ones are scaled by 1 / (1 - dropout_p).
 *
 *   query (..., Hq, Tq, D)   key (..., Hkv, Tk, D)   value (..., Hkv, Tk, Dv)   out (..., Hq, Tq, Dv)
 *   lse   (..., Hq, Tq) or NULL        float32, float64 for float64 inputs; natural logarithm
 *   weights (..., Hq, Tq, Tk) or NULL  float32 or the dtype of query; what it holds is chosen by weights_stage
 *
 * Ranks 2 (T, D), 3 (H, T, D), 4 (B, H, T, D) to SWIFTATTN_MAX_DIMS. The leading dims are broadcast between query, key
 * and value (a missing or 1-sized dim repeats) and together are B in row-major order; out, lse and weights have the
 * full leading dims. attn_mask is broadcast to (B, Hq, Tq, Tk), or to (..., Hq, Tq, Tk) dim by dim. Hkv divides Hq
 * (MHA, GQA, MQA). q, k, v and out have one floating dtype.
 *
 * Edge rows. A row that sees no key: out 0, weights 0, lse -inf (with a sink: the sink). What is in a key or value row
 * that is not visible never matters, NaN and Inf included. NaN in a visible key or in the query makes that row NaN, NaN in
 * a visible value that column of it; other rows are untouched. Zero-size dims give empty or zero results; with D = 0 all scores are 0. Result bits depend on the row's own
 * inputs and the options only, not on threads, the batch or other rows.
 *
 * Scratch memory does not grow with Tq or Tk.
 * Source: Vaswani et al. 2017 (attention), Dao 2023 (FlashAttention-2: tiling with an online softmax). */
int32_t swiftattn_scaled_dot_product_attention(
    const swiftattn_tensor *query, const swiftattn_tensor *key, const swiftattn_tensor *value,
    const swiftattn_attention_options *options, /* NULL: defaults */
    const swiftattn_tensor *out, const swiftattn_tensor *lse, const swiftattn_tensor *weights);

/* Attention over B sequences of different lengths, packed without padding.
 *
 *   query (total_q, Hq, D)   key (total_k, Hkv, D)   value (total_k, Hkv, Dv)   out (total_q, Hq, Dv)
 *   cu_seqlens_q, cu_seqlens_k (B + 1,) int32 or int64: entry b begins at row cu_seqlens[b] and ends before
 *   cu_seqlens[b + 1]; the first is 0, they never decrease, the last is total_q (total_k).
 *   lse (Hq, total_q) or NULL.
 *
 * Meaning as above within each entry; i and j count from the entry's start, b is the entry. Query 0 of an entry stands
 * at kv_length - q_length (as FlashAttention), unless causal is UPPER_LEFT (0) or an offset is given. The options
 * attn_mask, q_lengths and kv_lengths must be NULL. */
int32_t swiftattn_attention_varlen(
    const swiftattn_tensor *query, const swiftattn_tensor *key, const swiftattn_tensor *value,
    const swiftattn_tensor *cu_seqlens_q, const swiftattn_tensor *cu_seqlens_k,
    const swiftattn_attention_options *options,
    const swiftattn_tensor *out, const swiftattn_tensor *lse);

/* Attention over keys and values in blocks: token j of sequence b is row j % block_size of block
 * block_table[b, j / block_size]. Sequences may share blocks.
 *
 *   query (B, Hq, Tq, D)   key_cache (num_blocks, block_size, Hkv, D)   value_cache (num_blocks, block_size, Hkv, Dv)
 *   block_table (B, max_blocks) int32 or int64: of row b the first ceil(kv_lengths[b] / block_size) entries are read, each
 *   0 <= block < num_blocks; the others may hold anything, and so may rows that hold no token
 *   kv_lengths (B,) int32 or int64, 0 to max_blocks * block_size
 *   out (B, Hq, Tq, Dv)   lse (B, Hq, Tq) or NULL   weights (B, Hq, Tq, max_blocks * block_size) or NULL
 *
 * Meaning, data types and edge rows as swiftattn_scaled_dot_product_attention of the same keys in one piece, with the
 * same bits; query 0 stands at kv_length - q_length, unless causal is UPPER_LEFT (0) or an offset is given. The caches have
 * one dtype: query's, or with a query other than float64 any of float32, float16 and bfloat16, widened to float32 as they
 * are read. attn_mask has max_blocks * block_size columns; weights that leave invisible keys in (SCALED, CAPPED) are those
 * of zero keys from kv_lengths[b] on. options->kv_lengths must be NULL. Source: Kwon et al. 2023 (PagedAttention). */
int32_t swiftattn_attention_paged(
    const swiftattn_tensor *query, const swiftattn_tensor *key_cache, const swiftattn_tensor *value_cache,
    const swiftattn_tensor *block_table, const swiftattn_tensor *kv_lengths,
    const swiftattn_attention_options *options,
    const swiftattn_tensor *out, const swiftattn_tensor *lse, const swiftattn_tensor *weights);

/* Attention over the union of disjoint key sets, from the results over each:
 *   lse = ln(sum_n exp(lses[n]));   out = sum_n exp(lses[n] - lse) * outs[n]
 *
 *   outs[n] (..., T, Dv) floating, lses[n] (..., T) float32 (float64 with float64 outs), n < count; count >= 1.
 *   out as outs[n], lse as lses[n]. All outs have one shape and dtype, all lses too.
 * A part with lse -inf has no weight, whatever its out holds; with no part left, out is 0 and lse -inf. A sink belongs
 * to one part only. out and lse may be outs[n] and lses[n] themselves (same data and strides). */
int32_t swiftattn_merge_attention_states(
    const swiftattn_tensor *outs, const swiftattn_tensor *lses, int64_t count,
    const swiftattn_tensor *out, const swiftattn_tensor *lse);

/* Slopes of ALiBi for out (heads,) float32 or float64. With n the largest power of two <= heads: slope[h] =
 * 2^(-8(h+1)/n) for h < n, and 2^(-4(2(h-n)+1)/n) after. Source: Press et al. 2022. */
int32_t swiftattn_alibi_slopes(const swiftattn_tensor *out);

/* ---- Key/value caches -------------------------------------------------------------------------------------- */

/* Keys (B, Hkv, max_len, D) and values (B, Hkv, max_len, Dv) of the tokens seen so far: memory taken once, written in
 * place. Entry b holds its own number of tokens. Any number of threads may read a cache at once, while none changes it. */
typedef struct swiftattn_kv_cache swiftattn_kv_cache;

/* Bits of swiftattn_kv_cache_options.flags: the field is set, even if it holds 0. */
#define SWIFTATTN_KV_CACHE_HAS_VALUE_DIM 1u

typedef struct swiftattn_kv_cache_options {
  uint32_t struct_size;
  uint32_t flags;        /* SWIFTATTN_KV_CACHE_HAS_* */
  int64_t batch;         /* B */
  int64_t kv_heads;      /* Hkv */
  int64_t max_len;       /* tokens that an entry has room for */
  int64_t head_dim;      /* D */
  int64_t value_dim;     /* Dv; default D. HAS_VALUE_DIM */
  swiftattn_dtype dtype; /* of the storage: float32, float16, bfloat16 or int8; all zeros: float32 */
  int32_t reserved;      /* 0 */
} swiftattn_kv_cache_options;

#define SWIFTATTN_KV_CACHE_OPTIONS_INIT { sizeof(swiftattn_kv_cache_options), 0u, 0, 0, 0, 0, 0, { 0, 0, 0 }, 0 }

/* Makes an empty cache in *cache. The system lends the memory page by page, as tokens come. After a failure *cache is
 * untouched. */
int32_t swiftattn_kv_cache_create(const swiftattn_kv_cache_options *options, swiftattn_kv_cache **cache);

/* Frees the cache; NULL is allowed. No call may be using it, and views of it are void. */
void swiftattn_kv_cache_destroy(swiftattn_kv_cache *cache);

/* Adds T tokens behind those that each entry holds, or the first lengths[b] of them.
 *   key (B, Hkv, T, D), value (B, Hkv, T, Dv) float32, float16 or bfloat16; lengths (B,) int32 or int64, 0 to T, or NULL
 * They are rounded to the storage's dtype; of int8 each row (a token's D or Dv elements of one head) becomes
 *   scale = max_i |x[i]| / 127;   q[i] = x[i] / scale, rounded to nearest, ties to even, within -127 to 127
 * in float32, and stands for scale * q[i], off by at most scale / 2 (a row of zeros has scale 0, one with NaN or Inf is
 * NaN). A token beyond max_len is SWIFTATTN_ERROR_INVALID_ARGUMENT, and no entry is changed. */
int32_t swiftattn_kv_cache_append(swiftattn_kv_cache *cache, const swiftattn_tensor *key, const swiftattn_tensor *value,
                                  const swiftattn_tensor *lengths);

/* Forgets all but the first `length` tokens of each entry, or lengths[b] with lengths (B,) int32 or int64 not NULL; entries
 * that hold fewer stay as they are. 0 empties the cache. */
int32_t swiftattn_kv_cache_truncate(swiftattn_kv_cache *cache, int64_t length, const swiftattn_tensor *lengths);

/* Fills in views of the cache's memory, those that are not NULL. They hold until the cache is destroyed, and show what
 * the entries hold now; with L the longest entry's tokens:
 *   keys (B, Hkv, L, D), values (B, Hkv, L, Dv) of the storage's dtype; what lies past an entry's own length has no meaning
 *   key_scales, value_scales (B, Hkv, L) float32; with storage other than int8: data NULL and shape (0,)
 *   lengths (B,) int64, tokens of each entry, at any time
 * They may be changed, lengths excepted. */
int32_t swiftattn_kv_cache_view(const swiftattn_kv_cache *cache, swiftattn_tensor *keys, swiftattn_tensor *values,
                                swiftattn_tensor *key_scales, swiftattn_tensor *value_scales, swiftattn_tensor *lengths);

/* Makes in *fork a cache of its own whose entry i is a copy of entry indices[i]; indices (N,) int32 or int64, NULL: all.
 * Room and storage are the same. After a failure *fork is untouched. */
int32_t swiftattn_kv_cache_fork(const swiftattn_kv_cache *cache, const swiftattn_tensor *indices,
                                swiftattn_kv_cache **fork);

/* Entry i becomes what entry indices[i] was, in place: the beams of a beam search that live on. indices (B,) int32 or
 * int64, any of them any number of times. After a failure nothing is changed. */
int32_t swiftattn_kv_cache_reorder(swiftattn_kv_cache *cache, const swiftattn_tensor *indices);

/* Attention over the tokens that the cache holds: entry b has as many keys as its length says.
 *   query (B, Hq, Tq, D) float32, float16 or bfloat16; Hkv divides Hq
 *   out (B, Hq, Tq, Dv) of query's dtype   lse (B, Hq, Tq) float32 or NULL
 *   weights (B, Hq, Tq, L) float32 or query's dtype, or NULL; L is the longest entry's length, as in attn_mask
 * Meaning and edge rows as swiftattn_scaled_dot_product_attention; query 0 stands at kv_length - q_length, the last one at
 * the last token, unless causal is UPPER_LEFT (0) or an offset is given. LOWER_RIGHT is the usual causal mask. After a
 * ragged append q_lengths are the appended lengths. options->kv_lengths must be NULL.
 * With storage of query's dtype the bits are those of the same keys in a tensor. Other storage is widened to float32 as
 * it is read, and then the bits are those of such float32 keys and values, scale * q where it is int8. */
int32_t swiftattn_attention_kv_cache(
    const swiftattn_tensor *query, const swiftattn_kv_cache *cache, const swiftattn_attention_options *options,
    const swiftattn_tensor *out, const swiftattn_tensor *lse, const swiftattn_tensor *weights);

/* Keys and values in blocks: keys (num_blocks, block_size, Hkv, D), values (num_blocks, block_size, Hkv, Dv), as
 * swiftattn_attention_paged takes them. A sequence is known by a number, which is never given twice, and holds
 * ceil(length / block_size) blocks. A fork shares the blocks of its origin; whoever appends to a block that is shared takes a
 * copy of its own first. Threads as above. Source: Kwon et al. 2023 (PagedAttention). */
typedef struct swiftattn_paged_kv_cache swiftattn_paged_kv_cache;

typedef struct swiftattn_paged_kv_cache_options {
  uint32_t struct_size;
  uint32_t flags;        /* SWIFTATTN_KV_CACHE_HAS_* */
  int64_t num_blocks;    /* 0 to 2^31 - 1 */
  int64_t block_size;    /* tokens of a block, at least 1 */
  int64_t kv_heads;      /* Hkv */
  int64_t head_dim;      /* D */
  int64_t value_dim;     /* Dv; default D. HAS_VALUE_DIM */
  swiftattn_dtype dtype; /* of the storage: float32, float16, bfloat16 or int8; all zeros: float32 */
  int32_t reserved;      /* 0 */
} swiftattn_paged_kv_cache_options;

#define SWIFTATTN_PAGED_KV_CACHE_OPTIONS_INIT { sizeof(swiftattn_paged_kv_cache_options), 0u, 0, 0, 0, 0, 0, { 0, 0, 0 }, 0 }

/* As swiftattn_kv_cache_create and _destroy. */
int32_t swiftattn_paged_kv_cache_create(const swiftattn_paged_kv_cache_options *options,
                                        swiftattn_paged_kv_cache **cache);
void swiftattn_paged_kv_cache_destroy(swiftattn_paged_kv_cache *cache);

/* A new sequence without tokens: its number in *sequence. */
int32_t swiftattn_paged_kv_cache_open(swiftattn_paged_kv_cache *cache, int64_t *sequence);

/* A new sequence that begins with the first `length` tokens of another, -1 is all of them, and shares their blocks: its
 * number in *fork. */
int32_t swiftattn_paged_kv_cache_fork(swiftattn_paged_kv_cache *cache, int64_t sequence, int64_t length, int64_t *fork);

/* Gives a sequence up: blocks that nobody else holds are free, and its number means nothing from now on. */
int32_t swiftattn_paged_kv_cache_close(swiftattn_paged_kv_cache *cache, int64_t sequence);

/* Forgets all but the first `length` tokens of a sequence; a shorter one stays as it is. */
int32_t swiftattn_paged_kv_cache_truncate(swiftattn_paged_kv_cache *cache, int64_t sequence, int64_t length);

/* As swiftattn_kv_cache_append, behind the sequences (B,) int32 or int64, each named once. Too few free blocks are
 * SWIFTATTN_ERROR_INVALID_ARGUMENT, and nothing is changed. */
int32_t swiftattn_paged_kv_cache_append(swiftattn_paged_kv_cache *cache, const swiftattn_tensor *sequences,
                                        const swiftattn_tensor *key, const swiftattn_tensor *value,
                                        const swiftattn_tensor *lengths);

/* What swiftattn_attention_paged takes for the sequences (B,) int32 or int64; each output may be NULL. lengths (B,) int32 or
 * int64; block_table (B, N) int32 or int64, N at least the blocks of the longest, with -1 past the blocks of a sequence.
 * *free_blocks: how many nobody holds. */
int32_t swiftattn_paged_kv_cache_table(const swiftattn_paged_kv_cache *cache, const swiftattn_tensor *sequences,
                                       const swiftattn_tensor *block_table, const swiftattn_tensor *lengths,
                                       int64_t *free_blocks);

/* As swiftattn_kv_cache_view: keys (num_blocks, block_size, Hkv, D), values (num_blocks, block_size, Hkv, Dv), key_scales and
 * value_scales (num_blocks, block_size, Hkv). Rows that hold no token have no meaning. */
int32_t swiftattn_paged_kv_cache_view(const swiftattn_paged_kv_cache *cache, swiftattn_tensor *keys,
                                      swiftattn_tensor *values, swiftattn_tensor *key_scales,
                                      swiftattn_tensor *value_scales);

/* As swiftattn_attention_kv_cache over the sequences (B,) int32 or int64, any of them any number of times; L is the longest
 * one's length. */
int32_t swiftattn_attention_paged_kv_cache(
    const swiftattn_tensor *query, const swiftattn_paged_kv_cache *cache, const swiftattn_tensor *sequences,
    const swiftattn_attention_options *options,
    const swiftattn_tensor *out, const swiftattn_tensor *lse, const swiftattn_tensor *weights);

/* ---- Attention backward ------------------------------------------------------------------------------------ */

/* Gradients of scaled dot-product attention: from grad_out, the gradient of a loss with respect to out, those with respect to
 * the inputs. With P, s and dropout as in swiftattn_scaled_dot_product_attention, z the factor that dropout gave an entry
 * (0 or 1 / (1 - dropout_p); 1 without), the sums over query heads h of a key/value head's group in order:
 *
 *   delta[i]  = sum_d grad_out[i,d] * out[i,d]
 *   ds[i,j]   = P[i,j] * (z[i,j] * grad_out[i].v[j] - delta[i])            0 where key j is not visible
 *   dt[i,j]   = scale * ds[i,j] * (1 - tanh(scale * q[i].k[j] / softcap)^2)     without a softcap the last factor is 1
 *   dq[i]     = sum_j dt[i,j] * k[j]
 *   dk[j]     = sum_h sum_i dt[i,j] * q[i]
 *   dv[j]     = sum_h sum_i z[i,j] * P[i,j] * grad_out[i]
 *   dbias     = ds, summed over the dims that attn_mask is broadcast over
 *   dsinks[h] = -sum_b sum_i exp(sinks[h] - lse[i]) * delta[i]
 *
 *   grad_out (..., Hq, Tq, Dv)   as out, in the dtype of query
 *   query, key, value, options   those of the forward call; weights_stage is not used, and products are exact or float32's
 *   out (..., Hq, Tq, Dv), lse (..., Hq, Tq)   the forward's results
 *   dq, dk, dv   shape and dtype of query, key and value; each may be NULL: not wanted
 *   dbias        shape and dtype of attn_mask, which must be a float mask; or NULL
 *   dsinks       shape and dtype of sinks, which must be given; or NULL
 *
 * The gradient of an input that is broadcast (missing or 1-sized leading dims) has the input's own shape: the sum over what
 * the dims stand for. A stride of 0 in a full-sized dim is not a broadcast: each entry then gets its own gradient.
 * float16 and bfloat16 are computed in float32 and rounded once, on output.
 *
 * Edge rows. A row that sees no key gives and gets zero gradients, whatever its grad_out holds. What is in a key or value
 * row that is not visible never matters, NaN and Inf included; its own gradients are 0. Zero-size dims give empty or zero
 * gradients. Result bits do not depend on threads or on the other entries of the batch: no atomics, fixed order of sums.
 *
 * The scores are computed anew; memory besides the arguments is O(Tq + Tk) for each head.
 * Source: Dao 2023 (FlashAttention-2). */
int32_t swiftattn_scaled_dot_product_attention_backward(
    const swiftattn_tensor *grad_out, const swiftattn_tensor *query, const swiftattn_tensor *key,
    const swiftattn_tensor *value, const swiftattn_tensor *out, const swiftattn_tensor *lse,
    const swiftattn_attention_options *options, /* NULL: defaults */
    const swiftattn_tensor *dq, const swiftattn_tensor *dk, const swiftattn_tensor *dv, const swiftattn_tensor *dbias,
    const swiftattn_tensor *dsinks);

/* The same for swiftattn_attention_varlen: grad_out and out (total_q, Hq, Dv), lse (Hq, total_q), the rest as there. */
int32_t swiftattn_attention_varlen_backward(
    const swiftattn_tensor *grad_out, const swiftattn_tensor *query, const swiftattn_tensor *key,
    const swiftattn_tensor *value, const swiftattn_tensor *out, const swiftattn_tensor *lse,
    const swiftattn_tensor *cu_seqlens_q, const swiftattn_tensor *cu_seqlens_k,
    const swiftattn_attention_options *options, const swiftattn_tensor *dq, const swiftattn_tensor *dk,
    const swiftattn_tensor *dv, const swiftattn_tensor *dsinks);

/* ---- Matrix products --------------------------------------------------------------------------------------- */

/* out = a . b, as NumPy's and PyTorch's matmul: a (..., M, K), b (..., K, N), out (..., M, N), leading dims broadcast;
 * a rank-1 a is (1, K) and a rank-1 b is (K, 1), and out then lacks that dim. One floating dtype. K = 0 gives zeros.
 * The sums over K run in an order that depends on K alone: result bits of a row do not depend on M or N. */
int32_t swiftattn_matmul(const swiftattn_tensor *a, const swiftattn_tensor *b, int32_t precision,
                         const swiftattn_tensor *out);

/* Values of swiftattn_linear_options.activation. */
#define SWIFTATTN_ACTIVATION_NONE 0
#define SWIFTATTN_ACTIVATION_RELU 1
#define SWIFTATTN_ACTIVATION_GELU 2      /* erf */
#define SWIFTATTN_ACTIVATION_GELU_TANH 3
#define SWIFTATTN_ACTIVATION_SILU 4

typedef struct swiftattn_linear_options {
  uint32_t struct_size;
  int32_t activation; /* SWIFTATTN_ACTIVATION_* */
  int32_t precision;  /* SWIFTATTN_PRECISION_* */
} swiftattn_linear_options;

#define SWIFTATTN_LINEAR_OPTIONS_INIT { sizeof(swiftattn_linear_options), \
  SWIFTATTN_ACTIVATION_NONE, SWIFTATTN_PRECISION_HIGHEST }

/* out = residual + activation(x . weight^T + bias)
 *   x (..., K), weight (N, K), bias (N,) or NULL, residual broadcast to (..., N) or NULL, out (..., N). One floating
 * dtype. The sum, bias, activation and residual are taken in float32 (float64) and rounded once. out may be residual
 * itself (same data and strides). options NULL: defaults. Result bits of a row do not depend on the number of rows. */
int32_t swiftattn_linear(const swiftattn_tensor *x, const swiftattn_tensor *weight, const swiftattn_tensor *bias,
                         const swiftattn_tensor *residual, const swiftattn_linear_options *options,
                         const swiftattn_tensor *out);

/* A weight (N, K) in the order in which products read it: packed once, used in many calls, from any number of threads at
 * once. The handle owns a copy; the tensor may go away. It is good in this process only. */
typedef struct swiftattn_packed_weight swiftattn_packed_weight;

/* Packs weight (N, K) floating into *packed. After a failure *packed is untouched. */
int32_t swiftattn_pack_weight(const swiftattn_tensor *weight, swiftattn_packed_weight **packed);

/* Frees the handle; NULL is allowed. No call may be using it. */
void swiftattn_packed_weight_destroy(swiftattn_packed_weight *packed);

/* As swiftattn_linear with the weight that was packed: the same result, bit for bit. */
int32_t swiftattn_linear_packed(const swiftattn_tensor *x, const swiftattn_packed_weight *packed,
                                const swiftattn_tensor *bias, const swiftattn_tensor *residual,
                                const swiftattn_linear_options *options, const swiftattn_tensor *out);

/* ---- Rows: softmax and norms ------------------------------------------------------------------------------- */

/* out = exp(x - max) / sum exp(x - max) along axis (-ndim <= axis < ndim). x and out floating, one shape and dtype; out
 * may be x. A row of -inf alone gives zeros (PyTorch: NaN); an empty axis gives an empty out. */
int32_t swiftattn_softmax(const swiftattn_tensor *x, int64_t axis, const swiftattn_tensor *out);

/* out = (x - mean) / sqrt(var + eps) * weight + bias over the last dim, var biased (divided by N).
 * x and out (..., N) floating, one shape and dtype; weight and bias (N,) of that dtype or float32, or NULL. eps finite and
 * >= 0. out may be x. Source: Ba et al. 2016. */
int32_t swiftattn_layer_norm(const swiftattn_tensor *x, const swiftattn_tensor *weight, const swiftattn_tensor *bias,
                             double eps, const swiftattn_tensor *out);

/* out = x / sqrt(mean(x^2) + eps) * weight over the last dim. Otherwise as layer_norm. Source: Zhang, Sennrich 2019. */
int32_t swiftattn_rms_norm(const swiftattn_tensor *x, const swiftattn_tensor *weight, double eps,
                           const swiftattn_tensor *out);

/* ---- Activations ------------------------------------------------------------------------------------------- */

/* Element-wise; x, gate, up and out have one shape and one floating dtype; out may be an input.
 *   relu(x) = max(x, 0), NaN stays NaN      silu(x) = x / (1 + exp(-x))
 *   gelu(x) = x/2 * (1 + erf(x / sqrt(2)))  or with SWIFTATTN_GELU_TANH
 *             x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
 *   swiglu  = silu(gate) * up               geglu = gelu(gate) * up
 * Source: Hendrycks, Gimpel 2016 (gelu); Shazeer 2020 (swiglu, geglu). */
#define SWIFTATTN_GELU_NONE 0
#define SWIFTATTN_GELU_TANH 1
int32_t swiftattn_relu(const swiftattn_tensor *x, const swiftattn_tensor *out);
int32_t swiftattn_gelu(const swiftattn_tensor *x, int32_t approximate, const swiftattn_tensor *out);
int32_t swiftattn_silu(const swiftattn_tensor *x, const swiftattn_tensor *out);
int32_t swiftattn_swiglu(const swiftattn_tensor *gate, const swiftattn_tensor *up, const swiftattn_tensor *out);
int32_t swiftattn_geglu(const swiftattn_tensor *gate, const swiftattn_tensor *up, int32_t approximate,
                        const swiftattn_tensor *out);

/* ---- Embeddings -------------------------------------------------------------------------------------------- */

/* out[..., :] = table[ids[...], :] (+ residual[..., :])
 *   ids (...) int32 or int64, each 0 <= id < V; table (V, N) and out (..., N) of one floating dtype; residual broadcast
 * to (..., N) or NULL. out may be residual itself. An id out of range is SWIFTATTN_ERROR_INVALID_ARGUMENT. */
int32_t swiftattn_embedding(const swiftattn_tensor *ids, const swiftattn_tensor *table,
                            const swiftattn_tensor *residual, const swiftattn_tensor *out);

/* out[t, 2i] = sin(t / 10000^(2i/dim)), out[t, 2i+1] = cos of the same; out (length, dim) floating; an odd dim ends with
 * a sine. Angles are taken in float64. Source: Vaswani et al. 2017, section 3.5. */
int32_t swiftattn_sinusoidal_positions(const swiftattn_tensor *out);

/* ---- Rotary positions -------------------------------------------------------------------------------------- */

/* Values of swiftattn_rotary_options.scaling: how the frequencies inv[i] = base^(-2i/dim) are stretched for contexts
 * longer than those trained on. The words, defaults and edge cases are those of Hugging Face's rope_scaling; f is
 * factor, L original_length, n the length of the tables.
 *   LINEAR    inv / f
 *   DYNAMIC   base * (f * max(n, L) / L - (f - 1))^(dim/(dim-2)) in place of base
 *   NTK       base * f^(dim/(dim-2)) in place of base
 *   LLAMA3    with w = 2 pi / inv: inv where w < L / high_freq_factor, inv / f where w > L / low_freq_factor, between
 *             them ((1 - s) / f + s) * inv, s = (L / w - low_freq_factor) / (high_freq_factor - low_freq_factor)
 *   YARN      r / f * inv + (1 - r) * inv, r = clamp((i - a) / (b - a), 0, 1); a and b are the dims that turn beta_fast
 *             and beta_slow times over L: dim * ln(L / (2 pi beta)) / (2 ln base), rounded outwards unless no_truncate,
 *             a >= 0, b <= dim - 1, and b + 0.001 where they meet
 *   LONGROPE  inv / long_factors[i] where n > L, else inv / short_factors[i]
 * Source: Chen et al. 2023 (linear), Peng et al. 2023 (yarn, ntk), Dubey et al. 2024 (llama3), Ding et al. 2024
 * (longrope). */
#define SWIFTATTN_ROTARY_NONE 0
#define SWIFTATTN_ROTARY_LINEAR 1
#define SWIFTATTN_ROTARY_DYNAMIC 2
#define SWIFTATTN_ROTARY_NTK 3
#define SWIFTATTN_ROTARY_LLAMA3 4
#define SWIFTATTN_ROTARY_YARN 5
#define SWIFTATTN_ROTARY_LONGROPE 6

/* Options of swiftattn_rotary_tables; 0 stands for the default. All numbers are finite. */
typedef struct swiftattn_rotary_options {
  uint32_t struct_size;
  int32_t scaling;         /* SWIFTATTN_ROTARY_* */
  double base;             /* > 1; default 10000 */
  double factor;           /* > 0; needed by all scalings (by LONGROPE unless attention_factor is given) */
  int64_t original_length; /* positions trained on, >= 2; needed by DYNAMIC, LLAMA3, YARN and LONGROPE */
  double attention_factor; /* > 0, of YARN and LONGROPE: multiplies both tables. Default: YARN m(f, mscale) /
                              m(f, mscale_all_dim) if both are given, else m(f, 1), m(f, k) = 0.1 k ln f + 1; LONGROPE
                              sqrt(1 + ln f / ln L); 1 where f <= 1 */
  double mscale, mscale_all_dim;             /* >= 0, of YARN */
  double beta_fast, beta_slow;               /* > 0, of YARN; default 32 and 1 */
  double low_freq_factor, high_freq_factor;  /* > 0, of LLAMA3, low < high; default 1 and 4 */
  int32_t no_truncate;                       /* of YARN; 1: a and b stay fractions */
  int32_t reserved;                          /* 0 */
  const swiftattn_tensor *short_factors, *long_factors; /* (dim/2,) float32 or float64, each > 0; of LONGROPE */
} swiftattn_rotary_options;

#define SWIFTATTN_ROTARY_OPTIONS_INIT { sizeof(swiftattn_rotary_options), SWIFTATTN_ROTARY_NONE, \
  0.0, 0.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, NULL, NULL }

/* cos[t, i] = m * cos(t * inv[i]), sin[t, i] = m * sin(t * inv[i]), m the attention factor (1 but for YARN and LONGROPE).
 * cos, sin (length, dim/2) floating, of one dtype. Angles are taken in float64. options NULL: defaults.
 * Source: Su et al. 2021. */
int32_t swiftattn_rotary_tables(const swiftattn_rotary_options *options, const swiftattn_tensor *cos,
                                const swiftattn_tensor *sin);

/* Values of pairing: which of the first R elements of a row are turned together, R = 2 * columns of cos. */
#define SWIFTATTN_ROTARY_HALVES 0     /* (i, i + R/2), as GPT-NeoX and Hugging Face's Llama */
#define SWIFTATTN_ROTARY_NEIGHBOURS 1 /* (2i, 2i + 1), "interleaved" */

/* out[a] = x[a] cos - x[b] sin, out[b] = x[b] cos + x[a] sin for each pair (a, b); elements behind the first R are copied.
 *   x, out (..., T, D) of one floating dtype; with three dims or more (..., H, T, D). out may be x.
 *   cos, sin (length, R/2), R <= D, of x's dtype or float32.
 *   position_ids int32 or int64, broadcast to (..., T), one for all heads: the row of the tables, 0 <= id < length, else
 *   SWIFTATTN_ERROR_INVALID_ARGUMENT. NULL: row t stands at t, T <= length. Source: Su et al. 2021. */
int32_t swiftattn_rotary_embedding(const swiftattn_tensor *x, const swiftattn_tensor *cos, const swiftattn_tensor *sin,
                                   const swiftattn_tensor *position_ids, int32_t pairing, const swiftattn_tensor *out);

/* dx from grad_out, both as x: the rotation by the same angles the other way round. dx may be grad_out. */
int32_t swiftattn_rotary_embedding_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *cos,
                                            const swiftattn_tensor *sin, const swiftattn_tensor *position_ids,
                                            int32_t pairing, const swiftattn_tensor *dx);
/* ---- Blocks ------------------------------------------------------------------------------------------------ */

/* A block with parameters: an attention, a layer, a stack of layers. A handle may be used by any number of threads at
 * once, as long as none of them changes parameters or the mode. Parameters begin as zeros. */
typedef struct swiftattn_module swiftattn_module;

/* Frees the handle; NULL is allowed. No call may be using it. */
void swiftattn_module_destroy(swiftattn_module *module);

/* Number of parameters: all tensors of torch.nn's state dict, in its order. */
int32_t swiftattn_module_parameter_count(const swiftattn_module *module, int64_t *count);

/* Parameter number index: its name in torch.nn's state dict and a view of its elements, contiguous. Both are the
 * module's and last as long as it. After writing to a view call swiftattn_module_parameters_changed. */
int32_t swiftattn_module_parameter(const swiftattn_module *module, int64_t index, const char **name,
                                   swiftattn_tensor *parameter);

/* Copies source, of the parameter's shape and any floating dtype, into the parameter of that name. */
int32_t swiftattn_module_load_parameter(swiftattn_module *module, const char *name, const swiftattn_tensor *source);

/* Parameters were written to: what was derived from them is made anew. */
int32_t swiftattn_module_parameters_changed(swiftattn_module *module);

/* Values of the positions fields: how positions enter attention. */
#define SWIFTATTN_POSITIONS_NONE 0
#define SWIFTATTN_POSITIONS_ROPE 1  /* queries and keys are rotated, pairs (i, i + D/2), base 10000 */
#define SWIFTATTN_POSITIONS_ALIBI 2 /* slopes of swiftattn_alibi_slopes */

/* Bits of swiftattn_multihead_attention_options.flags. */
#define SWIFTATTN_MULTIHEAD_NO_BIAS 1u              /* projections without bias */
#define SWIFTATTN_MULTIHEAD_NO_OUTPUT_PROJECTION 2u /* the heads side by side are the result */
#define SWIFTATTN_MULTIHEAD_ADD_BIAS_KV 4u          /* a learned key and value behind the others */
#define SWIFTATTN_MULTIHEAD_ADD_ZERO_ATTN 8u        /* a key and value of zeros behind the others */
#define SWIFTATTN_MULTIHEAD_HAS_SCALE 16u           /* the field is set, even if it holds 0 */

typedef struct swiftattn_multihead_attention_options {
  uint32_t struct_size;
  uint32_t flags;        /* SWIFTATTN_MULTIHEAD_* */
  int64_t embed_dim;     /* E, a multiple of num_heads */
  int64_t num_heads;
  int64_t num_kv_heads;  /* a divisor of num_heads; 0: as many */
  int64_t kdim, vdim;    /* widths of key and value rows; 0: E */
  double scale;          /* of the scores; default 1/sqrt(E / num_heads). HAS_SCALE */
  int32_t positions;     /* SWIFTATTN_POSITIONS_* */
  int32_t precision;     /* SWIFTATTN_PRECISION_* */
  swiftattn_dtype dtype; /* floating, of the parameters, inputs and outputs; zeros: float32 */
  double dropout;        /* 0 <= dropout < 1, of the weights in training */
} swiftattn_multihead_attention_options;

/* embed_dim and num_heads must be set. */
#define SWIFTATTN_MULTIHEAD_ATTENTION_OPTIONS_INIT { sizeof(swiftattn_multihead_attention_options), \
  0u, 0, 0, 0, 0, 0, 0.0, SWIFTATTN_POSITIONS_NONE, SWIFTATTN_PRECISION_HIGHEST, { 0, 0, 0 }, 0.0 }

/* Multi-head attention with D = E / num_heads, kvE = num_kv_heads * D. Parameters: in_proj_weight (E + 2 kvE, E) if key
 * and value rows are E wide, else q_proj_weight (E, E), k_proj_weight (kvE, kdim), v_proj_weight (kvE, vdim); in_proj_bias
 * (E + 2 kvE,); bias_k, bias_v (1, 1, kvE); out_proj.weight (E, E), out_proj.bias (E,). */
int32_t swiftattn_multihead_attention_create(const swiftattn_multihead_attention_options *options,
                                             swiftattn_module **module);

/* Which keys a block's queries see, with torch.nn's polarity: in bool masks true HIDES a key; float masks (float32 or the
 * module's dtype) are added to the scores. A query that sees no key attends to nothing: its heads are 0 (PyTorch: NaN).
 * Packed sequences take no masks. All zero: every key is visible. */
typedef struct swiftattn_visibility {
  const swiftattn_tensor *attn_mask;        /* (T, S) or (B * num_heads, T, S) */
  const swiftattn_tensor *key_padding_mask; /* (B, S); (S,) for inputs without a batch */
  int32_t is_causal;                        /* not 0: key j is hidden from query i < j, on top of the masks */
  int32_t reserved;                         /* 0 */
} swiftattn_visibility;

typedef struct swiftattn_multihead_attention_call {
  uint32_t struct_size;
  int32_t average_weights; /* not 0: weights is the mean over the heads */
  swiftattn_visibility visibility;
  const swiftattn_tensor *cu_seqlens_q; /* (B + 1,) int32 or int64: inputs are packed, as in swiftattn_attention_varlen */
  const swiftattn_tensor *cu_seqlens_k; /* with it */
} swiftattn_multihead_attention_call;

#define SWIFTATTN_MULTIHEAD_ATTENTION_CALL_INIT { sizeof(swiftattn_multihead_attention_call), \
  0, { NULL, NULL, 0, 0 }, NULL, NULL }

/* out = concat_h(softmax(scale * Q_h K_h^T) V_h) W_o^T + b_o; Q, K, V projected from query, key and value.
 *   query (B, T, E), key (B, S, kdim), value (B, S, vdim), out (B, T, E); or without B; or packed (rows, E), ...
 *   weights NULL, or (B, num_heads, T, S) in float32 or the module's dtype, or averaged (B, T, S) in the module's dtype; S
 *   counts the keys that add_bias_kv and add_zero_attn put behind. Probabilities before dropout.
 * One tensor passed as key and value, or as all three, is projected once. call NULL: all keys are visible.
 * Source: Vaswani et al. 2017, section 3.2.2. */
int32_t swiftattn_multihead_attention_forward(
    const swiftattn_module *module, const swiftattn_tensor *query, const swiftattn_tensor *key,
    const swiftattn_tensor *value, const swiftattn_multihead_attention_call *call,
    const swiftattn_tensor *out, const swiftattn_tensor *weights);

/* Values of swiftattn_layer_options.activation: between the two products of the feed-forward part. */
#define SWIFTATTN_FEED_FORWARD_RELU 0
#define SWIFTATTN_FEED_FORWARD_GELU 1      /* erf */
#define SWIFTATTN_FEED_FORWARD_GELU_TANH 2
#define SWIFTATTN_FEED_FORWARD_SILU 3
#define SWIFTATTN_FEED_FORWARD_SWIGLU 4    /* gated: silu(linear_gate x) * linear1 x */
#define SWIFTATTN_FEED_FORWARD_GEGLU 5     /* gated: gelu(linear_gate x) * linear1 x */

/* Kinds of norms. */
#define SWIFTATTN_NORM_LAYER 0
#define SWIFTATTN_NORM_RMS 1
#define SWIFTATTN_NORM_NONE 2 /* of the final norm of stacks alone */

/* Bits of swiftattn_layer_options.flags. */
#define SWIFTATTN_LAYER_NORM_FIRST 1u /* x + part(norm(x)) instead of norm(x + part(x)) */
#define SWIFTATTN_LAYER_NO_BIAS 2u    /* products and layer norms without bias */
#define SWIFTATTN_LAYER_HAS_EPS 4u    /* the field is set, even if it holds 0 */

/* What a Transformer's layers are made of. */
typedef struct swiftattn_layer_options {
  uint32_t struct_size;
  uint32_t flags;          /* SWIFTATTN_LAYER_* */
  int64_t d_model;         /* E, a multiple of nhead */
  int64_t nhead;
  int64_t num_kv_heads;    /* a divisor of nhead; 0: as many */
  int64_t dim_feedforward; /* F; 0: 2048 */
  double eps;              /* of the norms; default 1e-5. HAS_EPS */
  int32_t activation;      /* SWIFTATTN_FEED_FORWARD_* */
  int32_t norm;            /* SWIFTATTN_NORM_LAYER or RMS */
  int32_t positions;       /* SWIFTATTN_POSITIONS_*, of self-attention */
  int32_t precision;       /* SWIFTATTN_PRECISION_* */
  swiftattn_dtype dtype;   /* floating, of the parameters, inputs and outputs; zeros: float32 */
  double dropout;          /* 0 <= dropout < 1, in training: of attention weights, activations, the results of attention and
                              feed-forward part before their residuals, and of embeddings */
} swiftattn_layer_options;

/* d_model and nhead must be set. */
#define SWIFTATTN_LAYER_OPTIONS_INIT { sizeof(swiftattn_layer_options), 0u, 0, 0, 0, 0, 0.0, \
  SWIFTATTN_FEED_FORWARD_RELU, SWIFTATTN_NORM_LAYER, SWIFTATTN_POSITIONS_NONE, SWIFTATTN_PRECISION_HIGHEST, { 0, 0, 0 }, 0.0 }

/* Layers and stacks of them, with torch.nn's parameter names: self_attn.*, multihead_attn.* (decoder), linear1.*,
 * linear_gate.* (gated), linear2.*, norm1.*, norm2.*, norm3.* (decoder); in a stack behind layers.N., then norm.*; in a
 * transformer behind encoder. and decoder. Norms begin as ones. A stack's final_norm is a SWIFTATTN_NORM_*; both stacks of a
 * transformer end with the norm of the options. */
int32_t swiftattn_encoder_layer_create(const swiftattn_layer_options *options, swiftattn_module **module);
int32_t swiftattn_encoder_create(const swiftattn_layer_options *options, int64_t num_layers, int32_t final_norm,
                                 swiftattn_module **module);
int32_t swiftattn_decoder_layer_create(const swiftattn_layer_options *options, swiftattn_module **module);
int32_t swiftattn_decoder_create(const swiftattn_layer_options *options, int64_t num_layers, int32_t final_norm,
                                 swiftattn_module **module);
int32_t swiftattn_transformer_create(const swiftattn_layer_options *options, int64_t num_encoder_layers,
                                     int64_t num_decoder_layers, swiftattn_module **module);

typedef struct swiftattn_layer_call {
  uint32_t struct_size;
  int32_t reserved;                          /* 0 */
  swiftattn_visibility visibility;           /* of x or tgt among itself */
  swiftattn_visibility memory;               /* of tgt on the memory */
  swiftattn_visibility src;                  /* of a transformer's src among itself */
  const swiftattn_tensor *cu_seqlens;        /* (B + 1,): x or tgt is packed, (rows, E) */
  const swiftattn_tensor *memory_cu_seqlens; /* and so is the memory or src */
} swiftattn_layer_call;

#define SWIFTATTN_LAYER_CALL_INIT { sizeof(swiftattn_layer_call), \
  0, { NULL, NULL, 0, 0 }, { NULL, NULL, 0, 0 }, { NULL, NULL, 0, 0 }, NULL, NULL }

/* With SA self-attention, CA cross-attention on the memory and FF linear2(activation(linear1 x)):
 *   encoder layer   y = norm1(x + SA(x)), out = norm2(y + FF(y))
 *                   or with NORM_FIRST y = x + SA(norm1(x)), out = y + FF(norm2(y))
 *   decoder layer   likewise norm1 with SA, norm2 with CA, norm3 with FF
 *   stack           its layers in turn, then the final norm
 *   transformer     decoder(tgt, encoder(src))
 *   x, src, tgt, memory and out (B, T, E), or without B, or packed (rows, E); out as x or tgt.
 * A layer's module and a stack's run by the same function. call NULL: everything is visible. A row of x that is padding is
 * computed like the others. Source: Vaswani et al. 2017, section 3; Xiong et al. 2020 (pre-norm). */
int32_t swiftattn_encoder_forward(const swiftattn_module *module, const swiftattn_tensor *x,
                                  const swiftattn_layer_call *call, const swiftattn_tensor *out);
int32_t swiftattn_decoder_forward(const swiftattn_module *module, const swiftattn_tensor *tgt,
                                  const swiftattn_tensor *memory, const swiftattn_layer_call *call,
                                  const swiftattn_tensor *out);
int32_t swiftattn_transformer_forward(const swiftattn_module *module, const swiftattn_tensor *src,
                                      const swiftattn_tensor *tgt, const swiftattn_layer_call *call,
                                      const swiftattn_tensor *out);

/* Values of swiftattn_token_model_options.token_positions: what is added to the rows of tokens. */
#define SWIFTATTN_TOKEN_POSITIONS_NONE 0
#define SWIFTATTN_TOKEN_POSITIONS_SINUSOIDAL 1 /* swiftattn_sinusoidal_positions */
#define SWIFTATTN_TOKEN_POSITIONS_LEARNED 2    /* a table of max_positions rows */

/* Values of swiftattn_token_model_options.head: what becomes of the last rows. */
#define SWIFTATTN_HEAD_NONE 0
#define SWIFTATTN_HEAD_VOCABULARY 1      /* logits over the vocabulary */
#define SWIFTATTN_HEAD_TIED_VOCABULARY 2 /* the same, from the embedding's table */
#define SWIFTATTN_HEAD_CLASSES 3         /* logits over num_classes */

/* Bits of swiftattn_token_model_options.flags. */
#define SWIFTATTN_TOKEN_MODEL_EMBEDDING_NORM 1u /* a norm over the sum of token, position and type */
#define SWIFTATTN_TOKEN_MODEL_SHARED_LAYERS 2u  /* one layer is run num_layers times */
#define SWIFTATTN_TOKEN_MODEL_HEAD_BIAS 4u
#define SWIFTATTN_TOKEN_MODEL_ATTENTION_ONLY 8u /* layers without norms, residuals, feed-forward part, output projection */

typedef struct swiftattn_token_model_options {
  uint32_t struct_size;
  uint32_t flags;                       /* SWIFTATTN_TOKEN_MODEL_* */
  const swiftattn_layer_options *layer; /* of every layer; E is its d_model */
  int64_t num_layers;
  int64_t vocab_size;                   /* V */
  int64_t embedding_dim;                /* W, width of the tables; 0: E. Otherwise a projection follows */
  int64_t max_positions;                /* of learned positions; 0: 512 */
  int64_t first_position;               /* row of the first token in the position table */
  int64_t type_vocab_size;              /* kinds of tokens; 0: none */
  int64_t num_classes;                  /* of SWIFTATTN_HEAD_CLASSES */
  int32_t token_positions;              /* SWIFTATTN_TOKEN_POSITIONS_* */
  int32_t head;                         /* SWIFTATTN_HEAD_* */
  int32_t final_norm;                   /* SWIFTATTN_NORM_* */
  int32_t reserved;                     /* 0 */
} swiftattn_token_model_options;

/* A Transformer over tokens: head(norm(layers(embedding(ids)))); an encoder, or with is_causal a language model.
 * Parameters: embedding.weight (V, W), embedding.positions.weight (max_positions, W) if learned, embedding.types.weight
 * (type_vocab_size, W), embedding.norm.*, embedding.projection.weight (E, W) and .bias (E,) where W is not E; layers.N.*, norm.*;
 * head.weight (V, W) or (num_classes, E) unless tied, head.bias, head.projection.weight (W, E) for a vocabulary where W is not
 * E. */
int32_t swiftattn_token_model_create(const swiftattn_token_model_options *options, swiftattn_module **module);

/* Values of swiftattn_token_model_call.pooling: one row for a sequence instead of one for each token. */
#define SWIFTATTN_POOLING_NONE 0
#define SWIFTATTN_POOLING_MEAN 1  /* without padding; of a sequence without tokens 0 */
#define SWIFTATTN_POOLING_FIRST 2

typedef struct swiftattn_token_model_call {
  uint32_t struct_size;
  int32_t pooling;                    /* SWIFTATTN_POOLING_* */
  int32_t normalize;                  /* not 0: rows of the result are scaled to length 1 (without a head) */
  int32_t reserved;                   /* 0 */
  swiftattn_visibility visibility;    /* of the tokens among themselves; pooling leaves out what key_padding_mask hides */
  const swiftattn_tensor *cu_seqlens; /* (B + 1,): ids are packed, (rows,) */
  const swiftattn_tensor *type_ids;   /* as ids; NULL: 0 */
  const swiftattn_tensor *hidden;     /* NULL, or written: (L + 1, ..., E), the rows before, between and after the L layers */
  const swiftattn_tensor *attentions; /* NULL, or written: (L, B, nhead, T, T) of a batch, each layer's attention weights */
} swiftattn_token_model_call;

#define SWIFTATTN_TOKEN_MODEL_CALL_INIT { sizeof(swiftattn_token_model_call), \
  SWIFTATTN_POOLING_NONE, 0, 0, { NULL, NULL, 0, 0 }, NULL, NULL, NULL, NULL }

/* ids (B, T) or packed (rows,) int32 or int64 -> out (B, T, N) or (rows, N), with pooling (B, N); N is E, V or num_classes.
 * call NULL: everything is visible, no pooling. Packed sequences and a padded batch give the same bits. */
int32_t swiftattn_token_model_forward(const swiftattn_module *module, const swiftattn_tensor *ids,
                                      const swiftattn_token_model_call *call, const swiftattn_tensor *out);

/* Bits of swiftattn_encoder_decoder_options.flags. */
#define SWIFTATTN_ENCODER_DECODER_SHARED_EMBEDDING 1u /* of source and target */
#define SWIFTATTN_ENCODER_DECODER_TIED_HEAD 2u        /* the head's weight is the target embedding's table */
#define SWIFTATTN_ENCODER_DECODER_HEAD_BIAS 4u

typedef struct swiftattn_encoder_decoder_options {
  uint32_t struct_size;
  uint32_t flags;                       /* SWIFTATTN_ENCODER_DECODER_* */
  const swiftattn_layer_options *layer; /* of every layer; E is its d_model */
  int64_t num_encoder_layers;
  int64_t num_decoder_layers;
  int64_t src_vocab_size;
  int64_t tgt_vocab_size;               /* V; not read with SHARED_EMBEDDING */
  int64_t embedding_dim;                /* W of both embeddings; 0: E. Otherwise a projection follows */
  int64_t max_positions;                /* of learned positions; 0: 512 */
  int32_t token_positions;              /* SWIFTATTN_TOKEN_POSITIONS_* */
  int32_t reserved;                     /* 0 */
} swiftattn_encoder_decoder_options;

/* The Transformer of the paper over tokens: head(decoder(embedding(tgt), encoder(embedding(src)))). Parameters:
 * src_embedding.* and, unless shared, tgt_embedding.* as a token model's embedding.*; encoder.*, decoder.* as a transformer's;
 * head.* as a token model's. */
int32_t swiftattn_encoder_decoder_create(const swiftattn_encoder_decoder_options *options, swiftattn_module **module);

/* src (B, S), tgt (B, T) int32 or int64 -> out (B, T, V) logits; attentions NULL, or written: (num_decoder_layers, B, nhead, T, S),
 * the weights of cross-attention. call as a transformer's, without offsets; NULL: everything is visible, to earlier tokens
 * of tgt too. */
int32_t swiftattn_encoder_decoder_forward(const swiftattn_module *module, const swiftattn_tensor *src,
                                          const swiftattn_tensor *tgt, const swiftattn_layer_call *call,
                                          const swiftattn_tensor *out, const swiftattn_tensor *attentions);

typedef struct swiftattn_beam_options {
  uint32_t struct_size;
  int32_t beams;         /* 0 or 1: greedy decoding */
  int64_t start;         /* the token that every sequence begins with; it is not part of the result */
  int64_t end;           /* the token that ends a sequence; it is part of it */
  uint32_t flags;        /* SWIFTATTN_BEAM_HAS_LENGTH_PENALTY: the field is set, even if it holds 0 */
  int32_t reserved;      /* 0 */
  double length_penalty; /* n tokens are worth the sum of their log-probabilities / n^length_penalty; default 1 */
} swiftattn_beam_options;

#define SWIFTATTN_BEAM_HAS_LENGTH_PENALTY 1u

/* For each of src (B, S) the best sequence that a beam search finds, token by token through KV caches; the memory's keys and
 * values are projected once.
 *   key_padding_mask (B, S) as in swiftattn_visibility, or NULL
 *   ids (B, N) int64, written: at most N tokens, -1 behind the last; scores (B,) float64 or NULL, written: what they are worth
 * In each step the beams' tokens compete by the sum of log-probabilities, and the best 2 * beams are looked at: an end among the
 * first `beams` completes a sequence, others go on. A source is done with `beams` complete sequences and none going on that
 * could be worth more than the worst of these now. Equal sums: the earlier beam and the smaller token first. float64 modules
 * are not taken. */
int32_t swiftattn_encoder_decoder_write(const swiftattn_module *module, const swiftattn_tensor *src,
                                        const swiftattn_tensor *key_padding_mask, const swiftattn_beam_options *options,
                                        const swiftattn_tensor *ids, const swiftattn_tensor *scores);

/* ---- Training ---------------------------------------------------------------------------------------------- */

/* Not 0: each forward of the module copies its inputs and keeps what the backward needs, dropout is active, and calls come one
 * at a time. 0, the default: inference. Modules of float32 and float64 alone; masks, offsets and weights outputs as in
 * inference; extra keys of an attention and a token model's hidden output are not taken. */
int32_t swiftattn_module_set_training(swiftattn_module *module, int32_t training);

/* Adds to the gradients of all parameters those of the newest forward in training; each forward takes one backward.
 *   grad_out as that forward's out: the gradient of a loss with respect to it
 *   grad_inputs NULL, or `count` tensors, each NULL or written: as the forward's floating inputs in their order (query, key,
 *   value; x; tgt, memory; src, tgt; none of models over tokens). A tensor that was given as several inputs has its whole
 *   gradient at the first of them, and zeros at the others.
 * Result bits do not depend on the number of threads. Should memory run out within, gradients may be incomplete. */
int32_t swiftattn_module_backward(swiftattn_module *module, const swiftattn_tensor *grad_out,
                                  const swiftattn_tensor *const *grad_inputs, int64_t count);

/* The gradient of parameter number index, a view like that of the parameter; zeros if there is none. */
int32_t swiftattn_module_gradient(swiftattn_module *module, int64_t index, swiftattn_tensor *gradient);

/* The next backward begins with gradients of 0. */
int32_t swiftattn_module_zero_gradients(swiftattn_module *module);

/* Values of kind: how matrices begin. */
#define SWIFTATTN_INITIALIZE_XAVIER 0 /* uniform in +-sqrt(6 / (inputs + outputs)); tables normal, deviation 1/sqrt(width) */
#define SWIFTATTN_INITIALIZE_NORMAL 1 /* normal, as tables, with the given deviation */

/* Sets all parameters: matrices by kind, biases 0, scales of norms 1. Element i of parameter n is drawn from Philox4x32-10 with
 * the seed as key and counter (low, high of i, n, 0). deviation > 0. Source: Glorot, Bengio 2010 (Xavier). */
int32_t swiftattn_module_initialize(swiftattn_module *module, int32_t kind, double deviation, uint64_t seed);

/* Dropout in training is a function of a seed and of the number of the forward, which counts up from step; at first 0, 0. A
 * checkpoint keeps both. */
int32_t swiftattn_module_set_dropout(swiftattn_module *module, uint64_t seed, uint64_t step);
int32_t swiftattn_module_get_dropout(const swiftattn_module *module, uint64_t *seed, uint64_t *step);

/* Moves the parameters of a module along their gradients; keeps the module. */
typedef struct swiftattn_optimizer swiftattn_optimizer;

#define SWIFTATTN_OPTIMIZER_ADAMW 0
#define SWIFTATTN_OPTIMIZER_SGD 1

/* Values of schedule: the rate of step t = 1, 2, ..., w = warmup. */
#define SWIFTATTN_SCHEDULE_CONSTANT 0            /* lr * min(1, t / w) */
#define SWIFTATTN_SCHEDULE_INVERSE_SQUARE_ROOT 1 /* lr * min(t / w, sqrt(w / t)) */
#define SWIFTATTN_SCHEDULE_COSINE 2 /* lr * t / w up to w, then final_lr + (lr - final_lr) (1 + cos(pi (t - w) / (total_steps - w))) / 2 */

typedef struct swiftattn_optimizer_options {
  uint32_t struct_size;
  int32_t kind;        /* SWIFTATTN_OPTIMIZER_* */
  int32_t schedule;    /* SWIFTATTN_SCHEDULE_* */
  int32_t reserved;    /* 0 */
  double lr;           /* the largest rate */
  double beta1, beta2; /* of AdamW, at least 0 and below 1 */
  double eps;          /* of AdamW; above 0 */
  double weight_decay;
  double momentum;     /* of SGD, at least 0 and below 1 */
  double clip_norm;    /* gradients whose norm over all parameters is larger are scaled to it; 0: never */
  int64_t warmup;      /* steps */
  int64_t total_steps; /* of the cosine; more than warmup */
  double final_lr;     /* of the cosine */
} swiftattn_optimizer_options;

#define SWIFTATTN_OPTIMIZER_OPTIONS_INIT { sizeof(swiftattn_optimizer_options), SWIFTATTN_OPTIMIZER_ADAMW, \
  SWIFTATTN_SCHEDULE_CONSTANT, 0, 1e-3, 0.9, 0.999, 1e-8, 0.01, 0.0, 0.0, 0, 0, 0.0 }

/* With the gradient g of a parameter p, the rate r and decay d:
 *   AdamW  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = (1 - r d) p - r m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
 *   SGD    h = g + d p;  m = h at the first step, then momentum m + h;  p = p - r m
 * options must be given. After a failure *optimizer is untouched. Source: Loshchilov, Hutter 2019 (AdamW). */
int32_t swiftattn_optimizer_create(swiftattn_module *module, const swiftattn_optimizer_options *options,
                                   swiftattn_optimizer **optimizer);
void swiftattn_optimizer_destroy(swiftattn_optimizer *optimizer); /* NULL is allowed */

/* One step; parameters without a gradient stay. grad_norm NULL, or written: the gradients' norm over all parameters, before
 * clipping. The gradients are kept. Result bits do not depend on the number of threads. */
int32_t swiftattn_optimizer_step(swiftattn_optimizer *optimizer, double *grad_norm);

/* Steps made, and the rate of the next one; either place may be NULL. set_steps continues a training whose state was written
 * into the views below. */
int32_t swiftattn_optimizer_get_steps(const swiftattn_optimizer *optimizer, int64_t *steps, double *next_lr);
int32_t swiftattn_optimizer_set_steps(swiftattn_optimizer *optimizer, int64_t steps);

/* What the rule keeps: "exp_avg.NAME" and "exp_avg_sq.NAME" (m and v) of AdamW, "momentum.NAME" of SGD, for each parameter, as
 * views like that of the parameter. */
int32_t swiftattn_optimizer_state_count(const swiftattn_optimizer *optimizer, int64_t *count);
int32_t swiftattn_optimizer_state(const swiftattn_optimizer *optimizer, int64_t index, const char **name,
                                  swiftattn_tensor *state);

/* ---- Sampling ---------------------------------------------------------------------------------------------- */

/* Bits of swiftattn_sampling_options.flags: the field is set, even if it holds 0. */
#define SWIFTATTN_SAMPLING_HAS_TEMPERATURE 1u
#define SWIFTATTN_SAMPLING_HAS_TOP_P 2u

/* What a token is drawn by. The steps are taken in this order, each on what the one before it left, with the meaning of
 * Hugging Face's generate:
 *   x = logits; for each token t of previous_tokens that occurred c > 0 times:
 *   x[t] = x[t] / repetition_penalty if x[t] >= 0, else x[t] * repetition_penalty
 *   x[t] -= presence_penalty + c * frequency_penalty
 *   temperature   p = softmax(x / temperature); 0 takes the largest x, the lowest index of equal ones, and ends here
 *   top_k         x not below the k-th largest stay; 0: all
 *   top_p         from the least likely token up (of equal ones the higher index first), tokens go as long as their sum is
 *                 at most 1 - top_p of what top_k left; the most likely one stays
 *   min_p         tokens less likely than min_p times the most likely one go
 *   draw          the first token at which the running sum exceeds u times the whole; u in [0, 1) has 53 bits of
 *                 Philox4x32-10, key (low, high 32 bits of seed), counter (low, high of row, low, high of draw)
 * x of +inf share all the probability; a finite x stays finite under penalties. */
typedef struct swiftattn_sampling_options {
  uint32_t struct_size;
  uint32_t flags;                         /* SWIFTATTN_SAMPLING_HAS_* */
  double temperature;                     /* finite, >= 0; default 1. HAS_TEMPERATURE */
  int64_t top_k;                          /* >= 0; 0: off */
  double top_p;                           /* 0 to 1; default 1: off. HAS_TOP_P */
  double min_p;                           /* 0 to 1; 0: off */
  double repetition_penalty;              /* finite, > 0; 0 stands for 1: off */
  double presence_penalty;                /* finite; 0: off */
  double frequency_penalty;               /* finite; 0: off */
  const swiftattn_tensor *previous_tokens; /* (..., n) int32 or int64, leading dims broadcast to the rows of logits; each
                                              0 <= id < V, or -1 for none */
  uint64_t seed;
  uint64_t draw;                          /* calls that differ in it are independent under one seed */
} swiftattn_sampling_options;

#define SWIFTATTN_SAMPLING_OPTIONS_INIT { sizeof(swiftattn_sampling_options), 0u, 0.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, NULL, \
  0u, 0u }

/* out[...] = a token for each row of logits (..., V) floating; out (...) int32 or int64. A row's token depends on the row,
 * its number in row-major order, the options and the seed, not on threads. A row with NaN, or with -inf alone, is
 * SWIFTATTN_ERROR_INVALID_ARGUMENT. options NULL: defaults. */
int32_t swiftattn_sample(const swiftattn_tensor *logits, const swiftattn_sampling_options *options,
                         const swiftattn_tensor *out);

/* The probabilities that swiftattn_sample draws by, 0 for tokens that went; out as logits. */
int32_t swiftattn_sampling_distribution(const swiftattn_tensor *logits, const swiftattn_sampling_options *options,
                                        const swiftattn_tensor *out);

/* ---- Loss -------------------------------------------------------------------------------------------------- */

/* Bits of swiftattn_cross_entropy_options.flags. */
#define SWIFTATTN_CROSS_ENTROPY_HAS_IGNORE_INDEX 1u

typedef struct swiftattn_cross_entropy_options {
  uint32_t struct_size;
  uint32_t flags;         /* SWIFTATTN_CROSS_ENTROPY_HAS_* */
  int64_t ignore_index;   /* rows with this target do not count; default -100. HAS_IGNORE_INDEX */
  double label_smoothing; /* s, 0 to 1 */
} swiftattn_cross_entropy_options;

#define SWIFTATTN_CROSS_ENTROPY_OPTIONS_INIT { sizeof(swiftattn_cross_entropy_options), 0u, 0, 0.0 }

/* loss = mean over the rows that count of -sum_v q[v] ln softmax(logits)[v], q[v] = (1 - s) * [v = target] + s / V.
 *   logits (..., V) floating, targets (...) int32 or int64, each 0 <= target < V or ignore_index
 *   loss rank 0, float32 (float64 with float64 logits); 0 where no row counts (PyTorch: NaN)
 * The classes are the last dim (PyTorch: the second). The order of the sum over rows depends on their number alone. */
int32_t swiftattn_cross_entropy(const swiftattn_tensor *logits, const swiftattn_tensor *targets,
                                const swiftattn_cross_entropy_options *options, const swiftattn_tensor *loss);

/* grad_logits = grad_loss * (softmax(logits) - q) / rows that count, 0 in rows that do not; as logits, and may be logits.
 * loss, unless NULL, is written in the same pass. */
int32_t swiftattn_cross_entropy_backward(double grad_loss, const swiftattn_tensor *logits, const swiftattn_tensor *targets,
                                         const swiftattn_cross_entropy_options *options, const swiftattn_tensor *loss,
                                         const swiftattn_tensor *grad_logits);

/* ---- GGUF files -------------------------------------------------------------------------------------------- */

/* A file in the GGUF format (versions 2 and 3, little-endian), mapped for reading. Every count, length and offset in it is
 * checked: a file that is cut short, contradicts itself or is none at all is INVALID_ARGUMENT or INVALID_SHAPE, with a
 * message that says where. The file must not shrink while it is open. A handle may be used from any number of threads.
 * Source: the format's specification, ggml-org/ggml, docs/gguf.md. */
typedef struct swiftattn_gguf swiftattn_gguf;

int32_t swiftattn_gguf_open(const char *path, swiftattn_gguf **file);
void swiftattn_gguf_close(swiftattn_gguf *file); /* NULL is allowed */

/* Numbers of metadata keys and of tensors. */
int32_t swiftattn_gguf_count(const swiftattn_gguf *file, int64_t *keys, int64_t *tensors);

/* Values of `type`, numbered as in files. */
#define SWIFTATTN_GGUF_UINT8 0
#define SWIFTATTN_GGUF_INT8 1
#define SWIFTATTN_GGUF_UINT16 2
#define SWIFTATTN_GGUF_INT16 3
#define SWIFTATTN_GGUF_UINT32 4
#define SWIFTATTN_GGUF_INT32 5
#define SWIFTATTN_GGUF_FLOAT32 6
#define SWIFTATTN_GGUF_BOOL 7
#define SWIFTATTN_GGUF_STRING 8
#define SWIFTATTN_GGUF_ARRAY 9 /* of arrays: its elements cannot be read */
#define SWIFTATTN_GGUF_UINT64 10
#define SWIFTATTN_GGUF_INT64 11
#define SWIFTATTN_GGUF_FLOAT64 12

/* Key number `index`, 0 <= index < keys: its name, which lives as long as the handle; its type, or that of its elements
 * where *is_array is 1; and how many values it has, 1 where it is no array. */
int32_t swiftattn_gguf_key(swiftattn_gguf *file, int64_t index, const char **name, int32_t *type, int32_t *is_array,
                           int64_t *count);

/* The values of a key of numbers (bool: 0 or 1) in out (count,): int64 for integers, or float64 for all of them. */
int32_t swiftattn_gguf_numbers(swiftattn_gguf *file, int64_t index, const swiftattn_tensor *out);

/* The values of a key of strings, UTF-8, one behind the other: string i is text[offsets[i]] to before text[offsets[i + 1]].
 * Both live until the next call of this function for the same handle, or its end. */
int32_t swiftattn_gguf_strings(swiftattn_gguf *file, int64_t index, const char **text, const int64_t **offsets);

/* Tensor number `index`: its name, as above; its format, the file's number of it; and its shape in NumPy's order, the
 * file's reversed: `shape` receives *ndim sizes, 1 to 4. */
int32_t swiftattn_gguf_tensor(swiftattn_gguf *file, int64_t index, const char **name, int32_t *format, int32_t *ndim,
                              int64_t shape[4]);

/* The elements of a tensor of format F32 (0), F16 (1), Q4_0 (2), Q4_1 (3), Q8_0 (8), Q4_K (12), Q6_K (14) or BF16 (30),
 * dequantised, in out: float32, of the tensor's shape, contiguous. Another format is INVALID_DTYPE. */
int32_t swiftattn_gguf_load(const swiftattn_gguf *file, int64_t index, const swiftattn_tensor *out);

/* ---- Language models --------------------------------------------------------------------------------------- */

/* Decoders of the Llama family: RMSNorm, rotary positions, grouped heads, SwiGLU, with or without biases on q, k and v.
 *
 * Weights are used as stored. Products with quantised ones round x to 16-bit integers with a scale for every 32 neighbours
 * and sum blocks exactly, so that a row's bits depend on that row alone. One exception, for speed: on machines with
 * AVX512-VNNI a prefill of 128 tokens or more rounds x to 8 bits, unless exact_prefill is set; with it, prefill and step
 * give the same numbers. Everything else is float32, the keys and values that a sequence keeps too. Calls on one model run one after the other, from whatever thread.
 * A model has room for some sequences, each with tokens of its own. */
typedef struct swiftattn_model swiftattn_model;

/* Sizes of a model. Start from zeros with struct_size set. */
typedef struct swiftattn_model_config {
  uint32_t struct_size;
  int32_t rotary_pairing;  /* SWIFTATTN_ROTARY_HALVES or NEIGHBOURS */
  int64_t vocabulary, width, layers, heads, kv_heads;
  int64_t head_dim;        /* 0: width / heads */
  int64_t hidden;          /* of the feed-forward layers */
  int64_t context;         /* positions trained on */
  int64_t rotary_dim;      /* even; 0: head_dim */
  double norm_eps;
  const swiftattn_rotary_options *rotary; /* NULL: defaults. n, the length of the tables, is the context of the options */
} swiftattn_model_config;

#define SWIFTATTN_MODEL_WEIGHTS_STORED 0  /* float16, bfloat16 and quantised weights stay as they are */
#define SWIFTATTN_MODEL_WEIGHTS_FLOAT32 1

/* Options of a model; 0 stands for the default. */
typedef struct swiftattn_model_options {
  uint32_t struct_size;
  int32_t weights;   /* SWIFTATTN_MODEL_WEIGHTS_* */
  int64_t context;   /* tokens that a sequence may have; default: config.context */
  int64_t sequences; /* that are continued side by side; default 1 */
  int64_t window;    /* tokens that a token sees, itself included, older ones being forgotten: a sequence then has no end.
                        Default: none, and a sequence ends with the context */
  int32_t exact_prefill; /* 1: prefill rounds x to 16 bits however many tokens there are */
  swiftattn_dtype kv_dtype; /* of the sequences' KV caches: float32, float16, bfloat16 or int8; all zeros: float32. Texts by
                               themselves (logits, perplexity, embed, trace) are always read in float32 */
} swiftattn_model_options;

#define SWIFTATTN_MODEL_OPTIONS_INIT { sizeof(swiftattn_model_options), SWIFTATTN_MODEL_WEIGHTS_STORED, 0, 0, 0, 0, { 0, 0, 0 } }

/* Opens a GGUF file of architecture llama or qwen2. A tensor that is missing, or of another shape than the metadata says, is
 * an error that names it. Quantised weights are repacked and the file's pages given back: memory holds each once. */
int32_t swiftattn_model_open(const char *path, const swiftattn_model_options *options, swiftattn_model **model);

/* A model of copies of `count` tensors with Hugging Face's names: model.embed_tokens.weight, model.norm.weight, lm_head.weight
 * (the embedding where it is missing), and for each layer n model.layers.n. with input_layernorm, post_attention_layernorm,
 * self_attn.{q,k,v,o}_proj, mlp.{gate,up,down}_proj and .weight; .bias on q, k and v where there is one. float32, float16 or
 * bfloat16; other names are ignored. */
int32_t swiftattn_model_create(const swiftattn_model_config *config, const char *const *names, const swiftattn_tensor *tensors,
                               int64_t count, const swiftattn_model_options *options, swiftattn_model **model);

void swiftattn_model_close(swiftattn_model *model); /* NULL is allowed; no call may be using it */

/* Sizes, without zeros for defaults and with rotary NULL; the context that a sequence may fill is *context. config, context,
 * sequences and window may be NULL. */
int32_t swiftattn_model_info(swiftattn_model *model, swiftattn_model_config *config, int64_t *context, int64_t *sequences,
                             int64_t *window);

/* Adds tokens ids (n,) int32 or int64, n >= 1, to a sequence. logits (vocabulary,) float32 or NULL: of what follows the last.
 * Where the context has no room for them it is INVALID_ARGUMENT, and the sequence stays as it was. */
int32_t swiftattn_model_prefill(swiftattn_model *model, int64_t sequence, const swiftattn_tensor *ids,
                                const swiftattn_tensor *logits);

/* Adds a token to each sequence: ids (sequences,), -1 leaves one out. logits (sequences, vocabulary) float32 or NULL; rows of
 * sequences left out are 0. */
int32_t swiftattn_model_step(swiftattn_model *model, const swiftattn_tensor *ids, const swiftattn_tensor *logits);

/* Forgets all but the first `length` tokens of a sequence; with a window only 0 can be asked for. */
int32_t swiftattn_model_truncate(swiftattn_model *model, int64_t sequence, int64_t length);

/* out (sequences,) int64: tokens that each sequence has had. */
int32_t swiftattn_model_lengths(swiftattn_model *model, const swiftattn_tensor *out);

/* The rest is about a text by itself, ids (n,), n <= context; sequences are left alone. Outputs are float32 and contiguous. */

/* logits (n, vocabulary): of what follows each token. */
int32_t swiftattn_model_logits(swiftattn_model *model, const swiftattn_tensor *ids, const swiftattn_tensor *logits);

/* out[i] = ln p(ids[i + 1] | ids[0..i]), (n - 1,), n >= 2; and exp of the mean of -out. */
int32_t swiftattn_model_log_probabilities(swiftattn_model *model, const swiftattn_tensor *ids, const swiftattn_tensor *out);
int32_t swiftattn_model_perplexity(swiftattn_model *model, const swiftattn_tensor *ids, double *perplexity);

/* out (n, width): the normalised final state of each token. */
int32_t swiftattn_model_embed(swiftattn_model *model, const swiftattn_tensor *ids, const swiftattn_tensor *out);

/* attention (layers, heads, n, n): how much each token attends to each; states (layers + 1, n, width): the embedding, then the
 * residual stream behind each layer. Either may be NULL; n <= 512. */
int32_t swiftattn_model_trace(swiftattn_model *model, const swiftattn_tensor *ids, const swiftattn_tensor *attention,
                              const swiftattn_tensor *states);
/* ---- Additive attention ------------------------------------------------------------------------------------ */

/* score[i,j] = v_score . tanh(query[i] . w_query^T + key[j] . w_key^T) + attn_mask[i,j] where key j is visible;
 * P = softmax(score) over the visible keys; out = P . value. No (Tq, Tk, H) tensor is stored.
 *   query (..., Tq, Dq)   key (..., Tk, Dk)   value (..., Tk, Dv)   out (..., Tq, Dv)     leading dims broadcast
 *   w_query (H, Dq)   w_key (H, Dk)   v_score (H,)     all of one floating dtype
 *   attn_mask bool (true = visible) or float of that dtype or float32 (added; -inf and NaN hide), broadcast to
 *   (..., Tq, Tk), or NULL
 *   weights (..., Tq, Tk) or NULL: P, float32 (float64 for float64) or the dtype of query
 * float16 and bfloat16 are computed in float32 and rounded once. A row that sees no key: out 0, weights 0. What a hidden
 * key or its value holds does not matter. Source: Bahdanau et al. 2015. */
int32_t swiftattn_additive_attention(
    const swiftattn_tensor *query, const swiftattn_tensor *key, const swiftattn_tensor *value,
    const swiftattn_tensor *w_query, const swiftattn_tensor *w_key, const swiftattn_tensor *v_score,
    const swiftattn_tensor *attn_mask, const swiftattn_tensor *out, const swiftattn_tensor *weights);

/* Gradients of all inputs but the mask, each as its input, or NULL where it is not wanted. query, key and value have the
 * same leading dims; grad_out as out. The weights are computed again; memory beyond the gradients is that of (..., Tq, Tk)
 * and of the projections. Hidden keys get no gradient, whatever they hold. */
int32_t swiftattn_additive_attention_backward(
    const swiftattn_tensor *grad_out, const swiftattn_tensor *query, const swiftattn_tensor *key,
    const swiftattn_tensor *value, const swiftattn_tensor *w_query, const swiftattn_tensor *w_key,
    const swiftattn_tensor *v_score, const swiftattn_tensor *attn_mask, const swiftattn_tensor *dquery,
    const swiftattn_tensor *dkey, const swiftattn_tensor *dvalue, const swiftattn_tensor *dw_query,
    const swiftattn_tensor *dw_key, const swiftattn_tensor *dv_score);

/* ---- Dropout ----------------------------------------------------------------------------------------------- */

/* out[i] = x[i] / (1 - p), or 0 where element i, counted in row-major order, is dropped: where word i & 3 of Philox4x32-10,
 * key (low, high 32 bits of seed), counter (low, high of i >> 2, low, high of draw), is below floor(p * 2^32).
 * x, out any shape, of one floating dtype; out may be x. 0 <= p < 1. Calls that differ in draw drop independently. */
int32_t swiftattn_dropout(const swiftattn_tensor *x, double p, uint64_t seed, uint64_t draw, const swiftattn_tensor *out);

/* dx from grad_out under the same p, seed and draw: the same function. dx may be grad_out. */
int32_t swiftattn_dropout_backward(const swiftattn_tensor *grad_out, double p, uint64_t seed, uint64_t draw,
                                   const swiftattn_tensor *dx);

/* ---- Gradients --------------------------------------------------------------------------------------------- */

/* Below, grad_out is the gradient of the forward function's out and has its shape and dtype; a gradient dname has the shape
 * and dtype of name. Sums over rows run in an order that depends on the number of rows alone: 64 rows, eight at
 * a time, and the sums of these in a binary tree. The gradient of matmul is two of them: da = grad_out . b^T, db = a^T .
 * grad_out. Those of the other functions stand beside them. */

/* With z = x . weight^T + bias and g = grad_out * activation'(z): dx = g . weight, dweight = g^T . x, dbias = sum of g over
 * the rows. The residual's gradient is grad_out. Shapes as in swiftattn_linear; bias may be NULL. Only with an activation,
 * z is read from pre_activation (..., N), or computed again where that is NULL. dx, dweight and dbias may be NULL. */
int32_t swiftattn_linear_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *x,
                                  const swiftattn_tensor *weight, const swiftattn_tensor *bias,
                                  const swiftattn_tensor *pre_activation, const swiftattn_linear_options *options,
                                  const swiftattn_tensor *dx, const swiftattn_tensor *dweight, const swiftattn_tensor *dbias);

/* dx = y * (grad_out - sum y * grad_out) along axis, y what softmax returned. dx may be y or grad_out. */
int32_t swiftattn_softmax_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *y, int64_t axis,
                                   const swiftattn_tensor *dx);

/* With h = (x - mean) / sqrt(var + eps) and w = grad_out * weight: dx = (w - mean(w) - h mean(w h)) / sqrt(var + eps);
 * dweight = sum of grad_out * h and dbias = sum of grad_out over the rows. dx may be x or grad_out; dweight and dbias (N,)
 * have x's dtype, or float32 where that is float16 or bfloat16. Each of the three may be NULL, as may weight. */
int32_t swiftattn_layer_norm_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *x,
                                      const swiftattn_tensor *weight, double eps, const swiftattn_tensor *dx,
                                      const swiftattn_tensor *dweight, const swiftattn_tensor *dbias);

/* The same with a mean of 0, which is not subtracted, and without a bias. */
int32_t swiftattn_rms_norm_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *x,
                                    const swiftattn_tensor *weight, double eps, const swiftattn_tensor *dx,
                                    const swiftattn_tensor *dweight);

/* dx = grad_out * f'(x), with relu' 0 at 0. dx may be an input. */
int32_t swiftattn_relu_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *x, const swiftattn_tensor *dx);
int32_t swiftattn_gelu_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *x, int32_t approximate,
                                const swiftattn_tensor *dx);
int32_t swiftattn_silu_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *x, const swiftattn_tensor *dx);

/* dgate = grad_out * up * f'(gate), dup = grad_out * f(gate), f silu or gelu. Outputs may be inputs; one may be NULL. */
int32_t swiftattn_swiglu_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *gate, const swiftattn_tensor *up,
                                  const swiftattn_tensor *dgate, const swiftattn_tensor *dup);
int32_t swiftattn_geglu_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *gate, const swiftattn_tensor *up,
                                 int32_t approximate, const swiftattn_tensor *dgate, const swiftattn_tensor *dup);

/* dtable[v, :] = sum of grad_out[i, :] over the i with ids[i] = v, in an order that the i decide; 0 for
 * rows that no id names. grad_out (..., N), ids (...) as in swiftattn_embedding, dtable (V, N). */
int32_t swiftattn_embedding_backward(const swiftattn_tensor *grad_out, const swiftattn_tensor *ids,
                                     const swiftattn_tensor *dtable);

#ifdef __cplusplus
}
#endif
#endif /* SWIFTATTN_H */
