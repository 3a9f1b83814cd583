#!/bin/bash
# Builds the C tests as a user would and runs them for every ISA of this machine with 1, 2 and 3 threads.
set -euo pipefail
cd "$(dirname "$0")/../.."
library=$PWD/.build/release
build=.build/tests-c
test=$build/test_swiftattn
warnings="-Wall -Wextra -Werror -pedantic"
passed=0
failed=0

# Adds up the closing line of a program; one without it has died. Passed tests are listed if wanted.
tally() {
  local listed=$1 log=$build/log counts
  shift
  "$@" >"$log" 2>&1 || true
  if [ "$listed" = all ]; then cat "$log"; else grep -v '^pass  ' "$log" || true; fi
  counts=$(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
  [ -n "$counts" ] || { echo "FAIL  $* did not finish" && counts="0 1"; }
  passed=$((passed + ${counts% *}))
  failed=$((failed + ${counts#* }))
}

mkdir -p "$build"
${CXX:-c++} -std=c++11 -O2 -g $warnings -Iinclude -c Tests/C/test_abi_cpp.cpp -o "$build/test_abi_cpp.o"
${CC:-cc} -std=c99 -O2 -g $warnings -Iinclude Tests/C/*.c "$build/test_abi_cpp.o" \
  -L"$library" -lswiftattn -Wl,-rpath,"$library" -lpthread -lm -o "$test"

tally all python3 Tests/C/check_exports.py
tally all "$test"
for isa in portable avx2 avx512 amx neon; do
  [ "$(SWIFTATTN_ISA=$isa "$test" --isa)" = "$isa" ] || continue
  for threads in 1 2 3; do
    tally failures env SWIFTATTN_ISA=$isa OMP_NUM_THREADS=$threads "$test"
  done
done
MAKEFLAGS= make -s install PREFIX="$PWD/$build/prefix"
tally all Tests/C/check_install.sh "$PWD/$build/prefix"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
