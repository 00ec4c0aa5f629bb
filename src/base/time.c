/*
 * Time of the host.
 */
#include "base/time.h"

#include <errno.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t time_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t time_real_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t time_thread_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t time_process_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

struct timespec time_spec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

void time_sleep_ns(uint64_t ns)
{
    struct timespec left = time_spec(ns);

    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}
