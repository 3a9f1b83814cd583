#!/bin/bash
# Builds the Swift tests as the library is shipped and runs them for every ISA of this machine with 1, 2 and 3 threads.
set -euo pipefail
cd "$(dirname "$0")/../.."
test=(swift test -c release --scratch-path .build-tests)

has() { for flag in "$@"; do grep -qm 1 "^flags.*\b$flag\b" /proc/cpuinfo || return 1; done; }
isas=portable
if [ "$(uname -m)" = aarch64 ]; then isas+=" neon"; fi
if has avx2 fma f16c; then isas+=" avx2"; fi
if has avx2 fma f16c avx512f avx512bw avx512dq avx512vl; then isas+=" avx512"; fi
if has avx512_bf16 amx_tile amx_bf16; then isas+=" amx"; fi

swift build --build-tests "${test[@]:2}"
for isa in $isas; do
  for threads in 1 2 3; do
    echo "swift: $isa, $threads threads"
    # what failed, and the sum
    SWIFTATTN_ISA=$isa OMP_NUM_THREADS=$threads "${test[@]}" --skip-build --disable-xctest 2>&1 |
      grep -vE '^(\[|◇|↳|✔ (Test .*[)]|Suite))'
  done
done
