/*
 * A back end of vhost-user for tests: our own, in a thread, with a disk of memory whose requests
 * can be held up. The disk outlives the back end, as a file does.
 */
#ifndef DOPPEL_TESTS_UNIT_VHOST_RIG_H
#define DOPPEL_TESTS_UNIT_VHOST_RIG_H

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "dev/vhost/backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BRIG_SECTORS 256u
#define BRIG_CONFIG  60u
#define BRIG_DONE    1024u

struct brig_disk {
    uint8_t bytes[BRIG_SECTORS * 512];
    _Atomic uint64_t capacity;
    _Atomic bool park;     /* requests wait until brig_release */
    _Atomic unsigned done; /* requests that were carried out, and their sectors, in order: */
    uint8_t sector[BRIG_DONE];
};

struct brig_device {
    struct virtio_device device;
    struct brig_disk *disk;
    pthread_mutex_t lock;
    struct virtio_request *parked[64];
    unsigned count;
};

struct brig {
    struct brig_disk *disk;
    char path[64];
    int listener, stop;
    struct vhost_backend *backend;
    struct brig_device *device;
    pthread_t thread;
    _Atomic int connection; /* -1: none */
    _Atomic unsigned sessions;
};

/* ---- The device ---- */

static inline void brig_carry_out(struct brig_device *d, struct virtio_request *r)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {0, 0, 0};
    uint64_t size = r->chain.writable_bytes - 1;
    uint8_t status = 0, *at;

    assert_int_equal(virtio_read_at(r, 0, &header, sizeof(header)), 0);
    assert_true(header.sector < BRIG_SECTORS);
    at = d->disk->bytes + header.sector * 512;
    if (header.type == 1)
        virtio_read_at(r, sizeof(header), at, r->chain.readable_bytes - sizeof(header));
    else
        virtio_write_at(r, 0, at, size);
    virtio_write_at(r, size, &status, 1);
    d->disk->sector[atomic_load(&d->disk->done) % BRIG_DONE] = (uint8_t)header.sector;
    atomic_fetch_add(&d->disk->done, 1);
    virtio_complete(r, (uint32_t)r->chain.writable_bytes);
}

static inline enum virtio_result brig_serve(struct virtio_device *device, struct virtio_request *r)
{
    struct brig_device *d = container_of(device, struct brig_device, device);
    bool park = atomic_load(&d->disk->park);

    if (r->chain.readable_bytes < 16 || !r->chain.writable_bytes)
        return VIRTIO_BROKEN;
    pthread_mutex_lock(&d->lock);
    if (park)
        d->parked[d->count++ % 64] = r;
    pthread_mutex_unlock(&d->lock);
    if (!park)
        brig_carry_out(d, r);
    return VIRTIO_TAKEN;
}

static inline unsigned brig_parked(struct brig *b)
{
    unsigned count;

    pthread_mutex_lock(&b->device->lock);
    count = b->device->count;
    pthread_mutex_unlock(&b->device->lock);
    return count;
}

/* Carries out the parked request number N, or all that are parked in order. False: there is none
 * (the front end may have gone). */
static inline bool brig_release_one(struct brig *b, unsigned n)
{
    struct brig_device *d = b->device;
    struct virtio_request *r = NULL;

    pthread_mutex_lock(&d->lock);
    if (n < d->count) {
        r = d->parked[n];
        d->count--;
        memmove(&d->parked[n], &d->parked[n + 1], (d->count - n) * sizeof(r));
    }
    pthread_mutex_unlock(&d->lock);
    if (r)
        brig_carry_out(d, r);
    return r != NULL;
}

static inline void brig_release(struct brig *b)
{
    atomic_store(&b->disk->park, false);
    while (brig_parked(b))
        brig_release_one(b, 0);
}

static inline void brig_recall(struct virtio_device *device)
{
    struct brig_device *d = container_of(device, struct brig_device, device);

    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->count; i++)
        virtio_give_back(d->parked[i]);
    d->count = 0;
    pthread_mutex_unlock(&d->lock);
}

static inline void brig_read_config(struct virtio_device *device, void *config)
{
    struct brig_device *d = container_of(device, struct brig_device, device);
    uint64_t capacity = atomic_load(&d->disk->capacity);

    memset(config, 0, BRIG_CONFIG);
    memcpy(config, &capacity, sizeof(capacity));
}

static inline void brig_free(struct virtio_device *device)
{
    struct brig_device *d = container_of(device, struct brig_device, device);

    pthread_mutex_destroy(&d->lock);
    free(d);
}

static const struct virtio_ops brig_ops = {
    .name = "brig",
    .id = 2,
    .features = 1u << 9 | 1u << 12,
    .queues = 2,
    .queue_size = 1024,
    .config_size = BRIG_CONFIG,
    .serve = brig_serve,
    .recall = brig_recall,
    .read_config = brig_read_config,
    .free = brig_free,
};

/* ---- The back end ---- */

static inline void *brig_run(void *opaque)
{
    struct brig *b = opaque;
    int fd;

    while ((fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        atomic_store(&b->connection, fd);
        atomic_fetch_add(&b->sessions, 1);
        vhost_backend_serve(b->backend, fd, b->stop);
        atomic_store(&b->connection, -1);
    }
    return NULL;
}

static inline struct vhost_backend *brig_backend(struct brig_disk *disk,
                                                 struct brig_device **device)
{
    struct vhost_backend *backend = vhost_backend_create(NULL, NULL);
    struct virtio_slot slot = vhost_backend_slot(backend);

    *device = calloc(1, sizeof(**device));
    (*device)->disk = disk;
    pthread_mutex_init(&(*device)->lock, NULL);
    assert_non_null(virtio_pci_create(&slot, &brig_ops, &(*device)->device, NULL));
    return backend;
}

/* Serves B->backend, whatever it has, to front ends that connect to PATH. */
static inline void brig_listen(struct brig *b, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(b->path, sizeof(b->path), "%s", path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    atomic_store(&b->connection, -1);
    b->stop = eventfd(0, EFD_CLOEXEC);
    unlink(path);
    b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(b->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(b->listener, 4), 0);
    assert_int_equal(thread_start(&b->thread, "back end", brig_run, b, NULL), 0);
}

static inline struct brig *brig_create(struct brig_disk *disk, const char *path)
{
    struct brig *b = calloc(1, sizeof(*b));

    b->disk = disk;
    b->backend = brig_backend(disk, &b->device);
    brig_listen(b, path);
    return b;
}

/* Ends the back end as a signal would: what it has not finished stays so. */
static inline void brig_destroy(struct brig *b)
{
    uint64_t one = 1;

    unlink(b->path);
    assert_int_equal(write(b->stop, &one, sizeof(one)), sizeof(one));
    shutdown(b->listener, SHUT_RDWR);
    pthread_join(b->thread, NULL);
    close(b->listener);
    vhost_backend_destroy(b->backend);
    close(b->stop);
    free(b);
}

/* Waits until CONDITION holds, for a minute at most. */
#define AWAIT(CONDITION)                                                                           \
    do {                                                                                           \
        uint64_t until = time_now_ns() + 60 * NS_PER_S;                                            \
        bool holds;                                                                                \
        while (!(holds = (CONDITION)) && time_now_ns() < until)                                    \
            time_sleep_ns(NS_PER_MS / 4);                                                          \
        assert_true(holds);                                                                        \
    } while (0)

#endif
