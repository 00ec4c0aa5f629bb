/*
 * Shared folders: locks by flock and by fcntl, between two processes of a guest, and between the
 * guest and the host; waiting for them, giving up, being interrupted and recalled; and that what a
 * guest syncs is synced on the host.
 */
#include "test.h"

#include "share_rig.h"

#include <stdatomic.h>
#include <sys/file.h>

#include "base/util.h"
#include "share/share_private.h" /* for a limit that is too high to be reached here */

/* Calls of the host that the test counts, or has something happen before (the linker's --wrap). */
static unsigned syncs, data_syncs, whole_syncs;
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_syncfs(int fd);
int __wrap_syncfs(int fd);

int __wrap_fsync(int fd)
{
    syncs++;
    return __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    data_syncs++;
    return __real_fdatasync(fd);
}

int __wrap_syncfs(int fd)
{
    whole_syncs++;
    return 0;
}

/* Called once, before the next lock by fcntl is taken. */
static void (*_Atomic before_lock)(void *opaque);
static void *before_lock_opaque;
int __real_fcntl64(int fd, int command, void *argument);
int __wrap_fcntl64(int fd, int command, void *argument);

int __wrap_fcntl64(int fd, int command, void *argument)
{
    const struct flock *range = argument;
    void (*call)(void *opaque) = NULL;

    if (command == F_OFD_SETLK && range->l_type != F_UNLCK)
        call = atomic_exchange(&before_lock, NULL);
    if (call)
        call(before_lock_opaque);
    return __real_fcntl64(fd, command, argument);
}

/* A file, open twice in the guest and once on the host. */
struct file {
    struct share_rig *rig;
    uint64_t node, first, second;
    int host;
    struct fuse_lk_in lock; /* that is waited for */
};

static int set_up(void **state)
{
    struct file *f = calloc(1, sizeof(*f));
    char path[256];

    f->rig = rig_make("");
    rig_write_file(f->rig->folder, "a", "text");
    f->node = rig_node(f->rig, 1, "a");
    f->first = rig_handle(f->rig, f->node, O_RDWR);
    f->second = rig_handle(f->rig, f->node, O_RDWR);
    f->host = open(rig_path(f->rig, "a", path), O_RDWR | O_CLOEXEC);
    assert_true(f->host >= 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct file *f = *state;

    close(f->host);
    rig_free(f->rig);
    free(f);
    return 0;
}

static struct fuse_lk_in lock_of(uint64_t handle, uint64_t owner, int type, uint64_t start,
                                 uint64_t end, uint32_t flags)
{
    return (struct fuse_lk_in){.fh = handle,
                               .owner = owner,
                               .lk = {.start = start, .end = end, .type = (uint32_t)type},
                               .lk_flags = flags};
}

static ssize_t set_lock(struct file *f, struct fuse_lk_in in)
{
    return rig_call(f->rig, FUSE_SETLK, f->node, &in, sizeof(in), NULL, 0, NULL, 0);
}

static ssize_t flock_by(struct file *f, uint64_t handle, int type)
{
    return set_lock(f, lock_of(handle, handle, type, 0, INT64_MAX, FUSE_LK_FLOCK));
}

/* Begins to wait; IN must outlive the request. */
static void begin_wait(struct file *f, struct rig_request *r, const struct fuse_lk_in *in)
{
    rig_begin(f->rig, r, FUSE_SETLKW, f->node, in, sizeof(*in), NULL, 0, NULL, 0);
}

static bool is_done(struct rig_request *r)
{
    int value;

    sem_getvalue(&r->done, &value);
    return value > 0;
}

/* It has been taken by the thread that tries: there is no end of waiting to be seen, so some time
 * passes. A test that came too early would pass, not fail. */
static void let_it_wait(struct rig_request *r)
{
    usleep(30000);
    assert_false(is_done(r));
}

static void interrupt(struct file *f, uint64_t unique, ssize_t expected)
{
    const struct fuse_interrupt_in in = {.unique = unique};
    struct rig_request r;

    rig_begin(f->rig, &r, FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0, NULL, 0);
    while (sem_wait(&r.done) < 0)
        ;
    sem_destroy(&r.done);
    assert_int_equal(r.result == 0 ? 0 : r.answer.error, expected);
}

static void test_flock(void **state)
{
    struct file *f = *state;

    assert_int_equal(flock_by(f, f->first, F_WRLCK), 0);
    assert_int_equal(flock_by(f, f->second, F_WRLCK), -EAGAIN);
    assert_int_equal(flock_by(f, f->second, F_RDLCK), -EAGAIN);
    assert_int_equal(flock(f->host, LOCK_SH | LOCK_NB), -1);
    assert_int_equal(flock_by(f, f->first, F_RDLCK), 0);
    assert_int_equal(flock_by(f, f->second, F_RDLCK), 0);
    assert_int_equal(flock(f->host, LOCK_SH | LOCK_NB), 0);
    assert_int_equal(flock_by(f, f->first, F_WRLCK), -EAGAIN);
    assert_int_equal(flock(f->host, LOCK_UN), 0);
    assert_int_equal(flock_by(f, f->second, F_UNLCK), 0);
    assert_int_equal(flock_by(f, f->first, F_WRLCK), 0);
    /* It ends with the open file. */
    assert_int_equal(rig_release(f->rig, FUSE_RELEASE, f->node, f->first), 0);
    assert_int_equal(flock(f->host, LOCK_EX | LOCK_NB), 0);
}

static void test_ranges(void **state)
{
    struct file *f = *state;
    struct flock host = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 10};
    struct fuse_lk_in in = lock_of(f->first, 2, F_WRLCK, 0, 49, 0);
    struct fuse_lk_out out;
    struct fuse_flush_in flush = {.fh = f->second, .lock_owner = 1};

    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_WRLCK, 0, 99, 0)), 0);
    assert_int_equal(set_lock(f, in), -EAGAIN);
    assert_int_equal(set_lock(f, lock_of(f->first, 2, F_WRLCK, 100, INT64_MAX, 0)), 0);
    assert_int_equal(fcntl(f->host, F_OFD_SETLK, &host), -1);
    assert_int_equal(set_lock(f, lock_of(f->first, 2, F_UNLCK, 100, 109, 0)), 0);
    assert_int_equal(fcntl(f->host, F_OFD_SETLK, &host), 0);
    assert_int_equal(set_lock(f, lock_of(f->first, 2, F_RDLCK, 105, 105, 0)), -EAGAIN);
    /* Who is in the way. */
    assert_int_equal(
        rig_call(f->rig, FUSE_GETLK, f->node, &in, sizeof(in), NULL, 0, &out, sizeof(out)),
        sizeof(out));
    assert_int_equal(out.lk.type, F_WRLCK);
    assert_int_equal(out.lk.start, 0);
    assert_int_equal(out.lk.end, 99);
    in = lock_of(f->first, 1, F_WRLCK, 0, 49, 0);
    assert_int_equal(
        rig_call(f->rig, FUSE_GETLK, f->node, &in, sizeof(in), NULL, 0, &out, sizeof(out)),
        sizeof(out));
    assert_int_equal(out.lk.type, F_UNLCK);
    /* A process that closes the file, by whichever descriptor, has no lock on it any more. */
    assert_int_equal(rig_call(f->rig, FUSE_FLUSH, f->node, &flush, sizeof(flush), NULL, 0, NULL, 0),
                     0);
    assert_int_equal(set_lock(f, lock_of(f->first, 2, F_WRLCK, 0, 49, 0)), 0);
    /* What makes no sense. */
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_WRLCK, 50, 49, 0)), -EINVAL);
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_WRLCK, 0, UINT64_MAX, 0)), -EINVAL);
    assert_int_equal(set_lock(f, lock_of(f->first, 1, 17, 0, 1, 0)), -EINVAL);
    assert_int_equal(set_lock(f, lock_of(77, 1, F_WRLCK, 0, 1, 0)), -EBADF);
}

static void test_waiting(void **state)
{
    struct file *f = *state;
    const struct fuse_lk_in by_flock = lock_of(f->second, 9, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
    const struct fuse_lk_in by_fcntl = lock_of(f->second, 9, F_WRLCK, 0, INT64_MAX, 0);
    struct rig_request one, two;
    struct fuse_attr attr;

    assert_int_equal(flock_by(f, f->first, F_WRLCK), 0);
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_WRLCK, 0, 0, 0)), 0);
    begin_wait(f, &one, &by_flock);
    begin_wait(f, &two, &by_fcntl);
    let_it_wait(&one);
    let_it_wait(&two);
    /* Others go on meanwhile. */
    assert_int_equal(rig_getattr(f->rig, f->node, &attr), 0);
    assert_int_equal(flock_by(f, f->first, F_UNLCK), 0);
    assert_int_equal(rig_end(&one), 0);
    assert_false(is_done(&two));
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_UNLCK, 0, 0, 0)), 0);
    assert_int_equal(rig_end(&two), 0);
    assert_int_equal(flock(f->host, LOCK_SH | LOCK_NB), -1);
}

/* The host has the lock, and a program of the guest's waits for it by R. */
static void wait_for_the_host(struct file *f, struct rig_request *r)
{
    f->lock = lock_of(f->first, 9, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
    assert_int_equal(flock(f->host, LOCK_EX), 0);
    begin_wait(f, r, &f->lock);
    let_it_wait(r);
}

static void test_the_host_lets_go(void **state)
{
    struct file *f = *state;
    struct rig_request r;

    wait_for_the_host(f, &r);
    assert_int_equal(flock(f->host, LOCK_UN), 0);
    assert_int_equal(rig_end(&r), 0);
}

static void test_interrupts(void **state)
{
    struct file *f = *state;
    struct rig_request r;

    wait_for_the_host(f, &r);
    interrupt(f, r.header.unique + 1000, -EAGAIN);
    let_it_wait(&r);
    interrupt(f, r.header.unique, 0);
    assert_int_equal(rig_end(&r), -EINTR);
    interrupt(f, r.header.unique, -EAGAIN);
}

static void test_a_recall(void **state)
{
    struct file *f = *state;
    struct rig_request r[3];

    wait_for_the_host(f, &r[0]);
    for (unsigned i = 1; i < ARRAY_SIZE(r); i++)
        begin_wait(f, &r[i], &f->lock);
    share_recall(f->rig->share);
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
        assert_int_equal(rig_end(&r[i]), -ECANCELED);
}

static void test_unmounting_ends_what_waits(void **state)
{
    struct file *f = *state;
    struct fuse_attr attr;
    struct rig_request r;

    wait_for_the_host(f, &r);
    assert_int_equal(rig_call(f->rig, FUSE_DESTROY, 0, NULL, 0, NULL, 0, NULL, 0), 0);
    assert_int_equal(rig_end(&r), -EINTR);
    assert_int_equal(rig_getattr(f->rig, f->node, &attr), -EIO);
    rig_init(f->rig);
    assert_int_equal(rig_getattr(f->rig, f->node, &attr), -ESTALE);
    assert_int_equal(rig_getattr(f->rig, 1, &attr), 0);
}

/* A process of the guest's closes the file. */
static void close_by_owner(void *opaque)
{
    struct file *f = opaque;
    const struct fuse_flush_in in = {.fh = f->first, .lock_owner = 1};

    assert_int_equal(rig_call(f->rig, FUSE_FLUSH, f->node, &in, sizeof(in), NULL, 0, NULL, 0), 0);
}

/* A lock that comes when its owner has just closed the file is nobody's, and is not told as taken.
 */
static void test_a_holder_that_ends(void **state)
{
    struct file *f = *state;
    const struct fuse_lk_in in = lock_of(f->first, 1, F_WRLCK, 0, INT64_MAX, 0);
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct rig_request r;

    before_lock_opaque = f;
    before_lock = close_by_owner;
    assert_int_equal(set_lock(f, in), -EBADF);
    /* The same for one that waits. */
    assert_int_equal(fcntl(f->host, F_OFD_SETLK, &all), 0);
    begin_wait(f, &r, &in);
    let_it_wait(&r);
    before_lock = close_by_owner;
    all.l_type = F_UNLCK;
    assert_int_equal(__real_fcntl64(f->host, F_OFD_SETLK, &all), 0);
    assert_int_equal(rig_end(&r), -EBADF);
    all.l_type = F_WRLCK;
    assert_int_equal(fcntl(f->host, F_OFD_SETLK, &all), 0);
}

/* How many ranges FILE's first handle may lock, of single bytes that do not touch, up to MOST. */
static unsigned lock_bytes(struct file *f, uint64_t owner, unsigned most)
{
    unsigned count = 0;

    while (count < most &&
           set_lock(f, lock_of(f->first, owner, F_WRLCK, 2 * count, 2 * count, 0)) == 0)
        count++;
    return count;
}

/* Each range that is locked takes memory of the host's kernel: there is a limit for all together.
 */
static void test_too_many_ranges(void **state)
{
    struct file *f = *state;
    struct share *s = f->rig->share;
    uint64_t taken = SHARE_LOCKS_MOST - 100;
    const struct fuse_flush_in flush = {.fh = f->first, .lock_owner = 1};
    unsigned count;

    s->ranges += taken; /* as if others had them */
    count = lock_bytes(f, 1, 1000);
    assert_in_range(count, 97, 100);
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_WRLCK, 5000, 5000, 0)), -ENOLCK);
    assert_int_equal(set_lock(f, lock_of(f->first, 2, F_WRLCK, 6000, 6000, 0)), -ENOLCK);
    /* What changes all the time, or cannot be had, does not add up. */
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_UNLCK, 0, 99, 0)), -ENOLCK);
    assert_int_equal(rig_call(f->rig, FUSE_FLUSH, f->node, &flush, sizeof(flush), NULL, 0, NULL, 0),
                     0);
    assert_int_equal(s->ranges, taken);
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_WRLCK, 0, 9, 0)), 0);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(set_lock(f, lock_of(f->first, 2, F_WRLCK, 0, 9, 0)), -EAGAIN);
        assert_int_equal(set_lock(f, lock_of(f->first, 2, F_WRLCK, 100, 109, 0)), 0);
        assert_int_equal(set_lock(f, lock_of(f->first, 2, F_UNLCK, 100, 109, 0)), 0);
    }
    s->ranges -= taken;
    assert_int_equal(lock_bytes(f, 3, 300), 0); /* the first is in the way */
    assert_int_equal(set_lock(f, lock_of(f->first, 1, F_UNLCK, 0, INT64_MAX, 0)), 0);
    assert_int_equal(lock_bytes(f, 3, 300), 300);
}

static void test_syncs(void **state)
{
    struct file *f = *state;
    struct fuse_fsync_in in = {.fh = f->first};
    struct fuse_open_out out;

    syncs = data_syncs = whole_syncs = 0;
    assert_int_equal(rig_call(f->rig, FUSE_FSYNC, f->node, &in, sizeof(in), NULL, 0, NULL, 0), 0);
    assert_int_equal(syncs, 1);
    in.fsync_flags = FUSE_FSYNC_FDATASYNC;
    assert_int_equal(rig_call(f->rig, FUSE_FSYNC, f->node, &in, sizeof(in), NULL, 0, NULL, 0), 0);
    assert_int_equal(data_syncs, 1);
    assert_int_equal(rig_open_node(f->rig, FUSE_OPENDIR, 1, O_RDONLY, &out), 0);
    in = (struct fuse_fsync_in){.fh = out.fh};
    assert_int_equal(rig_call(f->rig, FUSE_FSYNCDIR, 1, &in, sizeof(in), NULL, 0, NULL, 0), 0);
    assert_int_equal(syncs, 2);
    assert_int_equal(rig_call(f->rig, FUSE_SYNCFS, 1, "12345678", 8, NULL, 0, NULL, 0), 0);
    assert_int_equal(whole_syncs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_flock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ranges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_host_lets_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_recall, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unmounting_ends_what_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_holder_that_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_ranges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_syncs, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
