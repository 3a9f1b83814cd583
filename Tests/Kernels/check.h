/* A small harness: one line per (ISA, computing type, table entry) with its worst error, and a closing count. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* Set by --quick: fewer and smaller cases, bearable under an emulator. */
extern bool check_quick;

/* Set where a fault stands for each instruction: a tenth of the trials. */
extern bool check_slow;

/* `full` trials, or a tenth of them. */
int check_trials(int full);

void check_begin(const char *isa, const char *real, const char *entry);
/* Says what is being tried; printed with a failure, and if the case crashes. */
void check_context(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Fails unless error <= bound, and remembers the largest part of a bound that was used. */
void check_error(double error, double bound, const char *what, int64_t at);
/* The same for a result that was rounded last: what that rounding may have cost counts as neither. */
void check_rounded(double error, double bound, double rounding, const char *what, int64_t at);
/* Text for the end of the entry's line; a second note is appended. */
void check_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_end(void);

/* Prints "N passed, N failed" and returns the exit code. */
int check_report(void);

#define CHECK(condition, ...)                    \
  do {                                           \
    if (!(condition)) check_fail(__VA_ARGS__);   \
  } while (0)

/* The generator restarts with every entry, so that every variant meets the same cases. */
uint64_t random_bits(void);
int64_t random_int(int64_t low, int64_t high); /* both included */
bool random_chance(int one_in);
double random_uniform(void); /* [0, 1) */
double random_normal(void);

#endif
