/*
 * A virtio device without its transport (virtio 1.2, chapters 2 and 3): status, features,
 * configuration, queues, and how its queues are served. This code (device.c and serve.c), which all
 * kinds of devices share, is called **the frame**; what a kind adds are its struct virtio_ops.
 *
 *      vCPU: doorbell -----> virtio_notify --> workers_post
 *                                                  |
 *      worker, no lock:                   ops->serve, request by request
 *                                                  |
 *      any thread, now or later:          virtio_complete --> used ring --> transport's interrupt
 *                                                  |
 *      vCPU: registers, board lock <-- loop_post --'   resets that had to wait, broken drivers
 *
 * A **request** is a chain of buffers while the device has it: from serve() until the device
 * completes it or gives it back. What is given back, or could not be served yet, is **held**: the
 * frame keeps the chain's head, serves it again later, and saves it with the device's state. So a
 * device is paused and saved with requests in flight:
 *
 *      available ring --serve()--> in flight --virtio_complete--> used ring
 *                          ^          |
 *                          |          '-- virtio_give_back, VIRTIO_WAIT, VIRTIO_NO_PINS
 *                        held <-------'
 *
 * Locks. Registers belong to the board lock. Each queue has a lock, taken after it, for its used
 * ring and its requests; the device's own, taken after the queues', guards only whether queues may
 * be served. No thread waits for a worker or a request with the board lock held: a reset that finds
 * some is carried out when they are done, and until then the status does not read as 0.
 */
#ifndef DOPPEL_DEV_VIRTIO_DEVICE_H
#define DOPPEL_DEV_VIRTIO_DEVICE_H

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"
#include "base/workers.h"
#include "bus/bus.h"
#include "dev/virtio/queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_QUEUES_MAX 32
#define VIRTIO_CONFIG_MAX 256 /* bytes of device configuration */
#define VIRTIO_NO_VECTOR  0xFFFF

/* Device status (2.1). */
enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 0x01,
    VIRTIO_DRIVER = 0x02,
    VIRTIO_DRIVER_OK = 0x04,
    VIRTIO_FEATURES_OK = 0x08,
    VIRTIO_NEEDS_RESET = 0x40,
    VIRTIO_FAILED = 0x80,
};

/* Features of all devices (chapter 6), as numbers of bits. */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32

/* Why a device interrupts: the bits of the ISR status (4.1.4.5). */
enum virtio_cause { VIRTIO_CAUSE_QUEUE = 1, VIRTIO_CAUSE_CONFIG = 2 };

struct virtio_device;
struct virtio_queue;

/* ---- Requests ---- */

/* The frame allocates it, and behind it ops->request_size bytes for the device. */
struct virtio_request {
    _Alignas(16) struct virtio_queue *queue;
    struct virtqueue_chain
        chain; /* its buffers are the request's own: the guest cannot change them */

    /* The frame's. */
    struct virtio_request *next; /* among those that are not in use */
    struct virtqueue_buffer *buffers;
    unsigned room;     /* elements of BUFFERS */
    uint64_t sequence; /* in which order the queue's chains were taken */
};

/* The device's own part of a request: ops->request_size bytes, aligned to 16, which hold whatever
 * the last request has left there (at first zeros). */
static inline void *virtio_request_data(struct virtio_request *request)
{
    return request + 1;
}

/* What serve() has done with a request. */
enum virtio_result {
    VIRTIO_TAKEN,   /* the device has it, or has completed it already */
    VIRTIO_WAIT,    /* not now: it is held, and the queue rests until virtio_wake */
    VIRTIO_NO_PINS, /* the same, until something is unpinned: what -EAGAIN of virtio_map means */
    VIRTIO_BROKEN,  /* the driver broke a rule: the device needs a reset */
};

/* Gives the chain to the driver, of whose writable buffers the first WRITTEN bytes were written.
 * All pins of the request are released. Any thread, with any lock held but the frame's; REQUEST is
 * no longer the device's. */
void virtio_complete(struct virtio_request *request, uint32_t written);
/* The same for COUNT requests (at least one) of one queue, at once: the driver finds all of them in
 * its used ring, in this order, or none. */
struct virtio_completion {
    struct virtio_request *request;
    uint32_t written;
};
void virtio_complete_all(const struct virtio_completion *completions, unsigned count);
/* Has the chain held, to be served from the beginning: after virtio_wake, or when the queue is next
 * served. The rest as for virtio_complete. */
void virtio_give_back(struct virtio_request *request);
/* Ends the request without giving the chain to the driver, because the driver broke a rule. */
void virtio_break(struct virtio_request *request);

/* In serve(), for a device that puts one thing into several chains: takes another chain of the
 * queue that is being served. Returns 1, 0 if there is none, or VIRTQUEUE_BROKEN: the driver broke
 * a rule. If there is none, serve() may return VIRTIO_WAIT for the first one, after it has given
 * back the others: all of them are then served again when there is another, or after virtio_wake.
 */
int virtio_take_more(struct virtio_queue *queue, struct virtio_request **request);

/* Part of a chain that is pinned. The device provides room for it: PIN and IOV have ROOM elements
 * each; the rest is virtio_map's. */
struct virtio_map {
    struct mem_pin *pin;
    struct iovec *iov;
    unsigned room;

    unsigned pins, iovs;
    uint64_t size; /* bytes */
};

/* Pins, of the chain's readable (MEM_READ) or writable (MEM_WRITE) buffers, what begins at OFFSET,
 * MOST bytes of it or fewer: as much as ROOM and the limit of pins allow. MAP->size is 0 only if
 * nothing is left there. May block; no lock held. 0; -EFAULT: a buffer is not memory; -EAGAIN:
 * nothing can be pinned now. A device that has pins does not wait for more. */
int virtio_map(struct virtio_request *request, enum mem_access part, uint64_t offset, uint64_t most,
               struct virtio_map *map);
/* What was written is then in the dirty log: before the request is completed. Any thread. */
void virtio_unmap(struct virtio_request *request, struct virtio_map *map);
/* VIRTIO_NO_PINS or VIRTIO_BROKEN, for an error of virtio_map. */
enum virtio_result virtio_map_failed(int error);

/* Copy SIZE bytes at OFFSET out of the readable buffers, or into the writable ones. May block; no
 * lock held. 0, or -EFAULT if there are fewer, or the buffers are not memory: then part of it may
 * be copied. */
int virtio_read_at(struct virtio_request *request, uint64_t offset, void *data, uint64_t size);
int virtio_write_at(struct virtio_request *request, uint64_t offset, const void *data,
                    uint64_t size);

/* ---- A kind of device ---- */

/* All but SERVE may be NULL. */
struct virtio_ops {
    const char *name;
    uint16_t id;           /* chapter 5 */
    uint64_t features;     /* of its own, beside those of all devices */
    unsigned queues;       /* 1 to VIRTIO_QUEUES_MAX: the most; see struct virtio_device */
    unsigned queue_size;   /* the most entries of each: a power of two */
    unsigned config_size;  /* bytes of device configuration; 0: there is none */
    unsigned request_size; /* bytes of the device's own in each request */
    bool keeps_buffers;    /* chains wait for something that may never come, as frames do */
    unsigned
        queues_each; /* queues that vhost-user counts as one; 0: 1. What is left is not counted */

    /* On a worker, without locks. One thread at a time for each queue. */
    enum virtio_result (*serve)(struct virtio_device *device, struct virtio_request *request);
    /* The end of a batch: serve() has been called for QUEUE, and for now is not called again. On
     * the same thread. */
    void (*served)(struct virtio_device *device, unsigned queue);
    /* The machine is about to pause, or the driver to reset the device: the device completes what
     * it has, or gives it back, soon. It may do so in here. It must not wait: in a reset the board
     * lock is held. virtio_recalled() says so since before the call; what the device does with a
     * request in several steps stops there. */
    void (*recall)(struct virtio_device *device);

    /* Board lock held for all of these. */

    /* Fills in all CONFIG_SIZE bytes of CONFIG, as the driver reads it. */
    void (*read_config)(struct virtio_device *device, void *config);
    /* The driver has written SIZE bytes at OFFSET, which are in place in CONFIG. */
    void (*write_config)(struct virtio_device *device, const void *config, unsigned offset,
                         unsigned size);
    /* Device and driver have agreed on FEATURES. Also after a restore. */
    void (*accepted)(struct virtio_device *device, uint64_t features);
    /* To the state before a driver has come, also when the device is made. Nothing is in flight. */
    void (*reset)(struct virtio_device *device);
    /* Visits what is the device's own, in the section that is open. Nothing is in flight. */
    void (*state)(struct virtio_device *device, struct state *s);

    /* Over vhost-user, where there is no control queue: the driver uses the first QUEUES queues. */
    void (*uses)(struct virtio_device *device, unsigned queues);

    /* The device is about to be freed, or could not be made; nothing is in flight and nothing is
     * served any more. Afterwards none of the device's own threads and callbacks calls the frame.
     * No lock. */
    void (*close)(struct virtio_device *device);
    /* Frees the device, which the kind has allocated. No lock. */
    void (*free)(struct virtio_device *device);
};

/* Who keeps a record of a queue's chains, by their heads, that outlives the process. */
struct virtio_recorder {
    /* A chain was taken off the available ring for the first time. On a worker, no lock. */
    void (*taken)(void *opaque, unsigned queue, uint16_t head);
    /* A chain is about to be put into the used ring; and was: the ring's index is INDEX now. The
     * queue's lock is held. */
    void (*giving)(void *opaque, unsigned queue, uint16_t head);
    void (*given)(void *opaque, unsigned queue, uint16_t head, uint16_t index);
};

/* What a device needs of the machine. */
struct virtio_host {
    struct bus *bus; /* for the board lock */
    struct mem *mem;
    struct loop *loop;
    struct workers *workers;
    /* Signals CAUSE by VECTOR, or VIRTIO_NO_VECTOR. Any thread, with any lock held. */
    void (*interrupt)(void *opaque, enum virtio_cause cause, uint16_t vector);
    const struct virtio_recorder *recorder; /* NULL: there is none */
    void *opaque;                           /* for both */
};

/* A chain that the frame keeps for the device. */
struct virtio_held {
    uint64_t sequence;
    uint16_t head;
};

struct virtio_queue {
    struct virtio_device *device;
    unsigned index;
    _Atomic uint16_t vector;
    /* Registers: board lock. They do not change while the queue is enabled. */
    struct virtqueue_config config;
    bool enabled; /* changes with the device's lock held, too */

    struct work work;
    struct mem_pin_waiter pin_waiter;
    _Atomic bool waits_for_pins; /* PIN_WAITER has been used and has not been called */
    struct virtqueue ring;

    pthread_mutex_t lock;
    /* Guarded by it; of RING, what completes. */
    bool serving;     /* a worker is at it */
    bool open;        /* RING is */
    bool busy;        /* counts in device->busy */
    pthread_t worker; /* while SERVING */
    unsigned in_flight;
    unsigned completing; /* threads that are about to interrupt */
    uint8_t *requests;   /* ops->queue_size of them, each of device->request_stride bytes */
    unsigned fresh;      /* from this one on they were never used */
    struct virtio_request *unused;
    struct virtio_held *held; /* by rising sequence */
    unsigned held_count;
    uint64_t sequence;
};

/* A device embeds it as its first member. Zero at first, but for FEATURES and QUEUES, which the
 * kind may set before virtio_init. */
struct virtio_device {
    uint64_t features; /* offered beside ops->features */
    unsigned queues;   /* how many there are; 0 stands for ops->queues */

    const struct virtio_ops *ops;
    struct virtio_host host;
    struct loop_job job; /* runs apply_status() in device.c */
    size_t request_stride;

    /* Registers: board lock. */
    uint8_t status, generation;
    uint64_t driver_features;
    bool bus_master;     /* may reach memory */
    bool config_changed; /* while paused: the driver has not been told */
    _Atomic uint16_t config_vector;
    struct virtio_queue *queue;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t idle;  /* BUSY is 0 */
    bool live;            /* queues are served */
    bool paused;
    bool stopping;         /* the machine is about to pause, is paused, or ends */
    bool resetting;        /* the driver has asked for a reset that is not done yet */
    _Atomic bool recalled; /* one of these two; changes with the lock held, and with them */
    bool broken;           /* the driver has broken a rule; the status will say so */
    unsigned busy;         /* queues that are being served, or have requests in flight */
};

/* ---- For the kind of device ---- */

/* QUEUE has what serve() waited for. Any thread, with any lock held. */
void virtio_wake(struct virtio_device *device, unsigned queue);
/* Whether requests in flight are to end or to be given back soon. It stays so until none is in
 * flight. Any thread. */
bool virtio_recalled(const struct virtio_device *device);
/* The device configuration has changed. Board lock held, since before the change. */
void virtio_config_changed(struct virtio_device *device);
/* Whether the driver has accepted the feature with this number. Board lock held, or in serve(). */
bool virtio_accepted(const struct virtio_device *device, unsigned feature);

/* ---- For the transport ---- */

/* On failure DEVICE stays the caller's, and is as before. */
int virtio_init(struct virtio_device *device, const struct virtio_ops *ops,
                const struct virtio_host *host, struct error *err);
/* Board lock not held. All requests end first. The kind's free() is not called. */
void virtio_finish(struct virtio_device *device);

/* As in struct dev_ops. While paused, nothing is served and nothing is in flight. virtio_reset
 * clears at once and does not wait: the device is paused, or no worker has begun. */
void virtio_reset(struct virtio_device *device);
/* VERSION: of the section. 1 had no held chains. */
void virtio_state(struct virtio_device *device, struct state *s, uint32_t version);
void virtio_pause(struct virtio_device *device);
void virtio_resume(struct virtio_device *device);

/* QUEUE (any number) may have new chains. Any thread; only posts. */
void virtio_notify(struct virtio_device *device, uint64_t queue);

/* Has the queue, which is not served yet, hold a chain that was taken before and not given back.
 * Returns false, and it is not held, if HEAD is none of the queue or there are more than it has
 * entries. */
bool virtio_queue_hold(struct virtio_queue *queue, uint16_t head);
/* Forgets all chains that the device had. Nothing is in flight. */
void virtio_queue_forget(struct virtio_queue *queue);

/* The driver's accesses. Board lock held. */

uint64_t virtio_features(const struct virtio_device *device); /* offered */
void virtio_set_status(struct virtio_device *device, uint8_t value);
/* Whether the driver may write registers: not while a reset is under way. */
bool virtio_takes_writes(struct virtio_device *device);
/* Accepts these features; too late after FEATURES_OK. */
void virtio_set_features(struct virtio_device *device, uint64_t features);
/* Makes QUEUE ready to be served with the configuration that it has. */
void virtio_enable_queue(struct virtio_device *device, unsigned queue);
/* Whether the device may reach memory. What is in flight goes on to its end. */
void virtio_set_bus_master(struct virtio_device *device, bool on);
/* SIZE bytes (at most 4) of the device configuration; what is outside of it reads as 0. */
uint32_t virtio_read_config(struct virtio_device *device, uint64_t offset, unsigned size);
void virtio_write_config(struct virtio_device *device, uint64_t offset, unsigned size,
                         uint32_t value);

#endif
