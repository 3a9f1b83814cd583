/* Continues a prompt given as token ids, greedily: generate MODEL.gguf COUNT ID... prints COUNT more ids. */
#include <stdio.h>
#include <stdlib.h>

#include <swiftattn.h>

static int failed(void) { return fprintf(stderr, "%s\n", swiftattn_last_error()), 1; }

/* A dense vector; the library reads or writes it where it lies. */
static swiftattn_tensor vector(void *data, swiftattn_dtype dtype, int64_t count) {
  swiftattn_tensor tensor = { data, 1, dtype, { count }, { 1 }, 0 };
  return tensor;
}

int main(int argc, char **argv) {
  const swiftattn_dtype int64 = { SWIFTATTN_DTYPE_CODE_INT, 64, 1 }, float32 = { SWIFTATTN_DTYPE_CODE_FLOAT, 32, 1 };
  if (argc < 4) return fprintf(stderr, "usage: generate MODEL.gguf COUNT ID...\n"), 2;

  swiftattn_model *model = NULL;
  swiftattn_model_config config;
  if (swiftattn_model_open(argv[1], NULL, &model) || swiftattn_model_info(model, &config, NULL, NULL, NULL)) return failed();

  const int count = argc - 3;
  int64_t *ids = malloc((size_t)count * sizeof *ids), next = 0;
  float *row = malloc((size_t)config.vocabulary * sizeof *row);
  if (!ids || !row) return 1;
  for (int i = 0; i < count; i++) ids[i] = strtoll(argv[i + 3], NULL, 10);

  swiftattn_tensor prompt = vector(ids, int64, count), one = vector(&next, int64, 1), logits = vector(row, float32, config.vocabulary);
  swiftattn_tensor rows = { row, 2, float32, { 1, config.vocabulary }, { config.vocabulary, 1 }, 0 };
  if (swiftattn_model_prefill(model, 0, &prompt, &logits)) return failed();
  for (long left = strtol(argv[2], NULL, 10); left > 0; left--) {
    next = 0;
    for (int64_t id = 1; id < config.vocabulary; id++)
      if (row[id] > row[next]) next = id;
    printf("%lld%c", (long long)next, left > 1 ? ' ' : '\n');
    if (left > 1 && swiftattn_model_step(model, &one, &rows)) return failed();
  }
  swiftattn_model_close(model);
  free(ids);
  free(row);
  return 0;
}
