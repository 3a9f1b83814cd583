/* Building attention problems, plain or at random, and running them tile by tile. */
#include "attention_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GUARDED 256 /* bytes behind the scratch */

attention_options attention_plain(const subject *s, int64_t q_rows, int64_t kv_rows, int64_t dim) {
  return (attention_options){
    .dtype = s->real_dtype, .mask_dtype = NO_DTYPE, .weights_dtype = NO_DTYPE,
    .q_heads = 1, .kv_heads = 1, .head_dim = dim, .value_dim = dim,
    .q_rows = q_rows, .q_len = q_rows, .kv_rows = kv_rows, .kv_len = kv_rows,
    .scale = dim ? 1 / sqrt((double)dim) : 1, .window_left = -1, .window_right = -1, .lse = true, .q_spread = 1,
  };
}

static attn_dtype real_or(const subject *s, attn_dtype dtype) {
  return s->real_dtype == ATTN_F32 && random_chance(2) ? ATTN_F32 : dtype;
}

static int64_t random_dim(void) {
  if (random_chance(40)) return random_chance(3) ? 0 : 512;
  return random_chance(3) ? (int64_t[]){ 1, 16, 64, 128 }[random_int(0, 3)] : random_int(1, 130);
}

static int64_t random_keys(void) {
  if (random_chance(30)) return 0;
  if (random_chance(3)) /* around the borders of blocks and chunks */
    return (int64_t[]){ 95, 96, 97, 192, 479, 480, 481, 577, 961 }[random_int(0, check_quick ? 5 : 8)];
  return random_chance(6) ? random_int(200, 700) : random_int(1, 130);
}

attention_options attention_random(const subject *s) {
  attention_options o = attention_plain(s, random_chance(3) ? random_int(1, 4) : random_int(1, 70), random_keys(),
                                        random_dim());
  o.dtype = s->dtypes[random_int(0, s->dtype_count - 1)];
  o.kv_heads = random_int(1, 3);
  o.q_heads = o.kv_heads * random_int(1, 5);
  if (random_chance(2)) o.value_dim = random_dim();
  /* A bound on the work, so that many cases fit in the time. */
  const int64_t budget = check_quick ? 300000 : 1200000;
#define WORK (o.q_heads * o.q_rows * o.kv_rows * (o.head_dim + o.value_dim + 8))
  while (WORK > budget && o.kv_heads > 1) o.q_heads = o.q_heads / o.kv_heads * (o.kv_heads - 1), o.kv_heads--;
  while (WORK > budget && o.q_heads > 1) o.q_heads--;
  while (WORK > budget && o.q_rows > 1) o.q_rows = (o.q_rows + 1) / 2;
  o.q_len = random_chance(5) ? random_int(0, o.q_rows) : o.q_rows;
  o.kv_len = random_chance(4) ? random_int(0, o.kv_rows) : o.kv_rows;
  o.query_offset = random_chance(2) ? 0 : random_int(-10, o.kv_rows);
  o.batch = random_int(0, 5);
  o.causal = random_chance(3);
  if (random_chance(4)) o.window_left = random_chance(2) ? random_int(0, 5) : random_int(0, 200);
  if (random_chance(4)) o.window_right = random_chance(2) ? random_int(0, 5) : random_int(0, 200);
  if (random_chance(6)) o.scale = (double[]){ 0, -0.3, 1, 1e-31, 0.7 }[random_int(0, 4)];
  if (random_chance(5)) o.softcap = random_chance(2) ? 50 : 0.5 + 5 * random_uniform();
  if (random_chance(2)) {
    o.mask_dtype = random_chance(2) ? ATTN_BOOL : random_chance(2) ? ATTN_F32 : o.dtype;
    o.hidden = random_chance(2) ? 0.3 : random_chance(4) ? 1 : 0;
  }
  if (random_chance(3)) {
    o.weights_dtype = random_chance(2) ? ATTN_F32 : real_or(s, o.dtype);
    if (random_chance(2)) o.stage = (attn_weights_stage)random_int(0, 3);
  }
  o.alibi = random_chance(5);
  o.sinks = random_chance(5);
  o.lse = random_chance(2);
  if (random_chance(5)) o.dropout = random_chance(2) ? 0.5 : random_uniform();
  o.seed = random_bits();
  if (random_chance(2)) o.inputs = random_chance(2) ? VIEW_STRIDED : VIEW_BROADCAST;
  if (random_chance(2)) o.outputs = VIEW_STRIDED;
  if (random_chance(10)) o.q_spread = o.dtype == ATTN_F16 ? 1e3 : 1e4; /* scores of +-1e4 and more */
  return o;
}

static void fill(view *v, double spread) {
  for (int64_t a = 0; a < v->extent[0]; a++)
    for (int64_t b = 0; b < v->extent[1]; b++)
      for (int64_t c = 0; c < v->extent[2]; c++) view_put(v, a, b, c, spread * random_normal());
}

void attention_plant(view *x, int exponent) {
  for (int64_t count = view_count(x) ? random_int(0, 2) : 0; count > 0; count--)
    view_put(x, random_int(0, x->extent[0] - 1), random_int(0, x->extent[1] - 1), random_int(0, x->extent[2] - 1),
             ldexp(random_normal(), exponent));
}

static attn_strides strides(const view *v) { return (attn_strides){ v->stride[0], v->stride[1], v->stride[2] }; }

void attention_build(attention_case *c, const attention_options *o) {
  *c = (attention_case){ .options = *o };
  guard_reset();
  guard_choose(random_chance(2) ? GUARD_BEFORE : GUARD_BEHIND);
  c->q = view_new(o->dtype, o->q_heads, o->q_rows, o->head_dim, o->inputs);
  c->k = view_new(o->dtype, o->kv_heads, o->kv_rows, o->head_dim, o->inputs);
  c->v = view_new(o->dtype, o->kv_heads, o->kv_rows, o->value_dim, o->inputs);
  fill(&c->q, o->q_spread);
  fill(&c->k, 1);
  fill(&c->v, 1);
  if (o->q_planted) attention_plant(&c->q, o->q_planted);
  if (o->k_planted) attention_plant(&c->k, o->k_planted);
  if (o->v_planted) attention_plant(&c->v, o->v_planted);
  if (o->mask_dtype != NO_DTYPE) {
    c->mask = view_new(o->mask_dtype, o->q_heads, o->q_rows, o->kv_rows, o->inputs);
    for (int64_t h = 0; h < o->q_heads; h++)
      for (int64_t i = 0; i < o->q_rows; i++)
        for (int64_t j = 0; j < o->kv_rows; j++) {
          const bool hide = random_uniform() < o->hidden;
          view_put(&c->mask, h, i, j, o->mask_dtype == ATTN_BOOL ? !hide : hide ? -INFINITY : 2 * random_normal());
        }
  }
  for (int64_t h = 0; h < o->q_heads; h++) {
    c->slopes[h] = ldexp(1, -(int)random_int(0, 8));
    c->sinks[h] = random_chance(6) ? -INFINITY : 3 * random_normal();
  }
  guard_seal();
  c->o = view_new(o->dtype, o->q_heads, o->q_rows, o->value_dim, o->outputs);
  if (o->lse) {
    c->lse = view_new(o->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32, o->q_heads, o->q_rows, 1, o->outputs);
  }
  if (o->weights_dtype != NO_DTYPE)
    c->weights = view_new(o->weights_dtype, o->q_heads, o->q_rows, o->kv_rows, o->outputs);

  c->sequence = (attn_sequence){
    .q = c->q.data, .k = c->k.data, .v = c->v.data, .mask = c->mask.data,
    .o = c->o.data, .lse = c->lse.data, .weights = c->weights.data,
    .q_rows = o->q_rows, .q_len = o->q_len, .kv_rows = o->kv_rows, .kv_len = o->kv_len,
    .query_offset = o->query_offset, .batch = o->batch,
  };
  c->problem = (attn_problem){
    .dtype = o->dtype, .kv_dtype = o->dtype,
    .mask_dtype = o->mask_dtype != NO_DTYPE ? o->mask_dtype : ATTN_BOOL,
    .weights_dtype = o->weights_dtype != NO_DTYPE ? o->weights_dtype : ATTN_F32,
    .q_heads = o->q_heads, .kv_heads = o->kv_heads, .head_dim = o->head_dim, .value_dim = o->value_dim,
    .q = strides(&c->q), .k = strides(&c->k), .v = strides(&c->v), .o = strides(&c->o), .lse = strides(&c->lse),
    .mask = strides(&c->mask), .weights = strides(&c->weights),
    .scale = o->scale, .softcap = o->softcap, .causal = o->causal,
    .window_left = o->window_left, .window_right = o->window_right,
    .slopes = o->alibi ? c->slopes : NULL, .sinks = o->sinks ? c->sinks : NULL,
    .dropout_threshold = (uint32_t)(o->dropout * 0x1p32), .dropout_scale = 1 / (1 - o->dropout), .seed = o->seed,
    .weights_stage = o->stage, .sequences = &c->sequence, .sequence_count = 1,
  };
  check_context("q %ldx%ldx%ld (%ld) k %ldx%ldx%ld (%ld) v %ld %s mask %s weights %s/%d scale %g cap %g causal %d "
                "offset %ld window %ld,%ld alibi %d sinks %d dropout %g layouts %d %d spread %g",
                (long)o->q_heads, (long)o->q_rows, (long)o->head_dim, (long)o->q_len, (long)o->kv_heads,
                (long)o->kv_rows, (long)o->head_dim, (long)o->kv_len, (long)o->value_dim, dtype_name(o->dtype),
                dtype_name(o->mask_dtype), dtype_name(o->weights_dtype), (int)o->stage, o->scale, o->softcap, o->causal,
                (long)o->query_offset, (long)o->window_left, (long)o->window_right, o->alibi, o->sinks, o->dropout,
                (int)o->inputs, (int)o->outputs, o->q_spread);
}

double attention_bias(const attention_case *c, int64_t head, int64_t row, int64_t key) {
  if (!c->mask.data) return 0;
  const double value = view_get(&c->mask, head, row, key);
  return c->mask.dtype == ATTN_BOOL ? (value != 0 ? 0 : -INFINITY) : value;
}

bool attention_visible(const attention_case *c, int64_t head, int64_t row, int64_t key) {
  const attention_options *o = &c->options;
  const int64_t position = row + o->query_offset;
  return row < o->q_len && key < o->kv_len && (!o->causal || key <= position)
      && (o->window_left < 0 || key >= position - o->window_left)
      && (o->window_right < 0 || key <= position + o->window_right) && attention_bias(c, head, row, key) > -INFINITY;
}

typedef void (*tile_runner)(const attention_case *c, const attn_kernels *kernels, const attn_tile *tile, void *scratch);

static void run_tile(const attention_case *c, const attn_kernels *kernels, const attn_tile *tile, void *scratch) {
  kernels->attention_tile(&c->problem, tile, scratch);
}

static void run_parts(const attention_case *c, const attn_kernels *kernels, const attn_tile *tile, void *scratch) {
  const int64_t chunks = (c->sequence.kv_len + kernels->chunk_keys - 1) / kernels->chunk_keys;
  const size_t size = kernels->attention_state(&c->problem);
  int64_t first = 0;
  do {
    const int64_t count = random_int(chunks > 0, chunks - first > 1 ? chunks - first : chunks > 0);
    char *states = guard_new((size_t)count * size, 64);
    const bool backwards = random_chance(2);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = backwards ? count - 1 - i : i;
      kernels->attention_chunk(&c->problem, tile, first + at, scratch, states + (size_t)at * size);
    }
    kernels->attention_merge(&c->problem, tile, first == 0, states, count, first + count == chunks, scratch);
    guard_return();
    first += count;
  } while (first < chunks);
}

static double *gather(const view *v, const char *what) {
  double *elements = calloc((size_t)view_count(v) + 1, sizeof *elements);
  view_gather(v, elements);
  view_check_gaps(v, what);
  return elements;
}

/* 64-byte aligned, new 0xff bytes, until the next call; kept, because fresh pages for megabytes cost more than a tile does. */
static void *scratch_of(size_t bytes) {
  static char *memory;
  static size_t size;
  if (bytes + GUARDED > size) {
    free(memory);
    size = (bytes + GUARDED + 63) / 64 * 64;
    memory = aligned_alloc(64, size);
  }
  memset(memory, 0xff, bytes + GUARDED);
  return memory;
}

static void check_scratch(const void *scratch, size_t bytes) {
  const unsigned char *behind = (const unsigned char *)scratch + bytes;
  for (int i = 0; i < GUARDED; i++) CHECK(behind[i] == 0xff, "byte %d behind the scratch was written", i);
}

static void run_all(attention_case *c, const attn_kernels *kernels, int64_t heads, int64_t rows, tile_runner run,
                    attention_result *out) {
  const attention_options *o = &c->options;
  const int64_t group = o->q_heads / o->kv_heads;
  const size_t bytes = kernels->attention_scratch(&c->problem);
  void *scratch = scratch_of(bytes);
  for (int64_t first_head = 0; first_head < o->q_heads;) {
    const int64_t left = group - first_head % group, some = left < heads ? left : heads;
    for (int64_t row = 0; row < o->q_rows; row += rows) {
      const attn_tile tile = { &c->sequence, first_head, some, row, o->q_rows - row < rows ? o->q_rows - row : rows };
      run(c, kernels, &tile, scratch);
    }
    first_head += some;
  }
  check_scratch(scratch, bytes);
  *out = (attention_result){ .o = gather(&c->o, "o") };
  if (o->lse) out->lse = gather(&c->lse, "lse");
  if (o->weights_dtype != NO_DTYPE) out->weights = gather(&c->weights, "weights");
}

void attention_run(attention_case *c, const attn_kernels *kernels, int64_t heads, int64_t rows, attention_result *out) {
  run_all(c, kernels, heads, rows, run_tile, out);
}

static int64_t tile_rows(const attention_case *c, const attn_kernels *kernels) {
  const int64_t rows = kernels->tile_rows * c->options.kv_heads / c->options.q_heads;
  return rows < c->options.q_rows ? rows : c->options.q_rows;
}

void attention_run_whole(attention_case *c, const attn_kernels *kernels, attention_result *out) {
  run_all(c, kernels, c->options.q_heads / c->options.kv_heads, tile_rows(c, kernels), run_tile, out);
}

void attention_run_parts(attention_case *c, const attn_kernels *kernels, attention_result *out) {
  run_all(c, kernels, c->options.q_heads / c->options.kv_heads, tile_rows(c, kernels), run_parts, out);
}

void same_numbers(const char *what, const double *a, const double *b, int64_t count) {
  for (int64_t i = 0; a && i < count; i++)
    if (!same_bits(a[i], b[i])) {
      check_fail("%s %lld is %.17g in one run, %.17g in another", what, (long long)i, a[i], b[i]);
      return;
    }
}

void attention_same(const attention_case *c, const attention_result *a, const attention_result *b) {
  same_numbers("o", a->o, b->o, view_count(&c->o));
  same_numbers("lse", a->lse, b->lse, view_count(&c->lse));
  same_numbers("weight", a->weights, b->weights, view_count(&c->weights));
}

void attention_free(attention_result *result) {
  free(result->o);
  free(result->lse);
  free(result->weights);
}
