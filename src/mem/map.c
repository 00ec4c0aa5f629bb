/*
 * What an engine needs that maps guest memory itself.
 */
#include "mem/map.h"

#include "mem/mem_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int map_of(struct mem_region *r, struct mem_map *map)
{
    *map = (struct mem_map){
        .region = r->id,
        .gpa = r->first << MEM_PAGE_SHIFT,
        .size = r->pages << MEM_PAGE_SHIFT,
        .kind = r->kind,
        .logged = r->kind != MEM_ROM && (atomic_load(&r->log) || r->own_log),
        .fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 0),
        .offset = r->fd_offset,
    };
    return map->fd < 0 ? -errno : 0;
}

int mem_maps(struct mem *mem, struct mem_map *maps, struct error *err)
{
    int count = 0, ret = 0;

    pthread_mutex_lock(&mem->lock);
    for (struct mem_region *r = mem->regions; ret == 0 && r; r = r->next)
        if (r->first != NOWHERE && (ret = map_of(r, &maps[count])) == 0)
            count++;
    pthread_mutex_unlock(&mem->lock);
    if (ret == 0)
        return count;
    while (count > 0)
        close(maps[--count].fd);
    return error_set(err, -ret, "guest memory: cannot be mapped: %s", strerror(-ret));
}

static bool is_plain(const struct mem *mem, uint64_t gpn, uint64_t pages, uint64_t *same)
{
    uint64_t page, most;
    const struct mem_region *r = mem_region_at(mem, gpn, &page);
    bool plain;

    *same = 1;
    if (!r)
        return false;
    most = MIN(pages, r->pages - page);
    if (!atomic_load(&r->odd)) {
        *same = most;
        return true;
    }
    plain = !mem_word(r, page);
    while (*same < most && !mem_word(r, page + *same) == plain)
        ++*same;
    return plain;
}

bool mem_is_plain(struct mem *mem, uint64_t gpn, uint64_t pages, uint64_t *same)
{
    bool plain;

    pthread_mutex_lock(&mem->lock); /* regions may be removed and freed meanwhile */
    plain = is_plain(mem, gpn, pages, same);
    pthread_mutex_unlock(&mem->lock);
    return plain;
}

/* Brings back what has been taken from R. With the lock, which it may release. */
static int bring_back(struct mem_region *r)
{
    int ret = 0;

    for (uint64_t page = 0; ret == 0 && atomic_load(&r->odd) && page < r->pages; page++) {
        uint32_t word = mem_word(r, page);
        struct mem_region *found;
        uint64_t at;

        if (word && mem_word_state(word) != WORD_BALLOONED)
            ret = mem_fault_locked(r->mem, r->first + page, MEM_WRITE, true, &found, &at);
    }
    return ret;
}

int mem_keep_present(struct mem *mem)
{
    int ret = 0;

    mem_check(mem);
    pthread_mutex_lock(&mem->lock);
    mem->keepers++;
    for (unsigned i = 0; ret == 0 && i < mem->own_count; i++)
        ret = bring_back(mem->own[i].region);
    pthread_mutex_unlock(&mem->lock);
    if (ret < 0)
        mem_end_keeping(mem);
    return ret;
}

void mem_end_keeping(struct mem *mem)
{
    pthread_mutex_lock(&mem->lock);
    mem->keepers--;
    pthread_mutex_unlock(&mem->lock);
}

void mem_mark_written(struct mem *mem, uint64_t region, const uint64_t *bitmap, uint64_t pages)
{
    struct mem_region *r;

    pthread_mutex_lock(&mem->lock);
    for (r = mem->regions; r && r->id != region; r = r->next)
        ;
    for (uint64_t word = 0; r && word * 64 < MIN(pages, r->pages); word++)
        for (uint64_t bits = bitmap[word]; bits; bits &= bits - 1)
            mem_mark(r, word * 64 + (unsigned)__builtin_ctzll(bits));
    pthread_mutex_unlock(&mem->lock);
}
