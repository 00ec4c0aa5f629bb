/*
 * OCI image layouts (the Open Container Initiative's Image Format Specification 1.1): a folder with
 * index.json and blobs, which are named by their digests.
 */
#ifndef DOPPEL_IMAGE_OCI_H
#define DOPPEL_IMAGE_OCI_H

#include "base/error.h"

#include <limits.h>

#define OCI_LAYERS_MOST 128
#define OCI_NAME_MOST   96 /* "sha256/" and 64 digits */

struct oci {
    unsigned count;
    char layer[OCI_LAYERS_MOST][OCI_NAME_MOST]; /* names in blobs/, the lowest first */
};

/* Reads which layers the image for Linux on x86-64 in FOLDER has: the first such image. FD is the
 * folder. The digests of blobs are not checked. */
int oci_read(int fd, const char *folder, struct oci *oci, struct error *err);

#endif
