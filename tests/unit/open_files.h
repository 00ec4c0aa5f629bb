/*
 * How many files this process has open: for tests of what is left open.
 */
#ifndef DOPPEL_TESTS_OPEN_FILES_H
#define DOPPEL_TESTS_OPEN_FILES_H

#include "test.h"

#include <dirent.h>

static inline unsigned open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

#endif
