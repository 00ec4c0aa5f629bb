/*
 * Files whose locks say that a process uses what they stand for, and in which stands which process
 * that is and what it does.
 *
 * The lock is one of an open file (F_OFD_SETLK, fcntl(2)): a process that is forked has it, too,
 * and it ends when all have closed the file or are gone. To look at it takes nothing from anybody.
 */
#ifndef DOPPEL_CTL_LOCK_FILE_H
#define DOPPEL_CTL_LOCK_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

#define LOCK_FILE_USE_MOST 31

struct lock_holder {
    bool held;
    pid_t pid;                        /* 0: not known */
    char use[LOCK_FILE_USE_MOST + 1]; /* letters and blanks; may be empty */
};

/* Makes the file PATH if it is not there, locks it and writes into it that this process has it for
 * USE ("runs"). Returns its descriptor, -EBUSY if it is locked, or another negative errno (-ENOENT:
 * its folder is not there). */
int lock_file_take(const char *path, const char *use);

/* Looks who has locked PATH. A file that is not there is locked by nobody. */
void lock_file_look(const char *path, struct lock_holder *holder);

/* Returns a descriptor for the process that has locked PATH (pidfd_open(2)): it stays that
 * process's whatever becomes of its number. -ESRCH: nobody has locked PATH, or who has it is not
 * known. */
int lock_file_pidfd(const char *path, struct lock_holder *holder);

#endif
