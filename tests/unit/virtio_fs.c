/*
 * The file system device with a folder behind it, and all its threads: chains of a guest's driver,
 * and a machine that is paused, saved and goes on as another one while a request waits for a lock.
 */
#include "test.h"

#include "dev/virtio/fs.h"

#include <sys/file.h>
#include <time.h>

#include "share_rig.h"
#include "state_image.h"
#include "virtio_rig.h"

#define SIZE     16u
#define RINGS    0x10000u
#define IN       0x20000u
#define OUT      0x40000u
#define CONF     0x2000 /* device configuration in the BAR */
#define REQUESTS 1      /* queue for requests */

static struct share_rig *rig; /* for create(); its own share is not used */

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    const struct virtio_fs_config config = {
        .share = rig_open(rig, "", err), .tag = "work", .queues = 2, .instance = 5};
    struct virtio_fs *fs = virtio_fs_create(slot, &config, err);

    return virtio_fs_dev(fs);
}

static int set_up(void **state)
{
    rig = rig_make("");
    *state = vrig_create(create, NULL, 2);
    assert_int_equal(loop_start(((struct vrig *)*state)->loop, NULL), 0);
    return 0;
}

static int tear_down(void **state)
{
    vrig_destroy(*state);
    rig_free(rig);
    return 0;
}

static void start(struct vrig *v, unsigned queue)
{
    vrig_enable(v);
    assert_true(vrig_negotiate(v, VRIG_FEATURES));
    vrig_set_queue_number(v, queue, rig_layout(RINGS, SIZE));
    vrig_write(v, VRIG_STATUS, 1, 15);
}

/* Puts a request into the queue: header and ARGUMENT, and room for ANSWER bytes behind a header. */
static void begin(struct vrig *v, unsigned queue, uint32_t opcode, uint64_t node,
                  const void *argument, size_t size, uint32_t answer)
{
    const struct fuse_in_header header = {.len = (uint32_t)(sizeof(header) + size),
                                          .opcode = opcode,
                                          .unique = ++rig->unique,
                                          .nodeid = node};

    assert_int_equal(mem_write(v->mem, IN, &header, sizeof(header)), 0);
    assert_int_equal(mem_write(v->mem, IN + sizeof(header), argument, size), 0);
    rig_descriptor(&v->queue, 0, IN, header.len, answer ? RIG_NEXT : 0, 1);
    rig_descriptor(&v->queue, 1, OUT, answer, RIG_WRITE, 0);
    rig_publish_shared(&v->queue, 0);
    vrig_write(v, VRIG_NOTIFY + 4 * queue, 2, (uint16_t)queue);
}

/* Waits until it is given back. Returns its answer's error, or size without the header. */
static int32_t finish(struct vrig *v)
{
    struct fuse_out_header header;
    uint32_t head, written;

    while (!rig_reap(&v->queue, &head, &written))
        usleep(100);
    assert_int_equal(head, 0);
    if (!written)
        return 0;
    assert_int_equal(mem_read(v->mem, OUT, &header, sizeof(header)), 0);
    assert_int_equal(header.len, written);
    return header.error ? header.error : (int32_t)(written - sizeof(header));
}

static int32_t call(struct vrig *v, uint32_t opcode, uint64_t node, const void *argument,
                    size_t size, uint32_t answer)
{
    begin(v, REQUESTS, opcode, node, argument, size, answer + sizeof(struct fuse_out_header));
    return finish(v);
}

static void read_answer(struct vrig *v, void *data, size_t size)
{
    assert_int_equal(mem_read(v->mem, OUT + sizeof(struct fuse_out_header), data, size), 0);
}

static void say_init(struct vrig *v)
{
    const struct fuse_init_in in = {.major = 7, .minor = 36};

    assert_int_equal(call(v, FUSE_INIT, 0, &in, sizeof(in), sizeof(struct fuse_init_out)),
                     sizeof(struct fuse_init_out));
}

/* Looks NAME up and opens it. */
static struct rig_created open_file(struct vrig *v, const char *name)
{
    const struct fuse_open_in in = {.flags = O_RDWR};
    struct rig_created file;

    assert_int_equal(call(v, FUSE_LOOKUP, 1, name, strlen(name) + 1, sizeof(file.entry)),
                     sizeof(file.entry));
    read_answer(v, &file.entry, sizeof(file.entry));
    assert_int_equal(call(v, FUSE_OPEN, file.entry.nodeid, &in, sizeof(in), sizeof(file.open)),
                     sizeof(file.open));
    read_answer(v, &file.open, sizeof(file.open));
    return file;
}

static void test_configuration(void **state)
{
    struct vrig *v = *state;

    vrig_enable(v);
    assert_int_equal(vrig_config(v, 2, 2), 0x1040 + 26);
    assert_int_equal(vrig_config(v, PCI_REVISION, 4) >> 8, 0x018000);
    assert_int_equal(vrig_read(v, CONF, 4), 'w' | 'o' << 8 | 'r' << 16 | (uint32_t)'k' << 24);
    assert_int_equal(vrig_read(v, CONF + 4, 4), 0);
    assert_int_equal(vrig_read(v, CONF + 36, 4), 2);
    assert_int_equal(vrig_read(v, VRIG_COMMON + VRIG_QUEUES, 2), 3);
}

static void test_large_and_small_requests(void **state)
{
    struct vrig *v = *state;
    static char text[100001], got[100001];
    struct fuse_read_in in = {.size = 120000};
    struct rig_created file;

    for (unsigned i = 0; i < sizeof(text) - 1; i++)
        text[i] = (char)('a' + i % 23);
    rig_write_file(rig->folder, "f", text);
    start(v, REQUESTS);
    say_init(v);
    file = open_file(v, "f");
    in.fh = file.open.fh;
    assert_int_equal(call(v, FUSE_READ, file.entry.nodeid, &in, sizeof(in), 120000),
                     sizeof(text) - 1);
    read_answer(v, got, sizeof(text) - 1);
    assert_memory_equal(got, text, sizeof(text) - 1);
    in.offset = 99999;
    in.size = 10;
    assert_int_equal(call(v, FUSE_READ, file.entry.nodeid, &in, sizeof(in), 10), 1);
}

static void test_what_has_no_answer(void **state)
{
    const struct fuse_forget_in forget = {.nlookup = 1};
    struct vrig *v = *state;

    start(v, 0);
    begin(v, 0, FUSE_FORGET, 1, &forget, sizeof(forget), 0);
    assert_int_equal(finish(v), 0);
    assert_int_equal(vrig_status(v), 15);
}

static void test_drivers_that_break_rules(void **state)
{
    struct vrig *v = *state;

    /* A request that is answered, and no room for it. */
    start(v, REQUESTS);
    begin(v, REQUESTS, FUSE_GETATTR, 1, "1234567812345678", 16, 0);
    while (!(vrig_status(v) & VIRTIO_NEEDS_RESET))
        usleep(100);
    /* One that is shorter than its header says. */
    start(v, REQUESTS);
    rig_put(v->mem, IN, 4000, 4);
    rig_descriptor(&v->queue, 0, IN, 56, RIG_NEXT, 1);
    rig_descriptor(&v->queue, 1, OUT, 100, RIG_WRITE, 0);
    rig_publish_shared(&v->queue, 0);
    vrig_write(v, VRIG_NOTIFY + 4 * REQUESTS, 2, REQUESTS);
    while (!(vrig_status(v) & VIRTIO_NEEDS_RESET))
        usleep(100);
    start(v, REQUESTS);
    say_init(v);
}

static void test_saved_while_a_lock_is_waited_for(void **state)
{
    struct vrig *v = *state, *next;
    struct state_image image = {0};
    struct fuse_lk_in lock = {.lk = {.end = INT64_MAX, .type = F_WRLCK}, .lk_flags = FUSE_LK_FLOCK};
    struct rig_created file;
    char path[256];
    int host;

    rig_write_file(rig->folder, "f", "");
    host = open(rig_path(rig, "f", path), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(host, LOCK_EX), 0);
    start(v, REQUESTS);
    say_init(v);
    file = open_file(v, "f");
    lock.fh = file.open.fh;
    begin(v, REQUESTS, FUSE_SETLKW, file.entry.nodeid, &lock, sizeof(lock),
          sizeof(struct fuse_out_header));
    usleep(20000); /* it may wait now; if it does not yet, the test is an easier one */
    v->dev->ops->pause(v->dev);
    assert_int_equal(rig_used_index(&v->queue), v->queue.used);
    bus_lock(v->rig->bus);
    assert_int_equal(image_save_dev(&image, v->dev), 0);
    bus_unlock(v->rig->bus);

    next = vrig_create(create, v->mem, 2);
    next->queue = v->queue;
    next->dev->ops->pause(next->dev);
    bus_lock(next->rig->bus);
    assert_int_equal(image_load_dev(&image, next->dev), 0);
    bus_unlock(next->rig->bus);
    next->dev->ops->resume(next->dev);
    usleep(20000);
    assert_int_equal(rig_used_index(&next->queue), next->queue.used);
    assert_int_equal(flock(host, LOCK_UN), 0);
    assert_int_equal(finish(next), 0);
    assert_int_equal(flock(host, LOCK_EX | LOCK_NB), -1);
    close(host);
    vrig_destroy(next);
    v->dev->ops->resume(v->dev);
    image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_configuration, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_and_small_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_has_no_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_drivers_that_break_rules, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_saved_while_a_lock_is_waited_for, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
