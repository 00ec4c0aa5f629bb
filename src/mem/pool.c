/*
 * The pool of shared pages: a memfd, mapped once to write and once to read, and a hash table with
 * chains of slots. The hash depends on a secret that guests do not know, so a guest cannot fill one
 * chain. A search compares a few pages only; a page that it does not find is put there once more.
 */
#include "mem/pool.h"

#include "base/util.h"
#include "mem/mem.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define BUCKET_BITS 16
#define BUCKETS     (1u << BUCKET_BITS)
#define SEARCH_MAX  16

struct slot {
    uint64_t hash;
    uint32_t users;
    uint32_t next; /* in its bucket, or of the free ones; 1 + slot, 0: the last */
    uint32_t prev; /* in its bucket; 1 + slot, 0: the first */
};

struct mem_pool {
    int fd;
    uint8_t *write;
    const uint8_t *read;
    struct lost lost_write, lost_read; /* of the mappings */
    struct slot *slot;
    uint32_t pages, ever, used; /* room; slots that have been used; that have users */
    uint32_t free;              /* 1 + slot */
    uint8_t secret[192];        /* of the hash; XXH3_SECRET_SIZE_MIN or more */
    uint32_t bucket[BUCKETS];   /* 1 + slot */
};

static size_t bytes_of(const struct mem_pool *pool)
{
    return (size_t)pool->pages * MEM_PAGE_SIZE;
}

static bool map(struct mem_pool *pool)
{
    const int flags = MAP_SHARED | MAP_NORESERVE;
    void *write, *read, *slot;

    pool->fd = memfd_create("guest-shared", MFD_CLOEXEC);
    if (pool->fd < 0 || ftruncate(pool->fd, (off_t)bytes_of(pool)) < 0)
        return false;
    write = mmap(NULL, bytes_of(pool), PROT_READ | PROT_WRITE, flags, pool->fd, 0);
    read = mmap(NULL, bytes_of(pool), PROT_READ, flags, pool->fd, 0);
    slot = mmap(NULL, pool->pages * sizeof(struct slot), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    pool->write = write == MAP_FAILED ? NULL : write;
    pool->read = read == MAP_FAILED ? NULL : read;
    pool->slot = slot == MAP_FAILED ? NULL : slot;
    if (!pool->write || !pool->read || !pool->slot)
        return false;
    madvise(pool->write, bytes_of(pool), MADV_DONTDUMP);
    madvise(read, bytes_of(pool), MADV_DONTDUMP);
    return true;
}

/* The host has lost a page of the pool: the VM must end. In a signal handler. */
SIGNALS_SAFE static void on_lost(void *opaque)
{
    struct lost *all = opaque;
    uint64_t none = 0;

    if (atomic_compare_exchange_strong(&all->first, &none, 1) && all->on_first)
        all->on_first(all->opaque);
}

static bool watch(struct mem_pool *pool, struct lost *all)
{
    pool->lost_write.on_first = pool->lost_read.on_first = on_lost;
    pool->lost_write.opaque = pool->lost_read.opaque = all;
    return lost_watch(&pool->lost_write, pool->write, bytes_of(pool), NULL) == 0 &&
           lost_watch(&pool->lost_read, (void *)pool->read, bytes_of(pool), NULL) == 0;
}

struct mem_pool *mem_pool_create(uint32_t pages, struct lost *lost)
{
    struct mem_pool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return NULL;
    pool->pages = pages;
    if (!map(pool) || !watch(pool, lost) ||
        getrandom(pool->secret, sizeof(pool->secret), 0) != (ssize_t)sizeof(pool->secret)) {
        mem_pool_destroy(pool);
        return NULL;
    }
    return pool;
}

void mem_pool_destroy(struct mem_pool *pool)
{
    if (!pool)
        return;
    lost_unwatch(&pool->lost_write);
    lost_unwatch(&pool->lost_read);
    if (pool->write)
        munmap(pool->write, bytes_of(pool));
    if (pool->read)
        munmap((void *)pool->read, bytes_of(pool));
    if (pool->slot)
        munmap(pool->slot, pool->pages * sizeof(struct slot));
    if (pool->fd >= 0)
        close(pool->fd);
    free(pool);
}

const void *mem_pool_page(const struct mem_pool *pool, uint32_t slot)
{
    return pool->read + (size_t)slot * MEM_PAGE_SIZE;
}

uint32_t mem_pool_used(const struct mem_pool *pool)
{
    return pool->used;
}

uint64_t mem_pool_resident(const struct mem_pool *pool)
{
    struct stat st;

    return fstat(pool->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static uint64_t hash_of(const struct mem_pool *pool, const void *page)
{
    return XXH3_64bits_withSecret(page, MEM_PAGE_SIZE, pool->secret, sizeof(pool->secret));
}

static uint32_t *bucket_of(struct mem_pool *pool, uint64_t hash)
{
    return &pool->bucket[hash >> (64 - BUCKET_BITS)];
}

/* The slot of a page with these bytes, or POOL_NONE. */
static uint32_t find(struct mem_pool *pool, const void *page, uint64_t hash)
{
    uint32_t at = *bucket_of(pool, hash);

    for (unsigned looks = 0; at && looks < SEARCH_MAX; at = pool->slot[at - 1].next) {
        if (pool->slot[at - 1].hash != hash)
            continue;
        looks++;
        if (pool->slot[at - 1].users < UINT32_MAX &&
            memcmp(mem_pool_page(pool, at - 1), page, MEM_PAGE_SIZE) == 0)
            return at - 1;
    }
    return POOL_NONE;
}

/* A slot without a user, or POOL_NONE. */
static uint32_t take_free(struct mem_pool *pool)
{
    uint32_t slot;

    if (pool->free) {
        slot = pool->free - 1;
        pool->free = pool->slot[slot].next;
        return slot;
    }
    return pool->ever < pool->pages ? pool->ever++ : POOL_NONE;
}

/* Puts SLOT, which is new, at the front of its bucket. */
static void link_slot(struct mem_pool *pool, uint32_t slot)
{
    uint32_t *bucket = bucket_of(pool, pool->slot[slot].hash);

    pool->slot[slot].next = *bucket;
    pool->slot[slot].prev = 0;
    if (*bucket)
        pool->slot[*bucket - 1].prev = slot + 1;
    *bucket = slot + 1;
}

static void unlink_slot(struct mem_pool *pool, uint32_t slot)
{
    const struct slot *gone = &pool->slot[slot];

    if (gone->prev)
        pool->slot[gone->prev - 1].next = gone->next;
    else
        *bucket_of(pool, gone->hash) = gone->next;
    if (gone->next)
        pool->slot[gone->next - 1].prev = gone->prev;
}

/* Has the host provide the memory behind SLOT now, as a later touch might raise SIGBUS. Returns
 * false if the host has none. */
static bool get_memory(const struct mem_pool *pool, uint32_t slot)
{
    return fallocate(pool->fd, 0, (off_t)slot * MEM_PAGE_SIZE, MEM_PAGE_SIZE) == 0;
}

uint32_t mem_pool_put(struct mem_pool *pool, const void *page)
{
    uint64_t hash = hash_of(pool, page);
    uint32_t slot = find(pool, page, hash);

    if (slot != POOL_NONE) {
        pool->slot[slot].users++;
        return slot;
    }
    slot = take_free(pool);
    if (slot == POOL_NONE)
        return POOL_NONE;
    if (!get_memory(pool, slot)) {
        pool->slot[slot].next = pool->free;
        pool->free = slot + 1;
        return POOL_NONE;
    }
    memcpy(pool->write + (size_t)slot * MEM_PAGE_SIZE, page, MEM_PAGE_SIZE);
    pool->slot[slot] = (struct slot){.hash = hash, .users = 1};
    link_slot(pool, slot);
    pool->used++;
    return slot;
}

void mem_pool_drop(struct mem_pool *pool, uint32_t slot)
{
    struct slot *gone = &pool->slot[slot];

    if (--gone->users)
        return;
    unlink_slot(pool, slot);
    gone->next = pool->free;
    pool->free = slot + 1;
    pool->used--;
    fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)slot * MEM_PAGE_SIZE,
              MEM_PAGE_SIZE);
}
