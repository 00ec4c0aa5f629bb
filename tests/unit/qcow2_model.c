/*
 * A qcow2 image against a model of it: random writes, reads, discards, zeroes and flushes, many at
 * once on several threads, with snapshots, resizes, checks and reopening in between, on images of
 * all kinds, with and without a backing file. What the disk holds must be what the model says, and
 * qemu-img must find no fault with the image.
 *
 * Usage: unit-qcow2_model [OPERATIONS [SEED]]. Each image gets some thousands of operations. The
 * seed is printed; with the same one the same is done, though threads take their turns as they
 * like.
 */
#include "blk_jumbled.h"

#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "blk/qcow2/qcow2.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECTOR       512u
#define BATCH        24   /* requests in flight, at most */
#define PER_IMAGE    4000 /* operations */
#define SNAPSHOTS    4
#define SECTORS_MOST 65536 /* of a disk */
#define REQUEST_MOST 512   /* sectors */

/* What each sector holds: a number that its contents are made of; 0: zeroes. */
typedef uint32_t stamp;

struct snapshot {
    bool there;
    stamp *sectors;
    uint64_t count;
};

struct model {
    uint64_t random;
    char image[64], backing[64], raw[64];
    struct qcow2_create what;
    bool backed, packed, settled, jumbled, kept;
    stamp next;
    stamp *sectors;
    uint64_t count;
    struct snapshot snapshot[SNAPSHOTS];
    struct blk *disk;
    uint64_t done; /* operations */
};

struct operation {
    struct blk_request request;
    struct iovec iov[3];
    uint64_t first, count; /* sectors */
    uint8_t *bytes;
    sem_t *ended;
    int result;
    bool rival; /* a discard of what the one before writes: either may be the last */
};

/* ---- Chance ---- */

static uint64_t chance(struct model *m, uint64_t below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (m->random * 0x9e3779b97f4a7c15ULL >> 24) % below;
}

static uint64_t one_of(struct model *m, const uint64_t *of, unsigned n)
{
    return of[chance(m, n)];
}

/* ---- Failing ---- */

static void fail(const struct model *m, const char *what, const char *why)
{
    fprintf(stderr, "%s: operation %llu: %s: %s\n", m->image, (unsigned long long)m->done, what,
            why);
    _exit(1);
}

static void expect(const struct model *m, int ret, const char *what, const struct error *err)
{
    if (ret < 0)
        fail(m, what, err && err->code ? err->text : strerror(-ret));
}

static void run_qemu_img(const struct model *m, const char *arguments)
{
    char command[512], output[64];
    int status;

    snprintf(output, sizeof(output), "model-%d.out", getpid());
    snprintf(command, sizeof(command), "qemu-img %s >%s 2>&1", arguments, output);
    status = system(command);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "%s\n", command);
        snprintf(command, sizeof(command), "head -20 %s >&2", output);
        status = system(command);
        fail(m, "qemu-img", arguments);
    }
    unlink(output);
}

/* ---- Contents ---- */

static void fill(uint8_t *bytes, uint64_t sector, stamp s)
{
    uint32_t *words = (uint32_t *)bytes;

    /* Half of it is alike, so that it can be compressed. */
    for (unsigned i = 0; i < SECTOR / sizeof(uint32_t); i++)
        words[i] = s ? s * 2654435761u + (i & 1 ? (uint32_t)sector * 40503u + i : 0) : 0;
    if (s)
        words[0] = s;
}

static void compare(const struct model *m, const uint8_t *bytes, const stamp *sectors,
                    uint64_t first, uint64_t count)
{
    uint8_t want[SECTOR];
    char text[128];

    for (uint64_t i = 0; i < count; i++) {
        fill(want, first + i, sectors[first + i]);
        if (!memcmp(want, bytes + i * SECTOR, SECTOR))
            continue;
        snprintf(text, sizeof(text), "sector %llu has stamp %u, not %u",
                 (unsigned long long)(first + i), *(const uint32_t *)(bytes + i * SECTOR),
                 sectors[first + i]);
        fail(m, "contents", text);
    }
}

static void compare_all(struct model *m)
{
    static uint8_t bytes[256 * SECTOR];

    for (uint64_t first = 0; first < m->count; first += 256) {
        uint64_t n = MIN(m->count - first, 256);

        expect(m, blk_read(m->disk, first * SECTOR, bytes, n * SECTOR), "read", NULL);
        compare(m, bytes, m->sectors, first, n);
    }
}

static void write_raw(const struct model *m, const char *name, const stamp *sectors, uint64_t count)
{
    FILE *file = fopen(name, "w");
    uint8_t bytes[SECTOR];

    if (!file)
        fail(m, name, strerror(errno));
    for (uint64_t i = 0; i < count; i++) {
        fill(bytes, i, sectors[i]);
        if (fwrite(bytes, SECTOR, 1, file) != 1)
            fail(m, name, strerror(errno));
    }
    if (fclose(file) != 0)
        fail(m, name, strerror(errno));
}

/* ---- Opening and closing ---- */

static struct blk *open_file(const struct model *m, const char *name, const char *more)
{
    struct blk_options options;
    struct error err = {0};
    char text[128];
    struct blk *blk;

    snprintf(text, sizeof(text), "%s,format=raw%s", name, more);
    expect(m, blk_options_parse(text, &options, &err), "options", &err);
    blk = blk_open(&options, NULL, &err);
    blk_options_free(&options);
    if (!blk)
        fail(m, "open", err.text);
    return blk;
}

static void open_image(struct model *m)
{
    struct qcow2_how how = {.settled = m->settled};
    struct error err = {0};
    struct blk *file = open_file(m, m->image, m->kept ? ",discard=ignore" : "");

    if (m->backed)
        how.backing = open_file(m, m->backing, ",readonly");
    if (m->jumbled)
        file = jumbled_open(file, chance(m, 1000));
    m->disk = qcow2_open(file, &how, &err);
    if (!m->disk)
        fail(m, "qcow2_open", err.text);
}

/* Closes the image, and has QEMU look at it. */
static void close_image(struct model *m, bool qemu)
{
    char text[256];

    blk_close(m->disk);
    m->disk = NULL;
    if (!qemu)
        return;
    snprintf(text, sizeof(text), "check -q %s", m->image);
    run_qemu_img(m, text);
    write_raw(m, m->raw, m->sectors, m->count);
    snprintf(text, sizeof(text), "compare -q -f qcow2 -F raw %s %s", m->image, m->raw);
    run_qemu_img(m, text);
}

static void make_backing(struct model *m)
{
    uint64_t count = m->count / 2 + chance(m, m->count);
    stamp *sectors = calloc(count, sizeof(*sectors));

    for (uint64_t i = 0; i < count; i++)
        sectors[i] = chance(m, 3) ? m->next++ : 0;
    write_raw(m, m->backing, sectors, count);
    for (uint64_t i = 0; i < MIN(count, m->count); i++)
        m->sectors[i] = sectors[i];
    free(sectors);
}

static void make_image(struct model *m)
{
    static const uint64_t clusters[] = {512, 4096, 4096, 16384, 65536, 65536, 262144};
    static const uint64_t bits[] = {1, 2, 4, 8, 16, 16, 16, 32, 64};
    struct error err = {0};
    struct blk *file;

    m->what = (struct qcow2_create){
        .cluster_size = (unsigned)one_of(m, clusters, ARRAY_SIZE(clusters)),
        .version = chance(m, 4) ? 3 : 2,
    };
    m->count = m->what.cluster_size == 512 ? 1 + chance(m, 8192) : 1 + chance(m, SECTORS_MOST / 2);
    m->what.size = m->count * SECTOR;
    m->backed = chance(m, 2);
    m->settled = chance(m, 8) == 0;
    m->packed = chance(m, 3) == 0;
    m->jumbled = chance(m, 2);
    m->kept = chance(m, 4) == 0;
    if (m->what.version == 3) {
        m->what.lazy_refcounts = chance(m, 3) == 0;
        m->what.refcount_bits = (unsigned)one_of(m, bits, ARRAY_SIZE(bits));
        m->what.compression = chance(m, 2) ? QCOW2_ZSTD : QCOW2_ZLIB;
        /* Small refcounts do not reach far, if many packed clusters share one of the file. */
        if (m->packed)
            m->what.refcount_bits = MAX(m->what.refcount_bits, 16);
    }
    m->sectors = calloc(SECTORS_MOST, sizeof(stamp));
    if (m->backed) {
        m->what.backing = m->backing;
        m->what.backing_format = "raw";
        make_backing(m);
    }
    fclose(fopen(m->image, "w"));
    file = open_file(m, m->image, "");
    expect(m, qcow2_create(file, &m->what, &err), "qcow2_create", &err);
    blk_close(file);
    printf("%s: version %u, clusters %u, refcounts %u, %llu sectors%s%s%s%s%s%s\n", m->image,
           m->what.version, m->what.cluster_size, m->what.refcount_bits,
           (unsigned long long)m->count, m->backed ? ", backed" : "",
           m->what.lazy_refcounts ? ", lazy" : "", m->settled ? ", settled" : "",
           m->packed ? ", compressed" : "", m->jumbled ? ", jumbled" : "", m->kept ? ", kept" : "");
    fflush(stdout);
}

/* ---- Requests ---- */

static void ended(struct blk_request *request, int result)
{
    struct operation *op = container_of(request, struct operation, request);

    op->result = result;
    sem_post(op->ended);
}

static bool overlaps(const struct operation *ops, unsigned n, uint64_t first, uint64_t count)
{
    for (unsigned i = 0; i < n; i++)
        if (ops[i].first < first + count && first < ops[i].first + ops[i].count)
            return true;
    return false;
}

/* Splits the buffer at random places. */
static void set_buffers(struct model *m, struct operation *op)
{
    uint64_t size = op->count * SECTOR, at = 0;
    unsigned n = 1 + (unsigned)chance(m, 3);

    op->request.iovs = 0;
    for (unsigned i = 0; i < n && at < size; i++) {
        uint64_t part = i + 1 == n ? size - at : 1 + chance(m, size - at);

        op->iov[op->request.iovs++] = (struct iovec){op->bytes + at, part};
        at += part;
    }
    op->request.iov = op->iov;
}

/* What the sector holds after it was discarded, or overwritten with zeroes. */
static void apply_zeroes(struct model *m, const struct operation *op)
{
    if (op->request.kind == BLK_DISCARD && m->what.version == 2 && m->backed)
        return;
    memset(m->sectors + op->first, 0, op->count * sizeof(stamp));
}

static void prepare(struct model *m, struct operation *op)
{
    switch (chance(m, 16)) {
    case 0:
        op->request.kind = BLK_FLUSH;
        op->count = 0;
        return;
    case 1:
    case 2: op->request.kind = BLK_DISCARD; break;
    case 3: op->request.kind = BLK_ZEROES; break;
    case 4:
    case 5:
    case 6:
    case 7: op->request.kind = BLK_READ; break;
    default: op->request.kind = BLK_WRITE;
    }
    op->request.unmap = chance(m, 2);
    op->request.offset = op->first * SECTOR;
    op->request.size = op->count * SECTOR;
    if (op->request.kind == BLK_WRITE) {
        for (uint64_t i = 0; i < op->count; i++) {
            m->sectors[op->first + i] = m->next;
            fill(op->bytes + i * SECTOR, op->first + i, m->next++);
        }
    } else if (op->request.kind == BLK_DISCARD || op->request.kind == BLK_ZEROES) {
        apply_zeroes(m, op);
    }
    set_buffers(m, op);
}

/* Makes OP discard what OTHER writes at the same time. */
static void make_rival(struct model *m, struct operation *op, const struct operation *other)
{
    op->request = (struct blk_request){.kind = chance(m, 2) ? BLK_DISCARD : BLK_ZEROES,
                                       .unmap = chance(m, 2),
                                       .offset = other->request.offset,
                                       .size = other->request.size,
                                       .done = ended};
    op->first = other->first;
    op->count = other->count;
    op->ended = other->ended;
    op->rival = true;
}

/* Each sector that OP discarded has been written before or after that. */
static void settle_rival(struct model *m, const struct operation *op)
{
    static uint8_t bytes[REQUEST_MOST * SECTOR];

    expect(m, blk_read(m->disk, op->request.offset, bytes, op->request.size), "read", NULL);
    for (uint64_t i = 0; i < op->count; i++)
        if (!*(const uint32_t *)(bytes + i * SECTOR))
            m->sectors[op->first + i] = 0;
    compare(m, bytes, m->sectors, op->first, op->count);
}

/* Makes up to BATCH requests that do not overlap, though they meet in clusters. */
static unsigned make_batch(struct model *m, struct operation *ops, sem_t *semaphore)
{
    static const uint64_t sizes[] = {1, 1, 8, 8, 8, 32, 128, REQUEST_MOST};
    unsigned n = 0, want = 1 + (unsigned)chance(m, BATCH);
    uint64_t near = chance(m, m->count);

    for (unsigned i = 0; i < want && n < BATCH; i++) {
        struct operation *op = &ops[n];
        uint64_t count = 1 + chance(m, one_of(m, sizes, ARRAY_SIZE(sizes)));
        uint64_t first = chance(m, 2) ? near + chance(m, 512) : chance(m, m->count);

        count = MIN(count, m->count);
        first = MIN(first, m->count - count);
        if (overlaps(ops, n, first, count))
            continue;
        op->request = (struct blk_request){.done = ended};
        op->rival = false;
        op->first = first;
        op->count = count;
        op->ended = semaphore;
        prepare(m, op);
        n++;
        if (op->request.kind == BLK_WRITE && n < BATCH && chance(m, 4) == 0)
            make_rival(m, &ops[n++], op);
    }
    return n;
}

/* Half of a batch is submitted by a second thread. */
struct helper {
    struct model *m;
    struct operation *ops;
    unsigned first, end;
    sem_t go, gone;
    bool over;
};

static void submit(struct model *m, struct operation *ops, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        blk_submit(m->disk, &ops[i].request);
    blk_kick(m->disk);
}

static void *help(void *opaque)
{
    struct helper *h = opaque;

    for (;;) {
        sem_wait(&h->go);
        if (h->over)
            return NULL;
        submit(h->m, h->ops, h->first, h->end);
        sem_post(&h->gone);
    }
}

static void do_batch(struct model *m, struct helper *h)
{
    static uint8_t bytes[BATCH][REQUEST_MOST * SECTOR];
    static const char *const names[] = {"read", "write", "flush", "discard", "zeroes"};
    struct operation ops[BATCH];
    sem_t semaphore;
    unsigned n;

    sem_init(&semaphore, 0, 0);
    for (unsigned i = 0; i < BATCH; i++)
        ops[i].bytes = bytes[i];
    n = make_batch(m, ops, &semaphore);
    h->ops = ops;
    h->first = n / 2;
    h->end = n;
    sem_post(&h->go);
    submit(m, ops, 0, n / 2);
    sem_wait(&h->gone);
    for (unsigned i = 0; i < n; i++)
        sem_wait(&semaphore);
    for (unsigned i = 0; i < n; i++) {
        expect(m, ops[i].result, names[ops[i].request.kind], NULL);
        if (ops[i].request.kind == BLK_READ)
            compare(m, ops[i].bytes, m->sectors, ops[i].first, ops[i].count);
        if (ops[i].rival)
            settle_rival(m, &ops[i]);
    }
    sem_destroy(&semaphore);
    m->done += n;
}

/* ---- What is done alone ---- */

static void name_of(unsigned i, char name[16])
{
    snprintf(name, 16, "snapshot-%u", i);
}

/* Whether a snapshot could not be made or applied because refcounts are too small. */
static bool too_small(const struct model *m, int ret)
{
    return ret == -ERANGE && m->what.refcount_bits < 8;
}

static void make_snapshot(struct model *m, struct snapshot *s, const char *name)
{
    struct error err = {0};
    int ret = qcow2_snapshot_create(m->disk, name, &err);

    if (too_small(m, ret))
        return;
    expect(m, ret, "snapshot", &err);
    s->sectors = malloc(SECTORS_MOST * sizeof(stamp));
    memcpy(s->sectors, m->sectors, SECTORS_MOST * sizeof(stamp));
    s->count = m->count;
    s->there = true;
}

static void apply_snapshot(struct model *m, const struct snapshot *s, const char *name)
{
    struct error err = {0};
    int ret = qcow2_snapshot_apply(m->disk, name, &err);

    if (too_small(m, ret))
        return;
    expect(m, ret, "apply", &err);
    memcpy(m->sectors, s->sectors, SECTORS_MOST * sizeof(stamp));
    m->count = s->count;
}

static void do_snapshot(struct model *m)
{
    unsigned i = (unsigned)chance(m, SNAPSHOTS);
    struct snapshot *s = &m->snapshot[i];
    struct error err = {0};
    char name[16];

    name_of(i, name);
    if (!s->there) {
        make_snapshot(m, s, name);
    } else if (chance(m, 2)) {
        apply_snapshot(m, s, name);
    } else {
        expect(m, qcow2_snapshot_delete(m->disk, name, &err), "delete", &err);
        free(s->sectors);
        s->there = false;
    }
}

static void do_resize(struct model *m)
{
    uint64_t count = 1 + chance(m, MIN(2 * m->count, SECTORS_MOST));
    struct error err = {0};
    int ret = blk_resize(m->disk, count * SECTOR, &err);

    if (ret == -ENOTSUP && m->what.version == 2)
        return; /* it has snapshots */
    expect(m, ret, "resize", &err);
    if (count > m->count)
        memset(m->sectors + m->count, 0, (count - m->count) * sizeof(stamp));
    m->count = count;
}

static void do_packed(struct model *m)
{
    static uint8_t bytes[512 * SECTOR];
    uint64_t per_cluster = m->what.cluster_size / SECTOR;
    uint64_t first = chance(m, m->count) / per_cluster * per_cluster;
    uint64_t count = MIN(per_cluster, m->count - first);
    struct error err = {0};

    for (uint64_t i = 0; i < count; i++) {
        m->sectors[first + i] = m->next;
        fill(bytes + i * SECTOR, first + i, m->next++);
    }
    expect(m, qcow2_write_compressed(m->disk, first * SECTOR, bytes, count * SECTOR, &err),
           "write compressed", &err);
}

static void report(void *opaque, const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void do_check(struct model *m)
{
    struct qcow2_check how = {.report = report};
    struct qcow2_checked found;
    struct error err = {0};

    expect(m, qcow2_check(m->disk, &how, &found, &err), "check", &err);
    if (found.errors || found.leaks)
        fail(m, "check", "errors or leaks");
}

static void do_alone(struct model *m)
{
    switch (chance(m, 12)) {
    case 0:
    case 1:
    case 2: do_snapshot(m); break;
    case 3: do_resize(m); break;
    case 4: do_check(m); break;
    case 5:
        close_image(m, chance(m, 2));
        open_image(m);
        break;
    case 6: compare_all(m); break;
    default:
        if (m->packed)
            do_packed(m);
    }
    m->done++;
}

/* ---- An image ---- */

static void run_image(uint64_t seed, uint64_t operations)
{
    struct model m = {.random = seed * 2 + 1, .next = 1};
    struct helper h = {.m = &m};
    pthread_t thread;

    for (unsigned i = 0; i < 20; i++)
        chance(&m, 2);
    snprintf(m.image, sizeof(m.image), "model-%d-%llu.qcow2", getpid(), (unsigned long long)seed);
    snprintf(m.backing, sizeof(m.backing), "model-%d.base", getpid());
    snprintf(m.raw, sizeof(m.raw), "model-%d.raw", getpid());
    make_image(&m);
    open_image(&m);
    sem_init(&h.go, 0, 0);
    sem_init(&h.gone, 0, 0);
    pthread_create(&thread, NULL, help, &h);
    while (m.done < operations) {
        if (chance(&m, 24) == 0)
            do_alone(&m);
        else
            do_batch(&m, &h);
    }
    h.over = true;
    sem_post(&h.go);
    pthread_join(thread, NULL);
    compare_all(&m);
    close_image(&m, true);
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        if (m.snapshot[i].there)
            free(m.snapshot[i].sectors);
    free(m.sectors);
    unlink(m.image);
    unlink(m.backing);
    unlink(m.raw);
}

int main(int argc, char **argv)
{
    uint64_t operations = argc > 1 ? strtoull(argv[1], NULL, 10) : 5 * PER_IMAGE;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

    for (uint64_t done = 0; done < operations; done += PER_IMAGE, seed++) {
        printf("seed %llu: ", (unsigned long long)seed);
        run_image(seed, MIN(PER_IMAGE, operations - done));
    }
    return 0;
}
