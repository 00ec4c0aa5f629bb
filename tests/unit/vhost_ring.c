/*
 * The driver's side of a queue that a back end serves: against the device's side, which is the
 * iterator of all virtio devices, and against a back end that breaks the rules.
 */
#include "test.h"

#include "base/util.h"
#include "dev/vhost/ring.h"
#include "mem/foreign.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GPA 0x100000000ull

/* One memory, mapped twice: by the driver, and as the device's guest memory. */
struct both {
    uint8_t *memory;
    struct vhost_ring ring;
    struct mem *mem;
    struct mem_region *region;
    struct virtqueue queue;
};

static int setup(void **state)
{
    static struct both both;
    const struct mem_region_config region = {
        .name = "rings", .gpa = GPA, .size = VHOST_RING_BYTES, .kind = MEM_RAM};
    int fd = memfd_create("rings", MFD_CLOEXEC);

    both = (struct both){.memory = NULL};
    assert_int_equal(ftruncate(fd, VHOST_RING_BYTES), 0);
    both.memory = mmap(NULL, VHOST_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(both.memory, MAP_FAILED);
    assert_int_equal(vhost_ring_init(&both.ring, NULL), 0);
    both.mem = mem_create_empty(NULL);
    both.region = mem_region_import(both.mem, &region, fd, 0, NULL);
    assert_non_null(both.region);
    assert_int_equal(virtqueue_init(&both.queue, both.mem, VHOST_RING_SIZE, NULL), 0);
    *state = &both;
    return 0;
}

static int teardown(void **state)
{
    struct both *b = *state;

    virtqueue_free(&b->queue);
    mem_destroy(b->mem);
    vhost_ring_free(&b->ring);
    munmap(b->memory, VHOST_RING_BYTES);
    return 0;
}

static void start_with(struct both *b, bool event_index, bool indirect)
{
    const struct virtqueue_config config = {.size = VHOST_RING_SIZE,
                                            .descriptors = GPA + VHOST_RING_DESCRIPTORS,
                                            .available = GPA + VHOST_RING_AVAILABLE,
                                            .used = GPA + VHOST_RING_USED,
                                            .event_index = event_index,
                                            .indirect = indirect};

    memset(b->memory, 0, VHOST_RING_BYTES);
    vhost_ring_start(&b->ring, b->memory, GPA, event_index, indirect);
    virtqueue_start(&b->queue, &config);
    assert_int_equal(virtqueue_open(&b->queue), 0);
}

static void start(struct both *b, bool event_index)
{
    start_with(b, event_index, false);
}

/* What the driver adds the device gets, and the other way round, in any order, past the wrap of the
 * indices. */
static void exchange(struct both *b, bool indirect)
{
    struct virtqueue_buffer buffers[8];
    uint16_t heads[VHOST_RING_SIZE];
    uintptr_t owners[VHOST_RING_SIZE], owner = 0;
    unsigned out = 0;
    uint32_t seed = 12345;
    uint64_t given = 0, back = 0;

    start_with(b, false, indirect);
    for (unsigned round = 0; round < 200000; round++) {
        struct virtqueue_chain chain;
        void *got;
        uint32_t written;
        unsigned readable, writable;

        seed = seed * 1664525 + 1013904223;
        readable = seed >> 8 & 3;
        writable = (seed >> 10 & 3) + !readable;
        for (unsigned i = 0; i < readable + writable; i++)
            buffers[i] = (struct virtqueue_buffer){.gpa = seed + i, .size = 512 * i + 1};
        if (vhost_ring_add(&b->ring, buffers, readable, writable, (void *)++owner) == 0) {
            assert_int_equal(virtqueue_next(&b->queue, &chain), 1);
            assert_int_equal(chain.readable, readable);
            assert_int_equal(chain.writable, writable);
            for (unsigned i = 0; i < readable + writable; i++) {
                assert_int_equal(chain.buffer[i].gpa, buffers[i].gpa);
                assert_int_equal(chain.buffer[i].size, buffers[i].size);
            }
            heads[out] = chain.head;
            owners[out++] = owner;
            given++;
        } else {
            assert_true(out > 0); /* full */
        }
        assert_int_equal(virtqueue_next(&b->queue, &chain), 0);
        for (unsigned n = seed >> 16 & 3; n > 0 && out > 0; n--) {
            unsigned which = (seed >> 3) % out;

            virtqueue_complete(&b->queue, heads[which], UINT32_MAX);
            assert_int_equal(vhost_ring_take(&b->ring, &got, &written), 1);
            assert_int_equal((uintptr_t)got, owners[which]);
            assert_true(written <= 8 * 4096);
            heads[which] = heads[--out];
            owners[which] = owners[out];
            back++;
        }
        assert_int_equal(vhost_ring_take(&b->ring, &got, &written), 0);
    }
    assert_int_equal(given, back + out);
    assert_true(given > 3 * 65536u / 2);
    virtqueue_close(&b->queue);
}

static void both_sides(void **state)
{
    exchange(*state, false);
}

static void both_sides_indirect(void **state)
{
    exchange(*state, true);
}

/* Each side is told when it wants to be, and not else. */
static void notifications(void **state)
{
    struct both *b = *state;
    const struct virtqueue_buffer buffer = {.gpa = 0, .size = 1};
    struct virtqueue_chain chain;
    void *owner;
    uint32_t written;

    start(b, true);
    assert_false(vhost_ring_wants_kick(&b->ring));
    assert_int_equal(vhost_ring_add(&b->ring, &buffer, 1, 0, b), 0);
    assert_true(vhost_ring_wants_kick(&b->ring));
    assert_false(vhost_ring_wants_kick(&b->ring));
    assert_int_equal(virtqueue_next(&b->queue, &chain), 1);
    /* The device has not asked for more to be told. */
    assert_int_equal(vhost_ring_add(&b->ring, &buffer, 1, 0, b), 0);
    assert_false(vhost_ring_wants_kick(&b->ring));
    assert_true(virtqueue_await(&b->queue));
    assert_int_equal(virtqueue_next(&b->queue, &chain), 1);
    assert_false(virtqueue_await(&b->queue));
    assert_int_equal(vhost_ring_add(&b->ring, &buffer, 1, 0, b), 0);
    assert_true(vhost_ring_wants_kick(&b->ring));

    assert_false(vhost_ring_await(&b->ring));
    virtqueue_complete(&b->queue, chain.head, 0);
    assert_true(virtqueue_wants_interrupt(&b->queue));
    assert_true(vhost_ring_await(&b->ring));
    assert_int_equal(vhost_ring_take(&b->ring, &owner, &written), 1);
    assert_ptr_equal(owner, b);
    virtqueue_close(&b->queue);
}

/* A back end that gives back what it was not given. */
static void broken(void **state)
{
    struct both *b = *state;
    const struct virtqueue_buffer buffers[2] = {{.gpa = 0, .size = 1}, {.gpa = 4096, .size = 10}};
    void *owner;
    uint32_t written;

    for (unsigned how = 0; how < 4; how++) {
        static const uint32_t heads[] = {1, VHOST_RING_SIZE, UINT32_MAX, 2};

        start(b, false);
        assert_int_equal(vhost_ring_add(&b->ring, buffers, 1, 1, b), 0);
        virtqueue_close(&b->queue);
        memcpy(b->memory + VHOST_RING_USED + 4, &heads[how], 4);
        memcpy(b->memory + VHOST_RING_USED + 2, &(uint16_t){1}, 2);
        assert_int_equal(vhost_ring_take(&b->ring, &owner, &written), -EPROTO);
    }
    /* Twice the same. */
    start(b, false);
    assert_int_equal(vhost_ring_add(&b->ring, buffers, 1, 1, b), 0);
    virtqueue_complete(&b->queue, 0, 11);
    virtqueue_complete(&b->queue, 0, 11);
    assert_int_equal(vhost_ring_take(&b->ring, &owner, &written), 1);
    assert_int_equal(written, 10);
    assert_int_equal(vhost_ring_take(&b->ring, &owner, &written), -EPROTO);
    virtqueue_close(&b->queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(both_sides_indirect, setup, teardown),
        cmocka_unit_test_setup_teardown(notifications, setup, teardown),
        cmocka_unit_test_setup_teardown(broken, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
