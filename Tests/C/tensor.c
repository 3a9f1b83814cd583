/* Dtypes, strided tensors and their comparison. */
#include "tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

const swiftattn_dtype F32 = {SWIFTATTN_DTYPE_CODE_FLOAT, 32, 1}, F16 = {SWIFTATTN_DTYPE_CODE_FLOAT, 16, 1},
                      BF16 = {SWIFTATTN_DTYPE_CODE_BFLOAT, 16, 1}, F64 = {SWIFTATTN_DTYPE_CODE_FLOAT, 64, 1},
                      I32 = {SWIFTATTN_DTYPE_CODE_INT, 32, 1}, I64 = {SWIFTATTN_DTYPE_CODE_INT, 64, 1},
                      BOOL8 = {SWIFTATTN_DTYPE_CODE_BOOL, 8, 1};

size_t dtype_size(swiftattn_dtype dtype) { return dtype.bits / 8u; }

int dtype_equal(swiftattn_dtype a, swiftattn_dtype b) { return a.code == b.code && a.bits == b.bits; }

const char *dtype_name(swiftattn_dtype dtype) {
  if (dtype.code == SWIFTATTN_DTYPE_CODE_BFLOAT) return "bfloat16";
  if (dtype.code == SWIFTATTN_DTYPE_CODE_BOOL) return "bool";
  if (dtype.code == SWIFTATTN_DTYPE_CODE_INT) return dtype.bits == 32 ? "int32" : "int64";
  return dtype.bits == 16 ? "float16" : dtype.bits == 32 ? "float32" : "float64";
}

double dtype_roundoff(swiftattn_dtype dtype) {
  if (dtype.code == SWIFTATTN_DTYPE_CODE_BFLOAT) return 0x1p-8;
  return dtype.bits == 16 ? 0x1p-11 : dtype.bits == 32 ? 0x1p-24 : 0x1p-53;
}

double dtype_tiny(swiftattn_dtype dtype) {
  if (dtype_equal(dtype, F16)) return 0x1p-24;
  return dtype.bits == 64 ? 0x1p-1020 : 0x1p-124;
}

double dtype_compute_roundoff(swiftattn_dtype dtype) { return dtype.bits == 64 ? 0x1p-53 : 0x1p-24; }

double dtype_probability_roundoff(swiftattn_dtype dtype) {
  int rounded = !strcmp(swiftattn_cpu_isa(), "avx512") || !strcmp(swiftattn_cpu_isa(), "amx");
  return dtype_equal(dtype, BF16) && rounded ? 0x1p-9 : dtype_compute_roundoff(dtype);
}

/* A 16-bit float with the given mantissa: rounding to a whole number of spacings carries into the exponent field by
 * itself, and subnormals need no branch. */
static uint16_t encode16(double value, int mantissa_bits) {
  int bias = (1 << (14 - mantissa_bits)) - 1, exponent;
  uint16_t sign = signbit(value) ? 0x8000 : 0;
  uint32_t infinity = (uint32_t)(2 * bias + 1) << mantissa_bits, bits;
  if (isnan(value)) return (uint16_t)(infinity + 1);
  value = fabs(value);
  if (isinf(value)) return (uint16_t)(sign | infinity);
  if (value == 0) return sign;
  exponent = ilogb(value) < 1 - bias ? 1 - bias : ilogb(value);
  if (exponent > bias) return (uint16_t)(sign | infinity);
  bits = (uint32_t)(exponent + bias - 1) << mantissa_bits;
  bits += (uint32_t)rint(scalbn(value, mantissa_bits - exponent));
  return (uint16_t)(sign | (bits > infinity ? infinity : bits));
}

static double decode16(uint16_t bits, int mantissa_bits) {
  int bias = (1 << (14 - mantissa_bits)) - 1, field = (bits & 0x7FFF) >> mantissa_bits;
  int mantissa = bits & ((1 << mantissa_bits) - 1);
  double sign = bits & 0x8000 ? -1 : 1;
  if (field == 2 * bias + 1) return mantissa ? NAN : sign * INFINITY;
  if (field == 0) return sign * scalbn(mantissa, 1 - bias - mantissa_bits);
  return sign * scalbn(mantissa + (1 << mantissa_bits), field - bias - mantissa_bits);
}

static int mantissa_bits_of(swiftattn_dtype dtype) { return dtype.code == SWIFTATTN_DTYPE_CODE_BFLOAT ? 7 : 10; }

void *tensor_at(const swiftattn_tensor *t, const int64_t *index) {
  int64_t offset = 0;
  for (int d = 0; d < t->ndim; d++) offset += index[d] * t->strides[d];
  return (char *)t->data + t->byte_offset + offset * (int64_t)dtype_size(t->dtype);
}

double tensor_load(const swiftattn_tensor *t, const int64_t *index) {
  const void *at = tensor_at(t, index);
  if (t->dtype.code == SWIFTATTN_DTYPE_CODE_BOOL) return *(const uint8_t *)at != 0;
  if (t->dtype.code == SWIFTATTN_DTYPE_CODE_INT)
    return t->dtype.bits == 32 ? *(const int32_t *)at : (double)*(const int64_t *)at;
  if (t->dtype.bits == 64) return *(const double *)at;
  if (t->dtype.bits == 32) return *(const float *)at;
  return decode16(*(const uint16_t *)at, mantissa_bits_of(t->dtype));
}

void tensor_store(const swiftattn_tensor *t, const int64_t *index, double value) {
  void *at = tensor_at(t, index);
  if (t->dtype.code == SWIFTATTN_DTYPE_CODE_BOOL)
    *(uint8_t *)at = (uint8_t)value;
  else if (t->dtype.code == SWIFTATTN_DTYPE_CODE_INT && t->dtype.bits == 32)
    *(int32_t *)at = (int32_t)value;
  else if (t->dtype.code == SWIFTATTN_DTYPE_CODE_INT)
    *(int64_t *)at = (int64_t)value;
  else if (t->dtype.bits == 64)
    *(double *)at = value;
  else if (t->dtype.bits == 32)
    *(float *)at = (float)value;
  else
    *(uint16_t *)at = encode16(value, mantissa_bits_of(t->dtype));
}

double tensor_load1(const swiftattn_tensor *t, int64_t i) { return tensor_load(t, &i); }

void tensor_store1(const swiftattn_tensor *t, int64_t i, double value) { tensor_store(t, &i, value); }

int64_t tensor_count(const swiftattn_tensor *t) {
  int64_t count = 1;
  for (int d = 0; d < t->ndim; d++) count *= t->shape[d];
  return count;
}

int tensor_next(const swiftattn_tensor *t, int64_t *index) {
  for (int d = t->ndim - 1; d >= 0; d--) {
    if (++index[d] < t->shape[d]) return 1;
    index[d] = 0;
  }
  return 0;
}

int tensor_random_layout(void) { return (int)random_int(0, LAYOUT_COUNT - 1); }

swiftattn_tensor tensor_make(swiftattn_dtype dtype, int layout, int ndim, const int64_t *shape) {
  swiftattn_tensor t;
  int order[SWIFTATTN_MAX_DIMS]; /* dims from the slowest to the fastest in memory */
  int64_t stride = layout == LAYOUT_SPACED ? 2 : 1, last = 0;
  memset(&t, 0, sizeof t);
  t.ndim = ndim;
  t.dtype = dtype;
  for (int d = 0; d < ndim; d++) {
    t.shape[d] = shape[d];
    order[d] = d;
  }
  if (layout == LAYOUT_SWAPPED && ndim >= 3) order[ndim - 2] = ndim - 3, order[ndim - 3] = ndim - 2;
  if (layout == LAYOUT_COLUMN && ndim >= 2) order[ndim - 1] = ndim - 2, order[ndim - 2] = ndim - 1;
  for (int n = ndim - 1; n >= 0; n--) {
    int d = order[n];
    t.strides[d] = stride;
    if (layout == LAYOUT_BROADCAST && d == 0) t.strides[d] = 0;
    stride = stride * (shape[d] > 0 ? shape[d] : 1) + (layout == LAYOUT_PADDED && n >= ndim - 2 ? 3 : 0);
  }
  for (int d = 0; d < ndim; d++) last += (t.shape[d] - 1) * t.strides[d];
  if (tensor_count(&t) == 0) return t;
  t.data = buffer_new((size_t)(last + 1) * dtype_size(dtype));
  if (layout == LAYOUT_REVERSED) {
    t.byte_offset = (uint64_t)last * dtype_size(dtype);
    for (int d = 0; d < ndim; d++) t.strides[d] = -t.strides[d];
  }
  return t;
}

swiftattn_tensor tensor_like(const swiftattn_tensor *t) {
  return tensor_make(t->dtype, LAYOUT_DENSE, t->ndim, t->shape);
}

swiftattn_tensor tensor_slice(const swiftattn_tensor *t, int dim, int64_t start, int64_t length) {
  swiftattn_tensor part = *t;
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  index[dim] = start;
  part.shape[dim] = length;
  part.data = tensor_at(t, index);
  part.byte_offset = 0;
  return part;
}

void tensor_fill(const swiftattn_tensor *t, double value) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  if (tensor_count(t) == 0) return;
  do tensor_store(t, index, value);
  while (tensor_next(t, index));
}

void tensor_fill_normal(const swiftattn_tensor *t, double scale) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  if (tensor_count(t) == 0) return;
  do tensor_store(t, index, scale * random_normal());
  while (tensor_next(t, index));
}

int tensor_broadcasts(const swiftattn_tensor *t, int ndim, const int64_t *shape) {
  if (t->ndim > ndim) return 0;
  for (int d = 0; d < t->ndim; d++)
    if (t->shape[d] != 1 && t->shape[d] != shape[ndim - t->ndim + d]) return 0;
  return 1;
}

double *tensor_dense(const swiftattn_tensor *t, int ndim, const int64_t *shape) {
  swiftattn_tensor view;
  int64_t index[SWIFTATTN_MAX_DIMS] = {0}, count;
  double *values, *next;
  memset(&view, 0, sizeof view);
  view.data = t->data;
  view.byte_offset = t->byte_offset;
  view.dtype = t->dtype;
  view.ndim = ndim;
  for (int d = 0; d < ndim; d++) {
    int from = d - (ndim - t->ndim);
    view.shape[d] = shape[d];
    if (from >= 0 && t->shape[from] == shape[d]) view.strides[d] = t->strides[from];
  }
  count = tensor_count(&view);
  next = values = buffer_new((size_t)(count > 0 ? count : 1) * sizeof *values);
  if (count == 0) return values;
  do *next++ = tensor_load(&view, index);
  while (tensor_next(&view, index));
  return values;
}

int tensor_same_bits(const swiftattn_tensor *a, const swiftattn_tensor *b) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  if (tensor_count(a) == 0) return 1;
  do {
    if (memcmp(tensor_at(a, index), tensor_at(b, index), dtype_size(a->dtype)) != 0) return 0;
  } while (tensor_next(a, index));
  return 1;
}
