#!/bin/bash
# Runs the C tests with library and tests under AddressSanitizer and UBSan, then under valgrind.
set -euo pipefail
cd "$(dirname "$0")/../.."
toolchain=$(dirname "$(realpath "$(command -v swift)")")
build=.build-asan/tests-c
library=$PWD/.build-asan/release
failures=0

# A report counts whether or not the program went on after it.
run() {
  local log=$build/log
  echo "== $*"
  "$@" >"$log" 2>&1 || failures=$((failures + 1))
  if grep -Eq 'runtime error:|ERROR: .*Sanitizer|^==[0-9]+== [^ ]' "$log"; then failures=$((failures + 1)); fi
  grep -v '^pass  ' "$log" || true
}

swift build -c release --sanitize address -Xcc -fsanitize=undefined -Xswiftc -static-stdlib --product swiftattn \
  --scratch-path .build-asan
mkdir -p "$build"
sanitize="-fsanitize=address,undefined -fno-omit-frame-pointer -fuse-ld=lld -O1 -g -Iinclude"
"$toolchain/clang++" -std=c++11 $sanitize -c Tests/C/test_abi_cpp.cpp -o "$build/test_abi_cpp.o"
"$toolchain/clang" -std=c99 $sanitize Tests/C/*.c "$build/test_abi_cpp.o" \
  -L"$library" -lswiftattn -Wl,-rpath,"$library" -lpthread -lm -o "$build/test_swiftattn"
echo "leak:libomp.so" >"$build/leaks" # matches any frame below a parallel region: leaks of kernels are left to valgrind
export LSAN_OPTIONS="suppressions=$build/leaks:print_suppressions=0" UBSAN_OPTIONS=print_stacktrace=1
run "$build/test_swiftattn"
for isa in portable avx2 avx512; do
  [ "$(SWIFTATTN_ISA=$isa "$build/test_swiftattn" --isa)" = $isa ] || continue
  run env SWIFTATTN_ISA=$isa "$build/test_swiftattn" --quick
done

# Debian's valgrind reads neither this clang's debug information nor AVX-512.
plain=$PWD/.build/tests-c
mkdir -p "$plain/stripped"
strip --strip-debug -o "$plain/stripped/libswiftattn.so" .build/release/libswiftattn.so
c++ -std=c++11 -O1 -g -Iinclude -c Tests/C/test_abi_cpp.cpp -o "$plain/test_abi_cpp.o"
cc -std=c99 -O1 -g -Iinclude Tests/C/*.c "$plain/test_abi_cpp.o" -L"$plain/stripped" -lswiftattn \
  -Wl,-rpath,"$plain/stripped" -lpthread -lm -o "$plain/test_valgrind"
run env SWIFTATTN_ISA=avx2 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive valgrind -q --fair-sched=yes --error-exitcode=1 \
  --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --suppressions=Tests/C/libomp.supp \
  "$plain/test_valgrind" --quick

[ "$failures" -eq 0 ] && echo "sanitizers and valgrind found nothing"
[ "$failures" -eq 0 ]
