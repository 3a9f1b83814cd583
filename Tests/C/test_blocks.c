/* Blocks behind handles: parameters, views of them, kinds, and failures that touch nothing. */
#include <string.h>

#include "check.h"
#include "tensor.h"

enum { WIDTH = 8, HEADS = 2 };

static swiftattn_module *new_attention(void) {
  swiftattn_multihead_attention_options options = SWIFTATTN_MULTIHEAD_ATTENTION_OPTIONS_INIT;
  swiftattn_module *module = NULL;
  options.embed_dim = WIDTH;
  options.num_heads = HEADS;
  CHECK(swiftattn_multihead_attention_create(&options, &module) == 0, "%s", swiftattn_last_error());
  return module;
}

/* With keys of 0 every key weighs the same; with V and O the identity the result is the mean of the rows that are seen. */
static void views_are_written(void) {
  swiftattn_module *module = new_attention();
  int64_t count = 0;
  CHECK(swiftattn_module_parameter_count(module, &count) == 0 && count == 4, "%lld parameters", (long long)count);
  const char *expected[] = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"};
  swiftattn_tensor views[4];
  for (int64_t i = 0; i < 4; i++) {
    const char *name = NULL;
    CHECK(swiftattn_module_parameter(module, i, &name, &views[i]) == 0, "%s", swiftattn_last_error());
    CHECK(!strcmp(name, expected[i]), "parameter %lld is %s", (long long)i, name);
    int64_t index[2] = {0, 0};
    do CHECK(tensor_load(&views[i], index) == 0, "%s does not begin with zeros", name);
    while (tensor_next(&views[i], index));
  }
  CHECK(views[0].ndim == 2 && views[0].shape[0] == 3 * WIDTH && views[0].shape[1] == WIDTH, "shape of in_proj_weight");

  swiftattn_tensor x = TENSOR(F32, LAYOUT_PADDED, 1, 3, WIDTH), out = TENSOR(F32, LAYOUT_SWAPPED, 1, 3, WIDTH);
  tensor_fill_normal(&x, 1);
  CHECK(swiftattn_multihead_attention_forward(module, &x, &x, &x, NULL, &out, NULL) == 0, "%s", swiftattn_last_error());
  for (int64_t i = 0; i < WIDTH; i++) {
    tensor_store(&views[0], (int64_t[]){2 * WIDTH + i, i}, 1);
    tensor_store(&views[2], (int64_t[]){i, i}, 1);
  }
  CHECK(swiftattn_module_parameters_changed(module) == 0, "%s", swiftattn_last_error());
  swiftattn_multihead_attention_call call = SWIFTATTN_MULTIHEAD_ATTENTION_CALL_INIT;
  call.visibility.is_causal = 1;
  CHECK(swiftattn_multihead_attention_forward(module, &x, &x, &x, &call, &out, NULL) == 0, "%s", swiftattn_last_error());
  double *rows = tensor_dense(&x, 3, x.shape), mean[3 * WIDTH], bound[3 * WIDTH];
  for (int t = 0; t < 3; t++) {
    for (int i = 0; i < WIDTH; i++) {
      mean[t * WIDTH + i] = 0;
      for (int s = 0; s <= t; s++) mean[t * WIDTH + i] += rows[s * WIDTH + i] / (t + 1);
      bound[t * WIDTH + i] = 1e-6;
    }
  }
  tensor_compare("out", &out, mean, bound);
  swiftattn_module_destroy(module);
  buffer_free_all();
}

static void kinds(void) {
  swiftattn_layer_options options = SWIFTATTN_LAYER_OPTIONS_INIT;
  options.d_model = WIDTH;
  options.nhead = HEADS;
  options.dim_feedforward = 12;
  swiftattn_module *modules[6] = {new_attention()};
  CHECK(swiftattn_encoder_layer_create(&options, &modules[1]) == 0, "%s", swiftattn_last_error());
  CHECK(swiftattn_encoder_create(&options, 2, SWIFTATTN_NORM_RMS, &modules[2]) == 0, "%s", swiftattn_last_error());
  CHECK(swiftattn_decoder_layer_create(&options, &modules[3]) == 0, "%s", swiftattn_last_error());
  CHECK(swiftattn_decoder_create(&options, 2, SWIFTATTN_NORM_NONE, &modules[4]) == 0, "%s", swiftattn_last_error());
  CHECK(swiftattn_transformer_create(&options, 1, 2, &modules[5]) == 0, "%s", swiftattn_last_error());
  const int64_t counts[] = {4, 12, 2 * 12 + 1, 18, 2 * 18, 12 + 2 + 2 * 18 + 2};
  swiftattn_tensor x = TENSOR(F32, LAYOUT_DENSE, 3, WIDTH), out = TENSOR(F32, LAYOUT_DENSE, 3, WIDTH);
  tensor_fill_normal(&x, 1);
  for (int i = 0; i < 6; i++) {
    int64_t count = 0;
    check_context("module %d", i);
    CHECK(swiftattn_module_parameter_count(modules[i], &count) == 0 && count == counts[i], "%lld parameters", (long long)count);
    const int32_t attention = swiftattn_multihead_attention_forward(modules[i], &x, &x, &x, NULL, &out, NULL);
    const int32_t encoder = swiftattn_encoder_forward(modules[i], &x, NULL, &out);
    const int32_t decoder = swiftattn_decoder_forward(modules[i], &x, &x, NULL, &out);
    const int32_t transformer = swiftattn_transformer_forward(modules[i], &x, &x, NULL, &out);
    const int32_t wrong = SWIFTATTN_ERROR_INVALID_ARGUMENT;
    CHECK(attention == (i == 0 ? 0 : wrong), "as an attention: %d", attention);
    CHECK(encoder == (i == 1 || i == 2 ? 0 : wrong), "as an encoder: %d", encoder);
    CHECK(decoder == (i == 3 || i == 4 ? 0 : wrong), "as a decoder: %d", decoder);
    CHECK(transformer == (i == 5 ? 0 : wrong), "as a transformer: %d", transformer);
    swiftattn_module_destroy(modules[i]);
  }
  swiftattn_module_destroy(NULL);
  buffer_free_all();
}

#define FAILS(status, part, call)                                                                              \
  do {                                                                                                         \
    buffer_snapshot();                                                                                         \
    const int32_t got = (call);                                                                                \
    CHECK(got == (status), "%s gives %d", #call, got);                                                         \
    CHECK(strstr(swiftattn_last_error(), part) != NULL, "\"%s\" lacks \"%s\"", swiftattn_last_error(), part); \
    CHECK(buffer_unchanged(), "%s wrote", #call);                                                              \
  } while (0)

static void errors(void) {
  swiftattn_module *module = new_attention(), *none = NULL;
  swiftattn_multihead_attention_options options = SWIFTATTN_MULTIHEAD_ATTENTION_OPTIONS_INIT;
  swiftattn_tensor x = TENSOR(F32, LAYOUT_DENSE, 2, 3, WIDTH), out = TENSOR(F32, LAYOUT_DENSE, 2, 3, WIDTH), view,
                   narrow = TENSOR(F32, LAYOUT_DENSE, 2, 3, WIDTH - 1), weights = TENSOR(F32, LAYOUT_DENSE, 2, 3, 3),
                   whole = TENSOR(I64, LAYOUT_DENSE, WIDTH), bias = TENSOR(F64, LAYOUT_SPACED, WIDTH);
  const char *name = NULL;
  int64_t count = 0;
  tensor_fill_normal(&x, 1);
  FAILS(SWIFTATTN_ERROR_INVALID_ARGUMENT, "embed_dim: ", swiftattn_multihead_attention_create(&options, &none));
  options.struct_size = 8;
  FAILS(SWIFTATTN_ERROR_STRUCT_SIZE, "options: struct_size", swiftattn_multihead_attention_create(&options, &none));
  options.struct_size = sizeof options;
  options.embed_dim = options.num_heads = 4;
  options.flags = 1u << 20;
  FAILS(SWIFTATTN_ERROR_INVALID_ARGUMENT, "flags: ", swiftattn_multihead_attention_create(&options, &none));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "module: ", swiftattn_multihead_attention_create(&options, NULL));
  CHECK(!none, "a failure wrote the handle");
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "module: ", swiftattn_module_parameter_count(NULL, &count));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "count: ", swiftattn_module_parameter_count(module, NULL));
  FAILS(SWIFTATTN_ERROR_INVALID_ARGUMENT, "index: ", swiftattn_module_parameter(module, 4, &name, &view));
  FAILS(SWIFTATTN_ERROR_INVALID_ARGUMENT, "index: ", swiftattn_module_parameter(module, -1, &name, &view));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "name: ", swiftattn_module_parameter(module, 0, NULL, &view));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "module: ", swiftattn_module_parameters_changed(NULL));
  FAILS(SWIFTATTN_ERROR_INVALID_ARGUMENT, "\"q_proj\"", swiftattn_module_load_parameter(module, "q_proj", &bias));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "name: ", swiftattn_module_load_parameter(module, NULL, &bias));
  FAILS(SWIFTATTN_ERROR_INVALID_SHAPE, "in_proj_bias: shape is (8,), expected (24,)",
        swiftattn_module_load_parameter(module, "in_proj_bias", &bias));
  FAILS(SWIFTATTN_ERROR_INVALID_DTYPE, "out_proj.bias: dtype", swiftattn_module_load_parameter(module, "out_proj.bias", &whole));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "module: ", swiftattn_multihead_attention_forward(NULL, &x, &x, &x, NULL, &out, NULL));
  FAILS(SWIFTATTN_ERROR_NULL_POINTER, "key: ", swiftattn_multihead_attention_forward(module, &x, NULL, &x, NULL, &out, NULL));
  FAILS(SWIFTATTN_ERROR_INVALID_SHAPE, "value: ",
        swiftattn_multihead_attention_forward(module, &x, &x, &narrow, NULL, &out, NULL));
  FAILS(SWIFTATTN_ERROR_INVALID_SHAPE, "weights: ", swiftattn_multihead_attention_forward(module, &x, &x, &x, NULL, &out, &weights));
  FAILS(SWIFTATTN_ERROR_ALIASING, "out: ", swiftattn_multihead_attention_forward(module, &x, &x, &x, NULL, &x, NULL));
  swiftattn_multihead_attention_call call = SWIFTATTN_MULTIHEAD_ATTENTION_CALL_INIT;
  call.visibility.reserved = 1;
  FAILS(SWIFTATTN_ERROR_INVALID_ARGUMENT, "reserved: ", swiftattn_multihead_attention_forward(module, &x, &x, &x, &call, &out, NULL));
  swiftattn_module_destroy(module);
  buffer_free_all();
}

void run_blocks(void) {
  check_run("blocks: parameters are written through their views", views_are_written);
  check_run("blocks: kinds", kinds);
  check_run("blocks: errors", errors);
}
