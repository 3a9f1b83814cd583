#!/bin/bash
# Fuzzes the GGUF reader with libFuzzer, under AddressSanitizer: run.sh [seconds]. New inputs go to .build/fuzz, the seeds stay.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
toolchain=$(dirname "$(realpath "$(command -v swift)")")
build=.build/fuzz
mkdir -p $build/objects $build/corpus $build/CAttnKernels
cat > $build/CAttnKernels/module.modulemap <<EOF
module CAttnKernels { header "$PWD/Sources/CAttnKernels/include/CAttnKernels.h" export * }
EOF
# The kernels' instantiations read nothing of a file's structure, and would take minutes to compile under sanitizers.
compile() { "$toolchain/clang" -std=c17 -O1 -g -fno-math-errno -ISources/CAttnKernels/include "$@"; }
for source in Sources/CAttnKernels/*.c; do
  compile -fsanitize=address,undefined -fno-sanitize-recover=undefined -c "$source" -o "$build/objects/$(basename "$source").o"
done
for source in Sources/CAttnKernels/arch/*.c; do compile -c "$source" -o "$build/objects/$(basename "$source").o"; done
"$toolchain/swiftc" -O -g -swift-version 6 -parse-as-library -sanitize=fuzzer,address -module-name SwiftAttn -package-name swiftattn \
  -I $build/CAttnKernels $(find Sources/SwiftAttn -name '*.swift') Tests/Fuzz/gguf.swift $build/objects/*.o -lm \
  -Xclang-linker -fsanitize=undefined -o $build/gguf
# Allocations are checked for too: a leak would be one of the library.
$build/gguf -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=4096 -timeout=20 -print_final_stats=1 \
  -artifact_prefix=$build/ $build/corpus Tests/Fuzz/corpus
