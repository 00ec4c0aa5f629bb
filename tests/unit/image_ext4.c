/*
 * ext4 file systems that are built file by file, with e2fsck as the judge and debugfs's view of the
 * contents left to tests/guest/create.py.
 */
#include "test.h"

#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "image/ext4.h"
#include "image/ext4_edit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK (256 * MiB)

struct disk {
    int fd;
    char path[64]; /* by which e2fsck finds it, too */
    struct blk *blk;
    struct ext4 *ext4;
};

static const struct ext4_attributes usual = {.mode = 0644, .seconds = 1000000000};

static void disk_open(struct disk *disk, uint64_t size)
{
    struct blk_options options = {.file = disk->path};
    struct ext4_options what = {
        .size = size, .uuid = {1, 2, 3}, .label = "test", .now = 1700000000, .name = "the test"};
    struct error err = {0};

    disk->fd = memfd_create("disk", 0);
    assert_true(disk->fd >= 0);
    assert_int_equal(ftruncate(disk->fd, (off_t)size), 0);
    snprintf(disk->path, sizeof(disk->path), "/proc/%d/fd/%d", (int)getpid(), disk->fd);
    disk->blk = blk_open(&options, NULL, &err);
    if (!disk->blk)
        fail_msg("%s", err.text);
    disk->ext4 = ext4_create(disk->blk, &what, &err);
    if (!disk->ext4)
        fail_msg("%s", err.text);
}

static void disk_close(struct disk *disk)
{
    ext4_free(disk->ext4);
    blk_close(disk->blk);
    close(disk->fd);
}

static void judge(struct disk *disk)
{
    char command[160];

    snprintf(command, sizeof(command), "PATH=$PATH:/usr/sbin:/sbin e2fsck -fn %s 2>&1", disk->path);
    assert_int_equal(system(command), 0);
}

static void finish(struct disk *disk)
{
    struct error err = {0};

    if (ext4_finish(disk->ext4, &err))
        fail_msg("%s", err.text);
    judge(disk);
}

static void good(int result, const struct error *err)
{
    if (result)
        fail_msg("%s", err->text);
}

static void add_file(struct disk *disk, const char *path, const void *data, size_t size)
{
    struct error err = {0};

    good(ext4_file_begin(disk->ext4, path, &usual, &err), &err);
    good(ext4_file_write(disk->ext4, 0, data, size, &err), &err);
    good(ext4_file_end(disk->ext4, size, &err), &err);
}

static void expect_file(struct disk *disk, const char *path, const void *data, size_t size)
{
    struct error err = {0};
    struct ext4_edit *edit =
        ext4_edit_open(disk->blk, 0, blk_info(disk->blk).size, "the test", EXT4_COPY, &err);
    size_t got = 0;
    char *contents;

    if (!edit)
        fail_msg("%s", err.text);
    contents = ext4_edit_read(edit, path, 64 * MiB, &got, &err);
    if (!contents)
        fail_msg("%s", err.text);
    assert_int_equal(got, size);
    assert_memory_equal(contents, data, size);
    free(contents);
    ext4_edit_free(edit);
}

/* Nothing in it but what each file system has. */
static void test_empty(void **state)
{
    struct disk disk;

    (void)state;
    disk_open(&disk, 64 * MiB);
    finish(&disk);
    disk_close(&disk);
}

/* One of each kind, in directories that are implied, through links, under two names. */
static void test_kinds(void **state)
{
    static const char capability[20] = {1, 0, 0, 2, 0, 32};
    const struct ext4_xattr xattrs[] = {{"security.capability", capability, sizeof(capability)},
                                        {"user.note", "hello", 5},
                                        {"com.apple.note", "ignored", 7}};
    struct ext4_attributes special = {.mode = 04755,
                                      .uid = 70000,
                                      .gid = 100000,
                                      .seconds = 5000000000,
                                      .nanoseconds = 123456789,
                                      .xattrs = xattrs,
                                      .xattr_count = 3};
    char target[2000];
    struct error err = {0};
    struct disk disk;

    (void)state;
    disk_open(&disk, DISK);
    good(ext4_directory(disk.ext4, "./", &(struct ext4_attributes){.mode = 0700}, &err), &err);
    good(ext4_symlink(disk.ext4, "lib", "usr/lib", &usual, &err), &err);
    good(ext4_directory(disk.ext4, "usr/lib", &usual, &err), &err);
    good(ext4_directory(disk.ext4, "lib/", &usual, &err), &err); /* the link stays */
    add_file(&disk, "/lib/x/y/file", "contents", 8);
    good(ext4_link(disk.ext4, "other", "usr/lib/x/y/file", &err), &err);
    good(ext4_link(disk.ext4, "other", "usr/lib/x/y/file", &err), &err);
    good(ext4_file_begin(disk.ext4, "program", &special, &err), &err);
    good(ext4_file_end(disk.ext4, 0, &err), &err);
    memset(target, 'a', sizeof(target));
    target[sizeof(target) - 1] = 0;
    good(ext4_symlink(disk.ext4, "long", target, &usual, &err), &err);
    target[59] = 0;
    good(ext4_symlink(disk.ext4, "short", target, &usual, &err), &err);
    good(ext4_special(disk.ext4, "dev/null", S_IFCHR, 1, 3, &usual, &err), &err);
    good(ext4_special(disk.ext4, "dev/large", S_IFBLK, 259, 70000, &usual, &err), &err);
    good(ext4_special(disk.ext4, "fifo", S_IFIFO, 0, 0, &usual, &err), &err);
    finish(&disk);
    expect_file(&disk, "/other", "contents", 8);
    expect_file(&disk, "/lib/x/y/file", "contents", 8);
    expect_file(&disk, "/program", "", 0);
    disk_close(&disk);
}

/* Data with holes, at odd places, and a hole at the end. */
static void test_sparse(void **state)
{
    static const size_t at[] = {0, 100, 5000, 12288, 20000, 3 * MiB + 1, 9 * MiB - 1};
    size_t size = 10 * MiB + 7;
    struct error err = {0};
    struct disk disk;
    char *model = calloc(1, size);

    (void)state;
    disk_open(&disk, DISK);
    good(ext4_file_begin(disk.ext4, "sparse", &usual, &err), &err);
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        memset(model + at[i], 'a' + (int)i, 50 + i * 13);
        good(ext4_file_write(disk.ext4, at[i], model + at[i], 50 + i * 13, &err), &err);
    }
    good(ext4_file_end(disk.ext4, size, &err), &err);
    finish(&disk);
    expect_file(&disk, "/sparse", model, size);
    free(model);
    disk_close(&disk);
}

/* A file whose extents need a tree: its blocks lie between those of files that are gone. */
static void test_fragments(void **state)
{
    static char data[2 * MiB];
    char path[32];
    struct error err = {0};
    struct disk disk;

    (void)state;
    disk_open(&disk, 96 * MiB);
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (char)(i >> 9);
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(path, sizeof(path), "f/%u", i);
        add_file(&disk, path, data, 8192 + 4096);
    }
    /* Fill the rest, so that only what is removed is free. */
    for (unsigned i = 0;; i++) {
        snprintf(path, sizeof(path), "rest/%u", i);
        if (ext4_file_begin(disk.ext4, path, &usual, &err) ||
            ext4_file_write(disk.ext4, 0, data, 64 * KiB, &err) ||
            ext4_file_end(disk.ext4, 64 * KiB, &err))
            break;
    }
    assert_int_equal(err.code, ENOSPC);
    disk_close(&disk);

    disk_open(&disk, 96 * MiB);
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(path, sizeof(path), "f/%u", i);
        add_file(&disk, path, data, 4096);
    }
    for (unsigned i = 0; i < 5000; i += 2) {
        snprintf(path, sizeof(path), "f/%u", i);
        good(ext4_remove(disk.ext4, path, &err), &err);
    }
    good(ext4_remove(disk.ext4, "never", &err), &err);
    for (unsigned i = 0; i < 30; i++) {
        snprintf(path, sizeof(path), "big%u", i);
        add_file(&disk, path, data, sizeof(data));
    }
    finish(&disk);
    expect_file(&disk, "/big29", data, sizeof(data));
    expect_file(&disk, "/f/4999", data, 4096);
    disk_close(&disk);
}

/* Directories of all lengths: a list, a tree of one level, and one of two. */
static void test_directories(void **state)
{
    static const unsigned counts[] = {1, 60, 150, 5000, 120000};
    char path[280];
    struct error err = {0};
    struct disk disk;

    (void)state;
    disk_open(&disk, DISK);
    add_file(&disk, "one", "1", 1);
    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        for (unsigned n = 0; n < counts[i]; n++) {
            /* Long names, so that there are more than 507 leaves. */
            snprintf(path, sizeof(path), "/d%u/%0*u", i, 8 + (int)(n % 37), n);
            /* A file has at most 65,000 names. */
            if (n % 40000 == 0)
                add_file(&disk, "one", "1", 1);
            good(ext4_link(disk.ext4, path, "one", &err), &err);
        }
    }
    assert_int_equal(ext4_count(disk.ext4), 125211 + 7);
    finish(&disk);
    expect_file(&disk, path, "1", 1); /* the last one */
    disk_close(&disk);
}

/* What archives must not do. */
static void test_refused(void **state)
{
    char path[20000];
    struct error err = {0};
    struct disk disk;

    (void)state;
    disk_open(&disk, DISK);
    add_file(&disk, "file", "x", 1);
    add_file(&disk, "full/file", "x", 1);
    good(ext4_symlink(disk.ext4, "loop", "loop", &usual, &err), &err);
    good(ext4_symlink(disk.ext4, "up", "../../../..", &usual, &err), &err);
    good(ext4_symlink(disk.ext4, "far", "/full/../full", &usual, &err), &err);
    assert_int_equal(ext4_directory(disk.ext4, "../x", &usual, &err), -EINVAL);
    assert_int_equal(ext4_directory(disk.ext4, "a/../../x", &usual, &err), -EINVAL);
    assert_int_equal(ext4_directory(disk.ext4, "a/..", &usual, &err), -EINVAL);
    assert_int_equal(ext4_file_begin(disk.ext4, "file/x", &usual, &err), -EINVAL);
    assert_int_equal(ext4_file_begin(disk.ext4, "loop/x", &usual, &err), -EINVAL);
    assert_int_equal(ext4_file_begin(disk.ext4, "full", &usual, &err), -EINVAL);
    assert_int_equal(ext4_file_begin(disk.ext4, "/", &usual, &err), -EINVAL);
    assert_int_equal(ext4_file_begin(disk.ext4, "lost+found", &usual, &err), -EINVAL);
    assert_int_equal(ext4_link(disk.ext4, "y", "full", &err), -EINVAL);
    assert_int_equal(ext4_link(disk.ext4, "y", "none", &err), -EINVAL);
    assert_int_equal(ext4_symlink(disk.ext4, "y", "", &usual, &err), -EINVAL);
    assert_int_equal(ext4_special(disk.ext4, "y", S_IFCHR, 4096, 0, &usual, &err), -EINVAL);
    memset(path, 'n', sizeof(path));
    path[sizeof(path) - 1] = 0;
    assert_int_equal(ext4_file_begin(disk.ext4, path, &usual, &err), -ENAMETOOLONG);
    path[256] = 0;
    assert_int_equal(ext4_file_begin(disk.ext4, path, &usual, &err), -ENAMETOOLONG);
    path[255] = 0;
    add_file(&disk, path, "x", 1);
    add_file(&disk, "up/inside", "up", 2); /* the root's parent is the root */
    add_file(&disk, "far/away", "far", 3);
    good(ext4_remove_contents(disk.ext4, "far", &err), &err);
    add_file(&disk, "far/again", "far", 3);
    good(ext4_file_begin(disk.ext4, "backwards", &usual, &err), &err);
    good(ext4_file_write(disk.ext4, 10, "x", 1, &err), &err);
    assert_int_equal(ext4_file_write(disk.ext4, 9, "x", 1, &err), -EINVAL);
    assert_int_equal(ext4_file_end(disk.ext4, 5, &err), -EINVAL);
    good(ext4_remove(disk.ext4, "backwards", &err), &err);
    finish(&disk);
    expect_file(&disk, "/inside", "up", 2);
    expect_file(&disk, "/full/again", "far", 3);
    disk_close(&disk);
}

/* Single files of one that is done are changed. */
static void test_edit(void **state)
{
    static char large[300000];
    char path[64];
    struct error err = {0};
    struct ext4_edit *edit;
    struct disk disk;

    (void)state;
    memset(large, 'l', sizeof(large));
    disk_open(&disk, DISK);
    add_file(&disk, "etc/hostname", "debian\n", 7);
    good(ext4_symlink(disk.ext4, "etc/link", "/etc/hostname", &usual, &err), &err);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(path, sizeof(path), "etc/a-file-with-a-name-%u", i);
        add_file(&disk, path, "x", 1);
    }
    finish(&disk);
    edit = ext4_edit_open(disk.blk, 0, DISK, "the test", EXT4_CHANGE, &err);
    if (!edit)
        fail_msg("%s", err.text);
    good(ext4_edit_write(edit, "/etc/hostname", large, sizeof(large), &usual, &err), &err);
    good(ext4_edit_write(edit, "/etc/link", "web\n", 4, &usual, &err), &err);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(path, sizeof(path), "/etc/another-file-%u", i);
        good(ext4_edit_write(edit, path, large, i * 500, &usual, &err), &err);
    }
    good(ext4_edit_directory(edit, "/root", &(struct ext4_attributes){.mode = 0700}, &err), &err);
    good(ext4_edit_directory(edit, "/root/.ssh", &(struct ext4_attributes){.mode = 0700}, &err),
         &err);
    good(ext4_edit_write(edit, "/root/.ssh/keys", "key", 3, &usual, &err), &err);
    assert_int_equal(ext4_edit_write(edit, "/none/x", "key", 3, &usual, &err), -ENOENT);
    assert_int_equal(ext4_edit_write(edit, "/root", "key", 3, &usual, &err), -EINVAL);
    good(ext4_edit_finish(edit, &err), &err);
    ext4_edit_free(edit);
    judge(&disk);
    expect_file(&disk, "/etc/hostname", "web\n", 4);
    expect_file(&disk, "/etc/another-file-199", large, 199 * 500);
    expect_file(&disk, "/root/.ssh/keys", "key", 3);
    disk_close(&disk);
}

/* What is only looked at is read so often and no more, whatever is in it. */
static void test_look(void **state)
{
    struct error err = {0};
    struct ext4_edit *edit;
    struct disk disk;
    unsigned looks = 0;

    (void)state;
    disk_open(&disk, DISK);
    add_file(&disk, "boot/vmlinuz", "kernel", 6);
    finish(&disk);
    edit = ext4_edit_open(disk.blk, 0, DISK, "the test", EXT4_LOOK, &err);
    if (!edit)
        fail_msg("%s", err.text);
    while (looks < 100000 && ext4_edit_exists(edit, "/boot/vmlinuz"))
        looks++;
    assert_in_range(looks, 1000, 99999);
    ext4_edit_free(edit);
    disk_close(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),       cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_sparse),      cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_directories), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_edit),        cmocka_unit_test(test_look),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
