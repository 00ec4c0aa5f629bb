/*
 * The snapshot table.
 */
#ifndef DOPPEL_BLK_QCOW2_RECORDS_H
#define DOPPEL_BLK_QCOW2_RECORDS_H

#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/qcow2_private.h"

/* A snapshot with what only the image needs to know. */
struct qcow2_record {
    struct qcow2_snapshot shown;
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint32_t extra_size; /* of what the table has behind the fields that we know */
    uint8_t *extra;
};
struct qcow2_records {
    struct qcow2_record *record;
    unsigned count;
    uint64_t bytes;    /* of the table in the file */
    uint64_t l1_bytes; /* of all L1 tables; QCOW2_TABLES_MAX at most */
};

/* Reads the table from the file, and checks that each L1 table is where one can be. What RECORDS
 * then holds is freed by qcow2_records_free, also after a failure. */
int qcow2_records_read(struct qcow2 *q, struct qcow2_records *records, struct error *err);
void qcow2_records_free(struct qcow2_records *records);
void qcow2_record_free(struct qcow2_record *record);

/* Writes the table to new clusters, and stores where. *TABLE is 0 if there are no records. The
 * header does not lead there yet. With the image's lock. */
int qcow2_records_write(struct qcow2 *q, const struct qcow2_records *records, uint64_t *table,
                        uint64_t *bytes);

#endif
