#!/bin/bash
# Compiles the C target with its tests and runs every kernel of every ISA this machine has; --bench times them instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
toolchain=$(dirname "$(realpath "$(command -v swift)")")
sources=Sources/CAttnKernels
mkdir -p .build/tests-kernels
"$toolchain/clang" -std=c17 -O3 -fno-math-errno -Wall -Wextra -Werror -I$sources -I$sources/include \
  $sources/*.c $sources/arch/*.c Tests/Kernels/*.c -lm -lpthread -o .build/tests-kernels/kernel-tests
.build/tests-kernels/kernel-tests "$@"
