/*
 * Shared folders are saved and loaded: files that the guest knows and has open, and its locks, are
 * the same afterwards; what cannot be had again is stale.
 */
#include "test.h"

#include "share_rig.h"

#include <sys/file.h>

#include "base/util.h"
#include "state_image.h"

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

static void save(struct share_rig *rig, struct state_image *image)
{
    struct state *s = image_save(image);

    share_state(rig->share, s, 7);
    assert_int_equal(image_done(s), 0);
}

/* The rig goes on with a new server, which has loaded IMAGE. */
static int load(struct share_rig *rig, struct state_image *image)
{
    struct state *s = image_load(image);

    rig->share = rig_open(rig, "", NULL);
    assert_non_null(rig->share);
    share_state(rig->share, s, 7);
    return image_done(s);
}

static void go_on(struct share_rig *rig)
{
    struct state_image image = {0}, again = {0};

    save(rig, &image);
    share_close(rig->share);
    assert_int_equal(load(rig, &image), 0);
    /* What was loaded is the same when it is saved. */
    save(rig, &again);
    assert_int_equal(again.size, image.size);
    assert_memory_equal(again.data, image.data, image.size);
    image_free(&image);
    image_free(&again);
}

static void test_files(void **state)
{
    struct share_rig *rig = *state;
    struct fuse_entry_out entry;
    struct fuse_attr attr;
    struct fuse_open_out opened;
    uint64_t folder, file, handle, gone;
    char data[16] = "", name[32];

    assert_int_equal(rig_mkdir(rig, 1, "d", &entry), 0);
    folder = entry.nodeid;
    rig_write_file(rig->folder, "d/f", "text");
    file = rig_node(rig, folder, "f");
    handle = rig_handle(rig, file, O_RDWR);
    /* Numbers with gaps. */
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "%u", i);
        rig_write_file(rig->folder, name, "");
        gone = rig_node(rig, 1, name);
        if (i % 3 == 0)
            rig_forget(rig, gone, 1);
    }
    assert_int_equal(rig_open_node(rig, FUSE_OPENDIR, 1, 0, &opened), 0);
    go_on(rig);
    assert_int_equal(rig_getattr(rig, file, &attr), 0);
    assert_int_equal(attr.size, 4);
    assert_int_equal(rig_read(rig, file, handle, 0, data, 4), 4);
    assert_string_equal(data, "text");
    assert_int_equal(rig_write(rig, file, handle, 4, "!", 1, 0), 1);
    assert_int_equal(rig_node(rig, folder, "f"), file);
    assert_int_equal(rig_rename(rig, 1, "d", 1, "e", 0), 0);
    assert_int_equal(rig_getattr(rig, file, &attr), 0);
    assert_int_equal(rig_release(rig, FUSE_RELEASEDIR, 1, opened.fh), 0);
    /* New numbers are none of the old ones. */
    rig_write_file(rig->folder, "new", "");
    gone = rig_node(rig, 1, "new");
    assert_true(gone != file && gone != folder);
    assert_true(rig_handle(rig, gone, O_RDONLY) != handle);
}

static void test_what_is_gone(void **state)
{
    struct share_rig *rig = *state;
    struct state_image image = {0};
    struct rig_created made, unnamed;
    struct fuse_attr attr;
    char data[8], path[256];

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    assert_int_equal(rig_create_file(rig, 1, "b", O_RDWR, 0600, &unnamed), 0);
    assert_int_equal(rig_unlink(rig, FUSE_UNLINK, 1, "b"), 0);
    save(rig, &image);
    share_close(rig->share);
    assert_int_equal(unlink(rig_path(rig, "a", path)), 0);
    assert_int_equal(load(rig, &image), 0);
    assert_int_equal(rig_getattr(rig, made.entry.nodeid, &attr), -ESTALE);
    assert_int_equal(rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, 1), -ESTALE);
    assert_int_equal(rig_read(rig, unnamed.entry.nodeid, unnamed.open.fh, 0, data, 1), -ESTALE);
    assert_int_equal(rig_release(rig, FUSE_RELEASE, made.entry.nodeid, made.open.fh), 0);
    assert_int_equal(rig_getattr(rig, 1, &attr), 0);
    image_free(&image);
}

static ssize_t set_lock(struct share_rig *rig, uint64_t node, uint64_t handle, int type,
                        uint64_t start, uint64_t end, uint32_t flags)
{
    const struct fuse_lk_in in = {.fh = handle,
                                  .owner = 5,
                                  .lk = {.start = start, .end = end, .type = (uint32_t)type},
                                  .lk_flags = flags};

    return rig_call(rig, FUSE_SETLK, node, &in, sizeof(in), NULL, 0, NULL, 0);
}

static bool host_may(const char *path, int64_t start, int64_t length)
{
    struct flock range = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    int fd = open(path, O_RDWR | O_CLOEXEC), ret = fcntl(fd, F_OFD_SETLK, &range);

    close(fd);
    return ret == 0;
}

static void test_locks(void **state)
{
    struct share_rig *rig = *state;
    struct state_image image = {0};
    struct rig_created made;
    char path[256], data[4];
    int host;

    assert_int_equal(rig_create_file(rig, 1, "a", O_RDWR, 0600, &made), 0);
    rig_path(rig, "a", path);
    assert_int_equal(set_lock(rig, made.entry.nodeid, made.open.fh, F_WRLCK, 10, 19, 0), 0);
    assert_int_equal(set_lock(rig, made.entry.nodeid, made.open.fh, F_RDLCK, 100, INT64_MAX, 0), 0);
    assert_int_equal(
        set_lock(rig, made.entry.nodeid, made.open.fh, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK), 0);
    go_on(rig);
    assert_true(host_may(path, 0, 10));
    assert_false(host_may(path, 19, 1));
    assert_true(host_may(path, 20, 80));
    assert_false(host_may(path, 5000, 1));
    host = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(host, LOCK_SH | LOCK_NB), -1);
    /* A lock that somebody else has by then. */
    save(rig, &image);
    share_close(rig->share);
    assert_int_equal(flock(host, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(load(rig, &image), 0);
    assert_int_equal(rig_read(rig, made.entry.nodeid, made.open.fh, 0, data, 1), -ESTALE);
    close(host);
    image_free(&image);
}

static void test_states_that_cannot_be(void **state)
{
    struct share_rig *rig = *state;
    struct state_image image = {0};
    struct fuse_entry_out entry;

    assert_int_equal(rig_mkdir(rig, 1, "directory", &entry), 0);
    rig_write_file(rig->folder, "directory/file", "");
    rig_node(rig, entry.nodeid, "file");
    save(rig, &image);
    /* A name that leads out, written over one of the same length. */
    for (size_t at = 0; at + 9 < image.size; at++)
        if (memcmp(image.data + at, "directory", 9) == 0)
            memcpy(image.data + at, "../secret", 9);
    image_seal(&image);
    share_close(rig->share);
    assert_true(load(rig, &image) < 0);
    share_close(rig->share);
    rig->share = rig_open(rig, "", NULL);
    image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_states_that_cannot_be, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
