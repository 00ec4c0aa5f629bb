/*
 * A process that is about to run out of descriptors, for tests.
 */
#ifndef DOPPEL_TESTS_UNIT_DESCRIPTORS_H
#define DOPPEL_TESTS_UNIT_DESCRIPTORS_H

#include "test.h"

#include "base/log.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The lowest number that is free. */
static inline int descriptors_lowest(void)
{
    int fd = dup(STDIN_FILENO);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

/* Has the process have descriptors for COUNT more connections of a guest's, or a few more. Returns
 * the first one that is not for them, but for files of a guest's: a third as many are. The rest, as
 * many again, is not for guests. *BEFORE is for setrlimit in the end. */
static inline int descriptors_leave(int count, struct rlimit *before)
{
    int end = (descriptors_lowest() + count + 2) / 3 * 3;
    struct rlimit few;

    assert_true(end <= 96); /* a quarter of the guest's is for files, if those are few */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
    few = (struct rlimit){(rlim_t)(end / 3 * 8), before->rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    return end;
}

static inline void descriptors_told(void *count, enum log_level level, const char *text)
{
    assert_int_equal(level, LOG_LEVEL_WARNING);
    assert_non_null(strstr(text, "runs out of file descriptors"));
    atomic_fetch_add((_Atomic unsigned *)count, 1);
}

/* A log that counts in an _Atomic unsigned at COUNT how often it is told of too few descriptors. */
static inline struct log descriptors_log(_Atomic unsigned *count)
{
    return (struct log){.most = LOG_LEVEL_WARNING, .line = descriptors_told, .opaque = count};
}

#endif
