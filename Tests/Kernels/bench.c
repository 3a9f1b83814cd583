/* Times every entry of every variant: arithmetic in GFLOP/s, rows in GB/s read and written. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "attention_case.h"

/* Of this thread on a core: other work on the machine does not count. */
static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define COLUMNS 4096 /* of a row: with its output it stays in L1 or L2 */
#define M 192        /* the blocking of the product's driver */
#define K 256

typedef struct setup {
  const subject *s;
  attn_dtype dtype;
  attention_case c;
  attn_backward backward; /* of c, its o standing in for d_o */
  attn_sequence_gradients gradients;
  void *scratch, *a, *b, *sums, *x, *out, *reals;
  attn_matrix by_rows, by_columns;
} setup;

/* Each does its work once and returns how much it was, in 1e9 operations or bytes. */
typedef double (*workload)(setup *u);

static double attention(setup *u) {
  const attention_options *o = &u->c.options;
  const attn_tile tile = { &u->c.sequence, 0, 1, 0, o->q_rows };
  u->s->kernels->attention_tile(&u->c.problem, &tile, u->scratch);
  return 4e-9 * (double)(o->q_rows * o->kv_rows * o->head_dim);
}

/* Decode: so few queries, chunk by chunk, k and v read. */
static double attention_in_parts(setup *u, int64_t queries) {
  const attn_kernels *kernels = u->s->kernels;
  const attention_options *o = &u->c.options;
  const attn_tile tile = { &u->c.sequence, 0, 1, 0, queries };
  const int64_t chunks = (o->kv_rows + kernels->chunk_keys - 1) / kernels->chunk_keys;
  const size_t size = kernels->attention_state(&u->c.problem);
  for (int64_t i = 0; i < chunks; i++)
    kernels->attention_chunk(&u->c.problem, &tile, i, u->scratch, (char *)u->sums + (size_t)i * size);
  kernels->attention_merge(&u->c.problem, &tile, true, u->sums, chunks, true, u->scratch);
  return 2e-9 * (double)(o->kv_rows * o->head_dim) * (double)attn_dtype_size(u->dtype);
}

static double attention_of_1(setup *u) { return attention_in_parts(u, 1); }
static double attention_of_4(setup *u) { return attention_in_parts(u, 4); }
static double attention_of_8(setup *u) { return attention_in_parts(u, 8); }

static double attention_backward(setup *u) {
  const attention_options *o = &u->c.options;
  const attn_kernels *kernels = u->s->kernels;
  const attn_tile tile = { &u->c.sequence, 0, 1, 0, o->q_rows };
  const attn_key_sums sums = { u->a, u->b, o->head_dim, o->value_dim, 0 };
  const int64_t keys = 512; /* whose sums the buffers hold */
  kernels->backward_tile(&u->backward, &tile, u->reals, 0, keys, &sums, true, u->scratch);
  return 10e-9 * (double)(o->q_rows * keys * o->head_dim);
}

static double multiply(setup *u) {
  u->s->kernels->multiply(M, K, u->a, u->b, u->sums, u->s->kernels->nr, false);
  return 2e-9 * M * K * u->s->kernels->nr;
}

static double moved(const setup *u, double count) {
  return 1e-9 * count * (double)(attn_dtype_size(u->dtype) + attn_dtype_size(u->s->real_dtype));
}

static double pack_a(setup *u) {
  u->s->kernels->pack_a(u->dtype, &u->by_rows, M, K, u->a);
  return moved(u, M * K);
}

static double pack_b(setup *u) {
  const attn_matrix b = { u->x, u->s->kernels->nr, 1 };
  u->s->kernels->pack_b(u->dtype, &b, K, u->s->kernels->nr, u->b);
  return moved(u, K * u->s->kernels->nr);
}

static double pack_b_transposed(setup *u) {
  u->s->kernels->pack_b(u->dtype, &u->by_columns, K, u->s->kernels->nr, u->b);
  return moved(u, K * u->s->kernels->nr);
}

static double finish(setup *u) {
  const attn_gemm gemm = { .dtype = u->dtype, .activation = ATTN_IDENTITY };
  const int64_t nr = u->s->kernels->nr;
  const attn_matrix c = { u->out, nr, 1 };
  u->s->kernels->finish(&gemm, u->sums, nr, &c, NULL, NULL, M, nr);
  return moved(u, (double)(M * nr));
}

static double softmax(setup *u) {
  const attn_rows shape = { u->dtype, COLUMNS, 1, 1, false };
  u->s->kernels->softmax_row(&shape, u->x, u->out, u->reals);
  return 2e-9 * COLUMNS * (double)attn_dtype_size(u->dtype);
}

static double activation(setup *u, attn_activation which) {
  const attn_rows shape = { u->dtype, COLUMNS, 1, 1, false };
  u->s->kernels->activation_row(&shape, which, u->x, NULL, 0, u->out);
  return 2e-9 * COLUMNS * (double)attn_dtype_size(u->dtype);
}

static double gelu(setup *u) { return activation(u, ATTN_GELU); }
static double gelu_tanh(setup *u) { return activation(u, ATTN_GELU_TANH); }
static double silu(setup *u) { return activation(u, ATTN_SILU); }

static double norm(setup *u, bool centred) {
  const attn_norm norm = { { u->dtype, COLUMNS, 1, 1, false }, centred, 1e-5, u->reals, centred ? u->reals : NULL };
  u->s->kernels->norm_row(&norm, u->x, u->out, NULL);
  return 2e-9 * COLUMNS * (double)attn_dtype_size(u->dtype);
}

static double layer_norm(setup *u) { return norm(u, true); }
static double rms_norm(setup *u) { return norm(u, false); }
static double relu(setup *u) { return activation(u, ATTN_RELU); }

static double load(setup *u) {
  u->s->kernels->load_row(u->dtype, u->x, 1, COLUMNS, u->reals);
  return moved(u, COLUMNS);
}

static double store(setup *u) {
  u->s->kernels->store_row(u->dtype, u->reals, COLUMNS, u->out, 1);
  return moved(u, COLUMNS);
}

/* The best of five: caches shared with other work only ever add time. */
static double rate(workload work, setup *u) {
  double best = 0;
  int calls = 1; /* between two looks at the clock, which costs a system call */
  for (int round = 0; round < 5;) {
    const double start = seconds();
    double done = 0;
    for (int i = 0; i < calls; i++) done += work(u);
    const double spent = seconds() - start;
    if (spent < 0.005) {
      calls *= 2;
      continue;
    }
    if (done / spent > best) best = done / spent;
    round++;
  }
  return best;
}

static double measure(const subject *s, attn_dtype dtype, workload work) {
  setup *u = calloc(1, sizeof *u);
  u->s = s;
  u->dtype = dtype;
  attention_options o = attention_plain(s, s->kernels->tile_rows < 64 ? s->kernels->tile_rows : 64, 1024, 64);
  o.dtype = dtype;
  attention_build(&u->c, &o);
  guard_choose(GUARD_BEFORE); /* page-aligned buffers */
  const attn_strides strides = u->c.problem.o;
  u->gradients = (attn_sequence_gradients){ .d_o = u->c.o.data };
  u->backward = (attn_backward){ .problem = &u->c.problem, .d_o = strides, .dq = { dtype, u->c.problem.q },
                                 .gradients = &u->gradients };
  const size_t forward = s->kernels->attention_scratch(&u->c.problem);
  const size_t backward = s->kernels->backward_tile ? s->kernels->backward_scratch(&u->backward) : 0;
  u->scratch = guard_new(forward > backward ? forward : backward, 64);
  void **const buffers[] = { &u->a, &u->b, &u->sums, &u->x, &u->out, &u->reals };
  for (int i = 0; i < 6; i++) {
    *buffers[i] = guard_new(M * K * 8, 64);
    const attn_dtype of = buffers[i] == &u->x ? dtype : s->real_dtype;
    for (size_t j = 0; j < M * K; j++) element_put(of, (char *)*buffers[i] + j * attn_dtype_size(of), random_normal());
  }
  u->gradients.dq = u->out;
  attention(u); /* o and lse */
  u->by_rows = (attn_matrix){ u->x, K, 1 };
  u->by_columns = (attn_matrix){ u->x, 1, K };
  const double result = rate(work, u);
  free(u);
  return result;
}

void bench(const subject *subjects, int count) {
  static const struct { const char *name; workload work; bool halves; } rows[] = {
    { "attention GFLOP/s", attention, true },
    { "backward GFLOP/s", attention_backward, true },
    { "decode of 1 GB/s", attention_of_1, true },
    { "decode of 4 GB/s", attention_of_4, true },
    { "decode of 8 GB/s", attention_of_8, true },
    { "multiply GFLOP/s", multiply, false },
    { "pack_a GB/s", pack_a, true },
    { "pack_b GB/s", pack_b, true },
    { "pack_b^T GB/s", pack_b_transposed, true },
    { "finish GB/s", finish, true },
    { "softmax_row GB/s", softmax, true },
    { "layer_norm GB/s", layer_norm, true },
    { "rms_norm GB/s", rms_norm, true },
    { "relu GB/s", relu, true },
    { "gelu GB/s", gelu, true },
    { "gelu_tanh GB/s", gelu_tanh, true },
    { "silu GB/s", silu, true },
    { "load_row GB/s", load, true },
    { "store_row GB/s", store, true },
  };
  check_context("bench");
  printf("%-24s", "");
  for (int i = 0; i < count; i++) printf(" %9s", subjects[i].isa);
  printf("\n%-24s", "");
  for (int i = 0; i < count; i++) printf(" %9s", subjects[i].real);
  printf("\n");
  for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
    for (int variant = 0; variant < (rows[r].halves ? 3 : 1); variant++) {
      static const attn_dtype halves[] = { ATTN_F32, ATTN_F16, ATTN_BF16 };
      printf("%-19s %-4s", rows[r].name, variant ? dtype_name(halves[variant]) : "");
      for (int i = 0; i < count; i++) {
        const subject *s = &subjects[i];
        const attn_dtype dtype = variant ? halves[variant] : s->real_dtype;
        bool has = false;
        for (int d = 0; d < s->dtype_count; d++) has |= s->dtypes[d] == dtype || !rows[r].halves;
        has &= rows[r].work != attention_backward || s->kernels->backward_tile;
        if (has) printf(" %9.1f", measure(s, rows[r].halves ? dtype : s->dtypes[0], rows[r].work));
        else printf(" %9s", "");
        fflush(stdout);
      }
      printf("\n");
    }
}

/* Panels of a weight (PANELS * PANEL, 1536) with one row of x, read from memory, and with many, which is arithmetic. */
#define PANELS 400
#define WIDTH 1536

void bench_quant(const char *name, const attn_quant_kernels *kernels) {
  static const struct { const char *name; attn_quant format; } formats[] = {
    { "Q4_0", ATTN_Q4_0 }, { "Q4_1", ATTN_Q4_1 }, { "Q8_0", ATTN_Q8_0 }, { "Q4_K", ATTN_Q4_K }, { "Q6_K", ATTN_Q6_K },
  };
  const int64_t m = kernels->rows, blocks = WIDTH / QUANT_BLOCK;
  float *x = calloc((size_t)(m * WIDTH), sizeof *x), *sums = calloc((size_t)(m * PANEL), sizeof *sums);
  char *operands = aligned_alloc(64, (size_t)(m * blocks * quant_operand_bytes(false)));
  attn_quant_facts *facts = calloc((size_t)(m * blocks), sizeof *facts);
  const attn_quant_place place = { sums, PANEL, NULL, NULL, 0 };
  for (int64_t i = 0; i < m * WIDTH; i++) x[i] = (float)random_normal();
  for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
    const attn_quant format = formats[f].format;
    const int64_t bytes = quant_panel_bytes(format, WIDTH);
    char *panels = aligned_alloc(64, (size_t)(PANELS * bytes));
    for (int64_t i = 0; i < PANELS * bytes; i++) panels[i] = (char)(i * 7 & 15);
    double best[3] = { 1e9, 1e9, 1e9 }; /* one row, many, many coarsely */
    for (int run = 0; run < 5; run++)
      for (int way = 0; way < (kernels->coarse ? 3 : 2); way++) {
        const int64_t rows = way ? m : 1;
        for (int64_t r = 0; r < rows; r++)
          kernels->quantise(x + r * WIDTH, WIDTH, way == 2, rows, operands + r * quant_operand_bytes(way == 2), facts + r);
        const double start = seconds();
        for (int64_t p = 0; p < PANELS; p++)
          kernels->tile(format, way == 2, rows, WIDTH, operands, facts, panels + (way ? 0 : p * bytes), &place);
        best[way] = fmin(best[way], seconds() - start);
      }
    const double work = 2e-9 * (double)(m * PANELS * PANEL * WIDTH);
    printf("%-12s %s: 1 row %6.1f GB/s, %d rows %6.1f GFLOP/s, coarsely %6.1f\n", name, formats[f].name,
           1e-9 * (double)(PANELS * bytes) / best[0], (int)m, work / best[1], kernels->coarse ? work / best[2] : 0);
    free(panels);
  }
  free(x), free(sums), free(operands), free(facts);
}
