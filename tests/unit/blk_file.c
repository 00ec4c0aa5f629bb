/*
 * Raw files: what is written is read again, in every way that a request can take; holes, zeroes,
 * parts, ends that are no multiple of a block, and what cannot be opened.
 */
#include "test.h"

#include "blk_rig.h"

#include <errno.h>

/* The ways to open a file that must not make a difference. */
static const struct way {
    const char *more;
    struct blk_host host;
} ways[] = {
    {"", {.lane = BLK_LANE_THREADS}},
    {"", {.lane = BLK_LANE_URING}},
    {",cache=none", {.lane = BLK_LANE_THREADS}},
    {",cache=none", {.lane = BLK_LANE_URING}},
    {",cache=none", {.align = 4096}},
};

/* Whether the tests' folder has direct I/O; without, cache=none is refused, which has a test. */
static bool have_direct(void)
{
    char name[64];
    int fd;

    make_file(name, 4096);
    fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
    unlink(name);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool have_uring(const char *name)
{
    const struct blk_host host = {.lane = BLK_LANE_URING};
    struct error err = {0};
    struct blk *blk = open_with(name, &host, &err);

    if (!blk)
        assert_non_null(strstr(err.text, "the host has no io_uring for it"));
    blk_close(blk);
    return blk != NULL;
}

/* Calls TEST for each way, with a file of SIZE bytes. */
static void each_way(off_t size, void (*test)(const char *name, const struct way *way))
{
    bool direct = have_direct();
    char name[64];

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        if (*ways[i].more && !direct)
            continue;
        make_file(name, size);
        if (ways[i].host.lane != BLK_LANE_URING || have_uring(name))
            test(name, &ways[i]);
        unlink(name);
    }
}

/* ---- Contents ---- */

#define MODEL_SIZE (2 * MiB)
#define MODEL_ASKS 16

struct model {
    uint8_t *bytes;
    uint64_t seed;
    struct asks asks;
    struct asked asked[MODEL_ASKS];
    uint8_t *buffer[MODEL_ASKS]; /* one byte more than needed, so that it can be misaligned */
    uint64_t offset[MODEL_ASKS], size[MODEL_ASKS];
};

static uint64_t draw(struct model *m, uint64_t below)
{
    m->seed = m->seed * 6364136223846793005 + 1442695040888963407;
    return (m->seed >> 33) % below;
}

/* Asks for something in the I-th sixteenth, so that requests in flight never overlap. */
static void ask_model(struct model *m, struct blk *blk, unsigned i)
{
    uint64_t span = MODEL_SIZE / MODEL_ASKS, from = draw(m, span / 512);
    uint64_t wanted = 512 * (1 + draw(m, 64)), size = MIN(wanted, span - 512 * from);
    enum blk_kind kind = (enum blk_kind[]){BLK_READ,   BLK_READ,    BLK_WRITE, BLK_WRITE,
                                           BLK_ZEROES, BLK_DISCARD, BLK_FLUSH}[draw(m, 7)];
    uint64_t offset = i * span + 512 * from;
    uint8_t *buffer = m->buffer[i] + draw(m, 2);

    m->offset[i] = offset;
    m->size[i] = size;
    fill(buffer, size, m->seed);
    if (kind == BLK_WRITE)
        memcpy(m->bytes + offset, buffer, size);
    else if (kind == BLK_ZEROES || kind == BLK_DISCARD)
        memset(m->bytes + offset, 0, size);
    ask(&m->asks, blk, &m->asked[i], kind, offset, buffer, size);
}

static void check_model(struct model *m)
{
    for (unsigned i = 0; i < MODEL_ASKS; i++) {
        assert_int_equal(m->asked[i].result, 0);
        if (m->asked[i].request.kind == BLK_READ)
            assert_memory_equal(m->asked[i].iov.iov_base, m->bytes + m->offset[i], m->size[i]);
    }
}

/* Has the host drop what its page cache has of the file, so that reads must wait. */
static void forget(const char *name, struct blk *blk)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);

    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
}

/* Random requests, sixteen at a time, beside a model. */
static void follow_model(const char *name, const struct way *way)
{
    struct model m = {.bytes = calloc(1, MODEL_SIZE), .seed = 9};
    struct blk *blk = open_disk(name, way->more, &way->host);
    uint8_t *all = malloc(MODEL_SIZE);

    begin_asks(&m.asks);
    for (unsigned i = 0; i < MODEL_ASKS; i++)
        m.buffer[i] = malloc(64 * 512 + 1);
    for (unsigned round = 0; round < 60; round++) {
        if (round % 8 == 7)
            forget(name, blk);
        for (unsigned i = 0; i < MODEL_ASKS; i++)
            ask_model(&m, blk, i);
        await(&m.asks, blk);
        check_model(&m);
    }
    assert_int_equal(blk_read(blk, 0, all, MODEL_SIZE), 0);
    assert_memory_equal(all, m.bytes, MODEL_SIZE);
    blk_close(blk);
    blk = open_disk(name, ",readonly", NULL);
    assert_int_equal(blk_read(blk, 0, all, MODEL_SIZE), 0);
    assert_memory_equal(all, m.bytes, MODEL_SIZE);
    blk_close(blk);
    assert_int_equal(size_of(name), MODEL_SIZE);
    for (unsigned i = 0; i < MODEL_ASKS; i++)
        free(m.buffer[i]);
    free(m.bytes);
    free(all);
}

static void test_model(void **unused)
{
    each_way(MODEL_SIZE, follow_model);
}

/* Eight sectors of one block of the host's change at once, one of them to zeroes: none of
 * them undoes what another has done. */
static void share_block(const char *name, const struct way *way)
{
    enum { SECTORS = 8 };
    uint8_t *bytes = aligned_alloc(4096, 4096), *back = aligned_alloc(4096, 4096);
    struct blk *blk = open_disk(name, way->more, &way->host);
    struct asked asked[SECTORS];
    struct asks asks;

    begin_asks(&asks);
    for (unsigned round = 0; round < 30; round++) {
        fill(bytes, 4096, round + 1);
        memset(bytes + 512 * (round % SECTORS), 0, 512);
        for (unsigned i = 0; i < SECTORS; i++)
            ask(&asks, blk, &asked[i], i == round % SECTORS ? BLK_ZEROES : BLK_WRITE,
                4096 + 512 * i, bytes + 512 * i, 512);
        await(&asks, blk);
        for (unsigned i = 0; i < SECTORS; i++)
            assert_int_equal(asked[i].result, 0);
        assert_int_equal(blk_read(blk, 4096, back, 4096), 0);
        assert_memory_equal(bytes, back, 4096);
    }
    blk_close(blk);
    free(bytes);
    free(back);
}

static void test_one_block(void **unused)
{
    each_way(65536, share_block);
}

/* Threads that use one disk at once, each its own quarter. */
struct user {
    struct blk *blk;
    unsigned number;
    bool wrong;
};

static void *use_quarter(void *opaque)
{
    enum { COUNT = 8, SIZE = 4096, ROUNDS = 12 };
    struct user *user = opaque;
    uint8_t *bytes = aligned_alloc(4096, COUNT * SIZE), *back = aligned_alloc(4096, COUNT * SIZE);
    struct asked asked[COUNT + 1];
    struct asks asks;

    begin_asks(&asks);
    for (unsigned round = 0; round < ROUNDS; round++) {
        fill(bytes, COUNT * SIZE, 1000 * user->number + round);
        for (unsigned kind = BLK_WRITE;; kind = BLK_READ) {
            for (unsigned i = 0; i < COUNT; i++)
                ask(&asks, user->blk, &asked[i], (enum blk_kind)kind,
                    user->number * (MODEL_SIZE / 4) + i * SIZE,
                    (kind == BLK_WRITE ? bytes : back) + i * SIZE, SIZE);
            ask(&asks, user->blk, &asked[COUNT], BLK_FLUSH, 0, NULL, 0);
            await(&asks, user->blk);
            for (unsigned i = 0; i <= COUNT; i++)
                user->wrong |= asked[i].result != 0;
            if (kind == BLK_READ)
                break;
        }
        user->wrong |= memcmp(bytes, back, COUNT * SIZE) != 0;
    }
    free(bytes);
    free(back);
    return NULL;
}

static void use_by_many(const char *name, const struct way *way)
{
    struct blk *blk = open_disk(name, way->more, &way->host);
    struct user users[4] = {0};
    pthread_t threads[4];

    for (unsigned i = 0; i < ARRAY_SIZE(users); i++) {
        users[i] = (struct user){.blk = blk, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, use_quarter, &users[i]), 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(users); i++) {
        pthread_join(threads[i], NULL);
        assert_false(users[i].wrong);
    }
    assert_non_null(blk_where(blk, 0));
    blk_close(blk);
}

static void test_many_users(void **unused)
{
    each_way(MODEL_SIZE, use_by_many);
}

/* Many buffers, odd ones and more than one system call takes. */
static void scatter(const char *name, const struct way *way)
{
    enum { COUNT = 3000, SIZE = 512 * 1500 };
    struct blk *blk = open_disk(name, way->more, &way->host);
    struct iovec *iov = calloc(COUNT, sizeof(*iov));
    uint8_t *from = malloc(SIZE), *to = calloc(1, SIZE);
    struct blk_request request = {
        .kind = BLK_WRITE, .offset = 1024, .size = SIZE, .iov = iov, .iovs = COUNT};

    fill(from, SIZE, 1);
    for (unsigned i = 0; i < COUNT; i++)
        iov[i] = (struct iovec){.iov_base = from + i / 2 * 512 + (i % 2 ? 100 : 0),
                                .iov_len = i % 2 ? 412 : 100};
    assert_int_equal(blk_perform(blk, &request), 0);
    for (unsigned i = 0; i < COUNT; i++)
        iov[i].iov_base = to + ((uint8_t *)iov[i].iov_base - from);
    request.kind = BLK_READ;
    assert_int_equal(blk_perform(blk, &request), 0);
    assert_memory_equal(from, to, SIZE);
    blk_close(blk);
    free(from);
    free(to);
    free(iov);
}

static void test_many_buffers(void **unused)
{
    each_way(MiB, scatter);
}

/* ---- What is wrong with a request ---- */

static void test_bad_requests(void **unused)
{
    struct iovec huge[2] = {{NULL, SIZE_MAX}, {NULL, 513}};
    char name[64], sector[1024] = {0};
    struct blk_request bad = {.kind = BLK_READ, .offset = 0, .size = 512, .iov = huge, .iovs = 2};
    struct blk *blk;

    make_file(name, 4096);
    blk = open_disk(name, "", NULL);
    assert_int_equal(ask_once(blk, BLK_READ, 1, sector, 512), -EINVAL);
    assert_int_equal(ask_once(blk, BLK_WRITE, 0, sector, 100), -EINVAL);
    assert_int_equal(ask_once(blk, (enum blk_kind)5, 0, sector, 512), -EINVAL);
    assert_int_equal(blk_perform(blk, &bad), -EINVAL); /* the sizes' sum overflows */
    bad.iovs = 0;
    assert_int_equal(blk_perform(blk, &bad), -EINVAL);
    assert_int_equal(ask_once(blk, BLK_READ, 4096, sector, 512), -EIO);
    assert_int_equal(ask_once(blk, BLK_WRITE, 3584, sector, 1024), -EIO);
    assert_int_equal(blk_discard(blk, -512ULL, 1024), -EIO);
    assert_int_equal(blk_zeroes(blk, 512, -512ULL, true), -EIO);
    assert_int_equal(ask_once(blk, BLK_READ, 4096, sector, 0), 0);
    blk_close(blk);
    blk = open_disk(name, ",readonly", NULL);
    assert_true(blk_info(blk).readonly);
    assert_false(blk_info(blk).discards);
    assert_int_equal(ask_once(blk, BLK_READ, 0, sector, 512), 0);
    assert_int_equal(ask_once(blk, BLK_WRITE, 0, sector, 512), -EPERM);
    assert_int_equal(ask_once(blk, BLK_DISCARD, 0, NULL, 512), -EPERM);
    assert_int_equal(ask_once(blk, BLK_ZEROES, 0, NULL, 512), -EPERM);
    assert_int_equal(ask_once(blk, BLK_FLUSH, 0, NULL, 0), 0);
    blk_close(blk);
    unlink(name);
}

/* ---- Ends ---- */

/* A file of 1000 bytes is a disk of 1024, of which the last 24 read as zeroes. */
static void odd_end(const char *name, const struct way *way)
{
    uint8_t sector[1024], zeroes[24] = {0};
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    struct blk *blk;

    memset(sector, 'x', sizeof(sector));
    assert_int_equal(pwrite(fd, sector, 1000, 0), 1000);
    close(fd);
    blk = open_disk(name, way->more, &way->host);
    assert_int_equal(blk_info(blk).size, 1024);
    memset(sector, 0xff, sizeof(sector));
    assert_int_equal(blk_read(blk, 0, sector, 1024), 0);
    assert_int_equal(sector[999], 'x');
    assert_memory_equal(sector + 1000, zeroes, 24);
    memset(sector, 0xff, sizeof(sector));
    assert_int_equal(ask_once(blk, BLK_READ, 512, sector, 512), 0);
    assert_int_equal(sector[487], 'x');
    assert_memory_equal(sector + 488, zeroes, 24);
    assert_int_equal(blk_write(blk, 0, sector, 512), 0);
    assert_int_equal(size_of(name), 1000);
    assert_int_equal(blk_discard(blk, 512, 512), 0);
    assert_int_equal(blk_read(blk, 512, sector, 512), 0);
    assert_int_equal(sector[487], 0);
    memset(sector, 'y', sizeof(sector));
    assert_int_equal(blk_write(blk, 512, sector, 512), 0);
    assert_int_equal(size_of(name), 1024);
    assert_int_equal(blk_read(blk, 0, sector, 1024), 0);
    assert_int_equal(sector[1023], 'y');
    blk_close(blk);
}

static void test_odd_end(void **unused)
{
    each_way(1000, odd_end);
}

/* Somebody cuts the file off: what is gone is an error and not zeroes. */
static void cut_off(const char *name, const struct way *way)
{
    uint8_t buffer[4096];
    struct blk *blk = open_disk(name, way->more, &way->host);

    assert_int_equal(truncate(name, 8192), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 4096, buffer, 4096), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 8192, buffer, 4096), -EIO);
    assert_int_equal(ask_once(blk, BLK_READ, 61440, buffer, 4096), -EIO);
    blk_close(blk);
}

static void test_cut_off(void **unused)
{
    each_way(65536, cut_off);
}

static void test_parts(void **unused)
{
    uint8_t sector[512], whole[8192];
    struct blk *part, *all;
    char name[64];

    make_file(name, 8192);
    part = open_disk(name, ",offset=1K,size=2K", NULL);
    assert_int_equal(blk_info(part).size, 2048);
    memset(sector, 'p', sizeof(sector));
    assert_int_equal(ask_once(part, BLK_WRITE, 1536, sector, 512), 0);
    assert_int_equal(blk_write(part, 0, sector, 512), 0);
    assert_int_equal(ask_once(part, BLK_WRITE, 2048, sector, 512), -EIO);
    assert_int_equal(blk_zeroes(part, 1024, 512, false), 0);
    assert_int_equal(blk_resize(part, 4096, NULL), -EINVAL);
    blk_close(part);
    all = open_disk(name, "", NULL);
    assert_int_equal(blk_read(all, 0, whole, sizeof(whole)), 0);
    for (unsigned i = 0; i < sizeof(whole); i += 512)
        assert_int_equal(whole[i], i == 1024 || i == 2560 ? 'p' : 0);
    blk_close(all);
    part = open_disk(name, ",offset=4K", NULL);
    assert_int_equal(blk_info(part).size, 4096);
    assert_int_equal(blk_resize(part, 12288, NULL), 0);
    assert_int_equal(size_of(name), 16384);
    blk_close(part);
    refuse_disk(name, ",offset=100", NULL, EINVAL, "must be multiples of 512 bytes");
    refuse_disk(name, ",size=513", NULL, EINVAL, "must be multiples of 512 bytes");
    refuse_disk(name, ",offset=17K", NULL, EINVAL, "a part outside of it; it has 16384 bytes");
    refuse_disk(name, ",offset=1K,size=16K", NULL, EINVAL, "a part outside of it");
    unlink(name);
}

static void test_resize(void **unused)
{
    struct error err = {0};
    char name[64], sector[512];
    struct blk *blk;

    make_file(name, 4096);
    blk = open_disk(name, "", NULL);
    assert_int_equal(blk_resize(blk, 100, &err), -EINVAL);
    assert_int_equal(blk_resize(blk, 8192, &err), 0);
    assert_int_equal(blk_info(blk).size, 8192);
    assert_int_equal(blk_read(blk, 7680, sector, 512), 0);
    assert_int_equal(blk_resize(blk, 512, &err), 0);
    assert_int_equal(blk_read(blk, 512, sector, 512), -EIO);
    blk_close(blk);
    assert_int_equal(size_of(name), 512);
    blk = open_disk(name, ",readonly", NULL);
    assert_int_equal(blk_resize(blk, 8192, &err), -EPERM);
    blk_close(blk);
    unlink(name);
}

/* ---- Space ---- */

static void write_all(struct blk *blk, size_t size)
{
    uint8_t *bytes = malloc(size);

    memset(bytes, 'a', size);
    assert_int_equal(blk_write(blk, 0, bytes, size), 0);
    assert_int_equal(blk_flush(blk), 0);
    free(bytes);
}

/* Discards give the space back, but not with discard=ignore; zeroes do if they may. */
static void test_space(void **unused)
{
    uint8_t sector[512];
    struct blk *blk;
    char name[64];
    uint64_t full;

    make_file(name, 4 * MiB);
    blk = open_disk(name, ",discard=ignore", NULL);
    write_all(blk, 4 * MiB);
    full = blocks_of(name);
    assert_true(full >= 4 * MiB);
    assert_false(blk_info(blk).discards);
    assert_int_equal(ask_once(blk, BLK_DISCARD, 0, NULL, MiB), 0);
    assert_int_equal(blk_read(blk, 0, sector, 512), 0);
    assert_int_equal(sector[0], 'a');
    assert_int_equal(blk_zeroes(blk, 0, MiB, true), 0);
    assert_int_equal(blk_read(blk, 0, sector, 512), 0);
    assert_int_equal(sector[0], 0);
    assert_int_equal(blocks_of(name), full);
    blk_close(blk);
    blk = open_disk(name, "", NULL);
    assert_true(blk_info(blk).discards);
    assert_int_equal(ask_once(blk, BLK_DISCARD, MiB, NULL, MiB), 0);
    assert_in_range(blocks_of(name), full - MiB, full - MiB + 64 * KiB);
    assert_int_equal(blk_zeroes(blk, 2 * MiB, MiB, false), 0);
    assert_in_range(blocks_of(name), full - MiB, full - MiB + 64 * KiB);
    assert_int_equal(blk_zeroes(blk, 2 * MiB, MiB, true), 0);
    assert_in_range(blocks_of(name), full - 2 * MiB, full - 2 * MiB + 64 * KiB);
    assert_int_equal(blk_read(blk, 3 * MiB - 512, sector, 512), 0);
    assert_int_equal(sector[511], 0);
    assert_int_equal(blk_read(blk, 3 * MiB, sector, 512), 0);
    assert_int_equal(sector[0], 'a');
    blk_close(blk);
    unlink(name);
}

/* ---- What cannot be opened ---- */

static void test_refused(void **unused)
{
    char name[64];

    refuse_disk("no-such-disk", "", NULL, ENOENT, "cannot open the disk 'no-such-disk'");
    refuse_disk(".", ",readonly", NULL, EINVAL, "a directory");
    refuse_disk("/dev/null", "", NULL, EINVAL, "not a file or a block device");
    make_file(name, 4096);
    unlink(name);
    assert_int_equal(mkfifo(name, 0600), 0);
    refuse_disk(name, ",readonly", NULL, EINVAL, "not a file or a block device");
    unlink(name);
    if (access("/proc/self/status", R_OK) == 0)
        refuse_disk("/proc/self/status", ",readonly,cache=none", NULL, EINVAL,
                    "cache=none needs; use cache=writeback");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),        cmocka_unit_test(test_one_block),
        cmocka_unit_test(test_many_users),   cmocka_unit_test(test_many_buffers),
        cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_odd_end),
        cmocka_unit_test(test_cut_off),      cmocka_unit_test(test_parts),
        cmocka_unit_test(test_resize),       cmocka_unit_test(test_space),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
