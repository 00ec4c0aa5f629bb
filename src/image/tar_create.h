/*
 * Writes a file or a folder of the host, with all that is in it, as a tar archive: files, folders
 * and symbolic links, their modes and times (whole seconds). Owners are root's; set-user-ID bits,
 * extended attributes and special files stay behind, and a file with several names becomes several
 * files.
 */
#ifndef DOPPEL_IMAGE_TAR_CREATE_H
#define DOPPEL_IMAGE_TAR_CREATE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct tar_create_options {
    const char *path; /* what is written */
    const char
        *name; /* what it is called in the archive; "": what is in the folder, without itself */
    /* Called often, with how many bytes of files have been written so far: true ends the work. */
    bool (*tick)(void *opaque, uint64_t bytes);
    void *opaque;
};

struct tar_created {
    uint64_t entries, special; /* written, and left out */
    uint64_t bytes;
};

/* Writes it to FD. Fails with -EINTR if tick() said so, with -EPIPE if FD takes no more. */
int tar_create(int fd, const struct tar_create_options *options, struct tar_created *created,
               struct error *err);

#endif
