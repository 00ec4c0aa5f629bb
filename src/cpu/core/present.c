/*
 * Pages that come and go.
 *
 * What is put out of date is noted in a ring, with a number that rises. Each vCPU keeps the number
 * up to which it has dropped what is noted, and goes on from there before it executes another
 * instruction. If it has fallen behind by more than the ring holds, it drops everything.
 */
#include "cpu/core/present.h"

#include "cpu/core/executor.h"
#include "cpu/core/fault.h"

#include <errno.h>

/* --- Waiting ---------------------------------------------------------------------------------- */

void present_wait(struct vcpu *c)
{
    struct safepoint *sp = &c->core->safepoint;
    unsigned id = c->port->id;
    int ret;

    safepoint_leave(sp, id);
    ret = mem_fault(c->mem, c->absent.gpn, c->absent.access, &c->kept);
    safepoint_enter(sp, id);
    present_forget(c);
    /* The pages are released after the instruction, where the vCPU serves this request. */
    atomic_fetch_or(&c->port->requests, CPU_REQ_ENGINE);
    /* -EFAULT: another vCPU has moved the region away. The next translation finds what is there
     * now. */
    if (ret < 0 && ret != -EFAULT)
        raise_memory(c, ret);
}

/* --- Forgetting ------------------------------------------------------------------------------- */

static void post_note(struct stale *s, struct stale_note note)
{
    s->note[s->posted % STALE_NOTES] = note;
    atomic_store_explicit(&s->posted, s->posted + 1, memory_order_release);
}

/* Posts a note of one piece of memory. */
static void post_range(struct stale *s, const struct mem_range *range, enum mem_access access)
{
    bool all = range->size == UINT64_MAX;

    if (!all && !range->host)
        return; /* it has no host memory, so no TLB holds an address in it */
    post_note(s, (struct stale_note){
                     .first = all ? 0 : (uintptr_t)range->host,
                     .last = all ? UINTPTR_MAX : (uintptr_t)range->host + range->size - 1,
                     .write_only = access == MEM_WRITE,
                 });
}

void present_invalidated(void *opaque, const struct mem_range *ranges, unsigned count,
                         enum mem_access access)
{
    struct core *e = opaque;

    pthread_mutex_lock(&e->safepoint.lock);
    for (unsigned i = 0; i < count; i++)
        post_range(&e->stale, &ranges[i], access);
    safepoint_hurry(&e->safepoint);
    pthread_mutex_unlock(&e->safepoint.lock);
}

/* Posts an empty note and waits until all vCPUs have read it. To wait for the notes before it is
 * not enough: a vCPU that has read those may have asked the gate since, and may be using a table of
 * regions that the caller has replaced without a note. */
void present_settle(void *opaque)
{
    struct core *e = opaque;
    uint64_t number;

    pthread_mutex_lock(&e->safepoint.lock);
    post_note(&e->stale, (struct stale_note){.first = 1, .last = 0});
    number = e->stale.posted;
    safepoint_hurry(&e->safepoint);
    pthread_mutex_unlock(&e->safepoint.lock);
    safepoint_settle(&e->safepoint, number);
}

/* Adds a piece to COUNT pieces, which are sorted and disjoint. Returns how many there are then. */
static unsigned insert_piece(struct mmu_host *pieces, unsigned count, struct mmu_host piece)
{
    unsigned at = 0, end;

    while (at < count && pieces[at].last < piece.first)
        at++;
    for (end = at; end < count && pieces[end].first <= piece.last; end++) {
        piece.first = MIN(piece.first, pieces[end].first);
        piece.last = MAX(piece.last, pieces[end].last);
    }
    if (end == at) { /* it overlaps none */
        for (unsigned i = count++; i > at; i--)
            pieces[i] = pieces[i - 1];
    } else { /* it replaces those that it overlaps */
        for (unsigned i = end; i < count; i++)
            pieces[at + 1 + i - end] = pieces[i];
        count -= end - at - 1;
    }
    pieces[at] = piece;
    return count;
}

/* What a vCPU still has to drop, by stale_note.write_only. */
struct overdue {
    struct mmu_host pieces[2][STALE_NOTES];
    unsigned count[2];
};

/* Collects what C has to drop. Returns the number of the last note that is in it. */
static uint64_t collect_overdue(struct vcpu *c, struct overdue *overdue)
{
    struct stale *s = &c->core->stale;
    uint64_t from, to;

    overdue->count[0] = overdue->count[1] = 0;
    pthread_mutex_lock(&c->core->safepoint.lock);
    from = c->forgotten;
    to = atomic_load_explicit(&s->posted, memory_order_relaxed);
    if (to - from > STALE_NOTES) {
        overdue->pieces[0][0] = (struct mmu_host){0, UINTPTR_MAX};
        overdue->count[0] = 1;
        from = to;
    }
    for (; from < to; from++) {
        const struct stale_note *note = &s->note[from % STALE_NOTES];
        unsigned kind = note->write_only;

        if (note->first > note->last)
            continue; /* an empty one of present_settle */
        overdue->count[kind] = insert_piece(overdue->pieces[kind], overdue->count[kind],
                                            (struct mmu_host){note->first, note->last});
    }
    pthread_mutex_unlock(&c->core->safepoint.lock);
    return to;
}

void present_forget(struct vcpu *c)
{
    struct stale *s = &c->core->stale;

    while (unlikely(atomic_load_explicit(&s->posted, memory_order_acquire) != c->forgotten)) {
        struct overdue overdue;
        uint64_t number = collect_overdue(c, &overdue);

        for (unsigned kind = 0; kind < 2; kind++)
            if (overdue.count[kind])
                mmu_drop_host(&c->mmu, overdue.pieces[kind], overdue.count[kind], kind);
        if (c->core->accelerator && (overdue.count[0] || overdue.count[1]))
            c->core->accelerator->pages_moved(c);
        c->forgotten = number;
        safepoint_note(&c->core->safepoint, c->port->id, number);
    }
}

/* --- Stopping others -------------------------------------------------------------------------- */

void present_stop_others(struct vcpu *c)
{
    safepoint_stop(&c->core->safepoint, c->port->id);
    present_forget(c);
}

void present_resume_others(struct vcpu *c)
{
    safepoint_resume(&c->core->safepoint, c->port->id);
}
