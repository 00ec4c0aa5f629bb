/*
 * Descriptors of files and sockets that a guest has this process open: connections through a user
 * network or a virtio socket, files of a shared folder.
 *
 * The process has RLIMIT_NOFILE of them. A guest gets the lower ones; the rest is left to the
 * process's own files (disks, consoles, whoever connects), so that nothing else fails because of
 * what a guest has open. Of the guest's, some are for files only: programs of the guest's that open
 * connections do not keep it from its folders. The kernel always gives out the lowest number that
 * is free. So a new descriptor above the limit means that too many are open.
 */
#ifndef DOPPEL_BASE_DESCRIPTORS_H
#define DOPPEL_BASE_DESCRIPTORS_H

#include "base/log.h"

#include <stdatomic.h>
#include <stdbool.h>

enum descriptors_use { DESCRIPTORS_FILES, DESCRIPTORS_SOCKETS };

/* What one user of descriptors may have. Any threads. */
struct descriptors {
    enum descriptors_use use;
    const struct log *log;
    const char *what;  /* for the log */
    _Atomic bool told; /* that there are too few */
};

/* WHAT, which is not copied, says in the log who lacks descriptors: "shared folder /srv". LOG may
 * be NULL. */
void descriptors_init(struct descriptors *d, enum descriptors_use use, const char *what,
                      const struct log *log);
/* Returns FD if a guest may have it, or a negative FD as it is. Else closes it and returns -ENFILE.
 * The first time that there are too few is logged; -EMFILE and -ENFILE count as such a time. */
int descriptors_take(struct descriptors *d, int fd);
/* Whether another descriptor may be opened for the guest. ANY is one that is open. */
bool descriptors_left(struct descriptors *d, int any);

#endif
