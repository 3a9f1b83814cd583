#!/bin/sh
# Uses an installed swiftattn as an application would: check_install.sh PREFIX, after make install PREFIX=...
set -u
prefix=${1:?usage: check_install.sh PREFIX}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

check() {
  name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1))
    echo "pass  install: $name"
  else
    failed=$((failed + 1))
    echo "FAIL  install: $name"
    sed 's/^/      /' "$work/log"
  fi
}

export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"

version_of_header() {
  awk '/define SWIFTATTN_VERSION_/ { printf "%s%s", dot, $3; dot = "." }' "$prefix/include/swiftattn.h"
}
compiles() {
  # shellcheck disable=SC2046 # the flags are words
  ${CC:-cc} "$here/../../Examples/attention.c" $(pkg-config --cflags --libs swiftattn) -o "$work/attention"
}
runs() {
  env -u LD_LIBRARY_PATH "$work/attention" >"$work/out" && grep -q '^head 3 query 2: ' "$work/out"
}
says_the_version() { grep -q "^swiftattn $(version_of_header) " "$work/out"; }

check "the library is there" test -f "$prefix/lib/libswiftattn.so"
check "the header is there, unchanged" cmp "$prefix/include/swiftattn.h" "$here/../../include/swiftattn.h"
check "pkg-config finds it" pkg-config --exists --print-errors swiftattn
check "pkg-config knows the version" test "$(pkg-config --modversion swiftattn)" = "$(version_of_header)"
check "the prefix is the one installed to" test "$(pkg-config --variable=prefix swiftattn)" = "$prefix"
check "the example compiles" compiles
check "the example runs" runs
check "the example tells the version" says_the_version

echo "$passed passed, $failed failed"
test "$failed" -eq 0
