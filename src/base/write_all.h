/*
 * Writing to a descriptor that may take less at a time than there is.
 */
#ifndef DOPPEL_BASE_WRITE_ALL_H
#define DOPPEL_BASE_WRITE_ALL_H

#include <stddef.h>

/* Writes all SIZE bytes of DATA to FD, which blocks. 0 or a negative errno. */
int write_all(int fd, const void *data, size_t size);

#endif
