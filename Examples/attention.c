/* Causal grouped-query attention over a small sequence:
 * cc attention.c $(pkg-config --cflags --libs swiftattn) */
#include <stdio.h>
#include <swiftattn.h>

enum { Q_HEADS = 4, KV_HEADS = 2, LENGTH = 3, HEAD_DIM = 8 };

/* A dense float32 array (heads, LENGTH, width); strides count elements. */
static swiftattn_tensor view(float *data, int64_t heads, int64_t width) {
  swiftattn_dtype float32 = {SWIFTATTN_DTYPE_CODE_FLOAT, 32, 1};
  swiftattn_tensor t = {data, 3, float32, {heads, LENGTH, width}, {LENGTH * width, width, 1}, 0};
  return t;
}

int main(void) {
  float q[Q_HEADS * LENGTH * HEAD_DIM], k[KV_HEADS * LENGTH * HEAD_DIM], v[KV_HEADS * LENGTH * HEAD_DIM];
  float out[Q_HEADS * LENGTH * HEAD_DIM], lse[Q_HEADS * LENGTH];
  for (int i = 0; i < Q_HEADS * LENGTH * HEAD_DIM; i++) q[i] = (float)(i % 7) - 3;
  for (int i = 0; i < KV_HEADS * LENGTH * HEAD_DIM; i++) k[i] = (float)(i % 5) - 2, v[i] = (float)i;

  swiftattn_tensor query = view(q, Q_HEADS, HEAD_DIM), result = view(out, Q_HEADS, HEAD_DIM);
  swiftattn_tensor key = view(k, KV_HEADS, HEAD_DIM), value = view(v, KV_HEADS, HEAD_DIM);
  swiftattn_tensor log_sum = view(lse, Q_HEADS, 1);
  log_sum.ndim = 2; /* (heads, LENGTH) */
  swiftattn_attention_options options = SWIFTATTN_ATTENTION_OPTIONS_INIT;
  options.causal = SWIFTATTN_CAUSAL_UPPER_LEFT;

  int32_t status = swiftattn_scaled_dot_product_attention(&query, &key, &value, &options, &result, &log_sum, NULL);
  if (status != SWIFTATTN_SUCCESS) {
    fprintf(stderr, "swiftattn: %s\n", swiftattn_last_error());
    return 1;
  }
  printf("swiftattn %s on %s\n", swiftattn_version(), swiftattn_cpu_isa());
  for (int row = 0; row < Q_HEADS * LENGTH; row++)
    printf("head %d query %d: out[0] %8.4f  lse %8.4f\n", row / LENGTH, row % LENGTH, out[row * HEAD_DIM], lse[row]);
  return 0;
}
