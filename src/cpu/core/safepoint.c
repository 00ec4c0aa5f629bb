/*
 * Safe points. A stop interrupts every vCPU and waits until none runs. A vCPU that wants to stop
 * the others stops running itself first, because another one may be doing the same.
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

static void enter_locked(struct safepoint *sp, unsigned id)
{
    while (sp->stopping)
        pthread_cond_wait(&sp->changed, &sp->lock);
    sp->running++;
    sp->inside[id] = true;
}

static void leave_locked(struct safepoint *sp, unsigned id)
{
    sp->running--;
    sp->inside[id] = false;
    pthread_cond_broadcast(&sp->changed);
}

void safepoint_enter(struct safepoint *sp, unsigned id)
{
    pthread_mutex_lock(&sp->lock);
    enter_locked(sp, id);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_leave(struct safepoint *sp, unsigned id)
{
    pthread_mutex_lock(&sp->lock);
    leave_locked(sp, id);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_poll(struct safepoint *sp, unsigned id)
{
    pthread_mutex_lock(&sp->lock);
    leave_locked(sp, id);
    enter_locked(sp, id);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_hurry(struct safepoint *sp)
{
    for (unsigned i = 0; i < SAFEPOINT_MAX_CPUS; i++)
        if (sp->inside[i] && sp->port[i])
            cpu_port_request(sp->port[i], CPU_REQ_ENGINE);
}

static void check_locks(const struct safepoint *sp)
{
    if (sp->check)
        sp->check(sp->check_opaque);
}

void safepoint_stop(struct safepoint *sp, unsigned id)
{
    check_locks(sp);
    pthread_mutex_lock(&sp->lock);
    if (id != SAFEPOINT_OUTSIDE)
        leave_locked(sp, id);
    while (sp->stopping)
        pthread_cond_wait(&sp->changed, &sp->lock);
    sp->stopping = true;
    if (sp->running)
        safepoint_hurry(sp);
    while (sp->running)
        pthread_cond_wait(&sp->changed, &sp->lock);
    if (id != SAFEPOINT_OUTSIDE)
        sp->inside[id] = true;
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_resume(struct safepoint *sp, unsigned id)
{
    pthread_mutex_lock(&sp->lock);
    sp->stopping = false;
    if (id != SAFEPOINT_OUTSIDE)
        sp->running++;
    pthread_cond_broadcast(&sp->changed);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_note(struct safepoint *sp, unsigned id, uint64_t number)
{
    pthread_mutex_lock(&sp->lock);
    sp->seen[id] = number;
    pthread_cond_broadcast(&sp->changed);
    pthread_mutex_unlock(&sp->lock);
}

void safepoint_settle(struct safepoint *sp, uint64_t number)
{
    check_locks(sp);
    pthread_mutex_lock(&sp->lock);
    for (unsigned i = 0; i < SAFEPOINT_MAX_CPUS; i++)
        while (sp->inside[i] && sp->seen[i] < number)
            pthread_cond_wait(&sp->changed, &sp->lock);
    pthread_mutex_unlock(&sp->lock);
}
