/* What only a process of its own can see: the environment and the affinity mask, read once. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "problem.h"

/* The exit code tells which expectation failed. */
#define EXPECT(number, condition)                                                                      \
  do {                                                                                                 \
    if (!(condition)) {                                                                                \
      printf("      in the process with an unusable SWIFTATTN_ISA: %s (last error: %s)\n", #condition, \
             swiftattn_last_error());                                                                  \
      return number;                                                                                   \
    }                                                                                                  \
  } while (0)
#define REFUSES(number, call) EXPECT(number, (call) == SWIFTATTN_ERROR_UNSUPPORTED_ISA)

int run_unsupported_isa(void) {
  swiftattn_tensor x = TENSOR(F32, LAYOUT_DENSE, 2, 2), y = TENSOR(F32, LAYOUT_DENSE, 2, 2),
                   out = TENSOR(F32, LAYOUT_DENSE, 2, 2);
  swiftattn_tensor lse = TENSOR(F32, LAYOUT_DENSE, 2), heads = TENSOR(F32, LAYOUT_DENSE, 2),
                   ids = TENSOR(I32, LAYOUT_DENSE, 2);
  swiftattn_tensor cu = TENSOR(I32, LAYOUT_DENSE, 2), packed = TENSOR(F32, LAYOUT_DENSE, 2, 1, 2),
                   result = tensor_like(&packed);
  const char *asked = getenv("SWIFTATTN_ISA");
  tensor_fill(&x, 1);
  tensor_fill(&y, 1);
  tensor_fill(&packed, 1);
  tensor_fill(&ids, 0);
  tensor_store1(&cu, 0, 0);
  tensor_store1(&cu, 1, 2);
  buffer_snapshot();
  EXPECT(1, strcmp(swiftattn_cpu_isa(), "unsupported") == 0);
  EXPECT(2, strlen(swiftattn_version()) > 0 && swiftattn_get_num_threads() >= 1);
  REFUSES(3, swiftattn_scaled_dot_product_attention(&x, &x, &x, NULL, &out, NULL, NULL));
  EXPECT(4, strstr(swiftattn_last_error(), asked) != NULL && strstr(swiftattn_last_error(), "SWIFTATTN_ISA") != NULL);
  REFUSES(5, swiftattn_attention_varlen(&packed, &packed, &packed, &cu, &cu, NULL, &result, NULL));
  REFUSES(6, swiftattn_merge_attention_states(&x, &lse, 1, &out, &heads));
  REFUSES(7, swiftattn_alibi_slopes(&heads));
  REFUSES(8, swiftattn_matmul(&x, &y, 0, &out));
  REFUSES(9, swiftattn_linear(&x, &y, NULL, NULL, NULL, &out));
  REFUSES(10, swiftattn_softmax(&x, 0, &out));
  REFUSES(11, swiftattn_layer_norm(&x, NULL, NULL, 1e-5, &out));
  REFUSES(12, swiftattn_rms_norm(&x, NULL, 1e-5, &out));
  REFUSES(13, swiftattn_relu(&x, &out));
  REFUSES(14, swiftattn_gelu(&x, 0, &out));
  REFUSES(15, swiftattn_silu(&x, &out));
  REFUSES(16, swiftattn_swiglu(&x, &y, &out));
  REFUSES(17, swiftattn_geglu(&x, &y, 0, &out));
  REFUSES(18, swiftattn_embedding(&ids, &x, NULL, &out));
  REFUSES(19, swiftattn_sinusoidal_positions(&out));
  EXPECT(20, buffer_unchanged());
  buffer_free_all();
  return 0;
}

static void keep_one_processor(void) {
  cpu_set_t all, one;
  int processor = 0;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  while (!CPU_ISSET(processor, &all)) processor++;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  sched_setaffinity(0, sizeof one, &one);
}

/* Starts this program again with a flag, an environment variable (NULL: removed) and, if asked, on one processor only.
 * Returns its exit code, or -1. */
static int run_again(const char *flag, const char *variable, const char *content, int one_processor) {
  char program[4096];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1); /* valgrind answers readlink, not exec */
  int status = -1;
  pid_t child;
  CHECK(length > 0, "the program does not find itself");
  if (length <= 0) return -1;
  program[length] = 0;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    if (content)
      setenv(variable, content, 1);
    else
      unsetenv(variable);
    if (one_processor) keep_one_processor();
    alarm(60);
    execl(program, program, flag, (char *)NULL);
    _exit(127);
  }
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status), "%s=%s: killed by signal %d", variable, content ? content : "", WTERMSIG(status));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void run_with_isa(const char *name) {
  int code = run_again("--unsupported-isa", "SWIFTATTN_ISA", name, 0);
  CHECK(code == 0, "SWIFTATTN_ISA=%s: expectation %d", name, code);
}

static void unknown_name(void) { run_with_isa("nonsense"); }

static void another_machine(void) {
#if defined(__aarch64__)
  run_with_isa("avx2");
#else
  run_with_isa("neon");
#endif
}

static void default_threads(void) {
  int code = run_again("--threads", "OMP_NUM_THREADS", NULL, 1);
  CHECK(code == 1, "%d threads with one processor in the affinity mask", code);
  code = run_again("--threads", "OMP_NUM_THREADS", "3", 1);
  CHECK(code == 3, "%d threads with OMP_NUM_THREADS=3 and one processor", code);
  code = run_again("--threads", "OMP_NUM_THREADS", "5", 0);
  CHECK(code == 5, "%d threads with OMP_NUM_THREADS=5", code);
}

void run_process(void) {
  check_run("isa: an unknown name is an error, not a crash", unknown_name);
  check_run("isa: another machine's name is an error", another_machine);
  check_run("threads: the default number", default_threads);
}
