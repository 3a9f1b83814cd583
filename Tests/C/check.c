/* The harness: counting, printing, and naming the test that was running when the process dies. */
#define _DEFAULT_SOURCE
#include "check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tensor.h"

enum { MAX_PRINTED_FAILURES = 3 };

int check_quick;

static const char *filter;
static char current_test[160];
static char context[512];
static int failures, passed, failed;
static uint64_t random_state;

static void on_fatal_signal(int number) {
  static const char prefix[] = "FAIL  ", middle[] = ": killed by a signal while trying: ";
  ssize_t ignored = write(STDOUT_FILENO, prefix, sizeof prefix - 1);
  ignored += write(STDOUT_FILENO, current_test, strlen(current_test));
  ignored += write(STDOUT_FILENO, middle, sizeof middle - 1);
  ignored += write(STDOUT_FILENO, context, strlen(context));
  ignored += write(STDOUT_FILENO, "\n", 1);
  (void)ignored;
  signal(number, SIG_DFL);
  raise(number);
}

/* A sanitizer's own handler says more than this one, so only the default action is replaced. */
static void watch_signals(void) {
  static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction old;
    if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) signal(numbers[i], on_fatal_signal);
  }
}

void check_filter(const char *text) { filter = text; }

int check_begin(const char *name) {
  static int watching;
  if (filter && !strstr(name, filter)) return 0;
  if (!watching) watch_signals();
  watching = 1;
  snprintf(current_test, sizeof current_test, "%s", name);
  context[0] = 0;
  failures = 0;
  random_seed(20240607);
  return 1;
}

void check_end(void) {
  buffer_mode(BUFFER_HEAP);
  buffer_free_all();
  if (failures > MAX_PRINTED_FAILURES) printf("      ... %d failures in all\n", failures);
  printf("%s  %s\n", failures ? "FAIL" : "pass", current_test);
  fflush(stdout);
  *(failures ? &failed : &passed) += 1;
}

void check_run(const char *name, void (*body)(void)) {
  if (!check_begin(name)) return;
  body();
  check_end();
}

void check_context(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(context, sizeof context, format, arguments);
  va_end(arguments);
}

void check_fail(const char *file, int line, const char *format, ...) {
  const char *slash = strrchr(file, '/');
  va_list arguments;
  if (++failures > MAX_PRINTED_FAILURES) return;
  va_start(arguments, format);
  printf("      %s:%d: ", slash ? slash + 1 : file, line);
  vprintf(format, arguments);
  printf(context[0] ? " [%s]\n" : "\n", context);
  va_end(arguments);
}

void check_child(int seconds, int (*body)(void)) {
  int status = -1;
  pid_t child;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    signal(SIGALRM, SIG_DFL);
    alarm((unsigned)(check_quick ? 12 * seconds : seconds));
    _exit(body());
  }
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status), "the child was killed by signal %d", WTERMSIG(status));
  CHECK(!WIFEXITED(status) || WEXITSTATUS(status) == 0, "the child exits with %d", WEXITSTATUS(status));
}

int check_report(void) {
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0;
}

void random_seed(uint64_t seed) { random_state = seed; }

/* SplitMix64. */
uint64_t random_bits(void) {
  uint64_t z = random_state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

int64_t random_int(int64_t low, int64_t high) { return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1)); }

int random_chance(int one_in) { return random_bits() % (uint64_t)one_in == 0; }

/* A sum of four uniforms has variance 1/3: near enough to normal, and bounded. */
double random_normal(void) {
  double sum = -2;
  for (int i = 0; i < 4; i++) sum += (double)(random_bits() >> 11) * 0x1p-53;
  return sum * 1.7320508075688772;
}
