/*
 * Disk images in the format qcow2, versions 2 and 3, as QEMU's docs/interop/qcow2 describes it.
 *
 * An image stands on a file, which is a struct blk of its own (raw), and perhaps on a backing
 * image, from which it reads what it has not been given itself. Everything in the file is
 * untrusted: it was checked when it gets here, or the call fails with one line that says why.
 *
 * Several images may stand on one backing image only if that is read-only.
 *
 * Errors: negative errno, and ERR is filled. -EINVAL: the file is no qcow2 image or a damaged one,
 * or the caller asks for what there is not. -EIO: the host could not read or write, or the metadata
 * is corrupt. -ENOSPC: the host is full; nothing that was stored before is lost.
 */
#ifndef DOPPEL_BLK_QCOW2_QCOW2_H
#define DOPPEL_BLK_QCOW2_QCOW2_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct blk;

#define QCOW2_BACKING_MAX 1023 /* bytes of a backing file's name */

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

/* ---- What an image says of itself ---- */

struct qcow2_info {
    uint64_t size; /* of the disk, bytes */
    unsigned version, cluster_size, refcount_bits, snapshots;
    enum qcow2_compression compression;
    bool lazy_refcounts, extended_l2;
    bool dirty;   /* its refcounts may be stale: it is repaired when it is opened for writing */
    bool corrupt; /* it must be checked and repaired before it is opened for writing */
    char backing[QCOW2_BACKING_MAX + 1], backing_format[64]; /* "": none */
};

/* Reads the header of the image in FILE. Nothing but the header is looked at. */
int qcow2_inspect(struct blk *file, struct qcow2_info *info, struct error *err);

/* ---- Opening ---- */

struct qcow2_how {
    struct blk *backing; /* reads what the image does not have; or NULL. It becomes the image's */
    bool readonly;
    /* For tools that look at the image and not at the disk: no backing image is needed. What only
     * it has reads as -ENXIO. */
    bool offline;
    /* For qcow2_check: the image may be marked dirty or corrupt, and its tables may be damaged;
     * then all changes fail but those of a check. */
    bool damaged;
    /* The file is thrown away when it is closed: nothing needs to reach stable storage. */
    bool temporary;
    /* A write that has been done survives the end of this process, flushed or not. Writes that
     * allocate clusters then cost a flush of the file each. */
    bool settled;
    const char *name; /* what messages call it; NULL: the file's name */
    unsigned depth;   /* how many images stand on it, the text of whose options it stands in */
};

/* Opens the image in FILE, which becomes the image's, as the backing image does, if the call
 * succeeds: blk_close closes both. An image that is opened for writing and is marked dirty is
 * repaired. Reads are asynchronous where the map of clusters is in memory, and so are writes to
 * clusters that the image has; all else is done by threads of the image's own. */
struct blk *qcow2_open(struct blk *file, const struct qcow2_how *how, struct error *err);

/* ---- Creating ---- */

struct qcow2_create {
    uint64_t size;          /* of the disk; a multiple of 512 */
    unsigned version;       /* 2 or 3; 0: 3 */
    unsigned cluster_size;  /* a power of two from 512 to 2 MiB; 0: 64 KiB */
    unsigned refcount_bits; /* a power of two from 1 to 64; 0: 16 */
    bool lazy_refcounts;
    enum qcow2_compression compression;
    const char *backing, *backing_format; /* names that are written to the image; or NULL */
    const char *name;                     /* what messages call it; NULL: the file's name */
};

/* Makes an empty image in FILE, whose contents are lost. The backing file is not looked at. */
int qcow2_create(struct blk *file, const struct qcow2_create *what, struct error *err);

/* ---- What follows is for images that qcow2_open has opened; with other disks they give -EINVAL.
 * The calls wait for the host: not on a thread that completes requests. ---- */

/* What the image itself has for a range of the disk, whatever its backing image has there. */
enum qcow2_kind {
    QCOW2_UNALLOCATED, /* nothing: it reads the backing image, or zeroes if there is none */
    QCOW2_ZERO,        /* it reads as zeroes */
    QCOW2_DATA,        /* it is in the file */
    QCOW2_COMPRESSED,  /* it is in the file, compressed: all of one cluster */
};
struct qcow2_extent {
    enum qcow2_kind kind;
    uint64_t size; /* bytes from the offset asked for on, to where the kind changes or before */
    uint64_t host; /* where it begins in the file: DATA and COMPRESSED */
};
/* Says what is at OFFSET, which lies inside the disk. */
int qcow2_map(struct blk *image, uint64_t offset, struct qcow2_extent *extent, struct error *err);

/* Writes the cluster at OFFSET compressed, or as it is if that is not shorter. SIZE is the size of
 * a cluster, or what is left of the disk. Several threads may call at once for different
 * clusters; no other request may write to these meanwhile. */
int qcow2_write_compressed(struct blk *image, uint64_t offset, const void *data, uint64_t size,
                           struct error *err);

/* Counts how the clusters of the image are used, and repairs what is not consistent. */
struct qcow2_check {
    bool repair_leaks;  /* gives clusters free that nothing uses */
    bool repair_errors; /* corrects refcounts and flags, and the marks dirty and corrupt */
    void (*report)(void *opaque, const char *line); /* of each problem; or NULL */
    void (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};
struct qcow2_checked {
    uint64_t errors, errors_fixed; /* what endangers data */
    uint64_t leaks, leaks_fixed;   /* clusters of the file that are lost to the image */
    uint64_t clusters;             /* of the disk */
    uint64_t allocated, compressed,
        fragmented; /* of these: present; not where the one before ends */
    uint64_t end;   /* of what is used of the file, bytes */
    bool marked;    /* the image was marked corrupt when the check began */
    bool unmarked;  /* the repair has cleared this mark */
};
/* Returns 0 if the check could be made, whatever it found. Requests wait until it is done. */
int qcow2_check(struct blk *image, const struct qcow2_check *how, struct qcow2_checked *checked,
                struct error *err);

/* Internal snapshots. Requests wait while one is made, applied or deleted; each of these is whole
 * or has not happened after a power cut. */
struct qcow2_snapshot {
    char *id, *name;
    uint64_t seconds; /* since the epoch */
    uint32_t nanoseconds;
    uint64_t vm_clock, vm_state_size; /* nanoseconds, bytes: of a machine that QEMU saved with it */
    uint64_t disk_size;
};
/* Stores an array in *LIST, which qcow2_snapshots_free frees, and its length in *COUNT. */
int qcow2_snapshots(struct blk *image, struct qcow2_snapshot **list, unsigned *count,
                    struct error *err);
void qcow2_snapshots_free(struct qcow2_snapshot *list, unsigned count);
/* Makes a snapshot of the disk's contents. No other one may have that NAME. */
int qcow2_snapshot_create(struct blk *image, const char *name, struct error *err);
/* NAME is an id or a name; ids come first. To apply one gives the disk the contents and the size
 * that it had; what it has now is lost. */
int qcow2_snapshot_apply(struct blk *image, const char *name, struct error *err);
int qcow2_snapshot_delete(struct blk *image, const char *name, struct error *err);

#endif
