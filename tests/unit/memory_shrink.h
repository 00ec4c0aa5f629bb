/*
 * Takes guest memory away from under a virtual machine, as a host does that is out of memory: what
 * lies behind the end of the file is a page that cannot be provided.
 */
#ifndef DOPPEL_TESTS_UNIT_MEMORY_SHRINK_H
#define DOPPEL_TESTS_UNIT_MEMORY_SHRINK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHRINK_MAX_FD 256

/* Whether FD is guest memory of this process. */
static inline bool is_guest_memory(int fd)
{
    char link[64], name[64] = "";

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    return readlink(link, name, sizeof(name) - 1) > 0 && strstr(name, "guest-ram");
}

/* The guest memory that has been made since BEFORE was filled in; -1: none. */
static inline int new_guest_memory(const bool before[SHRINK_MAX_FD])
{
    for (int fd = 0; fd < SHRINK_MAX_FD; fd++)
        if (!before[fd] && is_guest_memory(fd))
            return fd;
    return -1;
}

static inline void note_guest_memory(bool before[SHRINK_MAX_FD])
{
    for (int fd = 0; fd < SHRINK_MAX_FD; fd++)
        before[fd] = is_guest_memory(fd);
}

#endif
