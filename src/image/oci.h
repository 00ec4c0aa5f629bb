/*
 * OCI image layouts (the Open Container Initiative's Image Format Specification 1.1): a folder with
 * index.json and blobs, which are named by their digests.
 *
 * A layout may come from anywhere. Its files are regular ones in the folder, reached by no link;
 * each blob has the size and the SHA-256 digest that the file says which leads to it.
 */
#ifndef DOPPEL_IMAGE_OCI_H
#define DOPPEL_IMAGE_OCI_H

#include "base/error.h"
#include "image/digest.h"

#include <stdbool.h>
#include <stdint.h>

#define OCI_LAYERS_MOST 128

/* What a descriptor says of a file in blobs/sha256. */
struct oci_blob {
    char digest[DIGEST_TEXT];
    uint64_t size;
};

struct oci {
    unsigned count;
    struct oci_blob layer[OCI_LAYERS_MOST]; /* the lowest first */
};

/* Reads which layers the image for Linux on x86-64 in FOLDER has: the first such image. FD is the
 * folder. */
int oci_read(int fd, const char *folder, struct oci *oci, struct error *err);

/* Opens BLOB of FOLDER, whose size and digest are right; returns the descriptor. TICK, which may be
 * NULL, is called often meanwhile: true ends the work with -EINTR. */
int oci_open(int fd, const char *folder, const struct oci_blob *blob, bool (*tick)(void *opaque),
             void *opaque, struct error *err);

#endif
