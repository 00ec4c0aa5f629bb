/*
 * Raw files on a host that fails: each call to the host fails once, while a disk is opened and
 * while it is used. The request that needed the call has the error as its result, and no other has.
 *
 * The linker has these calls of the library made here first (--wrap).
 */
#include "test.h"

#include "blk_rig.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdarg.h>

/* What the calls do now. */
static struct {
    _Atomic unsigned left; /* the call that makes this 0 fails; 0: none does */
    _Atomic int code;      /* by this errno */
    _Atomic unsigned hit;  /* calls that have failed */
    _Atomic bool cold;     /* nothing is in the page cache */
    _Atomic bool opening;  /* the calls are those of blk_open */
    /* What the host lacks: io_uring, the kernel's newer kinds of rings, statx(2) for direct I/O,
     * locks of open files. */
    _Atomic bool no_ring, old_ring, old_statx, no_locks;
} faults;

/* Whether this call fails: then errno says why. */
static bool fails(bool opening)
{
    unsigned left = atomic_load(&faults.left);

    if (atomic_load(&faults.opening) != opening)
        return false;
    do {
        if (left == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&faults.left, &left, left - 1));
    if (left > 1)
        return false;
    atomic_fetch_add(&faults.hit, 1);
    errno = atomic_load(&faults.code);
    return true;
}

static void arm(unsigned nth, int code, bool opening)
{
    atomic_store(&faults.opening, opening);
    atomic_store(&faults.code, code);
    atomic_store(&faults.hit, 0);
    atomic_store(&faults.left, nth);
}

/* ---- The calls ---- */

#define WRAP(type, name, parameters, arguments, opening, failed)                                   \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails(opening) ? (failed) : __real_##name arguments;                                \
    }

WRAP(ssize_t, pwritev64v2, (int fd, const struct iovec *iov, int n, off_t at, int flags),
     (fd, iov, n, at, flags), false, -1)
WRAP(ssize_t, pread64, (int fd, void *buffer, size_t size, off_t at), (fd, buffer, size, at), false,
     -1)
WRAP(ssize_t, pwrite64, (int fd, const void *buffer, size_t size, off_t at), (fd, buffer, size, at),
     false, -1)
WRAP(int, fdatasync, (int fd), (fd), false, -1)
WRAP(int, fallocate64, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), false, -1)
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size), false, -1)
WRAP(int, posix_memalign, (void **memory, size_t align, size_t size), (memory, align, size), false,
     ENOMEM)
WRAP(int, fstat64, (int fd, struct stat *status), (fd, status), true, -1)
WRAP(int, eventfd, (unsigned count, int flags), (count, flags), true, -1)
WRAP(void *, calloc, (size_t count, size_t size), (count, size), true, NULL)
WRAP(char *, strdup, (const char *text), (text), true, NULL)
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *), void *opaque),
     (thread, attr, run, opaque), true, EAGAIN)
WRAP(int, io_uring_register, (unsigned fd, unsigned what, const void *items, unsigned count),
     (fd, what, items, count), true, -atomic_load(&faults.code))

int __real_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    if (atomic_load(&faults.no_ring))
        return -EPERM;
    if (atomic_load(&faults.old_ring) && flags & ~IORING_SETUP_R_DISABLED)
        return -EINVAL;
    return fails(true) ? -errno : __real_io_uring_queue_init(entries, ring, flags);
}

int __real_statx(int folder, const char *name, int flags, unsigned mask, struct statx *status);
int __wrap_statx(int folder, const char *name, int flags, unsigned mask, struct statx *status);
int __wrap_statx(int folder, const char *name, int flags, unsigned mask, struct statx *status)
{
    return __real_statx(folder, name, flags,
                        atomic_load(&faults.old_statx) ? mask & ~STATX_DIOALIGN : mask, status);
}

int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...)
{
    void *argument;
    va_list ap;

    va_start(ap, command);
    argument = va_arg(ap, void *);
    va_end(ap);
    if (atomic_load(&faults.no_locks) && (command == F_OFD_SETLK || command == F_OFD_GETLK)) {
        errno = ENOLCK;
        return -1;
    }
    return __real_fcntl64(fd, command, argument);
}

ssize_t __real_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
    if (atomic_load(&faults.cold) && flags & RWF_NOWAIT) {
        errno = EAGAIN;
        return -1;
    }
    return fails(false) ? -1 : __real_preadv64v2(fd, iov, n, at, flags);
}

int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, ...)
{
    return fails(true) ? -1 : __real_open64(name, flags);
}

/* A result in the ring becomes an error there, but not that of the read by which it is woken. */
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    int ret = __real_io_uring_submit_and_wait(ring, wait);
    struct io_uring_cqe *result;
    unsigned head;

    io_uring_for_each_cqe(ring, head, result) if (result->user_data && fails(false)) result->res =
        -errno;
    return ret;
}

/* ---- Using a disk ---- */

static const struct way {
    const char *more;
    struct blk_host host;
    bool cold;
} ways[] = {
    {"", {.lane = BLK_LANE_THREADS}, false},
    {"", {.lane = BLK_LANE_THREADS}, true},
    {"", {.lane = BLK_LANE_AUTO}, true},
    {",cache=none", {.lane = BLK_LANE_THREADS}, false},
    {",cache=none", {.lane = BLK_LANE_AUTO}, false},
    {",cache=none", {.lane = BLK_LANE_THREADS, .align = 4096}, false},
};

static const struct step {
    enum blk_kind kind;
    uint64_t offset, size;
} steps[] = {
    {BLK_WRITE, 0, 8192},    {BLK_READ, 0, 8192},        {BLK_ZEROES, 4096, 4096},
    {BLK_WRITE, 512, 1024},  {BLK_DISCARD, 16384, 4096}, {BLK_READ, 16384, 4096},
    {BLK_WRITE, 32256, 512}, {BLK_READ, 0, 32768},       {BLK_FLUSH, 0, 0},
};

/* Takes all steps with the NTH call of the host failing by CODE. Returns the results that are not
 * 0, of which there may be one, in *FAILED and *STEP; and whether a call has failed. */
static bool use_disk(const struct way *way, unsigned nth, int code, int *failed, unsigned *step)
{
    char name[64], *buffer;
    struct blk *blk;

    make_file(name, 32768);
    blk = open_disk(name, way->more, &way->host);
    buffer = aligned_alloc(4096, 32768);
    memset(buffer, 'b', 32768);
    *failed = 0;
    arm(nth, code, false);
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        const struct step *s = &steps[i];
        int result = ask_once(blk, s->kind, s->offset, buffer, s->size);

        if (result == 0)
            continue;
        assert_int_equal(*failed, 0);
        *failed = result;
        *step = i;
    }
    atomic_store(&faults.left, 0);
    /* What is lost once is lost for good. */
    if (*failed && steps[*step].kind == BLK_FLUSH)
        assert_int_equal(blk_flush(blk), -EIO);
    else
        assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_read(blk, 0, buffer, 32768), 0);
    blk_close(blk);
    assert_int_equal(size_of(name), 32768);
    unlink(name);
    free(buffer);
    return atomic_load(&faults.hit) > 0;
}

static bool is_refused(const struct way *way)
{
    struct error err = {0};
    char name[64], text[128];
    struct blk *blk;

    make_file(name, 4096);
    snprintf(text, sizeof(text), "%s%s", name, way->more);
    blk = open_with(text, &way->host, &err);
    if (!blk)
        assert_non_null(strstr(err.text, "cache=none needs"));
    blk_close(blk);
    unlink(name);
    return !blk;
}

/* What the result of a step must be when one of its calls fails by CODE. */
static int expected(const struct step *step, int code)
{
    if (code == EINTR)
        return 0;
    if (step->kind == BLK_FLUSH)
        return -EIO;
    return code == EDQUOT ? -ENOSPC : -code;
}

static void fail_each(int code)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        unsigned nth = 1, step = 0;
        int failed;

        if (is_refused(&ways[i]))
            continue;
        atomic_store(&faults.cold, ways[i].cold);
        for (; use_disk(&ways[i], nth, code, &failed, &step); nth++)
            if (failed != -ENOMEM) /* posix_memalign has one error only */
                assert_int_equal(failed, expected(&steps[step], code));
        assert_int_equal(failed, 0);
        assert_true(nth > ARRAY_SIZE(steps)); /* each step has made a call */
    }
    atomic_store(&faults.cold, false);
}

static void test_errors(void **unused)
{
    fail_each(EIO);
}

/* A full disk is told as one, and so is a full quota. */
static void test_full(void **unused)
{
    fail_each(ENOSPC);
    fail_each(EDQUOT);
}

/* What ends early by chance is gone on with, and nobody hears of it. */
static void test_interrupted(void **unused)
{
    fail_each(EINTR);
}

/* ---- What the file system lacks ---- */

/* A file system that has no holes, or neither holes nor ranges of zeroes: the first time it says
 * so, and then it is asked no more. */
static void test_no_holes(void **unused)
{
    char name[64], sector[512];
    struct blk *blk;

    make_file(name, 65536);
    blk = open_disk(name, "", NULL);
    memset(sector, 's', sizeof(sector));
    assert_int_equal(blk_write(blk, 512, sector, 512), 0);
    arm(1, EOPNOTSUPP, false);
    assert_int_equal(ask_once(blk, BLK_DISCARD, 0, NULL, 65536), 0);
    assert_int_equal(atomic_load(&faults.hit), 1);
    assert_int_equal(blk_read(blk, 512, sector, 512), 0);
    assert_int_equal(sector[0], 's');
    arm(1, EIO, false);
    assert_int_equal(ask_once(blk, BLK_DISCARD, 0, NULL, 65536), 0); /* calls nothing */
    assert_int_equal(atomic_load(&faults.hit), 0);
    arm(1, EOPNOTSUPP, false);
    assert_int_equal(ask_once(blk, BLK_ZEROES, 0, NULL, 65536), 0);
    assert_int_equal(atomic_load(&faults.hit), 1);
    assert_int_equal(blk_read(blk, 512, sector, 512), 0);
    assert_int_equal(sector[0], 0);
    arm(1, EIO, false);
    assert_int_equal(ask_once(blk, BLK_ZEROES, 0, NULL, 512), -ENOMEM); /* of the zeroes to write */
    blk_close(blk);
    unlink(name);
}

/* ---- What the host lacks ---- */

/* Opens a new disk by MORE and HOST, and reads and writes it. */
static void use_new_disk(const char *more, struct blk_host host, struct lines *lines)
{
    const struct log log = {.most = LOG_LEVEL_INFO, .line = keep_line, .opaque = lines};
    uint8_t *bytes = aligned_alloc(4096, 8192), *back = aligned_alloc(4096, 8192);
    struct blk *blk;
    char name[64];

    *lines = (struct lines){0};
    host.log = &log;
    make_file(name, 16384);
    blk = open_disk(name, more, &host);
    fill(bytes, 8192, 5);
    assert_int_equal(ask_once(blk, BLK_WRITE, 512, bytes, 8192), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 512, back, 8192), 0);
    assert_memory_equal(bytes, back, 8192);
    assert_int_equal(ask_once(blk, BLK_WRITE, 8192, bytes, 8192), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 8192, back, 8192), 0);
    assert_memory_equal(bytes, back, 8192);
    blk_close(blk);
    assert_int_equal(size_of(name), 16384);
    unlink(name);
    free(bytes);
    free(back);
}

/* Where io_uring is forbidden, threads do its work; or it is an error, if it must be io_uring. */
static void test_no_ring(void **unused)
{
    const struct blk_host uring = {.lane = BLK_LANE_URING};
    struct lines lines;
    char name[64];

    atomic_store(&faults.cold, true);
    atomic_store(&faults.no_ring, true);
    use_new_disk("", (struct blk_host){0}, &lines);
    assert_int_equal(lines.count, 1);
    assert_int_equal(lines.level, LOG_LEVEL_INFO);
    assert_non_null(strstr(lines.last, "(Operation not permitted)"));
    assert_non_null(strstr(lines.last, "threads do its work"));
    make_file(name, 4096);
    refuse_disk(name, "", &uring, EPERM,
                "the host has no io_uring for it (Operation not permitted)");
    unlink(name);
    atomic_store(&faults.no_ring, false);
    atomic_store(&faults.old_ring, true);
    use_new_disk("", (struct blk_host){0}, &lines);
    atomic_store(&faults.old_ring, false);
    atomic_store(&faults.cold, false);
}

/* Older kernels do not say how requests for direct I/O must be aligned: it is tried. */
static void test_old_statx(void **unused)
{
    struct lines lines;

    if (is_refused(&ways[3]))
        skip();
    atomic_store(&faults.old_statx, true);
    use_new_disk(",cache=none", (struct blk_host){0}, &lines);
    atomic_store(&faults.old_statx, false);
}

static void test_no_locks(void **unused)
{
    struct lines lines;

    atomic_store(&faults.no_locks, true);
    use_new_disk("", (struct blk_host){.lane = BLK_LANE_THREADS}, &lines);
    atomic_store(&faults.no_locks, false);
    assert_int_equal(lines.count, 1);
    assert_int_equal(lines.level, LOG_LEVEL_WARNING);
    assert_non_null(strstr(lines.last, "its file system cannot lock it (No locks available)"));
}

/* ---- Flushes ---- */

static void test_lost(void **unused)
{
    struct lines lines = {0};
    const struct log log = {.most = LOG_LEVEL_WARNING, .line = keep_line, .opaque = &lines};
    const struct blk_host host = {.log = &log};
    char name[64], sector[512] = {0};
    struct blk *blk;

    make_file(name, 65536);
    blk = open_disk(name, "", &host);
    assert_int_equal(blk_flush(blk), 0);
    arm(1, EIO, false);
    assert_int_equal(ask_once(blk, BLK_FLUSH, 0, NULL, 0), -EIO);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(blk_write(blk, 0, sector, 512), 0);
        assert_int_equal(ask_once(blk, BLK_FLUSH, 0, NULL, 0), -EIO);
    }
    assert_int_equal(lines.count, 1);
    assert_int_equal(lines.level, LOG_LEVEL_ERROR);
    assert_non_null(strstr(lines.last, "the host lost what was written (Input/output error)"));
    blk_close(blk);
    unlink(name);
}

/* ---- Opening ---- */

/* Opening fails with a message, or does without what failed. What is left over AddressSanitizer
 * finds. */
static void test_opening(void **unused)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        unsigned refused = 0;

        if (is_refused(&ways[i]))
            continue;
        for (unsigned nth = 1; nth == 1 || atomic_load(&faults.hit); nth++) {
            struct error err = {0};
            char name[64], text[128];
            struct blk *blk;

            make_file(name, 4096);
            snprintf(text, sizeof(text), "%s%s,iops=5", name, ways[i].more);
            arm(nth, ENOMEM, true);
            blk = open_with(text, &ways[i].host, &err);
            atomic_store(&faults.left, 0);
            refused += !blk;
            assert_true(blk || (err.code && strlen(err.text) > 10));
            blk_close(blk);
            unlink(name);
        }
        assert_in_range(refused, 8, 20);
    }
    arm(0, 0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_full),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_no_holes),
        cmocka_unit_test(test_lost),        cmocka_unit_test(test_no_ring),
        cmocka_unit_test(test_old_statx),   cmocka_unit_test(test_no_locks),
        cmocka_unit_test(test_opening),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
