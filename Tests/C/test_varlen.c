/* Packed sequences: each entry must equal attention over that entry alone. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "problem.h"

typedef struct packed {
  swiftattn_tensor query, key, value, cu_q, cu_k, out, lse, alibi_slopes, sinks, query_offsets;
  swiftattn_attention_options options;
} packed;

static swiftattn_tensor offsets_of(swiftattn_dtype dtype, int64_t entries, const int64_t *lengths) {
  swiftattn_tensor cu = TENSOR(dtype, LAYOUT_SPACED, entries + 1);
  int64_t total = 0;
  tensor_store1(&cu, 0, 0);
  for (int64_t b = 0; b < entries; b++) tensor_store1(&cu, b + 1, (double)(total += lengths[b]));
  return cu;
}

/* Rows [cu[b], cu[b + 1]) of a (total, H, D) tensor, seen as (1, H, T, D). */
static swiftattn_tensor entry_of(const swiftattn_tensor *t, const swiftattn_tensor *cu, int64_t b) {
  int64_t start = (int64_t)tensor_load1(cu, b), length = (int64_t)tensor_load1(cu, b + 1) - start;
  swiftattn_tensor rows = *t, entry;
  if (length > 0) rows = tensor_slice(t, 0, start, length);
  entry = rows;
  entry.ndim = 4;
  entry.shape[0] = 1, entry.shape[1] = t->shape[1], entry.shape[2] = length, entry.shape[3] = t->shape[2];
  entry.strides[0] = 0, entry.strides[1] = rows.strides[1], entry.strides[2] = rows.strides[0];
  entry.strides[3] = rows.strides[2];
  return entry;
}

static void check_packed(const packed *p) {
  int64_t heads = p->query.shape[1], total = p->query.shape[0], width = p->value.shape[2];
  double roundoff = dtype_compute_roundoff(p->query.dtype);
  double *out = buffer_new((size_t)(total * heads * width + 1) * sizeof *out), *out_bound;
  double *lse = buffer_new((size_t)(total * heads + 1) * sizeof *lse), *lse_bound;
  int32_t status =
      swiftattn_attention_varlen(&p->query, &p->key, &p->value, &p->cu_q, &p->cu_k, &p->options, &p->out, &p->lse);
  CHECK(status == 0, "status %d: %s", status, swiftattn_last_error());
  out_bound = buffer_new((size_t)(total * heads * width + 1) * sizeof *out_bound);
  lse_bound = buffer_new((size_t)(total * heads + 1) * sizeof *lse_bound);
  for (int64_t b = 0; b + 1 < p->cu_q.shape[0]; b++) {
    swiftattn_tensor q = entry_of(&p->query, &p->cu_q, b), k = entry_of(&p->key, &p->cu_k, b);
    swiftattn_tensor v = entry_of(&p->value, &p->cu_k, b);
    swiftattn_attention_options o = p->options;
    int64_t start = (int64_t)tensor_load1(&p->cu_q, b);
    reference r;
    if (!o.query_offsets && !(o.flags & SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET) &&
        o.causal != SWIFTATTN_CAUSAL_UPPER_LEFT) {
      o.flags |= SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET;
      o.query_offset = k.shape[2] - q.shape[2];
    }
    r = reference_attention(&q, &k, &v, &o, b);
    for (int64_t n = 0; n < heads * q.shape[2]; n++) {
      int64_t h = n / q.shape[2], row = start + n % q.shape[2];
      lse[h * total + row] = r.lse[n];
      lse_bound[h * total + row] = r.lse_bound[n] * roundoff;
      for (int64_t d = 0; d < width; d++) {
        out[(row * heads + h) * width + d] = r.out[n * width + d];
        out_bound[(row * heads + h) * width + d] = r.out_bound[n * width + d] * dtype_probability_roundoff(p->query.dtype);
      }
    }
  }
  tensor_compare("out", &p->out, out, out_bound);
  tensor_compare("lse", &p->lse, lse, lse_bound);
}

static packed packed_make(swiftattn_dtype dtype, int64_t entries, const int64_t *q_lengths, const int64_t *k_lengths,
                          int64_t q_heads, int64_t kv_heads, int64_t dim, int64_t value_dim) {
  static const swiftattn_attention_options defaults = SWIFTATTN_ATTENTION_OPTIONS_INIT;
  packed p;
  int64_t total_q = 0, total_k = 0;
  memset(&p, 0, sizeof p);
  for (int64_t b = 0; b < entries; b++) total_q += q_lengths[b], total_k += k_lengths[b];
  p.options = defaults;
  p.cu_q = offsets_of(random_chance(2) ? I32 : I64, entries, q_lengths);
  p.cu_k = offsets_of(random_chance(2) ? I32 : I64, entries, k_lengths);
  p.query = TENSOR(dtype, tensor_random_layout(), total_q, q_heads, dim);
  p.key = TENSOR(dtype, tensor_random_layout(), total_k, kv_heads, dim);
  p.value = TENSOR(dtype, tensor_random_layout(), total_k, kv_heads, value_dim);
  p.out = TENSOR(dtype, tensor_random_layout(), total_q, q_heads, value_dim);
  p.lse = TENSOR(dtype_equal(dtype, F64) ? F64 : F32, tensor_random_layout(), q_heads, total_q);
  tensor_fill_normal(&p.query, 1.2);
  tensor_fill_normal(&p.key, 1.2);
  tensor_fill_normal(&p.value, 1);
  return p;
}

static void random_packs(void) {
  const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
  for (int n = 0; n < (check_quick ? 8 : 60); n++) {
    int64_t q_lengths[6], k_lengths[6], entries = random_int(1, 6), kv_heads = random_int(1, 2);
    int64_t q_heads = kv_heads * random_int(1, 3), most = check_quick ? 9 : 50, dim = random_int(1, 40);
    packed p;
    for (int64_t b = 0; b < entries; b++) {
      q_lengths[b] = random_chance(5) ? 0 : random_int(1, most);
      k_lengths[b] = random_chance(5) ? 0 : random_chance(4) ? q_lengths[b] : random_int(1, most);
    }
    p = packed_make(dtypes[n % 4], entries, q_lengths, k_lengths, q_heads, kv_heads, dim, random_int(1, 40));
    p.options.causal = (int32_t)random_int(0, 2);
    if (random_chance(3))
      p.options.flags |= SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT, p.options.window_left = random_int(0, 20);
    if (random_chance(4)) p.options.softcap = 2;
    if (random_chance(4)) p.options.dropout_p = 0.25, p.options.seed = random_bits();
    if (random_chance(3)) {
      p.alibi_slopes = TENSOR(dtype_equal(dtypes[n % 4], F64) ? F64 : F32, LAYOUT_DENSE, q_heads);
      tensor_fill_normal(&p.alibi_slopes, 0.2);
      p.options.alibi_slopes = &p.alibi_slopes;
    }
    if (random_chance(3)) {
      p.sinks = TENSOR(dtype_equal(dtypes[n % 4], F64) ? F64 : F32, LAYOUT_DENSE, q_heads);
      tensor_fill_normal(&p.sinks, 1);
      p.options.sinks = &p.sinks;
    }
    if (random_chance(4)) {
      p.query_offsets = TENSOR(I64, LAYOUT_DENSE, entries);
      for (int64_t b = 0; b < entries; b++) tensor_store1(&p.query_offsets, b, (double)random_int(-10, 30));
      p.options.query_offsets = &p.query_offsets;
    }
    check_context("pack %d: %s, %d entries, causal %d, flags %u, dropout %g%s%s%s", n, dtype_name(dtypes[n % 4]),
                  (int)entries, p.options.causal, p.options.flags, p.options.dropout_p,
                  p.options.alibi_slopes ? " alibi" : "", p.options.sinks ? " sinks" : "",
                  p.options.query_offsets ? " query_offsets" : "");
    check_packed(&p);
    buffer_free_all();
  }
}

static void no_entries(void) {
  packed p = packed_make(F32, 0, NULL, NULL, 2, 1, 8, 8);
  check_packed(&p);
}

static void same_bits_as_single_calls(void) {
  const int64_t q_lengths[3] = {17, 1, 40}, k_lengths[3] = {17, 33, 70};
  packed p = packed_make(F32, 3, q_lengths, k_lengths, 4, 2, 32, 32);
  p.options.causal = SWIFTATTN_CAUSAL_LOWER_RIGHT;
  check_packed(&p);
  for (int64_t b = 0; b < 3; b++) {
    swiftattn_tensor q = entry_of(&p.query, &p.cu_q, b), k = entry_of(&p.key, &p.cu_k, b);
    swiftattn_tensor v = entry_of(&p.value, &p.cu_k, b), expected = entry_of(&p.out, &p.cu_q, b);
    swiftattn_tensor out = tensor_like(&expected);
    CHECK(swiftattn_scaled_dot_product_attention(&q, &k, &v, &p.options, &out, NULL, NULL) == 0, "%s",
          swiftattn_last_error());
    CHECK(tensor_same_bits(&expected, &out), "entry %d differs from a call of its own", (int)b);
  }
}

void run_varlen(void) {
  check_run("varlen: random packs", random_packs);
  check_run("varlen: no entries", no_entries);
  check_run("varlen: same bits as single calls", same_bits_as_single_calls);
}
