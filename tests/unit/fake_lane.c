/*
 * Workers and jobs on the test's own thread.
 */
#include "fake_lane.h"

#include "base/util.h"

#include <poll.h>
#include <stdlib.h>

#define MOST_STEPS 100000

struct workers {
    struct fifo queue;
};

struct loop_watch {
    struct loop *loop;
    struct loop_watch *next;
    int fd;
    uint32_t events;
    loop_cb *run;
    void *opaque;
};

struct loop {
    struct fifo queue;
    struct loop_watch *watches;
};

/* ---- Workers ---- */

struct workers *workers_create(const char *name, unsigned threads, struct error *err)
{
    return calloc(1, sizeof(struct workers));
}

void workers_destroy(struct workers *w)
{
    free(w);
}

int workers_add(struct workers *w, struct work *work, void (*run)(void *opaque), void *opaque,
                struct error *err)
{
    *work = (struct work){.workers = w, .run = run, .opaque = opaque};
    return 0;
}

static void queue(struct work *work)
{
    if (work->wanted && !work->paused)
        fifo_put(&work->workers->queue, &work->link);
}

void workers_remove(struct work *work)
{
    if (work->workers)
        fifo_remove(&work->workers->queue, &work->link);
    work->workers = NULL;
}

void workers_post(struct work *work)
{
    work->wanted = true;
    queue(work);
}

void workers_pause(struct work *work)
{
    fifo_remove(&work->workers->queue, &work->link);
    work->paused = true;
}

void workers_resume(struct work *work)
{
    work->paused = false;
    queue(work);
}

void workers_drain(struct workers *w)
{
    while (fake_workers_step(w))
        ;
}

bool fake_workers_step(struct workers *w)
{
    struct work *work;

    if (!w->queue.first)
        return false;
    work = container_of(w->queue.first, struct work, link);
    fifo_remove(&w->queue, &work->link);
    work->wanted = false;
    work->run(work->opaque);
    return true;
}

/* ---- Jobs ---- */

struct loop *loop_create(struct error *err)
{
    return calloc(1, sizeof(struct loop));
}

void loop_destroy(struct loop *loop)
{
    free(loop);
}

void loop_post(struct loop *loop, struct loop_job *job)
{
    fifo_put(&loop->queue, &job->link);
}

bool loop_cancel(struct loop *loop, struct loop_job *job)
{
    return fifo_remove(&loop->queue, &job->link);
}

struct loop_watch *loop_add(struct loop *loop, int fd, uint32_t events, loop_cb *cb, void *opaque,
                            struct error *err)
{
    struct loop_watch *watch = malloc(sizeof(*watch));

    *watch = (struct loop_watch){loop, loop->watches, fd, events, cb, opaque};
    loop->watches = watch;
    return watch;
}

int loop_modify(struct loop_watch *watch, uint32_t events)
{
    watch->events = events;
    return 0;
}

void loop_remove(struct loop_watch *watch)
{
    struct loop_watch **at;

    if (!watch)
        return;
    for (at = &watch->loop->watches; *at != watch;)
        at = &(*at)->next;
    *at = watch->next;
    free(watch);
}

/* Calls the first watch whose file is ready. */
static bool step_watch(struct loop *loop)
{
    for (struct loop_watch *watch = loop->watches; watch; watch = watch->next) {
        struct pollfd file = {.fd = watch->fd, .events = (short)watch->events};

        if (watch->events && poll(&file, 1, 0) > 0) {
            watch->run(watch->opaque, (uint32_t)file.revents);
            return true;
        }
    }
    return false;
}

bool fake_loop_step(struct loop *loop)
{
    struct loop_job *job;

    if (!loop->queue.first)
        return step_watch(loop);
    job = container_of(loop->queue.first, struct loop_job, link);
    loop_cancel(loop, job);
    job->run(job->opaque);
    return true;
}

void fake_lane_run(struct workers *workers, struct loop *loop)
{
    for (unsigned i = 0; fake_workers_step(workers) || fake_loop_step(loop); i++)
        if (i == MOST_STEPS)
            abort();
}
