/*
 * What a check knows: how many references it has met to each cluster of the file, where metadata
 * is, and what it has found.
 */
#ifndef DOPPEL_BLK_QCOW2_COUNTS_H
#define DOPPEL_BLK_QCOW2_COUNTS_H

#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/qcow2_private.h"

#define QCOW2_CHUNK_BITS 16

struct qcow2_counts {
    struct qcow2 *q;
    const struct qcow2_check *how;
    struct qcow2_checked *found;
    uint64_t clusters; /* of the file */
    uint32_t **chunk;  /* 64 Ki counts each; NULL: all are 0 */
    uint64_t chunks;
    struct qcow2_set alone;   /* clusters to which there may be one reference only */
    struct qcow2_set l2;      /* clusters that hold L2 tables */
    bool structure;           /* the refcount table or blocks are damaged: they must be made anew */
    bool rebuilt;             /* they were, and nothing uses the old ones any more */
    uint64_t refcount_errors; /* of the errors found: those that new refcounts correct */
    uint64_t hole, hole_end;  /* of the file: the last hole that was looked for */
};

int qcow2_counts_init(struct qcow2_counts *c, struct qcow2 *q, const struct qcow2_check *how,
                      struct qcow2_checked *found);
void qcow2_counts_free(struct qcow2_counts *c);

static inline uint32_t qcow2_counted(const struct qcow2_counts *c, uint64_t cluster)
{
    const uint32_t *chunk = cluster < c->clusters ? c->chunk[cluster >> QCOW2_CHUNK_BITS] : NULL;

    return chunk ? chunk[cluster & ((1u << QCOW2_CHUNK_BITS) - 1)] : 0;
}

/* Whether the table in the cluster at OFFSET is a hole of the file, so that all its entries are 0:
 * a sparse file may have room for far more tables than anybody can read. */
bool qcow2_is_hole(struct qcow2_counts *c, uint64_t offset);

/* Counts a reference to each of N clusters, which lie in the file. Returns 0 or -ENOMEM. */
int qcow2_count(struct qcow2_counts *c, uint64_t first, uint64_t n);
/* Counts metadata of SIZE bytes at OFFSET, to which this is the only reference. Tells of it and
 * returns 1 if that cannot be: it is to be left alone. */
int qcow2_count_alone(struct qcow2_counts *c, uint64_t offset, uint64_t size, const char *what);

/* Tells of an error. */
void qcow2_found(struct qcow2_counts *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Tells of anything. */
void qcow2_tell(struct qcow2_counts *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
