/*
 * Placing things in guest memory so that they lie in RAM and never on top of each other.
 */
#include "vm/boot/loader.h"

#include "base/util.h"

#include <errno.h>

unsigned boot_memory_map(const struct mem *mem, struct boot_range ranges[BOOT_RANGES])
{
    const struct {
        uint64_t start, end;
        uint32_t type;
    } map[] = {
        {0, BOOT_EBDA_START, 1},
        {BOOT_EBDA_START, MEM_VGA_START, 2},
        {BOOT_TABLES_START, BOOT_TABLES_END, 2},
        {BOOT_TABLES_END, mem_low_end(mem), 1},
        {MEM_HOLE_END, mem_high_end(mem), 1},
    };
    unsigned count = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
        if (map[i].end > map[i].start)
            ranges[count++] = (struct boot_range){
                .start = map[i].start,
                .size = map[i].end - map[i].start,
                .type = map[i].type,
            };
    return count;
}

void boot_space_init(struct boot_space *space, struct mem *mem)
{
    struct boot_range map[BOOT_RANGES];
    unsigned count = boot_memory_map(mem, map);

    *space = (struct boot_space){.mem = mem};
    for (unsigned i = 0; i < count; i++)
        if (map[i].type == 1)
            space->ram[space->ram_count++] = map[i];
}

static bool is_ram(const struct boot_space *space, uint64_t start, uint64_t size)
{
    for (unsigned i = 0; i < space->ram_count; i++) {
        const struct boot_range *ram = &space->ram[i];

        if (start >= ram->start && boot_range_fits(start - ram->start, size, ram->size))
            return true;
    }
    return false;
}

/* The index of a claim that overlaps [START, START + SIZE), or -1. */
static int overlapping(const struct boot_space *space, uint64_t start, uint64_t size)
{
    for (unsigned i = 0; i < space->claims; i++)
        if (start < space->claim[i].end && space->claim[i].start < start + size)
            return (int)i;
    return -1;
}

bool boot_space_is_free(const struct boot_space *space, uint64_t start, uint64_t size)
{
    return is_ram(space, start, size) && overlapping(space, start, size) < 0;
}

static bool add_claim(struct boot_space *space, uint64_t start, uint64_t size)
{
    if (space->claims == BOOT_SPACE_CLAIMS)
        return false;
    space->claim[space->claims].start = start;
    space->claim[space->claims++].end = start + size;
    return true;
}

int boot_space_check(const struct boot_space *space, uint64_t start, uint64_t size,
                     const char *name, const char *what, struct error *err)
{
    if (!is_ram(space, start, size)) {
        uint64_t end = start + size;

        if (end >= start && end <= MEM_HOLE_START && start >= BOOT_TABLES_END)
            return error_set(err, ENOMEM,
                             "%s: %s ends at %llu MiB: give the machine at least %llu MiB of "
                             "memory",
                             name, what, ALIGN_UP(end, MiB) / MiB, ALIGN_UP(end, MiB) / MiB);
        return error_set(err, EFBIG,
                         "%s: %s (%#llx bytes at %#llx) lies where a PC has no RAM: the image "
                         "cannot be booted on this machine",
                         name, what, (unsigned long long)size, (unsigned long long)start);
    }
    if (overlapping(space, start, size) >= 0)
        return error_set(err, EINVAL,
                         "%s: %s (%#llx bytes at %#llx) overlaps another part of the image: the "
                         "file is corrupted",
                         name, what, (unsigned long long)size, (unsigned long long)start);
    return 0;
}

int boot_space_claim(struct boot_space *space, uint64_t start, uint64_t size, const char *name,
                     const char *what, struct error *err)
{
    int r = boot_space_check(space, start, size, name, what, err);

    if (r == 0 && !add_claim(space, start, size))
        return error_set(err, E2BIG, "%s: the image has too many parts", name);
    return r;
}

/* The free address nearest to that end of [LOW, HIGH) that DIRECTION starts from. */
static uint64_t find(const struct boot_space *space, enum boot_direction direction, uint64_t size,
                     uint64_t align, uint64_t low, uint64_t high)
{
    uint64_t at = direction == BOOT_TOP_DOWN ? high : ALIGN_UP(low, align);

    for (;;) {
        int hit;

        if (direction == BOOT_TOP_DOWN) {
            if (at < size || ALIGN_DOWN(at - size, align) < low)
                return BOOT_NOWHERE;
            at = ALIGN_DOWN(at - size, align);
        } else if (!boot_range_fits(at, size, high)) {
            return BOOT_NOWHERE;
        }
        hit = overlapping(space, at, size);
        if (hit < 0)
            return at;
        at = direction == BOOT_TOP_DOWN ? space->claim[hit].start
                                        : ALIGN_UP(space->claim[hit].end, align);
    }
}

uint64_t boot_space_place(struct boot_space *space, enum boot_direction direction, uint64_t size,
                          uint64_t align, uint64_t low, uint64_t high)
{
    size = MAX(size, 1);
    for (unsigned i = 0; i < space->ram_count; i++) {
        unsigned which = direction == BOOT_TOP_DOWN ? space->ram_count - 1 - i : i;
        const struct boot_range *ram = &space->ram[which];
        uint64_t at = find(space, direction, size, align, MAX(low, ram->start),
                           MIN(high, ram->start + ram->size));

        if (at != BOOT_NOWHERE)
            return add_claim(space, at, size) ? at : BOOT_NOWHERE;
    }
    return BOOT_NOWHERE;
}

int boot_space_put(struct boot_space *space, const void *data, uint64_t size, uint64_t *gpa,
                   struct error *err)
{
    *gpa = boot_space_place(space, BOOT_BOTTOM_UP, size, MEM_PAGE_SIZE, BOOT_LOW_START,
                            BOOT_EBDA_START);
    if (*gpa == BOOT_NOWHERE || (data && mem_write(space->mem, *gpa, data, size) < 0))
        return error_set(err, ENOMEM,
                         "no room below 640 KiB for %llu bytes of boot data: shorten the command "
                         "line, or use a kernel that is loaded above 1 MiB",
                         (unsigned long long)size);
    return 0;
}

int boot_initrd_error(const struct boot_source *source, uint64_t kernel_end, uint64_t limit,
                      struct error *err)
{
    const char *name = source->initrd_name ? source->initrd_name : "initrd";
    uint64_t mib = ALIGN_UP(source->initrd_size, MiB) / MiB;
    uint64_t need;

    if (!boot_range_fits(kernel_end, source->initrd_size, MIN(limit, MEM_HOLE_START)))
        return error_set(err, EFBIG,
                         "%s: the initrd (%llu MiB) is too large: this kernel takes one only below "
                         "%llu MiB; use a smaller one",
                         name, (unsigned long long)mib, (unsigned long long)(limit / MiB));
    /* A page more, for its alignment. */
    need = ALIGN_UP(kernel_end + source->initrd_size + MEM_PAGE_SIZE, MiB) / MiB;
    return error_set(err, ENOMEM,
                     "%s: the initrd (%llu MiB) is too large for memory: give the machine at least "
                     "%llu MiB, or use a smaller initrd",
                     name, (unsigned long long)mib, (unsigned long long)need);
}
