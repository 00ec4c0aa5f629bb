/*
 * Page tables of every form. See paging.h.
 */
#include "paging.h"
#include "apic.h"
#include "rt.h"

unsigned paging_levels(enum paging form)
{
    return 2 + form;
}

unsigned paging_shift(enum paging form, unsigned level)
{
    return form == PAGING_32 ? 2 + 10 * level : 3 + 9 * level;
}

static unsigned entry_size(enum paging form)
{
    return form == PAGING_32 ? 4 : 8;
}

static u64 load(enum paging form, void *entry)
{
    return form == PAGING_32 ? *(volatile u32 *)entry : *(volatile u64 *)entry;
}

static void store(enum paging form, void *entry, u64 value)
{
    if (form == PAGING_32)
        *(volatile u32 *)entry = (u32)value;
    else
        *(volatile u64 *)entry = value;
}

static void *entry(const struct space *s, word va, unsigned level)
{
    word table = s->root;
    for (unsigned l = paging_levels(s->form);; l--) {
        word size = PAGE / entry_size(s->form);
        word index = va >> paging_shift(s->form, l) & (size - 1);
        void *e = (void *)(table + index * entry_size(s->form));
        if (l == level)
            return e;
        u64 value = load(s->form, e);
        if (!(value & PT_P) || (value & PT_PS && l < 4)) {
            bool bare = s->form == PAGING_PAE && l == 3;
            value = (word)alloc_pages(1, PAGE) | PT_P | (bare ? 0 : PT_W | PT_U);
            store(s->form, e, value);
        }
        table = (word)(value & PT_ADDRESS);
    }
}

u64 entry_read(const struct space *s, word va, unsigned level)
{
    return load(s->form, entry(s, va, level));
}

void entry_write(const struct space *s, word va, unsigned level, u64 value)
{
    store(s->form, entry(s, va, level), value);
}

void map(const struct space *s, word va, u64 pa, unsigned level, u64 bits)
{
    entry_write(s, va, level, pa | bits | (level > 1 ? PT_PS : 0));
}

void space_init(struct space *s, enum paging form)
{
    s->form = form;
    s->root = (word)alloc_pages(1, PAGE);
    if (form == PAGING_PAE) /* all four exist: the processor reads them only with CR3 */
        for (word va = 0; va < 4; va++)
            entry(s, va << 30, 2);
    for (word va = 0; va < 16ul << 20; va += PAGE) {
        bool for_user = va >= (word)rt_user_begin && va < (word)rt_user_end;
        map(s, va, va, 1, PT_P | PT_W | (for_user ? PT_U : 0));
    }
    map(s, APIC_BASE, APIC_BASE, 1, PT_P | PT_W);
}

void space_enter(const struct space *s)
{
    write_cr3(s->root);
#ifndef __x86_64__
    word cr4 = read_cr4() & ~(CR4_PAE | CR4_PSE);
    write_cr4(cr4 | (s->form == PAGING_PAE ? CR4_PAE : CR4_PSE));
    write_cr0(read_cr0() | CR0_PG);
#endif
}

void space_leave(void)
{
#ifdef __x86_64__
    extern u8 rt_boot_pml4[];
    write_cr3((word)rt_boot_pml4);
#else
    write_cr0(read_cr0() & ~CR0_PG);
#endif
}
