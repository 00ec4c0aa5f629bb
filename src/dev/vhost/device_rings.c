/*
 * The rings that a device shares with its back end, and the ends of requests.
 */
#include "dev/vhost/device_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BIT(N) (UINT64_C(1) << (N))
/* Requests of one queue that are ended in a turn of the thread's. A back end and a guest that are
 * quick keep a queue from ever being empty, and other queues, and the machine, have their turns. */
#define ENDS_AT_ONCE (2 * VHOST_RING_SIZE)

/* ---- Ends of requests ---- */

/* Ends a request that the back end has given back. */
static void end_request(struct vhost_device *v, struct virtio_request *r, uint32_t written)
{
    const struct virtqueue_chain *chain = &r->chain;

    /* What it says of how much it wrote is not believed. */
    for (unsigned i = chain->readable; i < chain->readable + chain->writable; i++)
        mem_foreign_written(v->device.host.mem, chain->buffer[i].gpa, chain->buffer[i].size);
    virtio_complete(r, written);
}

/* Takes the next request that has ended. As vhost_ring_take. *WAKE: there is room again for one
 * that found none. */
static int take(struct vhost_queue *q, struct virtio_request **r, uint32_t *written, bool *woken)
{
    void *owner = NULL;
    int got;

    pthread_mutex_lock(&q->lock);
    got = vhost_ring_take(&q->ring, &owner, written);
    if (got == 0 && vhost_ring_await(&q->ring))
        got = vhost_ring_take(&q->ring, &owner, written);
    q->out -= got > 0;
    *woken = got > 0 && q->full;
    q->full &= !*woken;
    pthread_mutex_unlock(&q->lock);
    *r = owner;
    return got;
}

int vhost_rings_end(struct vhost_device *v, unsigned queue)
{
    struct virtio_request *r;
    uint32_t written;
    bool woken;
    int got;

    for (unsigned i = 0; i < ENDS_AT_ONCE; i++) {
        got = take(&v->queue[queue], &r, &written, &woken);
        if (got <= 0)
            return got;
        end_request(v, r, written);
        if (woken)
            virtio_wake(&v->device, queue);
    }
    return 1;
}

void vhost_rings_forget(struct vhost_device *v, bool lost)
{
    void (*refuse)(struct virtio_request *request) = lost ? v->kind->refuse : NULL;

    if (!v->memory)
        return;
    for (unsigned i = 0; i < v->queues; i++) {
        struct vhost_queue *q = &v->queue[i];
        struct virtio_request *r;

        pthread_mutex_lock(&q->lock);
        q->runs = false;
        q->lost = lost;
        pthread_mutex_unlock(&q->lock);
        while (vhost_rings_end(v, i) > 0) {}
        /* Nothing is added to a ring that does not run. */
        while ((r = vhost_ring_revoke(&q->ring))) {
            if (refuse)
                refuse(r);
            else
                virtio_give_back(r);
        }
        q->out = 0;
    }
    munmap(v->memory, v->queues * (size_t)VHOST_RING_BYTES);
    close(v->rings);
    v->memory = NULL;
}

unsigned vhost_rings_out(struct vhost_device *v)
{
    unsigned out = 0;

    for (unsigned i = 0; i < v->queues; i++) {
        pthread_mutex_lock(&v->queue[i].lock);
        out += v->queue[i].out;
        pthread_mutex_unlock(&v->queue[i].lock);
    }
    return out;
}

/* ---- Making rings ---- */

/* Sets up the rings' file. The seals keep the back end from making it shorter, which would end this
 * process when it touches a ring. */
static int map_rings(struct vhost_device *v, size_t size, struct error *err)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    bool sealed;

    v->rings = memfd_create("vhost-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (v->rings < 0)
        return error_set(err, errno, "cannot get memory for rings: %s", strerror(errno));
    sealed = ftruncate(v->rings, (off_t)size) == 0 && fcntl(v->rings, F_ADD_SEALS, seals) == 0;
    v->memory =
        sealed ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, v->rings, 0) : MAP_FAILED;
    if (v->memory == MAP_FAILED) {
        int code = errno;

        close(v->rings);
        v->memory = NULL;
        return error_set(err, code, "cannot get memory for rings: %s", strerror(code));
    }
    return 0;
}

int vhost_rings_make(struct vhost_device *v, struct error *err)
{
    uint64_t offered = v->connection.features;
    int ret = map_rings(v, v->queues * (size_t)VHOST_RING_BYTES, err);

    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < v->queues; i++) {
        struct vhost_queue *q = &v->queue[i];

        pthread_mutex_lock(&q->lock);
        vhost_ring_start(&q->ring, v->memory + i * (size_t)VHOST_RING_BYTES,
                         VHOST_RINGS_GPA + i * (uint64_t)VHOST_RING_BYTES,
                         offered & BIT(VIRTIO_F_EVENT_IDX), offered & BIT(VIRTIO_F_INDIRECT_DESC));
        q->full = false;
        pthread_mutex_unlock(&q->lock);
    }
    return 0;
}
