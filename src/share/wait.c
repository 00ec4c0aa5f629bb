/*
 * Requests that wait for a lock.
 */
#include "base/time.h"
#include "base/thread.h"
#include "base/where.h"
#include "share/lock.h"
#include "share/operation.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define FIRST_MS 1
#define MOST_MS  20
/* More at once are refused. */
#define WAITS_MOST 4096

struct wait {
    struct wait *next;
    struct share *share;
    struct share_request *request;
    uint64_t unique;
    struct share_lock lock;
    bool tried;   /* in this round */
    bool trying;  /* by the thread, without the lock */
    int end_with; /* when the thread has tried: 0, -EINTR or -ECANCELED */
};

struct share_waits {
    pthread_mutex_t lock; /* a leaf, which guards the rest */
    pthread_cond_t changed;
    struct wait *first, **last;
    unsigned count;
    _Atomic unsigned recalls; /* changes with the lock */
    bool kicked, stop, started;
    pthread_t thread;
    struct where where;
};

struct share_waits *share_waits_create(void)
{
    struct share_waits *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->last = &w->first;
    pthread_mutex_init(&w->lock, NULL);
    thread_cond_init(&w->changed);
    return w;
}

void share_waits_destroy(struct share_waits *w)
{
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* Takes out what is in the list. With the lock. */
static void unlist(struct share_waits *w, struct wait *wait)
{
    struct wait **link = &w->first;

    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
    if (w->last == &wait->next)
        w->last = link;
    w->count--;
}

/* Completes the request of WAIT, which is in no list. */
static void finish(struct wait *wait, int result)
{
    struct share *s = wait->share;

    if (result == 0)
        share_lock_tell(s, wait->request, &wait->lock);
    share_holder_drop(s, wait->lock.holder);
    share_handle_drop(s, wait->lock.handle);
    share_node_drop(s, wait->lock.node);
    if (result == -ECANCELED)
        wait->request->done(wait->request, -ECANCELED);
    else
        share_answer(wait->request, wait->unique, result, NULL, 0);
    free(wait);
}

/* ---- The thread ---- */

/* Tries all that wait once. With the lock, which is let go meanwhile. */
static void try_all(struct share_waits *w)
{
    struct wait *wait;

    for (wait = w->first; wait; wait = wait->next)
        wait->tried = false;
    for (wait = w->first; wait;) {
        int result;

        if (wait->tried) {
            wait = wait->next;
            continue;
        }
        wait->tried = wait->trying = true;
        pthread_mutex_unlock(&w->lock);
        result = share_lock_try(wait->share, &wait->lock);
        pthread_mutex_lock(&w->lock);
        wait->trying = false;
        if (result == -EAGAIN)
            result = wait->end_with ? wait->end_with : -EAGAIN;
        if (result == -EAGAIN)
            continue;
        unlist(w, wait);
        pthread_mutex_unlock(&w->lock);
        finish(wait, result);
        pthread_mutex_lock(&w->lock);
        wait = w->first;
    }
}

static void sleep_for(struct share_waits *w, unsigned ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * NS_PER_MS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!w->kicked && !w->stop)
        if (pthread_cond_timedwait(&w->changed, &w->lock, &until) == ETIMEDOUT)
            break;
}

static void *run(void *opaque)
{
    struct share_waits *w = opaque;
    unsigned ms = FIRST_MS;

    where_begin(&w->where);
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (!w->first) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        if (w->kicked)
            ms = FIRST_MS;
        w->kicked = false;
        try_all(w);
        sleep_for(w, ms);
        ms = ms * 2 > MOST_MS ? MOST_MS : ms * 2;
    }
    pthread_mutex_unlock(&w->lock);
    where_end(&w->where);
    return NULL;
}

/* ---- Waiting ---- */

static int start(struct share_waits *w)
{
    if (!w->started)
        w->started = thread_start(&w->thread, "share locks", run, w, NULL) == 0;
    return w->started ? 0 : -ENOMEM;
}

int share_wait(struct share *s, struct share_request *request, uint64_t unique,
               const struct share_lock *lock)
{
    struct share_waits *w = s->waits;
    struct wait *wait = calloc(1, sizeof(*wait));
    int ret;

    if (!wait)
        return -ENOMEM;
    *wait = (struct wait){.share = s, .request = request, .unique = unique, .lock = *lock};
    pthread_mutex_lock(&w->lock);
    ret = request->recalls != atomic_load(&w->recalls) ? -ECANCELED
          : w->count == WAITS_MOST                     ? -ENOLCK
                                                       : start(w);
    if (ret == 0) {
        *w->last = wait;
        w->last = &wait->next;
        w->count++;
        w->kicked = true;
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    if (ret < 0)
        free(wait);
    return ret;
}

void share_waits_kick(struct share_waits *w)
{
    pthread_mutex_lock(&w->lock);
    w->kicked = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* Ends WAIT with RESULT, or has the thread do so if it is at it. With the lock. Returns WAIT if it
 * is left to the caller to finish it. */
static struct wait *end(struct share_waits *w, struct wait *wait, int result)
{
    if (wait->trying) {
        wait->end_with = result;
        return NULL;
    }
    unlist(w, wait);
    return wait;
}

bool share_wait_interrupt(struct share *s, uint64_t unique)
{
    struct share_waits *w = s->waits;
    struct wait *wait;
    bool found;

    pthread_mutex_lock(&w->lock);
    for (wait = w->first; wait && wait->unique != unique;)
        wait = wait->next;
    found = wait;
    if (wait)
        wait = end(w, wait, -EINTR);
    pthread_mutex_unlock(&w->lock);
    if (wait)
        finish(wait, -EINTR);
    return found;
}

unsigned share_waits_recalls(const struct share_waits *w)
{
    return atomic_load(&w->recalls);
}

void share_waits_end(struct share_waits *w, int result)
{
    struct wait *wait, *next, *ended = NULL;

    pthread_mutex_lock(&w->lock);
    if (result == -ECANCELED)
        atomic_fetch_add(&w->recalls, 1);
    for (wait = w->first; wait; wait = next) {
        next = wait->next;
        wait = end(w, wait, result);
        if (wait) {
            wait->next = ended;
            ended = wait;
        }
    }
    pthread_mutex_unlock(&w->lock);
    for (; ended; ended = next) {
        next = ended->next;
        finish(ended, result);
    }
}

struct where *share_waits_where(struct share_waits *w)
{
    struct where *where;

    pthread_mutex_lock(&w->lock);
    where = w->started ? &w->where : NULL;
    pthread_mutex_unlock(&w->lock);
    return where;
}
