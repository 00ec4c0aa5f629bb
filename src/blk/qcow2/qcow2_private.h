/*
 * The inside of a qcow2 image.
 *
 *      qcow2.c     opens and closes (load.c reads the tables); what blk.c calls
 *        |
 *      io          submits: straight to the file, or to a thread of the image's pool
 *        |
 *      write, discard, read, compress      on those threads; claim
 *        |
 *      commit      writes metadata in an order that survives power cuts
 *        |
 *      table       L1, and the L2 tables that are in memory: the map of clusters
 *        |
 *      alloc       finds free clusters
 *        |
 *      refcount, header, cache, set, file
 *
 * Tools, on the same lower files:
 *
 *      create      makes an empty image
 *      tools       what tools ask of an open image, with its requests stopped; by means of
 *        |
 *        |-- check, repair, rebuild     with references that counts.c counts
 *        '-- snapshot                   with the snapshot table (records) and all that an L1 leads
 *                                       to (tree)
 *      resize      makes the disk larger or smaller; called by qcow2.c
 *
 * Locks. `lock` is the image's: it orders all changes of metadata, and is held across reads and
 * writes of metadata, but not of data. `map_lock` is a leaf, held for moments: L1 and L2 entries
 * and the tables' places in memory change with both locks held, so that either is enough to read
 * them.
 *
 * A write to a cluster that the image does not have, or shares with a snapshot:
 *
 *      claim       with `lock`: clusters of the file are allocated; the clusters of the disk are
 *                  claimed, so that no other request changes their entries
 *      data        without a lock: the data is written, with what the rest of the cluster holds
 *      publish     with `lock`: the L2 entries lead to the data, in memory; the claim ends
 *      commit      at a flush (commit.c): refcounts are written; the file is flushed; L1 and L2
 *                  are written; the file is flushed
 *
 * Clusters that entries no longer lead to stay allocated until that is on stable storage and all
 * requests are done that may have seen the old entries (commit.c). Until a commit begins they
 * are **pending**: no entry in memory leads there. The commit moves them to **limbo**: it brings
 * the entries into the file, and waits for the old requests. These it knows by their **epoch**, 0
 * or 1, which a request enters when it looks entries up: each commit that fills limbo changes the
 * epoch that new requests enter, and limbo is given free when the old epoch has no requests left.
 */
#ifndef DOPPEL_BLK_QCOW2_QCOW2_PRIVATE_H
#define DOPPEL_BLK_QCOW2_QCOW2_PRIVATE_H

#include "base/util.h"
#include "blk/driver.h"
#include "blk/list.h"
#include "blk/qcow2/format.h"

#include <pthread.h>
#include <stdatomic.h>

/* One cluster of metadata in memory: an L2 table or a refcount block, as it is in the file. Or the
 * L1 or the refcount table, which are several clusters. */
struct qcow2_table {
    uint64_t index;    /* in the table that leads to it */
    uint64_t offset;   /* in the file */
    uint64_t size;     /* bytes; a multiple of a cluster */
    uint64_t dirty;    /* a bit for each of 64 pieces that differs from the file */
    _Atomic bool used; /* since the cache's hand passed */
    union {
        uint64_t *entries;
        uint8_t *bytes;
    };
};

/* Tables by index, as many as a limit allows. */
struct qcow2_cache {
    struct qcow2_table **slot; /* NULL: not in memory */
    uint64_t slots;
    struct qcow2_table **loaded;
    unsigned count, room, hand, limit;
    unsigned dirty; /* L2: tables that differ from the file */
};

/* A set of clusters of the file: those that hold metadata. */
struct qcow2_set {
    uint64_t *key; /* cluster + 1; 0: empty */
    uint64_t count, size;
};

/* Clusters of the file of each of which one reference is to be dropped. */
struct qcow2_drops {
    uint64_t *cluster;
    uint64_t count, room;
};

/* Clusters of the disk whose entries one request is about to change. */
struct qcow2_claim {
    uint64_t first, end; /* numbers of clusters */
    struct qcow2_claim *next;
};

struct pool;
struct qcow2_unpacked;

struct qcow2 {
    struct blk blk; /* the disk */
    struct blk *file, *backing;
    bool writable;
    bool offline, damaged, temporary, settled; /* these and DEPTH: see struct qcow2_how */
    unsigned depth;
    char name[256]; /* of the file, for messages */

    /* The header; constant but for what the tools change with requests stopped. */
    unsigned version;
    unsigned cluster_bits, refcount_order;
    uint32_t cluster_size;
    unsigned l2_bits;    /* entries of an L2 table, log2 */
    unsigned block_bits; /* entries of a refcount block, log2 */
    uint64_t disk_size;
    bool lazy, extended, has_backing;
    uint8_t compression;
    uint64_t incompatible, autoclear;
    uint32_t snapshots;
    uint64_t snapshots_offset;
    uint8_t *head; /* the first bytes of the file, HEAD_SIZE of them */
    uint64_t head_size;

    pthread_mutex_t lock;
    pthread_cond_t claim_ended; /* with LOCK */

    /* With LOCK. */
    struct qcow2_table l1, reftable;
    struct qcow2_cache l2, blocks;
    struct qcow2_claim *claims;
    uint64_t first_free;       /* no cluster of the file before it is free */
    _Atomic uint64_t file_end; /* of the file, bytes; changes with LOCK */
    uint64_t fresh;  /* from here on nothing was ever written to the file: it reads as 0 */
    bool no_punch;   /* the host cannot give back parts of the file */
    bool depends;    /* L1 or L2 tables lead to what may not be on stable storage yet */
    uint64_t packed; /* where the next compressed data may go; 0: at a new cluster */
    struct qcow2_drops pending; /* see above: "Clusters that entries no longer lead to" */
    struct qcow2_drops limbo;
    bool limbo_stable;    /* no entry in the file leads to LIMBO */
    unsigned limbo_epoch; /* that of the requests that may have seen entries which lead there */
    uint64_t flushed;     /* of FLUSHES, those that a flush of the file has covered */

    pthread_mutex_t map_lock;
    /* Changed with both locks. */
    struct qcow2_set metadata;
    /* With MAP_LOCK. */
    unsigned epoch; /* that requests enter */
    bool stopped;   /* requests wait */
    struct blk_list waiting;
    uint64_t in_flight;  /* requests that were given to us and do not wait */
    pthread_cond_t idle; /* nothing is in flight, or requests wait no longer */

    _Atomic uint64_t in_epoch[2]; /* requests that may use clusters that they have looked up */
    _Atomic uint64_t freed;       /* clusters of the file that have become free, so far */
    _Atomic uint64_t flushes;     /* that were asked for */
    _Atomic int failed;           /* 0, or what all changes of the image fail with */
    _Atomic bool told;            /* the log says that the image is corrupt */
    _Atomic bool unclean;         /* a flush needs a commit */

    struct pool *pool;
    struct qcow2_unpacked *unpacked;
};

/* qcow2.c */
extern const struct blk_driver qcow2_driver;

/* Guest or host bytes to clusters. */
static inline uint64_t qcow2_cluster(const struct qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits;
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t size)
{
    return (size >> q->cluster_bits) + ((size & (q->cluster_size - 1)) != 0);
}

/* How many entries of L1 a disk of SIZE bytes needs. */
static inline uint64_t qcow2_l1_entries(const struct qcow2 *q, uint64_t size)
{
    unsigned covered = q->l2_bits + q->cluster_bits; /* by an entry, log2 */

    return (size >> covered) + ((size & ((1ULL << covered) - 1)) != 0);
}

static inline uint64_t qcow2_in_cluster(const struct qcow2 *q, uint64_t offset)
{
    return offset & (q->cluster_size - 1);
}

#endif
