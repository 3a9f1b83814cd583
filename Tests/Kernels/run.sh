#!/bin/bash
# Compiles the C target with its tests and runs every kernel of every ISA, emulated where the machine lacks it; --bench times
# them instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
toolchain=$(dirname "$(realpath "$(command -v swift)")")
sources=Sources/CAttnKernels
llvm=$(ls -d /usr/lib/llvm-*/lib/libomp.so | sort -V | tail -n 1 | xargs dirname)
. Tests/Kernels/emulated.sh
if [[ " $* " == *" --bench "* ]]; then emulated=(); fi
objects=.build/tests-kernels
rm -rf $objects
mkdir -p $objects
printf '%s\n' $sources/*.c $sources/arch/*.c Tests/Kernels/*.c |
  xargs -P "$(nproc)" -I{} bash -c '"${@:2}" -c {} -o "$1/$(basename {} .c).o"' _ $objects \
  "$toolchain/clang" -std=c17 -O3 -fno-math-errno -Wall -Wextra -Werror -fopenmp "${emulated[@]}" \
  -I$sources -I$sources/include -idirafter "$(ls -d "$llvm"/clang/*/include | head -n 1)"
"$toolchain/clang" $objects/*.o -L"$llvm" -lomp -lm -lpthread -o $objects/kernel-tests
$objects/kernel-tests "$@"
