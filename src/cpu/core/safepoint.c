/*
 * Safe points. A stop interrupts every vCPU and waits until the count of running ones is zero;
 * a vCPU that wants to stop the others while one is under way stands aside first.
 */
#include "cpu/core/safepoint.h"

#include "base/util.h"

void safepoint_init(struct safepoint *sp)
{
    pthread_mutex_init(&sp->lock, NULL);
    pthread_cond_init(&sp->changed, NULL);
}

void safepoint_destroy(struct safepoint *sp)
{
    pthread_mutex_destroy(&sp->lock);
    pthread_cond_destroy(&sp->changed);
}

static void enter_locked(struct safepoint *sp)
{
    while (sp->stopping)
        pthread_cond_wait(&sp->changed, &sp->lock);
    sp->running++;
}

static void leave_locked(struct safepoint *sp)
{
    sp->running--;
    pthread_cond_broadcast(&sp->changed);
}

void safepoint_enter(struct safepoint *sp)
{
    pthread_mutex_lock(&sp->lock);
    enter_locked(sp);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_leave(struct safepoint *sp)
{
    pthread_mutex_lock(&sp->lock);
    leave_locked(sp);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_poll(struct safepoint *sp)
{
    pthread_mutex_lock(&sp->lock);
    leave_locked(sp);
    enter_locked(sp);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_stop(struct safepoint *sp, bool inside)
{
    pthread_mutex_lock(&sp->lock);
    if (inside)
        leave_locked(sp);
    while (sp->stopping)
        pthread_cond_wait(&sp->changed, &sp->lock);
    sp->stopping = true;
    if (sp->running) {
        for (unsigned i = 0; i < SAFEPOINT_MAX_CPUS; i++)
            if (sp->port[i])
                cpu_port_request(sp->port[i], CPU_REQ_ENGINE);
    }
    while (sp->running)
        pthread_cond_wait(&sp->changed, &sp->lock);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_resume(struct safepoint *sp, bool inside)
{
    pthread_mutex_lock(&sp->lock);
    sp->stopping = false;
    if (inside)
        sp->running++;
    pthread_cond_broadcast(&sp->changed);
    pthread_mutex_unlock(&sp->lock);
}
