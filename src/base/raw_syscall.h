/*
 * System calls without the C library, for signal handlers: the C library stores an error in errno,
 * which is thread-local, and a handler may run where FS leads to something else (signals.h).
 */
#ifndef DOPPEL_BASE_RAW_SYSCALL_H
#define DOPPEL_BASE_RAW_SYSCALL_H

#include <sys/syscall.h>

/* Returns what the kernel returns: a negative errno on failure. */
static inline long raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    long result;

    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

#endif
