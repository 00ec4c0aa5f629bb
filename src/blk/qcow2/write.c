/*
 * Writing ranges of the disk, step by step. A step writes to clusters that the image has for
 * itself, or to a run of new ones: claim, data, publish (qcow2_private.h).
 *
 *      cluster of the disk   |   head   |  what is written   ...   |   tail   |
 *                                ^                                      ^
 *                                '--- what the disk has there now ------'
 */
#include "blk/qcow2/write.h"

#include "base/buffers.h"
#include "blk/qcow2/alloc.h"
#include "blk/qcow2/claim.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/set.h"

#include <errno.h>
#include <stdlib.h>

#define STEP_MAX (4 * MiB) /* of new clusters, so that a claim does not last long */

struct step {
    uint64_t offset, size; /* of the disk: what is written now */
    bool in_place;
    uint64_t host;             /* in the file: of OFFSET if in place, or of the first cluster */
    bool set_aside;            /* the clusters are the disk's already, but read as zeroes */
    bool skip_head, skip_tail; /* what is around it reads as zeroes, and so does the file */
    struct qcow2_claim claim;
};

bool qcow2_may_overwrite(const struct qcow2 *q, const struct qcow2_part *part)
{
    uint64_t first = qcow2_cluster(q, part->host);
    uint64_t last = qcow2_cluster(q, part->host + part->size - 1);

    for (uint64_t c = first; c <= last; c++)
        if (qcow2_set_has(&q->metadata, c))
            return false;
    return part->host + part->size <= q->file_end;
}

/* ---- Claim; with the lock ---- */

static int plan_in_place(struct qcow2 *q, const struct qcow2_part *part, struct step *s)
{
    s->in_place = true;
    s->host = part->host;
    s->size = part->size;
    if (qcow2_may_overwrite(q, part))
        return 0;
    return qcow2_corrupt(q, "data of the disk's cluster %llu lies where metadata is",
                         (unsigned long long)qcow2_cluster(q, s->offset));
}

/* How many clusters from the first of S on get new clusters of the file: up to the first that has
 * its own, is claimed, or belongs to another L2 table. */
static int count_new(struct qcow2 *q, struct step *s, uint64_t *n)
{
    uint64_t first = qcow2_cluster(q, s->offset);
    uint64_t end = MIN(s->offset + s->size, qcow2_l2_end(q, s->offset));
    uint64_t most = MAX(STEP_MAX >> q->cluster_bits, 1);
    uint64_t last = MIN(qcow2_clusters(q, end), first + most);

    last = qcow2_claimed(q, first, last);
    for (*n = 1; first + *n < last; ++*n) {
        struct qcow2_part part;
        int ret = qcow2_find(q, (first + *n) << q->cluster_bits, q->cluster_size, &part);

        if (ret < 0)
            return ret;
        if (part.owned)
            break;
    }
    return 0;
}

/* Notes where around what is written nothing needs to be written, FRESH saying that the clusters of
 * the file read as zeroes. */
static int look_around(struct qcow2 *q, struct step *s, bool fresh)
{
    struct qcow2_part part;
    uint64_t end = s->offset + s->size;
    int ret;

    if (!fresh)
        return 0;
    ret = qcow2_find(q, s->offset, 1, &part);
    if (ret < 0)
        return ret;
    s->skip_head = qcow2_reads_zero(q, &part, ALIGN_DOWN(s->offset, q->cluster_size));
    ret = qcow2_find(q, end - 1, 1, &part);
    s->skip_tail = ret == 0 && qcow2_reads_zero(q, &part, end);
    return ret;
}

static int plan_new(struct qcow2 *q, struct step *s)
{
    uint64_t first = qcow2_cluster(q, s->offset), fresh = q->fresh, n, host;
    struct qcow2_table *l2;
    int64_t got;
    int ret = count_new(q, s, &n);

    if (ret == 0)
        ret = qcow2_l2_for_writing(q, qcow2_l1_index(q, s->offset), &l2);
    if (ret < 0)
        return ret;
    got = qcow2_alloc(q, n, &host);
    if (got < 0)
        return (int)got;
    s->host = host << q->cluster_bits;
    s->size = MIN(s->size, ((first + (uint64_t)got) << q->cluster_bits) - s->offset);
    s->claim = (struct qcow2_claim){.first = first, .end = first + (uint64_t)got};
    ret = look_around(q, s, s->host >= fresh);
    if (ret < 0)
        qcow2_free(q, host, (uint64_t)got);
    return ret;
}

/* A cluster that has been set aside and reads as zeroes is written as a whole. */
static int plan_set_aside(struct qcow2 *q, const struct qcow2_part *part, struct step *s)
{
    uint64_t first = qcow2_cluster(q, s->offset), in = qcow2_in_cluster(q, s->offset);
    struct qcow2_part whole = {.host = part->host - in, .size = q->cluster_size};
    struct qcow2_table *l2;

    s->set_aside = true;
    s->host = whole.host;
    s->size = MIN(s->size, q->cluster_size - in);
    s->claim = (struct qcow2_claim){.first = first, .end = first + 1};
    if (!qcow2_may_overwrite(q, &whole))
        return qcow2_corrupt(q, "clusters set aside for the disk's cluster %llu hold metadata",
                             (unsigned long long)first);
    return qcow2_l2_for_writing(q, qcow2_l1_index(q, s->offset), &l2);
}

static int plan(struct qcow2 *q, struct step *s)
{
    uint64_t cluster = qcow2_cluster(q, s->offset);
    struct qcow2_part part;
    int ret;

    qcow2_claims_wait(q, cluster, cluster + 1);
    ret = atomic_load(&q->failed);
    if (ret == 0)
        ret = qcow2_find(q, s->offset, s->size, &part);
    if (ret < 0)
        return ret;
    if (part.kind == QCOW2_DATA && part.owned)
        return plan_in_place(q, &part, s);
    if (part.kind == QCOW2_ZERO && part.owned)
        ret = plan_set_aside(q, &part, s);
    else
        ret = plan_new(q, s);
    if (ret == 0)
        qcow2_claim_begin(q, &s->claim);
    return ret;
}

/* ---- Data; without the lock ---- */

static int read_around(struct qcow2 *q, uint64_t offset, uint64_t size, void *bytes)
{
    struct iovec iov = {bytes, size};

    return qcow2_read_range(q, offset, size, &(struct qcow2_buffers){.iov = &iov, .iovs = 1});
}

static int write_new(struct qcow2 *q, const struct step *s, const struct qcow2_buffers *from)
{
    uint64_t end = s->offset + s->size;
    uint64_t head = s->skip_head ? 0 : qcow2_in_cluster(q, s->offset);
    uint64_t tail = s->skip_tail ? 0 : ALIGN_UP(end, q->cluster_size) - end;
    struct iovec *iov = calloc(from->iovs + 2, sizeof(*iov));
    uint8_t *around = qcow2_buffer(head + tail);
    unsigned n = 0;
    int ret = iov && around ? 0 : -ENOMEM;

    if (ret == 0 && head)
        ret = read_around(q, s->offset - head, head, around);
    if (ret == 0 && tail)
        ret = read_around(q, end, tail, around + head);
    if (ret == 0) {
        if (head)
            iov[n++] = (struct iovec){around, head};
        n += buffers_slice(iov + n, from->iov, from->iovs, from->skip, s->size);
        if (tail)
            iov[n++] = (struct iovec){around + head, tail};
        ret = qcow2_file_writev(q, s->host + qcow2_in_cluster(q, s->offset) - head, iov, n,
                                head + s->size + tail);
    }
    free(around);
    free(iov);
    return ret;
}

static int write_in_place(struct qcow2 *q, const struct step *s, const struct qcow2_buffers *from)
{
    struct iovec *iov = calloc(from->iovs, sizeof(*iov));
    int ret;

    if (!iov)
        return -ENOMEM;
    ret = qcow2_file_writev(
        q, s->host, iov, buffers_slice(iov, from->iov, from->iovs, from->skip, s->size), s->size);
    free(iov);
    return ret;
}

/* ---- Publish; with the lock ---- */

static int publish(struct qcow2 *q, const struct step *s)
{
    uint64_t n = s->claim.end - s->claim.first, host = s->host;
    uint64_t offset = s->claim.first << q->cluster_bits;
    struct qcow2_table *l2;
    int ret = qcow2_l2_for_writing(q, qcow2_l1_index(q, offset), &l2);

    if (ret == 0)
        ret = qcow2_drop_room(q, n * QCOW2_ENTRY_CLUSTERS);
    if (ret < 0)
        return ret;
    for (uint64_t i = 0; i < n; i++, offset += q->cluster_size, host += q->cluster_size) {
        uint64_t word = qcow2_l2_word(q, offset);

        if (!s->set_aside)
            qcow2_drop_entry(q, be64toh(l2->entries[word]));
        qcow2_l2_set(q, l2, word, host | QCOW2_COPIED);
    }
    q->depends = true;
    return 0;
}

static void end_claim(struct qcow2 *q, struct step *s, int *ret)
{
    pthread_mutex_lock(&q->lock);
    if (*ret == 0)
        *ret = publish(q, s);
    if (*ret < 0 && !s->set_aside)
        qcow2_free(q, qcow2_cluster(q, s->host), s->claim.end - s->claim.first);
    qcow2_claim_end(q, &s->claim);
    pthread_mutex_unlock(&q->lock);
}

/* ---- All of it ---- */

int qcow2_write_range(struct qcow2 *q, uint64_t offset, uint64_t size,
                      const struct qcow2_buffers *from)
{
    struct qcow2_buffers rest = *from;

    while (size) {
        struct step s = {.offset = offset, .size = size};
        int ret;

        pthread_mutex_lock(&q->lock);
        ret = plan(q, &s);
        pthread_mutex_unlock(&q->lock);
        if (ret < 0)
            return ret;
        if (s.in_place) {
            ret = write_in_place(q, &s, &rest);
        } else {
            ret = write_new(q, &s, &rest);
            end_claim(q, &s, &ret);
        }
        if (ret < 0)
            return ret;
        offset += s.size;
        rest.skip += s.size;
        size -= s.size;
    }
    return 0;
}

int qcow2_write_zeroes(struct qcow2 *q, uint64_t offset, uint64_t size)
{
    uint64_t most = MIN(size, MAX(q->cluster_size, 64 * KiB));
    void *zeroes = qcow2_buffer(most);
    int ret = zeroes ? 0 : -ENOMEM;

    while (size && ret == 0) {
        struct iovec iov = {zeroes, MIN(most, size)};

        ret = qcow2_write_range(q, offset, iov.iov_len,
                                &(struct qcow2_buffers){.iov = &iov, .iovs = 1});
        offset += iov.iov_len;
        size -= iov.iov_len;
    }
    free(zeroes);
    return ret;
}
