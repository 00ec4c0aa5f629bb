/*
 * A disk that carries out its requests in a random order. A flush comes after what was done before
 * it was submitted anyway, since that is done.
 */
#include "blk_jumbled.h"

#include "blk/driver.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"

#include <pthread.h>
#include <stdlib.h>

#define THREADS 2
#define WAITING 64

struct jumbled {
    struct blk blk;
    struct blk *below;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct blk_request *waiting[WAITING];
    unsigned count;
    uint64_t random;
    bool ending;
    pthread_t thread[THREADS];
};

static uint64_t chance(struct jumbled *j, uint64_t below)
{
    j->random = j->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (j->random >> 33) % below;
}

/* How many microseconds a request waits: some a little, and a few so long that all others overtake.
 */
static unsigned lateness(struct jumbled *j)
{
    switch (chance(j, 64)) {
    case 0: return 4000;
    case 1:
    case 2:
    case 3:
    case 4: return (unsigned)chance(j, 300);
    default: return 0;
    }
}

static int carry_out(struct jumbled *j, const struct blk_request *request)
{
    struct blk_request copy = {.kind = request->kind,
                               .unmap = request->unmap,
                               .offset = request->own.at,
                               .size = request->size,
                               .iov = request->iov,
                               .iovs = request->iovs};

    return blk_perform(j->below, &copy);
}

static void *run(void *opaque)
{
    struct jumbled *j = opaque;

    pthread_mutex_lock(&j->lock);
    for (;;) {
        struct blk_request *request;
        unsigned i, late;

        while (!j->count && !j->ending)
            pthread_cond_wait(&j->changed, &j->lock);
        if (!j->count)
            break;
        i = (unsigned)chance(j, j->count);
        request = j->waiting[i];
        j->waiting[i] = j->waiting[--j->count];
        late = lateness(j);
        pthread_cond_broadcast(&j->changed);
        pthread_mutex_unlock(&j->lock);
        if (late)
            time_sleep_ns(late * 1000);
        blk_complete(request, carry_out(j, request));
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

static struct jumbled *of(struct blk *blk)
{
    return container_of(blk, struct jumbled, blk);
}

static void submit(struct blk *blk, struct blk_request *request)
{
    struct jumbled *j = of(blk);

    pthread_mutex_lock(&j->lock);
    while (j->count == WAITING)
        pthread_cond_wait(&j->changed, &j->lock);
    j->waiting[j->count++] = request;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

static int resize(struct blk *blk, uint64_t size, struct error *err)
{
    return blk_resize(of(blk)->below, size, err);
}

static void close_it(struct blk *blk)
{
    struct jumbled *j = of(blk);

    pthread_mutex_lock(&j->lock);
    j->ending = true;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(j->thread[i], NULL);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->lock);
    blk_close(j->below);
    free(j);
}

static const struct blk_driver jumbled_driver = {
    .submit = submit,
    .resize = resize,
    .close = close_it,
};

struct blk *jumbled_open(struct blk *below, uint64_t seed)
{
    struct jumbled *j = calloc(1, sizeof(*j));

    if (!j)
        return NULL;
    j->blk.driver = &jumbled_driver;
    j->blk.info = blk_info(below);
    j->blk.host = below->host;
    atomic_init(&j->blk.size, blk_info(below).size);
    j->below = below;
    j->random = seed;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        if (thread_start(&j->thread[i], "jumbled", run, j, NULL) < 0)
            abort();
    return &j->blk;
}
