/*
 * The header of an image. Nothing of it is used before it was checked, and a message says which
 * part is wrong. Extensions that we do not know stay as they are.
 */
#include "blk/qcow2/header.h"

#include "blk/qcow2/file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qcow2_raw_header *qcow2_header(struct qcow2 *q)
{
    return (struct qcow2_raw_header *)q->head;
}

static bool aligned(const struct qcow2 *q, uint64_t offset)
{
    return !qcow2_in_cluster(q, offset);
}

/* ---- The extensions ---- */

/* The extension at OFFSET of the header's cluster, or NULL at the end of the area. */
static const struct qcow2_raw_extension *extension_at(const struct qcow2 *q, uint64_t offset,
                                                      uint64_t end)
{
    const struct qcow2_raw_extension *e = (const void *)(q->head + offset);

    if (offset + sizeof(*e) > end || be32toh(e->type) == QCOW2_EXTENSION_END ||
        be32toh(e->size) > end - offset - sizeof(*e))
        return NULL;
    return e;
}

const uint8_t *qcow2_header_extension(const struct qcow2 *q, uint32_t type, uint32_t *size)
{
    const struct qcow2_raw_header *h = (const void *)q->head;
    uint64_t offset = q->version == 2 ? QCOW2_HEADER_V2 : be32toh(h->header_size);
    uint64_t end = be64toh(h->backing_offset);
    const struct qcow2_raw_extension *e;

    if (!end || end > q->head_size)
        end = q->head_size;
    while ((e = extension_at(q, offset, end))) {
        *size = be32toh(e->size);
        if (be32toh(e->type) == type)
            return q->head + offset + sizeof(*e);
        offset += sizeof(*e) + ALIGN_UP(*size, 8);
    }
    return NULL;
}

/* The name that the image itself gives to the incompatible feature BIT, or NULL. */
static const char *feature_name(const struct qcow2 *q, unsigned bit, char name[64])
{
    uint32_t size = 0;
    const uint8_t *table = qcow2_header_extension(q, QCOW2_EXTENSION_FEATURES, &size);

    for (uint32_t at = 0; table && at + sizeof(struct qcow2_raw_feature) <= size;
         at += sizeof(struct qcow2_raw_feature)) {
        const struct qcow2_raw_feature *f = (const void *)(table + at);

        if (f->type == 0 && f->bit == bit && f->name[0]) {
            snprintf(name, 64, "%.46s", f->name);
            log_clean(name);
            return name;
        }
    }
    return NULL;
}

/* ---- What it says ---- */

static int check_basics(struct qcow2 *q, struct error *err)
{
    const struct qcow2_raw_header *h = qcow2_header(q);
    uint32_t bits = be32toh(h->cluster_bits);

    if (be32toh(h->magic) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "%s: %s", q->name,
                         blk_info(q->file).size
                             ? "not a qcow2 image; if it is a raw one, give its format as raw"
                             : "is empty (0 bytes), which no qcow2 image is");
    q->version = be32toh(h->version);
    if (q->version != 2 && q->version != 3)
        return error_set(err, EINVAL, "%s: version %u of qcow2, of which 2 and 3 are supported",
                         q->name, q->version);
    if (bits < QCOW2_CLUSTER_BITS_MIN || bits > QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, EINVAL, "%s: clusters of 2^%u bytes; they can have 512 to 2 MiB",
                         q->name, bits);
    q->cluster_bits = bits;
    q->cluster_size = 1u << bits;
    if (be32toh(h->crypt_method) != 0)
        return error_set(err, ENOTSUP, "%s: the image is encrypted, which is not supported",
                         q->name);
    if (q->version == 3 &&
        (be32toh(h->header_size) < QCOW2_HEADER_V3 || be32toh(h->header_size) % 8 ||
         be32toh(h->header_size) > q->cluster_size))
        return error_set(err, EINVAL, "%s: the header's size of %u bytes cannot be", q->name,
                         be32toh(h->header_size));
    return 0;
}

/* Reads the whole first cluster, which holds the extensions and the backing file's name. */
static int read_rest(struct qcow2 *q, struct error *err)
{
    uint64_t size = MAX(q->cluster_size, q->head_size);
    uint8_t *head = qcow2_buffer(size);
    int ret;

    if (!head)
        return error_set(err, ENOMEM, "%s: out of memory", q->name);
    free(q->head);
    q->head = head;
    q->head_size = size;
    ret = qcow2_file_read(q, 0, head, size);
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot read the header: %s", q->name, strerror(-ret));
    q->head_size = q->cluster_size;
    return 0;
}

static int check_incompatible(struct qcow2 *q, struct error *err)
{
    uint64_t known = QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT |
                     QCOW2_INCOMPATIBLE_COMPRESSION | QCOW2_INCOMPATIBLE_EXTENDED_L2;
    uint64_t unknown = q->incompatible & ~known;
    unsigned bit = (unsigned)__builtin_ctzll(unknown | 1ULL << 63);
    char buffer[64];
    const char *name;

    if (!unknown)
        return 0;
    if (unknown & QCOW2_INCOMPATIBLE_EXTERNAL)
        return error_set(err, ENOTSUP,
                         "%s: its data is in an external file, which is not supported", q->name);
    name = feature_name(q, bit, buffer);
    if (name)
        return error_set(err, ENOTSUP, "%s: uses the feature '%s', which is not supported", q->name,
                         name);
    return error_set(err, ENOTSUP, "%s: uses a feature (bit %u) that is not supported", q->name,
                     bit);
}

/* Version 3 has feature bits, a refcount order and a compression type; version 2 has fixed ones. */
static int check_features(struct qcow2 *q, struct error *err)
{
    const struct qcow2_raw_header *h = qcow2_header(q);

    q->refcount_order = 4;
    if (q->version == 3) {
        q->incompatible = be64toh(h->incompatible);
        q->autoclear = be64toh(h->autoclear);
        q->lazy = be64toh(h->compatible) & QCOW2_COMPATIBLE_LAZY;
        q->refcount_order = be32toh(h->refcount_order);
        if (be32toh(h->header_size) > QCOW2_HEADER_V3)
            q->compression = h->compression;
    }
    if (check_incompatible(q, err) < 0)
        return -ENOTSUP;
    q->extended = q->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2;
    if (q->extended && q->cluster_bits < 14)
        return error_set(err, EINVAL, "%s: extended L2 entries need clusters of 16 KiB or more",
                         q->name);
    if (q->refcount_order > 6)
        return error_set(err, EINVAL, "%s: refcounts of 2^%u bits cannot be", q->name,
                         q->refcount_order);
    if (!(q->incompatible & QCOW2_INCOMPATIBLE_COMPRESSION) != !q->compression ||
        q->compression > QCOW2_ZSTD)
        return error_set(err, ENOTSUP,
                         "%s: clusters are compressed in a way (%u) that is not known", q->name,
                         q->compression);
    q->l2_bits = q->cluster_bits - (q->extended ? 4 : 3);
    q->block_bits = q->cluster_bits + 3 - q->refcount_order;
    return 0;
}

/* Sizes and places of the tables, as far as the header alone can tell. */
static int check_tables(struct qcow2 *q, struct qcow2_places *places, struct error *err)
{
    const struct qcow2_raw_header *h = qcow2_header(q);

    q->disk_size = be64toh(h->size);
    q->snapshots = be32toh(h->snapshots);
    q->snapshots_offset = be64toh(h->snapshots_offset);
    places->l1_entries = be32toh(h->l1_entries);
    places->l1_offset = be64toh(h->l1_offset);
    places->reftable_clusters = be32toh(h->reftable_clusters);
    places->reftable_offset = be64toh(h->reftable_offset);
    if (q->disk_size % 512 || q->disk_size > INT64_MAX)
        return error_set(err, EINVAL, "%s: a disk of %llu bytes cannot be", q->name,
                         (unsigned long long)q->disk_size);
    if (places->l1_entries > QCOW2_L1_MAX / sizeof(uint64_t) || !aligned(q, places->l1_offset) ||
        (places->l1_entries && !places->l1_offset))
        return error_set(err, EINVAL, "%s: the L1 table's size or place cannot be", q->name);
    if (qcow2_l1_entries(q, q->disk_size) > places->l1_entries)
        return error_set(err, EINVAL, "%s: the L1 table is too small for the disk", q->name);
    if ((uint64_t)places->reftable_clusters << q->cluster_bits > QCOW2_REFTABLE_MAX ||
        !aligned(q, places->reftable_offset) || !places->reftable_offset ||
        !places->reftable_clusters)
        return error_set(err, EINVAL, "%s: the refcount table's size or place cannot be", q->name);
    if (q->snapshots > QCOW2_SNAPSHOTS_MAX || !aligned(q, q->snapshots_offset) ||
        (q->snapshots && !q->snapshots_offset))
        return error_set(err, EINVAL, "%s: the snapshot table's size or place cannot be", q->name);
    return 0;
}

static int read_backing(struct qcow2 *q, struct qcow2_info *info, struct error *err)
{
    const struct qcow2_raw_header *h = qcow2_header(q);
    uint64_t offset = be64toh(h->backing_offset);
    uint32_t size = be32toh(h->backing_size), format_size = 0;
    const uint8_t *format;

    if (!offset)
        return 0;
    if (size > QCOW2_BACKING_MAX || offset > q->cluster_size || size > q->cluster_size - offset)
        return error_set(err, EINVAL, "%s: the backing file's name is not in the header", q->name);
    q->has_backing = size > 0;
    qcow2_header_backing(q, info->backing);
    format = qcow2_header_extension(q, QCOW2_EXTENSION_BACKING_FORMAT, &format_size);
    if (format)
        snprintf(info->backing_format, sizeof(info->backing_format), "%.*s",
                 (int)MIN(format_size, 63), (const char *)format);
    return 0;
}

void qcow2_header_backing(const struct qcow2 *q, char name[QCOW2_BACKING_MAX + 1])
{
    const struct qcow2_raw_header *h = (const void *)q->head;
    uint32_t size = q->has_backing ? be32toh(h->backing_size) : 0;

    memcpy(name, q->head + be64toh(h->backing_offset), size);
    name[size] = 0;
}

int qcow2_header_read(struct qcow2 *q, struct qcow2_info *info, struct qcow2_places *places,
                      struct error *err)
{
    int ret;

    *info = (struct qcow2_info){0};
    q->head_size = MAX(sizeof(struct qcow2_raw_header), 4096);
    q->head = qcow2_buffer(q->head_size);
    if (!q->head)
        return error_set(err, ENOMEM, "%s: out of memory", q->name);
    ret = qcow2_file_read(q, 0, q->head, q->head_size);
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot read the header: %s", q->name, strerror(-ret));
    if ((ret = check_basics(q, err)) < 0 || (ret = read_rest(q, err)) < 0 ||
        (ret = check_features(q, err)) < 0 || (ret = check_tables(q, places, err)) < 0 ||
        (ret = read_backing(q, info, err)) < 0)
        return ret;
    info->size = q->disk_size;
    info->version = q->version;
    info->cluster_size = q->cluster_size;
    info->refcount_bits = 1u << q->refcount_order;
    info->snapshots = q->snapshots;
    info->compression = (enum qcow2_compression)q->compression;
    info->lazy_refcounts = q->lazy;
    info->extended_l2 = q->extended;
    info->dirty = q->incompatible & QCOW2_INCOMPATIBLE_DIRTY;
    info->corrupt = q->incompatible & QCOW2_INCOMPATIBLE_CORRUPT;
    return 0;
}

/* ---- Changes ---- */

int qcow2_header_write(struct qcow2 *q)
{
    int ret = qcow2_file_write(q, 0, q->head, blk_info(q->file).block);

    return ret < 0 ? ret : qcow2_file_flush(q);
}

int qcow2_header_mark(struct qcow2 *q, uint64_t set, uint64_t clear)
{
    uint64_t bits = (q->incompatible | set) & ~clear;
    int ret;

    if (q->version < 3 || bits == q->incompatible)
        return 0;
    qcow2_header(q)->incompatible = htobe64(bits);
    ret = qcow2_header_write(q);
    if (ret < 0)
        qcow2_header(q)->incompatible = htobe64(q->incompatible);
    else
        q->incompatible = bits;
    return ret;
}

int qcow2_corrupt(struct qcow2 *q, const char *format, ...)
{
    char text[256];
    va_list args;

    if (atomic_exchange(&q->told, true))
        return -EIO;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (q->blk.host)
        log_tell(q->blk.host->log, LOG_LEVEL_ERROR,
                 "%s: the image is corrupt: %s; doppel image check --repair may help", q->name,
                 text);
    if (q->writable) {
        qcow2_header_mark(q, QCOW2_INCOMPATIBLE_CORRUPT, 0);
        atomic_store(&q->failed, -EIO);
    }
    return -EIO;
}
