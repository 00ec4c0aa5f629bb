/*
 * The header of an image: what it says, checked; and changes of it, which are one write of one
 * sector each, so that a power cut leaves the old one or the new one.
 */
#ifndef DOPPEL_BLK_QCOW2_HEADER_H
#define DOPPEL_BLK_QCOW2_HEADER_H

#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/qcow2_private.h"

/* What the header says that only opening an image needs. */
struct qcow2_places {
    uint64_t l1_offset, reftable_offset;
    uint32_t l1_entries, reftable_clusters;
};

/* Copies the backing file's name as the header has it; "" if there is none. */
void qcow2_header_backing(const struct qcow2 *q, char name[QCOW2_BACKING_MAX + 1]);
/* Reads the header from the file and sets the constants of Q. Fills in INFO and PLACES. */
int qcow2_header_read(struct qcow2 *q, struct qcow2_info *info, struct qcow2_places *places,
                      struct error *err);
/* The data of the header extension of TYPE, or NULL; stores its size. */
const uint8_t *qcow2_header_extension(const struct qcow2 *q, uint32_t type, uint32_t *size);

/* For changes: the header as it is in memory. */
struct qcow2_raw_header *qcow2_header(struct qcow2 *q);
/* Writes the header's sector and flushes. With the image's lock. */
int qcow2_header_write(struct qcow2 *q);
/* Sets and clears bits of the incompatible features, writes and flushes. Nothing happens in version
 * 2, which has none, nor if they are so already. With the image's lock. */
int qcow2_header_mark(struct qcow2 *q, uint64_t set, uint64_t clear);

/* Something in the image cannot be: logs a line, marks the image as corrupt if it is writable, and
 * has all further changes fail. Returns -EIO. With the image's lock. */
int qcow2_corrupt(struct qcow2 *q, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
