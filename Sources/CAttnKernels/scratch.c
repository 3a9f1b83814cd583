/* One growing block per thread, freed when the thread ends. */
#define _DEFAULT_SOURCE /* madvise */
#include "scratch.h"

#include "CAttnKernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define KEEP ((size_t)8 << 20) /* more than the blocking of any usual call needs */

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread void *block;
static __thread size_t block_size;

static void create_key(void) { pthread_key_create(&key, free); }

static void replace(void *with, size_t size) {
  free(block);
  block = with;
  block_size = with ? size : 0;
  pthread_once(&once, create_key);
  pthread_setspecific(key, with); /* so that the block ends with the thread */
}

void *attn_scratch_take(size_t bytes) {
  if (bytes > block_size || !block) {
    bytes = (bytes + 4095) & ~(size_t)4095;
    void *fresh = bytes ? aligned_alloc(4096, bytes) : NULL;
    if (!fresh) return NULL;
    replace(fresh, bytes);
  }
  return block;
}

void attn_scratch_trim(void) {
  if (block_size > KEEP) replace(NULL, 0);
}

bool attn_memory_available(size_t bytes) {
  void *volatile memory = malloc(bytes); /* volatile: the compiler would take the pair for nothing and answer yes */
  free(memory);
  return memory != NULL;
}

void *attn_allocate(size_t bytes) {
  const size_t huge = (size_t)2 << 20;
  if (bytes < 2 * huge) return aligned_alloc(64, (bytes + 63) & ~(size_t)63);
  bytes = (bytes + huge - 1) & ~(huge - 1);
  void *memory = aligned_alloc(huge, bytes);
  if (memory) madvise(memory, bytes, MADV_HUGEPAGE); /* streaming through small pages loses a third of the speed */
  return memory;
}

void attn_free(void *memory) { free(memory); }
