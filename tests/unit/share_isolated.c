/*
 * A shared folder in a process of its own, which is killed: at any time, and between a call of the
 * host's that cannot be done twice and its answer. The guest's requests are answered as if nothing
 * had happened, what it has open and locked stays so, and what cannot be had again is stale.
 */
#include "test.h"

#include "share_rig.h"

#include "base/kept_link.h"
#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "share/serve.h"
#include "state_image.h"

#include <dirent.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* ---- Where the folder's process dies ---- */

enum call {
    NONE,
    MKDIR,
    MKNOD,
    SYMLINK,
    LINK,
    UNLINK,
    RENAME,
    CREATE,
    APPEND,
    SETXATTR,
    REMOVEXATTR,
    CHMOD
};

/* Shared with the folder's process. */
struct shared {
    _Atomic int dies_at;   /* enum call: the next such call is its last */
    _Atomic bool after;    /* it dies after the call, or before it */
    _Atomic pid_t process; /* the present one */
    _Atomic unsigned starts;
};

static struct shared *shared;

static void may_die(enum call call, bool after)
{
    int expected = call;

    if (shared && atomic_load(&shared->after) == after &&
        atomic_compare_exchange_strong(&shared->dies_at, &expected, NONE))
        kill(getpid(), SIGKILL);
}

/* A call that the linker leads here (--wrap). */
#define DIES(call, type, name, parameters, arguments)                                              \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        type ret;                                                                                  \
                                                                                                   \
        may_die(call, false);                                                                      \
        ret = __real_##name arguments;                                                             \
        may_die(call, true);                                                                       \
        return ret;                                                                                \
    }

DIES(MKDIR, int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode))
DIES(MKNOD, int, mknodat, (int fd, const char *name, mode_t mode, dev_t device),
     (fd, name, mode, device))
DIES(SYMLINK, int, symlinkat, (const char *target, int fd, const char *name), (target, fd, name))
DIES(LINK, int, linkat, (int fd, const char *name, int to, const char *to_name, int flags),
     (fd, name, to, to_name, flags))
DIES(UNLINK, int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
DIES(RENAME, int, renameat2,
     (int fd, const char *name, int to, const char *to_name, unsigned flags),
     (fd, name, to, to_name, flags))
DIES(APPEND, ssize_t, pwritev64v2,
     (int fd, const struct iovec *iov, int iovs, off_t offset, int flags),
     (fd, iov, iovs, offset, flags))
DIES(SETXATTR, int, setxattr,
     (const char *path, const char *name, const void *value, size_t size, int flags),
     (path, name, value, size, flags))
DIES(REMOVEXATTR, int, removexattr, (const char *path, const char *name), (path, name))
DIES(CHMOD, int, chmod, (const char *path, mode_t mode), (path, mode))

/* openat2 has no function. No call here has more arguments than these. */
long __real_syscall(long number, long a, long b, long c, long d, long e);
long __wrap_syscall(long number, long a, long b, long c, long d, long e);

long __wrap_syscall(long number, long a, long b, long c, long d, long e)
{
    const struct open_how *how = (const void *)(uintptr_t)c;
    bool creates = number == SYS_openat2 && how->flags & O_CREAT;
    long ret;

    if (creates)
        may_die(CREATE, false);
    ret = __real_syscall(number, a, b, c, d, e);
    if (creates)
        may_die(CREATE, true);
    return ret;
}

/* ---- A supervisor ---- */

struct keeper {
    int link[2]; /* 0: who uses the folder; 1: its process */
    pid_t pid;
    struct share_host host;
};

static int give_link(void *opaque, const char *folder)
{
    struct keeper *k = opaque;

    return dup(k->link[0]);
}

/* Modes bind root as anybody else. */
static void obey_modes(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        return;
    data[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    syscall(SYS_capset, &header, data);
}

static void serve(const struct keeper *k, const struct share_options *options)
{
    obey_modes();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    atomic_store(&shared->process, getpid());
    atomic_fetch_add(&shared->starts, 1);
    _exit(share_serve(k->link[1], options, NULL, NULL) < 0);
}

/* The supervisor, a process: starts the next one when one has been killed. */
static void keep(const struct keeper *k, const struct share_options *options)
{
    int status;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(k->link[0]);
    do {
        pid_t pid = fork();

        if (pid == 0)
            serve(k, options);
        while (waitpid(pid, &status, 0) < 0)
            ;
    } while (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    _exit(status != 0);
}

/* A rig whose folder a process serves. No thread has been started yet, so all can fork. */
static struct share_rig *make(struct keeper *k, const char *settings)
{
    struct share_rig *rig = rig_make_folder();
    struct share_options options;
    struct error err = {0};
    char text[256];

    *k = (struct keeper){.host = {.isolate = give_link, .isolate_opaque = k}};
    rig->host = &k->host;
    atomic_store(&shared->dies_at, NONE);
    snprintf(text, sizeof(text), "%s,isolate%s", rig->folder, settings);
    assert_int_equal(share_options_parse(text, &options, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, k->link), 0);
    fflush(NULL);
    k->pid = fork();
    if (k->pid == 0)
        keep(k, &options);
    share_options_free(&options);
    rig->share = rig_open(rig, strcmp(settings, "") ? settings : ",isolate", &err);
    if (!rig->share)
        fail_msg("%s", err.text);
    rig_init(rig);
    return rig;
}

static void destroy(struct keeper *k, struct share_rig *rig)
{
    int status = 0;

    rig_free(rig);
    close(k->link[0]);
    close(k->link[1]);
    assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
    assert_int_equal(status, 0); /* the process has ended by itself */
}

static void kill_process(void)
{
    kill(atomic_load(&shared->process), SIGKILL);
}

/* Kills it and waits until another one has answered. */
static void kill_and_wait(struct share_rig *rig)
{
    unsigned starts = atomic_load(&shared->starts);
    struct fuse_attr attr;

    kill_process();
    while (atomic_load(&shared->starts) == starts)
        time_sleep_ns(NS_PER_MS);
    assert_int_equal(rig_getattr(rig, 1, &attr), 0);
}

static int set_up(void **state)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    return 0;
}

static int tear_down(void **state)
{
    munmap(shared, sizeof(*shared));
    shared = NULL;
    return 0;
}

/* ---- A guest at work ---- */

#define WORKERS 3
#define KILLS   20
#define BYTES   20000u

struct worker {
    struct share_rig *rig;
    unsigned number, rounds;
    _Atomic bool *stop;
    pthread_t thread;
    uint8_t data[BYTES], back[BYTES];
    bool failed;
    char text[200];
};

/* In a thread of its own, where the test cannot fail: notes what is not as expected. */
static bool is(struct worker *w, const char *what, int64_t got, int64_t expected)
{
    if (got != expected && !w->failed) {
        snprintf(w->text, sizeof(w->text), "round %u: %s: %lld, not %lld", w->rounds, what,
                 (long long)got, (long long)expected);
        w->failed = true;
    }
    return !w->failed;
}

#define IS(call, expected) is(w, #call, (call), (expected))

static void work_on_file(struct worker *w, uint64_t folder)
{
    struct share_rig *rig = w->rig;
    struct rig_created made = {.open = {.fh = 0}};
    struct fuse_entry_out entry;
    uint64_t node, handle;

    for (unsigned i = 0; i < BYTES; i++)
        w->data[i] = (uint8_t)(i * 7 + w->rounds + w->number);
    IS(rig_create_file(rig, folder, "new", O_RDWR | O_EXCL, 0444, &made), 0);
    node = made.entry.nodeid;
    handle = made.open.fh;
    IS(rig_write(rig, node, handle, 0, w->data, BYTES / 2, 0), BYTES / 2);
    IS(rig_write(rig, node, handle, 0, w->data + BYTES / 2, BYTES / 2, O_APPEND), BYTES / 2);
    IS(rig_rename(rig, folder, "new", folder, "renamed", RENAME_NOREPLACE), 0);
    IS(rig_read(rig, node, handle, 0, w->back, BYTES), BYTES);
    IS(memcmp(w->data, w->back, BYTES), 0);
    IS(rig_release(rig, FUSE_RELEASE, node, handle), 0);
    IS(rig_lookup(rig, folder, "renamed", &entry), sizeof(entry));
    IS((int64_t)entry.nodeid, (int64_t)node);
    IS(rig_unlink(rig, FUSE_UNLINK, folder, "renamed"), 0);
    IS(rig_unlink(rig, FUSE_UNLINK, folder, "renamed"), -ENOENT);
    rig_forget(rig, node, 2);
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    struct fuse_entry_out entry = {.nodeid = 0};
    char name[16];

    snprintf(name, sizeof(name), "d%u", w->number);
    for (; !atomic_load(w->stop) && !w->failed; w->rounds++) {
        IS(rig_mkdir(w->rig, 1, name, &entry), 0);
        IS(rig_symlink(w->rig, entry.nodeid, "link", "target"), 0);
        work_on_file(w, entry.nodeid);
        IS(rig_unlink(w->rig, FUSE_RMDIR, 1, name), -ENOTEMPTY);
        IS(rig_unlink(w->rig, FUSE_UNLINK, entry.nodeid, "link"), 0);
        IS(rig_unlink(w->rig, FUSE_RMDIR, 1, name), 0);
        rig_forget(w->rig, entry.nodeid, 1);
    }
    return NULL;
}

/* The process is killed again and again while programs of the guest work, and notices nothing. */
static void killed_at_work(void **state)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    static struct worker worker[WORKERS];
    _Atomic bool stop = false;

    for (unsigned i = 0; i < WORKERS; i++) {
        worker[i] = (struct worker){.rig = rig, .number = i, .stop = &stop};
        assert_int_equal(thread_start(&worker[i].thread, "guest", work, &worker[i], NULL), 0);
    }
    for (unsigned i = 0; i < KILLS; i++) {
        time_sleep_ns((i % 5 + 1) * 3 * NS_PER_MS);
        kill_and_wait(rig);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(worker[i].thread, NULL);
        if (worker[i].failed)
            fail_msg("%s", worker[i].text);
        assert_true(worker[i].rounds > 0);
    }
    assert_true(atomic_load(&shared->starts) > KILLS);
    destroy(&k, rig);
}

/* ---- Dying between a call and its answer ---- */

static ssize_t ask(struct share_rig *rig, uint32_t opcode, uint64_t node, const void *in,
                   size_t size, const char *text, size_t text_size)
{
    uint8_t room[512];
    ssize_t ret = rig_call(rig, opcode, node, in, size, text, text_size, room, sizeof(room));

    return MIN(ret, 0);
}

static ssize_t set_attribute(struct share_rig *rig, uint64_t node)
{
    const struct fuse_setxattr_in in = {.size = 1, .flags = XATTR_CREATE};

    return ask(rig, FUSE_SETXATTR, node, &in, FUSE_COMPAT_SETXATTR_IN_SIZE, "user.x\0v", 8);
}

/* What a call of each kind is made by, on file A; and what must not be twice. */
static ssize_t do_once(struct share_rig *rig, enum call call, uint64_t node, uint64_t handle)
{
    const struct fuse_mknod_in mknod = {.mode = S_IFREG | 0600};
    const struct fuse_link_in link = {.oldnodeid = node};
    struct fuse_entry_out entry;
    struct rig_created made;

    switch (call) {
    case MKDIR: return rig_mkdir(rig, 1, "made", &entry);
    case MKNOD: return ask(rig, FUSE_MKNOD, 1, &mknod, sizeof(mknod), "made", 5);
    case SYMLINK: return rig_symlink(rig, 1, "made", "a");
    case LINK: return ask(rig, FUSE_LINK, 1, &link, sizeof(link), "made", 5);
    case UNLINK: return rig_unlink(rig, FUSE_UNLINK, 1, "a");
    case RENAME: return rig_rename(rig, 1, "a", 1, "made", RENAME_NOREPLACE);
    case CREATE: return rig_create_file(rig, 1, "made", O_RDWR | O_EXCL, 0400, &made);
    case APPEND: return rig_write(rig, node, handle, 0, "more", 4, O_APPEND) == 4 ? 0 : -EIO;
    case SETXATTR: return set_attribute(rig, node);
    case REMOVEXATTR: return ask(rig, FUSE_REMOVEXATTR, node, "user.y", 7, NULL, 0);
    case CHMOD:
    case NONE: break;
    }
    return -EINVAL;
}

/* What a second attempt is answered. */
static ssize_t twice(enum call call)
{
    return call == UNLINK || call == RENAME ? -ENOENT
           : call == REMOVEXATTR            ? -ENODATA
           : call == APPEND                 ? 0
                                            : -EEXIST;
}

static unsigned count_names(const struct share_rig *rig)
{
    DIR *folder = opendir(rig->folder);
    unsigned count = 0;

    while (readdir(folder))
        count++;
    closedir(folder);
    return count - 2;
}

static void check_end(struct share_rig *rig, enum call call)
{
    unsigned names = call == UNLINK ? 0 : call >= APPEND || call == RENAME ? 1 : 2;
    char path[256], text[16] = "";
    int fd;

    assert_int_equal(count_names(rig), names);
    if (call != APPEND)
        return;
    fd = open(rig_path(rig, "a", path), O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, text, sizeof(text)), 12);
    assert_string_equal(text, "textmoremore");
    close(fd);
}

static void dies_at(enum call call, bool after)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    unsigned starts = atomic_load(&shared->starts);
    uint64_t node, handle;
    char path[256];

    rig_write_file(rig->folder, "a", "text");
    node = rig_node(rig, 1, "a");
    handle = rig_handle(rig, node, O_WRONLY);
    rig_path(rig, "a", path);
    if (call == REMOVEXATTR)
        assert_int_equal(setxattr(path, "user.y", "v", 1, 0), 0);
    atomic_store(&shared->after, after);
    atomic_store(&shared->dies_at, call);
    assert_int_equal(do_once(rig, call, node, handle), 0);
    assert_int_equal(atomic_load(&shared->starts), starts + 1);
    if (call != UNLINK) /* what is open stays open, whatever name it has got */
        assert_int_equal(rig_write(rig, node, handle, 0, "t", 1, 0), 1);
    assert_int_equal(do_once(rig, call, node, handle), twice(call));
    check_end(rig, call);
    destroy(&k, rig);
}

static bool has_attributes(void)
{
    struct share_rig *rig = rig_make_folder();
    bool has = setxattr(rig->folder, "user.y", "v", 1, 0) == 0;

    rig_free(rig);
    return has;
}

static void dies_before_and_after(void **state)
{
    bool attributes = has_attributes();

    for (enum call call = MKDIR; call <= REMOVEXATTR; call++) {
        if (!attributes && call >= SETXATTR)
            break;
        dies_at(call, false);
        dies_at(call, true);
    }
    if (!attributes)
        print_message("no user attributes here: without them\n");
}

/* ---- What stays ---- */

static ssize_t set_lock(struct share_rig *rig, uint32_t opcode, uint64_t node, uint64_t handle,
                        int type, uint64_t start, uint64_t end, uint32_t flags)
{
    const struct fuse_lk_in in = {.fh = handle,
                                  .owner = 5,
                                  .lk = {.start = start, .end = end, .type = (uint32_t)type},
                                  .lk_flags = flags};

    return rig_call(rig, opcode, node, &in, sizeof(in), NULL, 0, NULL, 0);
}

static bool host_may(int fd, int64_t start, int64_t length)
{
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    return fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type == F_UNLCK;
}

static void locks_stay(void **state)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    const struct fuse_flush_in flush = {.lock_owner = 5};
    struct rig_created made;
    char path[256];
    int host;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    host = open(rig_path(rig, "a", path), O_RDWR | O_CLOEXEC);
    assert_int_equal(set_lock(rig, FUSE_SETLK, made.entry.nodeid, made.open.fh, F_WRLCK, 0,
                              INT64_MAX, FUSE_LK_FLOCK),
                     0);
    assert_int_equal(set_lock(rig, FUSE_SETLK, made.entry.nodeid, made.open.fh, F_WRLCK, 10, 29, 0),
                     0);
    assert_int_equal(set_lock(rig, FUSE_SETLK, made.entry.nodeid, made.open.fh, F_UNLCK, 15, 19, 0),
                     0);
    for (unsigned i = 0; i < 2; i++) {
        kill_and_wait(rig);
        assert_int_equal(flock(host, LOCK_SH | LOCK_NB), -1);
        assert_true(host_may(host, 0, 10) && host_may(host, 15, 5) && host_may(host, 30, 10));
        assert_false(host_may(host, 10, 1) || host_may(host, 29, 1));
    }
    assert_int_equal(set_lock(rig, FUSE_SETLK, made.entry.nodeid, made.open.fh, F_UNLCK, 0,
                              INT64_MAX, FUSE_LK_FLOCK),
                     0);
    assert_int_equal(rig_call(rig, FUSE_FLUSH, made.entry.nodeid,
                              &(struct fuse_flush_in){.fh = made.open.fh, .lock_owner = 5},
                              sizeof(flush), NULL, 0, NULL, 0),
                     0);
    kill_and_wait(rig);
    assert_int_equal(flock(host, LOCK_EX | LOCK_NB), 0);
    assert_true(host_may(host, 0, 100));
    close(host);
    destroy(&k, rig);
}

/* One waits for a lock while the process is killed, and is then given it; another one is recalled
 * while there is no process. */
static void waiting_for_locks(void **state)
{
    struct fuse_lk_in in = {.lk = {.end = INT64_MAX, .type = F_WRLCK}, .lk_flags = FUSE_LK_FLOCK};
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    struct rig_created made;
    struct rig_request r;
    char path[256];
    int host;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    in.fh = made.open.fh;
    host = open(rig_path(rig, "a", path), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(host, LOCK_EX), 0);
    rig_begin(rig, &r, FUSE_SETLKW, made.entry.nodeid, &in, sizeof(in), NULL, 0, NULL, 0);
    kill_and_wait(rig);
    assert_int_equal(flock(host, LOCK_UN), 0);
    assert_int_equal(rig_end(&r), 0);
    assert_int_equal(flock(host, LOCK_SH | LOCK_NB), -1);
    assert_int_equal(set_lock(rig, FUSE_SETLK, made.entry.nodeid, made.open.fh, F_UNLCK, 0,
                              INT64_MAX, FUSE_LK_FLOCK),
                     0);
    assert_int_equal(flock(host, LOCK_EX), 0);
    for (unsigned i = 0; i < 2; i++) {
        rig_begin(rig, &r, FUSE_SETLKW, made.entry.nodeid, &in, sizeof(in), NULL, 0, NULL, 0);
        if (i == 1)
            kill_process();
        share_recall(rig->share);
        assert_int_equal(rig_end(&r), -ECANCELED);
    }
    close(host);
    destroy(&k, rig);
}

/* No process is started while the supervisor stands still. */
static void kill_while(struct keeper *k, struct share_rig *rig, void (*call)(void *opaque),
                       void *opaque)
{
    unsigned starts = atomic_load(&shared->starts);
    struct fuse_attr attr;
    siginfo_t info;

    kill(k->pid, SIGSTOP);
    assert_int_equal(waitid(P_PID, (id_t)k->pid, &info, WSTOPPED), 0);
    kill_process();
    call(opaque);
    kill(k->pid, SIGCONT);
    while (atomic_load(&shared->starts) == starts)
        time_sleep_ns(NS_PER_MS);
    assert_int_equal(rig_getattr(rig, 1, &attr), 0);
}

static void take_on_the_host(void *opaque)
{
    const int *host = opaque;

    assert_int_equal(flock(*host, LOCK_EX), 0); /* waits until the process has gone */
}

/* The host takes the guest's lock before the next process can: what the guest has open is stale,
 * and stays so when the host has released the lock, whatever process comes then. */
static void locks_that_are_lost(void **state)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    struct rig_created made;
    struct fuse_open_out opened;
    uint64_t node;
    char path[256], data[4];
    int host;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    node = made.entry.nodeid;
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &opened), 0);
    host = open(rig_path(rig, "a", path), O_RDWR | O_CLOEXEC);
    assert_int_equal(
        set_lock(rig, FUSE_SETLK, node, made.open.fh, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK), 0);
    kill_while(&k, rig, take_on_the_host, &host);
    assert_int_equal(rig_read(rig, node, made.open.fh, 0, data, 4), -ESTALE);
    assert_int_equal(flock(host, LOCK_UN), 0);
    for (unsigned i = 0; i < 2; i++) {
        kill_and_wait(rig);
        assert_int_equal(rig_read(rig, node, made.open.fh, 0, data, 4), -ESTALE);
        assert_int_equal(rig_read(rig, node, opened.fh, 0, data, 4), 0);
        assert_int_equal(flock(host, LOCK_EX | LOCK_NB), 0);
        assert_int_equal(flock(host, LOCK_UN), 0);
    }
    assert_int_equal(rig_release(rig, FUSE_RELEASE, node, made.open.fh), 0);
    close(host);
    destroy(&k, rig);
}

/* Nodes and open files are the same afterwards; what has no name any more is stale. */
static void files_stay(void **state)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    struct rig_created made, gone;
    struct fuse_open_out opened;
    struct fuse_entry_out entry;
    struct fuse_attr attr;
    uint64_t folder;
    char data[8] = "";

    assert_int_equal(rig_mkdir(rig, 1, "d", &entry), 0);
    folder = entry.nodeid;
    assert_int_equal(rig_create_file(rig, folder, "f", O_RDWR, 0400, &made), 0);
    assert_int_equal(rig_create_file(rig, folder, "g", O_RDWR, 0600, &gone), 0);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, folder, "g"), 0);
    assert_int_equal(rig_write(rig, made.entry.nodeid, made.open.fh, 0, "text", 4, 0), 4);
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, folder, 0, &opened), 0);
    kill_and_wait(rig);
    assert_int_equal(rig_write(rig, made.entry.nodeid, made.open.fh, 4, "!", 1, 0), 1);
    assert_int_equal(rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, 8), 5);
    assert_string_equal(data, "text!");
    assert_int_equal(rig_node(rig, folder, "f"), made.entry.nodeid);
    assert_int_equal(rig_release(rig, FUSE_RELEASEDIR, folder, opened.fh), 0);
    assert_int_equal(rig_read(rig, gone.entry.nodeid, gone.open.fh, 0, data, 1), -ESTALE);
    assert_int_equal(rig_getattr(rig, gone.entry.nodeid, &attr), -ESTALE);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, gone.entry.nodeid, gone.open.fh), 0);
    /* What was given back stays so. */
    rig_forget(rig, gone.entry.nodeid, 1);
    rig_forget(rig, made.entry.nodeid, 1); /* of two */
    kill_and_wait(rig);
    assert_int_equal(rig_getattr(rig, made.entry.nodeid, &attr), 0);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, made.entry.nodeid, made.open.fh), 0);
    rig_forget(rig, made.entry.nodeid, 1);
    assert_int_equal(rig_getattr(rig, made.entry.nodeid, &attr), -ESTALE);
    /* And so does the end. */
    assert_int_equal(rig_call(rig, FUSE_DESTROY, 0, NULL, 0, NULL, 0, NULL, 0), 0);
    kill_process();
    assert_int_equal(rig_getattr(rig, 1, &attr), -EIO);
    rig_init(rig);
    assert_int_equal(rig_getattr(rig, folder, &attr), -ESTALE);
    share_reset(rig->share);
    assert_int_equal(rig_getattr(rig, 1, &attr), -EIO);
    destroy(&k, rig);
}

static mode_t mode_of(const struct share_rig *rig, const char *name)
{
    char path[256];
    struct stat st;

    assert_int_equal(stat(rig_path(rig, name, path), &st), 0);
    return st.st_mode & 07777;
}

/* Numbers that the guest has given back mean nothing to the next process. */
static void old_numbers_lead_nowhere(void **state)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    struct rig_created made;
    struct fuse_attr attr;
    uint64_t node;
    char data[4];

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, made.entry.nodeid, made.open.fh), 0);
    rig_forget(rig, made.entry.nodeid, 1);
    kill_and_wait(rig);
    node = rig_node(rig, 1, "a");
    rig_handle(rig, node, O_RDONLY);
    rig_forget(rig, made.entry.nodeid, 1); /* as if it came once more */
    assert_int_equal(rig_getattr(rig, made.entry.nodeid, &attr), -ESTALE);
    assert_int_equal(rig_getattr(rig, node, &attr), 0);
    assert_int_equal(rig_read(rig, node, made.open.fh, 0, data, 1), -EBADF);
    destroy(&k, rig);
}

/* Another process dies while it opens a file that needs another mode for that: the mode is as
 * before, and the file is open, also if there is nothing to open by then. */
static void killed_while_a_mode_changes(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct keeper k;
        struct share_rig *rig = make(&k, "");
        struct rig_created made;
        struct fuse_attr attr;
        unsigned starts;

        assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0444, &made), 0);
        starts = atomic_load(&shared->starts);
        atomic_store(&shared->after, i & 1);
        atomic_store(&shared->dies_at, CHMOD);
        kill_process();
        while (atomic_load(&shared->starts) < starts + 2)
            time_sleep_ns(NS_PER_MS);
        if (i & 2)
            share_reset(rig->share);
        assert_int_equal(rig_getattr(rig, 1, &attr), i & 2 ? -EIO : 0);
        assert_int_equal(mode_of(rig, "a"), 0444);
        if (!(i & 2))
            assert_int_equal(rig_write(rig, made.entry.nodeid, made.open.fh, 0, "t", 1, 0), 1);
        assert_int_equal(atomic_load(&shared->dies_at), NONE);
        destroy(&k, rig);
    }
}

/* What is saved is the same with a process and without, and is loaded into either. */
static void saved_and_loaded(void **state)
{
    struct keeper k;
    struct share_rig *rig = make(&k, "");
    struct state_image image = {0}, again = {0};
    struct rig_created made;
    struct fuse_attr attr;
    struct state *s;
    char data[8] = "";

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    assert_int_equal(rig_write(rig, made.entry.nodeid, made.open.fh, 0, "text", 4, 0), 4);
    assert_int_equal(set_lock(rig, FUSE_SETLK, made.entry.nodeid, made.open.fh, F_WRLCK, 3, 9, 0),
                     0);
    s = image_save(&image);
    share_state(rig->share, s, 7);
    assert_int_equal(image_done(s), 0);
    share_reset(rig->share);
    rig_init(rig);
    s = image_load(&image);
    share_state(rig->share, s, 7);
    assert_int_equal(image_done(s), 0);
    assert_int_equal(rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, 8), 4);
    assert_string_equal(data, "text");
    share_reset(rig->share);
    assert_int_equal(rig_getattr(rig, 1, &attr), -EIO); /* its locks are released by now */
    share_close(rig->share);
    rig->share = rig_open(rig, "", NULL); /* in this process */
    s = image_load(&image);
    share_state(rig->share, s, 7);
    assert_int_equal(image_done(s), 0);
    assert_int_equal(rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, 8), 4);
    s = image_save(&again);
    share_state(rig->share, s, 7);
    assert_int_equal(image_done(s), 0);
    assert_int_equal(again.size, image.size);
    assert_memory_equal(again.data, image.data, image.size);
    image_free(&image);
    image_free(&again);
    destroy(&k, rig);
}

/* A folder that cannot be opened, and nobody who would. */
static void cannot_be_opened(void **state)
{
    struct share_rig *rig = rig_make_folder();
    struct error err = {0};

    assert_null(rig_open(rig, ",isolate", &err));
    assert_non_null(strstr(err.text, "no supervisor can start a process"));
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_at_work, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dies_before_and_after, set_up, tear_down),
        cmocka_unit_test_setup_teardown(locks_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waiting_for_locks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(locks_that_are_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(old_numbers_lead_nowhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(killed_while_a_mode_changes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(saved_and_loaded, set_up, tear_down),
        cmocka_unit_test(cannot_be_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
