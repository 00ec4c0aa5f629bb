/*
 * The processor states in which boot protocols enter a kernel (SDM volume 3, 3.4.5 descriptors and
 * 4.5 four-level paging; the Linux, PVH and Multiboot protocols ask for flat segments).
 *
 * GDT and page tables are real ones in guest memory, since a kernel may reload a segment register
 * or a fault may be taken before it has set up its own.
 */
#include "vm/boot/loader.h"

#include "base/util.h"

#include <errno.h>

/* The selectors that Linux's boot protocol prescribes: __BOOT_CS and __BOOT_DS. */
#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18

#define ATTR_FLAT   (X86_ATTR_G | X86_ATTR_P | X86_ATTR_S | X86_ATTR_WRITE | X86_ATTR_ACCESSED)
#define ATTR_DATA   (ATTR_FLAT | X86_ATTR_DB)
#define ATTR_CODE32 (ATTR_FLAT | X86_ATTR_DB | X86_ATTR_CODE)
#define ATTR_CODE64 (ATTR_FLAT | X86_ATTR_L | X86_ATTR_CODE)

#define PTE_P  1ULL
#define PTE_RW 2ULL
#define PTE_PS 0x80ULL

/* A descriptor with base 0 and limit FFFFFh. */
static uint64_t flat_descriptor(unsigned attr)
{
    return (uint64_t)attr << 40 | 0xFULL << 48 | 0xFFFF;
}

static int enter(struct boot_space *space, struct x86_cpu *cpu, uint64_t entry, unsigned code_attr,
                 struct error *err)
{
    const uint64_t gdt[] = {0, 0, flat_descriptor(code_attr), flat_descriptor(ATTR_DATA)};
    uint64_t gpa;
    int r = boot_space_put(space, gdt, sizeof(gdt), &gpa, err);

    if (r < 0)
        return r;
    cpu->gdtr = (struct x86_dtr){.base = gpa, .limit = sizeof(gdt) - 1};
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        cpu->seg[i] = (struct x86_seg){
            .limit = UINT32_MAX,
            .attr = ATTR_DATA,
            .selector = SELECTOR_DATA,
        };
    cpu->seg[X86_CS].attr = code_attr;
    cpu->seg[X86_CS].selector = SELECTOR_CODE;
    for (unsigned i = 0; i < X86_GPRS; i++)
        cpu->reg[i] = 0;
    cpu->reg[X86_RIP] = entry;
    cpu->rflags = X86_FLAG_ONE;
    cpu->cr0 = X86_CR0_PE | X86_CR0_ET;
    cpu->cr4 = 0;
    cpu->efer = 0;
    return 0;
}

int boot_enter_flat32(struct boot_space *space, struct x86_cpu *cpu, uint64_t entry,
                      struct error *err)
{
    return enter(space, cpu, entry, ATTR_CODE32, err);
}

/* One PML4, one page-directory-pointer table, and four directories of 2 MiB pages. */
struct identity_map {
    uint64_t pml4[512], pdpt[512], pd[4][512];
};

static int put_identity_map(struct boot_space *space, uint64_t *cr3, struct error *err)
{
    struct identity_map map = {0};
    int r = boot_space_put(space, NULL, sizeof(map), cr3, err);

    if (r < 0)
        return r;
    map.pml4[0] = (*cr3 + offsetof(struct identity_map, pdpt)) | PTE_P | PTE_RW;
    for (unsigned i = 0; i < ARRAY_SIZE(map.pd); i++) {
        map.pdpt[i] = (*cr3 + offsetof(struct identity_map, pd[i])) | PTE_P | PTE_RW;
        for (uint64_t j = 0; j < 512; j++)
            map.pd[i][j] = (i * GiB + j * 2 * MiB) | PTE_P | PTE_RW | PTE_PS;
    }
    return mem_write(space->mem, *cr3, &map, sizeof(map));
}

int boot_enter_long64(struct boot_space *space, struct x86_cpu *cpu, uint64_t entry,
                      struct error *err)
{
    uint64_t cr3;
    int r = put_identity_map(space, &cr3, err);

    if (r < 0)
        return r;
    r = enter(space, cpu, entry, ATTR_CODE64, err);
    if (r < 0)
        return r;
    cpu->cr3 = cr3;
    cpu->cr4 = X86_CR4_PAE;
    cpu->efer = X86_EFER_LME | X86_EFER_LMA;
    cpu->cr0 |= X86_CR0_PG;
    return 0;
}
