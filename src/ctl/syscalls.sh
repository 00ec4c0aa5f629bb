#!/bin/sh
# Linux's system calls for x86-64 as entries of a C array of their names, from this host's headers.
# Usage: syscalls.sh COMPILER...
set -eu
echo '#include <asm/unistd_64.h>' | "$@" -E -dM -xc - |
    sed -n 's/^#define __NR_\([a-z][a-z0-9_]*\) \([0-9][0-9]*\)$/[\2] = "\1",/p'
