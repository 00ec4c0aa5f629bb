/*
 * Guest memory over one memfd.
 *
 * The whole guest physical space up to the end of RAM is reserved once in the host's address
 * space and the memfd is mapped into the parts of it that are RAM, so the machine page behind a
 * guest page is found by adding. The file gives its pages on first touch and takes them back when
 * a hole is punched into it, which is how reset clears gigabytes at once.
 */
#include "mem/mem.h"

#include "base/util.h"
#include "mem/lost.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mem {
    uint8_t *base; /* where guest physical address 0 is mapped */
    uint64_t ram_size, low_end, high_end;
    int fd;
    struct mem_listener listener;
    struct lost lost;
};

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

    mem->fd = memfd_create("guest-ram", MFD_CLOEXEC);
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

struct mem *mem_create(uint64_t ram_bytes, struct error *err)
{
    struct mem *mem;
    int ret;

    if (ram_bytes % MEM_PAGE_SIZE || ram_bytes < MiB || ram_bytes > UINT64_C(1) << 46) {
        error_set(err, EINVAL, "guest memory of %llu bytes: must be a multiple of 4096, 1 MiB up",
                  (unsigned long long)ram_bytes);
        return NULL;
    }
    mem = calloc(1, sizeof(*mem));
    if (!mem) {
        error_set(err, ENOMEM, "no memory for the guest memory map");
        return NULL;
    }
    mem->ram_size = ram_bytes;
    mem->low_end = MIN(ram_bytes, MEM_HOLE_START);
    mem->high_end = MEM_HOLE_END + (ram_bytes - mem->low_end);
    mem->fd = -1;
    ret = map_all(mem);
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
    lost_unwatch(&mem->lost);
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

uint64_t mem_resident(const struct mem *mem)
{
    struct stat st;

    /* For a memfd the blocks are the pages that have been touched. */
    return fstat(mem->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* Between guest physical addresses of RAM and offsets in the file, which has no gaps. */
static uint64_t to_offset(const struct mem *mem, uint64_t gpa)
{
    return gpa < mem->low_end   ? gpa
           : gpa < MEM_HOLE_END ? mem->low_end
                                : gpa - MEM_HOLE_END + mem->low_end;
}

static uint64_t to_gpa(const struct mem *mem, uint64_t offset)
{
    return offset < mem->low_end ? offset : offset - mem->low_end + MEM_HOLE_END;
}

uint64_t mem_next_touched(const struct mem *mem, uint64_t gpn)
{
    uint64_t limit = mem_gpn_limit(mem), offset;
    off_t found;

    if (gpn >= limit)
        return limit;
    offset = to_offset(mem, gpn << MEM_PAGE_SHIFT);
    if (offset >= mem->ram_size)
        return limit;
    found = lseek(mem->fd, (off_t)offset, SEEK_DATA);
    if (found < 0) /* ENXIO: there is none; else it cannot be found out */
        return errno == ENXIO ? limit : to_gpa(mem, offset) >> MEM_PAGE_SHIFT;
    return to_gpa(mem, (uint64_t)found) >> MEM_PAGE_SHIFT;
}

/* How many bytes of RAM follow GPA without a gap; 0 when GPA is not RAM. */
static inline uint64_t ram_from(const struct mem *mem, uint64_t gpa)
{
    if (gpa < MEM_VGA_START)
        return MEM_VGA_START - gpa;
    if (gpa >= MEM_VGA_END && gpa < mem->low_end)
        return mem->low_end - gpa;
    if (gpa >= MEM_HOLE_END && gpa < mem->high_end)
        return mem->high_end - gpa;
    return 0;
}

bool mem_is_ram(const struct mem *mem, uint64_t gpa, uint64_t size)
{
    return size <= ram_from(mem, gpa);
}

void *mem_page(struct mem *mem, uint64_t gpn)
{
    if (gpn > UINT64_MAX >> MEM_PAGE_SHIFT || ram_from(mem, gpn << MEM_PAGE_SHIFT) == 0)
        return NULL;
    return mem->base + (gpn << MEM_PAGE_SHIFT);
}

static void tell(const struct mem *mem, uint64_t gpa, uint64_t size)
{
    if (mem->listener.written && size)
        mem->listener.written(mem->listener.opaque, gpa, size);
}

int mem_read(struct mem *mem, uint64_t gpa, void *buf, uint64_t size)
{
    if (!mem_is_ram(mem, gpa, size))
        return -EFAULT;
    if (size)
        memcpy(buf, mem->base + gpa, size);
    return 0;
}

int mem_write(struct mem *mem, uint64_t gpa, const void *buf, uint64_t size)
{
    if (!mem_is_ram(mem, gpa, size))
        return -EFAULT;
    if (size)
        memcpy(mem->base + gpa, buf, size);
    tell(mem, gpa, size);
    return 0;
}

int mem_fill(struct mem *mem, uint64_t gpa, uint8_t byte, uint64_t size)
{
    if (!mem_is_ram(mem, gpa, size))
        return -EFAULT;
    if (size)
        memset(mem->base + gpa, byte, size);
    tell(mem, gpa, size);
    return 0;
}

int mem_clear(struct mem *mem, struct error *err)
{
    if (fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)mem->ram_size) < 0)
        return error_set(err, errno, "cannot clear guest memory: %s", strerror(errno));
    tell(mem, 0, mem->low_end);
    if (mem->high_end > MEM_HOLE_END)
        tell(mem, MEM_HOLE_END, mem->high_end - MEM_HOLE_END);
    return 0;
}

void mem_set_listener(struct mem *mem, const struct mem_listener *listener)
{
    mem->listener = listener ? *listener : (struct mem_listener){0};
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
