/*
 * A driver of a virtio device that has several queues, for tests: each queue has 8 descriptors, and
 * each chain is one buffer. Workers run when the test says so (fake_lane.h).
 */
#ifndef DOPPEL_TESTS_UNIT_VIRTIO_QUEUES_H
#define DOPPEL_TESTS_UNIT_VIRTIO_QUEUES_H

#include "fake_lane.h"
#include "virtio_rig.h"

#define QRIG_SIZE  8u       /* of a queue */
#define QRIG_MOST  8u       /* queues */
#define QRIG_RINGS 0x10000u /* the first queue's rings; each has 4 KiB */

struct qrig {
    struct vrig *v;
    unsigned queues;
    struct rig_queue queue[QRIG_MOST];
};

/* A set-up of cmocka's for a device with so many QUEUES; CREATE as for vrig_create. */
static inline int
qrig_set_up(void **state, struct dev *(*create)(const struct virtio_slot *slot, struct error *err),
            unsigned queues)
{
    struct qrig *f = calloc(1, sizeof(*f));

    assert_true(queues <= QRIG_MOST);
    f->queues = queues;
    f->v = vrig_create(create, NULL, 1);
    *state = f;
    return 0;
}

static inline int qrig_tear_down(void **state)
{
    struct qrig *f = *state;

    vrig_destroy(f->v);
    free(f);
    return 0;
}

static inline void qrig_run(struct qrig *f)
{
    fake_lane_run(f->v->workers, f->v->loop);
}

/* Resets the device and starts it with all of its queues. */
static inline void qrig_start(struct qrig *f, uint64_t features)
{
    vrig_enable(f->v);
    vrig_write(f->v, VRIG_STATUS, 1, 0);
    qrig_run(f);
    assert_true(vrig_negotiate(f->v, features));
    for (unsigned i = 0; i < f->queues; i++) {
        vrig_set_queue_number(f->v, i, rig_layout(QRIG_RINGS + 0x1000 * i, QRIG_SIZE));
        f->queue[i] = f->v->queue;
    }
    vrig_write(f->v, VRIG_STATUS, 1, 15);
    qrig_run(f);
}

static inline void qrig_notify(struct qrig *f, unsigned queue)
{
    vrig_write(f->v, VRIG_NOTIFY + 4 * queue, 2, 0);
    qrig_run(f);
}

/* The number of the descriptor that the next chain of QUEUE has. */
static inline unsigned qrig_next(const struct qrig *f, unsigned queue)
{
    return f->queue[queue].available % QRIG_SIZE;
}

/* Makes a chain of one buffer available. FLAGS: 0, or RIG_WRITE if the device is to write to it. */
static inline void qrig_give(struct qrig *f, unsigned queue, uint64_t gpa, uint32_t size,
                             unsigned flags)
{
    unsigned n = qrig_next(f, queue);

    rig_descriptor(&f->queue[queue], n, gpa, size, (uint16_t)flags, 0);
    rig_publish(&f->queue[queue], (uint16_t)n);
    qrig_notify(f, queue);
}

/* Pauses the device and goes on, as OTHER, with a new one that CREATE makes in the same memory. The
 * caller destroys OTHER's rig. */
static inline void qrig_move(struct qrig *f, struct qrig *other,
                             struct dev *(*create)(const struct virtio_slot *slot,
                                                   struct error *err))
{
    f->v->dev->ops->pause(f->v->dev);
    *other = *f;
    other->v = vrig_create(create, f->v->mem, 1);
    other->v->dev->ops->pause(other->v->dev);
    assert_int_equal(rig_copy_state(f->v->rig, f->v->dev, other->v->dev), 0);
    other->v->dev->ops->resume(other->v->dev);
    qrig_run(other);
}

#endif
