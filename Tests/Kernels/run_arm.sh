#!/bin/bash
# The same for AArch64: cross-compiled, and run under qemu's user-mode emulation.
set -euo pipefail
cd "$(dirname "$0")/../.."
toolchain=$(dirname "$(realpath "$(command -v swift)")")
sources=Sources/CAttnKernels
mkdir -p .build/tests-kernels
"$toolchain/clang" --target=aarch64-linux-gnu -static -std=c17 -O3 -fno-math-errno -Wall -Wextra -Werror \
  -I$sources -I$sources/include $sources/*.c $sources/arch/*.c Tests/Kernels/*.c -lm \
  -o .build/tests-kernels/kernel-tests-arm
qemu-aarch64 .build/tests-kernels/kernel-tests-arm --quick
