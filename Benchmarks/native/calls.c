/* The smallest C caller of the attention function: one call after the other, as a C program would make them. */
#include "swiftattn.h"

typedef int32_t attention_function(const swiftattn_tensor *query, const swiftattn_tensor *key,
                                   const swiftattn_tensor *value, const swiftattn_attention_options *options,
                                   const swiftattn_tensor *out, const swiftattn_tensor *lse,
                                   const swiftattn_tensor *weights);

int32_t repeat_attention(attention_function *attention, const swiftattn_tensor *query, const swiftattn_tensor *key,
                         const swiftattn_tensor *value, const swiftattn_tensor *out, int64_t times) {
  int32_t status = SWIFTATTN_SUCCESS;
  for (int64_t i = 0; i < times && status == SWIFTATTN_SUCCESS; i++)
    status = attention(query, key, value, 0, out, 0, 0);
  return status;
}
