/* attention_tile over keys and values as caches hold them: the bits of the same numbers in one piece. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_case.h"

/* Blocks of k or v in the order of `place`; what holds no token is NaN. Dense, or every other element. */
static void *in_blocks(const view *v, int64_t tokens, int64_t rows, int64_t blocks, const int64_t *place, int64_t gap,
                       attn_strides *step, int64_t *block_step) {
  const int64_t heads = v->extent[0], width = v->extent[2], size = (int64_t)attn_dtype_size(v->dtype);
  *step = (attn_strides){ width * gap, heads * width * gap, gap };
  *block_step = rows * heads * width * gap;
  char *memory = guard_new((size_t)(blocks * *block_step * size), (size_t)size);
  for (int64_t h = 0; h < heads; h++)
    for (int64_t j = 0; j < tokens; j++)
      for (int64_t d = 0; d < width; d++)
        memcpy(memory + (place[j / rows] * *block_step + h * step->head + j % rows * step->row + d * gap) * size,
               view_at(v, h, j, d), (size_t)size);
  return memory;
}

/* The table ends in a guard page after the last block that is used. */
static void paged(attention_case *c) {
  const int64_t rows = random_int(1, random_chance(2) ? 5 : 200), tokens = c->sequence.kv_len;
  const int64_t used = (tokens + rows - 1) / rows, blocks = used + random_int(0, 2);
  int64_t *place = guard_new((size_t)used * sizeof *place, sizeof *place);
  const int64_t first = random_int(0, blocks - used);
  for (int64_t i = 0; i < used; i++) place[i] = first + i;
  for (int64_t i = used - 1; i > 0 && !random_chance(8); i--) { /* nearly any order */
    const int64_t j = random_int(0, i), other = place[j];
    place[j] = place[i];
    place[i] = other;
  }
  const int64_t gap = random_chance(4) ? 2 : 1;
  c->sequence.k = in_blocks(&c->k, tokens, rows, blocks, place, gap, &c->problem.k, &c->problem.k_block);
  c->sequence.v = in_blocks(&c->v, tokens, rows, blocks, place, gap, &c->problem.v, &c->problem.v_block);
  c->sequence.blocks = place;
  c->problem.block_rows = rows;
}

/* Rows of int8 and their scales; the view becomes the floats that they stand for. */
static void *quantized(view *v, float *scales, attn_strides *step) {
  const int64_t heads = v->extent[0], tokens = v->extent[1], width = v->extent[2];
  int8_t *q = guard_new((size_t)(heads * tokens * width), 1);
  *step = (attn_strides){ tokens * width, width, 1 };
  for (int64_t h = 0; h < heads; h++)
    for (int64_t j = 0; j < tokens; j++) {
      const float scale = random_chance(20) ? 0 : (float)(random_uniform() / 60);
      scales[h * tokens + j] = scale;
      for (int64_t d = 0; d < width; d++) {
        const int8_t x = (int8_t)random_int(-127, 127);
        q[(h * tokens + j) * width + d] = x;
        view_put(v, h, j, d, scale * (float)x);
      }
    }
  return q;
}

static void try_paged(attention_case *c, const subject *s, const attention_result *whole) {
  attention_result got;
  paged(c);
  attention_run_whole(c, s->kernels, &got);
  attention_same(c, whole, &got);
  attention_free(&got);
  attention_run_parts(c, s->kernels, &got);
  attention_same(c, whole, &got);
  attention_free(&got);
}

/* int8 rows against the floats that they stand for. */
static void try_int8(attention_case *c, const subject *s) {
  const size_t count = (size_t)(c->k.extent[0] * c->k.extent[1]);
  float *k_scales = guard_new(count * sizeof(float), sizeof(float)), *v_scales = guard_new(count * sizeof(float), sizeof(float));
  attn_strides k_step, v_step;
  guard_open();
  void *k = quantized(&c->k, k_scales, &k_step), *v = quantized(&c->v, v_scales, &v_step);
  guard_seal();
  attention_result whole, got;
  attention_run_whole(c, s->kernels, &whole);
  c->sequence.k = k;
  c->sequence.v = v;
  c->sequence.k_scales = k_scales;
  c->sequence.v_scales = v_scales;
  c->problem.kv_dtype = ATTN_I8;
  c->problem.k = k_step;
  c->problem.v = v_step;
  c->problem.scales = (attn_strides){ c->k.extent[1], 1, 0 };
  attention_run_whole(c, s->kernels, &got);
  attention_same(c, &whole, &got);
  attention_free(&got);
  attention_run_parts(c, s->kernels, &got);
  attention_same(c, &whole, &got);
  attention_free(&got);
  attention_free(&whole);
}

void test_attention_stored(const subject *s) {
  check_begin(s->isa, s->real, "attention stored");
  attention_case c;
  const bool is_float = !strcmp(s->real, "float");
  for (int i = 0; i < check_trials(300); i++) {
    attention_options o = attention_random(s);
    o.stage = random_chance(2) ? ATTN_PROBABILITIES : ATTN_BIASED; /* the others show keys past kv_len */
    if (random_chance(4)) { /* what tiles could read in place */
      o.head_dim = 32 * random_int(1, 4);
      o.kv_len = o.kv_rows = 16 * random_int(1, 12);
      o.inputs = VIEW_DENSE;
    }
    if (random_chance(8)) { /* several chunks for few rows */
      o.q_rows = o.q_len = random_int(1, 3);
      o.kv_rows = random_int(1, 3 * s->kernels->chunk_keys);
      o.kv_len = random_int(o.kv_rows / 2, o.kv_rows);
      o.head_dim = o.value_dim = random_int(1, 40);
    }
    const bool int8 = is_float && i % 2;
    if (int8) o.dtype = ATTN_F32, o.inputs = o.inputs == VIEW_BROADCAST ? VIEW_STRIDED : o.inputs;
    attention_build(&c, &o);
    if (int8) {
      try_int8(&c, s);
      continue;
    }
    attention_result whole;
    attention_run_whole(&c, s->kernels, &whole);
    try_paged(&c, s, &whole);
    attention_free(&whole);
  }
  check_end();
}
