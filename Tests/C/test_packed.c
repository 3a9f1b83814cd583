/* Packed weights: handles, their errors, and the same bits as the weight itself. */
#include <string.h>

#include "check.h"
#include "tensor.h"

static void same_bits(void) {
  for (int n = 0; n < (check_quick ? 8 : 40); n++) {
    const swiftattn_dtype dtypes[] = {F32, F16, BF16, F64};
    int64_t rows = random_int(1, 20), inner = random_int(1, 300), columns = random_int(1, 140);
    swiftattn_tensor x = TENSOR(dtypes[n % 4], tensor_random_layout(), rows, inner),
                     weight = TENSOR(dtypes[n % 4], tensor_random_layout(), columns, inner),
                     plain = TENSOR(dtypes[n % 4], LAYOUT_DENSE, rows, columns),
                     out = TENSOR(dtypes[n % 4], LAYOUT_DENSE, rows, columns);
    swiftattn_packed_weight *packed = NULL;
    tensor_fill_normal(&x, 1);
    tensor_fill_normal(&weight, 1);
    swiftattn_linear_options options = SWIFTATTN_LINEAR_OPTIONS_INIT;
    options.precision = n / 4 % 3;
    check_context("%s %lldx%lldx%lld precision %d", dtype_name(dtypes[n % 4]), (long long)rows, (long long)inner,
                  (long long)columns, options.precision);
    CHECK(swiftattn_pack_weight(&weight, &packed) == 0 && packed, "%s", swiftattn_last_error());
    CHECK(swiftattn_linear(&x, &weight, NULL, NULL, &options, &plain) == 0, "%s", swiftattn_last_error());
    CHECK(swiftattn_linear_packed(&x, packed, NULL, NULL, &options, &out) == 0, "%s", swiftattn_last_error());
    CHECK(!memcmp(plain.data, out.data, (size_t)(rows * columns) * dtype_size(out.dtype)), "the results differ");
    swiftattn_packed_weight_destroy(packed);
    buffer_free_all();
  }
}

static void errors(void) {
  swiftattn_tensor weight = TENSOR(F32, LAYOUT_DENSE, 3, 4), x = TENSOR(F32, LAYOUT_DENSE, 2, 5),
                   line = TENSOR(F32, LAYOUT_DENSE, 4), whole = TENSOR(I64, LAYOUT_DENSE, 3, 4),
                   out = TENSOR(F32, LAYOUT_DENSE, 2, 3);
  swiftattn_packed_weight *packed = NULL, *untouched = NULL;
  tensor_fill_normal(&weight, 1);
  CHECK(swiftattn_pack_weight(NULL, &untouched) == SWIFTATTN_ERROR_NULL_POINTER, "a NULL weight is taken");
  CHECK(swiftattn_pack_weight(&weight, NULL) == SWIFTATTN_ERROR_NULL_POINTER, "a NULL handle is taken");
  CHECK(swiftattn_pack_weight(&line, &untouched) == SWIFTATTN_ERROR_INVALID_SHAPE, "a vector is taken");
  CHECK(swiftattn_pack_weight(&whole, &untouched) == SWIFTATTN_ERROR_INVALID_DTYPE, "integers are taken");
  CHECK(!untouched, "a failure wrote the handle");
  CHECK(swiftattn_pack_weight(&weight, &packed) == 0, "%s", swiftattn_last_error());
  CHECK(swiftattn_linear_packed(&x, packed, NULL, NULL, NULL, &out) == SWIFTATTN_ERROR_INVALID_SHAPE, "5 features");
  CHECK(strstr(swiftattn_last_error(), "weight: ") != NULL, "%s", swiftattn_last_error());
  CHECK(swiftattn_linear_packed(&x, NULL, NULL, NULL, NULL, &out) == SWIFTATTN_ERROR_NULL_POINTER, "a NULL handle");
  swiftattn_packed_weight_destroy(packed);
  swiftattn_packed_weight_destroy(NULL);
  buffer_free_all();
}

void run_packed(void) {
  check_run("packed: the bits of the weight itself", same_bits);
  check_run("packed: errors", errors);
}
