/*
 * A driver of disks that lie in memory.
 */
#include "memory.h"

#include "base/util.h"
#include "blk/driver.h"
#include "pattern.h"

#include <errno.h>
#include <stdlib.h>

#define BACKLOG 1024

struct waiting {
    struct blk_request *request;
    size_t number; /* of the event */
};

struct memory {
    struct blk blk;
    struct medium *medium;
    struct memory_options options;
    _Atomic uint64_t most;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows; no other is taken with it held but the medium's */
    pthread_cond_t changed;
    struct waiting waiting[BACKLOG];
    unsigned count;
    bool ending;
};

static struct memory *memory_of(struct blk *blk)
{
    return container_of(blk, struct memory, blk);
}

/* Whether the event of a request is noted; a read has none. */
static bool is_noted(const struct memory *m, const struct blk_request *r)
{
    return r->kind != BLK_READ && !(r->kind == BLK_FLUSH && m->options.lies);
}

static int begin(struct memory *m, struct blk_request *r, size_t *number)
{
    static const enum medium_kind kinds[] = {[BLK_WRITE] = MEDIUM_WRITE,
                                             [BLK_FLUSH] = MEDIUM_FLUSH,
                                             [BLK_DISCARD] = MEDIUM_ZEROES,
                                             [BLK_ZEROES] = MEDIUM_ZEROES};

    uint64_t most = atomic_load(&m->most);

    if (r->kind == BLK_WRITE && most && r->own.at + r->size > most)
        return -ENOSPC;
    if (is_noted(m, r))
        *number = medium_begin(m->medium, kinds[r->kind], r->own.at,
                               r->kind == BLK_FLUSH ? 0 : r->size, r->iov, r->iovs);
    return 0;
}

static void carry_out(struct memory *m, struct blk_request *r, size_t number)
{
    if (r->kind == BLK_READ)
        medium_read(m->medium, r->own.at, r->iov, r->iovs);
    else if (is_noted(m, r))
        medium_finish(m->medium, number);
}

static int memory_perform(struct blk *blk, struct blk_request *request)
{
    struct memory *m = memory_of(blk);
    size_t number = 0;
    int result = begin(m, request, &number);

    if (!result)
        carry_out(m, request, number);
    return result;
}

static void memory_submit(struct blk *blk, struct blk_request *request)
{
    struct memory *m = memory_of(blk);
    struct waiting waiting = {request, 0};
    int result;

    if (!m->options.threaded) {
        blk_complete(request, memory_perform(blk, request));
        return;
    }
    result = begin(m, request, &waiting.number);
    if (result) {
        blk_complete(request, result);
        return;
    }
    pthread_mutex_lock(&m->lock);
    if (m->count == BACKLOG)
        abort();
    m->waiting[m->count++] = waiting;
    pthread_cond_signal(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

/* Does what was submitted, one after the other, as chance wants. */
static void *serve(void *opaque)
{
    struct memory *m = opaque;

    pthread_mutex_lock(&m->lock);
    while (!m->ending || m->count) {
        struct waiting next;
        unsigned which;

        if (!m->count) {
            pthread_cond_wait(&m->changed, &m->lock);
            continue;
        }
        which = (unsigned)pattern_below(&m->options.seed, m->count);
        next = m->waiting[which];
        m->waiting[which] = m->waiting[--m->count];
        pthread_mutex_unlock(&m->lock);
        carry_out(m, next.request, next.number);
        blk_complete(next.request, 0);
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static int memory_resize(struct blk *blk, uint64_t size, struct error *err)
{
    struct memory *m = memory_of(blk);

    uint64_t most = atomic_load(&m->most);

    if (most && size > most && !m->options.sparse)
        return error_set(err, ENOSPC, "the test's disk is full");
    medium_finish(m->medium, medium_begin(m->medium, MEDIUM_RESIZE, 0, size, NULL, 0));
    return 0;
}

static void memory_close(struct blk *blk)
{
    struct memory *m = memory_of(blk);

    if (m->options.threaded) {
        pthread_mutex_lock(&m->lock);
        m->ending = true;
        pthread_cond_signal(&m->changed);
        pthread_mutex_unlock(&m->lock);
        pthread_join(m->thread, NULL);
    }
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->changed);
    if (m->options.owns)
        medium_destroy(m->medium);
    free(m);
}

static const struct blk_driver driver = {.submit = memory_submit,
                                         .perform = memory_perform,
                                         .resize = memory_resize,
                                         .close = memory_close};

struct blk *memory_open(struct medium *medium, const struct memory_options *options)
{
    struct memory *m = calloc(1, sizeof(*m));

    if (!m)
        abort();
    m->blk.driver = &driver;
    m->blk.info = (struct blk_info){.block = SECTOR,
                                    .optimal = SECTOR,
                                    .readonly = options->readonly,
                                    .discards = true,
                                    .zeroes = true,
                                    .format = "raw",
                                    .file = "memory"};
    m->blk.size = ALIGN_UP(medium_size(medium), SECTOR);
    m->medium = medium;
    m->options = *options;
    m->most = options->most;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, NULL);
    if (options->threaded && pthread_create(&m->thread, NULL, serve, m))
        abort();
    return &m->blk;
}

void memory_make_room(struct blk *blk)
{
    atomic_store(&memory_of(blk)->most, 0);
}
