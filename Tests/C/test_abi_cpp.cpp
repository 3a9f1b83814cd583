// The header in C++11: layouts, INIT macros and linkage.
#include <swiftattn.h>

extern "C" int cpp_sees_the_same_layout(size_t tensor_size, size_t options_size, size_t linear_options_size) {
  return sizeof(swiftattn_tensor) == tensor_size && sizeof(swiftattn_attention_options) == options_size &&
         sizeof(swiftattn_linear_options) == linear_options_size;
}

extern "C" int cpp_calls_the_library() {
  swiftattn_attention_options options = SWIFTATTN_ATTENTION_OPTIONS_INIT;
  swiftattn_linear_options linear = SWIFTATTN_LINEAR_OPTIONS_INIT;
  float one = 1, two = 2, attended = 0, product = 0;
  const swiftattn_dtype float32 = {SWIFTATTN_DTYPE_CODE_FLOAT, 32, 1};
  const swiftattn_tensor q = {&one, 2, float32, {1, 1}, {1, 1}, 0}, v = {&two, 2, float32, {1, 1}, {1, 1}, 0};
  const swiftattn_tensor out = {&attended, 2, float32, {1, 1}, {1, 1}, 0},
                         sum = {&product, 2, float32, {1, 1}, {1, 1}, 0};
  return swiftattn_scaled_dot_product_attention(&q, &q, &v, &options, &out, nullptr, nullptr) == SWIFTATTN_SUCCESS &&
         swiftattn_linear(&q, &v, nullptr, nullptr, &linear, &sum) == SWIFTATTN_SUCCESS && attended == 2 &&
         product == 2;
}
