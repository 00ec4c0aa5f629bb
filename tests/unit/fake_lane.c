/*
 * Workers and jobs on the test's own thread.
 */
#include "fake_lane.h"

#include <stdlib.h>

#define MOST_STEPS 100000

struct workers {
    struct work *first, **last;
};

struct loop {
    struct loop_job *first, **last;
};

/* ---- Workers ---- */

struct workers *workers_create(const char *name, unsigned threads, struct error *err)
{
    struct workers *w = calloc(1, sizeof(*w));

    w->last = &w->first;
    return w;
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
    if (work->queued || !work->wanted || work->paused)
        return;
    work->queued = true;
    work->next = NULL;
    *work->workers->last = work;
    work->workers->last = &work->next;
}

static void take_out(struct work *work)
{
    struct work **link = &work->workers->first;

    while (*link && *link != work)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = work->next;
    if (!*link)
        work->workers->last = link;
    work->queued = false;
}

void workers_remove(struct work *work)
{
    if (work->workers)
        take_out(work);
    work->workers = NULL;
}

void workers_post(struct work *work)
{
    work->wanted = true;
    queue(work);
}

void workers_pause(struct work *work)
{
    take_out(work);
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
    struct work *work = w->first;

    if (!work)
        return false;
    take_out(work);
    work->wanted = false;
    work->run(work->opaque);
    return true;
}

/* ---- Jobs ---- */

struct loop *loop_create(struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));

    loop->last = &loop->first;
    return loop;
}

void loop_destroy(struct loop *loop)
{
    free(loop);
}

void loop_post(struct loop *loop, struct loop_job *job)
{
    if (job->queued)
        return;
    job->queued = true;
    job->next = NULL;
    *loop->last = job;
    loop->last = &job->next;
}

bool loop_cancel(struct loop *loop, struct loop_job *job)
{
    struct loop_job **link = &loop->first;

    while (*link && *link != job)
        link = &(*link)->next;
    if (!*link)
        return false;
    *link = job->next;
    if (!*link)
        loop->last = link;
    job->queued = false;
    return true;
}

bool fake_loop_step(struct loop *loop)
{
    struct loop_job *job = loop->first;

    if (!job)
        return false;
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
