/*
 * Shared folders: attempts to reach what is outside. Each names something that is there, and must
 * get an error, or the thing inside; the secret beside the folder must stay unread and unchanged.
 */
#include "test.h"

#include "share_rig.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "base/util.h"

/* Rounds of attempts against a host that renames all the time. */
#define ROUNDS 4000

static int set_up(void **state)
{
    *state = rig_make("");
    return 0;
}

static int tear_down(void **state)
{
    struct share_rig *rig = *state;
    char path[512], text[64] = "";
    FILE *file;
    struct stat st;

    /* Whatever was tried. */
    snprintf(path, sizeof(path), "%s/secret", rig->outside);
    file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    fclose(file);
    assert_string_equal(text, RIG_SECRET);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_nlink, 1);
    assert_true(listxattr(path, NULL, 0) <= 0);
    rig_free(rig);
    return 0;
}

/* A path on the host: of NAME outside of the folder. */
static const char *outside(const struct share_rig *rig, const char *name, char path[512])
{
    snprintf(path, 512, "%s/%s", rig->outside, name);
    return path;
}

/* Whether NODE, a file, can be opened and holds the secret. */
static bool reads_secret(struct share_rig *rig, uint64_t node)
{
    struct fuse_open_out out;
    char data[64] = "";
    bool secret;

    if (rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &out) < 0)
        return false;
    rig_read(rig, node, out.fh, 0, data, sizeof(data) - 1);
    secret = strcmp(data, RIG_SECRET) == 0;
    rig_release(rig, FUSE_RELEASE, node, out.fh);
    return secret;
}

static void test_names_that_are_paths(void **state)
{
    static const char *const names[] = {"..",
                                        ".",
                                        "",
                                        "/",
                                        "/etc/passwd",
                                        "../secret",
                                        "d/../../secret",
                                        "./../secret",
                                        "d/f",
                                        "/proc/self/root"};
    struct share_rig *rig = *state;
    struct fuse_entry_out entry;
    struct rig_created made;
    char name[300];
    uint64_t folder;

    assert_int_equal(rig_mkdir(rig, 1, "d", &entry), 0);
    folder = entry.nodeid;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        assert_int_equal(rig_lookup(rig, 1, names[i], &entry), -EINVAL);
        assert_int_equal(rig_lookup(rig, folder, names[i], &entry), -EINVAL);
        assert_int_equal(rig_create_file(rig, 1, names[i], O_RDWR, 0600, &made), -EINVAL);
        assert_int_equal(rig_mkdir(rig, 1, names[i], &entry), -EINVAL);
        assert_int_equal(rig_symlink(rig, 1, names[i], "x"), -EINVAL);
        assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, names[i]), -EINVAL);
        assert_int_equal(rig_rename(rig, 1, names[i], 1, "x", 0), -EINVAL);
        assert_int_equal(rig_rename(rig, 1, "d", 1, names[i], 0), -EINVAL);
    }
    memset(name, 'x', sizeof(name));
    /* One that does not end, and one that is too long. */
    assert_int_equal(
        rig_call(rig, FUSE_LOOKUP, 1, name, sizeof(name), NULL, 0, &entry, sizeof(entry)), -EINVAL);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(rig_lookup(rig, 1, name, &entry), -ENAMETOOLONG);
}

static void test_numbers_that_were_not_given(void **state)
{
    struct share_rig *rig = *state;
    struct rig_created made;
    struct fuse_entry_out entry;
    struct fuse_attr attr;
    char data[64];
    uint64_t other;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    rig_write_file(rig->folder, "b", "");
    other = rig_node(rig, 1, "b");
    for (uint64_t n = 0; n < 64; n++) {
        if (n != made.entry.nodeid && n != other && n != 1) {
            assert_int_equal(rig_getattr(rig, n, &attr), -ESTALE);
            assert_int_equal(rig_lookup(rig, n, "a", &entry), -ESTALE);
        }
        if (n != made.open.fh)
            assert_int_equal(rig_read(rig, made.entry.nodeid, n, 0, data, 1), -EBADF);
        assert_int_equal(rig_getattr(rig, UINT64_C(1) << n | 1ull << 40, &attr), -ESTALE);
    }
    /* A handle is of one file only. */
    assert_int_equal(rig_read(rig, other, made.open.fh, 0, data, 1), -EBADF);
    /* A node that was given back is none any more, also when its place is taken again. */
    rig_forget(rig, other, 1);
    assert_int_equal(rig_getattr(rig, other, &attr), -ESTALE);
    assert_true(rig_node(rig, 1, "b") != other);
    assert_int_equal(rig_getattr(rig, other, &attr), -ESTALE);
}

static void test_symbolic_links(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_setattr_in set = {.valid = FATTR_SIZE};
    struct fuse_setxattr_in xattr = {.size = 1};
    struct fuse_attr_out attr;
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    struct rig_created made;
    struct fuse_link_in link;
    char path[512], argument[32], target[512];
    uint64_t file, folder;

    assert_int_equal(rig_symlink(rig, 1, "file", outside(rig, "secret", path)), 0);
    assert_int_equal(rig_symlink(rig, 1, "folder", ".."), 0);
    assert_int_equal(rig_symlink(rig, 1, "new", outside(rig, "made", path)), 0);
    assert_int_equal(rig_symlink(rig, 1, "process", "/proc/self/root"), 0);
    file = rig_node(rig, 1, "file");
    folder = rig_node(rig, 1, "folder");
    /* They are text. */
    assert_true(rig_call(rig, FUSE_READLINK, file, NULL, 0, NULL, 0, target, sizeof(target)) > 0);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, file, O_RDONLY, &out), -EPERM);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, file, O_RDWR | O_TRUNC, &out), -EPERM);
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, folder, O_RDONLY, &out), -EPERM);
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, rig_node(rig, 1, "process"), 0, &out),
                     -EPERM);
    assert_int_equal(rig_lookup(rig, folder, "secret", &entry), -ENOTDIR);
    assert_int_equal(rig_create_file(rig, folder, "made", O_RDWR, 0600, &made), -ENOTDIR);
    /* O_CREAT without O_EXCL follows a link that leads nowhere, elsewhere. */
    assert_int_equal(rig_create_file(rig, 1, "new", O_RDWR, 0600, &made), -EPERM);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rig_create_file(rig, 1, "file", O_RDWR | O_TRUNC, 0600, &made), -EPERM);
    /* Attributes are the link's. */
    assert_int_equal(
        rig_call(rig, FUSE_SETATTR, file, &set, sizeof(set), NULL, 0, &attr, sizeof(attr)),
        -EINVAL);
    set = (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 0777};
    assert_int_equal(
        rig_call(rig, FUSE_SETATTR, file, &set, sizeof(set), NULL, 0, &attr, sizeof(attr)),
        -EOPNOTSUPP);
    memcpy(argument, &xattr, 8);
    memcpy(argument + 8, "user.x\0", 8);
    assert_true(rig_call(rig, FUSE_SETXATTR, file, argument, 16, NULL, 0, NULL, 0) < 0);
    /* A second name for a link is a link. */
    link.oldnodeid = file;
    assert_int_equal(
        rig_call(rig, FUSE_LINK, 1, &link, sizeof(link), "twin", 5, &entry, sizeof(entry)),
        sizeof(entry));
    assert_int_equal(entry.attr.mode & S_IFMT, S_IFLNK);
}

static void test_special_files(void **state)
{
    static const uint32_t devices[] = {S_IFCHR, S_IFBLK};
    struct share_rig *rig = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    char path[256];
    int fd;

    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        const struct fuse_mknod_in in = {.mode = devices[i] | 0666, .rdev = 0x103};

        assert_int_equal(
            rig_call(rig, FUSE_MKNOD, 1, &in, sizeof(in), "null", 5, &entry, sizeof(entry)),
            -EPERM);
    }
    /* A pipe without a writer would have a thread wait; a device does something when it is opened.
     */
    assert_int_equal(mkfifo(rig_path(rig, "pipe", path), 0666), 0);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, rig_node(rig, 1, "pipe"), O_RDONLY, &out),
                     -EPERM);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, rig_node(rig, 1, "pipe"), O_WRONLY, &out),
                     -EPERM);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%.90s/socket", rig->folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, rig_node(rig, 1, "socket"), O_RDONLY, &out),
                     -EPERM);
    if (mknod(rig_path(rig, "device", path), S_IFCHR | 0666, 0x105) < 0) {
        print_message("only root can make a device to be refused\n");
        return;
    }
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, rig_node(rig, 1, "device"), O_RDONLY, &out),
                     -EPERM);
}

/* What a guest can do in a directory that it knew, of NODE and with HANDLE, and that is outside
 * now. */
static void assert_unreachable(struct share_rig *rig, uint64_t node, uint64_t handle)
{
    const struct fuse_read_in read = {.fh = handle, .size = 4096};
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    struct rig_created made;
    char room[4096];

    assert_int_equal(rig_lookup(rig, node, "secret", &entry), -ESTALE);
    assert_int_equal(rig_create_file(rig, node, "made", O_RDWR, 0600, &made), -ESTALE);
    assert_int_equal(rig_mkdir(rig, node, "made", &entry), -ESTALE);
    assert_int_equal(rig_symlink(rig, node, "made", "x"), -ESTALE);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, node, "secret"), -ESTALE);
    assert_int_equal(rig_rename(rig, node, "secret", 1, "stolen", 0), -ESTALE);
    assert_int_equal(rig_rename(rig, 1, "inside", node, "put", 0), -ESTALE);
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, node, O_RDONLY, &out), -ESTALE);
    assert_int_equal(
        rig_call(rig, FUSE_READDIR, node, &read, sizeof(read), NULL, 0, room, sizeof(room)),
        -ESTALE);
    assert_int_equal(
        rig_call(rig, FUSE_READDIRPLUS, node, &read, sizeof(read), NULL, 0, room, sizeof(room)),
        -ESTALE);
}

static void test_a_directory_is_moved_out(void **state)
{
    struct share_rig *rig = *state;
    char path[256], moved[512], again[256];
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    uint64_t above, node, file, open_file;
    char data[16] = "";

    assert_int_equal(rig_mkdir(rig, 1, "a", &entry), 0);
    above = entry.nodeid;
    assert_int_equal(rig_mkdir(rig, above, "b", &entry), 0);
    node = entry.nodeid;
    rig_write_file(rig->folder, "inside", "");
    rig_write_file(rig->folder, "a/b/f", "text");
    file = rig_node(rig, node, "f");
    open_file = rig_handle(rig, file, O_RDONLY);
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, node, O_RDONLY, &out), 0);
    assert_int_equal(rename(rig_path(rig, "a", path), outside(rig, "moved", moved)), 0);
    rig_write_file(moved, "b/secret", RIG_SECRET);
    assert_unreachable(rig, node, out.fh);
    assert_false(reads_secret(rig, file));
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, file, O_RDONLY, &out), -ESTALE);
    /* What was open stays so. */
    assert_int_equal(rig_read(rig, file, open_file, 0, data, 4), 4);
    /* Another one in its place is another one, and so is a link to where it is now. */
    assert_int_equal(symlink(moved, path), 0);
    assert_int_equal(rig_lookup(rig, node, "secret", &entry), -ESTALE);
    assert_int_equal(rig_lookup(rig, above, "b", &entry), -ESTALE);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(mkdir(rig_path(rig, "a/b", again), 0755), 0);
    assert_int_equal(rig_lookup(rig, node, "secret", &entry), -ESTALE);
}

static ssize_t set_attributes(struct share_rig *rig, uint64_t node, struct fuse_setattr_in in)
{
    struct fuse_attr_out out;
    ssize_t ret = rig_call(rig, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0, &out, sizeof(out));

    return ret < 0 ? ret : 0;
}

static ssize_t set_attribute(struct share_rig *rig, uint64_t node)
{
    static const char text[] = "user.x\0value";
    const struct fuse_setxattr_in in = {.size = 5};

    return rig_call(rig, FUSE_SETXATTR, node, &in, FUSE_COMPAT_SETXATTR_IN_SIZE, text,
                    sizeof(text) - 1, NULL, 0);
}

static ssize_t link_as(struct share_rig *rig, uint64_t node, const char *name)
{
    const struct fuse_link_in in = {.oldnodeid = node};
    struct fuse_entry_out entry;
    ssize_t ret =
        rig_call(rig, FUSE_LINK, 1, &in, sizeof(in), name, strlen(name) + 1, &entry, sizeof(entry));

    return ret < 0 ? ret : 0;
}

/* A file that the guest has open for reading, and that is outside now: it is read and nothing more.
 */
static void test_a_file_is_moved_out(void **state)
{
    struct share_rig *rig = *state;
    char path[256], moved[512], data[16] = "";
    struct fuse_open_out out;
    struct fuse_attr attr;
    uint64_t node, handle, writer;

    rig_write_file(rig->folder, "f", "text");
    node = rig_node(rig, 1, "f");
    handle = rig_handle(rig, node, O_RDONLY);
    assert_int_equal(rename(rig_path(rig, "f", path), outside(rig, "moved", moved)), 0);
    assert_int_equal(rig_read(rig, node, handle, 0, data, 4), 4);
    assert_int_equal(rig_getattr(rig, node, &attr), 0);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDWR, &out), -ESTALE);
    for (unsigned with_handle = 0; with_handle < 2; with_handle++) {
        uint32_t valid = with_handle ? FATTR_FH : 0;
        struct fuse_setattr_in in = {.fh = handle, .mode = 0777};

        in.valid = valid | FATTR_SIZE;
        assert_int_equal(set_attributes(rig, node, in), -ESTALE);
        in.valid = valid | FATTR_MODE;
        assert_int_equal(set_attributes(rig, node, in), -ESTALE);
        in.valid = valid | FATTR_MTIME;
        assert_int_equal(set_attributes(rig, node, in), -ESTALE);
    }
    assert_int_equal(set_attribute(rig, node), -ESTALE);
    assert_int_equal(link_as(rig, node, "again"), -ESTALE);
    /* The same when the guest has removed the name that it knew, and the host has another one. */
    assert_int_equal(link(moved, path), 0);
    assert_int_equal(rig_node(rig, 1, "f"), node);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "f"), 0);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDWR, &out), -ESTALE);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY | O_TRUNC, &out), -ESTALE);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &out), 0);
    assert_int_equal(link_as(rig, node, "again"), -ESTALE);
    /* Who has it open for writing may go on. */
    assert_int_equal(link(moved, path), 0);
    assert_int_equal(rig_node(rig, 1, "f"), node);
    writer = rig_handle(rig, node, O_RDWR);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rig_write(rig, node, writer, 0, "T", 1, 0), 1);
    assert_int_equal(
        set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = 2}), 0);
    assert_int_equal(link_as(rig, node, "again"), -ESTALE);
    /* And one that has no name at all can only be the guest's. */
    assert_int_equal(unlink(moved), 0);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, node, writer), 0);
    assert_int_equal(
        set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = 1}), 0);
}

/* ---- A host that renames all the time ---- */

struct mover {
    struct share_rig *rig;
    _Atomic bool stop;
    void (*step)(struct mover *m);
    char in[256], out[512], other[512];
    pthread_t thread;
};

static void *move(void *opaque)
{
    struct mover *m = opaque;

    while (!atomic_load(&m->stop))
        m->step(m);
    return NULL;
}

static void begin_moving(struct mover *m)
{
    assert_int_equal(pthread_create(&m->thread, NULL, move, m), 0);
}

static void end_moving(struct mover *m)
{
    atomic_store(&m->stop, true);
    pthread_join(m->thread, NULL);
}

/* A name is in turn something inside and a link to the outside. */
static void exchange(struct mover *m)
{
    renameat2(AT_FDCWD, m->in, AT_FDCWD, m->other, RENAME_EXCHANGE);
}

static void test_a_file_and_a_link_change_places(void **state)
{
    struct share_rig *rig = *state;
    struct mover m = {.rig = rig, .step = exchange};
    struct fuse_entry_out entry;
    struct rig_created made;
    char path[512];

    rig_write_file(rig->folder, "f", "harmless");
    rig_path(rig, "f", m.in);
    snprintf(m.other, sizeof(m.other), "%s/link", rig->folder);
    assert_int_equal(symlink(outside(rig, "secret", path), m.other), 0);
    begin_moving(&m);
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (rig_lookup(rig, 1, "f", &entry) == sizeof(entry) && entry.nodeid) {
            assert_false(reads_secret(rig, entry.nodeid));
            rig_forget(rig, entry.nodeid, 1);
        }
        if (rig_create_file(rig, 1, "f", O_RDWR, 0600, &made) == 0) {
            char data[64] = "";

            rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, sizeof(data) - 1);
            assert_string_not_equal(data, RIG_SECRET);
            rig_release(rig, FUSE_RELEASE, made.entry.nodeid, made.open.fh);
            rig_forget(rig, made.entry.nodeid, 1);
        }
    }
    end_moving(&m);
}

static void test_a_directory_and_a_link_change_places(void **state)
{
    struct share_rig *rig = *state;
    struct mover m = {.rig = rig, .step = exchange};
    struct fuse_entry_out folder, entry;
    char path[512];

    assert_int_equal(mkdir(rig_path(rig, "d", m.in), 0755), 0);
    rig_write_file(rig->folder, "d/secret", "harmless");
    snprintf(m.other, sizeof(m.other), "%s/link", rig->folder);
    snprintf(path, sizeof(path), "%s", rig->outside);
    assert_int_equal(symlink(path, m.other), 0);
    begin_moving(&m);
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (rig_lookup(rig, 1, "d", &folder) < 0 || !folder.nodeid)
            continue;
        if (rig_lookup(rig, folder.nodeid, "secret", &entry) == sizeof(entry) && entry.nodeid) {
            assert_int_equal(entry.attr.size, strlen("harmless"));
            assert_false(reads_secret(rig, entry.nodeid));
            rig_forget(rig, entry.nodeid, 1);
        }
        rig_forget(rig, folder.nodeid, 1);
    }
    end_moving(&m);
}

/* A directory is outside for a while, and only then holds a secret. */
static void go_out_and_in(struct mover *m)
{
    if (rename(m->in, m->out) < 0)
        return;
    rig_write_file(m->out, "secret", RIG_SECRET);
    snprintf(m->other, sizeof(m->other), "%.400s/secret", m->out);
    unlink(m->other);
    assert_int_equal(rename(m->out, m->in), 0);
}

static void test_a_parent_is_moved_out_during_a_lookup(void **state)
{
    struct share_rig *rig = *state;
    struct mover m = {.rig = rig, .step = go_out_and_in};
    struct fuse_entry_out entry;
    uint64_t folder;

    assert_int_equal(mkdir(rig_path(rig, "d", m.in), 0755), 0);
    outside(rig, "out", m.out);
    folder = rig_node(rig, 1, "d");
    begin_moving(&m);
    for (unsigned i = 0; i < ROUNDS; i++) {
        ssize_t ret = rig_lookup(rig, folder, "secret", &entry);

        if (ret == sizeof(entry) && entry.nodeid) {
            assert_false(reads_secret(rig, entry.nodeid));
            rig_forget(rig, entry.nodeid, 1);
        }
    }
    end_moving(&m);
}

/* ---- Mounts ---- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return good;
}

/* Becomes root of a name space of its own. */
static bool may_mount(void)
{
    char users[64], groups[64];

    snprintf(users, sizeof(users), "0 %u 1", geteuid());
    snprintf(groups, sizeof(groups), "0 %u 1", getegid());
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
           write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/uid_map", users) &&
           write_text("/proc/self/gid_map", groups);
}

/* In a process of its own, which may mount. Returns an exit status: 77 if it may not. */
static int try_mounts(struct share_rig *rig)
{
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    char mounted[256], proc[256];

    if (!may_mount())
        return 77;
    mkdir(rig_path(rig, "m", mounted), 0755);
    mkdir(rig_path(rig, "p", proc), 0755);
    if (mount("none", mounted, "tmpfs", 0, NULL) < 0 ||
        mount("/proc", proc, NULL, MS_BIND | MS_REC, NULL) < 0)
        return 77;
    rig_write_file(mounted, "secret", RIG_SECRET);
    rig->share = rig_open(rig, "", NULL);
    rig_init(rig);
    if (rig_lookup(rig, 1, "m", &entry) != -EXDEV || rig_lookup(rig, 1, "p", &entry) != -EXDEV ||
        rig_unlink(rig, FUSE_RMDIR, 1, "m") != -EXDEV)
        return 1;
    /* If the user says so; but never what leads to processes' memory. */
    rig->share = rig_open(rig, ",mounts", NULL);
    rig_init(rig);
    if (rig_lookup(rig, 1, "m", &entry) != sizeof(entry) ||
        !(entry.attr.flags & FUSE_ATTR_SUBMOUNT) ||
        rig_lookup(rig, entry.nodeid, "secret", &entry) != sizeof(entry) ||
        !reads_secret(rig, entry.nodeid))
        return 2;
    if (rig_lookup(rig, 1, "p", &entry) != sizeof(entry) ||
        rig_open_node(rig, FUSE_OPENDIR, entry.nodeid, 0, &out) != -EXDEV ||
        rig_lookup(rig, entry.nodeid, "self", &entry) != -EXDEV)
        return 3;
    return 0;
}

static void test_mounts(void **state)
{
    struct share_rig *rig = *state;
    pid_t child;
    int status;

    fflush(NULL);
    child = fork();
    if (child == 0) {
        alarm(60); /* a check that fails in here must not come back to the tests */
        _exit(try_mounts(rig));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no user namespaces here to mount something in\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names_that_are_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_numbers_that_were_not_given, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_symbolic_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_special_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_directory_is_moved_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_is_moved_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_and_a_link_change_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_directory_and_a_link_change_places, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_parent_is_moved_out_during_a_lookup, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_mounts, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
