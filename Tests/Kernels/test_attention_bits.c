/* attention_tile: a row's bits depend on its own inputs alone, and invisible keys on nothing. */
#include <math.h>
#include <stdlib.h>

#include "attention_case.h"

/* Tiles of other heights and head counts put rows in other lanes, beside others, and start at other keys; and keys can
 * be split in chunks. */
static void cuts(attention_case *c, const subject *s, const attention_result *whole) {
  const int64_t group = c->options.q_heads / c->options.kv_heads;
  for (int i = 0; i < 4; i++) {
    const int64_t heads = i ? random_int(1, group) : 1;
    const int64_t rows = i ? random_int(1, s->kernels->tile_rows / heads) : 1;
    attention_result cut;
    if (i < 3) attention_run(c, s->kernels, heads, rows, &cut);
    else attention_run_parts(c, s->kernels, &cut);
    attention_same(c, whole, &cut);
    attention_free(&cut);
  }
}

/* The same visibility as a mask alone: nothing is skipped then, every block is worked through. */
static void unskipped(attention_case *c, const subject *s, const attention_result *whole) {
  attention_options *o = &c->options;
  guard_open();
  for (int64_t h = 0; h < o->q_heads; h++)
    for (int64_t i = 0; i < o->q_rows; i++)
      for (int64_t j = 0; j < o->kv_rows; j++) {
        if (attention_visible(c, h, i, j)) continue;
        view_put(&c->mask, h, i, j, c->mask.dtype == ATTN_BOOL ? 0 : -INFINITY);
      }
  guard_seal();
  c->problem.causal = false;
  c->problem.window_left = c->problem.window_right = -1;
  c->sequence.q_len = o->q_rows;
  c->sequence.kv_len = o->kv_rows;
  attention_result all;
  attention_run_whole(c, s->kernels, &all);
  attention_same(c, whole, &all);
  attention_free(&all);
}

void test_attention_bits(const subject *s) {
  check_begin(s->isa, s->real, "attention bits");
  attention_case c;
  for (int i = 0; i < check_trials(300); i++) {
    attention_options o = attention_random(s);
    if (random_chance(8)) { /* several chunks for few rows: what is split in practice */
      o.q_rows = o.q_len = random_int(1, 3);
      o.kv_rows = random_int(1, 5 * s->kernels->chunk_keys);
      o.kv_len = random_int(o.kv_rows / 2, o.kv_rows);
      o.head_dim = o.value_dim = random_int(1, 20);
    }
    const bool by_mask = i % 2 && o.inputs != VIEW_BROADCAST;
    if (by_mask) {
      if (o.mask_dtype == NO_DTYPE) o.mask_dtype = ATTN_BOOL;
      o.stage = ATTN_PROBABILITIES;
      o.query_offset = random_int(0, o.kv_rows);
      o.causal = true;
    }
    attention_build(&c, &o);
    attention_result whole;
    attention_run_whole(&c, s->kernels, &whole);
    cuts(&c, s, &whole);
    if (by_mask) unskipped(&c, s, &whole);
    attention_free(&whole);
  }
  check_end();
}

/* Spoils elements of some keys or values, and says which heads and keys those are. */
static void poison(attention_case *c, bool *spoiled, bool values, double with) {
  attention_options *o = &c->options;
  guard_open();
  for (int i = 0; i < 4; i++) {
    const int64_t h = random_int(0, o->kv_heads - 1), j = random_int(0, o->kv_rows - 1);
    const view *v = values ? &c->v : &c->k;
    view_put(v, h, j, random_int(0, v->extent[2] - 1), with);
    spoiled[h * o->kv_rows + j] = true;
  }
  guard_seal();
}

/* NaN and Inf in keys and values change not a bit in rows that do not see them; NaN makes rows NaN that do. */
void test_attention_nonfinite(const subject *s) {
  check_begin(s->isa, s->real, "attention nonfinite");
  attention_case c;
  for (int i = 0; i < check_trials(300); i++) {
    attention_options o = attention_random(s);
    if (o.inputs == VIEW_BROADCAST) o.inputs = VIEW_STRIDED;
    if (o.kv_rows == 0 || o.head_dim == 0 || o.value_dim == 0) continue;
    if (random_chance(2)) o.causal = true, o.query_offset = random_int(0, o.kv_rows / 2);
    o.stage = ATTN_PROBABILITIES;
    o.dropout = 0;
    o.q_spread = 1;
    attention_build(&c, &o);
    attention_result clean, spoiled;
    attention_run_whole(&c, s->kernels, &clean);
    bool *is_spoiled = calloc((size_t)(o.kv_heads * o.kv_rows), sizeof *is_spoiled);
    const bool values = i % 2;
    const double with = (double[]){ NAN, INFINITY, -INFINITY }[random_int(0, 2)];
    poison(&c, is_spoiled, values, with);
    attention_run_whole(&c, s->kernels, &spoiled);

    const int64_t group = o.q_heads / o.kv_heads;
    for (int64_t row = 0; row < o.q_heads * o.q_rows; row++) {
      const int64_t h = row / o.q_rows;
      bool sees = false;
      for (int64_t j = 0; j < o.kv_rows; j++)
        sees |= is_spoiled[h / group * o.kv_rows + j] && attention_visible(&c, h, row % o.q_rows, j);
      if (sees && !values && isnan(with)) {
        for (int64_t e = 0; e < o.value_dim; e++)
          CHECK(isnan(spoiled.o[row * o.value_dim + e]), "row %ld sees a NaN key, o is %g", (long)row,
                spoiled.o[row * o.value_dim + e]);
        CHECK(!spoiled.lse || isnan(spoiled.lse[row]), "row %ld sees a NaN key, lse is %g", (long)row,
              spoiled.lse[row]);
      }
      if (!sees || values) { /* values reach neither lse nor weights */
        if (clean.lse) same_numbers("lse of an unspoiled row", clean.lse + row, spoiled.lse + row, 1);
        if (clean.weights)
          same_numbers("weight of an unspoiled row", clean.weights + row * o.kv_rows,
                       spoiled.weights + row * o.kv_rows, o.kv_rows);
      }
      if (!sees)
        same_numbers("o of an unspoiled row", clean.o + row * o.value_dim, spoiled.o + row * o.value_dim, o.value_dim);
    }
    if (values) attention_compare(&c, s, &spoiled, NULL); /* which columns are spoiled, and that no others are */
    free(is_spoiled);
    attention_free(&clean);
    attention_free(&spoiled);
  }
  check_end();
}
