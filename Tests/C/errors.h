/* What every misuse case has in common. */
#ifndef ERRORS_H
#define ERRORS_H

#include "check.h"
#include "problem.h"

/* Replaces the last error by another one and remembers all buffers. */
void error_prepare(void);

/* Fails the test unless the call was refused with this status and a message of one line that holds the argument and
 * the value (upper or lower case), and left every byte as it was. */
void error_verify(int32_t got, int32_t expected, const char *argument, const char *value);

/* One test: make(&c) builds a call that would succeed, the last argument spoils it, run(&c) makes it. */
#define MISUSE_OF(prefix, type, make, run, name, status, argument, value, spoil) \
  do {                                                                           \
    if (check_begin("misuse: " prefix ": " name)) {                              \
      type c;                                                                    \
      make(&c);                                                                  \
      spoil;                                                                     \
      error_prepare();                                                           \
      error_verify(run(&c), SWIFTATTN_ERROR_##status, argument, value);          \
      check_end();                                                               \
    }                                                                            \
  } while (0)

/* A call of scaled_dot_product_attention. */
typedef struct attention_call {
  problem p;
  const swiftattn_tensor *query, *key, *value, *out, *lse, *weights;
  const swiftattn_attention_options *options;
} attention_call;

void attention_call_make(attention_call *c);
int32_t attention_call_run(const attention_call *c);

#define ATTENTION(name, status, argument, value, spoil) \
  MISUSE_OF("attention", attention_call, attention_call_make, attention_call_run, name, status, argument, value, spoil)

#endif
