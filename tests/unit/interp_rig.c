/*
 * The machine that interp_rig.h describes.
 */
#include "interp_rig.h"

#include "../emulated.h"

#include "base/loop.h"
#include "base/util.h"
#include "cpu/interp/interp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PTE_P 1u
#define PTE_W 2u
#define PTE_U 4u

static int apic_pending(void *apic)
{
    return ((struct rig_apic *)apic)->vector;
}

static int apic_ack(void *apic)
{
    struct rig_apic *a = apic;
    int vector = a->vector;

    a->vector = -1;
    return vector;
}

static int apic_msr_read(void *apic, uint32_t msr, uint64_t *value)
{
    *value = ((struct rig_apic *)apic)->msr_value;
    return 0;
}

static int apic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    struct rig_apic *a = apic;

    a->msr = msr;
    a->msr_value = value;
    return 0;
}

static uint64_t apic_mmio_read(void *apic, uint32_t offset, unsigned size)
{
    return offset;
}

static void apic_mmio_write(void *apic, uint32_t offset, unsigned size, uint64_t value)
{
}

static uint64_t apic_base(void *apic)
{
    return UINT64_MAX;
}

static unsigned apic_get_cr8(void *apic)
{
    return 0;
}

static void apic_set_cr8(void *apic, unsigned value)
{
}

static const struct apic_ops apic_ops = {
    .pending = apic_pending,
    .ack = apic_ack,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .mmio_read = apic_mmio_read,
    .mmio_write = apic_mmio_write,
    .base = apic_base,
    .get_cr8 = apic_get_cr8,
    .set_cr8 = apic_set_cr8,
};

static const uint64_t gdt[] = {
    0,
    0x00AF9B000000FFFF, /* 64-bit code */
    0x00CF93000000FFFF, /* data */
    0x00CF9B000000FFFF, /* 32-bit code */
    0x00009B000000FFFF, /* 16-bit code, 64 KiB */
    0x000093000000FFFF, /* data for it */
    0x00CFFB000000FFFF, /* user: 32-bit code */
    0x00CFF3000000FFFF, /* data */
    0x00AFFB000000FFFF, /* 64-bit code */
};

void rig_put64(struct rig *rig, uint64_t gpa, uint64_t value)
{
    mem_write(rig->machine.mem, gpa, &value, 8);
}

void rig_map(struct rig *rig, uint64_t va, uint64_t gpa, uint64_t flags)
{
    uint64_t table = RIG_TABLES;

    for (int shift = 39; shift > 12; shift -= 9) {
        uint64_t at = table + (va >> shift & 511) * 8, entry = 0;

        mem_read(rig->machine.mem, at, &entry, 8);
        if (!(entry & PTE_P)) {
            entry = rig->next_table | PTE_P | PTE_W | PTE_U;
            rig->next_table += MEM_PAGE_SIZE;
            rig_put64(rig, at, entry);
        }
        table = entry & 0xFFFFFFFFFF000;
    }
    rig_put64(rig, table + (va >> 12 & 511) * 8, gpa | flags);
}

void rig_clear(struct rig *rig)
{
    struct mem *mem = rig->machine.mem;

    mem_fill(mem, 0, 0, MEM_VGA_START);
    mem_fill(mem, MEM_VGA_END, 0, RIG_RAM - MEM_VGA_END);
    rig->next_table = RIG_TABLES + MEM_PAGE_SIZE;
    for (uint64_t page = 0; page < RIG_RAM; page += MEM_PAGE_SIZE)
        rig_map(rig, page, page, PTE_P | PTE_W | PTE_U);
    for (unsigned v = 0; v < 256; v++) {
        uint64_t handler = RIG_HANDLERS + v, dpl = v == X86_BP ? 3 : 0;

        rig_put64(rig, RIG_IDT64 + v * 16, handler | RIG_CODE64 << 16 | (0x8E00 | dpl << 13) << 32);
        rig_put64(rig, RIG_IDT32 + v * 8, handler | RIG_CODE32 << 16 | (0x8E00 | dpl << 13) << 32);
        mem_write(mem, RIG_IVT + v * 4ULL, &(uint32_t){RIG_HANDLERS + v}, 4);
    }
    mem_fill(mem, RIG_HANDLERS, 0xF4, 256);
    mem_write(mem, RIG_GDT, gdt, sizeof(gdt));
    rig_put64(rig, RIG_GDT + RIG_TSS, 0x67 | RIG_TSS64 << 16 | 0x8BULL << 40);
    rig_put64(rig, RIG_TSS64 + 4, RIG_STACK);
    rig_put64(rig, RIG_TSS64 + 0x60, 0x68ULL << 48); /* no I/O permission bitmap */
    rig_put64(rig, RIG_TSS32 + 4, RIG_STACK | (uint64_t)RIG_DATA << 32);
    rig_put64(rig, RIG_TSS32 + 0x60, 0x68ULL << 48);
}

struct x86_seg rig_segment(uint16_t selector)
{
    uint64_t low = gdt[selector / 8];
    uint16_t attr = (uint16_t)(low >> 40 & 0xF0FF);

    return (struct x86_seg){
        .limit = attr & X86_ATTR_G ? 0xFFFFFFFF : 0xFFFF, .attr = attr, .selector = selector};
}

static void common_state(struct rig *rig, struct x86_cpu *cpu, uint64_t rip)
{
    x86_cpu_reset(cpu);
    cpu->reg[X86_RDX] = 0;
    cpu->reg[X86_RIP] = rip;
    cpu->reg[X86_RSP] = RIG_STACK;
    cpu->activity = X86_RUNNING;
    cpu->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP;
    cpu->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_FSGSBASE;
    cpu->xcr0 = X86_XCR0_ALL;
    cpu->gdtr = (struct x86_dtr){RIG_GDT, RIG_TSS + 15};
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        cpu->seg[i] = rig_segment(RIG_DATA);
}

void rig_state_32(struct rig *rig, struct x86_cpu *cpu, uint64_t rip)
{
    common_state(rig, cpu, rip);
    cpu->seg[X86_CS] = rig_segment(RIG_CODE32);
    cpu->idtr = (struct x86_dtr){RIG_IDT32, 256 * 8 - 1};
    cpu->tr = (struct x86_seg){RIG_TSS32, 0x67, 0x8B, RIG_TSS};
}

void rig_state_64(struct rig *rig, struct x86_cpu *cpu, uint64_t rip)
{
    common_state(rig, cpu, rip);
    cpu->seg[X86_CS] = rig_segment(RIG_CODE64);
    cpu->idtr = (struct x86_dtr){RIG_IDT64, 256 * 16 - 1};
    cpu->tr = (struct x86_seg){RIG_TSS64, 0x67, 0x8B, RIG_TSS};
    cpu->cr0 |= X86_CR0_PG;
    cpu->cr3 = RIG_TABLES;
    cpu->cr4 |= X86_CR4_PAE;
    cpu->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
}

void rig_state_real(struct rig *rig, struct x86_cpu *cpu, uint16_t ip)
{
    common_state(rig, cpu, ip);
    cpu->cr0 &= ~(uint64_t)X86_CR0_PE;
    cpu->idtr = (struct x86_dtr){RIG_IVT, 0x3FF};
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        cpu->seg[i] = (struct x86_seg){.limit = 0xFFFF, .attr = 0x93};
}

/* Ends the program as one that cannot be run here, if the host does not have what the engine needs.
 */
static void fit_model(struct x86_model *model)
{
    struct error err = {0};

    if (!RIG_ENGINE.restrict_model || RIG_ENGINE.restrict_model(model, &err) == 0)
        return;
    fprintf(stderr, "rig: not run: %s\n", err.text);
    exit(RIG_SKIPPED);
}

bool rig_is_kvm(void)
{
    return !strcmp(RIG_ENGINE.name, kvm_engine.name);
}

bool rig_is_emulated(void)
{
    return engine_is_emulated(&RIG_ENGINE);
}

struct rig *rig_create(unsigned cpus, size_t arena)
{
    struct rig *rig = aligned_alloc(64, ALIGN_UP(sizeof(*rig), 64));
    struct error err = {0};
    struct machine *m;

    if (!rig)
        return NULL;
    *rig = (struct rig){.machine = {.cpus = cpus, .measure = true}};
    m = &rig->machine;
    m->mem = mem_create(RIG_RAM, &err);
    m->bus = m->mem ? bus_create(&err) : NULL;
    rig->loop = m->bus ? loop_create(&err) : NULL; /* never started: no timers here */
    m->clock = rig->loop ? clock_create(rig->loop, m->bus, &err) : NULL;
    if (m->clock) {
        x86_model_default(&m->model, cpus, clock_tsc_hz(m->clock));
        fit_model(&m->model);
        rig->engine = RIG_ENGINE.create(m, &err);
    }
    if (rig->engine && arena)
        interp_of((struct core *)rig->engine)->arena_size = arena;
    for (unsigned i = 0; i < cpus; i++) {
        struct rig_cpu *c = &rig->cpu[i];

        c->apic.vector = -1;
        c->port = (struct cpu_port){.id = i, .apic_ops = &apic_ops, .apic = &c->apic};
        c->vcpu = rig->engine ? RIG_ENGINE.vcpu_create(rig->engine, &c->port, &err) : NULL;
        if (!c->vcpu) {
            fprintf(stderr, "rig: %s\n", err.text);
            rig_destroy(rig);
            return NULL;
        }
    }
    rig_clear(rig);
    return rig;
}

void rig_destroy(struct rig *rig)
{
    for (unsigned i = 0; i < RIG_CPUS; i++)
        RIG_ENGINE.vcpu_destroy(rig->cpu[i].vcpu);
    RIG_ENGINE.destroy(rig->engine);
    if (rig->machine.clock)
        clock_destroy(rig->machine.clock);
    if (rig->loop)
        loop_destroy(rig->loop);
    if (rig->machine.bus)
        bus_destroy(rig->machine.bus);
    if (rig->machine.mem)
        mem_destroy(rig->machine.mem);
    free(rig);
}

/* Takes the counter of OPAQUE's group and name. */
static void take_counter(void *opaque, const struct engine_counter *counter)
{
    struct engine_counter *wanted = opaque;

    if (!strcmp(counter->group, wanted->group) && !strcmp(counter->name, wanted->name))
        *wanted = *counter;
}

struct engine_counter rig_counter(const struct rig *rig, const char *group, const char *name)
{
    struct engine_counter counter = {.group = group, .name = name};

    rig->engine->ops->counters(rig->cpu[0].vcpu, take_counter, &counter);
    return counter;
}

uint64_t rig_count(const struct rig *rig, const char *group, const char *name)
{
    return rig_counter(rig, group, name).count;
}

uint64_t rig_exits(const struct rig *rig, enum exit_cause cause)
{
    return rig_count(rig, "exits", exit_cause_name[cause]);
}
