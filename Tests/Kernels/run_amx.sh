#!/bin/bash
# The library as a whole on AMX, its instructions carried out by amx_emulator.c where the machine lacks them: the C suite and
# the Python tests that depend on the instruction set, with 1, 2 and 3 threads. This library is a build of its own that
# takes AMX for present. pytest's handler of faults would take the emulator's place.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
build=$PWD/.build-amx
toolchain=$(dirname "$(realpath "$(command -v swift)")")
. Tests/Kernels/emulated.sh
told=()
for word in "${emulated[@]}"; do told+=(-Xcc "$word"); done
swift build -c release -Xswiftc -static-stdlib "${told[@]}" --scratch-path "$build" --product swiftattn
"$toolchain/clang" -std=c17 -O2 -shared -fPIC -DAMX_EMULATOR_PRELOAD Tests/Kernels/amx_emulator.c -o "$build/amx.so"
"${CXX:-c++}" -std=c++11 -O2 -Iinclude -c Tests/C/test_abi_cpp.cpp -o "$build/test_abi_cpp.o"
"${CC:-cc}" -std=c99 -O2 -Iinclude Tests/C/*.c "$build/test_abi_cpp.o" -L"$build/release" -lswiftattn \
  -Wl,-rpath,"$build/release" -lpthread -lm -o "$build/test_swiftattn"

export SWIFTATTN_ISA=amx
for threads in 1 2 3; do
  OMP_NUM_THREADS=$threads LD_PRELOAD=$build/amx.so "$build/test_swiftattn" | tail -n 1
  OMP_NUM_THREADS=$threads LD_PRELOAD=$build/amx.so SWIFTATTN_LIBRARY=$build/release/libswiftattn.so \
    PYTHONPATH=bindings/python "$python" -m pytest -q --no-header -p no:cacheprovider -p no:faulthandler \
    -m "not once" --ignore Tests/Python/peers Tests/Python | tail -n 3
done
