/*
 * Which users an image may have at once: locks on bytes of its file, as QEMU takes them.
 *
 * They are locks of open files (F_OFD_SETLK, fcntl(2)): they end with the file's last descriptor,
 * and two users in one process exclude each other, too. A user takes a shared lock on byte 100 + N
 * for each permission N that it uses, and on byte 200 + N for each that it forbids to all other
 * users. Then it looks whether another user has locked the opposite, and if so it gives up. The
 * permissions used here are 0 (reads what stays consistent), 1 (writes) and 3 (resizes).
 *
 *      user                 locks                      another may not have locked
 *      whole, writes        100 101 103 201 203        200 201 203 101 103
 *      whole, reads         100         201 203        200         101 103
 *      a part, writes           101                    100
 *      a part, reads                    201            100 and 101 both
 *
 * So a whole file has one writer, or readers. A user of a part excludes users of the whole, unless
 * both only read, and QEMU, which knows no parts, sees it as a user of the whole. Users of parts
 * exclude each other where the parts overlap, by a lock on as many bytes from 2^62 on, exclusive
 * for a writer.
 */
#ifndef DOPPEL_BLK_FILE_LOCK_H
#define DOPPEL_BLK_FILE_LOCK_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

/* A use of an image. */
struct lock_use {
    bool writes;
    uint64_t offset, size; /* a part; SIZE 0: the whole file */
};

/* Takes the locks for USE on FD, the open file NAME. Fails with -EBUSY if another user's locks
 * forbid it and are still there after WAIT_NS: after a process has been killed, the kernel first
 * ends what that had in flight. If the file system has no such locks, LOG gets a warning and the
 * call succeeds. */
int lock_image(int fd, const char *name, const struct lock_use *use, uint64_t wait_ns,
               const struct log *log, struct error *err);
/* Gives back what this process has locked by FD, which is about to be closed. Without, the locks
 * last until everything that knows the open file has gone, a ring of io_uring's among it. */
void unlock_image(int fd);

#endif
