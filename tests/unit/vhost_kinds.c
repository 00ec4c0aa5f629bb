/*
 * The network card and the shared folder that a back end of vhost-user serves: a guest's driver,
 * the front end, and our own back end in a thread with a device of the test's, which ends and comes
 * back. What all kinds of devices do is in vhost_block.c.
 */
#include "test.h"

#include "dev/vhost/fs.h"
#include "dev/vhost/net.h"
#include "virtio_rig.h"
#include "vhost_rig.h"

#include <errno.h>
#include <linux/fuse.h>
#include <unistd.h>

#define RINGS(Q) (0x10000u + 0x2000 * (Q))
#define DATA(Q)  (0x40000u + 0x10000 * (Q)) /* 4 KiB for each of 16 chains */
#define SIZE     16u
#define QUEUES   2u
#define PAIRS    2u /* of the card that has several; then there is a control queue */
#define CONTROL  (2 * PAIRS)
#define CONFIG   0x2000u

static char path[64];

/* ---- The back end's device ---- */

/* A cable whose other end is plugged in where it begins; or a folder that knows one answer. */
struct loop_device {
    struct virtio_device device;
    pthread_mutex_t lock;
    struct virtio_request *waiting[SIZE]; /* of queue 0, or (folder) that are parked */
    unsigned count;
    bool park;
};

static void keep(struct loop_device *d, struct virtio_request *r)
{
    assert_true(d->count < SIZE);
    d->waiting[d->count++] = r;
}

static struct virtio_request *take_first(struct loop_device *d)
{
    struct virtio_request *first = d->count ? d->waiting[0] : NULL;

    if (first)
        memmove(d->waiting, d->waiting + 1, --d->count * sizeof(first));
    return first;
}

/* A frame waits for a buffer. */
static enum virtio_result carry(struct virtio_device *device, struct virtio_request *r)
{
    struct loop_device *d = container_of(device, struct loop_device, device);
    uint64_t size = r->chain.readable_bytes;
    struct virtio_request *to = NULL;
    uint8_t bytes[4096];

    pthread_mutex_lock(&d->lock);
    if (r->queue->index == 0)
        keep(d, r);
    else
        to = take_first(d);
    pthread_mutex_unlock(&d->lock);
    if (r->queue->index == 0) {
        virtio_wake(device, 1);
        return VIRTIO_TAKEN;
    }
    if (!to)
        return VIRTIO_WAIT;
    assert_true(size <= sizeof(bytes));
    assert_int_equal(virtio_read_at(r, 0, bytes, size), 0);
    assert_int_equal(virtio_write_at(to, 0, bytes, size), 0);
    virtio_complete(to, (uint32_t)size);
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

static void reply(struct virtio_request *r)
{
    struct fuse_in_header in;
    struct fuse_out_header out = {.len = sizeof(out), .error = -ENOSYS};

    assert_int_equal(virtio_read_at(r, 0, &in, sizeof(in)), 0);
    out.unique = in.unique;
    assert_int_equal(virtio_write_at(r, 0, &out, sizeof(out)), 0);
    virtio_complete(r, sizeof(out));
}

static enum virtio_result answer(struct virtio_device *device, struct virtio_request *r)
{
    struct loop_device *d = container_of(device, struct loop_device, device);
    bool park;

    pthread_mutex_lock(&d->lock);
    park = d->park;
    if (park)
        keep(d, r);
    pthread_mutex_unlock(&d->lock);
    if (!park)
        reply(r);
    return VIRTIO_TAKEN;
}

static void recall(struct virtio_device *device)
{
    struct loop_device *d = container_of(device, struct loop_device, device);
    struct virtio_request *r;

    pthread_mutex_lock(&d->lock);
    while ((r = take_first(d)))
        virtio_give_back(r);
    pthread_mutex_unlock(&d->lock);
}

static void free_loop(struct virtio_device *device)
{
    struct loop_device *d = container_of(device, struct loop_device, device);

    pthread_mutex_destroy(&d->lock);
    free(d);
}

#define OPS(ID, SERVE)                                                                             \
    {                                                                                              \
        .name = "loop",                                                                            \
        .id = (ID),                                                                                \
        .queues = QUEUES,                                                                          \
        .queue_size = 256,                                                                         \
        .serve = (SERVE),                                                                          \
        .recall = recall,                                                                          \
        .free = free_loop,                                                                         \
    }
static const struct virtio_ops net_ops = OPS(1, carry), fs_ops = OPS(26, answer);

static struct brig *back_end(const struct virtio_ops *ops, bool park)
{
    struct brig *b = calloc(1, sizeof(*b));
    struct loop_device *d = calloc(1, sizeof(*d));
    struct virtio_slot slot;

    b->backend = vhost_backend_create(NULL, NULL);
    slot = vhost_backend_slot(b->backend);
    d->park = park;
    pthread_mutex_init(&d->lock, NULL);
    assert_non_null(virtio_pci_create(&slot, ops, &d->device, NULL));
    brig_listen(b, path);
    return b;
}

/* ---- The driver ---- */

struct both {
    struct brig *back;
    struct vrig *front;
    struct rig_queue queue[CONTROL + 1];
};

static unsigned pairs = 1; /* of the card that is created next */

static struct dev *create_net(const struct virtio_slot *slot, struct error *err)
{
    const struct vhost_net_config config = {
        .path = path, .mac = {2, 0, 0, 0, 0, 1}, .mtu = 9000, .pairs = pairs};

    return vhost_net_create(slot, &config, err);
}

static struct dev *create_fs(const struct virtio_slot *slot, struct error *err)
{
    return vhost_fs_create(slot, path, "folder", 0, NULL, err);
}

static void start_queues(struct both *b, unsigned queues, uint64_t features)
{
    vrig_enable(b->front);
    assert_true(vrig_negotiate(b->front, VRIG_FEATURES | features));
    for (unsigned i = 0; i < queues; i++) {
        vrig_set_queue_number(b->front, i, rig_layout(RINGS(i), SIZE));
        b->queue[i] = b->front->queue;
    }
    vrig_write(b->front, VRIG_STATUS, 1, 15);
}

static void start_driver(struct both *b)
{
    start_queues(b, QUEUES, 0);
}

static struct both begin(const struct virtio_ops *ops,
                         struct dev *(*create)(const struct virtio_slot *, struct error *),
                         bool park)
{
    struct both b = {0};

    snprintf(path, sizeof(path), P_tmpdir "/doppel-vhost-kinds-%d", getpid());
    b.back = back_end(ops, park);
    b.front = vrig_create(create, NULL, 2);
    assert_int_equal(loop_start(b.front->loop, NULL), 0);
    start_driver(&b);
    return b;
}

static void end(struct both *b)
{
    vrig_destroy(b->front);
    if (b->back)
        brig_destroy(b->back);
}

static void publish(struct both *b, unsigned queue, unsigned head)
{
    rig_publish_shared(&b->queue[queue], (uint16_t)head);
    vrig_write(b->front, VRIG_NOTIFY + 4 * queue, 2, 0);
}

static uint64_t place(const struct both *b, unsigned queue)
{
    return DATA(queue) + 0x1000 * (b->queue[queue].available % 8);
}

static void give_buffer(struct both *b)
{
    unsigned n = b->queue[0].available % 8;

    rig_descriptor(&b->queue[0], n, place(b, 0), 0x1000, RIG_WRITE, 0);
    publish(b, 0, n);
}

static void send_frame(struct both *b, const char *text)
{
    unsigned n = b->queue[1].available % 8;
    uint64_t at = place(b, 1);

    assert_int_equal(mem_write(b->front->mem, at, text, strlen(text) + 1), 0);
    rig_descriptor(&b->queue[1], n, at, (uint32_t)strlen(text) + 1, 0, 0);
    publish(b, 1, n);
}

/* Waits for the end of a chain and returns its head. */
static unsigned reap(struct both *b, unsigned queue, uint32_t *written)
{
    uint32_t head = 0;

    AWAIT(rig_used_index(&b->queue[queue]) != b->queue[queue].used);
    assert_true(rig_reap(&b->queue[queue], &head, written));
    return head;
}

/* A frame goes round. */
static void assert_carries(struct both *b, const char *text)
{
    char got[100] = "";
    uint32_t written, head;

    send_frame(b, text);
    reap(b, 1, &written);
    assert_int_equal(written, 0);
    head = reap(b, 0, &written);
    assert_int_equal(written, strlen(text) + 1);
    assert_int_equal(mem_read(b->front->mem, DATA(0) + 0x1000 * head, got, written), 0);
    assert_string_equal(got, text);
}

static unsigned link_status(struct both *b)
{
    return vrig_read(b->front, CONFIG + 6, 2);
}

/* ---- The network card ---- */

static void frames(void **state)
{
    struct both b = begin(&net_ops, create_net, false);

    assert_int_equal(vrig_read(b.front, CONFIG, 4), 2);
    assert_int_equal(vrig_read(b.front, CONFIG + 4, 2), 0x100);
    assert_int_equal(link_status(&b), 1);
    assert_int_equal(vrig_read(b.front, CONFIG + 10, 2), 9000);
    assert_int_equal(vrig_read(b.front, VRIG_QUEUES, 2), QUEUES);
    for (unsigned i = 0; i < 6; i++)
        give_buffer(&b);
    for (unsigned i = 0; i < 40; i++) {
        assert_carries(&b, i % 2 ? "one" : "the other");
        give_buffer(&b);
    }
    end(&b);
}

/* The buffers that wait at the back end for frames keep neither a pause nor a reset waiting. */
static void stands_still(void **state)
{
    struct both b = begin(&net_ops, create_net, false);

    for (unsigned i = 0; i < 6; i++)
        give_buffer(&b);
    assert_carries(&b, "before");
    for (unsigned i = 0; i < 3; i++) {
        b.front->dev->ops->pause(b.front->dev);
        b.front->dev->ops->resume(b.front->dev);
        assert_carries(&b, "after");
    }
    vrig_write(b.front, VRIG_STATUS, 1, 0);
    AWAIT(vrig_status(b.front) == 0);
    start_driver(&b);
    give_buffer(&b);
    assert_carries(&b, "anew");
    end(&b);
}

static void comes_back(void **state)
{
    struct both b = begin(&net_ops, create_net, false);

    give_buffer(&b);
    give_buffer(&b);
    assert_carries(&b, "before");
    brig_destroy(b.back);
    AWAIT(link_status(&b) == 0);
    b.back = back_end(&net_ops, false);
    AWAIT(link_status(&b) == 1);
    assert_carries(&b, "after");
    end(&b);
}

/* Who goes on from the state has the buffers that were waiting. */
static void saved(void **state)
{
    struct both b = begin(&net_ops, create_net, false), other = b;

    for (unsigned i = 0; i < 3; i++)
        give_buffer(&b);
    assert_carries(&b, "before");
    b.front->dev->ops->pause(b.front->dev);
    brig_destroy(b.back);
    other.back = back_end(&net_ops, false);
    other.front = vrig_create(create_net, b.front->mem, 2);
    assert_int_equal(loop_start(other.front->loop, NULL), 0);
    memcpy(other.queue, b.queue, sizeof(b.queue));
    other.front->dev->ops->pause(other.front->dev);
    assert_int_equal(rig_copy_state(b.front->rig, b.front->dev, other.front->dev), 0);
    other.front->dev->ops->resume(other.front->dev);
    assert_carries(&other, "after");
    assert_carries(&other, "and again");
    end(&other);
    b.back = NULL;
    end(&b);
}

/* ---- Several pairs of queues ---- */

#define F_CTRL_VQ (UINT64_C(1) << 17)
#define F_MQ      (UINT64_C(1) << 22)

static _Atomic unsigned used; /* queues that the front end says to be used */

static void note_use(struct virtio_device *device, unsigned queues)
{
    atomic_store(&used, queues);
}

static enum virtio_result swallow(struct virtio_device *device, struct virtio_request *r)
{
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

static const struct virtio_ops pairs_ops = {.name = "pairs",
                                            .id = 1,
                                            .features = F_MQ,
                                            .queues = 2 * PAIRS + 1,
                                            .queue_size = 256,
                                            .queues_each = 2,
                                            .serve = swallow,
                                            .uses = note_use,
                                            .free = free_loop};

/* Has the driver use so many pairs. Returns the card's answer. */
static unsigned use_pairs(struct both *b, uint16_t count)
{
    struct rig_queue *q = &b->queue[CONTROL];
    uint8_t command[4] = {4, 0, (uint8_t)count, (uint8_t)(count >> 8)}, answer = 9;
    unsigned n = 2 * (q->available % 4);
    uint32_t written;

    assert_int_equal(mem_write(b->front->mem, DATA(CONTROL), command, sizeof(command)), 0);
    rig_descriptor(q, n, DATA(CONTROL), sizeof(command), RIG_NEXT, (uint16_t)(n + 1));
    rig_descriptor(q, n + 1, DATA(CONTROL) + 16, 1, RIG_WRITE, 0);
    publish(b, CONTROL, n);
    reap(b, CONTROL, &written);
    assert_int_equal(written, 1);
    assert_int_equal(mem_read(b->front->mem, DATA(CONTROL) + 16, &answer, 1), 0);
    return answer;
}

/* Waits until a chain in each of these queues has come to the back end and gone. */
static void assert_serves(struct both *b, unsigned queues)
{
    uint32_t written;

    for (unsigned i = 0; i < queues; i++) {
        unsigned n = b->queue[i].available % 8;

        rig_descriptor(&b->queue[i], n, DATA(i), 64, i % 2 ? 0 : RIG_WRITE, 0);
        publish(b, i, n);
        reap(b, i, &written);
    }
}

static void several(void **state)
{
    struct both b = {0};

    pairs = PAIRS;
    b.back = back_end(&pairs_ops, false);
    b.front = vrig_create(create_net, NULL, 2);
    pairs = 1;
    assert_int_equal(loop_start(b.front->loop, NULL), 0);
    start_queues(&b, CONTROL + 1, F_CTRL_VQ | F_MQ);
    assert_int_equal(vrig_read(b.front, VRIG_QUEUES, 2), CONTROL + 1);
    assert_int_equal(vrig_read(b.front, CONFIG + 8, 2), PAIRS);
    AWAIT(atomic_load(&used) == 2);
    assert_serves(&b, 2);
    assert_int_equal(use_pairs(&b, 2), 0);
    AWAIT(atomic_load(&used) == 4);
    assert_serves(&b, 4);
    assert_int_equal(use_pairs(&b, 3), 1);
    assert_int_equal(use_pairs(&b, 0), 1);
    assert_serves(&b, 4);
    /* The next back end, and the same one after a pause, hear of it, too. */
    brig_destroy(b.back);
    AWAIT(link_status(&b) == 0);
    atomic_store(&used, 0);
    b.back = back_end(&pairs_ops, false);
    AWAIT(atomic_load(&used) == 4);
    assert_serves(&b, 4);
    b.front->dev->ops->pause(b.front->dev);
    b.front->dev->ops->resume(b.front->dev);
    assert_serves(&b, 4);
    assert_int_equal(use_pairs(&b, 1), 0);
    AWAIT(atomic_load(&used) == 2);
    assert_serves(&b, 2);
    end(&b);
}

/* Who goes on from the state uses as many pairs as before. */
static void several_saved(void **state)
{
    struct both b = {0}, other;

    pairs = PAIRS;
    b.back = back_end(&pairs_ops, false);
    b.front = vrig_create(create_net, NULL, 2);
    assert_int_equal(loop_start(b.front->loop, NULL), 0);
    start_queues(&b, CONTROL + 1, F_CTRL_VQ | F_MQ);
    assert_int_equal(use_pairs(&b, 2), 0);
    AWAIT(atomic_load(&used) == 4);
    b.front->dev->ops->pause(b.front->dev);
    brig_destroy(b.back);
    other = b;
    other.back = back_end(&pairs_ops, false);
    other.front = vrig_create(create_net, b.front->mem, 2);
    pairs = 1;
    assert_int_equal(loop_start(other.front->loop, NULL), 0);
    other.front->dev->ops->pause(other.front->dev);
    assert_int_equal(rig_copy_state(b.front->rig, b.front->dev, other.front->dev), 0);
    atomic_store(&used, 0);
    other.front->dev->ops->resume(other.front->dev);
    assert_serves(&other, 4);
    assert_int_equal(atomic_load(&used), 4);
    end(&other);
    b.back = NULL;
    end(&b);
}

/* A driver that knows nothing of several pairs finds the control queue behind the first one. */
static void one_of_several(void **state)
{
    struct both b = {0};
    uint32_t written;

    pairs = PAIRS;
    b.back = back_end(&pairs_ops, false);
    b.front = vrig_create(create_net, NULL, 2);
    pairs = 1;
    assert_int_equal(loop_start(b.front->loop, NULL), 0);
    start_queues(&b, 3, F_CTRL_VQ);
    assert_serves(&b, 2);
    rig_descriptor(&b.queue[2], 0, DATA(2), 4, RIG_NEXT, 1);
    rig_descriptor(&b.queue[2], 1, DATA(2) + 16, 1, RIG_WRITE, 0);
    publish(&b, 2, 0);
    reap(&b, 2, &written);
    assert_int_equal(written, 1);
    end(&b);
}

/* ---- The shared folder ---- */

/* Asks for something; returns the error that is the answer. */
static void ask(struct both *b, uint64_t unique)
{
    const struct fuse_in_header in = {.len = sizeof(in), .opcode = FUSE_GETATTR, .unique = unique};
    unsigned n = b->queue[1].available % 8;
    uint64_t at = place(b, 1);

    assert_int_equal(mem_write(b->front->mem, at, &in, sizeof(in)), 0);
    rig_descriptor(&b->queue[1], 2 * n, at, sizeof(in), RIG_NEXT, (uint16_t)(2 * n + 1));
    rig_descriptor(&b->queue[1], 2 * n + 1, at + 0x800, 0x800, RIG_WRITE, 0);
    publish(b, 1, 2 * n);
}

static int error_of(struct both *b, uint64_t unique)
{
    struct fuse_out_header out;
    uint32_t written, head = reap(b, 1, &written);

    assert_int_equal(written, sizeof(out));
    assert_int_equal(mem_read(b->front->mem, DATA(1) + 0x800 * head + 0x800, &out, sizeof(out)), 0);
    assert_int_equal(out.unique, unique);
    return out.error;
}

static void folder(void **state)
{
    struct both b = begin(&fs_ops, create_fs, false);

    assert_int_equal(vrig_config(b.front, 2, 2), 0x1040 + 26);
    assert_int_equal(vrig_read(b.front, CONFIG, 4), 'f' | 'o' << 8 | 'l' << 16 | 'd' << 24);
    assert_int_equal(vrig_read(b.front, CONFIG + 36, 4), 1);
    for (uint64_t i = 0; i < 20; i++) {
        ask(&b, i);
        assert_int_equal(error_of(&b, i), -ENOSYS);
        if (i == 10) {
            b.front->dev->ops->pause(b.front->dev);
            b.front->dev->ops->resume(b.front->dev);
        }
    }
    end(&b);
}

/* What has no answer when the back end dies fails, and so does what comes before another one. */
static void folder_is_lost(void **state)
{
    struct both b = begin(&fs_ops, create_fs, true);
    int error = 0;

    ask(&b, 1);
    AWAIT(atomic_load(&b.back->sessions) == 1);
    /* A request that waits here until it is there is lost as well as one that is. */
    time_sleep_ns(20 * NS_PER_MS);
    brig_destroy(b.back);
    assert_int_equal(error_of(&b, 1), -ENOTCONN);
    ask(&b, 2);
    assert_int_equal(error_of(&b, 2), -ENOTCONN);
    /* One that the driver wants to hear nothing of. */
    rig_descriptor(&b.queue[0], 0, DATA(0), 40, 0, 0);
    publish(&b, 0, 0);
    reap(&b, 0, &(uint32_t){0});
    b.back = back_end(&fs_ops, false);
    for (uint64_t i = 3; error != -ENOSYS; i++) {
        ask(&b, i);
        error = error_of(&b, i);
        assert_true(error == -ENOSYS || error == -ENOTCONN);
        time_sleep_ns(NS_PER_MS);
    }
    end(&b);
}

static void refused(void **state)
{
    struct both b = begin(&fs_ops, create_fs, false);
    struct virtio_slot slot = {.pci = b.front->pci,
                               .number = VRIG_SLOT + 1,
                               .bus = b.front->rig->bus,
                               .mem = b.front->mem,
                               .loop = b.front->loop,
                               .workers = b.front->workers};
    struct vhost_net_config net = {.path = path};
    struct error err = {0};
    char tag[] = "1234567890123456789012345678901234567";

    assert_null(vhost_fs_create(&slot, path, tag, 1, NULL, &err));
    assert_non_null(strstr(err.text, "36 bytes"));
    assert_null(vhost_fs_create(&slot, path, "", 1, NULL, &err));
    assert_int_equal(err.code, EINVAL);
    brig_destroy(b.back);
    b.back = NULL;
    assert_null(vhost_net_create(&slot, &net, &err));
    assert_non_null(strstr(err.text, "is it running?"));
    /* One that has several queues, but no driver is to use them. */
    strcat(path, "-net");
    b.back = back_end(&net_ops, false);
    net.pairs = 2;
    assert_null(vhost_net_create(&slot, &net, &err));
    assert_non_null(strstr(err.text, "one pair of queues, not 2"));
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),         cmocka_unit_test(stands_still),
        cmocka_unit_test(comes_back),     cmocka_unit_test(saved),
        cmocka_unit_test(folder),         cmocka_unit_test(folder_is_lost),
        cmocka_unit_test(several),        cmocka_unit_test(several_saved),
        cmocka_unit_test(one_of_several), cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
