/*
 * The snapshot table: entries of different lengths, one behind the other. Each has fields, extra
 * data (of which two fields are known; the rest is kept as it is), an id and a name.
 */
#include "blk/qcow2/records.h"

#include "blk/qcow2/alloc.h"
#include "blk/qcow2/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN sizeof(struct qcow2_raw_snapshot_extra)

void qcow2_record_free(struct qcow2_record *record)
{
    free(record->shown.id);
    free(record->shown.name);
    free(record->extra);
    *record = (struct qcow2_record){0};
}

void qcow2_records_free(struct qcow2_records *records)
{
    for (unsigned i = 0; i < records->count; i++)
        qcow2_record_free(&records->record[i]);
    free(records->record);
    *records = (struct qcow2_records){0};
}

/* ---- Reading ---- */

static uint64_t entry_size(uint64_t extra, uint64_t id, uint64_t name)
{
    return ALIGN_UP(sizeof(struct qcow2_raw_snapshot) + extra + id + name, 8);
}

static void parse_extra(const struct qcow2 *q, const uint8_t *extra, uint32_t size,
                        struct qcow2_record *r)
{
    uint64_t value;

    r->shown.disk_size = q->disk_size;
    if (size >= 8) {
        memcpy(&value, extra, 8);
        r->shown.vm_state_size = be64toh(value);
    }
    if (size >= 16) {
        memcpy(&value, extra + 8, 8);
        r->shown.disk_size = be64toh(value);
    }
}

/* Copies SIZE bytes of text, which no zero byte need end. NULL: no memory. */
static char *copy_text(const char *text, size_t size)
{
    char *copy = malloc(size + 1);

    if (copy) {
        memcpy(copy, text, size);
        copy[size] = 0;
    }
    return copy;
}

/* Fills in R from the entry at BYTES, all of which is there. */
static int parse(const struct qcow2 *q, const uint8_t *bytes, struct qcow2_record *r)
{
    struct qcow2_raw_snapshot raw;
    const uint8_t *extra = bytes + sizeof(raw);
    const char *text;
    uint32_t extra_size;

    memcpy(&raw, bytes, sizeof(raw));
    extra_size = be32toh(raw.extra_size);
    text = (const char *)extra + extra_size;
    *r = (struct qcow2_record){
        .shown.id = copy_text(text, be16toh(raw.id_size)),
        .shown.name = copy_text(text + be16toh(raw.id_size), be16toh(raw.name_size)),
        .shown.seconds = be32toh(raw.seconds),
        .shown.nanoseconds = be32toh(raw.nanoseconds),
        .shown.vm_clock = be64toh(raw.vm_clock),
        .shown.vm_state_size = be32toh(raw.vm_state_size),
        .l1_offset = be64toh(raw.l1_offset),
        .l1_entries = be32toh(raw.l1_entries),
        .extra_size = extra_size > KNOWN ? extra_size - (uint32_t)KNOWN : 0,
    };
    parse_extra(q, extra, extra_size, r);
    if (r->extra_size) {
        r->extra = malloc(r->extra_size);
        if (r->extra)
            memcpy(r->extra, extra + KNOWN, r->extra_size);
    }
    return r->shown.id && r->shown.name && (r->extra || !r->extra_size) ? 0 : -ENOMEM;
}

/* N: which snapshot it is. Its name may be anything, and is not shown. */
static int check_place(const struct qcow2 *q, const struct qcow2_record *r, unsigned n,
                       struct error *err)
{
    if (r->l1_entries > QCOW2_L1_MAX / sizeof(uint64_t) || qcow2_in_cluster(q, r->l1_offset) ||
        r->l1_offset >= q->file_end ||
        r->l1_entries * sizeof(uint64_t) > q->file_end - r->l1_offset ||
        (r->l1_entries && !r->l1_offset))
        return error_set(err, EINVAL,
                         "%s: snapshot %u of the table: its L1 table's size or place cannot be",
                         q->name, n);
    if (r->shown.disk_size % 512 || r->shown.disk_size > INT64_MAX ||
        qcow2_l1_entries(q, r->shown.disk_size) > r->l1_entries)
        return error_set(err, EINVAL, "%s: snapshot %u of the table: its disk's size cannot be",
                         q->name, n);
    return 0;
}

/* Reads the bytes of the entry at OFFSET. Its fields are read once: another writer of the file, or
 * the server that has it, may answer otherwise the second time, and SIZE follows from them. */
static int read_entry(struct qcow2 *q, uint64_t offset, uint8_t **bytes, uint64_t *size,
                      struct error *err)
{
    struct qcow2_raw_snapshot raw;
    uint32_t extra;
    int ret = 0;

    *bytes = NULL;
    if (offset + sizeof(raw) <= q->file_end)
        ret = qcow2_file_read(q, offset, &raw, sizeof(raw));
    extra = be32toh(raw.extra_size);
    if (offset + sizeof(raw) > q->file_end || (ret == 0 && extra > QCOW2_SNAPSHOT_EXTRA))
        return error_set(err, EINVAL, "%s: the snapshot table is not what it should be", q->name);
    *size = entry_size(extra, be16toh(raw.id_size), be16toh(raw.name_size));
    if (ret == 0)
        *bytes = malloc(*size);
    if (ret == 0 && !*bytes)
        ret = -ENOMEM;
    if (ret == 0) {
        memcpy(*bytes, &raw, sizeof(raw));
        ret = qcow2_file_read(q, offset + sizeof(raw), *bytes + sizeof(raw), *size - sizeof(raw));
    }
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot read the snapshot table: %s", q->name,
                         strerror(-ret));
    return 0;
}

int qcow2_records_read(struct qcow2 *q, struct qcow2_records *records, struct error *err)
{
    int ret = 0;

    *records = (struct qcow2_records){0};
    if (!q->snapshots)
        return 0;
    records->record = calloc(q->snapshots, sizeof(records->record[0]));
    if (!records->record)
        return error_set(err, ENOMEM, "%s: out of memory", q->name);
    while (records->count < q->snapshots && ret == 0) {
        struct qcow2_record *r = &records->record[records->count];
        uint8_t *bytes;
        uint64_t size = 0;

        ret = read_entry(q, q->snapshots_offset + records->bytes, &bytes, &size, err);
        if (ret == 0) {
            records->count++;
            ret = parse(q, bytes, r);
            if (ret < 0)
                error_set(err, ENOMEM, "%s: out of memory", q->name);
            else
                ret = check_place(q, r, records->count, err);
            records->bytes += size;
            records->l1_bytes += r->l1_entries * sizeof(uint64_t);
        }
        free(bytes);
        if (ret == 0 && records->bytes > QCOW2_SNAPSHOT_SIZE_MAX)
            ret = error_set(err, EINVAL, "%s: the snapshot table is too large", q->name);
        if (ret == 0 && records->l1_bytes > QCOW2_TABLES_MAX)
            ret = error_set(err, EFBIG, "%s: its snapshots' L1 tables are too large", q->name);
    }
    return ret;
}

/* ---- Writing ---- */

static uint64_t record_size(const struct qcow2_record *r)
{
    return entry_size(KNOWN + r->extra_size, strlen(r->shown.id), strlen(r->shown.name));
}

static void build(const struct qcow2_record *r, uint8_t *bytes)
{
    size_t id = strlen(r->shown.id), name = strlen(r->shown.name);
    uint64_t state = r->shown.vm_state_size;
    struct qcow2_raw_snapshot raw = {
        .l1_offset = htobe64(r->l1_offset),
        .l1_entries = htobe32(r->l1_entries),
        .id_size = htobe16((uint16_t)id),
        .name_size = htobe16((uint16_t)name),
        .seconds = htobe32((uint32_t)r->shown.seconds),
        .nanoseconds = htobe32(r->shown.nanoseconds),
        .vm_clock = htobe64(r->shown.vm_clock),
        .vm_state_size = htobe32(state > UINT32_MAX ? 0 : (uint32_t)state),
        .extra_size = htobe32((uint32_t)(KNOWN + r->extra_size)),
    };
    struct qcow2_raw_snapshot_extra extra = {htobe64(state), htobe64(r->shown.disk_size)};

    memcpy(bytes, &raw, sizeof(raw));
    bytes += sizeof(raw);
    memcpy(bytes, &extra, sizeof(extra));
    bytes += sizeof(extra);
    if (r->extra_size)
        memcpy(bytes, r->extra, r->extra_size);
    bytes += r->extra_size;
    memcpy(bytes, r->shown.id, id);
    memcpy(bytes + id, r->shown.name, name);
}

int qcow2_records_write(struct qcow2 *q, const struct qcow2_records *records, uint64_t *table,
                        uint64_t *bytes)
{
    uint64_t at = 0, cluster, size;
    uint8_t *buffer;
    int ret;

    *table = *bytes = 0;
    for (unsigned i = 0; i < records->count; i++)
        *bytes += record_size(&records->record[i]);
    if (!*bytes)
        return 0;
    if (*bytes > QCOW2_SNAPSHOT_SIZE_MAX)
        return -EFBIG;
    size = ALIGN_UP(*bytes, q->cluster_size);
    buffer = qcow2_buffer(size);
    if (!buffer)
        return -ENOMEM;
    for (unsigned i = 0; i < records->count; at += record_size(&records->record[i++]))
        build(&records->record[i], buffer + at);
    ret = qcow2_alloc_exactly(q, size >> q->cluster_bits, &cluster);
    if (ret == 0) {
        *table = cluster << q->cluster_bits;
        ret = qcow2_file_write(q, *table, buffer, size);
        if (ret < 0)
            qcow2_free(q, cluster, size >> q->cluster_bits);
    }
    free(buffer);
    return ret;
}
