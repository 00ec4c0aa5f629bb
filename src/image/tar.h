/*
 * Puts what a tar archive holds into an ext4 file system. The archive may be packed by gzip, bzip2,
 * xz, zstd or lz4. Owners are numbers; extended attributes and holes come along, access control
 * lists only as extended attributes.
 */
#ifndef DOPPEL_IMAGE_TAR_H
#define DOPPEL_IMAGE_TAR_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct ext4;

struct tar_options {
    const char *name; /* what messages call the archive */
    bool layer;       /* of an OCI image: names that begin with ".wh." remove what was there. FD can
                       * be read twice */
    /* Called often, with how many bytes have been read so far: true ends the work. May be NULL. */
    bool (*tick)(void *opaque, uint64_t bytes);
    void *opaque;
};

/* Reads FD from where it stands. Fails with -EINTR if tick() said so, with -EINVAL if the archive
 * is damaged, or ends before its end. */
int tar_unpack(struct ext4 *ext4, int fd, const struct tar_options *options, struct error *err);

#endif
