# What the compiler is told so that machines without AVX-512 or AMX test their kernels all the same: in `emulated`.
# AMX's instructions fault there, and amx_emulator.c carries them out.
emulated=(-DATTN_AMX_EMULATED)
if [ "$(uname -m)" = x86_64 ] && ! grep -q avx512vl /proc/cpuinfo; then
  emulated+=(-DATTN_AVX512_EMULATED -isystem "$PWD/Tests/Kernels/avx512_emulated" -Wno-psabi)
fi
