/*
 * Internal snapshots. A snapshot is an L1 table of its own, and one reference more to all that it
 * leads to; a write to the disk then copies.
 *
 * Each of these ends with one write of the header, before which nothing that exists has been lost,
 * and after which nothing is missing. Around it the image is marked dirty: after a power cut in
 * between, references are counted again. Where there is no such mark (version 2), clusters may stay
 * behind that nothing uses.
 *
 *      make     new L1 table, new snapshot table | refcounts rise | flags fall | HEADER
 *      drop     new snapshot table | HEADER | refcounts fall | flags rise
 *      go back  new L1 table | refcounts rise | flags fall | HEADER | refcounts of the old fall
 */
#include "blk/qcow2/snapshot.h"

#include "blk/qcow2/alloc.h"
#include "blk/qcow2/cache.h"
#include "blk/qcow2/commit.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/load.h"
#include "blk/qcow2/records.h"
#include "blk/qcow2/refcount.h"
#include "blk/qcow2/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_MAX_BYTES 255

/* What one of the three works with. */
struct change {
    struct qcow2 *q;
    struct qcow2_records records; /* as they are, and then as they shall be */
    uint64_t old_table, old_bytes;
    uint64_t *l1; /* of the new snapshot, of the dropped one, or of the disk */
    uint64_t entries;
};

/* ---- Before and after ---- */

static int begin(struct change *c, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret;

    if (!q->writable || q->extended)
        return error_set(err, EPERM, "%s: is read-only; its snapshots cannot be changed", q->name);
    if (atomic_load(&q->failed))
        return error_set(err, EIO, "%s: the image is damaged; see doppel image check", q->name);
    ret = qcow2_commit_all(q);
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot write: %s", q->name, strerror(-ret));
    ret = qcow2_records_read(q, &c->records, err);
    c->old_table = q->snapshots_offset;
    c->old_bytes = c->records.bytes;
    return ret;
}

/* Ends with memory as the file is. RESULT is that of the change. */
static int end(struct change *c, int result, struct error *err)
{
    struct qcow2 *q = c->q;
    int ret = result;

    if (ret == 0)
        ret = qcow2_commit_refcounts(q);
    if (ret == 0)
        ret = qcow2_header_mark(q, 0, QCOW2_INCOMPATIBLE_DIRTY);
    if (ret < 0)
        error_set(err, -ret, "%s: its snapshots cannot be changed: %s", q->name,
                  ret == -ERANGE ? "its refcounts are too small for one more" : strerror(-ret));
    free(c->l1);
    qcow2_records_free(&c->records);
    result = qcow2_load_again(q, ret < 0 ? NULL : err);
    return ret < 0 ? ret : result;
}

/* Gives SIZE bytes of metadata back to which nothing in the file leads any more. */
static int release(struct qcow2 *q, uint64_t offset, uint64_t size)
{
    uint64_t first = qcow2_cluster(q, offset), n = qcow2_clusters(q, size);

    if (!size)
        return 0;
    qcow2_metadata_remove(q, first, n);
    return qcow2_free(q, first, n);
}

/* Has the header lead to the snapshot table TABLE. */
static int switch_table(struct change *c, uint64_t table)
{
    struct qcow2 *q = c->q;
    int ret = qcow2_commit_refcounts(q);

    if (ret < 0)
        return ret;
    qcow2_header(q)->snapshots = htobe32(c->records.count);
    qcow2_header(q)->snapshots_offset = htobe64(table);
    ret = qcow2_header_write(q);
    return ret < 0 ? ret : release(q, c->old_table, c->old_bytes);
}

/* Writes ENTRIES of an L1 table, none of which is the only reference, to new clusters. */
static int write_l1(struct qcow2 *q, const uint64_t *entries, uint64_t count, uint64_t *offset)
{
    uint64_t size = ALIGN_UP(MAX(count, 1) * sizeof(uint64_t), q->cluster_size), cluster;
    uint64_t *copy = qcow2_buffer(size);
    int ret = copy ? qcow2_alloc_exactly(q, size >> q->cluster_bits, &cluster) : -ENOMEM;

    if (ret == 0) {
        for (uint64_t i = 0; i < count; i++)
            copy[i] = entries[i] & ~htobe64(QCOW2_COPIED);
        *offset = cluster << q->cluster_bits;
        ret = qcow2_file_write(q, *offset, copy, size);
        if (ret < 0)
            release(q, *offset, size);
    }
    free(copy);
    return ret;
}

/* Sets the flags of the disk's own entries anew, and writes them. */
static int flag_disk(struct qcow2 *q)
{
    int ret = qcow2_tree(q, q->l1.entries, q->l2.slots, QCOW2_TREE_FLAGS);

    qcow2_table_touch_all(&q->l1);
    if (ret == 0 && q->l2.slots)
        ret = qcow2_table_write(q, &q->l1);
    return ret < 0 ? ret : qcow2_file_flush(q);
}

/* ---- Finding ---- */

static int find(const struct change *c, const char *name, struct error *err)
{
    for (unsigned i = 0; i < c->records.count; i++)
        if (!strcmp(c->records.record[i].shown.id, name))
            return (int)i;
    for (unsigned i = 0; i < c->records.count; i++)
        if (!strcmp(c->records.record[i].shown.name, name))
            return (int)i;
    return error_set(err, ENOENT, "%s: there is no snapshot '%s'", c->q->name, name);
}

/* Makes a change with the snapshot called NAME, whose record is number I. */
static int with_found(struct qcow2 *q, const char *name, int (*run)(struct change *c, unsigned i),
                      struct error *err)
{
    struct change c = {.q = q};
    int ret, i = 0;

    pthread_mutex_lock(&q->lock);
    ret = begin(&c, err);
    if (ret == 0)
        ret = i = find(&c, name, err);
    if (ret >= 0)
        ret = end(&c, run(&c, (unsigned)i), err);
    else
        qcow2_records_free(&c.records);
    pthread_mutex_unlock(&q->lock);
    return ret;
}

/* Reads COUNT entries of the L1 table of R. */
static int read_l1(struct change *c, const struct qcow2_record *r, uint64_t count)
{
    c->entries = count;
    c->l1 = qcow2_buffer(MAX(count, 1) * sizeof(uint64_t));
    if (!c->l1)
        return -ENOMEM;
    return qcow2_file_read(c->q, r->l1_offset, c->l1, count * sizeof(uint64_t));
}

/* ---- Making ---- */

static int check_name(const struct change *c, const char *name, struct error *err)
{
    if (!*name || strlen(name) > NAME_MAX_BYTES)
        return error_set(err, EINVAL, "%s: a snapshot's name has 1 to %d bytes", c->q->name,
                         NAME_MAX_BYTES);
    for (unsigned i = 0; i < c->records.count; i++)
        if (!strcmp(c->records.record[i].shown.name, name))
            return error_set(err, EEXIST, "%s: there is a snapshot '%s' already", c->q->name, name);
    if (c->records.count == QCOW2_SNAPSHOTS_MAX ||
        c->records.l1_bytes + c->q->l2.slots * sizeof(uint64_t) > QCOW2_TABLES_MAX)
        return error_set(err, EMFILE, "%s: it has as many snapshots as there can be", c->q->name);
    return 0;
}

/* Adds a record for a snapshot of now, with an id larger than all. */
static int add_record(struct change *c, const char *name)
{
    unsigned n = c->records.count;
    struct qcow2_record *larger = realloc(c->records.record, (n + 1) * sizeof(*larger));
    unsigned long id = 0;
    struct timespec now;
    char text[24];

    if (!larger)
        return -ENOMEM;
    c->records.record = larger;
    for (unsigned i = 0; i < n; i++)
        id = MAX(id, strtoul(larger[i].shown.id, NULL, 10));
    snprintf(text, sizeof(text), "%lu", id + 1);
    clock_gettime(CLOCK_REALTIME, &now);
    larger[n] = (struct qcow2_record){
        .shown.id = strdup(text),
        .shown.name = strdup(name),
        .shown.seconds = (uint64_t)now.tv_sec,
        .shown.nanoseconds = (uint32_t)now.tv_nsec,
        .shown.disk_size = c->q->disk_size,
        .l1_entries = (uint32_t)c->q->l2.slots,
    };
    c->records.count++;
    return larger[n].shown.id && larger[n].shown.name ? 0 : -ENOMEM;
}

static int make(struct change *c, const char *name)
{
    struct qcow2 *q = c->q;
    uint64_t l1_size = q->l2.slots * sizeof(uint64_t), table = 0, bytes = 0, l1 = 0;
    int ret = qcow2_tree(q, q->l1.entries, q->l2.slots, QCOW2_TREE_TRY);

    if (ret == 0)
        ret = add_record(c, name);
    if (ret == 0)
        ret = write_l1(q, q->l1.entries, q->l2.slots, &l1);
    if (ret < 0)
        return ret;
    c->records.record[c->records.count - 1].l1_offset = l1;
    ret = qcow2_records_write(q, &c->records, &table, &bytes);
    if (ret < 0) {
        release(q, l1, MAX(l1_size, 1));
        return ret;
    }
    ret = qcow2_header_mark(q, QCOW2_INCOMPATIBLE_DIRTY, 0);
    if (ret == 0)
        ret = qcow2_tree(q, q->l1.entries, q->l2.slots, QCOW2_TREE_ADD);
    if (ret == 0)
        ret = qcow2_commit_refcounts(q);
    if (ret == 0)
        ret = flag_disk(q);
    return ret < 0 ? ret : switch_table(c, table);
}

int qcow2_make_snapshot(struct qcow2 *q, const char *name, struct error *err)
{
    struct change c = {.q = q};
    int ret;

    pthread_mutex_lock(&q->lock);
    ret = begin(&c, err);
    if (ret == 0)
        ret = check_name(&c, name, err);
    if (ret == 0)
        ret = end(&c, make(&c, name), err);
    else
        qcow2_records_free(&c.records);
    pthread_mutex_unlock(&q->lock);
    return ret;
}

/* ---- Dropping ---- */

static int drop(struct change *c, unsigned i)
{
    struct qcow2 *q = c->q;
    uint64_t l1 = c->records.record[i].l1_offset, table, bytes;
    int ret = read_l1(c, &c->records.record[i], c->records.record[i].l1_entries);

    if (ret < 0)
        return ret;
    qcow2_record_free(&c->records.record[i]);
    c->records.count--;
    memmove(&c->records.record[i], &c->records.record[i + 1],
            (c->records.count - i) * sizeof(c->records.record[0]));
    ret = qcow2_records_write(q, &c->records, &table, &bytes);
    if (ret == 0)
        ret = qcow2_header_mark(q, QCOW2_INCOMPATIBLE_DIRTY, 0);
    if (ret == 0)
        ret = switch_table(c, table);
    if (ret == 0)
        ret = qcow2_tree(q, c->l1, c->entries, QCOW2_TREE_DROP);
    if (ret == 0 && l1)
        ret = release(q, l1, MAX(c->entries * sizeof(uint64_t), 1));
    if (ret == 0)
        ret = qcow2_commit_refcounts(q);
    return ret < 0 ? ret : flag_disk(q);
}

int qcow2_drop_snapshot(struct qcow2 *q, const char *name, struct error *err)
{
    return with_found(q, name, drop, err);
}

/* ---- Going back ---- */

/* Has the header lead to the L1 table at OFFSET for a disk of SIZE bytes. */
static int switch_l1(struct change *c, uint64_t offset, uint64_t size)
{
    struct qcow2_raw_header *h = qcow2_header(c->q);
    int ret = qcow2_commit_refcounts(c->q);

    if (ret < 0)
        return ret;
    h->l1_offset = htobe64(offset);
    h->l1_entries = htobe32((uint32_t)c->entries);
    h->size = htobe64(size);
    return qcow2_header_write(c->q);
}

static int go_back(struct change *c, unsigned i)
{
    struct qcow2 *q = c->q;
    const struct qcow2_record *r = &c->records.record[i];
    uint64_t size = r->shown.disk_size, l1 = 0;
    uint64_t old = q->l1.offset, old_size = q->l2.slots * sizeof(uint64_t);
    /* What lies behind the disk is the state of a machine, which stays the snapshot's. */
    uint64_t entries = MIN(MAX(qcow2_l1_entries(q, size), 1), r->l1_entries);
    int ret = entries ? read_l1(c, r, entries) : -EINVAL;

    if (ret == 0)
        ret = qcow2_tree(q, c->l1, c->entries, QCOW2_TREE_TRY);
    if (ret == 0)
        ret = write_l1(q, c->l1, c->entries, &l1);
    if (ret == 0)
        ret = qcow2_header_mark(q, QCOW2_INCOMPATIBLE_DIRTY, 0);
    if (ret == 0)
        ret = qcow2_tree(q, c->l1, c->entries, QCOW2_TREE_ADD);
    if (ret == 0)
        ret = qcow2_commit_refcounts(q);
    if (ret == 0)
        ret = qcow2_tree(q, c->l1, c->entries, QCOW2_TREE_FLAGS);
    if (ret == 0)
        ret = switch_l1(c, l1, size);
    if (ret == 0)
        ret = qcow2_tree(q, q->l1.entries, q->l2.slots, QCOW2_TREE_DROP);
    return ret < 0 ? ret : release(q, old, old_size);
}

int qcow2_go_back(struct qcow2 *q, const char *name, struct error *err)
{
    return with_found(q, name, go_back, err);
}
