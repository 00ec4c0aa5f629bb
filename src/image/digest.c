/*
 * SHA-256, by libnettle.
 */
#include "image/digest.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1 << 20) /* bytes that are read at once */

static void finish(struct sha256_ctx *hash, char text[DIGEST_TEXT])
{
    uint8_t digest[SHA256_DIGEST_SIZE];

    sha256_digest(hash, sizeof(digest), digest);
    for (unsigned i = 0; i < sizeof(digest); i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

void digest_of(const void *data, size_t size, char text[DIGEST_TEXT])
{
    struct sha256_ctx hash;

    sha256_init(&hash);
    sha256_update(&hash, size, data);
    finish(&hash, text);
}

int digest_of_file(int fd, const char *name, bool (*tick)(void *opaque), void *opaque,
                   char text[DIGEST_TEXT], uint64_t *size, struct error *err)
{
    struct sha256_ctx hash;
    uint8_t *piece = malloc(PIECE);
    ssize_t n = 0;
    int result = piece ? 0 : error_set(err, ENOMEM, "out of memory");

    *size = 0;
    sha256_init(&hash);
    while (!result && (n = pread(fd, piece, PIECE, (off_t)*size)) > 0) {
        sha256_update(&hash, (size_t)n, piece);
        *size += (size_t)n;
        if (tick && tick(opaque))
            result = error_set(err, EINTR, "%s: interrupted", name);
    }
    if (!result && (n < 0 || lseek(fd, 0, SEEK_SET) < 0))
        result = error_set(err, errno, "cannot read %s: %s", name, strerror(errno));
    free(piece);
    if (!result)
        finish(&hash, text);
    return result;
}
