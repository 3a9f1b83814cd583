/* A small test harness: one line per test, a closing count, and a random generator with a fixed seed. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>

/* Set by --quick: sizes that stay bearable under valgrind. */
extern int check_quick;

/* Runs only tests whose name contains text; NULL runs all. */
void check_filter(const char *text);

/* One test: the random generator restarts, buffers of the test are released at its end. */
void check_run(const char *name, void (*body)(void));

/* The same in two parts, for tests made from a table. check_begin returns 0 if the filter leaves the test out. */
int check_begin(const char *name);
void check_end(void);

/* Says what is being tried; printed with the failures that follow. */
void check_context(const char *format, ...);
void check_fail(const char *file, int line, const char *format, ...);

/* Runs body in a forked process for at most so many seconds; fails the test unless it returns 0. */
void check_child(int seconds, int (*body)(void));

/* Prints "N passed, N failed" and returns the exit code. */
int check_report(void);

#define CHECK(condition, ...)                                      \
  do {                                                             \
    if (!(condition)) check_fail(__FILE__, __LINE__, __VA_ARGS__); \
  } while (0)

void random_seed(uint64_t seed);
uint64_t random_bits(void);
int64_t random_int(int64_t low, int64_t high); /* both included */
int random_chance(int one_in);
double random_normal(void);

/* The topics; each runs its tests. */
void run_abi(void);
void run_process(void);
void run_attention(void);
void run_attention_edges(void);
void run_attention_backward(void);
void run_varlen(void);
void run_merge(void);
void run_matmul(void);
void run_packed(void);
void run_cache(void);
void run_blocks(void);
void run_rows(void);
void run_errors_attention(void);
void run_errors_options(void);
void run_errors_others(void);
void run_extremes(void);
void run_guard(void);
void run_threads(void);

/* Body of the process that test_process starts with an unusable SWIFTATTN_ISA; returns its exit code. */
int run_unsupported_isa(void);

#endif
