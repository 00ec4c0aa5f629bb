/*
 * Disks that an NBD server has: one of the test's own, which misbehaves on demand, and QEMU's.
 */
#include "test.h"

#include "blk_rig.h"
#include "nbd_server.h"

#include "base/time.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static const struct nbd_manners good;

static struct blk *open_at(const struct nbd_server *s, const char *more,
                           const struct blk_host *host)
{
    char uri[128];

    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", s->path);
    return open_disk(uri, more, host);
}

static void refuse_at(const struct nbd_server *s, const char *more, const struct blk_host *host,
                      int code, const char *words)
{
    char uri[128];

    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", s->path);
    refuse_disk(uri, more, host, code, words);
}

/* ---- A good server ---- */

/* Many requests at once, with buffers in pieces, larger than what goes at once, at odd addresses.
 */
static void move_much(struct blk *blk)
{
    enum { COUNT = 48, SIZE = 3 * 512 * 1024 / 2 };
    uint8_t *bytes = malloc(COUNT * SIZE), *back = calloc(COUNT, SIZE);
    struct asked *asked = calloc(COUNT, sizeof(*asked));
    struct iovec iov[COUNT][3];
    struct asks asks;

    fill(bytes, COUNT * SIZE, 3);
    begin_asks(&asks);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            char *from = (char *)(round ? back : bytes) + i * SIZE;

            iov[i][0] = (struct iovec){from, 1};
            iov[i][1] = (struct iovec){from + 1, SIZE / 2};
            iov[i][2] = (struct iovec){from + 1 + SIZE / 2, SIZE - SIZE / 2 - 1};
            prepare_ask(&asks, &asked[i], round ? BLK_READ : BLK_WRITE, (uint64_t)i * SIZE, from,
                        SIZE);
            if (i % 2) {
                asked[i].request.iov = iov[i];
                asked[i].request.iovs = 3;
            }
            blk_submit(blk, &asked[i].request);
        }
        await(&asks, blk);
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(asked[i].result, 0);
    }
    assert_memory_equal(bytes, back, COUNT * SIZE);
    free(bytes);
    free(back);
    free(asked);
}

static void test_good(void **unused)
{
    struct nbd_server s;
    struct blk *blk;
    char sector[512];

    nbd_server_start(&s, 40 * MiB, NBD_ALL, good);
    blk = open_at(&s, "", NULL);
    assert_int_equal(blk_info(blk).size, 40 * MiB);
    assert_int_equal(blk_info(blk).block, 512);
    assert_true(blk_info(blk).discards && blk_info(blk).zeroes);
    move_much(blk);
    assert_int_equal(ask_once(blk, BLK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(ask_once(blk, BLK_DISCARD, 0, NULL, MiB), 0);
    assert_int_equal(blk_zeroes(blk, 4096, 4096, true), 0);
    assert_int_equal(blk_zeroes(blk, 8192, 4096, false), 0);
    assert_int_equal(s.counts[3], 1);
    assert_int_equal(s.counts[4], 1);
    assert_int_equal(s.counts[6], 2);
    assert_int_equal(ask_once(blk, BLK_READ, 40 * MiB, sector, 512), -EIO);
    assert_non_null(blk_where(blk, 0));
    assert_int_equal(blk_resize(blk, MiB, NULL), -ENOTSUP);
    blk_close(blk);
    nbd_server_end(&s);
}

/* A part of a server's disk, with a limit. */
static void test_part(void **unused)
{
    struct nbd_server s;
    struct blk *blk;
    char sector[512];

    nbd_server_start(&s, MiB, NBD_ALL, good);
    blk = open_at(&s, ",offset=4K,size=8K,bps=100M", NULL);
    memset(sector, 'n', sizeof(sector));
    assert_int_equal(blk_write(blk, 1024, sector, 512), 0);
    assert_int_equal(s.disk[5 * 1024], 'n');
    assert_int_equal(blk_write(blk, 8192, sector, 512), -EIO);
    blk_close(blk);
    nbd_server_end(&s);
}

/* What a server cannot do is done otherwise or not at all. */
static void test_lacks(void **unused)
{
    struct nbd_server s;
    struct blk *blk;
    uint8_t bytes[1024];

    nbd_server_start(&s, 2 * MiB + 100, NBD_HAS_FLAGS, good);
    blk = open_at(&s, "", NULL);
    assert_int_equal(blk_info(blk).size, 2 * MiB); /* whole blocks only */
    assert_false(blk_info(blk).discards || blk_info(blk).zeroes);
    memset(s.disk, 'x', s.size);
    assert_int_equal(blk_zeroes(blk, 512, MiB, true), 0);
    assert_int_equal(s.disk[511], 'x');
    assert_int_equal(s.disk[512], 0);
    assert_int_equal(s.disk[512 + MiB - 1], 0);
    assert_int_equal(s.disk[512 + MiB], 'x');
    assert_int_equal(blk_discard(blk, 0, 512), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(s.disk[0], 'x');
    assert_int_equal(s.requests, s.counts[1]);
    assert_int_equal(blk_read(blk, 0, bytes, 1024), 0);
    assert_int_equal(bytes[511], 'x');
    blk_close(blk);
    nbd_server_end(&s);
}

/* A server may have larger blocks than a disk usually has, but not any. */
static void test_blocks(void **unused)
{
    struct nbd_server s;
    struct blk *blk;
    char block[4096];

    nbd_server_start(&s, MiB + 512, NBD_ALL, (struct nbd_manners){.block = 4096});
    blk = open_at(&s, "", NULL);
    assert_int_equal(blk_info(blk).block, 4096);
    assert_int_equal(blk_info(blk).size, MiB);
    assert_int_equal(blk_read(blk, 4096, block, 4096), 0);
    assert_int_equal(blk_read(blk, 512, block, 512), -EINVAL);
    blk_close(blk);
    nbd_server_end(&s);
    nbd_server_start(&s, MiB, NBD_ALL, (struct nbd_manners){.block = 65536});
    refuse_at(&s, "", NULL, EINVAL, "its blocks are of 65536 bytes; 4096 are the most");
    nbd_server_end(&s);
}

static void test_readonly(void **unused)
{
    struct nbd_server s;
    struct blk *blk;
    char sector[512] = {0};

    nbd_server_start(&s, MiB, NBD_ALL | NBD_READ_ONLY, good);
    refuse_at(&s, "", NULL, EROFS, "the server lets it only be read; add ',readonly'");
    nbd_server_end(&s);
    nbd_server_start(&s, MiB, NBD_ALL | NBD_READ_ONLY, good);
    blk = open_at(&s, ",readonly", NULL);
    assert_int_equal(blk_read(blk, 0, sector, 512), 0);
    assert_int_equal(blk_write(blk, 0, sector, 512), -EPERM);
    blk_close(blk);
    nbd_server_end(&s);
}

/* ---- Bad ones ---- */

/* The server is gone in the middle of twenty requests: those that it has not answered fail, all
 * later ones do, and one line says why. */
static void lose(struct nbd_manners manners, const char *words)
{
    enum { COUNT = 20 };
    struct lines lines = {0};
    const struct log log = {.most = LOG_LEVEL_INFO, .line = keep_line, .opaque = &lines};
    const struct blk_host host = {.log = &log, .patience_ns = 3 * NS_PER_S};
    struct asked asked[COUNT];
    struct nbd_server s;
    unsigned failed = 0;
    struct asks asks;
    struct blk *blk;
    char sector[512];

    nbd_server_start(&s, MiB, NBD_ALL, manners);
    blk = open_at(&s, "", &host);
    begin_asks(&asks);
    for (unsigned i = 0; i < COUNT; i++)
        ask(&asks, blk, &asked[i], BLK_READ, 512 * i, sector, 512);
    await(&asks, blk);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_true(asked[i].result == 0 || asked[i].result == -EIO);
        failed += asked[i].result != 0;
    }
    assert_in_range(failed, COUNT - 4, COUNT);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(ask_once(blk, (enum blk_kind)i, 0, sector, 512), -EIO);
    assert_int_equal(lines.count, 1);
    assert_non_null(strstr(lines.last, "the server is gone"));
    assert_non_null(strstr(lines.last, words));
    blk_close(blk);
    nbd_server_end(&s);
}

static void test_leaves(void **unused)
{
    lose((struct nbd_manners){.leaves = 5}, "it has closed the connection");
}

static void test_falls_mute(void **unused)
{
    lose((struct nbd_manners){.falls_mute = 5}, "it does not answer");
}

/* Bytes are no answers. */
static void test_trickles(void **unused)
{
    lose((struct nbd_manners){.trickles = 5}, "it does not answer");
}

/* It answers in time, again and again, and yet no request may take for ever. */
static void test_crawls(void **unused)
{
    enum { PIECES = 40 };
    struct lines lines = {0};
    const struct log log = {.most = LOG_LEVEL_INFO, .line = keep_line, .opaque = &lines};
    const struct blk_host host = {.log = &log, .patience_ns = 400 * NS_PER_MS};
    char *much = malloc(PIECES * 512 * KiB);
    struct nbd_server s;
    struct blk *blk;

    nbd_server_start(&s, PIECES * 512 * KiB, NBD_ALL, (struct nbd_manners){.crawls = 2});
    blk = open_at(&s, "", &host);
    assert_int_equal(ask_once(blk, BLK_READ, 0, much, 512), 0);
    /* 8 s of answers, of which it has 4. */
    assert_int_equal(ask_once(blk, BLK_READ, 0, much, PIECES * 512 * KiB), -EIO);
    assert_int_equal(lines.count, 1);
    assert_non_null(strstr(lines.last, "the server is gone"));
    blk_close(blk);
    nbd_server_end(&s);
    free(much);
}

/* An error of the server's is the result of that request, and the rest goes on. */
static void test_errors(void **unused)
{
    static const struct {
        uint32_t error;
        int result;
    } cases[] = {{5, -EIO}, {28, -ENOSPC}, {1, -EPERM}, {22, -EINVAL}, {108, -EIO}};
    char sector[512] = {0};

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct nbd_server s;
        struct blk *blk;

        nbd_server_start(&s, MiB, NBD_ALL,
                         (struct nbd_manners){.errs = 2, .error = cases[i].error});
        blk = open_at(&s, "", NULL);
        assert_int_equal(blk_write(blk, 0, sector, 512), 0);
        assert_int_equal(ask_once(blk, BLK_WRITE, 0, sector, 512), cases[i].result);
        assert_int_equal(blk_write(blk, 0, sector, 512), 0);
        blk_close(blk);
        nbd_server_end(&s);
    }
}

/* After a flush that failed nobody knows what the server still has: no later one succeeds. */
static void test_flush_fails(void **unused)
{
    struct lines lines = {0};
    const struct log log = {.most = LOG_LEVEL_INFO, .line = keep_line, .opaque = &lines};
    const struct blk_host host = {.log = &log};
    struct nbd_server s;
    char sector[512] = {0};
    struct blk *blk;

    nbd_server_start(&s, MiB, NBD_ALL, (struct nbd_manners){.errs = 2, .error = 28});
    blk = open_at(&s, "", &host);
    assert_int_equal(blk_write(blk, 0, sector, 512), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(blk_flush(blk), -EIO);
        assert_int_equal(blk_write(blk, 0, sector, 512), 0);
    }
    assert_int_equal(lines.count, 1);
    assert_non_null(strstr(lines.last, "from now on each flush fails"));
    blk_close(blk);
    nbd_server_end(&s);
}

static void test_refused(void **unused)
{
    const struct blk_host hurry = {.patience_ns = 50 * NS_PER_MS};
    struct nbd_server s;

    nbd_server_start(&s, MiB, NBD_ALL, (struct nbd_manners){.rude = true});
    refuse_at(&s, "", NULL, 0, "no connection to the server: ");
    nbd_server_end(&s);
    nbd_server_start(&s, MiB, NBD_ALL, (struct nbd_manners){.deaf = true});
    refuse_at(&s, "", &hurry, ETIMEDOUT, "the server does not answer");
    nbd_server_end(&s);
    refuse_at(&s, "", NULL, ENOENT, "No such file or directory");
    refuse_disk("nbd:unix:/x", "", NULL, EINVAL, "disk 'nbd:unix:/x': ");
}

/* ---- QEMU's ---- */

static bool have_qemu(void)
{
    return system("qemu-nbd --version > /dev/null 2>&1") == 0;
}

/* Starts qemu-nbd for the file NAME, and waits until it listens. */
static pid_t start_qemu(const char *name, const char *path)
{
    pid_t pid = fork();

    if (pid == 0) {
        execlp("qemu-nbd", "qemu-nbd", "-f", "raw", "--discard=unmap", "-k", path, "-t", name,
               NULL);
        _exit(127);
    }
    while (access(path, F_OK) < 0) {
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        time_sleep_ns(5 * NS_PER_MS);
    }
    return pid;
}

static void test_qemu(void **unused)
{
    char name[64], path[256], folder[160];
    uint8_t *bytes = malloc(4 * MiB);
    struct nbd_server at;
    struct blk *blk;
    pid_t pid;

    if (!have_qemu())
        skip();
    make_file(name, 40 * MiB);
    /* It wants the socket's whole path. */
    assert_non_null(getcwd(folder, sizeof(folder)));
    snprintf(at.path, sizeof(at.path), "unit-blk-qemu-%d", (int)getpid());
    snprintf(path, sizeof(path), "%s/%s", folder, at.path);
    pid = start_qemu(name, path);
    blk = open_at(&at, "", NULL);
    assert_int_equal(blk_info(blk).size, 40 * MiB);
    move_much(blk);
    assert_true(blk_info(blk).discards && blk_info(blk).zeroes);
    assert_int_equal(blk_flush(blk), 0);
    assert_true(blocks_of(name) >= 36 * MiB);
    assert_int_equal(blk_discard(blk, 0, 8 * MiB), 0);
    assert_true(blocks_of(name) <= 29 * MiB);
    assert_int_equal(blk_zeroes(blk, 8 * MiB, 4 * MiB, false), 0);
    assert_int_equal(blk_read(blk, 8 * MiB, bytes, 4 * MiB), 0);
    for (unsigned i = 0; i < 4 * MiB; i++)
        assert_int_equal(bytes[i], 0);
    /* It dies. */
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(ask_once(blk, BLK_READ, 0, bytes, 512), -EIO);
    blk_close(blk);
    unlink(path);
    unlink(name);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_part),
        cmocka_unit_test(test_lacks),       cmocka_unit_test(test_readonly),
        cmocka_unit_test(test_blocks),      cmocka_unit_test(test_leaves),
        cmocka_unit_test(test_falls_mute),  cmocka_unit_test(test_trickles),
        cmocka_unit_test(test_crawls),      cmocka_unit_test(test_errors),
        cmocka_unit_test(test_flush_fails), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
