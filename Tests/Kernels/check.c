/* Counting, printing, random numbers, and a last word when a guard page is touched. */
#define _GNU_SOURCE
#include "check.h"

#include "amx_emulator.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHOWN 4 /* failures printed per entry: the first ones tell the story */

bool check_quick, check_slow;

static char name[64], context[512], note[256];
static int passed, failed, failures, checks;
static double worst;
static uint64_t state;

int check_trials(int full) { return check_quick || check_slow ? (full + 9) / 10 : full; }

static void say(const char *text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(3);
}

static void on_crash(int number) {
  say(number == SIGILL ? "illegal instruction in " : "memory outside a buffer touched in ");
  say(name);
  say(": ");
  say(context);
  say("\n");
  _exit(2);
}

void check_begin(const char *isa, const char *real, const char *entry) {
  signal(SIGSEGV, on_crash);
  signal(SIGBUS, on_crash);
  amx_emulator_install(on_crash);
  snprintf(name, sizeof name, "%-9s %-7s %-20s", isa, real, entry);
  context[0] = note[0] = 0;
  failures = checks = 0;
  worst = 0;
  state = 0x9e3779b97f4a7c15u;
}

void check_context(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(context, sizeof context, format, arguments);
  va_end(arguments);
  checks++;
}

void check_fail(const char *format, ...) {
  if (failures++ >= SHOWN) return;
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  printf("FAIL %s %s\n     in %s\n", name, text, context);
}

void check_error(double error, double bound, const char *what, int64_t at) {
  if (!(error <= bound)) check_fail("%s %lld is off by %.3g, allowed %.3g", what, (long long)at, error, bound);
  else if (bound > 0 && error / bound > worst) worst = error / bound;
}

void check_rounded(double error, double bound, double rounding, const char *what, int64_t at) {
  if (!(error <= bound + rounding)) check_error(error, bound + rounding, what, at);
  else if (error > rounding) check_error(error - rounding, bound, what, at);
}

void check_note(const char *format, ...) {
  const size_t used = strlen(note);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(note + used, sizeof note - used, format, arguments);
  va_end(arguments);
}

void check_end(void) {
  printf("%s %s %6d cases", failures ? "FAIL" : "ok  ", name, checks);
  if (worst > 0) printf("  %3.0f%% of bound", 100 * worst);
  if (note[0]) printf("  %s", note);
  if (failures > SHOWN) printf("  (%d failures)", failures);
  printf("\n");
  fflush(stdout);
  if (failures) failed++;
  else passed++;
}

int check_report(void) {
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

uint64_t random_bits(void) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t random_int(int64_t low, int64_t high) {
  return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1));
}

bool random_chance(int one_in) { return random_int(1, one_in) == 1; }

double random_uniform(void) { return (double)(random_bits() >> 11) * 0x1p-53; }

double random_normal(void) { /* three uniforms: variance 1, no tails beyond 3, and no libm in the inputs */
  return 2 * (random_uniform() + random_uniform() + random_uniform()) - 3;
}
