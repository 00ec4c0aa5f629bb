/*
 * Opens files that may be anything: a name from outside may lead to a pipe, which would be waited
 * for, or to a device.
 */
#ifndef DOPPEL_BASE_REGULAR_H
#define DOPPEL_BASE_REGULAR_H

/* Opens the regular file NAME for reading, in the folder AT (AT_FDCWD: the working directory) with
 * FLAGS, as openat(2) has them. Waits for nothing. Returns the descriptor, or a negative errno:
 * -EINVAL if it is not a regular file. */
int regular_open(int at, const char *name, int flags);

#endif
