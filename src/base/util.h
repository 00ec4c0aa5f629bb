/*
 * Small helpers that every folder uses.
 */
#ifndef DOPPEL_BASE_UTIL_H
#define DOPPEL_BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)        ((a) < (b) ? (a) : (b))
#define MAX(a, b)        ((a) > (b) ? (a) : (b))
#define ALIGN_DOWN(x, a) ((x) & -(uint64_t)(a))
#define ALIGN_UP(x, a)   ALIGN_DOWN((x) + (-1 + (uint64_t)(a)), a)
#define likely(x)        __builtin_expect(!!(x), 1)
#define unlikely(x)      __builtin_expect(!!(x), 0)

/* The struct that holds the member PTR points to. */
#define container_of(ptr, type, member) ((type *)(((char *)(ptr)) - offsetof(type, member)))

#define KiB 1024ULL
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)

#endif
