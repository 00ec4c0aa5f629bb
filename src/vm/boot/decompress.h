/*
 * Decompression of what kernels and their payloads are packed with.
 */
#ifndef DOPPEL_VM_BOOT_DECOMPRESS_H
#define DOPPEL_VM_BOOT_DECOMPRESS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum compression {
    COMPRESSION_NONE, /* or one that is not known */
    COMPRESSION_GZIP,
    COMPRESSION_BZIP2,
    COMPRESSION_LZMA,
    COMPRESSION_XZ,
    COMPRESSION_LZO,
    COMPRESSION_LZ4,
    COMPRESSION_ZSTD,
};

enum compression compression_identify(const uint8_t *data, size_t size);
const char *compression_name(enum compression compression);
/* Whether damage to the data itself is sure to be noticed. */
bool compression_has_checksum(enum compression compression);

/* Decompresses the one stream in DATA and verifies its checksums. The result is malloc'd and at
 * most LIMIT bytes. NULL with EBADMSG (corrupted or truncated), EFBIG (more than LIMIT) or ENOMEM;
 * the error's text names no file. */
uint8_t *decompress(enum compression compression, const uint8_t *data, size_t size, size_t limit,
                    size_t *out_size, struct error *err);

#endif
