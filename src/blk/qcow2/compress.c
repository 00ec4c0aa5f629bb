/*
 * Compressed clusters: packed by zlib (a raw stream with a window of 4 KiB, which every reader can
 * unpack) or by zstd, and put one behind the other into the file, at any byte. Each cluster of the
 * file that packed data lies in has a reference for each cluster of the disk that lies there.
 */
#include "blk/qcow2/compress.h"

#include "base/buffers.h"
#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/alloc.h"
#include "blk/qcow2/claim.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/refcount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* ---- Reading ---- */

#define KEPT 4 /* a guest that reads a cluster in small requests unpacks it once */

struct qcow2_unpacked {
    pthread_mutex_t lock; /* a leaf */
    unsigned next;
    struct kept {
        uint8_t *bytes; /* NULL: nothing */
        uint64_t host;
        uint64_t freed; /* q->freed: what was freed since may hold something else now */
    } kept[KEPT];
};

struct qcow2_unpacked *qcow2_unpacked_create(void)
{
    struct qcow2_unpacked *unpacked = calloc(1, sizeof(*unpacked));

    if (unpacked)
        pthread_mutex_init(&unpacked->lock, NULL);
    return unpacked;
}

void qcow2_unpacked_free(struct qcow2_unpacked *unpacked)
{
    if (!unpacked)
        return;
    for (unsigned i = 0; i < KEPT; i++)
        free(unpacked->kept[i].bytes);
    pthread_mutex_destroy(&unpacked->lock);
    free(unpacked);
}

/* What a request wants of an unpacked cluster. */
struct wanted {
    const struct iovec *iov;
    unsigned iovs;
    uint64_t from, skip, size;
};

static bool copy_kept(struct qcow2 *q, uint64_t host, const struct wanted *w)
{
    struct qcow2_unpacked *u = q->unpacked;
    bool found = false;

    pthread_mutex_lock(&u->lock);
    for (unsigned i = 0; i < KEPT && !found; i++) {
        struct kept *k = &u->kept[i];

        found = k->bytes && k->host == host && k->freed == atomic_load(&q->freed);
        if (found)
            buffers_scatter(w->iov, w->skip, k->bytes + w->from, w->size);
    }
    pthread_mutex_unlock(&u->lock);
    return found;
}

static void keep(struct qcow2 *q, uint64_t host, uint64_t freed, uint8_t *bytes)
{
    struct qcow2_unpacked *u = q->unpacked;
    struct kept *k;

    pthread_mutex_lock(&u->lock);
    k = &u->kept[u->next++ % KEPT];
    free(k->bytes);
    *k = (struct kept){bytes, host, freed};
    pthread_mutex_unlock(&u->lock);
}

static int inflate_cluster(const void *from, uint64_t size, void *to, uint64_t cluster_size)
{
    z_stream z = {.next_in = (void *)from,
                  .avail_in = (unsigned)size,
                  .next_out = to,
                  .avail_out = (unsigned)cluster_size};
    int ret;

    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return -ENOMEM;
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && z.avail_out == 0 ? 0 : -EIO;
}

static int unzstd_cluster(const void *from, uint64_t size, void *to, uint64_t cluster_size)
{
    ZSTD_inBuffer in = {from, size, 0};
    ZSTD_outBuffer out = {to, cluster_size, 0};
    ZSTD_DCtx *context = ZSTD_createDCtx();
    size_t before, ret = 0;

    if (!context)
        return -ENOMEM;
    do {
        before = in.pos + out.pos;
        ret = ZSTD_decompressStream(context, &out, &in);
    } while (!ZSTD_isError(ret) && out.pos < out.size && in.pos + out.pos > before);
    ZSTD_freeDCtx(context);
    return !ZSTD_isError(ret) && out.pos == out.size ? 0 : -EIO;
}

int qcow2_unpack(struct qcow2 *q, const struct qcow2_part *part, uint64_t from,
                 const struct iovec *iov, unsigned iovs, uint64_t skip, uint64_t size)
{
    struct wanted w = {.iov = iov, .iovs = iovs, .from = from, .skip = skip, .size = size};
    uint64_t freed = atomic_load(&q->freed);
    uint8_t *packed, *bytes;
    int ret;

    if (copy_kept(q, part->host, &w))
        return 0;
    packed = qcow2_buffer(part->packed_size);
    bytes = qcow2_buffer(q->cluster_size);
    ret = packed && bytes ? qcow2_file_read(q, part->host, packed, part->packed_size) : -ENOMEM;
    if (ret == 0)
        ret = q->compression == QCOW2_ZSTD
                  ? unzstd_cluster(packed, part->packed_size, bytes, q->cluster_size)
                  : inflate_cluster(packed, part->packed_size, bytes, q->cluster_size);
    free(packed);
    if (ret < 0) {
        free(bytes);
        return ret;
    }
    buffers_scatter(iov, skip, bytes + from, size);
    keep(q, part->host, freed, bytes);
    return 0;
}

/* ---- Writing ---- */

static int64_t deflate_cluster(const void *from, void *to, uint64_t size)
{
    z_stream z = {.next_in = (void *)from,
                  .avail_in = (unsigned)size,
                  .next_out = to,
                  .avail_out = (unsigned)size};
    int ret;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    ret = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return ret == Z_STREAM_END ? (int64_t)(size - z.avail_out) : 0;
}

int64_t qcow2_pack(struct qcow2 *q, const void *bytes, void **packed)
{
    /* What is not smaller does not fit, and counts as not packed. */
    uint64_t size = q->cluster_size;
    int64_t ret;

    *packed = malloc(size);
    if (!*packed)
        return -ENOMEM;
    if (q->compression == QCOW2_ZSTD) {
        size_t n = ZSTD_compress(*packed, size, bytes, size, ZSTD_CLEVEL_DEFAULT);

        ret = ZSTD_isError(n) ? 0 : (int64_t)n;
    } else {
        ret = deflate_cluster(bytes, *packed, size);
    }
    if (ret >= (int64_t)size)
        ret = 0;
    if (ret <= 0) {
        free(*packed);
        *packed = NULL;
    }
    return ret;
}

/* Finds a place in the file for SIZE bytes of packed data: behind the last, if that is possible. */
static int place_packed(struct qcow2 *q, uint64_t size, uint64_t *at)
{
    uint64_t last = qcow2_cluster(q, q->packed), cluster;
    uint64_t left = q->packed ? q->cluster_size - qcow2_in_cluster(q, q->packed) : 0;
    int ret;

    if (size <= left && qcow2_refcount_add(q, last, 1) == 0) {
        *at = q->packed;
        return 0;
    }
    ret = qcow2_alloc_exactly(q, 1, &cluster);
    if (ret < 0)
        return ret;
    *at = cluster << q->cluster_bits;
    if (left && size > left && cluster == last + 1 && qcow2_refcount_add(q, last, 1) == 0)
        *at = q->packed;
    return 0;
}

/* Writes bytes at any place, and leaves what is around them as it is. */
static int write_bytes(struct qcow2 *q, uint64_t at, const void *bytes, uint64_t size)
{
    unsigned block = blk_info(q->file).block;
    uint64_t start = ALIGN_DOWN(at, block), end = ALIGN_UP(at + size, block);
    uint8_t *whole = qcow2_buffer(end - start);
    int ret = whole ? 0 : -ENOMEM;

    if (ret == 0 && start < at)
        ret = qcow2_file_read(q, start, whole, block);
    if (ret == 0) {
        memcpy(whole + (at - start), bytes, size);
        ret = qcow2_file_write(q, start, whole, end - start);
    }
    free(whole);
    return ret;
}

/* Has the entry of OFFSET lead to SIZE bytes of packed data AT a place of the file. */
static int publish_packed(struct qcow2 *q, uint64_t offset, uint64_t at, uint64_t size)
{
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t sectors = ((at + size - 1) >> 9) - (at >> 9), word = qcow2_l2_word(q, offset);
    struct qcow2_table *l2;
    int ret;

    if (at >> MIN(shift, 56))
        return -EFBIG;
    ret = qcow2_l2_for_writing(q, qcow2_l1_index(q, offset), &l2);
    if (ret == 0)
        ret = qcow2_drop_room(q, QCOW2_ENTRY_CLUSTERS);
    if (ret < 0)
        return ret;
    qcow2_drop_entry(q, be64toh(l2->entries[word]));
    qcow2_l2_set(q, l2, word, at | sectors << shift | QCOW2_IS_COMPRESSED);
    q->depends = true;
    return 0;
}

int qcow2_write_packed(struct qcow2 *q, uint64_t offset, const void *packed, uint64_t size)
{
    uint64_t cluster = qcow2_cluster(q, offset), at = 0;
    int ret;

    pthread_mutex_lock(&q->lock);
    qcow2_claims_wait(q, cluster, cluster + 1);
    ret = place_packed(q, size, &at);
    if (ret == 0) {
        uint64_t first = qcow2_cluster(q, at);
        uint64_t n = qcow2_cluster(q, at + size - 1) - first + 1;

        ret = write_bytes(q, at, packed, size);
        if (ret == 0)
            ret = publish_packed(q, offset, at, size);
        if (ret < 0)
            qcow2_free(q, first, n);
        else
            q->packed = qcow2_in_cluster(q, at + size) ? at + size : 0;
    }
    pthread_mutex_unlock(&q->lock);
    return ret;
}
