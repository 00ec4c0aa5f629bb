/*
 * The event loop: an epoll(7) set, a queue of jobs, and the thread that waits for both.
 *
 * Epoll reports a watch by its number, never by its address: a number is looked up under the lock,
 * so an event that was reported just before its watch went away finds nothing and is dropped.
 */
#include "base/loop.h"

#include "base/thread.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WAKE_ID 0 /* the number of wake_fd, which is no watch */

struct loop_watch {
    struct loop *loop;
    struct loop_watch *next;
    uint64_t id;
    int fd;
    uint32_t events; /* 0: not in the epoll set */
    loop_cb *cb;
    void *opaque;
};

struct loop {
    int epoll_fd, wake_fd;
    pthread_t thread;
    struct where where;
    bool started;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t idle;  /* a callback has returned */
    struct loop_watch *watches;
    uint64_t last_id;
    uint64_t calling;         /* the watch whose callback runs, or WAKE_ID */
    struct fifo jobs;         /* that are posted */
    struct loop_job *running; /* the job whose function runs, or NULL */
    pthread_t caller;         /* the loop's thread, valid while it calls */
    bool stopping;
};

struct loop *loop_create(struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop) {
        error_set(err, ENOMEM, "event loop: out of memory");
        return NULL;
    }
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->idle, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE_ID};
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
        error_set(err, errno, "event loop: %s", strerror(errno));
        loop_destroy(loop);
        return NULL;
    }
    return loop;
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    loop_stop(loop);
    while (loop->watches) {
        struct loop_watch *watch = loop->watches;
        loop->watches = watch->next;
        free(watch);
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    pthread_cond_destroy(&loop->idle);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static struct loop_watch **find(struct loop *loop, uint64_t id)
{
    struct loop_watch **link = &loop->watches;
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    return link;
}

/* Calls back for one reported event. EVENTS that the watch no longer asks for are dropped. */
static void dispatch(struct loop *loop, uint64_t id, uint32_t events)
{
    pthread_mutex_lock(&loop->lock);
    struct loop_watch *watch = *find(loop, id);
    if (watch && watch->events)
        events &= watch->events | EPOLLERR | EPOLLHUP;
    else
        events = 0;
    if (events) {
        loop_cb *cb = watch->cb;
        void *opaque = watch->opaque;
        loop->calling = id;
        loop->caller = pthread_self();
        pthread_mutex_unlock(&loop->lock);
        cb(opaque, events);
        pthread_mutex_lock(&loop->lock);
        loop->calling = WAKE_ID;
        pthread_cond_broadcast(&loop->idle);
    }
    pthread_mutex_unlock(&loop->lock);
}

/* Calls the jobs that are queued now. Those that they post wait for the next turn. Returns whether
 * there are any. */
static bool run_jobs(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    for (unsigned n = loop->jobs.length; n && loop->jobs.first && !loop->stopping; n--) {
        struct loop_job *job = container_of(loop->jobs.first, struct loop_job, link);
        void (*run)(void *opaque) = job->run;
        void *opaque = job->opaque;
        fifo_remove(&loop->jobs, &job->link);
        loop->running = job;
        loop->caller = pthread_self();
        pthread_mutex_unlock(&loop->lock);
        run(opaque); /* which may free the job */
        pthread_mutex_lock(&loop->lock);
        loop->running = NULL;
        pthread_cond_broadcast(&loop->idle);
    }
    bool more = loop->jobs.first;
    pthread_mutex_unlock(&loop->lock);
    return more;
}

static bool stopping(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool result = loop->stopping;
    pthread_mutex_unlock(&loop->lock);
    return result;
}

static void *run(void *opaque)
{
    struct loop *loop = opaque;
    where_begin(&loop->where);
    bool more = true; /* jobs may have been posted before the start */
    while (!stopping(loop)) {
        struct epoll_event events[16];
        int n = epoll_wait(loop->epoll_fd, events, 16, more ? 0 : -1);
        for (int i = 0; i < n && !stopping(loop); i++) {
            eventfd_t count;
            if (events[i].data.u64 != WAKE_ID)
                dispatch(loop, events[i].data.u64, events[i].events);
            else
                eventfd_read(loop->wake_fd, &count);
        }
        more = run_jobs(loop);
    }
    where_end(&loop->where);
    return NULL;
}

struct where *loop_where(struct loop *loop)
{
    return &loop->where;
}

int loop_start(struct loop *loop, struct error *err)
{
    if (loop->started)
        return error_set(err, EALREADY, "event loop: already started");
    loop->stopping = false;
    int ret = thread_start(&loop->thread, "doppel-loop", run, loop, err);
    loop->started = ret == 0;
    return ret;
}

void loop_stop(struct loop *loop)
{
    if (!loop->started)
        return;
    pthread_mutex_lock(&loop->lock);
    loop->stopping = true;
    pthread_mutex_unlock(&loop->lock);
    eventfd_write(loop->wake_fd, 1);
    pthread_join(loop->thread, NULL);
    loop->started = false;
}

/* Puts WATCH into the epoll set, changes it there or takes it out: epoll reports errors and
 * hang-ups even for an empty event mask, so a paused watch must not be in the set. */
static int set_events(struct loop_watch *watch, uint32_t events)
{
    if (events == watch->events)
        return 0;
    int op = !watch->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event event = {.events = events, .data.u64 = watch->id};
    if (epoll_ctl(watch->loop->epoll_fd, op, watch->fd, &event) < 0)
        return -errno;
    watch->events = events;
    return 0;
}

struct loop_watch *loop_add(struct loop *loop, int fd, uint32_t events, loop_cb *cb, void *opaque,
                            struct error *err)
{
    struct loop_watch *watch = malloc(sizeof(*watch));
    if (!watch) {
        error_set(err, ENOMEM, "event loop: out of memory");
        return NULL;
    }
    *watch = (struct loop_watch){.loop = loop, .fd = fd, .cb = cb, .opaque = opaque};
    pthread_mutex_lock(&loop->lock);
    watch->id = ++loop->last_id;
    int code = set_events(watch, events);
    if (!code) {
        watch->next = loop->watches;
        loop->watches = watch;
    }
    pthread_mutex_unlock(&loop->lock);
    if (code) {
        error_set(err, -code, "event loop: cannot watch file descriptor %d: %s", fd,
                  strerror(-code));
        free(watch);
        return NULL;
    }
    return watch;
}

int loop_modify(struct loop_watch *watch, uint32_t events)
{
    pthread_mutex_lock(&watch->loop->lock);
    int code = set_events(watch, events);
    pthread_mutex_unlock(&watch->loop->lock);
    return code;
}

void loop_remove(struct loop_watch *watch)
{
    if (!watch)
        return;
    struct loop *loop = watch->loop;
    pthread_mutex_lock(&loop->lock);
    set_events(watch, 0);
    *find(loop, watch->id) = watch->next;
    while (loop->calling == watch->id && !pthread_equal(loop->caller, pthread_self()))
        pthread_cond_wait(&loop->idle, &loop->lock);
    pthread_mutex_unlock(&loop->lock);
    free(watch);
}

void loop_post(struct loop *loop, struct loop_job *job)
{
    pthread_mutex_lock(&loop->lock);
    bool wake = !loop->jobs.first; /* else it has been woken, or is at it */
    fifo_put(&loop->jobs, &job->link);
    pthread_mutex_unlock(&loop->lock);
    if (wake)
        eventfd_write(loop->wake_fd, 1);
}

bool loop_cancel(struct loop *loop, struct loop_job *job)
{
    pthread_mutex_lock(&loop->lock);
    bool taken = fifo_remove(&loop->jobs, &job->link);
    while (loop->running == job && !pthread_equal(loop->caller, pthread_self()))
        pthread_cond_wait(&loop->idle, &loop->lock);
    taken |= fifo_remove(&loop->jobs, &job->link); /* its function may have posted it meanwhile */
    pthread_mutex_unlock(&loop->lock);
    return taken;
}
