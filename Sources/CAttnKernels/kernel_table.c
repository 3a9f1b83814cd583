/* The only chooser of kernels: the best ISA the machine has, or the one that SWIFTATTN_ISA names. */
#include "kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_features.h"
#include "kernel_list.h"

#define DECLARE(isa, tables, has, may) extern const attn_kernels attn_kernels_##tables##_float, attn_kernels_##tables##_double;
ATTN_ISA_LIST(DECLARE)
#define DECLARE_BF16(isa, has) extern const attn_kernels attn_kernels_##isa##_bfloat16;
ATTN_BF16_LIST(DECLARE_BF16)
#define DECLARE_PRODUCTS(isa, kernels, dtype, precision, has) extern const attn_kernels attn_kernels_##isa##_##kernels;
ATTN_PRODUCTS_LIST(DECLARE_PRODUCTS)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *name;
static const attn_kernels *chosen_float, *chosen_double, *chosen_bfloat16;
static const attn_kernels *products[ATTN_F64 + 1][ATTN_MEDIUM + 1];
static char error[160];

static void choose(void) {
  const char *wanted = getenv("SWIFTATTN_ISA");
  if (wanted && !*wanted) wanted = NULL;
#define CHOOSE(isa, tables, has, may)                                  \
  if (!name && (!wanted || !strcmp(wanted, #isa)) && (has) && (may)) { \
    name = #isa;                                                       \
    chosen_float = &attn_kernels_##tables##_float;                     \
    chosen_double = &attn_kernels_##tables##_double;                   \
  }
  ATTN_ISA_LIST(CHOOSE)
  chosen_bfloat16 = chosen_float;
#define CHOOSE_BF16(isa, has) \
  if (chosen_float == &attn_kernels_##isa##_float && (has)) chosen_bfloat16 = &attn_kernels_##isa##_bfloat16;
  ATTN_BF16_LIST(CHOOSE_BF16)
  for (int precision = ATTN_HIGHEST; precision <= ATTN_MEDIUM; precision++) {
    products[ATTN_F32][precision] = products[ATTN_F16][precision] = chosen_float;
    products[ATTN_BF16][precision] = chosen_bfloat16;
    products[ATTN_F64][precision] = chosen_double;
  }
#define CHOOSE_PRODUCTS(of, kernels, dtype, precision, has)                       \
  if (name && (!strcmp(#of, name) || !strcmp(#of, chosen_float->isa)) && (has)) \
    products[dtype][precision] = &attn_kernels_##of##_##kernels;
  ATTN_PRODUCTS_LIST(CHOOSE_PRODUCTS)
  if (name) return;
  char names[64] = "";
#define LIST(isa, tables, has, may) if ((has) && (may)) strcat(strcat(names, *names ? ", " : ""), #isa);
  ATTN_ISA_LIST(LIST)
  snprintf(error, sizeof error, "SWIFTATTN_ISA: expected one of %s, got %.40s", names, wanted);
}

const attn_kernels *attn_kernels_for(attn_dtype dtype) {
  pthread_once(&once, choose);
  return dtype == ATTN_F64 ? chosen_double : dtype == ATTN_BF16 ? chosen_bfloat16 : chosen_float;
}

/* For other dtypes the precision means nothing. */
const attn_kernels *attn_products_for(attn_dtype dtype, attn_precision precision) {
  pthread_once(&once, choose);
  return products[dtype][dtype == ATTN_F32 ? precision : ATTN_HIGHEST];
}

const char *attn_isa_name(void) {
  pthread_once(&once, choose);
  return name;
}

const char *attn_isa_error(void) {
  pthread_once(&once, choose);
  return error;
}

/* k and v of another dtype than q's are widened to float. */
const attn_kernels *attn_attention_for(const attn_problem *problem) {
  if (problem->kv_dtype != problem->dtype) return attn_products_for(ATTN_F32, ATTN_HIGHEST);
  return attn_products_for(problem->dtype, problem->precision);
}

const attn_kernels *attn_backward_for(const attn_problem *problem) {
  const attn_kernels *own = attn_products_for(problem->dtype, problem->precision);
  return own->backward_tile ? own : attn_kernels_for(problem->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32);
}

int64_t attn_tile_rows(const attn_problem *problem) { return attn_attention_for(problem)->tile_rows; }

void attn_softmax_row(const attn_rows *shape, const void *x, void *out, void *scratch) {
  attn_kernels_for(shape->dtype)->softmax_row(shape, x, out, scratch);
}

void attn_norm_row(const attn_norm *norm, const void *x, void *out, void *scratch) {
  attn_kernels_for(norm->shape.dtype)->norm_row(norm, x, out, scratch);
}

void attn_activation_row(const attn_rows *shape, attn_activation activation, const void *x, const void *up,
                         int64_t up_column, void *out) {
  attn_kernels_for(shape->dtype)->activation_row(shape, activation, x, up, up_column, out);
}

void attn_rotary_row(const attn_rotary *rotary, const void *x, const void *cosines, const void *sines, void *out) {
  attn_kernels_for(rotary->shape.dtype)->rotary_row(rotary, x, cosines, sines, out);
}

void attn_exp_sum_row(const attn_rows *shape, const void *x, void *scratch, attn_exp_sum *result) {
  attn_kernels_for(shape->dtype)->exp_sum_row(shape, x, scratch, result);
}

void attn_loss_row(const attn_loss *loss, const void *x, int64_t target, void *grad, void *scratch, double *result) {
  attn_kernels_for(loss->shape.dtype)->loss_row(loss, x, target, grad, scratch, result);
}

void attn_softmax_gradients(attn_dtype dtype, int64_t n, const attn_gradient_rows *rows, bool stream) {
  const attn_kernels *kernels = attn_kernels_for(dtype);
  for (int64_t i = 0; i < rows->count; i++)
    kernels->softmax_gradient(n, (const char *)rows->x + i * rows->x_step, (const char *)rows->grad + i * rows->grad_step,
                              (char *)rows->dx + i * rows->dx_step, stream);
}

void attn_norm_gradients(const attn_norm *norm, const attn_gradient_rows *rows, void *weights, void *biases) {
  const attn_kernels *kernels = attn_kernels_for(norm->shape.dtype);
  for (int64_t i = 0; i < rows->count; i++)
    kernels->norm_gradient(norm, (const char *)rows->x + i * rows->x_step, (const char *)rows->grad + i * rows->grad_step,
                           rows->dx ? (char *)rows->dx + i * rows->dx_step : NULL, weights, biases);
}

void attn_activation_gradient_row(const attn_activation_gradient *problem) {
  attn_kernels_for(problem->dtype)->activation_gradient(problem);
}

void attn_take_sums(attn_dtype dtype, int64_t n, void *part, void *sums) { attn_kernels_for(dtype)->take_sums(n, part, sums); }

void attn_add_rows(attn_dtype dtype, int64_t n, const void *x, int64_t step, int64_t column, const int64_t *rows,
                   int64_t count, void *sums) {
  attn_kernels_for(dtype)->add_rows(dtype, n, x, step, column, rows, count, sums);
}

void attn_copy_row(const attn_rows *shape, const void *x, void *out) {
  attn_kernels_for(shape->dtype)->sum_row(shape, x, NULL, 0, out);
}

void attn_dropout_row(const attn_dropout *drop, int64_t first, int64_t n, const void *x, int64_t x_column, void *out,
                      int64_t out_column) {
  attn_kernels_for(drop->dtype)->dropout_row(drop, first, n, x, x_column, out, out_column);
}

void attn_additive_prepare(attn_dtype dtype, int64_t hidden, int64_t padded, void *sums, void *exps, void *largest) {
  attn_kernels_for(dtype)->additive_prepare(hidden, padded, sums, exps, largest);
}

void attn_additive_scores(const attn_additive *problem, int64_t query, const void *mask, int64_t mask_column, void *scores) {
  attn_kernels_for(problem->dtype)->additive_scores(problem, query, mask, mask_column, scores);
}

void attn_additive_values(attn_dtype dtype, int64_t keys, int64_t columns, const void *scores, const void *weights,
                          const void *values, int64_t step, void *out) {
  attn_kernels_for(dtype)->additive_values(keys, columns, scores, weights, values, step, out);
}

void attn_additive_gradient(const attn_additive *problem, const void *own, const void *other, int64_t count,
                            const void *grads, int64_t grad_step, void *sums, void *shares) {
  attn_kernels_for(problem->dtype)->additive_gradient(problem, own, other, count, grads, grad_step, sums, shares);
}

void attn_additive_score_gradients(attn_dtype dtype, int64_t keys, int64_t columns, const void *scores, const void *weights,
                                   const void *grad, const void *values, int64_t step, void *grads) {
  attn_kernels_for(dtype)->additive_score_gradients(keys, columns, scores, weights, grad, values, step, grads);
}

static const char *table_row(const attn_gather *g, const char *id) {
  int32_t narrow;
  int64_t number;
  if (g->id_size == 4) memcpy(&narrow, id, 4), number = narrow;
  else memcpy(&number, id, 8);
  return (const char *)g->table + number * g->table_step;
}

void attn_gather_rows(const attn_gather *g, const void *ids, int64_t count, const void *added, void *out) {
  const attn_kernels *kernels = attn_kernels_for(g->shape.dtype);
  const int64_t ahead = 4, lines = 4; /* the beginnings of rows to come; the hardware follows a row once it has begun */
  const char *id = ids, *other = added;
  char *to = out;
  for (int64_t i = 0; i < count; i++, id += g->id_step, to += g->out_step, other += other ? g->added_step : 0) {
    if (i + ahead < count) {
      const char *next = table_row(g, id + ahead * g->id_step);
      for (int64_t line = 0; line < lines; line++) __builtin_prefetch(next + 64 * line);
    }
    kernels->sum_row(&g->shape, table_row(g, id), other, g->added_column, to);
  }
}

void attn_streamed(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

void attn_load_row(attn_dtype dtype, const void *x, int64_t stride, int64_t count, void *reals) {
  attn_kernels_for(dtype)->load_row(dtype, x, stride, count, reals);
}

void attn_store_row(attn_dtype dtype, const void *reals, int64_t count, void *out, int64_t stride) {
  attn_kernels_for(dtype)->store_row(dtype, reals, count, out, stride);
}
