/*
 * Reads and writes of a file by io_uring(7).
 */
#include "blk/file/uring.h"

#include "blk/inbox.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <liburing.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 128 /* requests that the kernel has at once */

struct uring {
    struct io_uring ring; /* the thread's alone, once it runs */
    uring_end *end;
    int fd;                  /* the disk's */
    uint64_t event_count;    /* where the kernel puts what it reads from the inbox's eventfd */
    bool listening;          /* the kernel has such a read */
    unsigned busy;           /* requests that the kernel has */
    struct blk_list waiting; /* those that it does not have yet */
    struct inbox inbox;

    pthread_t thread;
    sem_t enabled;
    int ret; /* of enabling the ring */
    struct where where;
};

/* The functions of liburing for this are missing in its shared library up to 2.3. */
static int register_it(struct uring *u, unsigned what, const void *items, unsigned count)
{
    return io_uring_register((unsigned)u->ring.ring_fd, what, items, count);
}

/* ---- The thread ---- */

/* Has the ring wake its thread when uring_kick writes to its event. */
static void listen_for_kicks(struct uring *u)
{
    struct io_uring_sqe *entry;

    if (u->listening || !(entry = io_uring_get_sqe(&u->ring)))
        return;
    io_uring_prep_read(entry, u->inbox.event, &u->event_count, sizeof(u->event_count), 0);
    io_uring_sqe_set_data(entry, NULL);
    u->listening = true;
}

/* Prepares the first requests for the kernel, as many as it may have. */
static void hand_over(struct uring *u)
{
    struct io_uring_sqe *entry;

    while (u->waiting.first && u->busy < ENTRIES && (entry = io_uring_get_sqe(&u->ring))) {
        struct blk_request *request = blk_list_take(&u->waiting);

        if (request->kind == BLK_READ)
            io_uring_prep_readv(entry, u->fd, request->iov, request->iovs, request->own.at);
        else
            io_uring_prep_writev(entry, u->fd, request->iov, request->iovs, request->own.at);
        io_uring_sqe_set_data(entry, request);
        u->busy++;
    }
}

static void take_results(struct uring *u)
{
    struct io_uring_cqe *result;

    while (io_uring_peek_cqe(&u->ring, &result) == 0) {
        struct blk_request *request = io_uring_cqe_get_data(result);
        int res = result->res;

        io_uring_cqe_seen(&u->ring, result);
        if (request) {
            u->busy--;
            u->end(request, res);
        } else {
            u->listening = false;
        }
    }
}

static void *serve(void *opaque)
{
    struct uring *u = opaque;

    u->ret = register_it(u, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    where_begin(&u->where);
    sem_post(&u->enabled);
    while (u->ret == 0 && inbox_take(&u->inbox, &u->waiting)) {
        listen_for_kicks(u);
        hand_over(u);
        /* The kernel has no memory: what it has not taken is offered again. */
        if (io_uring_submit_and_wait(&u->ring, 1) < 0)
            time_sleep_ns(NS_PER_MS);
        inbox_awake(&u->inbox);
        take_results(u);
    }
    where_end(&u->where);
    return NULL;
}

/* ---- Making it ---- */

/* Returns 0, or a negative errno if the kernel refuses rings. */
static int make_ring(struct io_uring *ring)
{
    /* What a ring of one thread can do without, and which kernels before 6.1 do not know. */
    static const unsigned extras[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0};
    int ret = -EINVAL;

    for (unsigned i = 0; i < ARRAY_SIZE(extras) && ret == -EINVAL; i++)
        ret = io_uring_queue_init(2 * ENTRIES, ring, IORING_SETUP_R_DISABLED | extras[i]);
    return ret;
}

static int restrict_ring(struct uring *u)
{
    static const uint8_t operations[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ};
    struct io_uring_restriction rules[ARRAY_SIZE(operations)];

    memset(rules, 0, sizeof(rules));
    for (unsigned i = 0; i < ARRAY_SIZE(operations); i++) {
        rules[i].opcode = IORING_RESTRICTION_SQE_OP;
        rules[i].sqe_op = operations[i];
    }
    return register_it(u, IORING_REGISTER_RESTRICTIONS, rules, ARRAY_SIZE(rules));
}

/* Starts the thread, which enables the ring: it is for whom the kernel keeps it. */
static int start(struct uring *u, struct error *err)
{
    int ret = thread_start(&u->thread, "blk ring", serve, u, err);

    if (ret < 0)
        return ret;
    while (sem_wait(&u->enabled) < 0)
        ;
    if (u->ret == 0)
        return 0;
    pthread_join(u->thread, NULL);
    return error_set(err, -u->ret, "io_uring cannot be enabled (%s)", strerror(-u->ret));
}

static void free_uring(struct uring *u)
{
    inbox_destroy(&u->inbox);
    sem_destroy(&u->enabled);
    free(u);
}

/* Makes the ring, which is not enabled yet. */
static int prepare(struct uring *u, struct error *err)
{
    int ret = make_ring(&u->ring);

    if (ret < 0)
        return error_set(err, -ret, "the host has no io_uring for it (%s)", strerror(-ret));
    ret = restrict_ring(u);
    if (ret == 0)
        return 0;
    io_uring_queue_exit(&u->ring);
    return error_set(err, -ret, "io_uring cannot be restricted (%s)", strerror(-ret));
}

struct uring *uring_create(int fd, uring_end *end, struct error *err)
{
    struct uring *u = calloc(1, sizeof(*u));
    int ret = u ? inbox_create(&u->inbox) : -ENOMEM;

    if (ret < 0) {
        error_set(err, -ret, "io_uring: %s", strerror(-ret));
        free(u);
        return NULL;
    }
    u->end = end;
    u->fd = fd;
    sem_init(&u->enabled, 0, 0);
    if (prepare(u, err) < 0) {
        free_uring(u);
        return NULL;
    }
    if (start(u, err) < 0) {
        io_uring_queue_exit(&u->ring);
        free_uring(u);
        return NULL;
    }
    return u;
}

void uring_destroy(struct uring *u)
{
    if (!u)
        return;
    inbox_end(&u->inbox);
    pthread_join(u->thread, NULL);
    io_uring_queue_exit(&u->ring);
    free_uring(u);
}

void uring_submit(struct uring *u, struct blk_request *request)
{
    inbox_put(&u->inbox, request);
}

void uring_kick(struct uring *u)
{
    inbox_kick(&u->inbox);
}

struct where *uring_where(struct uring *u)
{
    return &u->where;
}
