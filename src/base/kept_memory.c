/*
 * Memory that a kept process shares with the process that uses it.
 */
#include "base/kept_memory.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Rings ---- */

bool kept_index_publish(struct kept_index *index, uint32_t written)
{
    atomic_store_explicit(&index->written, written, memory_order_release);
    /* The reader says that it sleeps and then looks once more. Either it sees the entry, or this
     * side sees that it sleeps. */
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&index->sleeps, memory_order_relaxed) &&
           atomic_exchange(&index->sleeps, 0);
}

uint32_t kept_index_ahead(const struct kept_index *index, uint32_t read)
{
    return atomic_load_explicit(&index->written, memory_order_acquire) - read;
}

bool kept_index_sleeps(struct kept_index *index, uint32_t read)
{
    atomic_store_explicit(&index->sleeps, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return kept_index_ahead(index, read) == 0;
}

/* ---- The memory ---- */

int kept_memory_make(uint64_t size, int files[KEPT_FILES], void **memory, struct error *err)
{
    files[KEPT_REQUEST_EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    files[KEPT_RESULT_EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (files[KEPT_REQUEST_EVENT] < 0 || files[KEPT_RESULT_EVENT] < 0)
        return error_set(err, errno, "cannot make event files: %s", strerror(errno));
    files[KEPT_MEMORY] = memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (files[KEPT_MEMORY] < 0 || ftruncate(files[KEPT_MEMORY], (off_t)size) < 0 ||
        fcntl(files[KEPT_MEMORY], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set(err, errno, "cannot get memory to share: %s", strerror(errno));
    return kept_memory_map(files[KEPT_MEMORY], size, memory, err);
}

int kept_memory_map(int fd, uint64_t size, void **memory, struct error *err)
{
    struct stat st;
    void *mapped;

    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
        return error_set(err, EINVAL, "the shared memory is not as it should be");
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return error_set(err, errno, "cannot map the shared memory: %s", strerror(errno));
    *memory = mapped;
    return 0;
}

void kept_memory_drop(uint64_t size, int files[KEPT_FILES], void *memory)
{
    if (memory)
        munmap(memory, size);
    for (unsigned i = 0; i < KEPT_FILES; i++) {
        if (files[i] >= 0)
            close(files[i]);
        files[i] = -1;
    }
}

bool kept_wait(int link, int event, bool may_sleep)
{
    /* Of the link only its end is of interest, which poll always tells. */
    struct pollfd pfd[] = {{link, 0, 0}, {event, POLLIN, 0}};
    uint64_t count;

    if (poll(pfd, ARRAY_SIZE(pfd), may_sleep ? -1 : 0) < 0)
        return true;
    if (pfd[0].revents & (POLLHUP | POLLERR))
        return false;
    if (pfd[1].revents && read(event, &count, sizeof(count)) < 0)
        return true; /* somebody else has cleared it */
    return true;
}

void kept_wake(int event)
{
    const uint64_t one = 1;

    if (write(event, &one, sizeof(one)) < 0)
        return; /* it has events enough */
}

/* ---- Pages ---- */

int kept_pages_init(struct kept_pages *p, uint32_t count)
{
    *p = (struct kept_pages){.count = count};
    p->used = calloc((count + 63) / 64, sizeof(*p->used));
    return p->used ? 0 : -ENOMEM;
}

void kept_pages_free(struct kept_pages *p)
{
    free(p->used);
    p->used = NULL;
}

static bool is_used(const struct kept_pages *p, uint32_t page)
{
    return p->used[page / 64] >> page % 64 & 1;
}

static void mark(struct kept_pages *p, uint32_t page, uint32_t count, bool used)
{
    for (uint32_t n = 0; n < count; n++, page++) {
        uint64_t bit = UINT64_C(1) << page % 64;

        p->used[page / 64] = (p->used[page / 64] & ~bit) | (used ? bit : 0);
    }
}

/* How many pages from PAGE on are free, up to MOST. */
static uint32_t free_run(const struct kept_pages *p, uint32_t page, uint32_t most)
{
    uint32_t count = 0;

    while (count < most && page + count < p->count && !is_used(p, page + count))
        count++;
    return count;
}

uint32_t kept_pages_take(struct kept_pages *p, uint32_t least, uint32_t most, uint32_t *first)
{
    for (uint32_t tried = 0, step; tried < p->count; tried += step) {
        uint32_t page = (p->next + tried) % p->count, count = free_run(p, page, most);

        if (count >= least && count > 0) {
            mark(p, page, count, true);
            p->next = (page + count) % p->count;
            *first = page;
            return count;
        }
        step = count + 1;
    }
    return 0;
}

void kept_pages_give(struct kept_pages *p, uint32_t first, uint32_t count)
{
    mark(p, first, count, false);
}
