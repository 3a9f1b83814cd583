#!/bin/bash
# Runs the Python suite: all of it once, then what depends on the instruction set or on threads for each of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=$PWD/bindings/python
python=${1:-python3}

suite() {
  echo "Python: $*"
  env "$@" "$python" -m pytest -q --no-header -p no:cacheprovider --ignore Tests/Python/peers Tests/Python "${selection[@]}"
}

selection=()
suite OMP_NUM_THREADS=2
selection=(-m "not once")
best=$("$python" -c 'import swiftattn; print(swiftattn.cpu_info()["isa"])')
for isa in portable avx2 avx512 amx neon; do
  [ "$isa" != "$best" ] || continue
  [ "$(SWIFTATTN_ISA=$isa "$python" -c 'import swiftattn; print(swiftattn.cpu_info()["isa"])')" = "$isa" ] || continue
  suite SWIFTATTN_ISA=$isa OMP_NUM_THREADS=2
done
for threads in 1 3; do
  suite OMP_NUM_THREADS=$threads
done
