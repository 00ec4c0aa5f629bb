/*
 * Starting a thread of the monitor's own: its name, and the signals that it takes; and conditions
 * that threads wait for with a limit.
 */
#ifndef DOPPEL_BASE_THREAD_H
#define DOPPEL_BASE_THREAD_H

#include "base/error.h"

#include <pthread.h>

/* Starts a thread that executes RUN(OPAQUE). NAME is what debuggers and top(1) show; the kernel
 * keeps 15 bytes of it. All signals are blocked in it, because they are for the threads of whoever
 * uses the library, except those that code itself raises (SIGSEGV, SIGBUS, SIGFPE, SIGILL,
 * SIGTRAP). */
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *opaque,
                 struct error *err);

/* Makes a condition whose waits end at times of time_now_ns (base/time.h), which the user's setting
 * of the clock does not change. */
void thread_cond_init(pthread_cond_t *cond);

#endif
