/*
 * Copies into and out of guest memory, a page at a time: under the lock, so that the page stays
 * where it is meanwhile.
 */
#include "mem/mem_private.h"

#include <errno.h>
#include <string.h>

static bool is_readable(const struct mem_region *r)
{
    return true;
}

static bool is_writable(const struct mem_region *r)
{
    return r->kind != MEM_ROM;
}

/* One page's part of a copy. */
struct part {
    struct mem_region *region;
    uint64_t page;
    uint8_t *host;
    uint64_t size;
};

/* Finds the part of [GPA, GPA + SIZE) in its first page, and makes it present. With the lock. */
static int part_at(struct mem *mem, uint64_t gpa, uint64_t size, enum mem_access access,
                   struct part *part)
{
    uint64_t offset = gpa & (MEM_PAGE_SIZE - 1);
    int ret =
        mem_fault_locked(mem, gpa >> MEM_PAGE_SHIFT, access, false, &part->region, &part->page);
    const void *host;

    if (ret < 0)
        return ret;
    host = mem_present(part->region, part->page, mem_word(part->region, part->page));
    part->host = (uint8_t *)(uintptr_t)host + offset;
    part->size = MIN(size, MEM_PAGE_SIZE - offset);
    return 0;
}

int mem_read(struct mem *mem, uint64_t gpa, void *buf, uint64_t size)
{
    int ret = mem_covers(mem, gpa, size, is_readable) ? 0 : -EFAULT;
    uint8_t *to = buf;

    while (ret == 0 && size) {
        struct part part;

        pthread_mutex_lock(&mem->lock);
        ret = part_at(mem, gpa, size, MEM_READ, &part);
        if (ret == 0)
            memcpy(to, part.host, part.size);
        pthread_mutex_unlock(&mem->lock);
        if (ret < 0)
            break;
        to += part.size;
        gpa += part.size;
        size -= part.size;
    }
    return ret;
}

/* Writes FROM, or BYTE if that is NULL. */
static int store(struct mem *mem, uint64_t gpa, const uint8_t *from, uint8_t byte, uint64_t size)
{
    int ret = mem_covers(mem, gpa, size, is_writable) ? 0 : -EFAULT;
    uint64_t done = 0;

    while (ret == 0 && done < size) {
        struct part part;

        pthread_mutex_lock(&mem->lock);
        ret = part_at(mem, gpa + done, size - done, MEM_WRITE, &part);
        if (ret == 0 && from)
            memcpy(part.host, from + done, part.size);
        else if (ret == 0)
            memset(part.host, byte, part.size);
        if (ret == 0)
            mem_mark(part.region, part.page); /* after: a fetch in between would miss it */
        pthread_mutex_unlock(&mem->lock);
        done += ret == 0 ? part.size : 0;
    }
    if (done)
        mem_tell_written(mem, gpa, done);
    return ret;
}

int mem_write(struct mem *mem, uint64_t gpa, const void *buf, uint64_t size)
{
    return store(mem, gpa, buf, 0, size);
}

int mem_fill(struct mem *mem, uint64_t gpa, uint8_t byte, uint64_t size)
{
    return store(mem, gpa, NULL, byte, size);
}
