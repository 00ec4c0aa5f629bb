/*
 * Small helpers that every folder uses.
 */
#ifndef DOPPEL_BASE_UTIL_H
#define DOPPEL_BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))
#define ALIGN_DOWN(x, a) ((x) & -(uint64_t)(a))
#define ALIGN_UP(x, a)   ALIGN_DOWN((x) + (-1 + (uint64_t)(a)), a)
#define likely(x)        __builtin_expect(!!(x), 1)
#define unlikely(x)      __builtin_expect(!!(x), 0)

/* The smaller and the larger of two numbers, each of which is evaluated once. The result has the
 * type that A and B have in common (C17 6.3.1.8). Within functions only. */
#define MIN(a, b) CHOOSE_(a, <, b, UNIQUE_(min_a_, __COUNTER__), UNIQUE_(min_b_, __COUNTER__))
#define MAX(a, b) CHOOSE_(a, >, b, UNIQUE_(max_a_, __COUNTER__), UNIQUE_(max_b_, __COUNTER__))

/* X and Y are names of variables. The comparison that is never made is there for the compiler,
 * which warns of A and B if one is signed and the other is not. */
#define CHOOSE_(a, is, b, x, y)                                                                    \
    __extension__({                                                                                \
        __typeof__(1 ? (a) : (b)) x = (a);                                                         \
        __typeof__(1 ? (a) : (b)) y = (b);                                                         \
        if (0)                                                                                     \
            (void)((a)is(b));                                                                      \
        x is y ? x : y;                                                                            \
    })
#define UNIQUE_(prefix, number) JOIN_(prefix, number)
#define JOIN_(a, b)             a##b

/* The struct that holds the member PTR points to. */
#define container_of(ptr, type, member) ((type *)(((char *)(ptr)) - offsetof(type, member)))

#define KiB 1024ULL
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)

#endif
