/*
 * Time of the host: its clocks in nanoseconds, and waiting.
 *
 * Guest time is another matter (bus/clock.h).
 */
#ifndef DOPPEL_BASE_TIME_H
#define DOPPEL_BASE_TIME_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

uint64_t time_now_ns(void);     /* CLOCK_MONOTONIC: never set, never goes back */
uint64_t time_real_ns(void);    /* CLOCK_REALTIME: since 1970 */
uint64_t time_thread_ns(void);  /* what the calling thread has used of a processor */
uint64_t time_process_ns(void); /* what all threads of the process have used of processors */

/* NS as the kernel and the C library want it. */
struct timespec time_spec(uint64_t ns);

/* Sleeps for NS, signals or not. */
void time_sleep_ns(uint64_t ns);

#endif
