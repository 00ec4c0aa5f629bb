/*
 * Inside the block device: shared by block.c (the device and its registers), block_request.c (what
 * becomes of a request) and block_space.c (requests that wait for space on the host's disk).
 */
#ifndef DOPPEL_DEV_VIRTIO_BLOCK_PRIVATE_H
#define DOPPEL_DEV_VIRTIO_BLOCK_PRIVATE_H

#include "dev/virtio/block.h"

#include <pthread.h>
#include <stdatomic.h>

#define BLOCK_SECTOR        512u
#define BLOCK_QUEUE         256u       /* entries of a queue, and so the most buffers of a chain */
#define BLOCK_RANGES        32u        /* of a discard, at most */
#define BLOCK_ZEROES_RANGES 1u         /* of a write-zeroes request, at most */
#define BLOCK_RANGE_MOST    (4u << 20) /* sectors of a range: the host may take long for more */

/* Features (5.2.3), as numbers of bits. */
enum block_feature {
    BLOCK_F_SEG_MAX = 2,
    BLOCK_F_RO = 5,
    BLOCK_F_BLK_SIZE = 6,
    BLOCK_F_FLUSH = 9,
    BLOCK_F_TOPOLOGY = 10,
    BLOCK_F_CONFIG_WCE = 11,
    BLOCK_F_MQ = 12,
    BLOCK_F_DISCARD = 13,
    BLOCK_F_WRITE_ZEROES = 14,
};

/* A range of a discard or a write-zeroes request, as it stands in its buffers (5.2.6). */
struct block_range {
    uint64_t sector;
    uint32_t sectors, flags;
};

/* What the device notes of a request. It is done in steps: as much as can be pinned at once, or a
 * range. */
struct block_request {
    struct virtio_request *request; /* the frame's; this lies behind it */
    struct virtio_block *block;
    struct block_request *next; /* among those that wait for space */
    bool wants_space;           /* the host had no space for it */
    bool flushing;              /* written through: the last step, a flush, is under way */

    uint64_t offset; /* on the disk, where the next step begins, in bytes */
    uint64_t at;     /* in the chain's buffers */
    uint64_t left;   /* bytes to go */
    unsigned range;  /* the next one */
    unsigned ranges;

    struct blk_request io; /* the step that is under way */
    int result;
    _Atomic unsigned parties; /* of a step: who submits it, and done() */
    struct virtio_map map;
    struct block_range list[BLOCK_RANGES];
    struct iovec iov[BLOCK_QUEUE];
    struct mem_pin pin[BLOCK_QUEUE];
};

/* Requests for which the host has no space. */
struct block_space {
    pthread_mutex_t lock;
    struct block_request *first, **last; /* they wait */
    unsigned wanting; /* requests with WANTS_SPACE: those that wait, and those tried again */
};

struct virtio_block {
    struct virtio_device device; /* first */
    struct dev *dev;
    struct virtio_block_config config;
    char serial[VIRTIO_BLOCK_SERIAL_MAX];
    struct blk_info info; /* of config.blk, but for the size: */
    _Atomic uint64_t size;
    bool driver_caches;         /* what the driver has written into the configuration */
    _Atomic bool write_through; /* a write is on stable storage when it is completed */
    pthread_mutex_t resizing;   /* held while the disk changes its size */
    struct block_space space;
    struct work retry;
};

/* block_space.c. The lock is held while the machine is told to stand still or to go on, so that it
 * is told in the order in which requests begin and end to wait. */
void block_space_init(struct block_space *space);
void block_space_free(struct block_space *space);
/* Notes that the host has no space for R. False: it must not wait, because the device is recalled.
 */
bool block_space_await(struct block_request *r);
/* R is about to be completed, or given back (GONE). */
void block_space_leave(struct block_request *r, bool gone);
/* Takes the requests that wait, to be tried again or given back. A list, or NULL. */
struct block_request *block_space_take(struct virtio_block *b);

/* block_request.c */
enum virtio_result block_serve(struct virtio_device *device, struct virtio_request *request);
void block_served(struct virtio_device *device, unsigned queue);
void block_recall(struct virtio_device *device);
/* Tries requests again that wait for space; OPAQUE is the struct virtio_block. */
void block_try_again(void *opaque);

#endif
