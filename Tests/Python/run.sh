#!/bin/bash
# Runs the Python suite: all of it once, then what depends on the instruction set or on threads for each of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=$PWD/bindings/python
python=${1:-python3}

suite() { # [-m EXPRESSION] VARIABLE=VALUE...; its output in one piece, for two run at a time
  local selection=()
  if [ "$1" = -m ]; then selection=(-m "$2"); shift 2; fi
  local output status=0
  output=$(env "$@" "$python" -m pytest -q --no-header -p no:cacheprovider --ignore Tests/Python/peers Tests/Python \
    "${selection[@]}" 2>&1) || status=$?
  printf 'Python: %s\n%s\n' "$*" "$output"
  return $status
}

best=$("$python" -c 'import swiftattn; print(swiftattn.cpu_info()["isa"])')
runs=("OMP_NUM_THREADS=1" "OMP_NUM_THREADS=3")
for isa in portable avx2 avx512 amx neon; do
  [ "$isa" != "$best" ] || continue
  [ "$(SWIFTATTN_ISA=$isa "$python" -c 'import swiftattn; print(swiftattn.cpu_info()["isa"])')" = "$isa" ] || continue
  runs+=("SWIFTATTN_ISA=$isa OMP_NUM_THREADS=2")
done

suite OMP_NUM_THREADS=2 &
whole=$! failed=0
for run in "${runs[@]}"; do
  # shellcheck disable=SC2086
  suite -m "not once" $run || failed=1
done
wait $whole || failed=1
exit $failed
