/*
 * Inside the back end: shared by backend.c (the transport and the session), backend_message.c (what
 * each message does), backend_queue.c (queues that start and stop) and backend_memory.c (the front
 * end's memory).
 */
#ifndef DOPPEL_DEV_VHOST_BACKEND_PRIVATE_H
#define DOPPEL_DEV_VHOST_BACKEND_PRIVATE_H

#include "base/event.h"
#include "bus/dev.h"
#include "dev/vhost/backend.h"
#include "dev/vhost/inflight.h"
#include "dev/vhost/message.h"
#include "mem/foreign.h"
#include "mem/lost.h"

#define BIT(N) (UINT64_C(1) << (N))

/* A queue, as the front end has described it so far. */
struct backend_queue {
    struct vhost_backend *backend;
    unsigned index;
    unsigned size;
    uint16_t base; /* where to begin in the available ring */
    bool addressed;
    struct vhost_addresses addresses;
    bool started, enabled; /* both: it is served, and the device has it as live */
    bool live;

    int kick;                 /* -1: none, here and below */
    struct loop_watch *watch; /* on KICK, while the queue is started */
    pthread_mutex_t lock;     /* a leaf: guards CALL, which any thread writes to */
    int call;
    int error;

    struct inflight_queue *inflight; /* its record; NULL: none is kept */
    uint64_t counter;
};

struct backend_region {
    struct vhost_region where;
    struct mem_region *region;
};

struct vhost_backend {
    const struct log *log;
    struct bus *bus;
    struct mem *mem;
    struct loop *loop;
    struct workers *workers;

    struct dev dev;
    struct virtio_device *device; /* NULL: not plugged in yet */
    struct backend_queue queue[VIRTIO_QUEUES_MAX];
    bool paused; /* the device is: as long as no queue is live */

    int event;                  /* eventfd: CHANGED, BROKEN or LOST was set */
    struct event_sender sender; /* for the front end's event files */
    _Atomic bool lost;          /* the front end has taken memory away */
    _Atomic bool interrupted;   /* the device has something to say beside its queues */

    /* The session. */
    int socket, requests; /* REQUESTS: for this side's; -1: none */
    struct vhost_reader reader;
    uint64_t features, protocol; /* as the front end has accepted them */
    struct backend_region region[VHOST_REGIONS_MAX];
    unsigned regions;
    void *inflight; /* the record of all queues, mapped; NULL: none */
    size_t inflight_size;
    struct lost inflight_lost;
    unsigned inflight_queues, inflight_entries; /* of each queue */
    bool told_broken;
};

/* Before anything of the session that workers look at is changed. */
static inline void backend_pause(struct vhost_backend *b)
{
    if (!b->paused)
        virtio_pause(b->device);
    b->paused = true;
}

/* ---- backend_message.c ---- */

/* Does what MESSAGE asks and fills REPLY in, whose header says already that it is one; REPLIES
 * tells whether it is to be sent. Returns 0, or a negative errno and ERR: it was not done. */
int backend_handle(struct vhost_backend *b, struct vhost_message *message,
                   struct vhost_message *reply, bool *replies, struct error *err);

/* ---- backend_queue.c ---- */

void backend_queue_init(struct vhost_backend *b, unsigned index);
void backend_queue_free(struct backend_queue *q);
/* Makes the queue live if it is to be served now, and ends that if not. -EBUSY: it stays enabled,
 * as the device holds requests that do not end. */
int backend_queue_update(struct backend_queue *q, struct error *err);
/* The front end's memory is elsewhere: finds the queue's areas again. */
int backend_queue_find(struct backend_queue *q, struct error *err);
/* Stops the queue; *BASE is where its next start begins. */
int backend_queue_stop(struct backend_queue *q, uint16_t *base, struct error *err);
/* Takes over FD, -1 for none. */
int backend_queue_set_kick(struct backend_queue *q, int fd, struct error *err);
void backend_queue_set_call(struct backend_queue *q, int fd);
void backend_queue_call(struct backend_queue *q);
/* Stops all queues, forgets how they were described, and resets the device. */
void backend_reset(struct vhost_backend *b);

/* ---- backend_memory.c ---- */

/* Replaces the front end's memory by what MESSAGE has. The device is paused. */
int backend_set_memory(struct vhost_backend *b, struct vhost_message *message, struct error *err);
void backend_drop_memory(struct vhost_backend *b);
/* Finds the guest physical address of what has the address USER in the front end. */
int backend_translate(const struct vhost_backend *b, uint64_t user, uint64_t *gpa,
                      struct error *err);
/* Makes a record of requests in flight: *FD is its file, which is the caller's. */
int backend_make_inflight(struct vhost_backend *b, struct vhost_inflight *inflight, int *fd,
                          struct error *err);
/* Uses the record in FD, which stays the caller's. */
int backend_set_inflight(struct vhost_backend *b, const struct vhost_inflight *inflight, int fd,
                         struct error *err);
void backend_drop_inflight(struct vhost_backend *b);

#endif
