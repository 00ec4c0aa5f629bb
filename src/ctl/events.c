/*
 * Queues of events.
 */
#include "ctl/events.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "ctl/sized.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ROOM 64 /* events that a queue keeps */

struct doppel_events {
    struct event_hub *hub;
    struct doppel_events *next;
    int fd;                 /* an eventfd, not 0 while there are events */
    pthread_cond_t changed; /* an event has come, or there will be none */
    struct doppel_event event[ROOM];
    unsigned first, count, lost;
    bool ended; /* the end has been taken */
};

void event_hub_init(struct event_hub *hub)
{
    pthread_mutex_init(&hub->lock, NULL);
}

static void queue_free(struct doppel_events *q)
{
    if (q->fd >= 0)
        close(q->fd);
    pthread_cond_destroy(&q->changed);
    free(q);
}

void event_hub_destroy(struct event_hub *hub)
{
    while (hub->first) {
        struct doppel_events *q = hub->first;

        hub->first = q->next;
        queue_free(q);
    }
    pthread_mutex_destroy(&hub->lock);
}

/* ---- Telling; the hub's lock is held ---- */

static void put(struct doppel_events *q, enum doppel_event_kind kind, uint64_t ns,
                enum doppel_log_level level, const char *text)
{
    struct doppel_event *event;

    if (q->count == ROOM) {
        q->first = (q->first + 1) % ROOM;
        q->count--;
        q->lost++;
    }
    event = &q->event[(q->first + q->count) % ROOM];
    *event = (struct doppel_event){.kind = kind, .ns = ns, .level = level};
    if (text)
        snprintf(event->text, sizeof(event->text), "%s", text);
    if (q->count++ == 0)
        eventfd_write(q->fd, 1);
    pthread_cond_broadcast(&q->changed);
}

void event_tell(struct event_hub *hub, enum doppel_event_kind kind, enum doppel_log_level level,
                const char *text)
{
    uint64_t ns;

    pthread_mutex_lock(&hub->lock);
    ns = time_now_ns(); /* under the lock, so that events are in order */
    if (!hub->ended)
        for (struct doppel_events *q = hub->first; q; q = q->next)
            put(q, kind, ns, level, text);
    if (kind == DOPPEL_EVENT_ENDED && !hub->ended) {
        hub->ended = true;
        hub->end_ns = ns;
    }
    pthread_mutex_unlock(&hub->lock);
}

/* ---- Queues ---- */

struct doppel_events *event_queue_open(struct event_hub *hub, struct error *err)
{
    struct doppel_events *q = calloc(1, sizeof(*q));

    if (!q) {
        error_set(err, ENOMEM, "no memory for a queue of events");
        return NULL;
    }
    thread_cond_init(&q->changed);
    q->hub = hub;
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0) {
        error_set(err, errno, "cannot create an eventfd: %s", strerror(errno));
        queue_free(q);
        return NULL;
    }
    pthread_mutex_lock(&hub->lock);
    if (hub->ended)
        put(q, DOPPEL_EVENT_ENDED, hub->end_ns, DOPPEL_LOG_ERROR, NULL);
    q->next = hub->first;
    hub->first = q;
    pthread_mutex_unlock(&hub->lock);
    return q;
}

int doppel_events_fd(const struct doppel_events *q)
{
    return q->fd;
}

/* Takes the oldest event, if there is one; the hub's lock is held. */
static int take(struct doppel_events *q, struct doppel_event *event)
{
    eventfd_t count;

    if (q->ended)
        return -ESHUTDOWN;
    if (q->count == 0)
        return -ETIMEDOUT;
    *event = q->event[q->first];
    event->lost = q->lost;
    q->lost = 0;
    q->first = (q->first + 1) % ROOM;
    if (--q->count == 0)
        eventfd_read(q->fd, &count);
    if (event->kind == DOPPEL_EVENT_ENDED) {
        q->ended = true;
        pthread_cond_broadcast(&q->changed); /* who still waits waits for nothing */
    }
    return 0;
}

int doppel_events_next_sized(struct doppel_events *q, int timeout_ms, struct doppel_event *event,
                             size_t size)
{
    struct timespec until = time_spec(time_now_ns() + (uint64_t)MAX(timeout_ms, 0) * NS_PER_MS);
    struct doppel_event taken;
    int ret, late = 0;

    pthread_mutex_lock(&q->hub->lock);
    while ((ret = take(q, &taken)) == -ETIMEDOUT && !late && timeout_ms)
        late = timeout_ms < 0 ? pthread_cond_wait(&q->changed, &q->hub->lock)
                              : pthread_cond_timedwait(&q->changed, &q->hub->lock, &until);
    pthread_mutex_unlock(&q->hub->lock);
    if (ret == 0)
        sized_copy_out(event, size, &taken, sizeof(taken));
    return ret;
}

void doppel_events_close(struct doppel_events *q)
{
    struct doppel_events **link;

    if (!q)
        return;
    pthread_mutex_lock(&q->hub->lock);
    for (link = &q->hub->first; *link != q; link = &(*link)->next)
        ;
    *link = q->next;
    pthread_mutex_unlock(&q->hub->lock);
    queue_free(q);
}
