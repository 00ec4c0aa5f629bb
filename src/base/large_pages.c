/*
 * Memory in large pages (madvise(2)).
 */
#include "base/large_pages.h"

#include "base/util.h"

#include <stdint.h>
#include <sys/mman.h>

#define SMALL_PAGE 4096u
#ifndef MADV_COLLAPSE /* of Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

/* Reserves SIZE bytes of address space at a multiple of LARGE_PAGE. Returns NULL on failure. */
static void *reserve(size_t size)
{
    size_t whole = ALIGN_UP(size, SMALL_PAGE), more;
    uint8_t *room, *at;

    room = mmap(NULL, whole + LARGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    at = (uint8_t *)ALIGN_UP((uintptr_t)room, LARGE_PAGE);
    more = LARGE_PAGE - (size_t)(at - room);
    if (at != room)
        munmap(room, (size_t)(at - room));
    if (more)
        munmap(at + whole, more);
    return at;
}

/* Maps FD, or with FLAGS no file, over what reserve has returned. */
static void *map_over(void *at, size_t size, int protection, int flags, int fd)
{
    if (!at || mmap(at, size, protection, MAP_FIXED | flags, fd, 0) != MAP_FAILED)
        return at;
    munmap(at, size);
    return NULL;
}

void *large_pages_map(size_t size)
{
    void *at =
        map_over(reserve(size), size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    if (at)
        madvise(at, size, MADV_HUGEPAGE);
    return at;
}

void *large_pages_map_file(size_t size, int protection, int fd)
{
    return map_over(reserve(size), size, protection, MAP_SHARED, fd);
}

bool large_pages_join(void *at)
{
    return madvise(at, LARGE_PAGE, MADV_COLLAPSE) == 0;
}
