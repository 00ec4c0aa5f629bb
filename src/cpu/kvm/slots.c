/*
 * Memory slots, their mirrors, and the dirty log (Documentation/virt/kvm/api.rst,
 * KVM_SET_USER_MEMORY_REGION and KVM_GET_DIRTY_LOG).
 */
#include "cpu/kvm/slots.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t pages_of(const struct kvm_slot *slot)
{
    return slot->size >> MEM_PAGE_SHIFT;
}

/* KVM wants bitmaps of whole 64-bit words. */
static size_t bitmap_size(const struct kvm_slot *slot)
{
    return ALIGN_UP(pages_of(slot), 64) / 8;
}

/* Notes that guest memory and KVM no longer agree: the vCPUs then fail. With the lock. */
static void fail(struct kvm_slots *slots, int code, const char *what)
{
    if (slots->failure.code)
        return;
    error_set(&slots->failure, code, "KVM: %s: %s", what, strerror(code));
    atomic_store(&slots->failed, true);
}

/* --- Slots ------------------------------------------------------------------------------------ */

/* Tells KVM what is at a slot: MIRROR's bytes, or nothing if SIZE is 0. */
static int give(struct kvm_slots *slots, const struct kvm_slot *slot, uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = (uint32_t)(slot - slots->slot),
        .flags = (slot->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0) |
                 (slot->kind == MEM_ROM ? KVM_MEM_READONLY : 0),
        .guest_phys_addr = slot->gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)slot->mirror,
    };

    return kvm_call(slots->calls, slots->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&region);
}

/* Marks what guest code has written to in SLOT since the last time. */
static void collect(struct kvm_slots *slots, const struct kvm_slot *slot)
{
    struct kvm_dirty_log log = {.slot = (uint32_t)(slot - slots->slot)};
    int ret;

    if (!slot->given || !slot->logged)
        return;
    log.dirty_bitmap = calloc(1, bitmap_size(slot));
    ret = log.dirty_bitmap ? kvm_call(slots->calls, slots->vm, KVM_GET_DIRTY_LOG, (uintptr_t)&log)
                           : -ENOMEM;
    if (ret < 0)
        fail(slots, -ret, "cannot get the dirty log");
    else
        mem_mark_written(slots->mem, slot->region, log.dirty_bitmap, pages_of(slot));
    free(log.dirty_bitmap);
}

static void take_back(struct kvm_slots *slots, struct kvm_slot *slot)
{
    int ret;

    if (!slot->given)
        return;
    collect(slots, slot);
    ret = give(slots, slot, 0);
    if (ret < 0)
        fail(slots, -ret, "cannot take memory away");
    slot->given = false;
}

static void free_slot(struct kvm_slots *slots, struct kvm_slot *slot)
{
    take_back(slots, slot);
    munmap(slot->mirror, slot->size);
    free(slot->gone);
    *slot = (struct kvm_slot){0};
}

static bool is_gone(const struct kvm_slot *slot, uint64_t page)
{
    return slot->gone[page / 64] >> (page & 63) & 1;
}

/* Makes all pages of SLOT from FIRST up to END inaccessible, or accessible again. Returns false if
 * the host has no room for another mapping. */
static bool protect(struct kvm_slot *slot, uint64_t first, uint64_t end, bool gone)
{
    int usual = PROT_READ | (slot->kind == MEM_ROM ? 0 : PROT_WRITE);

    if (mprotect(slot->mirror + (first << MEM_PAGE_SHIFT), (end - first) << MEM_PAGE_SHIFT,
                 gone ? PROT_NONE : usual) < 0)
        return false;
    for (uint64_t page = first; page < end; page++) {
        uint64_t *word = &slot->gone[page / 64], bit = 1ULL << (page & 63);

        slot->gone_pages += gone && !(*word & bit);
        slot->gone_pages -= !gone && (*word & bit);
        *word = gone ? *word | bit : *word & ~bit;
    }
    return true;
}

/* Finds pages that must be taken out of the mirror: those from FIRST up to END that are not plain
 * and are still accessible. Stores the first of them; returns how many they are, or 0. */
static uint64_t next_to_withdraw(struct kvm_slots *slots, const struct kvm_slot *slot,
                                 uint64_t *first, uint64_t end)
{
    uint64_t same, skip, run = 0;

    for (; *first < end; *first += skip) {
        bool plain =
            mem_is_plain(slots->mem, (slot->gpa >> MEM_PAGE_SHIFT) + *first, end - *first, &same);

        skip = plain ? same : 0;
        while (skip < same && is_gone(slot, *first + skip))
            skip++;
        while (skip + run < same && !is_gone(slot, *first + skip + run))
            run++;
        if (!run)
            continue;
        *first += skip;
        return run;
    }
    return 0;
}

/* Takes pages out of the mirror that are not plain, of those from FIRST up to END. Where there is
 * no room for another mapping, all of the mirror becomes inaccessible, which needs none. */
static void withdraw(struct kvm_slots *slots, struct kvm_slot *slot, uint64_t first, uint64_t end)
{
    uint64_t run;

    while ((run = next_to_withdraw(slots, slot, &first, end)) > 0) {
        if (!protect(slot, first, first + run, true) && !protect(slot, 0, pages_of(slot), true))
            fail(slots, ENOMEM, "cannot withdraw pages");
        first += run;
    }
}

static struct kvm_slot *find(struct kvm_slots *slots, uint64_t region)
{
    for (unsigned i = 0; i < MEM_MAPS_MAX; i++)
        if (slots->slot[i].mirror && slots->slot[i].region == region)
            return &slots->slot[i];
    return NULL;
}

/* Makes a slot of what MAP says. Returns NULL if the host lacks memory for it. */
static struct kvm_slot *new_slot(struct kvm_slots *slots, const struct mem_map *map)
{
    struct kvm_slot *slot = slots->slot;
    void *mirror = mmap(NULL, map->size, PROT_READ | (map->kind == MEM_ROM ? 0 : PROT_WRITE),
                        MAP_SHARED | MAP_NORESERVE, map->fd, (off_t)map->offset);

    if (mirror == MAP_FAILED)
        return NULL;
    madvise(mirror, map->size, MADV_DONTDUMP);
    while (slot->mirror) /* there are as many as there can be regions */
        slot++;
    *slot = (struct kvm_slot){
        .mirror = mirror, .region = map->region, .size = map->size, .kind = map->kind};
    slot->gone = calloc(1, bitmap_size(slot));
    if (!slot->gone) {
        munmap(mirror, map->size);
        slot->mirror = NULL;
        return NULL;
    }
    return slot;
}

/* Has KVM see MAP at its place. */
static int put(struct kvm_slots *slots, const struct mem_map *map)
{
    struct kvm_slot *slot = find(slots, map->region);
    int ret;

    if (slot && slot->given && slot->logged == map->logged)
        return 0;
    if (!slot && !(slot = new_slot(slots, map)))
        return -ENOMEM;
    slot->gpa = map->gpa;
    if (!slot->given)
        withdraw(slots, slot, 0, pages_of(slot));
    if (slot->logged && !map->logged)
        collect(slots, slot);
    slot->logged = map->logged;
    ret = give(slots, slot, slot->size);
    slot->given |= ret == 0;
    return ret;
}

/* Takes back what is no longer in MAPS at its place. */
static void take_back_old(struct kvm_slots *slots, const struct mem_map *maps, int count)
{
    for (struct kvm_slot *slot = slots->slot; slot < slots->slot + MEM_MAPS_MAX; slot++) {
        int i = 0;

        while (i < count && maps[i].region != slot->region)
            i++;
        if (slot->mirror && i == count)
            free_slot(slots, slot);
        else if (slot->mirror && maps[i].gpa != slot->gpa)
            take_back(slots, slot);
    }
}

/* Makes KVM's slots those of guest memory. With the lock. */
static int update(struct kvm_slots *slots, struct error *err)
{
    struct mem_map maps[MEM_MAPS_MAX];
    int count = mem_maps(slots->mem, maps, err), ret = 0;

    if (count < 0)
        return count;
    take_back_old(slots, maps, count);
    for (int i = 0; i < count; i++) {
        ret = ret < 0 ? ret : put(slots, &maps[i]);
        close(maps[i].fd);
    }
    if (ret < 0)
        return error_set(err, -ret, "KVM cannot be given the guest's memory: %s", strerror(-ret));
    return 0;
}

/* --- What guest memory tells ------------------------------------------------------------------ */

static void on_change(void *opaque)
{
    struct kvm_slots *slots = opaque;

    pthread_mutex_lock(&slots->lock);
    if (update(slots, slots->failure.code ? NULL : &slots->failure) < 0)
        atomic_store(&slots->failed, true);
    pthread_mutex_unlock(&slots->lock);
}

void kvm_slots_collect(struct kvm_slots *slots)
{
    pthread_mutex_lock(&slots->lock);
    for (unsigned i = 0; i < MEM_MAPS_MAX; i++)
        collect(slots, &slots->slot[i]);
    pthread_mutex_unlock(&slots->lock);
}

static void on_collect(void *opaque)
{
    kvm_slots_collect(opaque);
}

/* Calls ACT for the pages of each slot that lie in what is noted, until that returns true. Returns
 * whether it has. */
static bool visit_noted(struct kvm_slots *slots,
                        bool (*act)(struct kvm_slots *slots, struct kvm_slot *slot, uint64_t first,
                                    uint64_t end))
{
    for (unsigned n = 0; n < slots->noted.count; n++)
        for (struct kvm_slot *slot = slots->slot; slot < slots->slot + MEM_MAPS_MAX; slot++) {
            uint64_t gpn = slot->gpa >> MEM_PAGE_SHIFT;
            uint64_t from = MAX(gpn, slots->noted.range[n].first);
            uint64_t to = MIN(gpn + pages_of(slot), slots->noted.range[n].end);

            if (slot->given && from < to && act(slots, slot, from - gpn, to - gpn))
                return true;
        }
    return false;
}

static bool must_withdraw(struct kvm_slots *slots, struct kvm_slot *slot, uint64_t first,
                          uint64_t end)
{
    return next_to_withdraw(slots, slot, &first, end) > 0;
}

static bool withdraw_some(struct kvm_slots *slots, struct kvm_slot *slot, uint64_t first,
                          uint64_t end)
{
    withdraw(slots, slot, first, end);
    return false;
}

/* Notes RANGE; if there are too many, all places from the least to the greatest. */
static void note(struct kvm_noted *noted, const struct mem_range *range)
{
    uint64_t size = MIN(range->size, UINT64_MAX - range->gpa);
    uint64_t first = range->gpa >> MEM_PAGE_SHIFT;
    uint64_t end = (range->gpa + size) >> MEM_PAGE_SHIFT;

    if (noted->count == KVM_NOTED_MAX) {
        for (unsigned i = 0; i < noted->count; i++) {
            first = MIN(first, noted->range[i].first);
            end = MAX(end, noted->range[i].end);
        }
        noted->count = 0;
    }
    noted->range[noted->count].first = first;
    noted->range[noted->count++].end = end;
}

static void on_invalidated(void *opaque, const struct mem_range *ranges, unsigned count,
                           enum mem_access access)
{
    struct kvm_slots *slots = opaque;

    pthread_mutex_lock(&slots->lock);
    for (unsigned i = 0; i < count; i++)
        note(&slots->noted, &ranges[i]);
    pthread_mutex_unlock(&slots->lock);
}

/* Withdraws pages that are noted, with no vCPU in KVM_RUN. */
static void on_settle(void *opaque)
{
    struct kvm_slots *slots = opaque;
    bool any;

    pthread_mutex_lock(&slots->lock);
    any = visit_noted(slots, must_withdraw);
    if (!any)
        slots->noted.count = 0;
    pthread_mutex_unlock(&slots->lock);
    if (!any)
        return;
    safepoint_stop(slots->safepoint, SAFEPOINT_OUTSIDE);
    pthread_mutex_lock(&slots->lock);
    visit_noted(slots, withdraw_some);
    slots->noted.count = 0;
    pthread_mutex_unlock(&slots->lock);
    safepoint_resume(slots->safepoint, SAFEPOINT_OUTSIDE);
}

static const struct mem_listener_ops listener_ops = {
    .invalidated = on_invalidated,
    .settle = on_settle,
    .regions_changed = on_change,
    .log_changed = on_change,
    .log_collect = on_collect,
};

/* --- For the engine --------------------------------------------------------------------------- */

/* Makes pages of SLOT accessible that are plain by now. */
static void refresh(struct kvm_slots *slots, struct kvm_slot *slot)
{
    uint64_t page = 0, end = pages_of(slot);

    while (slot->gone_pages && page < end) {
        uint64_t word = slot->gone[page / 64] >> (page & 63), run = 0, same = 0;

        if (!word) {
            page = ALIGN_DOWN(page, 64) + 64;
            continue;
        }
        page += (unsigned)__builtin_ctzll(word);
        while (page + run < end && is_gone(slot, page + run))
            run++;
        if (mem_is_plain(slots->mem, (slot->gpa >> MEM_PAGE_SHIFT) + page, run, &same) &&
            !protect(slot, page, page + same, false))
            return; /* no room for another mapping: the interpreter goes on with these pages */
        page += same;
    }
}

void kvm_slots_refresh(struct kvm_slots *slots)
{
    pthread_mutex_lock(&slots->lock);
    for (unsigned i = 0; i < MEM_MAPS_MAX; i++)
        if (slots->slot[i].given)
            refresh(slots, &slots->slot[i]);
    pthread_mutex_unlock(&slots->lock);
}

int kvm_slots_create(struct kvm_slots *slots, const struct kvm_calls *calls, int vm,
                     struct mem *mem, struct safepoint *safepoint, struct error *err)
{
    *slots = (struct kvm_slots){.calls = calls, .vm = vm, .mem = mem, .safepoint = safepoint};
    pthread_mutex_init(&slots->lock, NULL);
    slots->listener = (struct mem_listener){.ops = &listener_ops, .opaque = slots};
    mem_listen(mem, &slots->listener);
    return update(slots, err);
}

void kvm_slots_destroy(struct kvm_slots *slots)
{
    if (!slots->mem)
        return;
    mem_unlisten(slots->mem, &slots->listener);
    for (unsigned i = 0; i < MEM_MAPS_MAX; i++)
        if (slots->slot[i].mirror)
            free_slot(slots, &slots->slot[i]);
    pthread_mutex_destroy(&slots->lock);
}
