/*
 * Structures that the program has in the size of the header which it was compiled with, and the
 * library in the size of its own. Members are only ever added at the end.
 */
#ifndef DOPPEL_CTL_SIZED_H
#define DOPPEL_CTL_SIZED_H

#include "base/util.h"

#include <stdbool.h>
#include <string.h>

/* Hands the library's structure FROM to the program's TO. What the library does not know is 0. */
static inline void sized_copy_out(void *to, size_t to_size, const void *from, size_t from_size)
{
    memcpy(to, from, MIN(to_size, from_size));
    if (to_size > from_size)
        memset((char *)to + from_size, 0, to_size - from_size);
}

/* Takes the program's structure FROM. What the program does not know is 0. Returns false if the
 * program has set something that the library does not know. */
static inline bool sized_copy_in(void *to, size_t to_size, const void *from, size_t from_size)
{
    sized_copy_out(to, to_size, from, from_size);
    for (size_t i = to_size; i < from_size; i++)
        if (((const char *)from)[i])
            return false;
    return true;
}

#endif
