/* attention_tile over random problems, and over directed ones that random draws seldom hit. */
#include <float.h>
#include <math.h>

#include "attention_case.h"

typedef struct worst { double o, lse, weights; } worst; /* of tensors in the computing type */

static void try_built(attention_case *c, const subject *s, worst *w) {
  const attention_options *o = &c->options;
  attention_result got, portable = {0};
  attention_run_whole(c, s->kernels, &got);
  if (s->kernels != s->portable) attention_run_whole(c, s->portable, &portable);
  const attention_errors e = attention_compare(c, s, &got, s->kernels == s->portable ? NULL : &portable);
  if (o->dtype == s->real_dtype) w->o = fmax(w->o, e.o);
  w->lse = fmax(w->lse, e.lse);
  if (o->weights_dtype == s->real_dtype) w->weights = fmax(w->weights, e.weights);
  attention_free(&got);
  attention_free(&portable);
}

static void try_case(attention_case *c, const subject *s, const attention_options *options, worst *w) {
  attention_build(c, options);
  try_built(c, s, w);
}

static void note(const worst *w) { check_note("o %.1e lse %.1e weights %.1e", w->o, w->lse, w->weights); }

void test_attention(const subject *s) {
  check_begin(s->isa, s->real, "attention_tile");
  attention_case c;
  worst w = {0};
  for (int i = 0; i < check_trials(s->dtype_count > 1 ? 900 : 300); i++) {
    const attention_options options = attention_random(s);
    try_case(&c, s, &options, &w);
  }
  note(&w);
  check_end();
}

/* Every row count and head dim once; keys around the borders of blocks and chunks, under each kind of visibility. */
static void sizes(const subject *s, attention_case *c, worst *w) {
  const int step = check_quick || check_slow ? 7 : 1;
  for (int rows = 1; rows <= s->kernels->tile_rows; rows += step) {
    attention_options o = attention_plain(s, rows, 100, 9);
    o.causal = rows % 2;
    try_case(c, s, &o, w);
  }
  for (int dim = 1; dim <= 130; dim += step) {
    attention_options o = attention_plain(s, 5, 13, dim);
    o.dtype = s->dtypes[dim % s->dtype_count];
    o.inputs = dim % 2 ? VIEW_DENSE : VIEW_STRIDED;
    try_case(c, s, &o, w);
  }
  for (int dim = 512; dim <= 1024; dim += 512) {
    attention_options o = attention_plain(s, 7, 99, dim);
    try_case(c, s, &o, w);
  }
  for (int border = 96; border <= 960; border += border < 480 ? 96 : 480)
    for (int keys = border - 1; keys <= border + 1; keys++)
      for (int kind = 0; kind < 4; kind++) {
        attention_options o = attention_plain(s, 11, keys, 8);
        o.weights_dtype = s->real_dtype;
        o.query_offset = keys - 11;
        o.causal = kind == 1;
        if (kind == 2) o.window_left = 97;
        if (kind == 3) o.kv_len = keys - 97 > 0 ? keys - 97 : 1;
        try_case(c, s, &o, w);
      }
}

/* Masks of every broadcastable shape, under tiles of one head and of several. */
static void mask_shapes(const subject *s, attention_case *c, worst *w) {
  for (int shape = 0; shape < 8; shape++)
    for (int kind = 0; kind < 3; kind++)
      for (int64_t rows = 1; rows <= 7; rows += 6) {
        attention_options o = attention_plain(s, rows, 101, 6);
        o.dtype = s->dtypes[s->dtype_count - 1];
        o.q_heads = 6;
        o.kv_heads = 1 + shape % 2;
        o.mask_dtype = kind == 0 ? ATTN_BOOL : kind == 1 ? ATTN_F32 : o.dtype;
        o.hidden = 0.4;
        attention_build(c, &o);
        for (int dim = 0; dim < 3; dim++)
          if (shape >> dim & 1) c->mask.stride[dim] = 0;
        c->problem.mask = (attn_strides){ c->mask.stride[0], c->mask.stride[1], c->mask.stride[2] };
        try_built(c, s, w);
      }
}

/* Rows that see nothing, one way after the other: o 0, weights 0, lse -inf or the sink. */
static void unseen(const subject *s, attention_case *c, worst *w) {
  for (int way = 0; way < 10; way++) {
    attention_options o = attention_plain(s, 9, 120, 5);
    o.weights_dtype = s->real_dtype;
    o.sinks = way % 2;
    switch (way / 2) {
      case 0: o.q_len = 0; break;
      case 1: o.kv_len = 0; break;
      case 2: o.causal = true; o.query_offset = -4; break; /* four rows see nothing, the others a little */
      case 3: o.mask_dtype = ATTN_BOOL; o.hidden = 1; break;
      case 4: o.window_left = o.window_right = 2; o.query_offset = 119; break;
    }
    try_case(c, s, &o, w);
    o.softcap = 3;
    o.alibi = true;
    try_case(c, s, &o, w);
  }
}

/* Scores given one by one, exactly, as products or as bias: base, base - 1, ... base - range, again and again. */
static void exact_scores(const subject *s, attention_case *c, worst *w, double base, int range, bool as_bias) {
  const int64_t keys = 200, rows = 3;
  attention_options o = attention_plain(s, rows, keys, 1);
  o.weights_dtype = s->real_dtype;
  o.q_spread = 0;
  if (as_bias) o.mask_dtype = s->real_dtype;
  attention_build(c, &o);
  check_context("scores from %g down to %g, as a %s", base, base - range, as_bias ? "bias" : "product");
  guard_open();
  for (int64_t j = 0; j < keys; j++) {
    const double score = base - (double)(j % (range + 1));
    if (!as_bias) view_put(&c->k, 0, j, 0, score);
    for (int64_t r = 0; r < rows; r++) {
      if (as_bias) view_put(&c->mask, 0, r, j, score);
      else view_put(&c->q, 0, r, 0, 1);
    }
  }
  guard_seal();
  c->exact_scores = true;
  try_built(c, s, w);
}

/* Equal scores of any size share the weight equally: a bias of -1e9 or of the lowest float is a common mask. And a
 * common offset that costs the plain loop nothing may not cost the kernel anything. */
static void huge_scores(const subject *s, attention_case *c, worst *w) {
  const double sizes[] = { 1e4, 1e8, 2e9, 1e10, 1e30, FLT_MAX / 4, s->real_dtype == ATTN_F64 ? DBL_MAX : FLT_MAX };
  for (int i = 0; i < 28; i++) exact_scores(s, c, w, i & 1 ? sizes[i / 4] : -sizes[i / 4], 0, i & 2);
  for (int i = 0; i < check_trials(200); i++)
    exact_scores(s, c, w, (double)random_int(-20000, 20000), (int)random_int(1, 40), i & 1);
}

void test_attention_edges(const subject *s) {
  check_begin(s->isa, s->real, "attention edges");
  attention_case c;
  worst w = {0};
  sizes(s, &c, &w);
  mask_shapes(s, &c, &w);
  unseen(s, &c, &w);
  huge_scores(s, &c, &w);
  note(&w);
  check_end();
}
