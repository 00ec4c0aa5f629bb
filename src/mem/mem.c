/*
 * Guest memory over one memfd.
 *
 * The whole guest physical space up to the end of RAM is reserved once in the host's address
 * space and the memfd is mapped into the parts of it that are RAM, so the machine page of the
 * guest's own is found by adding. The file gives its pages on first touch and takes them back when
 * a hole is punched into it, which is how reset clears gigabytes at once.
 */
#include "mem/mem_private.h"

#include "mem/foreign.h"
#include "mem/pin.h"
#include "mem/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_ram(struct mem *mem, uint64_t gpa, uint64_t size, uint64_t file_offset)
{
    void *at = mmap(mem->base + gpa, size, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, mem->fd, (off_t)file_offset);

    if (at == MAP_FAILED)
        return -errno;
    /* A guest's memory in a crash dump of the monitor helps nobody and leaks its secrets. */
    madvise(at, size, MADV_DONTDUMP);
    return 0;
}

static int map_all(struct mem *mem)
{
    int ret;

    mem->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem->fd < 0 || ftruncate(mem->fd, (off_t)mem->ram_size) < 0)
        return -errno;
    mem->base =
        mmap(NULL, mem->high_end, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem->base == MAP_FAILED) {
        mem->base = NULL;
        return -errno;
    }
    ret = map_ram(mem, 0, mem->low_end, 0);
    if (ret == 0 && mem->high_end > MEM_HOLE_END)
        ret = map_ram(mem, MEM_HOLE_END, mem->high_end - MEM_HOLE_END, mem->low_end);
    return ret;
}

static int add_regions(struct mem *mem)
{
    int ret = mem_region_add_own(mem, "conventional memory", 0, MEM_VGA_START, 0);

    if (ret == 0)
        ret = mem_region_add_own(mem, "low memory", MEM_VGA_END, mem->low_end - MEM_VGA_END,
                                 MEM_VGA_END);
    if (ret == 0 && mem->high_end > MEM_HOLE_END)
        ret = mem_region_add_own(mem, "high memory", MEM_HOLE_END, mem->high_end - MEM_HOLE_END,
                                 mem->low_end);
    return ret;
}

/* With RAM_BYTES that are not mapped yet. */
static struct mem *new_mem(uint64_t ram_bytes, struct error *err)
{
    struct mem *mem = calloc(1, sizeof(*mem));

    if (!mem) {
        error_set(err, ENOMEM, "no memory for the guest memory map");
        return NULL;
    }
    mem->ram_size = ram_bytes;
    mem->low_end = MIN(ram_bytes, MEM_HOLE_START);
    mem->high_end = MEM_HOLE_END + (ram_bytes - mem->low_end);
    mem->fd = -1;
    mem->pin_limit = MEM_PIN_LIMIT;
    pthread_mutex_init(&mem->lock, NULL);
    pthread_cond_init(&mem->changed, NULL);
    pthread_rwlock_init(&mem->listening, NULL);
    mem_manager_init(mem);
    return mem;
}

struct mem *mem_create_empty(struct error *err)
{
    return new_mem(0, err);
}

struct mem *mem_create(uint64_t ram_bytes, struct error *err)
{
    struct mem *mem;
    int ret;

    if (ram_bytes % MEM_PAGE_SIZE || ram_bytes < MiB || ram_bytes > UINT64_C(1) << 46) {
        error_set(err, EINVAL, "guest memory of %llu bytes: must be a multiple of 4096, 1 MiB up",
                  (unsigned long long)ram_bytes);
        return NULL;
    }
    mem = new_mem(ram_bytes, err);
    if (!mem)
        return NULL;
    ret = map_all(mem);
    if (ret == 0)
        ret = add_regions(mem);
    if (ret < 0) {
        error_set(err, -ret, "cannot map %llu MiB of guest memory: %s",
                  (unsigned long long)(ram_bytes / MiB), strerror(-ret));
        mem_destroy(mem);
        return NULL;
    }
    if (lost_watch(&mem->lost, mem->base, mem->high_end, err) < 0) {
        mem_destroy(mem);
        return NULL;
    }
    return mem;
}

void mem_destroy(struct mem *mem)
{
    if (!mem)
        return;
    mem_change_end(mem);
    pthread_cond_destroy(&mem->manager.posted);
    if (mem->ram_size)
        lost_unwatch(&mem->lost);
    mem_regions_free(mem);
    mem_pool_destroy(mem->pool);
    pthread_rwlock_destroy(&mem->listening);
    pthread_cond_destroy(&mem->changed);
    pthread_mutex_destroy(&mem->lock);
    if (mem->base)
        munmap(mem->base, mem->high_end);
    if (mem->fd >= 0)
        close(mem->fd);
    free(mem);
}

uint64_t mem_ram_size(const struct mem *mem)
{
    return mem->ram_size;
}

uint64_t mem_low_end(const struct mem *mem)
{
    return mem->low_end;
}

uint64_t mem_high_end(const struct mem *mem)
{
    return mem->high_end;
}

uint64_t mem_gpn_limit(const struct mem *mem)
{
    uint64_t end = mem->high_end > MEM_HOLE_END ? mem->high_end : mem->low_end;

    return end >> MEM_PAGE_SHIFT;
}

bool mem_is_own(const struct mem *mem, uint64_t gpn, const void *host)
{
    return gpn < mem_gpn_limit(mem) && (const uint8_t *)host == mem->base + (gpn << MEM_PAGE_SHIFT);
}

void *mem_ram_base(const struct mem *mem)
{
    return mem->base;
}

uint64_t mem_resident(const struct mem *mem)
{
    uint64_t shared = mem->pool ? mem_pool_resident(mem->pool) : 0;
    struct stat st;

    /* For a memfd the blocks are the pages that have been touched. */
    return (fstat(mem->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0) + shared;
}

/* All of R is written to. */
static void mark_all(struct mem_region *r)
{
    pthread_mutex_lock(&r->mem->lock);
    for (uint64_t page = 0; (r->log || r->own_log) && page < r->pages; page++)
        mem_mark(r, page);
    pthread_mutex_unlock(&r->mem->lock);
}

/* Has mem_change skip all pages, or no longer. Otherwise the manager's thread could put a page away
 * between mem_words_clear and mem_punch, and its old bytes would come back after the reset. */
static void set_clearing(struct mem *mem, bool clearing)
{
    pthread_mutex_lock(&mem->lock);
    mem->clearing = clearing;
    pthread_mutex_unlock(&mem->lock);
}

static int clear_regions(struct mem *mem, struct error *err)
{
    for (struct mem_region *r = mem->regions; r; r = r->next) {
        int ret;

        if (r->kind != MEM_RAM)
            continue;
        mem_words_clear(r);
        ret = mem_punch(r, 0, r->pages);
        if (ret < 0)
            return error_set(err, -ret, "cannot clear guest memory: %s", strerror(-ret));
        mark_all(r);
        if (r->first != NOWHERE)
            mem_tell_written(mem, r->first << MEM_PAGE_SHIFT, r->pages << MEM_PAGE_SHIFT);
    }
    return 0;
}

int mem_clear(struct mem *mem, struct error *err)
{
    const struct mem_range all = {0, UINT64_MAX, NULL};
    int ret;

    set_clearing(mem, true);
    mem_tell_invalidated(mem, &all, 1, MEM_READ);
    mem_settle(mem);
    ret = clear_regions(mem, err);
    set_clearing(mem, false);
    return ret;
}

void mem_on_lost(struct mem *mem, void (*lost)(void *opaque), void *opaque)
{
    mem->lost.opaque = opaque;
    mem->lost.on_first = lost;
}

bool mem_lost(const struct mem *mem, uint64_t *gpa)
{
    uint64_t first = atomic_load(&mem->lost.first);

    if (first)
        *gpa = first - 1;
    return first != 0;
}
