/*
 * The map of the disk's clusters: the L1 table, and L2 tables.
 */
#ifndef DOPPEL_BLK_QCOW2_TABLE_H
#define DOPPEL_BLK_QCOW2_TABLE_H

#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/qcow2_private.h"

/* What an entry of the map says of a part of the disk. */
struct qcow2_part {
    enum qcow2_kind kind;
    bool owned;           /* no other entry refers to HOST: it may be written to */
    uint64_t size;        /* bytes */
    uint64_t host;        /* in the file. ZERO: 0 or clusters that are set aside */
    uint64_t packed_size; /* COMPRESSED: bytes in the file, at most */
};

static inline uint64_t qcow2_l1_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits >> q->l2_bits;
}

/* Where in an L2 table the entry is for OFFSET of the disk, in words of 8 bytes. */
static inline uint64_t qcow2_l2_word(const struct qcow2 *q, uint64_t offset)
{
    return (qcow2_cluster(q, offset) & ((1ULL << q->l2_bits) - 1)) << q->extended;
}

/* Where the part of the disk ends that the L2 table of OFFSET maps. */
static inline uint64_t qcow2_l2_end(const struct qcow2 *q, uint64_t offset)
{
    return (qcow2_l1_index(q, offset) + 1) << q->l2_bits << q->cluster_bits;
}

/* Says what ENTRY means; BITMAP is what follows it if L2 entries are extended, and OFFSET where in
 * the cluster the part begins that is asked for. Returns 0, or -EIO if the entry cannot be. */
int qcow2_decode(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, uint64_t offset,
                 struct qcow2_part *part);

/* Says what is at OFFSET of the disk: at most SIZE bytes, as far as it is of one kind and lies in
 * one piece in the file. Returns 0; -EAGAIN if the L2 table is not in memory; -EIO if the entry
 * cannot be. With one of the locks. */
int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t size, struct qcow2_part *part);
/* The same; reads the L2 table if need be, and marks the image if the entry cannot be. With the
 * image's lock. */
int qcow2_find(struct qcow2 *q, uint64_t offset, uint64_t size, struct qcow2_part *part);

/* ---- With the image's lock ---- */

/* Stores the L2 table at INDEX of L1, or NULL: there is none. Good until the next call for another.
 */
int qcow2_l2_read(struct qcow2 *q, uint64_t index, struct qcow2_table **table);
/* Stores one that may be changed: a new one if there is none, a copy if it is shared. */
int qcow2_l2_for_writing(struct qcow2 *q, uint64_t index, struct qcow2_table **table);

/* Sets entry WORD of TABLE, which is for writing. */
void qcow2_l2_set(struct qcow2 *q, struct qcow2_table *table, uint64_t word, uint64_t entry);

/* Makes it certain that there is memory for N clusters in q->pending. */
int qcow2_drop_room(struct qcow2 *q, uint64_t n);
/* The refcounts of the clusters that ENTRY of an L2 table leads to, which are QCOW2_ENTRY_CLUSTERS
 * at most, are to fall by one each when nothing in the file leads there any more. There is room for
 * them. */
void qcow2_drop_entry(struct qcow2 *q, uint64_t entry);
#define QCOW2_ENTRY_CLUSTERS 3

/* The clusters of the file that ENTRY of an L2 table leads to: stores the first, returns how many.
 */
uint64_t qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first);

#endif
