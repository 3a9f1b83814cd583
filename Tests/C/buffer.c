/* The buffers behind the tests' tensors, and the comparison of outputs that looks at the bytes between elements. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "tensor.h"

typedef struct buffer {
  struct buffer *next;
  unsigned char *data, *copy;
  size_t bytes;
  void *mapping; /* NULL on the heap */
  size_t mapped;
} buffer;

static buffer *buffers;
static int mode;

int buffer_mode(int new_mode) {
  int old = mode;
  mode = new_mode;
  return old;
}

static void out_of_memory(void) {
  fputs("the test program itself is out of memory\n", stderr);
  exit(2);
}

static void map_guarded(buffer *b) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (b->bytes + page - 1) / page * page;
  b->mapped = inside + 2 * page;
  b->mapping = mmap(NULL, b->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (b->mapping == MAP_FAILED) out_of_memory();
  if (mprotect((char *)b->mapping + page, inside, PROT_READ | PROT_WRITE) != 0) out_of_memory();
  b->data = (unsigned char *)b->mapping + page + (mode == BUFFER_GUARD_AFTER ? inside - b->bytes : 0);
}

void *buffer_new(size_t bytes) {
  buffer *b = calloc(1, sizeof *b);
  if (!b) out_of_memory();
  b->bytes = bytes;
  if (mode == BUFFER_HEAP) {
    b->data = malloc(bytes);
    if (!b->data) out_of_memory();
  } else {
    map_guarded(b);
  }
  memset(b->data, 0xFF, bytes);
  b->next = buffers;
  buffers = b;
  return b->data;
}

void buffer_free_all(void) {
  while (buffers) {
    buffer *b = buffers;
    buffers = b->next;
    if (b->mapping)
      munmap(b->mapping, b->mapped);
    else
      free(b->data);
    free(b->copy);
    free(b);
  }
}

void buffer_freeze(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (buffer *b = buffers; b; b = b->next)
    if (b->mapping) mprotect((char *)b->mapping + page, b->mapped - 2 * page, PROT_READ);
}

void buffer_snapshot(void) {
  for (buffer *b = buffers; b; b = b->next) {
    if (!b->copy) b->copy = malloc(b->bytes);
    if (!b->copy) out_of_memory();
    memcpy(b->copy, b->data, b->bytes);
  }
}

int buffer_unchanged(void) {
  for (buffer *b = buffers; b; b = b->next)
    if (b->copy && memcmp(b->copy, b->data, b->bytes) != 0) return 0;
  return 1;
}

static const buffer *buffer_of(const swiftattn_tensor *t) {
  for (buffer *b = buffers; b; b = b->next)
    if ((unsigned char *)t->data >= b->data && (unsigned char *)t->data < b->data + b->bytes) return b;
  return NULL;
}

static void check_gaps(const char *name, const swiftattn_tensor *t) {
  const buffer *b = buffer_of(t);
  int64_t index[SWIFTATTN_MAX_DIMS] = {0};
  unsigned char *is_element;
  if (!b) return;
  is_element = calloc(b->bytes, 1);
  if (!is_element) out_of_memory();
  do memset(is_element + ((unsigned char *)tensor_at(t, index) - b->data), 1, dtype_size(t->dtype));
  while (tensor_next(t, index));
  for (size_t i = 0; i < b->bytes; i++) {
    if (is_element[i] || b->data[i] == 0xFF) continue;
    CHECK(0, "%s: byte %zu between the elements was written", name, i);
    break;
  }
  free(is_element);
}

static int is_close(double got, double expected, double bound, swiftattn_dtype dtype) {
  if (isnan(expected) || isnan(got)) return isnan(expected) && isnan(got);
  if (isinf(expected) || isinf(got)) return expected == got;
  return fabs(got - expected) <= bound + 1.01 * dtype_roundoff(dtype) * (fabs(expected) + bound) + dtype_tiny(dtype);
}

void tensor_compare(const char *name, const swiftattn_tensor *got, const double *expected, const double *bound) {
  int64_t index[SWIFTATTN_MAX_DIMS] = {0}, n = 0;
  if (tensor_count(got) == 0) return;
  do {
    double value = tensor_load(got, index), slack = bound ? bound[n] : 0;
    if (!is_close(value, expected[n], slack, got->dtype)) {
      CHECK(0, "%s element %lld is %.9g, expected %.9g within %.2g", name, (long long)n, value, expected[n], slack);
      return;
    }
    n++;
  } while (tensor_next(got, index));
  check_gaps(name, got);
}
