/*
 * RAM that another process maps.
 */
#include "mem/foreign.h"

#include "mem/mem_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* With the lock. */
static int list_parts(const struct mem *mem, struct mem_export *parts, unsigned *count,
                      struct error *err)
{
    unsigned used = 0;

    for (const struct mem_region *r = mem->regions; r; r = r->next) {
        if (r->kind != MEM_RAM || r->first == NOWHERE)
            continue;
        if (used == *count)
            return error_set(err, ENOSPC, "RAM has more than %u parts", *count);
        parts[used++] = (struct mem_export){.gpa = r->first << MEM_PAGE_SHIFT,
                                            .size = r->pages << MEM_PAGE_SHIFT,
                                            .fd = r->fd,
                                            .offset = r->fd_offset};
    }
    *count = used;
    return 0;
}

/* Seals the files of PARTS, so that nobody who has them can make them shorter: this process would
 * lose what the guest has in RAM. Holes can still be punched, which the balloon does. */
static int seal_parts(const struct mem_export *parts, unsigned count, struct error *err)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    for (unsigned i = 0; i < count; i++) {
        int set = fcntl(parts[i].fd, F_GET_SEALS);

        if (set >= 0 && (set & seals) == seals)
            continue; /* parts may share a file, and RAM may have been exported before */
        if (fcntl(parts[i].fd, F_ADD_SEALS, seals) < 0)
            return error_set(err, errno, "cannot seal RAM: %s", strerror(errno));
    }
    return 0;
}

int mem_export_ram(struct mem *mem, struct mem_export *parts, unsigned *count, struct error *err)
{
    struct mem_counts pages;
    int ret;

    mem_count(mem, &pages);
    if (pages.shared || pages.swapped)
        return error_set(err, EBUSY, "RAM has pages that are shared or swapped out");
    pthread_mutex_lock(&mem->lock);
    ret = list_parts(mem, parts, count, err);
    if (ret == 0)
        ret = seal_parts(parts, *count, err);
    if (ret == 0)
        mem->exported = true;
    pthread_mutex_unlock(&mem->lock);
    return ret;
}

bool mem_is_exported(const struct mem *mem)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&mem->lock;
    bool exported;

    pthread_mutex_lock(lock);
    exported = mem->exported;
    pthread_mutex_unlock(lock);
    return exported;
}

void mem_foreign_written(struct mem *mem, uint64_t gpa, uint64_t size)
{
    if (!size)
        return;
    pthread_mutex_lock(&mem->lock);
    for (uint64_t gpn = gpa >> MEM_PAGE_SHIFT; gpn <= (gpa + size - 1) >> MEM_PAGE_SHIFT; gpn++) {
        uint64_t page;
        struct mem_region *r = mem_region_at(mem, gpn, &page);

        if (r)
            mem_mark(r, page);
    }
    pthread_mutex_unlock(&mem->lock);
    mem_tell_written(mem, gpa, size);
}

void mem_forget_lost(struct mem *mem)
{
    atomic_store(&mem->lost.first, 0);
}
