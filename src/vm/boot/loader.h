/*
 * What the boot loaders share: the formats' interface, placing things in guest memory, and the
 * processor states in which boot protocols enter a kernel. Private to this folder.
 */
#ifndef DOPPEL_VM_BOOT_LOADER_H
#define DOPPEL_VM_BOOT_LOADER_H

#include "vm/boot/boot.h"

/* One kind of kernel image. SOURCE->kernel is the file as the format knows it: a gzip wrapper
 * around the whole file is off already. */
struct boot_format {
    bool (*recognize)(const uint8_t *file, size_t size);
    /* Checks and unpacks; returns what load and free take, or NULL. */
    void *(*prepare)(const struct boot_source *source, struct error *err);
    int (*load)(const void *prepared, const struct boot_source *source, struct mem *mem,
                struct x86_cpu *cpu, struct error *err);
    const char *(*kind)(const void *prepared);
    void (*free)(void *prepared);
};

extern const struct boot_format boot_bzimage, boot_pvh, boot_multiboot;

/* Which parts of guest memory are RAM, and which of those are taken. */
#define BOOT_SPACE_CLAIMS 64
#define BOOT_NOWHERE      UINT64_MAX
/* The first page is the BIOS's: interrupt vectors and data area. */
#define BOOT_LOW_START 0x1000ULL

struct boot_space {
    struct mem *mem;
    struct boot_range ram[BOOT_RANGES];
    unsigned ram_count;
    struct {
        uint64_t start, end;
    } claim[BOOT_SPACE_CLAIMS];
    unsigned claims;
};

enum boot_direction { BOOT_BOTTOM_UP, BOOT_TOP_DOWN };

void boot_space_init(struct boot_space *space, struct mem *mem);
bool boot_space_is_free(const struct boot_space *space, uint64_t start, uint64_t size);
/* Whether [START, START + SIZE) can be had for WHAT of the file NAME; claim then takes it. */
int boot_space_check(const struct boot_space *space, uint64_t start, uint64_t size,
                     const char *name, const char *what, struct error *err);
int boot_space_claim(struct boot_space *space, uint64_t start, uint64_t size, const char *name,
                     const char *what, struct error *err);
/* Takes SIZE bytes (0 counts as 1) anywhere in [LOW, HIGH). ALIGN is a power of two. Returns the
 * address or BOOT_NOWHERE. */
uint64_t boot_space_place(struct boot_space *space, enum boot_direction direction, uint64_t size,
                          uint64_t align, uint64_t low, uint64_t high);
/* Places SIZE bytes below the EBDA and, unless it is NULL, copies DATA there. */
int boot_space_put(struct boot_space *space, const void *data, uint64_t size, uint64_t *gpa,
                   struct error *err);
/* What to tell the user whose initrd fits nowhere below LIMIT; KERNEL_END: what the kernel takes
 * up. */
int boot_initrd_error(const struct boot_source *source, uint64_t kernel_end, uint64_t limit,
                      struct error *err);

/* 32-bit protected mode: flat segments, paging and interrupts off. */
int boot_enter_flat32(struct boot_space *space, struct x86_cpu *cpu, uint64_t entry,
                      struct error *err);
/* 64-bit mode with the first 4 GiB identity-mapped, interrupts off. */
int boot_enter_long64(struct boot_space *space, struct x86_cpu *cpu, uint64_t entry,
                      struct error *err);

static inline bool boot_range_fits(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

#endif
