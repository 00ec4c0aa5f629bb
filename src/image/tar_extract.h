/*
 * Unpacks a tar archive, of which nothing is trusted, into a folder of the host (extract.h): files,
 * folders, links, their modes and times. Owners, set-user-ID bits, extended attributes and special
 * files stay behind.
 */
#ifndef DOPPEL_IMAGE_TAR_EXTRACT_H
#define DOPPEL_IMAGE_TAR_EXTRACT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct tar_extract_options {
    const char *from; /* of the archive's names, the first part that each is to have; "": none */
    const char *to;   /* what takes its place; "": nothing */
    /* Called often, with how many bytes of files have been written so far: true ends the work. */
    bool (*tick)(void *opaque, uint64_t bytes);
    void *opaque;
};

struct tar_extracted {
    uint64_t entries, special; /* made, and left out */
    uint64_t bytes;
};

/* Reads the archive, not packed, from FD to its end. FOLDER becomes this one's. Fails with -EINVAL
 * if the archive is damaged or has other names, with -EINTR if tick() said so. */
int tar_extract(int fd, int folder, const struct tar_extract_options *options,
                struct tar_extracted *extracted, struct error *err);

#endif
