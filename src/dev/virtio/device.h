/*
 * A virtio device without its transport (virtio 1.2, chapters 2 and 3): status, features, queues,
 * and how its queues are served.
 *
 *      vCPU: doorbell -----> virtio_notify --> workers_post
 *                                                  |
 *      worker, no lock:                      ops->serve, chain by chain --> transport's interrupt
 *                                                  |
 *      vCPU: registers, board lock <-- loop_post --'
 *
 * The loop carries out resets that had to wait, and marks a device whose driver has broken a rule.
 *
 * Registers belong to the board lock; a queue's ring belongs to the worker that serves it. Between
 * the two stands a lock of the device's own, taken after the board lock, which guards only whether
 * queues may be served. Nobody waits for a worker with the board lock held: a reset that finds one
 * at work is carried out when it has left, and until then the status does not read as 0.
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

#define VIRTIO_QUEUES_MAX 8
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

/* What a serve() returns in place of a number of bytes. */
#define VIRTIO_BROKEN (-1) /* a buffer is not memory, or the request breaks a rule */
#define VIRTIO_LATER                                                                               \
    (-2) /* Not now: the work is posted again at once, with the same                               \
          * chain. Not for waiting for the host: the worker would not rest. */

/* A kind of device. */
struct virtio_ops {
    const char *name;
    uint16_t id;           /* chapter 5 */
    uint64_t features;     /* of its own, beside those of all devices */
    unsigned queues;       /* 1 to VIRTIO_QUEUES_MAX */
    unsigned queue_size;   /* the most entries of each: a power of two */
    unsigned config_size;  /* bytes of device configuration; 0: there is none */
    const uint8_t *config; /* what the driver reads there; it cannot write */
    /* Serves one chain of QUEUE. On a worker, without locks. Returns how many bytes of the chain's
     * writable buffers were written, from the first on, VIRTIO_BROKEN or VIRTIO_LATER. Pins what it
     * touches and has unpinned it when it returns. */
    int64_t (*serve)(struct virtio_device *device, unsigned queue,
                     const struct virtqueue_chain *chain);
};

/* What a device needs of the machine. */
struct virtio_host {
    struct bus *bus; /* for the board lock */
    struct mem *mem;
    struct loop *loop;
    struct workers *workers;
    /* Signals CAUSE by VECTOR, or VIRTIO_NO_VECTOR. Any thread; the board lock may be held. */
    void (*interrupt)(void *opaque, enum virtio_cause cause, uint16_t vector);
    void *opaque;
};

struct virtio_queue {
    struct virtio_device *device;
    unsigned index;
    _Atomic uint16_t vector;
    /* Registers. They do not change while the queue is enabled. */
    struct virtqueue_config config;
    bool enabled;

    struct work work;
    struct virtqueue ring; /* the worker's, while the device is live */
};

struct virtio_device {
    const struct virtio_ops *ops;
    struct virtio_host host;
    struct loop_job job; /* runs virtio_settle */

    /* Registers: board lock. */
    uint8_t status;
    uint64_t driver_features;
    bool bus_master; /* may reach memory */
    _Atomic uint16_t config_vector;
    struct virtio_queue queue[VIRTIO_QUEUES_MAX];

    pthread_mutex_t lock; /* guards the rest */
    bool live;            /* queues are served */
    bool resetting;       /* the driver has asked for a reset that is not done yet */
    bool broken;          /* the driver has broken a rule; the status will say so */
    unsigned serving;     /* queues that are being served */
};

/* Before init, DEVICE may hold anything. */
int virtio_init(struct virtio_device *device, const struct virtio_ops *ops,
                const struct virtio_host *host, struct error *err);
void virtio_free(struct virtio_device *device); /* board lock not held */

/* As in struct dev_ops. While paused, nothing is served; the driver's requests stay in the rings
 * and are served after virtio_resume, here or wherever the state is restored. virtio_reset clears
 * at once and does not wait: the device is paused, or no worker has begun. */
void virtio_reset(struct virtio_device *device);
void virtio_state(struct virtio_device *device, struct state *s);
void virtio_pause(struct virtio_device *device);
void virtio_resume(struct virtio_device *device);

/* QUEUE (any number) may have new chains. Any thread; only posts. */
void virtio_notify(struct virtio_device *device, uint64_t queue);

/* The driver's accesses. Board lock held. */

uint64_t virtio_features(const struct virtio_device *device); /* offered */
void virtio_set_status(struct virtio_device *device, uint8_t value);
/* Whether the driver may write registers: not while a reset is under way. */
bool virtio_takes_writes(struct virtio_device *device);
/* Accepts these features; too late after FEATURES_OK. */
void virtio_set_features(struct virtio_device *device, uint64_t features);
/* Makes QUEUE ready to be served with the configuration that it has. */
void virtio_enable_queue(struct virtio_device *device, unsigned queue);
/* Whether the device may reach memory. A chain that is being served is served to its end. */
void virtio_set_bus_master(struct virtio_device *device, bool on);

#endif
