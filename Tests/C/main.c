/* Runs the C tests: test_swiftattn [--quick] [text that the names must contain]; --isa tells the ISA in use. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "tensor.h"

int main(int argc, char **argv) {
  for (int n = 1; n < argc; n++) {
    if (strcmp(argv[n], "--unsupported-isa") == 0) return run_unsupported_isa();
    if (strcmp(argv[n], "--threads") == 0) return swiftattn_get_num_threads();
    if (strcmp(argv[n], "--isa") == 0) return puts(swiftattn_cpu_isa()) < 0;
    if (strcmp(argv[n], "--quick") == 0)
      check_quick = 1;
    else
      check_filter(argv[n]);
  }
  printf("swiftattn %s, isa %s, %d threads\n", swiftattn_version(), swiftattn_cpu_isa(), swiftattn_get_num_threads());
  run_abi();
  run_process();
  run_errors_attention();
  run_errors_options();
  run_errors_others();
  run_attention();
  run_attention_edges();
  run_attention_backward();
  run_varlen();
  run_merge();
  run_matmul();
  run_packed();
  run_cache();
  run_blocks();
  run_rows();
  run_extremes();
  run_guard();
  run_threads();
  return check_report();
}
