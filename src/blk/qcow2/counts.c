/*
 * Counts of references, in chunks that exist where there are references.
 */
#include "blk/qcow2/counts.h"

#include "blk/qcow2/set.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ALONE_MAX  (64 * MiB)   /* of one table */
#define CHUNKS_MAX (1ULL << 24) /* 2^40 clusters */

int qcow2_counts_init(struct qcow2_counts *c, struct qcow2 *q, const struct qcow2_check *how,
                      struct qcow2_checked *found)
{
    *c = (struct qcow2_counts){.q = q, .how = how, .found = found};
    c->clusters = qcow2_cluster(q, q->file_end);
    c->chunks = (c->clusters >> QCOW2_CHUNK_BITS) + 1;
    if (c->chunks > CHUNKS_MAX)
        return -EFBIG;
    c->chunk = calloc(c->chunks, sizeof(c->chunk[0]));
    return c->chunk ? 0 : -ENOMEM;
}

void qcow2_counts_free(struct qcow2_counts *c)
{
    for (uint64_t i = 0; c->chunk && i < c->chunks; i++)
        free(c->chunk[i]);
    free(c->chunk);
    qcow2_set_free(&c->alone);
    qcow2_set_free(&c->l2);
}

bool qcow2_is_hole(struct qcow2_counts *c, uint64_t offset)
{
    uint64_t end = MIN(offset + c->q->cluster_size, c->q->file_end);

    if (offset < c->hole || offset >= c->hole_end) {
        c->hole = offset;
        c->hole_end = offset + blk_hole(c->q->file, offset, c->q->file_end - offset);
    }
    return offset < end && end <= c->hole_end;
}

int qcow2_count(struct qcow2_counts *c, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++) {
        uint32_t **chunk = &c->chunk[i >> QCOW2_CHUNK_BITS], *count;

        if (!*chunk)
            *chunk = calloc(1u << QCOW2_CHUNK_BITS, sizeof(**chunk));
        if (!*chunk)
            return -ENOMEM;
        count = &(*chunk)[i & ((1u << QCOW2_CHUNK_BITS) - 1)];
        *count += *count < UINT32_MAX;
        c->found->end = MAX(c->found->end, (i + 1) << c->q->cluster_bits);
    }
    return 0;
}

int qcow2_count_alone(struct qcow2_counts *c, uint64_t offset, uint64_t size, const char *what)
{
    uint64_t first = qcow2_cluster(c->q, offset), n = qcow2_clusters(c->q, size);
    int ret;

    if (!size)
        return 0;
    if (qcow2_in_cluster(c->q, offset) || first >= c->clusters || n > c->clusters - first ||
        size > ALONE_MAX) {
        qcow2_found(c, "%s at 0x%llx does not lie in the file", what, (unsigned long long)offset);
        return 1;
    }
    ret = qcow2_set_add(&c->alone, first, n);
    if (ret == -EEXIST) {
        qcow2_found(c, "%s at 0x%llx overlaps with other metadata", what,
                    (unsigned long long)offset);
        return 1;
    }
    return ret < 0 ? ret : qcow2_count(c, first, n);
}

__attribute__((format(printf, 2, 0))) static void tell(struct qcow2_counts *c, const char *format,
                                                       va_list args)
{
    char line[256];

    if (!c->how->report)
        return;
    vsnprintf(line, sizeof(line), format, args);
    log_clean(line);
    c->how->report(c->how->opaque, line);
}

void qcow2_found(struct qcow2_counts *c, const char *format, ...)
{
    va_list args;

    c->found->errors++;
    va_start(args, format);
    tell(c, format, args);
    va_end(args);
}

void qcow2_tell(struct qcow2_counts *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell(c, format, args);
    va_end(args);
}
