/*
 * The block device in front of a file, with all its threads: workers serve, threads of src/blk
 * carry out, and the machine is paused, saved, and goes on as another one, with requests in flight
 * all the time. Nothing gets lost or is done out of its place. ThreadSanitizer looks at it, too.
 */
#include "test.h"

#include "dev/virtio/block.h"

#include <time.h>

#include "blk_rig.h"
#include "virtio_rig.h"

#define SIZE   64u
#define SLOTS  16u /* requests at once; the Nth has descriptors 3 N to 3 N + 2 */
#define RINGS  0x10000u
#define HEADER 0x20000u /* a slot's header, 64 bytes apart; its status is 32 bytes in */
#define DATA   0x100000u
#define AREA   (32 * KiB) /* of the disk and of memory, of each slot */
#define ROUNDS 40u        /* machines, one after the other */
#define BATCH  60u        /* requests of each */

enum { IN = 0, OUT = 1, FLUSH = 4, WRITE_ZEROES = 13 };
#define FEATURES (VRIG_FEATURES | 1u << 9 | 1u << 14)

/* What the driver knows of a request. */
struct slot {
    bool busy;
    uint32_t type, at, size; /* at: in the area */
    uint8_t content[AREA];   /* of the disk, as it must be */
    uint8_t before[AREA];    /* of memory */
};

struct lane {
    struct vrig *v;
    struct mem *mem;
    char file[64];
    const char *more; /* options of the disk */
    uint64_t seed;
    struct slot slot[SLOTS];
    unsigned busy;
};

static struct lane *lane; /* for create() */
static struct virtio_block *block;

/* The kernel's part of io_uring is not to be seen for ThreadSanitizer. */
static const struct blk_host host = {.lane = BLK_LANE_THREADS};

static void no_room(void *opaque, const char *why)
{
    fail_msg("%s", why);
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    struct virtio_block_config config = {
        .queues = 1, .discard = true, .hold = no_room, .release = no_room};

    config.blk = open_disk(lane->file, lane->more, &host);
    block = virtio_block_create(slot, &config, err);
    return virtio_block_dev(block);
}

static uint32_t random_below(struct lane *l, uint32_t most)
{
    l->seed = l->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(l->seed >> 33) % most;
}

static void power_on(struct lane *l)
{
    l->v = vrig_create(create, l->mem, 2);
    assert_int_equal(loop_start(l->v->loop, NULL), 0);
}

static void power_off(struct lane *l)
{
    loop_stop(l->v->loop);
    vrig_destroy(l->v);
}

/* ---- The driver ---- */

/* Makes the chain that begins at HEAD available. */
static void publish(struct lane *l, uint16_t head)
{
    rig_publish_shared(&l->v->queue, head);
    vrig_notify(l->v);
}

static uint64_t data_of(unsigned n)
{
    return DATA + AREA * n;
}

/* Chooses what slot N asks for, and notes what is to come of it. */
static void choose(struct lane *l, unsigned n)
{
    static const uint32_t types[] = {IN, IN, IN, OUT, OUT, OUT, FLUSH, WRITE_ZEROES};
    struct slot *s = &l->slot[n];

    s->type = types[random_below(l, ARRAY_SIZE(types))];
    s->at = 512 * random_below(l, AREA / 512);
    s->size = s->type == FLUSH ? 0 : 512 * (1 + random_below(l, (AREA - s->at) / 512));
    for (unsigned i = 0; i < s->size; i++)
        s->before[i] = (uint8_t)random_below(l, 256);
    if (s->type == OUT)
        memcpy(s->content + s->at, s->before, s->size);
    else if (s->type == WRITE_ZEROES)
        memset(s->content + s->at, 0, s->size);
}

/* Puts slot N's request into memory and makes it available. */
static void submit(struct lane *l, unsigned n)
{
    const struct slot *s = &l->slot[n];
    const struct rig_queue *q = &l->v->queue;
    bool zeroes = s->type == WRITE_ZEROES;
    uint64_t sector = (AREA * n + s->at) / 512;
    const uint64_t header[] = {s->type, zeroes ? 0 : sector}, range[] = {sector, s->size / 512};
    uint32_t size = zeroes ? (uint32_t)sizeof(range) : s->size;

    assert_int_equal(mem_write(l->mem, HEADER + 64 * n, header, sizeof(header)), 0);
    rig_put(l->mem, HEADER + 64 * n + 32, 0x77, 1);
    assert_int_equal(mem_write(l->mem, data_of(n), zeroes ? (const void *)range : s->before, size),
                     0);
    rig_descriptor(q, 3 * n, HEADER + 64 * n, 16, RIG_NEXT,
                   (uint16_t)(size ? 3 * n + 1 : 3 * n + 2));
    rig_descriptor(q, 3 * n + 1, data_of(n), size, RIG_NEXT | (s->type == IN ? RIG_WRITE : 0),
                   (uint16_t)(3 * n + 2));
    rig_descriptor(q, 3 * n + 2, HEADER + 64 * n + 32, 1, RIG_WRITE, 0);
    publish(l, (uint16_t)(3 * n));
}

static void begin(struct lane *l)
{
    unsigned n = random_below(l, SLOTS);

    while (l->slot[n].busy)
        n = (n + 1) % SLOTS;
    choose(l, n);
    submit(l, n);
    l->slot[n].busy = true;
    l->busy++;
}

/* Slot N has been given back: what is in memory is what it should be. */
static void check(struct lane *l, unsigned n, uint32_t written)
{
    struct slot *s = &l->slot[n];
    uint8_t seen[AREA];

    assert_true(s->busy);
    assert_int_equal(rig_get(l->mem, HEADER + 64 * n + 32, 1), 0);
    assert_int_equal(written, s->type == IN ? s->size + 1 : 1);
    assert_int_equal(mem_read(l->mem, data_of(n), seen, s->size), 0);
    if (s->type == IN)
        assert_memory_equal(seen, s->content + s->at, s->size);
    s->busy = false;
    l->busy--;
}

/* Takes what was given back; waits for something if WAITING. */
static void reap(struct lane *l, bool waiting)
{
    const struct timespec nap = {.tv_nsec = 50000};
    uint32_t head, written;
    unsigned naps = 0;

    do {
        while (rig_reap(&l->v->queue, &head, &written)) {
            check(l, head / 3, written);
            waiting = false;
        }
        if (waiting && naps++ > 1000000)
            fail_msg("%u requests are not served", l->busy);
        if (waiting)
            nanosleep(&nap, NULL);
    } while (waiting);
}

static void work(struct lane *l)
{
    for (unsigned i = 0; i < BATCH; i++) {
        reap(l, l->busy == SLOTS);
        begin(l);
    }
}

/* ---- The test ---- */

/* Stops the machine as it is, with requests in flight and in the ring, and goes on with another. */
static void move(struct lane *l)
{
    struct state_image image = {0};
    struct rig_queue queue;

    l->v->dev->ops->pause(l->v->dev);
    bus_lock(l->v->rig->bus);
    assert_int_equal(image_save_dev(&image, l->v->dev), 0);
    bus_unlock(l->v->rig->bus);
    queue = l->v->queue;
    power_off(l);
    power_on(l);
    l->v->dev->ops->pause(l->v->dev);
    bus_lock(l->v->rig->bus);
    assert_int_equal(image_load_dev(&image, l->v->dev), 0);
    bus_unlock(l->v->rig->bus);
    l->v->queue = queue;
    l->v->dev->ops->resume(l->v->dev);
    image_free(&image);
}

static void stand_still(struct lane *l)
{
    l->v->dev->ops->pause(l->v->dev);
    virtio_block_retry(block);
    l->v->dev->ops->resume(l->v->dev);
}

static void assert_file_is_right(struct lane *l)
{
    uint8_t *seen = malloc(AREA);
    struct blk *blk = open_disk(l->file, "", &host);

    for (unsigned n = 0; n < SLOTS; n++) {
        assert_int_equal(blk_read(blk, AREA * n, seen, AREA), 0);
        assert_memory_equal(seen, l->slot[n].content, AREA);
    }
    blk_close(blk);
    free(seen);
}

static void test_move(void **unused)
{
    struct lane *l = lane = calloc(1, sizeof(*l));

    l->seed = 9;
    l->more = "";
    l->mem = mem_create(VRIG_MEMORY, NULL);
    make_file(l->file, AREA * SLOTS);
    power_on(l);
    vrig_start(l->v, rig_layout(RINGS, SIZE), FEATURES);
    for (unsigned round = 0; round < ROUNDS; round++) {
        work(l);
        stand_still(l);
        work(l);
        move(l);
    }
    while (l->busy)
        reap(l, true);
    power_off(l);
    assert_file_is_right(l);
    unlink(l->file);
    mem_destroy(l->mem);
    free(l);
}

/* How long a pause takes is not up to the guest: each of SIZE chains reads almost 2 GiB into the
 * same 32 MiB, and MORE may hold them back for longer than anybody lives. */
static void pause_long_requests(const char *more)
{
    const uint64_t table = 0x30000, header[2] = {IN, 0};
    const unsigned last = 63;
    struct lane *l = lane = calloc(1, sizeof(*l));

    l->more = more;
    l->mem = mem_create(64 * MiB, NULL);
    make_file(l->file, 2 * (off_t)GiB);
    power_on(l);
    vrig_start(l->v, rig_layout(RINGS, SIZE), FEATURES);
    assert_int_equal(mem_write(l->mem, HEADER, header, sizeof(header)), 0);
    rig_descriptor_at(l->mem, table, 0, HEADER, 16, RIG_NEXT, 1);
    for (unsigned i = 1; i < last; i++)
        rig_descriptor_at(l->mem, table, i, 2 * DATA, 32 * MiB, RIG_NEXT | RIG_WRITE,
                          (uint16_t)(i + 1));
    rig_descriptor_at(l->mem, table, last, HEADER + 32, 1, RIG_WRITE, 0);
    for (unsigned i = 0; i < SIZE; i++)
        rig_descriptor(&l->v->queue, i, table, 16 * (last + 1), RIG_INDIRECT, 0);
    for (unsigned i = 0; i < SIZE; i++)
        publish(l, (uint16_t)i);
    l->v->dev->ops->pause(l->v->dev);
    assert_true(rig_get(l->mem, l->v->queue.config.used + 2, 2) < SIZE);
    l->v->dev->ops->resume(l->v->dev);
    power_off(l);
    unlink(l->file);
    mem_destroy(l->mem);
    free(l);
}

static void test_long(void **unused)
{
    pause_long_requests("");
}

static void test_limited(void **unused)
{
    pause_long_requests(",bps=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
