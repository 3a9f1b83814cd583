/* Scratch memory of the calling thread, kept from call to call so that small calls neither allocate nor fault pages. */
#ifndef ATTN_SCRATCH_H
#define ATTN_SCRATCH_H
#include <stddef.h>

/* At least `bytes`, 64-byte aligned, or NULL. Valid until the next call of either function on this thread. */
void *attn_scratch_take(size_t bytes);
/* Gives an unusually large block back to the system. */
void attn_scratch_trim(void);
#endif
