/*
 * The back end of vhost-user, as a front end sees it that sends what it likes: the record of
 * requests in flight, queues that stop and go on, memory that moves or vanishes, and messages out
 * of place.
 */
#include "test.h"

#include "base/event.h"
#include "dev/vhost/inflight.h"
#include "dev/vhost/message.h"
#include "dev/vhost/ring.h"
#include "vhost_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define USER     0x7F0000000000u
#define GPA      0x40000000u
#define MEMORY   (1 * MiB)
#define DATA     (512 * KiB) /* behind the ring */
#define FEATURES (1ull << 32 | 1ull << 30 | 1u << 9)

struct front {
    struct brig_disk *disk;
    struct vhost_backend *backend;
    struct brig_device *device;
    pthread_t thread;
    int socket, other, stop;
    struct vhost_reader reader;

    int fd; /* of the memory */
    uint8_t *memory;
    struct vhost_ring ring;
    int kick, call;
};

static void *serve(void *opaque)
{
    struct front *f = opaque;

    vhost_backend_serve(f->backend, f->other, f->stop);
    return NULL;
}

static void connect_to(struct front *f)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    f->socket = pair[0];
    f->other = pair[1];
    assert_int_equal(thread_start(&f->thread, "back end", serve, f, NULL), 0);
}

static void disconnect(struct front *f)
{
    vhost_reader_drop(&f->reader);
    close(f->socket);
    pthread_join(f->thread, NULL);
}

static void new_backend(struct front *f)
{
    f->backend = brig_backend(f->disk, &f->device);
}

static struct front *begin(void)
{
    struct front *f = calloc(1, sizeof(*f));

    f->disk = calloc(1, sizeof(*f->disk));
    f->stop = eventfd(0, EFD_CLOEXEC);
    new_backend(f);
    f->fd = memfd_create("front", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->fd, MEMORY), 0);
    f->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    assert_int_equal(vhost_ring_init(&f->ring, NULL), 0);
    f->kick = eventfd(0, EFD_CLOEXEC);
    f->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    connect_to(f);
    return f;
}

static void end(struct front *f)
{
    disconnect(f);
    vhost_backend_destroy(f->backend);
    vhost_ring_free(&f->ring);
    munmap(f->memory, MEMORY);
    close(f->fd);
    close(f->kick);
    close(f->call);
    close(f->stop);
    free(f->disk);
    free(f);
}

/* ---- Messages ---- */

static struct vhost_message message(enum vhost_request request, uint32_t size)
{
    return (struct vhost_message){.request = request, .flags = VHOST_VERSION, .size = size};
}

static void send_message(struct front *f, const struct vhost_message *m)
{
    assert_int_equal(vhost_send(f->socket, m, 1000, -1), 0);
}

/* Waits for a reply to M, which has been sent. Returns what vhost_receive does. */
static int await_reply(struct front *f)
{
    int ret;

    AWAIT((ret = vhost_receive(&f->reader, f->socket)) != 0);
    return ret;
}

static struct vhost_message *ask(struct front *f, const struct vhost_message *m)
{
    send_message(f, m);
    assert_int_equal(await_reply(f), 1);
    assert_true(vhost_check_reply(&f->reader.message, (enum vhost_request)m->request, false));
    return &f->reader.message;
}

/* Sends M and wants it acknowledged. Returns whether it was done. */
static bool done(struct front *f, struct vhost_message m)
{
    m.flags |= VHOST_NEED_REPLY;
    send_message(f, &m);
    assert_int_equal(await_reply(f), 1);
    assert_true(vhost_check_reply(&f->reader.message, (enum vhost_request)m.request, true));
    return f->reader.message.u64 == 0;
}

static struct vhost_message with_u64(enum vhost_request request, uint64_t value, int fd)
{
    struct vhost_message m = message(request, 8);

    m.u64 = value;
    m.fds[0] = fd;
    m.fd_count = fd >= 0;
    return m;
}

static struct vhost_message with_state(enum vhost_request request, uint32_t value)
{
    struct vhost_message m = message(request, 8);

    m.state.value = value;
    return m;
}

static struct vhost_message memory_table(const struct front *f, uint64_t user)
{
    struct vhost_message m = message(VHOST_SET_MEM_TABLE, 8 + 32);

    m.memory.count = 1;
    m.memory.region[0] = (struct vhost_region){.gpa = GPA, .size = MEMORY, .user = user};
    m.fds[0] = f->fd;
    m.fd_count = 1;
    return m;
}

static struct vhost_message addresses(uint64_t user)
{
    struct vhost_message m = message(VHOST_SET_VRING_ADDR, 40);

    m.addresses = (struct vhost_addresses){.descriptors = user + VHOST_RING_DESCRIPTORS,
                                           .available = user + VHOST_RING_AVAILABLE,
                                           .used = user + VHOST_RING_USED};
    return m;
}

/* What comes before queues. */
static void agree(struct front *f)
{
    send_message(f, &(struct vhost_message){.request = VHOST_SET_OWNER, .flags = VHOST_VERSION});
    assert_true(ask(f, &(struct vhost_message){.request = VHOST_GET_FEATURES, .flags = 1})->u64 &
                1ull << 30);
    assert_true(done(f, with_u64(VHOST_SET_PROTOCOL_FEATURES,
                                 1u << VHOST_PROTOCOL_REPLY_ACK | 1u << VHOST_PROTOCOL_INFLIGHT |
                                     1u << VHOST_PROTOCOL_CONFIG,
                                 -1)));
    assert_true(done(f, with_u64(VHOST_SET_FEATURES, FEATURES, -1)));
    assert_true(done(f, memory_table(f, USER)));
}

static void start_queue(struct front *f, uint16_t base)
{
    assert_true(done(f, with_state(VHOST_SET_VRING_NUM, VHOST_RING_SIZE)));
    assert_true(done(f, with_state(VHOST_SET_VRING_BASE, base)));
    assert_true(done(f, addresses(USER)));
    assert_true(done(f, with_u64(VHOST_SET_VRING_CALL, 0, f->call)));
    assert_true(done(f, with_u64(VHOST_SET_VRING_KICK, 0, f->kick)));
    assert_true(done(f, with_state(VHOST_SET_VRING_ENABLE, 1)));
}

static void fresh_ring(struct front *f)
{
    memset(f->memory, 0, VHOST_RING_BYTES);
    vhost_ring_start(&f->ring, f->memory, GPA, false, false);
}

/* ---- Requests ---- */

/* A request to write sector N, whose owner is N + 1. */
static void request(struct front *f, unsigned n)
{
    uint8_t *header = f->memory + DATA + 1024 * n;
    const struct virtqueue_buffer buffers[] = {
        {.gpa = GPA + DATA + 1024 * n, .size = 16},
        {.gpa = GPA + DATA + 1024 * n + 16, .size = 512},
        {.gpa = GPA + DATA + 1024 * n + 528, .size = 1},
    };
    uint64_t one = 1;

    memset(header, 0, 1024);
    header[0] = 1;
    header[8] = (uint8_t)n;
    memset(header + 16, (int)n, 512);
    assert_int_equal(vhost_ring_add(&f->ring, buffers, 2, 1, (void *)(uintptr_t)(n + 1)), 0);
    if (vhost_ring_wants_kick(&f->ring))
        assert_int_equal(write(f->kick, &one, sizeof(one)), sizeof(one));
}

static unsigned reap(struct front *f)
{
    void *owner = NULL;
    uint32_t written;

    AWAIT(vhost_ring_take(&f->ring, &owner, &written) == 1);
    return (unsigned)((uintptr_t)owner - 1);
}

static unsigned parked(struct front *f)
{
    struct brig b = {.device = f->device};

    return brig_parked(&b);
}

/* ---- Tests ---- */

static void stops_and_goes_on(void **state)
{
    struct front *f = begin();
    uint64_t calls = 0;

    agree(f);
    fresh_ring(f);
    start_queue(f, 0);
    for (unsigned i = 0; i < 3; i++)
        request(f, i);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(reap(f), i);
    AWAIT(read(f->call, &calls, sizeof(calls)) > 0);
    assert_int_equal(
        ask(f, &(struct vhost_message){.request = VHOST_GET_VRING_BASE, .flags = 1, .size = 8})
            ->state.value,
        3);
    /* Stopped: what is made available stays so. */
    request(f, 3);
    start_queue(f, 3);
    assert_int_equal(reap(f), 3);
    /* Disabled and enabled. */
    assert_true(done(f, with_state(VHOST_SET_VRING_ENABLE, 0)));
    request(f, 4);
    assert_true(done(f, with_state(VHOST_SET_VRING_ENABLE, 1)));
    assert_int_equal(reap(f), 4);
    assert_int_equal(atomic_load(&f->disk->done), 5);
    end(f);
}

/* A queue is disabled while the device holds a request, of which there is no record. */
static void disabled_with_request(void **state)
{
    struct front *f = begin();

    agree(f);
    fresh_ring(f);
    start_queue(f, 0);
    atomic_store(&f->disk->park, true);
    request(f, 0);
    AWAIT(parked(f) == 1);
    /* As long as it does not end, the queue cannot be disabled. */
    assert_false(done(f, with_state(VHOST_SET_VRING_ENABLE, 0)));
    atomic_store(&f->disk->park, false);
    assert_true(done(f, with_state(VHOST_SET_VRING_ENABLE, 0)));
    assert_int_equal(reap(f), 0);
    assert_int_equal(
        ask(f, &(struct vhost_message){.request = VHOST_GET_VRING_BASE, .flags = 1, .size = 8})
            ->state.value,
        1);
    request(f, 1);
    start_queue(f, 1);
    assert_int_equal(reap(f), 1);
    assert_int_equal(atomic_load(&f->disk->done), 2);
    end(f);
}

/* Has the back end make a record for a queue of SIZE entries, and keep it. Returns the message that
 * gives it the record again. */
static struct vhost_message record_of(struct front *f, unsigned size)
{
    struct vhost_message m = message(VHOST_GET_INFLIGHT_FD, 24);
    struct vhost_message *reply;
    int record;

    m.inflight.queues = 1;
    m.inflight.queue_size = (uint16_t)size;
    reply = ask(f, &m);
    record = vhost_take_fd(reply, 0);
    m = *reply;
    m.request = VHOST_SET_INFLIGHT_FD;
    m.flags = VHOST_VERSION;
    m.fds[0] = record;
    assert_true(done(f, m));
    return m;
}

/* A queue is larger than the front end said when it asked for the record: it is served without. */
static void small_record(void **state)
{
    struct front *f = begin();
    struct vhost_message m;

    agree(f);
    m = record_of(f, VHOST_RING_SIZE / 2);
    fresh_ring(f);
    start_queue(f, 0);
    request(f, VHOST_RING_SIZE / 2);
    assert_int_equal(reap(f), VHOST_RING_SIZE / 2);
    close(m.fds[0]);
    end(f);
}

/* A back end ends with requests in flight; the next one is given the record. */
static void requests_in_flight(void **state)
{
    struct front *f = begin();
    struct vhost_message m;
    int record;

    agree(f);
    m = record_of(f, VHOST_RING_SIZE);
    record = m.fds[0];
    fresh_ring(f);
    start_queue(f, 0);
    for (unsigned round = 0; round < 4; round++) {
        unsigned before = atomic_load(&f->disk->done);
        struct brig back = {.device = f->device, .disk = f->disk};

        atomic_store(&f->disk->park, true);
        for (unsigned i = 0; i < 5; i++)
            request(f, i);
        AWAIT(parked(f) == 5);
        brig_release_one(&back, 3);
        brig_release_one(&back, 1);
        disconnect(f);
        vhost_backend_destroy(f->backend);
        new_backend(f);
        connect_to(f);
        agree(f);
        assert_true(done(f, m));
        /* As QEMU does, the base is what the used ring says. */
        start_queue(f, (uint16_t)(5 * round + 2));
        AWAIT(parked(f) == 3);
        back.device = f->device;
        brig_release(&back);
        assert_int_equal(reap(f), 3);
        assert_int_equal(reap(f), 1);
        assert_int_equal(reap(f), 0);
        assert_int_equal(reap(f), 2);
        assert_int_equal(reap(f), 4);
        assert_int_equal(atomic_load(&f->disk->done), before + 5);
    }
    close(record);
    end(f);
}

/* The front end shares its memory anew, at other addresses of its own. */
static void memory_moves(void **state)
{
    struct front *f = begin();

    agree(f);
    fresh_ring(f);
    start_queue(f, 0);
    request(f, 0);
    assert_int_equal(reap(f), 0);
    assert_true(done(f, memory_table(f, USER)));
    request(f, 1);
    assert_int_equal(reap(f), 1);
    /* The queue would be nowhere. */
    assert_false(done(f, memory_table(f, USER + GiB)));
    assert_int_equal(await_reply(f), -ECONNRESET);
    end(f);
}

/* Memory that vanishes ends the session, and not the process. */
static void memory_vanishes(void **state)
{
    struct front *f = begin();

    for (unsigned round = 0; round < 2; round++) {
        agree(f);
        fresh_ring(f);
        start_queue(f, 0);
        request(f, 0);
        assert_int_equal(reap(f), 0);
        assert_int_equal(ftruncate(f->fd, 0), 0);
        assert_int_equal(write(f->kick, &(uint64_t){1}, 8), 8);
        assert_int_equal(await_reply(f), -ECONNRESET);
        disconnect(f);
        assert_int_equal(ftruncate(f->fd, MEMORY), 0);
        connect_to(f);
    }
    end(f);
}

/* What is refused, and what ends the session: the next one finds all as it was. */
static void out_of_place(void **state)
{
    struct front *f = begin();
    struct vhost_message m;

    agree(f);
    assert_false(done(f, with_u64(VHOST_SET_FEATURES, UINT64_MAX, -1)));
    assert_false(done(f, with_u64(VHOST_SET_FEATURES, 1u << 9, -1))); /* before virtio 1.0 */
    assert_true(done(f, with_u64(VHOST_SET_FEATURES, FEATURES, -1)));
    assert_false(done(f, with_u64(VHOST_SET_PROTOCOL_FEATURES, UINT64_MAX, -1)));
    assert_true(done(f, with_u64(VHOST_SET_PROTOCOL_FEATURES, 1u << VHOST_PROTOCOL_REPLY_ACK, -1)));
    assert_false(done(f, with_u64(VHOST_SET_VRING_KICK, 99, f->kick)));
    assert_false(done(f, with_u64(VHOST_SET_VRING_KICK, VHOST_NO_FD, -1)));
    assert_false(done(f, with_u64(VHOST_SET_VRING_KICK, 0, f->fd))); /* nothing to wait for */
    assert_true(done(f, with_state(VHOST_SET_VRING_NUM, 100)));
    assert_true(done(f, addresses(USER)));
    assert_true(done(f, with_u64(VHOST_SET_VRING_KICK, 0, f->kick)));
    assert_false(done(f, with_state(VHOST_SET_VRING_ENABLE, 1))); /* not a power of two */
    assert_true(done(f, with_state(VHOST_SET_VRING_NUM, 128)));
    assert_true(done(f, addresses(USER - 4096)));
    assert_false(done(f, with_state(VHOST_SET_VRING_ENABLE, 1)));
    assert_true(done(f, addresses(USER)));
    fresh_ring(f);
    assert_true(done(f, with_state(VHOST_SET_VRING_ENABLE, 1)));
    assert_false(done(f, with_state(VHOST_SET_VRING_NUM, 64)));
    assert_false(done(f, with_u64(VHOST_SET_FEATURES, FEATURES & ~(1ull << 9), -1)));
    request(f, 7);
    assert_int_equal(reap(f), 7);

    /* No message at all. */
    m = message(12345, 0);
    send_message(f, &m);
    assert_int_equal(await_reply(f), -ECONNRESET);
    disconnect(f);
    connect_to(f);
    agree(f);
    fresh_ring(f);
    start_queue(f, 0);
    request(f, 8);
    assert_int_equal(reap(f), 8);
    end(f);
}

/* The front end fills its event files and has them block: no thread waits for it. */
static void events_block(void **state)
{
    struct front *f = begin();
    const uint64_t full = UINT64_MAX - 1;

    agree(f);
    fresh_ring(f);
    start_queue(f, 0);
    request(f, 0);
    assert_int_equal(reap(f), 0);
    event_clear(f->call);
    if (write(f->call, &full, sizeof(full)) < 0)
        assert_int_equal(errno, EAGAIN);
    assert_int_equal(fcntl(f->call, F_SETFL, 0), 0);
    for (unsigned i = 1; i < 4; i++) {
        request(f, i);
        assert_int_equal(reap(f), i);
    }
    assert_int_equal(
        ask(f, &(struct vhost_message){.request = VHOST_GET_VRING_BASE, .flags = 1, .size = 8})
            ->state.value,
        4);
    end(f);
}

/* A driver that breaks the rules of its queue. */
static void broken_driver(void **state)
{
    struct front *f = begin();
    const struct virtqueue_buffer nowhere = {.gpa = GPA + MEMORY, .size = 16};
    int error = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t count;

    agree(f);
    fresh_ring(f);
    start_queue(f, 0);
    assert_true(done(f, with_u64(VHOST_SET_VRING_ERR, 0, error)));
    assert_int_equal(vhost_ring_add(&f->ring, &nowhere, 0, 1, f), 0);
    assert_int_equal(write(f->kick, &(uint64_t){1}, 8), 8);
    AWAIT(read(error, &count, sizeof(count)) > 0);
    /* The guest resets its device. */
    ask(f, &(struct vhost_message){.request = VHOST_GET_VRING_BASE, .flags = 1, .size = 8});
    assert_true(done(f, with_u64(VHOST_SET_FEATURES, FEATURES, -1)));
    fresh_ring(f);
    start_queue(f, 0);
    request(f, 1);
    assert_int_equal(reap(f), 1);
    close(error);
    end(f);
}

/* The record by itself: each place where a back end may end. */
static void record(void **state)
{
    union {
        uint64_t align;
        uint8_t bytes[1024];
    } memory = {.align = 0};
    struct inflight_queue *q = inflight_of(memory.bytes, 0, 16);
    uint16_t heads[16];
    uint64_t counter = 5, next;

    assert_true(inflight_bytes(1, 16) <= sizeof(memory));
    assert_int_equal(inflight_begin(q, 16, 100, heads, &counter), 0);
    assert_int_equal(counter, 0);
    inflight_take(q, 7, &counter);
    inflight_take(q, 3, &counter);
    inflight_take(q, 5, &counter);
    /* Before the used ring has moved, it is still in flight. */
    inflight_give(q, 3);
    assert_int_equal(inflight_begin(q, 16, 100, heads, &next), 3);
    assert_int_equal(heads[0] << 8 | heads[1] << 4 | heads[2], 0x735);
    assert_int_equal(next, 3);
    /* Afterwards it is not, marked or not. */
    inflight_give(q, 3);
    assert_int_equal(inflight_begin(q, 16, 101, heads, &next), 2);
    assert_int_equal(heads[0] << 4 | heads[1], 0x75);
    inflight_give(q, 7);
    inflight_given(q, 7, 102);
    assert_int_equal(inflight_begin(q, 16, 102, heads, &next), 1);
    assert_int_equal(heads[0], 5);
    /* Another size: the record is of another queue. */
    assert_int_equal(inflight_begin(q, 8, 0, heads, &next), 0);
    /* Whatever it holds. */
    for (unsigned seed = 1; seed < 2000; seed++) {
        for (unsigned i = 0; i < sizeof(memory); i++)
            memory.bytes[i] = (uint8_t)((seed * 2654435761u) >> (i % 24));
        memcpy(memory.bytes + 8, &(uint16_t){1}, 2);
        memcpy(memory.bytes + 10, &(uint16_t){16}, 2);
        assert_true(inflight_begin(q, 16, (uint16_t)(seed * 77), heads, &next) <= 16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_and_goes_on), cmocka_unit_test(requests_in_flight),
        cmocka_unit_test(small_record),      cmocka_unit_test(disabled_with_request),
        cmocka_unit_test(memory_moves),      cmocka_unit_test(memory_vanishes),
        cmocka_unit_test(out_of_place),      cmocka_unit_test(events_block),
        cmocka_unit_test(broken_driver),     cmocka_unit_test(record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
