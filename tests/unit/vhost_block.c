/*
 * The block device whose disk a back end of vhost-user serves: a guest's driver (virtio_rig.h), the
 * front end, and our own back end in a thread (vhost_rig.h), which ends and comes back.
 */
#include "test.h"

#include "base/event.h"
#include "dev/vhost/block.h"
#include "dev/virtio/serve.h"
#include "mem/foreign.h"
#include "mem/log.h"
#include "virtio_rig.h"
#include "vhost_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RINGS   0x10000u
#define HEADERS 0x20000u /* 16 bytes for each request, and its status 8 bytes behind */
#define DATA    0x40000u /* a sector for each */

static char path[64];

/* How often the front end has complained that nobody answers. */
static _Atomic unsigned unanswered;

static void count_line(void *opaque, enum log_level level, const char *text)
{
    if (strstr(text, "does not answer"))
        atomic_fetch_add(&unanswered, 1);
}

static const struct log complaints = {.most = LOG_LEVEL_WARNING, .line = count_line};

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    return vhost_block_create(slot, path, 0, &complaints, err);
}

/* The host's clock, which the test can move ahead (and the linker's --wrap). */
static _Atomic uint64_t ahead;

uint64_t __real_time_now_ns(void);
uint64_t __wrap_time_now_ns(void);
uint64_t __wrap_time_now_ns(void)
{
    return __real_time_now_ns() + atomic_load(&ahead);
}

/* Whether this process has a thread of that name. */
static bool has_thread(const char *wanted)
{
    DIR *threads = opendir("/proc/self/task");
    struct dirent *entry;
    bool found = false;

    while ((entry = readdir(threads))) {
        char file[300], name[32] = "";
        FILE *f;

        snprintf(file, sizeof(file), "/proc/self/task/%s/comm", entry->d_name);
        f = fopen(file, "r");
        if (f && fgets(name, sizeof(name), f))
            found |= strncmp(name, wanted, strlen(wanted)) == 0;
        if (f)
            fclose(f);
    }
    closedir(threads);
    return found;
}

/* When the frame frees its queues, the device's thread, which wakes them, has ended (and the
 * linker's --wrap). */
void __real_virtio_queue_free(struct virtio_queue *q);
void __wrap_virtio_queue_free(struct virtio_queue *q);
void __wrap_virtio_queue_free(struct virtio_queue *q)
{
    if (strcmp(q->device->ops->name, "vhost-user-blk") == 0)
        AWAIT(!has_thread("vhost-user-blk"));
    __real_virtio_queue_free(q);
}

struct both {
    struct brig_disk *disk;
    struct brig *back;
    struct vrig *front;
    uint16_t next;
};

static void start_driver(struct both *b)
{
    vrig_start(b->front, rig_layout(RINGS, 64), VRIG_FEATURES | 1u << 9);
    b->next = 0;
}

static struct both *begin(void)
{
    struct both *b = calloc(1, sizeof(*b));

    snprintf(path, sizeof(path), P_tmpdir "/doppel-vhost-block-%d", getpid());
    b->disk = calloc(1, sizeof(*b->disk));
    atomic_store(&b->disk->capacity, BRIG_SECTORS);
    for (unsigned i = 0; i < BRIG_SECTORS; i++)
        memset(b->disk->bytes + i * 512, (int)i, 512);
    b->back = brig_create(b->disk, path);
    b->front = vrig_create(create, NULL, 1);
    assert_int_equal(loop_start(b->front->loop, NULL), 0);
    start_driver(b);
    return b;
}

static void end(struct both *b)
{
    vrig_destroy(b->front);
    if (b->back)
        brig_destroy(b->back);
    free(b->disk);
    free(b);
}

static void publish(struct both *b, uint16_t head)
{
    rig_publish_shared(&b->front->queue, head);
    vrig_notify(b->front);
}

/* Makes a request for one sector available; TYPE 0 reads and 1 writes. */
static void request(struct both *b, uint32_t type, unsigned sector)
{
    struct vrig *v = b->front;
    uint16_t n = b->next++ % 16, head = (uint16_t)(3 * n);
    uint64_t header = HEADERS + 32u * n, data = DATA + 512u * n;

    rig_put(v->mem, header, type, 8);
    rig_put(v->mem, header + 8, sector, 8);
    rig_put(v->mem, header + 16, 0xFF, 1);
    rig_descriptor(&v->queue, head, header, 16, RIG_NEXT, head + 1);
    rig_descriptor(&v->queue, head + 1u, data, 512, RIG_NEXT | (type == 0 ? RIG_WRITE : 0),
                   head + 2);
    rig_descriptor(&v->queue, head + 2u, header + 16, 1, RIG_WRITE, 0);
    publish(b, head);
}

/* Waits for the end of a request. Returns its number. */
static unsigned reap(struct both *b)
{
    uint32_t head = 0, written;

    AWAIT(rig_used_index(&b->front->queue) != b->front->queue.used);
    assert_true(rig_reap(&b->front->queue, &head, &written));
    assert_int_equal(rig_get(b->front->mem, HEADERS + 32u * (head / 3) + 16, 1), 0);
    return head / 3;
}

static bool nothing_ended(struct both *b)
{
    return rig_used_index(&b->front->queue) == b->front->queue.used;
}

static void reads_and_writes(void **state)
{
    struct both *b = begin();
    struct vrig *v = b->front;

    assert_int_equal(vrig_read(v, 0x2000, 4), BRIG_SECTORS);
    assert_int_equal(vrig_read(v, 0x2000 + 34, 2), 2); /* queues */
    request(b, 0, 77);
    assert_int_equal(reap(b), 0);
    assert_int_equal(rig_get(v->mem, DATA + 508, 4), 0x4D4D4D4D);
    AWAIT(atomic_load(&v->messages[1]) > 0);
    rig_put(v->mem, DATA + 512, 0x1122334455667788, 8);
    request(b, 1, 5);
    assert_int_equal(reap(b), 1);
    assert_int_equal(atomic_load(&b->disk->done), 2);
    assert_memory_equal(b->disk->bytes + 5 * 512, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
    assert_true(mem_is_exported(v->mem));
    AWAIT(where_ask(vhost_device_where(v->dev)));
    for (unsigned i = 2; i < 300; i++) {
        request(b, 0, i % BRIG_SECTORS);
        assert_int_equal(reap(b), i % 16);
    }
    assert_int_equal(atomic_load(&b->disk->done), 300);
    end(b);
}

/* Tries to change the size of all memory files NAME that this process, which is both ends, has.
 * Returns how many there are. */
static unsigned resize_files(const char *name)
{
    unsigned found = 0;

    for (int fd = 0; fd < 1024; fd++) {
        char link[64], target[64] = {0};

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof(target) - 1) < 0 || !strstr(target, name))
            continue;
        found++;
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(fd, 1ll << 32), -1);
    }
    return found;
}

/* The back end cannot make shorter what both map: the front end's process would end. */
static void memory_keeps_its_size(void **state)
{
    struct both *b = begin();

    request(b, 0, 7);
    reap(b);
    assert_true(resize_files("memfd:vhost-rings") > 0);
    assert_true(resize_files("memfd:guest-ram") > 0);
    request(b, 0, 8);
    reap(b);
    end(b);
}

/* The number of the event file that FD is, which /proc tells; -1: it is none. */
static long event_number(int fd)
{
    char name[64], line[128];
    long number = -1;
    FILE *f;

    snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
    f = fopen(name, "r");
    while (f && fgets(line, sizeof(line), f))
        sscanf(line, "eventfd-id: %ld", &number);
    if (f)
        fclose(f);
    return number;
}

/* Fills all event files that the front end has given to the back end, and has them block. Returns
 * how many descriptors they have. */
static unsigned fill_shared_events(void)
{
    long number[256];
    unsigned filled = 0;

    for (int fd = 0; fd < 256; fd++)
        number[fd] = event_number(fd);
    for (int fd = 0; fd < 256; fd++) {
        const uint64_t full = UINT64_MAX - 1;
        bool shared = false;

        for (int other = 0; other < 256; other++)
            shared |= other != fd && number[fd] >= 0 && number[fd] == number[other];
        if (!shared)
            continue;
        event_clear(fd);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        /* Another process would do this. ThreadSanitizer is not to take it for a use of the
         * descriptors that the threads of this one have, which it sees in their calls of libc. */
        if (syscall(SYS_write, fd, &full, sizeof(full)) < 0)
            assert_int_equal(errno, EAGAIN);
        assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
        filled++;
    }
    return filled;
}

/* The back end has the front end's event files block: no thread waits for it. */
static void events_block(void **state)
{
    struct both *b = begin();
    struct dev *dev = b->front->dev;

    request(b, 0, 1);
    reap(b);
    for (unsigned round = 0; round < 5; round++) {
        assert_true(fill_shared_events() >= 8); /* 2 queues, 2 files each, at both ends */
        request(b, 0, 2);
        reap(b);
    }
    dev->ops->pause(dev);
    dev->ops->resume(dev);
    request(b, 0, 3);
    reap(b);
    end(b);
}

/* What the back end writes into guest memory is in the dirty log before the request ends. */
static void writes_are_logged(void **state)
{
    struct both *b = begin();
    struct mem *mem = b->front->mem;
    uint64_t bits[2] = {0};

    assert_int_equal(mem_log_start(mem, NULL), 0);
    mem_log_fetch(mem, 0, 128, bits);
    request(b, 0, 3);
    reap(b);
    mem_log_fetch(mem, 0, 128, bits);
    assert_true(bits[1] & 1u << ((DATA >> 12) - 64));
    mem_log_stop(mem);
    end(b);
}

/* The back end dies with requests in flight, some of them finished, and another takes its place. */
static void comes_back(void **state)
{
    struct both *b = begin();

    for (unsigned round = 0; round < 5; round++) {
        unsigned before = atomic_load(&b->disk->done), ended = 0;

        atomic_store(&b->disk->park, true);
        for (unsigned i = 0; i < 4; i++)
            request(b, 1, 10 + i);
        AWAIT(brig_parked(b->back) == 4);
        brig_release_one(b->back, 2);
        if (round & 1) /* the driver has heard of it, or not yet */
            ended |= 1u << reap(b);
        brig_destroy(b->back);
        assert_true(round & 1 ? nothing_ended(b) : true);
        b->back = brig_create(b->disk, path);
        AWAIT(brig_parked(b->back) == 3);
        request(b, 1, 20);
        AWAIT(brig_parked(b->back) == 4);
        brig_release(b->back);
        for (unsigned i = 0; i < 5u - (round & 1); i++)
            ended |= 1u << reap(b);
        assert_true(nothing_ended(b));
        /* Each exactly once, and the others in the order in which the driver made them. */
        assert_int_equal(__builtin_popcount(ended), 5);
        assert_int_equal(atomic_load(&b->disk->done), before + 5);
        assert_memory_equal(&b->disk->sector[before], ((uint8_t[]){12, 10, 11, 13, 20}), 5);
    }
    end(b);
}

/* A driver that resets the device and starts anew. */
static void driver_resets(void **state)
{
    struct both *b = begin();

    request(b, 0, 1);
    reap(b);
    vrig_write(b->front, VRIG_STATUS, 1, 0);
    AWAIT(vrig_status(b->front) == 0);
    start_driver(b);
    request(b, 0, 2);
    reap(b);

    /* While there is no back end. */
    brig_destroy(b->back);
    request(b, 0, 3);
    vrig_write(b->front, VRIG_STATUS, 1, 0);
    AWAIT(vrig_status(b->front) == 0);
    start_driver(b);
    request(b, 0, 4);
    b->back = brig_create(b->disk, path);
    assert_int_equal(reap(b), 0);
    assert_int_equal(atomic_load(&b->disk->done), 3);
    assert_int_equal(b->disk->sector[2], 4);
    end(b);
}

/* A pause waits for the back end, if it is there. */
static void *release_later(void *opaque)
{
    time_sleep_ns(20 * NS_PER_MS);
    brig_release(opaque);
    return NULL;
}

static void pauses(void **state)
{
    struct both *b = begin();
    struct dev *dev = b->front->dev;
    pthread_t thread;

    atomic_store(&b->disk->park, true);
    request(b, 0, 1);
    request(b, 0, 2);
    AWAIT(brig_parked(b->back) == 2);
    assert_int_equal(thread_start(&thread, "later", release_later, b->back, NULL), 0);
    dev->ops->pause(dev);
    assert_int_equal(rig_get(b->front->mem, b->front->queue.config.used + 2, 2), 2);
    pthread_join(thread, NULL);
    request(b, 0, 3);
    dev->ops->resume(dev);
    for (unsigned i = 0; i < 3; i++)
        reap(b);
    end(b);
}

/* A pause does not wait for a back end that ends a request now and then. */
static void *pause_device(void *opaque)
{
    struct dev *dev = opaque;

    dev->ops->pause(dev);
    return NULL;
}

static void pauses_without_end(void **state)
{
    const unsigned requests = 16;
    struct both *b = begin();
    struct dev *dev = b->front->dev;
    unsigned ended = 0;
    pthread_t thread;

    atomic_store(&b->disk->park, true);
    for (unsigned i = 0; i < requests; i++)
        request(b, 0, i);
    AWAIT(brig_parked(b->back) == requests);
    assert_int_equal(thread_start(&thread, "pause", pause_device, dev, NULL), 0);
    AWAIT(virtio_recalled(virtio_pci_device(dev)));
    while (atomic_load(&b->back->sessions) == 1 && ended < requests) {
        atomic_fetch_add(&ahead, 9 * NS_PER_S);
        ended += brig_release_one(b->back, 0);
        AWAIT(rig_used_index(&b->front->queue) == ended || atomic_load(&b->back->sessions) > 1);
    }
    pthread_join(thread, NULL);
    assert_true(ended < requests / 2);
    dev->ops->resume(dev);
    /* It is connected to again, and has the rest. */
    AWAIT(brig_parked(b->back) == requests - rig_used_index(&b->front->queue));
    brig_release(b->back);
    for (unsigned i = 0; i < requests; i++)
        reap(b);
    end(b);
}

/* A back end that is there only for moments is connected to later each time. */
static void comes_and_goes(void **state)
{
    uint64_t start = __real_time_now_ns();
    struct both *b = begin();

    for (unsigned i = 0; i < 4; i++) {
        request(b, 0, i);
        reap(b);
        brig_destroy(b->back);
        b->back = brig_create(b->disk, path);
    }
    request(b, 0, 5);
    reap(b);
    assert_true(__real_time_now_ns() - start >= (50 + 100 + 200 + 400) * NS_PER_MS);
    end(b);
}

/* The machine ends while a back end that does not answer is asked. */
static void ends_while_asking(void **state)
{
    struct both *b = begin();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct pollfd pfd = {.events = POLLIN};

    request(b, 0, 1);
    reap(b);
    brig_destroy(b->back);
    b->back = NULL;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    pfd.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(pfd.fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(pfd.fd, 4), 0);
    assert_int_equal(poll(&pfd, 1, 60000), 1);
    end(b);
    assert_int_equal(atomic_load(&unanswered), 0);
    close(pfd.fd);
    unlink(path);
}

/* A machine is saved while the back end is away with requests in flight, and goes on elsewhere. */
static void saved_without_back_end(void **state)
{
    struct both *b = begin();
    struct dev *dev = b->front->dev;
    struct state_image image = {0};

    atomic_store(&b->disk->park, true);
    for (unsigned i = 0; i < 3; i++)
        request(b, 1, 30 + i);
    AWAIT(brig_parked(b->back) == 3);
    brig_destroy(b->back);
    dev->ops->pause(dev);
    bus_lock(b->front->rig->bus);
    assert_int_equal(image_save_dev(&image, dev), 0);
    dev->ops->reset(dev);
    assert_int_equal(image_load_dev(&image, dev), 0);
    bus_unlock(b->front->rig->bus);
    image_free(&image);
    atomic_store(&b->disk->park, false);
    b->back = brig_create(b->disk, path);
    dev->ops->resume(dev);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(reap(b), i);
    assert_int_equal(atomic_load(&b->disk->done), 3);
    assert_memory_equal(b->disk->sector, ((uint8_t[]){30, 31, 32}), 3);
    end(b);
}

/* The disk grows, which the guest is told; also when that happens while the back end is away. */
static void grows(void **state)
{
    struct both *b = begin();
    struct vrig *v = b->front;
    unsigned before = atomic_load(&v->messages[0]);

    request(b, 0, 1);
    reap(b);
    atomic_store(&b->disk->capacity, 1000);
    bus_lock(b->back->device->device.host.bus);
    virtio_config_changed(&b->back->device->device);
    bus_unlock(b->back->device->device.host.bus);
    AWAIT(vrig_read(v, 0x2000, 4) == 1000);
    AWAIT(atomic_load(&v->messages[0]) == before + 1);
    brig_destroy(b->back);
    atomic_store(&b->disk->capacity, 2000);
    b->back = brig_create(b->disk, path);
    AWAIT(vrig_read(v, 0x2000, 4) == 2000);
    request(b, 0, 1);
    reap(b);
    end(b);
}

/* Buffers that are no memory do not reach the back end. */
static void broken_driver(void **state)
{
    struct both *b = begin();

    rig_descriptor(&b->front->queue, 0, 1ull << 46, 16, 0, 0);
    publish(b, 0);
    AWAIT(vrig_status(b->front) & VIRTIO_NEEDS_RESET);
    vrig_write(b->front, VRIG_STATUS, 1, 0);
    AWAIT(vrig_status(b->front) == 0);
    start_driver(b);
    request(b, 0, 9);
    reap(b);
    end(b);
}

static void no_back_end(void **state)
{
    struct rig *rig = rig_create();
    struct mem *mem = mem_create(VRIG_MEMORY, NULL);
    const struct virtio_slot slot = {.bus = rig->bus, .mem = mem};
    struct error err = {0};
    char name[200];

    snprintf(name, sizeof(name), P_tmpdir "/doppel-no-back-end-%d", getpid());
    assert_null(vhost_block_create(&slot, name, 0, NULL, &err));
    assert_non_null(strstr(err.text, name));
    assert_non_null(strstr(err.text, "is it running?"));
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = 0;
    assert_null(vhost_block_create(&slot, name, 0, NULL, &err));
    assert_int_equal(err.code, ENAMETOOLONG);
    assert_false(mem_is_exported(mem));
    mem_destroy(mem);
    rig_destroy(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_writes),
        cmocka_unit_test(memory_keeps_its_size),
        cmocka_unit_test(writes_are_logged),
        cmocka_unit_test(comes_back),
        cmocka_unit_test(events_block),
        cmocka_unit_test(driver_resets),
        cmocka_unit_test(pauses),
        cmocka_unit_test(pauses_without_end),
        cmocka_unit_test(comes_and_goes),
        cmocka_unit_test(ends_while_asking),
        cmocka_unit_test(saved_without_back_end),
        cmocka_unit_test(grows),
        cmocka_unit_test(broken_driver),
        cmocka_unit_test(no_back_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
