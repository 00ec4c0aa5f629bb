/*
 * Shared folders: what a guest does with files, and what comes of it on the host.
 */
#include "test.h"

#include "share_rig.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/xattr.h>

#include "base/util.h"
#include "share/share_private.h"

static int set_up(void **state)
{
    *state = rig_make("");
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

static void assert_holds(const struct share_rig *rig, const char *name, const char *text)
{
    char path[256], got[256] = "";
    FILE *file = fopen(rig_path(rig, name, path), "re");

    assert_non_null(file);
    got[fread(got, 1, sizeof(got) - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(got, text);
}

static void test_options(void **state)
{
    static const struct {
        const char *text, *complaint;
    } bad[] = {
        {"", "the name of a folder is missing"},
        {"/x,speed=9", "there is no setting 'speed'"},
        {"/x,tag=", "1 to 36 bytes"},
        {"/x,tag=a,tag=b", "given twice"},
        {"/x,tag=0123456789012345678901234567890123456", "1 to 36 bytes"},
        {"/x,readonly=maybe", "must be on or off"},
        {"/x,owner=joe", "UID, UID:GID, xattr or host"},
        {"/x,owner=1:", "UID, UID:GID, xattr or host"},
        {"/x,owner=4294967295", "UID, UID:GID, xattr or host"},
        {"/x,timeout=1.2345", "seconds"},
        {"/x,timeout=-1", "seconds"},
        {"/x,timeout=3601", "seconds"},
        {"/x,queues=0", "from 1 to 8"},
        {"/x,queues=9", "from 1 to 8"},
    };
    struct share_options o;
    struct error err;

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        err = (struct error){0};
        assert_int_equal(share_options_parse(bad[i].text, &o, &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i].complaint));
    }
    assert_int_equal(share_options_parse("folder=/a,,b,tag=t,readonly,owner=7:8,mounts=on,"
                                         "timeout=0.25,queues=3",
                                         &o, &err),
                     0);
    assert_string_equal(o.folder, "/a,b");
    assert_string_equal(o.tag, "t");
    assert_true(o.readonly && o.mounts);
    assert_int_equal(o.owner, SHARE_OWNER_MAP);
    assert_int_equal(o.uid, 7);
    assert_int_equal(o.gid, 8);
    assert_int_equal(o.timeout_ms, 250);
    assert_int_equal(o.queues, 3);
    share_options_free(&o);
    assert_int_equal(share_options_parse("/x,owner=5", &o, &err), 0);
    assert_int_equal(o.gid, 5);
    assert_int_equal(o.timeout_ms, 1000);
    share_options_free(&o);
}

static void assert_refused(const char *folder, const char *complaint)
{
    struct share_options o;
    struct error err = {0};

    assert_int_equal(share_options_parse(folder, &o, &err), 0);
    assert_null(share_open(&o, NULL, &err));
    assert_non_null(strstr(err.text, complaint));
    share_options_free(&o);
}

static void test_folders_that_cannot_be_shared(void **state)
{
    assert_refused("/nonexistent/folder", "No such file or directory");
    assert_refused("/dev/null", "Not a directory");
    assert_refused("/proc", "processes cannot be shared");
}

static void test_files_are_made_written_and_read(void **state)
{
    struct share_rig *rig = *state;
    struct rig_created made;
    struct fuse_attr attr;
    char data[64] = "";
    uint64_t node, handle;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0640, &made), 0);
    assert_int_equal(made.entry.attr.mode, S_IFREG | 0640);
    assert_int_equal(made.entry.attr.uid, 0);
    assert_int_equal(made.entry.entry_valid, 1);
    node = made.entry.nodeid;
    handle = made.open.fh;
    assert_int_equal(rig_write(rig, node, handle, 0, "hello", 5, 0), 5);
    assert_int_equal(rig_write(rig, node, handle, 5, " world", 6, 0), 6);
    assert_holds(rig, "a", "hello world");
    assert_int_equal(rig_read(rig, node, handle, 6, data, sizeof(data)), 5);
    assert_string_equal(data, "world");
    assert_int_equal(rig_read(rig, node, handle, 11, data, sizeof(data)), 0);
    assert_int_equal(rig_getattr(rig, node, &attr), 0);
    assert_int_equal(attr.size, 11);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, node, handle), 0);
    assert_int_equal(rig_read(rig, node, handle, 0, data, sizeof(data)), -EBADF);

    /* What is there is opened, or is in the way. */
    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR | O_EXCL, 0600, &made), -EEXIST);
    assert_int_equal(rig_create_file(rig, 1, "a", O_RDONLY, 0600, &made), 0);
    assert_int_equal(made.entry.nodeid, node);
    assert_int_equal(rig_read(rig, node, made.open.fh, 0, data, 5), 5);
}

static void test_appended_bytes_go_to_the_end(void **state)
{
    struct share_rig *rig = *state;
    uint64_t node, handle;

    rig_write_file(rig->folder, "log", "one\n");
    node = rig_node(rig, 1, "log");
    handle = rig_handle(rig, node, O_WRONLY | O_APPEND);
    rig_write_file(rig->folder, "log", "one\ntwo\n"); /* the guest thinks that it has 4 bytes */
    assert_int_equal(rig_write(rig, node, handle, 4, "three\n", 6, O_WRONLY | O_APPEND), 6);
    assert_holds(rig, "log", "one\ntwo\nthree\n");
    /* But what is written back from mapped memory has its place. */
    {
        const struct fuse_write_in in = {
            .fh = handle, .size = 3, .write_flags = FUSE_WRITE_CACHE, .flags = O_APPEND};
        struct fuse_write_out out;

        assert_int_equal(
            rig_call(rig, FUSE_WRITE, node, &in, sizeof(in), "ONE", 3, &out, sizeof(out)),
            sizeof(out));
    }
    assert_holds(rig, "log", "ONE\ntwo\nthree\n");
}

static void test_names_are_changed_and_removed(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_entry_out entry, none;
    struct fuse_attr attr;
    uint64_t folder, file;

    assert_int_equal(rig_mkdir(rig, 1, "d", &entry), 0);
    folder = entry.nodeid;
    rig_write_file(rig->folder, "d/f", "text");
    file = rig_node(rig, folder, "f");
    /* What is in a directory moves with it. */
    assert_int_equal(rig_rename(rig, 1, "d", 1, "e", 0), 0);
    assert_int_equal(rig_getattr(rig, file, &attr), 0);
    assert_int_equal(rig_lookup(rig, 1, "d", &none), sizeof(none));
    assert_int_equal(none.nodeid, 0);
    assert_int_equal(rig_rename(rig, folder, "f", 1, "g", 0), 0);
    assert_int_equal(rig_getattr(rig, file, &attr), 0);
    assert_holds(rig, "g", "text");
    rig_write_file(rig->folder, "h", "other");
    assert_int_equal(rig_rename(rig, 1, "g", 1, "h", RENAME_NOREPLACE), -EEXIST);
    assert_int_equal(rig_rename(rig, 1, "g", 1, "h", RENAME_WHITEOUT), -EINVAL);
    assert_int_equal(rig_rename(rig, 1, "g", 1, "h", RENAME_EXCHANGE), 0);
    assert_holds(rig, "h", "text");
    assert_int_equal(rig_node(rig, 1, "h"), file);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "e"), -EISDIR);
    assert_int_equal(rig_unlink(rig, FUSE_RMDIR, 1, "e"), 0);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "h"), 0);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "h"), -ENOENT);
    assert_int_equal(rig_getattr(rig, file, &attr), -ESTALE);
}

static void test_a_removed_file_lives_while_it_is_open(void **state)
{
    struct share_rig *rig = *state;
    struct rig_created made, again;
    struct fuse_attr attr;
    char data[8] = "";

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    assert_int_equal(rig_write(rig, made.entry.nodeid, made.open.fh, 0, "abc", 3, 0), 3);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "a"), 0);
    assert_int_equal(rig_getattr(rig, made.entry.nodeid, &attr), 0);
    assert_int_equal(attr.nlink, 0);
    assert_int_equal(attr.size, 3);
    assert_int_equal(rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, 8), 3);
    /* A file that takes its name is another one. */
    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &again), 0);
    assert_true(again.entry.nodeid != made.entry.nodeid);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, made.entry.nodeid, made.open.fh), 0);
    assert_int_equal(rig_getattr(rig, made.entry.nodeid, &attr), -ESTALE);
}

static void test_files_without_a_name_get_one(void **state)
{
    const struct fuse_create_in in = {.flags = O_RDWR, .mode = S_IFREG | 0600};
    struct share_rig *rig = *state;
    struct rig_created made;
    struct fuse_link_in link;
    struct fuse_entry_out entry;

    if (rig_call(rig, FUSE_TMPFILE, 1, &in, sizeof(in), "", 1, &made, sizeof(made)) == -EOPNOTSUPP)
        skip(); /* the file system of the tests cannot */
    assert_int_equal(made.entry.attr.nlink, 0);
    assert_int_equal(rig_write(rig, made.entry.nodeid, made.open.fh, 0, "born", 4, 0), 4);
    link.oldnodeid = made.entry.nodeid;
    assert_int_equal(
        rig_call(rig, FUSE_LINK, 1, &link, sizeof(link), "named", 6, &entry, sizeof(entry)),
        sizeof(entry));
    assert_holds(rig, "named", "born");
    assert_int_equal(entry.nodeid, made.entry.nodeid);
}

static void test_the_host_edits(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_open_out out;
    struct fuse_attr attr;
    char path[256], other[256];
    uint64_t node;

    rig_write_file(rig->folder, "a", "first");
    node = rig_node(rig, 1, "a");
    /* In place: the size is seen at once, and what is cached is not kept. */
    rig_write_file(rig->folder, "a", "first and second");
    assert_int_equal(rig_getattr(rig, node, &attr), 0);
    assert_int_equal(attr.size, 16);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &out), 0);
    assert_false(out.open_flags & FOPEN_KEEP_CACHE);
    rig_release(rig, FUSE_RELEASE, node, out.fh);
    /* By another file in its place, as editors do: the node is stale, and a look-up finds it. */
    rig_write_file(rig->folder, "b", "new");
    assert_int_equal(rename(rig_path(rig, "b", other), rig_path(rig, "a", path)), 0);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &out), -ESTALE);
    assert_true(rig_node(rig, 1, "a") != node);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rig_getattr(rig, node, &attr), -ESTALE);
}

static void test_the_cache_is_kept_while_nothing_changes(void **state)
{
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    struct share_rig *rig = *state;
    struct fuse_open_out out;
    char path[256];
    uint64_t node;

    rig_write_file(rig->folder, "a", "text");
    utimensat(AT_FDCWD, rig_path(rig, "a", path), old, 0);
    node = rig_node(rig, 1, "a");
    /* Its ctime must be old enough to tell of a change. */
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &out), 0);
        rig_release(rig, FUSE_RELEASE, node, out.fh);
        if (out.open_flags & FOPEN_KEEP_CACHE)
            break;
        usleep(100000);
    }
    assert_true(out.open_flags & FOPEN_KEEP_CACHE);
    rig_write_file(rig->folder, "a", "TEXT");
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY, &out), 0);
    assert_false(out.open_flags & FOPEN_KEEP_CACHE);
}

static void set_attributes(struct share_rig *rig, uint64_t node, struct fuse_setattr_in in,
                           int expected, struct fuse_attr *attr)
{
    struct fuse_attr_out out = {0};
    ssize_t ret = rig_call(rig, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0, &out, sizeof(out));

    assert_int_equal(ret < 0 ? ret : 0, expected);
    *attr = out.attr;
}

static void test_attributes_are_set(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_attr attr;
    struct stat st;
    char path[256];
    uint64_t node;

    rig_write_file(rig->folder, "a", "12345");
    node = rig_node(rig, 1, "a");
    set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = 3}, 0, &attr);
    assert_int_equal(attr.size, 3);
    set_attributes(rig, node,
                   (struct fuse_setattr_in){
                       .valid = FATTR_ATIME | FATTR_MTIME, .atime = 5, .mtime = 6, .mtimensec = 7},
                   0, &attr);
    assert_int_equal(attr.atime, 5);
    assert_int_equal(attr.mtime, 6);
    assert_int_equal(attr.mtimensec, 7);
    /* No bit that would have others run the file as the user who runs doppel. */
    set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 06755}, 0,
                   &attr);
    assert_int_equal(stat(rig_path(rig, "a", path), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(attr.mode & 07777, 0755);
    /* All files are the guest's root's, and nobody else's. */
    set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_UID, .uid = 0}, 0, &attr);
    set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_UID, .uid = 1}, -EPERM,
                   &attr);
    set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = UINT64_MAX},
                   -EFBIG, &attr);
}

static bool have_xattr(const struct share_rig *rig)
{
    return setxattr(rig->folder, "user.test", "1", 1, 0) == 0 &&
           removexattr(rig->folder, "user.test") == 0;
}

static void test_owners_are_kept_in_attributes(void **state)
{
    struct share_rig *rig = *state, *other = rig_make(",owner=xattr");
    struct rig_created made;
    struct fuse_getxattr_in in = {.size = 4096};
    struct fuse_attr attr;
    struct stat st;
    char path[256], list[4096];

    if (!have_xattr(other)) {
        rig_free(other);
        skip();
    }
    assert_int_equal(rig_create_file(other, 1, "a", O_RDWR, 04750, &made), 0);
    assert_int_equal(made.entry.attr.uid, 1000);
    assert_int_equal(made.entry.attr.gid, 1001);
    assert_int_equal(made.entry.attr.mode, S_IFREG | 04750);
    assert_int_equal(stat(rig_path(other, "a", path), &st), 0);
    assert_int_equal(st.st_uid, geteuid());
    assert_int_equal(st.st_mode & 07777, 0750);
    set_attributes(other, made.entry.nodeid,
                   (struct fuse_setattr_in){
                       .valid = FATTR_UID | FATTR_GID | FATTR_MODE, .uid = 5, .gid = 6, .mode = 0},
                   0, &attr);
    assert_int_equal(attr.uid, 5);
    assert_int_equal(attr.gid, 6);
    assert_int_equal(attr.mode & 07777, 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(rig_getattr(other, made.entry.nodeid, &attr), 0);
    assert_int_equal(attr.uid, 5);
    /* The guest sees no such attribute, and cannot forge one. */
    assert_int_equal(rig_call(other, FUSE_LISTXATTR, made.entry.nodeid, &in, sizeof(in), NULL, 0,
                              list, sizeof(list)),
                     0);
    assert_int_equal(rig_call(other, FUSE_GETXATTR, made.entry.nodeid, &in, sizeof(in),
                              "user.doppel.owner", 18, list, sizeof(list)),
                     -ENODATA);
    assert_int_equal(rig_call(other, FUSE_REMOVEXATTR, made.entry.nodeid, "user.doppel.owner", 18,
                              NULL, 0, NULL, 0),
                     -ENODATA);
    /* A write takes the right to run it as its owner away. */
    set_attributes(other, made.entry.nodeid,
                   (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 06755}, 0, &attr);
    assert_int_equal(attr.mode & 07777, 06755);
    {
        const struct fuse_write_in write = {
            .fh = made.open.fh, .size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID};
        struct fuse_write_out out;

        assert_int_equal(rig_call(other, FUSE_WRITE, made.entry.nodeid, &write, sizeof(write), "x",
                                  1, &out, sizeof(out)),
                         sizeof(out));
    }
    assert_int_equal(rig_getattr(other, made.entry.nodeid, &attr), 0);
    assert_int_equal(attr.mode & 07777, 0755);
    rig_free(other);
    (void)rig;
}

static void test_attributes_of_users(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_setxattr_in set = {.size = 5};
    struct fuse_getxattr_in get = {.size = 0};
    struct fuse_getxattr_out size;
    char argument[64], got[64] = "";
    uint64_t node;

    if (!have_xattr(rig))
        skip();
    rig_write_file(rig->folder, "a", "");
    node = rig_node(rig, 1, "a");
    memcpy(argument, &set, 8);
    memcpy(argument + 8, "user.colour\0green", 17);
    assert_int_equal(rig_call(rig, FUSE_SETXATTR, node, argument, 25, NULL, 0, NULL, 0), 0);
    assert_int_equal(rig_call(rig, FUSE_GETXATTR, node, &get, sizeof(get), "user.colour", 12, &size,
                              sizeof(size)),
                     sizeof(size));
    assert_int_equal(size.size, 5);
    get.size = 64;
    assert_int_equal(
        rig_call(rig, FUSE_GETXATTR, node, &get, sizeof(get), "user.colour", 12, got, sizeof(got)),
        5);
    assert_string_equal(got, "green");
    get.size = 3;
    assert_int_equal(
        rig_call(rig, FUSE_GETXATTR, node, &get, sizeof(get), "user.colour", 12, got, sizeof(got)),
        -ERANGE);
    get.size = 64;
    assert_int_equal(
        rig_call(rig, FUSE_LISTXATTR, node, &get, sizeof(get), NULL, 0, got, sizeof(got)), 12);
    assert_string_equal(got, "user.colour");
    /* What means something to the host's kernel is not there. */
    memcpy(argument + 8, "security.x\0\0green", 17);
    assert_int_equal(rig_call(rig, FUSE_SETXATTR, node, argument, 25, NULL, 0, NULL, 0),
                     -EOPNOTSUPP);
    assert_int_equal(rig_call(rig, FUSE_GETXATTR, node, &get, sizeof(get), "security.capability",
                              20, got, sizeof(got)),
                     -ENODATA);
    /* A value that is said to be longer than the request. */
    set.size = 60000;
    memcpy(argument, &set, 8);
    memcpy(argument + 8, "user.colour\0green", 17);
    assert_int_equal(rig_call(rig, FUSE_SETXATTR, node, argument, 25, NULL, 0, NULL, 0), -EINVAL);
}

/* Reads the directory of NODE; returns how many names it has, dots left out, and adds up the nodes
 * that came with them. */
static unsigned read_directory(struct share_rig *rig, uint64_t node, uint32_t opcode, uint32_t size,
                               unsigned *nodes)
{
    struct fuse_open_out out;
    uint64_t offset = 0;
    char *room = malloc(size);
    unsigned names = 0;
    ssize_t got;

    *nodes = 0;
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, node, O_RDONLY, &out), 0);
    for (;;) {
        const struct fuse_read_in in = {.fh = out.fh, .offset = offset, .size = size};

        got = rig_call(rig, opcode, node, &in, sizeof(in), NULL, 0, room, size);
        assert_true(got >= 0);
        if (got == 0)
            break;
        for (ssize_t at = 0; at < got;) {
            const struct fuse_direntplus *plus = (const void *)(room + at);
            bool whole = opcode == FUSE_READDIRPLUS;
            const struct fuse_dirent *d = whole ? &plus->dirent : (const void *)(room + at);

            names += d->name[0] != '.';
            *nodes += whole && plus->entry_out.nodeid;
            if (whole && plus->entry_out.nodeid)
                rig_forget(rig, plus->entry_out.nodeid, 1);
            offset = d->off;
            at += (ssize_t)(whole ? FUSE_DIRENTPLUS_SIZE(plus) : FUSE_DIRENT_SIZE(d));
        }
    }
    free(room);
    assert_int_equal(rig_release(rig, FUSE_RELEASEDIR, node, out.fh), 0);
    return names;
}

static void test_directories_are_read(void **state)
{
    struct share_rig *rig = *state;
    char name[64];
    unsigned nodes;

    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "a file with number %u", i);
        rig_write_file(rig->folder, name, "");
    }
    assert_int_equal(read_directory(rig, 1, FUSE_READDIR, 4096, &nodes), 1000);
    assert_int_equal(read_directory(rig, 1, FUSE_READDIR, 300, &nodes), 1000);
    assert_int_equal(read_directory(rig, 1, FUSE_READDIRPLUS, 4096, &nodes), 1000);
    assert_int_equal(nodes, 1000);
    assert_int_equal(read_directory(rig, 1, FUSE_READDIRPLUS, 400, &nodes), 1000);
}

static unsigned open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void test_many_files_take_few_descriptors(void **state)
{
    struct share_rig *rig = *state;
    const struct rlimit few = {400, 400};
    struct rlimit before;
    struct fuse_attr attr;
    struct fuse_open_out out;
    uint64_t nodes[3000];
    unsigned at_first, opened = 0;
    char name[64];
    struct share *share = rig->share;

    getrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){few.rlim_cur, before.rlim_max}), 0);
    rig->share = rig_open(rig, "", NULL);
    assert_non_null(rig->share);
    rig_init(rig);
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++) {
        snprintf(name, sizeof(name), "%u", i);
        rig_write_file(rig->folder, name, "");
        nodes[i] = rig_node(rig, 1, name);
    }
    at_first = open_descriptors();
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++)
        assert_int_equal(rig_getattr(rig, nodes[i], &attr), 0);
    assert_int_equal(open_descriptors(), at_first);
    /* What is open takes one each, but not all that the process may have. */
    while (rig_open_node(rig, FUSE_OPEN, nodes[opened], O_RDONLY, &out) == 0)
        opened++;
    assert_true(opened > 100 && open_descriptors() < few.rlim_cur - 100);
    assert_int_equal(rig_getattr(rig, nodes[opened], &attr), 0);
    share_close(rig->share);
    rig->share = share;
    setrlimit(RLIMIT_NOFILE, &before);
}

static void test_a_folder_to_be_read_only(void **state)
{
    struct share_rig *rig = rig_make(",readonly");
    struct rig_created made;
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    struct fuse_attr attr;
    char data[8] = "";
    uint64_t node;

    rig_write_file(rig->folder, "a", "text");
    node = rig_node(rig, 1, "a");
    assert_int_equal(rig_read(rig, node, rig_handle(rig, node, O_RDONLY), 0, data, 8), 4);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDWR, &out), -EROFS);
    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, O_RDONLY | O_TRUNC, &out), -EROFS);
    assert_int_equal(rig_create_file(rig, 1, "b", O_RDWR, 0600, &made), -EROFS);
    assert_int_equal(rig_create_file(rig, 1, "a", O_RDONLY, 0600, &made), -EROFS);
    assert_int_equal(rig_mkdir(rig, 1, "d", &entry), -EROFS);
    assert_int_equal(rig_symlink(rig, 1, "l", "a"), -EROFS);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "a"), -EROFS);
    assert_int_equal(rig_rename(rig, 1, "a", 1, "b", 0), -EROFS);
    set_attributes(rig, node, (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 0}, -EROFS,
                   &attr);
    rig_free(rig);
}

static void test_the_rest(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_fallocate_in allocate = {.length = 1 << 20, .offset = 4096};
    struct fuse_lseek_in seek = {.whence = SEEK_DATA};
    struct fuse_lseek_out place;
    struct fuse_copy_file_range_in copy = {.len = 4096};
    struct fuse_fsync_in sync = {0};
    struct fuse_statfs_out fs;
    struct fuse_write_out copied;
    struct rig_created a, b;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &a), 0);
    assert_int_equal(rig_create_file(rig, 1, "b", O_RDWR, 0600, &b), 0);
    allocate.fh = seek.fh = sync.fh = copy.fh_in = a.open.fh;
    assert_int_equal(rig_call(rig, FUSE_FALLOCATE, a.entry.nodeid, &allocate, sizeof(allocate),
                              NULL, 0, NULL, 0),
                     0);
    assert_int_equal(rig_write(rig, a.entry.nodeid, a.open.fh, 0, "data", 4, 0), 4);
    assert_int_equal(rig_call(rig, FUSE_LSEEK, a.entry.nodeid, &seek, sizeof(seek), NULL, 0, &place,
                              sizeof(place)),
                     sizeof(place));
    assert_int_equal(place.offset, 0);
    seek.whence = SEEK_END;
    assert_int_equal(rig_call(rig, FUSE_LSEEK, a.entry.nodeid, &seek, sizeof(seek), NULL, 0, &place,
                              sizeof(place)),
                     -EINVAL);
    copy.nodeid_out = b.entry.nodeid;
    copy.fh_out = b.open.fh;
    assert_int_equal(rig_call(rig, FUSE_COPY_FILE_RANGE, a.entry.nodeid, &copy, sizeof(copy), NULL,
                              0, &copied, sizeof(copied)),
                     sizeof(copied));
    assert_int_equal(copied.size, 4096);
    assert_int_equal(
        rig_call(rig, FUSE_FSYNC, a.entry.nodeid, &sync, sizeof(sync), NULL, 0, NULL, 0), 0);
    assert_int_equal(rig_call(rig, FUSE_STATFS, 1, NULL, 0, NULL, 0, &fs, sizeof(fs)), sizeof(fs));
    assert_true(fs.st.blocks > 0);
    assert_int_equal(rig_call(rig, FUSE_ACCESS, 1, &sync, 8, NULL, 0, NULL, 0), -ENOSYS);
}

/* All names together have a bound: then the guest gets to know no other files. */
static void test_names_are_bounded(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_entry_out entry;
    struct fuse_attr attr;
    uint64_t node, filled;
    char path[256];

    rig_write_file(rig->folder, "a", "");
    rig_write_file(rig->folder, "another", "");
    filled = SHARE_NAMES_MOST - 4 - rig->share->names;
    rig->share->names += filled;
    node = rig_node(rig, 1, "a");
    assert_int_equal(rig_lookup(rig, 1, "another", &entry), -ENFILE);
    /* What gets a longer name is found when there is room again. */
    assert_int_equal(rig_rename(rig, 1, "a", 1, "longer", 0), 0);
    assert_int_equal(access(rig_path(rig, "longer", path), F_OK), 0);
    assert_int_equal(rig_getattr(rig, node, &attr), -ESTALE);
    assert_int_equal(rig_lookup(rig, 1, "longer", &entry), -ENFILE);
    rig->share->names -= filled;
    assert_int_equal(rig_node(rig, 1, "longer"), node);
    assert_int_equal(rig_getattr(rig, node, &attr), 0);
    assert_int_equal(rig_node(rig, 1, "another") == node, 0);
    assert_int_equal(rig->share->names, sizeof("longer") + sizeof("another"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_folders_that_cannot_be_shared),
        cmocka_unit_test_setup_teardown(test_files_are_made_written_and_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_appended_bytes_go_to_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_are_changed_and_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_removed_file_lives_while_it_is_open, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_files_without_a_name_get_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_host_edits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_cache_is_kept_while_nothing_changes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_attributes_are_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_owners_are_kept_in_attributes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_attributes_of_users, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_directories_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_files_take_few_descriptors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_are_bounded, set_up, tear_down),
        cmocka_unit_test(test_a_folder_to_be_read_only),
        cmocka_unit_test_setup_teardown(test_the_rest, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
