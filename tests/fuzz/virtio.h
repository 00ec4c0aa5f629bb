/*
 * What a fuzz target for a virtio device gives to the harness that all of them share (virtio.c),
 * beside what fuzz/dev.h is for any device.
 *
 * The harness is the machine around the device and its driver, good or bad: registers, rings,
 * chains, workers and jobs in any order. The device must survive every driver, and one that starts
 * it by the rules must be served.
 */
#ifndef DOPPEL_TESTS_FUZZ_VIRTIO_H
#define DOPPEL_TESTS_FUZZ_VIRTIO_H

#include "../unit/fake_lane.h"
#include "dev.h"
#include "dev/virtio/pci.h"

#define FUZZ_VIRTIO_QUEUES_MAX 8
#define FUZZ_VIRTIO_SIZE       4u       /* entries of each queue */
#define FUZZ_VIRTIO_DATA       0x20000u /* where most buffers are made to lie: 128 KiB */
#define FUZZ_VIRTIO_MEMORY     (1u << 20)

struct fuzz_virtio_machine {
    struct dev dev;
    struct bus *bus;
    struct mem *mem;
    struct loop *loop;
    struct workers *workers;
    struct pci_host *pci;
    struct dev *device;
};

struct fuzz_virtio {
    struct dev *(*create)(const struct virtio_slot *slot, struct error *err);
    unsigned queues;   /* that a driver starts; at most FUZZ_VIRTIO_QUEUES_MAX */
    uint64_t features; /* of its own, of which a driver may accept any */
    /* A good request or several, to a device that has just been started with the features that HOW
     * chooses; checks what comes of it. */
    void (*request)(struct fuzz_virtio_machine *m);
    /* Something that the host side does; may be NULL. Board lock held. */
    void (*host)(struct fuzz_virtio_machine *m, unsigned n, bool level);
    /* The device is about to be paused, which waits for what the host has: that ends. May be NULL.
     */
    void (*drain)(struct fuzz_virtio_machine *m);
    /* The host side becomes as it was at first; may be NULL. */
    void (*calm)(struct fuzz_virtio_machine *m);
};

extern const struct fuzz_virtio fuzz_virtio;

/* For request(): makes the Nth chain of a fresh QUEUE, of one descriptor (number N below
 * FUZZ_VIRTIO_SIZE), and has it served. Flags as in the descriptor; NEXT: N + 1 follows. */
void fuzz_virtio_descriptor(struct fuzz_virtio_machine *m, unsigned n, uint64_t gpa, uint32_t size,
                            unsigned flags);
void fuzz_virtio_publish(struct fuzz_virtio_machine *m, unsigned queue, unsigned index,
                         unsigned head);
/* How many chains of QUEUE were given back since it was started; with WRITTEN, that of the last. */
unsigned fuzz_virtio_used(struct fuzz_virtio_machine *m, unsigned queue, uint32_t *written);
uint8_t fuzz_virtio_status(struct fuzz_virtio_machine *m);

#endif
