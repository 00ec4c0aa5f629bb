/*
 * Memory for generated code.
 */
#include "cpu/core/code_memory.h"

#include "base/large_pages.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the host is asked for at a time. */
#define PIECE (64 * KiB)

/* When so much of a large page's bytes is in use, the page is made. */
#define JOIN_FROM (4 * PIECE)

/* Fills in M, whose size is set. Returns false on failure, with errno set. */
static bool create(struct code_memory *m, const char *name, uint32_t first)
{
    m->fd = memfd_create(name, MFD_CLOEXEC);
    if (m->fd < 0 || ftruncate(m->fd, m->size) < 0)
        return false;
    m->write = large_pages_map_file(m->size, PROT_READ | PROT_WRITE, m->fd);
    m->run = m->write ? large_pages_map_file(m->size, PROT_READ | PROT_EXEC, m->fd) : NULL;
    return m->run && code_memory_provide(m, first) >= MIN(first, m->size);
}

int code_memory_create(struct code_memory *m, const char *name, uint32_t size, uint32_t first,
                       struct error *err)
{
    int ret;

    *m = (struct code_memory){.size = size, .fd = -1};
    if (create(m, name, first))
        return 0;
    ret = error_set(err, errno, "cannot get memory for generated code: %s", strerror(errno));
    code_memory_destroy(m);
    return ret;
}

void code_memory_destroy(struct code_memory *m)
{
    if (m->write)
        munmap(m->write, m->size);
    if (m->run)
        munmap(m->run, m->size);
    if (m->size && m->fd >= 0)
        close(m->fd);
    *m = (struct code_memory){0};
}

/* Makes a large page of the bytes around the end of what is provided, if it is time to; the other
 * mapping gets it at the next access there. Returns whether it has. */
static bool join(struct code_memory *m)
{
    uint32_t start = (uint32_t)ALIGN_DOWN(m->provided, LARGE_PAGE);

    if (m->provided - start != JOIN_FROM || m->size - start < LARGE_PAGE ||
        !large_pages_join(m->write + start))
        return false;
    m->provided = start + LARGE_PAGE;
    return true;
}

uint32_t code_memory_provide(struct code_memory *m, uint64_t wanted)
{
    while (m->provided < MIN(wanted, m->size)) {
        uint32_t piece = (uint32_t)MIN(PIECE, m->size - m->provided);

        if (join(m))
            continue;
        if (fallocate(m->fd, 0, m->provided, piece) == 0)
            m->provided += piece;
        else if (errno != EINTR)
            break;
    }
    return m->provided;
}
