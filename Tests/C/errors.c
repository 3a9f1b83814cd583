/* Preparing and verifying misuse cases. */
#include "errors.h"

#include <ctype.h>
#include <string.h>

void error_prepare(void) {
  CHECK(swiftattn_set_num_threads(-99) == SWIFTATTN_ERROR_INVALID_ARGUMENT, "-99 threads were taken");
  buffer_snapshot();
}

static int contains(const char *text, const char *part) {
  for (; *text; text++) {
    size_t n = 0;
    while (part[n] && tolower((unsigned char)text[n]) == tolower((unsigned char)part[n])) n++;
    if (!part[n]) return 1;
  }
  return 0;
}

void error_verify(int32_t got, int32_t expected, const char *argument, const char *value) {
  const char *message = swiftattn_last_error();
  CHECK(got == expected, "status %d, expected %d (last error: %s)", got, expected, message);
  CHECK(got != 0 && !contains(message, "-99"), "no message of its own");
  CHECK(contains(message, argument), "\"%s\" does not name %s", message, argument);
  CHECK(contains(message, value), "\"%s\" does not tell %s", message, value);
  CHECK(!strpbrk(message, "\r\n"), "the message has more than one line: %s", message);
  CHECK(buffer_unchanged(), "a refused call wrote to an array");
}

void attention_call_make(attention_call *c) {
  const sizes s = {2, 4, 2, 5, 7, 8, 8};
  problem_make(&c->p, F32, s);
  c->query = &c->p.query;
  c->key = &c->p.key;
  c->value = &c->p.value;
  c->out = &c->p.out;
  c->lse = &c->p.lse;
  c->weights = &c->p.weights;
  c->options = &c->p.options;
}

int32_t attention_call_run(const attention_call *c) {
  return swiftattn_scaled_dot_product_attention(c->query, c->key, c->value, c->options, c->out, c->lse, c->weights);
}
