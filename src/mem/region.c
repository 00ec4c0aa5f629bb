/*
 * Regions: adding, moving and removing them.
 */
#include "mem/mem_private.h"

#include "mem/foreign.h"
#include "mem/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- Creation --------------------------------------------------------------------------------- */

/* Of a region of RAM at GPA. */
static int create_tables(struct mem_region *r, uint64_t gpa)
{
    uint64_t pieces = (r->pages >> PIECE_SHIFT) + 2;
    uint8_t *tables;

    r->tables_size = r->pages * (sizeof(*r->word) + sizeof(*r->pins)) + pieces * sizeof(*r->odd_in);
    tables = mmap(NULL, r->tables_size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (tables == MAP_FAILED) {
        r->tables_size = 0;
        return -errno;
    }
    madvise(tables, r->tables_size, MADV_NOHUGEPAGE); /* one touched page must not cost 2 MiB */
    r->word = (_Atomic uint32_t *)tables;
    r->pins = (uint16_t *)(tables + r->pages * sizeof(*r->word));
    r->odd_in = (_Atomic uint16_t *)(r->pins + r->pages);
    r->skew = gpa >> MEM_PAGE_SHIFT & ((1u << PIECE_SHIFT) - 1);
    return 0;
}

/* The host has no memory for a page of R: it is told as for a page of RAM. In a signal handler. */
SIGNALS_SAFE static void on_lost(void *opaque)
{
    struct mem_region *r = opaque;
    struct lost *all = &r->mem->lost;
    uint64_t none = 0, gpa = r->first == NOWHERE ? 0 : r->first << MEM_PAGE_SHIFT;

    if (atomic_compare_exchange_strong(&all->first, &none, gpa + r->lost.first) && all->on_first)
        all->on_first(all->opaque);
}

/* Maps the region's file, which it has or gets here. */
static int create_memory(struct mem_region *r, struct error *err)
{
    size_t size = r->pages << MEM_PAGE_SHIFT;
    void *host;

    r->own_mapping = true;
    if (r->fd < 0) {
        r->fd = memfd_create("guest-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (r->fd < 0 || ftruncate(r->fd, (off_t)size) < 0)
            return error_set(err, errno, "%s: cannot get its memory: %s", r->name, strerror(errno));
    }
    host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->fd,
                (off_t)r->fd_offset);
    if (host == MAP_FAILED)
        return error_set(err, errno, "%s: cannot map %zu bytes: %s", r->name, size,
                         strerror(errno));
    madvise(host, size, MADV_DONTDUMP);
    r->host = host;
    r->lost.on_first = on_lost;
    r->lost.opaque = r;
    return lost_watch(&r->lost, host, size, err);
}

static void region_free(struct mem_region *r)
{
    if (r->tables_size)
        munmap((void *)r->word, r->tables_size);
    if (r->own_mapping)
        lost_unwatch(&r->lost);
    if (r->own_mapping && r->host)
        munmap(r->host, r->pages << MEM_PAGE_SHIFT);
    if (r->own_mapping && r->fd >= 0)
        close(r->fd);
    mem_bitmap_free(r->log, r->pages);
    mem_bitmap_free(r->own_log, r->pages);
    free(r);
}

static struct mem_region *region_new(struct mem *mem, const struct mem_region_config *config)
{
    struct mem_region *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->mem = mem;
    r->id = atomic_fetch_add(&mem->region_ids, 1);
    r->name = config->name;
    r->kind = config->kind;
    r->pages = config->size >> MEM_PAGE_SHIFT;
    r->first = NOWHERE;
    r->fd = -1;
    return r;
}

int mem_region_add_own(struct mem *mem, const char *name, uint64_t gpa, uint64_t size,
                       uint64_t fd_offset)
{
    struct mem_region_config config = {.name = name, .size = size, .kind = MEM_RAM};
    struct mem_region *r = region_new(mem, &config);
    int ret = r ? create_tables(r, gpa) : -ENOMEM;

    if (ret < 0) {
        if (r)
            region_free(r);
        return ret;
    }
    r->first = gpa >> MEM_PAGE_SHIFT;
    r->host = mem->base + gpa;
    r->fd = mem->fd;
    r->fd_offset = fd_offset;
    r->next = mem->regions;
    mem->regions = r;
    mem->own[mem->own_count++] = (struct mem_own){r->first, r->pages, r};
    mem_table_publish(mem);
    return 0;
}

void mem_regions_free(struct mem *mem)
{
    while (mem->regions) {
        struct mem_region *r = mem->regions;

        mem->regions = r->next;
        region_free(r);
    }
}

/* --- Adding, moving, removing ----------------------------------------------------------------- */

/* A mapped region other than SELF that meets PAGES pages from FIRST on. */
static const struct mem_region *overlapped(const struct mem *mem, const struct mem_region *self,
                                           uint64_t first, uint64_t pages)
{
    for (const struct mem_region *r = mem->regions; r; r = r->next)
        if (r != self && r->first != NOWHERE && first < r->first + r->pages &&
            r->first < first + pages)
            return r;
    return NULL;
}

/* Whether SELF, of PAGES pages, can be at GPA. With the lock. */
static int check_place(const struct mem *mem, const struct mem_region *self, const char *name,
                       uint64_t gpa, uint64_t pages, struct error *err)
{
    const struct mem_region *other;

    if (gpa == MEM_NOWHERE)
        return 0;
    if (gpa % MEM_PAGE_SIZE || gpa >> MEM_PAGE_SHIFT > GPN_LIMIT - pages)
        return error_set(err, EINVAL, "%s: no memory can be at %#llx", name,
                         (unsigned long long)gpa);
    other = overlapped(mem, self, gpa >> MEM_PAGE_SHIFT, pages);
    if (other)
        return error_set(err, EEXIST, "%s: %s is in the way at %#llx", name, other->name,
                         (unsigned long long)gpa);
    return 0;
}

/* Gives R the guest physical address GPA, which is free, and publishes the table. With the lock;
 * the caller tells the listeners after it has released that. */
static void place(struct mem_region *r, uint64_t gpa)
{
    r->first = gpa >> MEM_PAGE_SHIFT;
    mem_table_publish(r->mem);
}

/* Tells of what was and is mapped at GPA by R, which listeners may know by its place. */
static void tell_place(struct mem_region *r, uint64_t gpa)
{
    struct mem_range range = {gpa, r->pages << MEM_PAGE_SHIFT, r->host};

    if (gpa == MEM_NOWHERE)
        return;
    if (atomic_load(&r->odd)) /* some of its pages are elsewhere */
        range = (struct mem_range){0, UINT64_MAX, NULL};
    mem_tell_invalidated(r->mem, &range, 1, MEM_READ);
    mem_tell_written(r->mem, gpa, r->pages << MEM_PAGE_SHIFT);
}

/* Makes all that a new region needs. */
static int prepare(struct mem_region *r, const struct mem_region_config *config, struct error *err)
{
    int ret = create_memory(r, err);

    if (ret == 0 && r->kind == MEM_RAM && create_tables(r, config->gpa) < 0)
        ret = error_set(err, ENOMEM, "%s: out of memory for the states of its pages", r->name);
    if (ret == 0 && config->log && !(r->own_log = mem_bitmap_create(r->pages)))
        ret = error_set(err, ENOMEM, "%s: out of memory for its dirty log", r->name);
    return ret;
}

/* Takes R in, if there is room for it. With the lock. */
static int insert(struct mem_region *r, uint64_t gpa, struct error *err)
{
    struct mem *mem = r->mem;
    int ret = check_place(mem, NULL, r->name, gpa, r->pages, err);

    if (ret < 0)
        return ret;
    if (mem->region_count == MEM_REGIONS_MAX)
        return error_set(err, ENOSPC, "%s: there are %u regions of memory already", r->name,
                         MEM_REGIONS_MAX);
    if (mem->logging && r->kind != MEM_ROM) {
        _Atomic uint64_t *log = mem_bitmap_create(r->pages);

        if (!log)
            return error_set(err, ENOMEM, "%s: out of memory for its dirty log", r->name);
        atomic_store(&r->log, log);
    }
    mem->region_count++;
    r->next = mem->regions;
    mem->regions = r;
    place(r, gpa);
    return 0;
}

/* A region whose memory is FD from OFFSET on, or memory of its own if FD is negative. FD is closed
 * with the region, or here on failure. */
static struct mem_region *add(struct mem *mem, const struct mem_region_config *config, int fd,
                              uint64_t offset, struct error *err)
{
    struct mem_region *r = region_new(mem, config);
    int ret;

    if (!r) {
        if (fd >= 0)
            close(fd);
        error_set(err, ENOMEM, "%s: out of memory", config->name);
        return NULL;
    }
    r->fd = fd;
    r->fd_offset = offset;
    r->own_mapping = true;
    ret = prepare(r, config, err);
    if (ret == 0) {
        pthread_mutex_lock(&mem->lock);
        ret = insert(r, config->gpa, err);
        pthread_mutex_unlock(&mem->lock);
    }
    if (ret < 0) {
        region_free(r);
        return NULL;
    }
    tell_place(r, config->gpa);
    mem_tell_regions(mem);
    return r;
}

static int check_size(const struct mem_region_config *config, struct error *err)
{
    if (config->size && config->size % MEM_PAGE_SIZE == 0 &&
        config->size >> MEM_PAGE_SHIFT <= GPN_LIMIT)
        return 0;
    return error_set(err, EINVAL, "%s: no memory can have %llu bytes", config->name,
                     (unsigned long long)config->size);
}

struct mem_region *mem_region_add(struct mem *mem, const struct mem_region_config *config,
                                  struct error *err)
{
    return check_size(config, err) < 0 ? NULL : add(mem, config, -1, 0, err);
}

/* Whether the file FD has all that the region wants of it. */
static int check_file(const struct mem_region_config *config, int fd, uint64_t offset,
                      struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set(err, errno, "%s: cannot use its file: %s", config->name, strerror(errno));
    if (offset % MEM_PAGE_SIZE || (uint64_t)st.st_size < config->size ||
        offset > (uint64_t)st.st_size - config->size)
        return error_set(err, EINVAL, "%s: its file of %lld bytes does not have %llu from %#llx on",
                         config->name, (long long)st.st_size, (unsigned long long)config->size,
                         (unsigned long long)offset);
    return 0;
}

struct mem_region *mem_region_import(struct mem *mem, const struct mem_region_config *config,
                                     int fd, uint64_t offset, struct error *err)
{
    if (check_size(config, err) == 0 && check_file(config, fd, offset, err) == 0)
        return add(mem, config, fd, offset, err);
    close(fd);
    return NULL;
}

int mem_region_move(struct mem_region *r, uint64_t gpa, struct error *err)
{
    struct mem *mem = r->mem;
    uint64_t before;
    int ret;

    pthread_mutex_lock(&mem->lock);
    before = mem_region_gpa(r);
    ret = r->pinned ? error_set(err, EBUSY, "%s: is in use", r->name)
                    : check_place(mem, r, r->name, gpa, r->pages, err);
    if (ret == 0)
        place(r, gpa);
    pthread_mutex_unlock(&mem->lock);
    if (ret == 0 && gpa != before) {
        tell_place(r, before);
        tell_place(r, gpa);
        mem_tell_regions(mem);
    }
    return ret;
}

/* Takes R out of guest physical space, when nothing in it is in use. */
static void unmap(struct mem_region *r)
{
    struct mem *mem = r->mem;
    uint64_t gpa;

    pthread_mutex_lock(&mem->lock);
    while (r->pinned)
        pthread_cond_wait(&mem->changed, &mem->lock);
    gpa = mem_region_gpa(r);
    place(r, MEM_NOWHERE);
    pthread_mutex_unlock(&mem->lock);
    tell_place(r, gpa);
    mem_tell_regions(mem);
    mem_settle(mem);
}

void mem_region_remove(struct mem_region *r)
{
    struct mem *mem = r->mem;
    struct mem_region **at = &mem->regions;

    unmap(r);
    mem_words_clear(r);
    pthread_mutex_lock(&mem->lock);
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    mem->region_count--;
    pthread_mutex_unlock(&mem->lock);
    region_free(r);
}

/* --- Questions -------------------------------------------------------------------------------- */

uint64_t mem_region_gpa(const struct mem_region *r)
{
    return r->first == NOWHERE ? MEM_NOWHERE : r->first << MEM_PAGE_SHIFT;
}

void *mem_region_host(const struct mem_region *r)
{
    return r->host;
}

void mem_region_written(struct mem_region *r, uint64_t offset, uint64_t size)
{
    uint64_t gpa = mem_region_gpa(r);

    if (!size)
        return;
    pthread_mutex_lock(&r->mem->lock);
    for (uint64_t page = offset >> MEM_PAGE_SHIFT; page <= (offset + size - 1) >> MEM_PAGE_SHIFT;
         page++)
        mem_mark(r, page);
    pthread_mutex_unlock(&r->mem->lock);
    if (gpa != MEM_NOWHERE)
        mem_tell_written(r->mem, gpa + offset, size);
}

bool mem_covers(const struct mem *mem, uint64_t gpa, uint64_t size,
                bool (*fits)(const struct mem_region *r))
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&mem->lock;
    uint64_t gpn = gpa >> MEM_PAGE_SHIFT, last, page;
    bool covered = true;

    if (!size)
        return true;
    if (size - 1 > UINT64_MAX - gpa)
        return false;
    last = (gpa + size - 1) >> MEM_PAGE_SHIFT;
    pthread_mutex_lock(lock); /* mem_region_remove frees regions without waiting for the caller */
    while (covered && gpn <= last) {
        const struct mem_region *r = mem_region_at(mem, gpn, &page);

        covered = r && fits(r);
        gpn += covered ? r->pages - page : 0;
    }
    pthread_mutex_unlock(lock);
    return covered;
}

static bool is_ram(const struct mem_region *r)
{
    return r->kind == MEM_RAM;
}

bool mem_is_ram(const struct mem *mem, uint64_t gpa, uint64_t size)
{
    return mem_covers(mem, gpa, size, is_ram);
}

bool mem_holds_code(const struct mem *mem, uint64_t gpn)
{
    uint64_t page;
    const struct mem_region *r = mem_region_at(mem, gpn, &page);

    return r && r->kind != MEM_DEVICE;
}
