/*
 * SHA-256 (FIPS 180-4), by libnettle: which contents a file has, whoever made it.
 */
#ifndef DOPPEL_IMAGE_DIGEST_H
#define DOPPEL_IMAGE_DIGEST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_TEXT 65 /* 64 hexadecimal digits, in lower case, and a 0 */

void digest_of(const void *data, size_t size, char text[DIGEST_TEXT]);

/* Sets TEXT to the digest of all that the file FD holds, *SIZE bytes, and goes back to its
 * beginning. TICK, which may be NULL, is called for each piece: true ends the work with -EINTR.
 * NAME is for messages. */
int digest_of_file(int fd, const char *name, bool (*tick)(void *opaque), void *opaque,
                   char text[DIGEST_TEXT], uint64_t *size, struct error *err);

#endif
