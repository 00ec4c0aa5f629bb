/*
 * Checking an image: counts references in two passes. The first counts those to metadata, the
 * second those to data, which so can tell data that lies where metadata is. Then the counts are
 * compared with the refcounts (repair.c).
 *
 * L2 tables are read from the file; what is in memory has been committed before.
 */
#include "blk/qcow2/check.h"

#include "blk/qcow2/commit.h"
#include "blk/qcow2/counts.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/load.h"
#include "blk/qcow2/records.h"
#include "blk/qcow2/repair.h"
#include "blk/qcow2/set.h"
#include "blk/qcow2/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

/* An L1 table: the active one, or a snapshot's. There may be many, and large ones: each is read
 * when it is looked at. */
struct l1 {
    uint64_t offset, count; /* COUNT is 0 if it is not to be looked at */
    bool active;
    const char *name; /* of the snapshot */
};

struct walk {
    struct qcow2_counts *c;
    const struct l1 *l1;
    uint64_t *entries; /* of it */
    uint64_t *l2;
    uint64_t next;        /* where a cluster would lie in the file that follows the one before */
    uint64_t done, total; /* L2 tables, for progress */
};

/* ---- Tables ---- */

/* The place of the L2 table that ENTRY leads to; 0: there is none that can be read. */
static uint64_t l2_offset(const struct qcow2_counts *c, uint64_t entry)
{
    uint64_t offset = be64toh(entry) & QCOW2_OFFSET;

    return qcow2_in_cluster(c->q, offset) || qcow2_cluster(c->q, offset) >= c->clusters ? 0
                                                                                        : offset;
}

static int count_l2_tables_of(struct qcow2_counts *c, const struct l1 *l1, const uint64_t *entries)
{
    for (uint64_t i = 0; i < l1->count; i++) {
        uint64_t offset = l2_offset(c, entries[i]);
        int ret;

        if (!entries[i])
            continue;
        if (!offset || qcow2_set_has(&c->alone, qcow2_cluster(c->q, offset))) {
            qcow2_found(c,
                        "%s%s: entry %llu of the L1 table leads to 0x%llx, where no table can be",
                        l1->active ? "disk" : "snapshot ", l1->active ? "" : l1->name, (ull)i,
                        (ull)be64toh(entries[i]));
            continue;
        }
        ret = qcow2_count(c, qcow2_cluster(c->q, offset), 1);
        if (ret == 0)
            ret = qcow2_set_add(&c->l2, qcow2_cluster(c->q, offset), 1);
        if (ret < 0 && ret != -EEXIST)
            return ret;
        if (ret == -EEXIST && l1->active && qcow2_counted(c, qcow2_cluster(c->q, offset)) > 1 &&
            (be64toh(entries[i]) & QCOW2_COPIED))
            qcow2_found(c, "two L1 entries lead to the L2 table at 0x%llx, as if it were theirs",
                        (ull)offset);
    }
    return 0;
}

/* Reads L1; *ENTRIES is freed by the caller, also after a failure. */
static int read_l1(const struct qcow2_counts *c, const struct l1 *l1, uint64_t **entries)
{
    *entries = qcow2_buffer(l1->count * sizeof(uint64_t));
    return *entries ? qcow2_file_read(c->q, l1->offset, *entries, l1->count * sizeof(uint64_t))
                    : -ENOMEM;
}

static int count_l2_tables(struct qcow2_counts *c, const struct l1 *l1)
{
    uint64_t *entries;
    int ret = read_l1(c, l1, &entries);

    if (ret == 0)
        ret = count_l2_tables_of(c, l1, entries);
    free(entries);
    return ret;
}

/* Fills in L1 with COUNT entries at OFFSET, if nothing else is there. */
static int count_l1(struct qcow2_counts *c, uint64_t offset, uint64_t count, const char *what,
                    struct l1 *l1)
{
    int ret = qcow2_count_alone(c, offset, count * sizeof(uint64_t), what);

    if (ret != 0)
        return ret;
    l1->offset = offset;
    l1->count = count;
    return 0;
}

static int count_refcount_tables(struct qcow2_counts *c)
{
    struct qcow2 *q = c->q;
    uint64_t errors = c->found->errors, covered = (c->clusters - 1) >> q->block_bits, behind = 0;
    int ret = qcow2_count_alone(c, q->reftable.offset, q->reftable.size, "the refcount table");

    for (uint64_t i = 0; i < q->blocks.slots && ret >= 0; i++) {
        uint64_t offset = be64toh(q->reftable.entries[i]);

        if (offset)
            ret = qcow2_count_alone(c, offset, q->cluster_size, "a refcount block");
        behind += offset && i > covered ? q->cluster_size : 0;
    }
    /* Some are left when a file is cut off at its end. */
    if (behind > QCOW2_TABLES_MAX)
        qcow2_found(c, "%llu MiB of refcount blocks are for what lies behind the end of the file",
                    (ull)(behind / MiB));
    c->refcount_errors = c->found->errors - errors;
    c->structure = c->refcount_errors;
    return MIN(ret, 0);
}

/* ---- Bitmaps, which QEMU keeps ---- */

static int count_bitmap(struct qcow2_counts *c, const struct qcow2_raw_bitmap *b)
{
    uint64_t entries = be32toh(b->table_entries), offset = be64toh(b->table_offset);
    int ret = qcow2_count_alone(c, offset, entries * sizeof(uint64_t), "a bitmap's table");
    uint64_t *table;

    if (ret != 0)
        return ret;
    table = qcow2_buffer(entries * sizeof(uint64_t));
    ret = table ? qcow2_file_read(c->q, offset, table, entries * sizeof(uint64_t)) : -ENOMEM;
    for (uint64_t i = 0; i < entries && ret >= 0; i++)
        if (be64toh(table[i]) & QCOW2_OFFSET)
            ret = qcow2_count_alone(c, be64toh(table[i]) & QCOW2_OFFSET, c->q->cluster_size,
                                    "a bitmap's data");
    free(table);
    return ret;
}

static int count_bitmaps(struct qcow2_counts *c)
{
    uint64_t tables = 0;
    uint32_t size = 0;
    const struct qcow2_raw_bitmaps *b =
        (const void *)qcow2_header_extension(c->q, QCOW2_EXTENSION_BITMAPS, &size);
    uint64_t at = 0, bytes;
    int ret;

    if (!(c->q->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    if (!b || size < sizeof(*b)) {
        qcow2_found(c, "the bitmaps that the header speaks of are not there");
        return 0;
    }
    bytes = be64toh(b->directory_size);
    ret = qcow2_count_alone(c, be64toh(b->directory_offset), bytes, "the directory of bitmaps");
    while (ret == 0 && at + sizeof(struct qcow2_raw_bitmap) <= bytes) {
        struct qcow2_raw_bitmap entry;

        ret = qcow2_file_read(c->q, be64toh(b->directory_offset) + at, &entry, sizeof(entry));
        tables += be32toh(entry.table_entries) * sizeof(uint64_t);
        if (ret == 0 && tables > QCOW2_TABLES_MAX) {
            qcow2_found(c, "the bitmaps' tables are too large");
            break;
        }
        if (ret == 0)
            ret = count_bitmap(c, &entry);
        at += ALIGN_UP(
            sizeof(entry) + be16toh(entry.name_size) + (uint64_t)be32toh(entry.extra_size), 8);
    }
    return MIN(ret, 0);
}

/* ---- What the tables lead to ---- */

static void count_use(struct walk *w, uint64_t offset, const struct qcow2_part *part)
{
    struct qcow2_checked *found = w->c->found;

    if (!w->l1->active || offset >= w->c->q->disk_size || part->kind == QCOW2_UNALLOCATED ||
        (part->kind == QCOW2_ZERO && !part->host))
        return;
    found->allocated++;
    found->compressed += part->kind == QCOW2_COMPRESSED;
    found->fragmented += w->next && part->host != w->next && part->kind != QCOW2_COMPRESSED;
    w->next = part->kind == QCOW2_COMPRESSED ? 0 : part->host + w->c->q->cluster_size;
}

static int count_entry(struct walk *w, uint64_t offset, uint64_t entry, uint64_t bitmap)
{
    struct qcow2_counts *c = w->c;
    struct qcow2_part part;
    uint64_t first, n;

    if (!entry && !bitmap)
        return 0;
    if (qcow2_decode(c->q, entry, bitmap, 0, &part) < 0) {
        qcow2_found(c, "the L2 entry of the cluster at 0x%llx of the disk leads nowhere: 0x%llx",
                    (ull)offset, (ull)entry);
        return 0;
    }
    n = qcow2_entry_clusters(c->q, entry, &first);
    if (first + n > c->clusters) {
        qcow2_found(c, "compressed data of the cluster at 0x%llx of the disk is not in the file",
                    (ull)offset);
        return 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (!qcow2_set_has(&c->alone, first + i) && !qcow2_set_has(&c->l2, first + i))
            continue;
        qcow2_found(c, "data of the cluster at 0x%llx of the disk lies where metadata is",
                    (ull)offset);
        return 0;
    }
    count_use(w, offset, &part);
    return qcow2_count(c, first, n);
}

static int walk_l2(struct walk *w, uint64_t index)
{
    struct qcow2 *q = w->c->q;
    uint64_t offset = index << q->l2_bits << q->cluster_bits;
    uint64_t table = l2_offset(w->c, w->entries[index]);
    int ret;

    if (qcow2_is_hole(w->c, table))
        return 0;
    ret = qcow2_file_read(q, table, w->l2, q->cluster_size);
    for (uint64_t i = 0; i < 1ULL << q->l2_bits && ret == 0; i++, offset += q->cluster_size) {
        uint64_t word = i << q->extended;

        ret = count_entry(w, offset, be64toh(w->l2[word]),
                          q->extended ? be64toh(w->l2[word + 1]) : 0);
    }
    return ret;
}

static int walk_l1(struct walk *w, const struct l1 *l1)
{
    const struct qcow2_check *how = w->c->how;
    int ret = read_l1(w->c, l1, &w->entries);

    w->l1 = l1;
    w->next = 0;
    for (uint64_t i = 0; i < l1->count && ret == 0; i++) {
        uint64_t offset = l2_offset(w->c, w->entries[i]);

        if (offset && qcow2_set_has(&w->c->l2, qcow2_cluster(w->c->q, offset)))
            ret = walk_l2(w, i);
        w->done++;
        if (how->progress)
            how->progress(how->opaque, w->done, w->total);
    }
    free(w->entries);
    return ret;
}

/* ---- All of it ---- */

static int count_tables(struct qcow2_counts *c, const struct qcow2_records *records, struct l1 *l1)
{
    struct qcow2 *q = c->q;
    int ret = qcow2_count_alone(c, 0, q->cluster_size, "the header");

    l1[0].active = true;
    if (ret == 0)
        ret = count_l1(c, q->l1.offset, q->l2.slots, "the L1 table", &l1[0]);
    if (ret >= 0)
        ret = qcow2_count_alone(c, q->snapshots_offset, records->bytes, "the snapshot table");
    for (unsigned i = 0; i < records->count && ret >= 0; i++) {
        l1[i + 1].name = records->record[i].shown.name;
        ret = count_l1(c, records->record[i].l1_offset, records->record[i].l1_entries,
                       "a snapshot's L1 table", &l1[i + 1]);
    }
    if (ret >= 0)
        ret = count_refcount_tables(c);
    if (ret >= 0)
        ret = count_bitmaps(c);
    for (unsigned i = 0; i <= records->count && ret >= 0; i++)
        ret = count_l2_tables(c, &l1[i]);
    return MIN(ret, 0);
}

static int count_all(struct qcow2_counts *c, const struct qcow2_records *records)
{
    struct l1 *l1 = calloc(records->count + 1, sizeof(*l1));
    struct walk w = {.c = c, .l2 = qcow2_buffer(c->q->cluster_size)};
    int ret = l1 && w.l2 ? count_tables(c, records, l1) : -ENOMEM;

    for (unsigned i = 0; l1 && i <= records->count; i++)
        w.total += l1[i].count;
    for (unsigned i = 0; i <= records->count && ret == 0; i++)
        ret = walk_l1(&w, &l1[i]);
    free(l1);
    free(w.l2);
    return ret;
}

/* Sets *REBUILT if what is in memory of the refcounts is stale. */
static int check(struct qcow2 *q, const struct qcow2_check *how, struct qcow2_checked *found,
                 bool *rebuilt, struct error *err)
{
    struct qcow2_records records;
    struct qcow2_counts c = {0};
    int ret = qcow2_records_read(q, &records, err);

    *rebuilt = false;
    if (ret < 0) {
        qcow2_records_free(&records);
        return ret;
    }
    ret = qcow2_counts_init(&c, q, how, found);
    if (ret == 0)
        ret = count_all(&c, &records);
    found->clusters = qcow2_clusters(q, q->disk_size);
    if (ret == 0)
        ret = qcow2_compare(&c);
    if (ret < 0)
        error_set(err, -ret, "%s: cannot be checked: %s", q->name, strerror(-ret));
    *rebuilt = c.rebuilt;
    qcow2_counts_free(&c);
    qcow2_records_free(&records);
    return ret;
}

/* After a repair: what is in memory is what is in the file, and the marks go if all is well. */
static int finish_repair(struct qcow2 *q, const struct qcow2_checked *found, struct error *err)
{
    bool well = found->errors == found->errors_fixed;
    int ret = qcow2_file_flush(q);

    if (ret == 0 && well)
        ret = qcow2_header_mark(q, 0, QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT);
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot be repaired: %s", q->name, strerror(-ret));
    if (well) {
        atomic_store(&q->failed, 0);
        atomic_store(&q->told, false);
    }
    return well ? qcow2_load_again(q, err) : 0;
}

/* Checks; after refcounts were made anew once more, so that the old ones do not stay as leaks. */
static int check_and_repair(struct qcow2 *q, const struct qcow2_check *how,
                            struct qcow2_checked *found, struct error *err)
{
    struct qcow2_check quiet = {.repair_leaks = true};
    struct qcow2_checked again = {0};
    bool rebuilt;
    int ret = check(q, how, found, &rebuilt, err);

    if (ret == 0 && rebuilt) {
        ret = qcow2_load_again(q, err);
        if (ret == 0)
            ret = check(q, &quiet, &again, &rebuilt, err);
        found->end = again.end;
    }
    if (ret == 0 && how->repair_errors)
        ret = finish_repair(q, found, err);
    return ret;
}

int qcow2_check_image(struct qcow2 *q, const struct qcow2_check *how, struct qcow2_checked *checked,
                      struct error *err)
{
    bool repair = how->repair_errors || how->repair_leaks;
    bool failed = atomic_load(&q->failed);
    int ret = 0;

    *checked = (struct qcow2_checked){.marked = q->incompatible & QCOW2_INCOMPATIBLE_CORRUPT};
    if (repair && !q->writable)
        return error_set(err, EPERM, "%s: is read-only and cannot be repaired", q->name);
    if (!q->reftable.entries)
        return error_set(err, EINVAL, "%s: was not opened for a check", q->name);
    pthread_mutex_lock(&q->lock);
    if (q->writable && !failed) {
        ret = qcow2_commit_all(q);
        if (ret < 0)
            error_set(err, -ret, "%s: cannot write: %s", q->name, strerror(-ret));
    } else if (repair) {
        ret = qcow2_start_over(q, err); /* the file is repaired, not what was to become of it */
    }
    if (ret == 0)
        ret = check_and_repair(q, how, checked, err);
    checked->unmarked = checked->marked && !(q->incompatible & QCOW2_INCOMPATIBLE_CORRUPT);
    pthread_mutex_unlock(&q->lock);
    return ret;
}
