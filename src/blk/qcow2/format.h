/*
 * What a qcow2 file looks like (QEMU's docs/interop/qcow2). All numbers are big-endian.
 */
#ifndef DOPPEL_BLK_QCOW2_FORMAT_H
#define DOPPEL_BLK_QCOW2_FORMAT_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbu

struct qcow2_raw_header {
    uint32_t magic, version;
    uint64_t backing_offset;
    uint32_t backing_size;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshots;
    uint64_t snapshots_offset;
    /* Version 3: */
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t header_size;
    uint8_t compression;
    uint8_t padding[7];
};
static_assert(sizeof(struct qcow2_raw_header) == 112, "header without holes");
#define QCOW2_HEADER_V2 offsetof(struct qcow2_raw_header, incompatible)
#define QCOW2_HEADER_V3 offsetof(struct qcow2_raw_header, compression)

#define QCOW2_INCOMPATIBLE_DIRTY       (1ULL << 0)
#define QCOW2_INCOMPATIBLE_CORRUPT     (1ULL << 1)
#define QCOW2_INCOMPATIBLE_EXTERNAL    (1ULL << 2)
#define QCOW2_INCOMPATIBLE_COMPRESSION (1ULL << 3)
#define QCOW2_INCOMPATIBLE_EXTENDED_L2 (1ULL << 4)
#define QCOW2_COMPATIBLE_LAZY          (1ULL << 0)
#define QCOW2_AUTOCLEAR_BITMAPS        (1ULL << 0)

struct qcow2_raw_extension {
    uint32_t type, size; /* followed by SIZE bytes, padded to a multiple of 8 */
};
#define QCOW2_EXTENSION_END            0u
#define QCOW2_EXTENSION_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXTENSION_FEATURES       0x6803f857u
#define QCOW2_EXTENSION_BITMAPS        0x23852875u

/* An entry of the feature name table. */
struct qcow2_raw_feature {
    uint8_t type; /* 0: incompatible, 1: compatible, 2: autoclear */
    uint8_t bit;
    char name[46];
};

struct qcow2_raw_bitmaps {
    uint32_t count, reserved;
    uint64_t directory_size, directory_offset;
};
struct qcow2_raw_bitmap {
    uint64_t table_offset;
    uint32_t table_entries, flags;
    uint8_t type, granularity;
    uint16_t name_size;
    uint32_t extra_size;
};

/* An entry of the snapshot table; extra data, id and name follow, padded to a multiple of 8. */
struct qcow2_raw_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint16_t id_size, name_size;
    uint32_t seconds, nanoseconds;
    uint64_t vm_clock;
    uint32_t vm_state_size;
    uint32_t extra_size;
};
static_assert(sizeof(struct qcow2_raw_snapshot) == 40, "snapshot without holes");
struct qcow2_raw_snapshot_extra {
    uint64_t vm_state_size, disk_size;
};

/* Entries of L1 and L2 tables. */
#define QCOW2_COPIED        (1ULL << 63) /* the refcount of what it leads to is 1 */
#define QCOW2_IS_COMPRESSED (1ULL << 62) /* L2: a compressed cluster */
#define QCOW2_READS_ZERO    (1ULL << 0)  /* L2, version 3 without extended entries */
#define QCOW2_OFFSET        0x00fffffffffffe00ULL
#define QCOW2_RESERVED      0x3f000000000001feULL /* L2; bit 0 as well where it does not say "zero" */

/* Entries of the refcount table: all else is the place of a block. */
#define QCOW2_NO_PLACE 511ULL

/* Limits: those of QEMU, so that each opens what the other has made. */
#define QCOW2_CLUSTER_BITS_MIN  9
#define QCOW2_CLUSTER_BITS_MAX  21
#define QCOW2_L1_MAX            (32u << 20) /* bytes */
#define QCOW2_REFTABLE_MAX      (8u << 20)  /* bytes */
#define QCOW2_SNAPSHOTS_MAX     65536u
#define QCOW2_SNAPSHOT_SIZE_MAX (64u << 20) /* bytes of the snapshot table */
#define QCOW2_SNAPSHOT_EXTRA    1024u       /* bytes of one entry's extra data */
#define QCOW2_FILE_MAX          (1ULL << 56)
/* Ours, in bytes: of the L1 tables of all snapshots together, of the tables of all bitmaps, and of
 * the refcount blocks for what lies behind the end of the file. In a sparse file they cost no
 * space, and a check of it the time to read them. */
#define QCOW2_TABLES_MAX (1ULL << 30)

#endif
