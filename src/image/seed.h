/*
 * A disk from which cloud-init configures a foreign image at its first boot: the data source
 * NoCloud (cloud-init's documentation), an ISO 9660 file system with the label "cidata".
 */
#ifndef DOPPEL_IMAGE_SEED_H
#define DOPPEL_IMAGE_SEED_H

#include "base/error.h"

#include <stddef.h>

struct seed {
    const char *hostname;
    const char *instance; /* names this machine, as opposed to a copy of it */
    const char *keys;     /* lines of public keys, which may log in as the image's own user */
    const char *user_data;
    size_t user_data_size;
};

/* Writes the disk to the empty file FD; NAME is for messages. */
int seed_write(int fd, const char *name, const struct seed *seed, struct error *err);

#endif
