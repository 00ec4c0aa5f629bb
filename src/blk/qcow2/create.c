/*
 * Making an empty image:
 *
 *      | header | refcount table | refcount blocks | L1 table |
 *
 * The header is written last, so that what a power cut leaves is an image or is none.
 */
#include "blk/qcow2/qcow2.h"

#include "blk/qcow2/file.h"
#include "blk/qcow2/format.h"
#include "blk/qcow2/refcount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct layout {
    unsigned version, cluster_bits, refcount_order;
    uint64_t cluster_size, block_entries;
    uint64_t l1_entries;
    uint64_t table_clusters, blocks, l1_clusters;
};

/* ---- Sizes ---- */

static bool is_power(unsigned n)
{
    return n && !(n & (n - 1));
}

/* Finds how many clusters the refcount structures take for USED other clusters. */
static bool lay_refcounts(struct layout *l, uint64_t used)
{
    uint64_t total;

    l->table_clusters = l->blocks = 1;
    for (;;) {
        uint64_t blocks, table;

        total = 1 + l->table_clusters + l->blocks + used;
        blocks = total / l->block_entries + 1;
        table = blocks * sizeof(uint64_t) / l->cluster_size + 1;
        if (table * l->cluster_size > QCOW2_REFTABLE_MAX)
            return false;
        if (blocks <= l->blocks && table <= l->table_clusters)
            return true;
        l->blocks = MAX(l->blocks, blocks);
        l->table_clusters = MAX(l->table_clusters, table);
    }
}

static int lay_out(const struct qcow2_create *what, struct layout *l, struct error *err)
{
    unsigned cluster_size = what->cluster_size ? what->cluster_size : 65536;
    unsigned bits = what->refcount_bits ? what->refcount_bits : 16;
    uint64_t covered;

    *l = (struct layout){.version = what->version ? what->version : 3};
    if (l->version != 2 && l->version != 3)
        return error_set(err, EINVAL, "qcow2 has versions 2 and 3, and no %u", l->version);
    if (!is_power(cluster_size) || cluster_size < 1u << QCOW2_CLUSTER_BITS_MIN ||
        cluster_size > 1u << QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, EINVAL, "clusters have 512 bytes to 2 MiB, a power of two");
    if (!is_power(bits) || bits > 64 || (l->version == 2 && bits != 16))
        return error_set(err, EINVAL,
                         "refcounts have 1 to 64 bits, a power of two; in version 2: 16");
    if (l->version == 2 && (what->lazy_refcounts || what->compression != QCOW2_ZLIB))
        return error_set(err, EINVAL, "lazy refcounts and zstd need version 3");
    l->cluster_size = cluster_size;
    l->cluster_bits = (unsigned)__builtin_ctz(cluster_size);
    l->refcount_order = (unsigned)__builtin_ctz(bits);
    l->block_entries = l->cluster_size * 8 / bits;
    covered = l->cluster_size * (l->cluster_size / sizeof(uint64_t));
    l->l1_entries = MAX(what->size / covered + !!(what->size % covered), 1);
    if (what->size % 512)
        return error_set(err, EINVAL, "a disk's size is a multiple of 512 bytes");
    if (l->l1_entries > QCOW2_L1_MAX / sizeof(uint64_t) || what->size > INT64_MAX)
        return error_set(err, EFBIG, "with clusters of %u bytes a disk cannot be so large",
                         cluster_size);
    l->l1_clusters = (l->l1_entries * sizeof(uint64_t) - 1) / l->cluster_size + 1;
    if (!lay_refcounts(l, l->l1_clusters))
        return error_set(err, EFBIG, "with clusters of %u bytes a disk cannot be so large",
                         cluster_size);
    return 0;
}

/* ---- The header ---- */

/* Adds an extension at *AT of the cluster HEAD. */
static bool add_extension(uint8_t *head, uint64_t size, uint64_t *at, uint32_t type,
                          const void *bytes, uint64_t length)
{
    struct qcow2_raw_extension e = {htobe32(type), htobe32((uint32_t)length)};

    if (*at + sizeof(e) + ALIGN_UP(length, 8) > size)
        return false;
    memcpy(head + *at, &e, sizeof(e));
    if (length)
        memcpy(head + *at + sizeof(e), bytes, length);
    *at += sizeof(e) + ALIGN_UP(length, 8);
    return true;
}

/* The names of the flags that other programs may find set in our images. */
static const struct qcow2_raw_feature features[] = {
    {0, 0, "dirty bit"},
    {0, 1, "corrupt bit"},
    {0, 3, "compression type"},
    {1, 0, "lazy refcounts"},
};

static bool add_names(uint8_t *head, const struct layout *l, const struct qcow2_create *what,
                      uint64_t at)
{
    struct qcow2_raw_header *h = (void *)head;
    size_t backing = what->backing ? strlen(what->backing) : 0;
    bool fits = true;

    if (backing && what->backing_format)
        fits = add_extension(head, l->cluster_size, &at, QCOW2_EXTENSION_BACKING_FORMAT,
                             what->backing_format, strlen(what->backing_format));
    /* Small clusters have no room for it, and it is only for messages. */
    if (l->version >= 3 && l->cluster_size >= 4096)
        fits = fits && add_extension(head, l->cluster_size, &at, QCOW2_EXTENSION_FEATURES, features,
                                     sizeof(features));
    fits = fits && add_extension(head, l->cluster_size, &at, QCOW2_EXTENSION_END, NULL, 0);
    if (!backing || !fits)
        return fits;
    h->backing_offset = htobe64(at);
    h->backing_size = htobe32((uint32_t)backing);
    if (backing > QCOW2_BACKING_MAX || at + backing > l->cluster_size)
        return false;
    memcpy(head + at, what->backing, backing);
    return true;
}

static bool build_header(uint8_t *head, const struct layout *l, const struct qcow2_create *what)
{
    struct qcow2_raw_header *h = (void *)head;

    h->magic = htobe32(QCOW2_MAGIC);
    h->version = htobe32(l->version);
    h->cluster_bits = htobe32(l->cluster_bits);
    h->size = htobe64(what->size);
    h->l1_entries = htobe32((uint32_t)l->l1_entries);
    h->l1_offset = htobe64((1 + l->table_clusters + l->blocks) << l->cluster_bits);
    h->reftable_offset = htobe64(1ULL << l->cluster_bits);
    h->reftable_clusters = htobe32((uint32_t)l->table_clusters);
    if (l->version == 2)
        return add_names(head, l, what, QCOW2_HEADER_V2);
    h->compatible = htobe64(what->lazy_refcounts ? QCOW2_COMPATIBLE_LAZY : 0);
    h->refcount_order = htobe32(l->refcount_order);
    h->header_size = htobe32(sizeof(*h));
    if (what->compression != QCOW2_ZLIB) {
        h->incompatible = htobe64(QCOW2_INCOMPATIBLE_COMPRESSION);
        h->compression = (uint8_t)what->compression;
    }
    return add_names(head, l, what, sizeof(*h));
}

/* ---- The file ---- */

/* Writes all but the header, one cluster at a time. */
static int write_tables(struct blk *file, const struct layout *l, uint8_t *cluster)
{
    uint64_t total = 1 + l->table_clusters + l->blocks + l->l1_clusters;
    uint64_t per_cluster = l->cluster_size / sizeof(uint64_t);
    int ret = 0;

    for (uint64_t i = 1; i < total && ret == 0; i++) {
        uint64_t block = i - 1 - l->table_clusters;

        memset(cluster, 0, l->cluster_size);
        if (i <= l->table_clusters) {
            for (uint64_t j = 0; j < per_cluster; j++)
                if ((i - 1) * per_cluster + j < l->blocks)
                    ((uint64_t *)cluster)[j] = htobe64(
                        (1 + l->table_clusters + (i - 1) * per_cluster + j) << l->cluster_bits);
        } else if (block < l->blocks) {
            for (uint64_t j = 0; j < l->block_entries; j++)
                qcow2_count_set(cluster, j, l->refcount_order,
                                block * l->block_entries + j < total);
        }
        ret = blk_write(file, i << l->cluster_bits, cluster, l->cluster_size);
    }
    return ret < 0 ? ret : blk_flush(file);
}

/* Empties the file, and makes it as long as the image needs. A device keeps its size. */
static int set_length(struct blk *file, const struct layout *l, uint8_t *cluster)
{
    uint64_t size = (1 + l->table_clusters + l->blocks + l->l1_clusters) << l->cluster_bits;
    int ret = blk_resize(file, 0, NULL);

    if (ret == 0)
        ret = blk_resize(file, size, NULL);
    else if (blk_info(file).size >= size)
        /* What was there is no image any more before its tables are overwritten. */
        ret = blk_write(file, 0, cluster, l->cluster_size);
    else
        ret = -ENOSPC;
    return ret;
}

int qcow2_create(struct blk *file, const struct qcow2_create *what, struct error *err)
{
    const char *name = what->name ? what->name : blk_info(file).file;
    struct layout l;
    uint8_t *head, *cluster;
    int ret = lay_out(what, &l, err);

    if (ret < 0)
        return ret;
    if (l.cluster_size < blk_info(file).block)
        return error_set(err, EINVAL, "%s: clusters are smaller than the blocks of the disk", name);
    head = qcow2_buffer(l.cluster_size);
    cluster = qcow2_buffer(l.cluster_size);
    ret = head && cluster ? 0 : -ENOMEM;
    if (ret == 0 && !build_header(head, &l, what)) {
        free(cluster);
        free(head);
        return error_set(err, ENAMETOOLONG, "%s: the backing file's name is too long", name);
    }
    if (ret == 0)
        ret = set_length(file, &l, cluster);
    if (ret == 0)
        ret = write_tables(file, &l, cluster);
    if (ret == 0)
        ret = blk_write(file, 0, head, l.cluster_size);
    if (ret == 0)
        ret = blk_flush(file);
    free(cluster);
    free(head);
    return ret < 0 ? error_set(err, -ret, "%s: cannot be written to: %s", name, strerror(-ret)) : 0;
}
