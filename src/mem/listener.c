/*
 * Who is told what happens to guest memory.
 */
#include "mem/mem_private.h"

void mem_listen(struct mem *mem, struct mem_listener *listener)
{
    pthread_rwlock_wrlock(&mem->listening);
    listener->next = mem->listeners;
    mem->listeners = listener;
    pthread_rwlock_unlock(&mem->listening);
}

void mem_unlisten(struct mem *mem, struct mem_listener *listener)
{
    pthread_rwlock_wrlock(&mem->listening);
    for (struct mem_listener **at = &mem->listeners; *at; at = &(*at)->next) {
        if (*at == listener) {
            *at = listener->next;
            break;
        }
    }
    pthread_rwlock_unlock(&mem->listening);
}

void mem_set_check(struct mem *mem, void (*check)(void *opaque), void *opaque)
{
    mem->check = check;
    mem->check_opaque = opaque;
}

/* Calls function WHAT of each listener that has one. */
#define TELL(MEM, WHAT, ...)                                                                       \
    do {                                                                                           \
        pthread_rwlock_rdlock(&(MEM)->listening);                                                  \
        for (const struct mem_listener *l = (MEM)->listeners; l; l = l->next)                      \
            if (l->ops->WHAT)                                                                      \
                l->ops->WHAT(l->opaque, ##__VA_ARGS__);                                            \
        pthread_rwlock_unlock(&(MEM)->listening);                                                  \
    } while (0)

void mem_tell_invalidated(struct mem *mem, const struct mem_range *ranges, unsigned count,
                          enum mem_access access)
{
    TELL(mem, invalidated, ranges, count, access);
}

void mem_tell_written(struct mem *mem, uint64_t gpa, uint64_t size)
{
    TELL(mem, written, gpa, size);
}

void mem_tell_regions(struct mem *mem)
{
    TELL(mem, regions_changed);
}

void mem_tell_log(struct mem *mem)
{
    TELL(mem, log_changed);
}

void mem_collect_log(struct mem *mem)
{
    TELL(mem, log_collect);
}

void mem_settle(struct mem *mem)
{
    mem_check(mem);
    TELL(mem, settle);
}

void mem_ranges_add(struct mem_ranges *ranges, uint64_t gpn, uint64_t pages, const void *host)
{
    uint64_t gpa = gpn << MEM_PAGE_SHIFT, size = pages << MEM_PAGE_SHIFT;
    struct mem_range *last = ranges->count ? &ranges->at[ranges->count - 1] : NULL;

    if (last && last->gpa + last->size == gpa && (const char *)last->host + last->size == host)
        last->size += size;
    else if (ranges->count < RANGES_MAX)
        ranges->at[ranges->count++] = (struct mem_range){gpa, size, host};
    else
        ranges->all = true;
}

void mem_ranges_tell(struct mem *mem, const struct mem_ranges *ranges, enum mem_access access)
{
    const struct mem_range all = {0, UINT64_MAX, NULL};

    if (ranges->all)
        mem_tell_invalidated(mem, &all, 1, access);
    else if (ranges->count)
        mem_tell_invalidated(mem, ranges->at, ranges->count, access);
}
