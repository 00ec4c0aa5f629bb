/*
 * Runs a case in an engine: as CPL 3 code of a tiny guest that has the window of pages at the same
 * addresses with the same rights, and Linux's selectors. Every exception ends in a HLT at CPL 0,
 * which one it was shows in RIP, and the rest is on the kernel stack (SDM volume 3, 6.14).
 */
#include "engine.h"

#include "../emulated.h"

#include "base/loop.h"
#include "base/time.h"
#include "base/util.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM       (4 * MiB)
#define TABLES    0x1000ULL   /* page tables grow from here */
#define WINDOW    0x100000ULL /* the window's pages */
#define KERNEL    0x200000ULL /* one page each: IDT, GDT and TSS, stubs, stack */
#define KERNEL_VA 0xFFFFFFFF80000000ULL
#define IDT       (KERNEL + 0x0000)
#define GDT       (KERNEL + 0x1000)
#define LDT       (KERNEL + 0x1400)
#define TSS       (KERNEL + 0x1800)
#define STUBS     (KERNEL + 0x2000) /* byte V is the handler of vector V: HLT */
#define STACK_TOP (KERNEL + 0x4000)

#define PTE_P  1ULL
#define PTE_W  2ULL
#define PTE_U  4ULL
#define PTE_NX (1ULL << 63)

/* Linux's GDT (its TLS and LDT slots are empty). */
static const uint64_t gdt[16] = {
    [1] = 0x00CF9B000000FFFF, /* 08: kernel code, 32-bit */
    [2] = 0x00AF9B000000FFFF, /* 10: kernel code */
    [3] = 0x00CF93000000FFFF, /* 18: kernel data */
    [4] = 0x00CFFB000000FFFF, /* 23: user code, 32-bit */
    [5] = 0x00CFF3000000FFFF, /* 2B: user data */
    [6] = 0x00AFFB000000FFFF, /* 33: user code */
};
#define GDT_TSS       8
#define KERNEL_CS     0x10
#define ATTR_TSS_BUSY 0x008B
#define ATTR_LDT      0x0082

struct engine_executor {
    const struct engine_ops *ops;
    bool emulated; /* a KVM that emulates */
    struct machine machine;
    struct loop *loop;
    struct cpu_port port;
    struct engine *engine;
    struct vcpu *vcpu;
    uint64_t next_table;
    struct x86_cpu base; /* what is the same in every case */
    struct x86_cpu cpu;
    /* The watchdog: which case it saw last time, and which runs. */
    _Atomic uint64_t runs, seen;
    _Atomic bool running, expired;
    /* What interrupts cases, if wanted. */
    pthread_t interrupter;
    _Atomic bool interrupting;
};

/* No local APIC: nothing ever interrupts. */
static int apic_none(void *apic)
{
    return -1;
}
static int apic_msr_read(void *apic, uint32_t msr, uint64_t *value)
{
    return -1;
}
static int apic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    return -1;
}
static uint64_t apic_mmio_read(void *apic, uint32_t offset, unsigned size)
{
    return 0;
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
static const struct apic_ops no_apic = {
    .pending = apic_none,
    .ack = apic_none,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .mmio_read = apic_mmio_read,
    .mmio_write = apic_mmio_write,
    .base = apic_base,
    .get_cr8 = apic_get_cr8,
    .set_cr8 = apic_set_cr8,
};

static void put64(struct engine_executor *e, uint64_t gpa, uint64_t value)
{
    mem_write(e->machine.mem, gpa, &value, sizeof(value));
}

/* Maps one page through four levels; only the last one restricts. */
static void map_page(struct engine_executor *e, uint64_t va, uint64_t gpa, uint64_t flags)
{
    uint64_t table = TABLES;

    for (int shift = 39; shift > 12; shift -= 9) {
        uint64_t at = table + (va >> shift & 511) * 8, entry = 0;

        mem_read(e->machine.mem, at, &entry, sizeof(entry));
        if (!(entry & PTE_P)) {
            entry = (e->next_table += 4096) | PTE_P | PTE_W | PTE_U;
            put64(e, at, entry);
        }
        table = entry & 0xFFFFFFFFFF000;
    }
    put64(e, table + (va >> 12 & 511) * 8, gpa | flags | PTE_P);
}

static void build_tables(struct engine_executor *e)
{
    static const uint64_t windows[] = {DIFF_LOW, DIFF_HIGH};

    e->next_table = TABLES;
    for (unsigned w = 0; w < ARRAY_SIZE(windows); w++)
        for (unsigned i = 0; i < DIFF_PAGES; i++) {
            unsigned access = diff_page_access(i);

            if (access)
                map_page(e, windows[w] + i * 4096, WINDOW + i * 4096,
                         PTE_U | (access & DIFF_W ? PTE_W : 0) | (access & DIFF_X ? 0 : PTE_NX));
        }
    for (unsigned i = 0; i < 4; i++)
        map_page(e, KERNEL_VA + KERNEL + i * 4096, KERNEL + i * 4096, PTE_W);
}

static uint64_t descriptor(const struct diff_segment *s)
{
    uint64_t limit = s->attr & X86_ATTR_G ? s->limit >> 12 : s->limit;

    return (limit & 0xFFFF) | (limit >> 16) << 48 | (uint64_t)(s->base & 0xFFFFFF) << 16 |
           (uint64_t)(s->base >> 24) << 56 | (uint64_t)s->attr << 40;
}

/* Interrupt gates; programs may use those of INT3 and INTO, as under Linux. */
static void build_kernel(struct engine_executor *e)
{
    uint64_t tss = KERNEL_VA + TSS;

    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = KERNEL_VA + STUBS + vector;
        uint64_t dpl = vector == X86_BP || vector == X86_OF ? 3 : 0;

        put64(e, IDT + vector * 16,
              (handler & 0xFFFF) | (uint64_t)KERNEL_CS << 16 | (0x8E00 | dpl << 13) << 32 |
                  (handler >> 16 & 0xFFFF) << 48);
        put64(e, IDT + vector * 16 + 8, handler >> 32);
    }
    mem_fill(e->machine.mem, STUBS, 0xF4, 256);
    mem_write(e->machine.mem, GDT, gdt, sizeof(gdt));
    put64(e, GDT + GDT_TSS * 8,
          0x67 | (tss & 0xFFFFFF) << 16 | (uint64_t)ATTR_TSS_BUSY << 40 | (tss >> 24 & 0xFF) << 56);
    put64(e, GDT + GDT_TSS * 8 + 8, tss >> 32);
    for (unsigned i = 0; i < DIFF_LDT; i++)
        put64(e, LDT + i * 8, descriptor(&diff_ldt[i]));
    put64(e, TSS + 4, KERNEL_VA + STACK_TOP); /* RSP0 */
    put64(e, TSS + 0x60, 0x68ULL << 48);      /* no I/O permission bitmap */
}

static struct x86_seg segment_of(uint16_t selector)
{
    const struct diff_segment *s = diff_find_segment(selector);

    return (struct x86_seg){s->base, s->limit, s->attr, selector};
}

static void build_state(struct engine_executor *e)
{
    struct x86_cpu *cpu = &e->base;

    e->ops->state_out(e->vcpu, cpu);
    cpu->cr0 =
        X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    cpu->cr3 = TABLES;
    cpu->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP |
               X86_CR4_FSGSBASE | X86_CR4_OSXSAVE;
    cpu->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    cpu->xcr0 = X86_XCR0_ALL;
    cpu->gdtr = (struct x86_dtr){KERNEL_VA + GDT, sizeof(gdt) - 1};
    cpu->idtr = (struct x86_dtr){KERNEL_VA + IDT, 4095};
    cpu->tr = (struct x86_seg){KERNEL_VA + TSS, 0x67, ATTR_TSS_BUSY, GDT_TSS * 8};
    cpu->ldtr = (struct x86_seg){KERNEL_VA + LDT, DIFF_LDT * 8 - 1, ATTR_LDT, 0x50};
    cpu->activity = X86_RUNNING;
    cpu->interrupt_shadow = false;
}

static void load_case(struct engine_executor *e, const struct diff_case *c)
{
    const struct diff_state *in = &c->in;
    struct x86_cpu *cpu = &e->cpu;

    for (unsigned i = 0; i < DIFF_PAGES; i++)
        if (diff_page_access(i) &&
            memcmp(mem_peek(e->machine.mem, (WINDOW >> 12) + i), c->image + i * 4096, 4096) != 0)
            mem_write(e->machine.mem, WINDOW + i * 4096, c->image + i * 4096, 4096);
    *cpu = e->base;
    memcpy(cpu->reg, in->gpr, sizeof(in->gpr));
    cpu->reg[X86_RIP] = in->rip;
    cpu->rflags = in->rflags;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        cpu->seg[i] = segment_of(in->selector[i]);
    cpu->seg[X86_FS].base = in->fs_base;
    cpu->seg[X86_GS].base = in->gs_base;
    memcpy(cpu->xsave, in->xsave, sizeof(cpu->xsave));
}

/* Takes the exception's frame from the kernel stack. */
static void read_result(struct engine_executor *e, struct diff_result *r)
{
    const struct x86_cpu *cpu = &e->cpu;
    uint64_t frame[5], sp = cpu->reg[X86_RSP] - KERNEL_VA;
    struct diff_state *out = &r->out;

    r->vector = (int)(cpu->reg[X86_RIP] - 1 - KERNEL_VA - STUBS);
    r->error = 0;
    if (x86_vector_has_error((unsigned)r->vector)) {
        mem_read(e->machine.mem, sp, &r->error, 8);
        sp += 8;
    }
    r->cr2 = r->vector == X86_PF ? cpu->cr2 : 0;
    if (mem_read(e->machine.mem, sp, frame, sizeof(frame))) {
        r->vector = -1;
        return;
    }
    memcpy(out->gpr, cpu->reg, sizeof(out->gpr));
    out->rip = frame[0];
    out->rflags = frame[2];
    out->gpr[X86_RSP] = frame[3];
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        out->selector[i] = cpu->seg[i].selector;
    out->selector[X86_CS] = (uint16_t)frame[1];
    out->selector[X86_SS] = (uint16_t)frame[4];
    out->fs_base = cpu->seg[X86_FS].base;
    out->gs_base = cpu->seg[X86_GS].base;
    memcpy(out->xsave, cpu->xsave, sizeof(out->xsave));
    diff_normalize_xsave(out->xsave);
}

/* INT3 of user code is now and then undefined to a KVM that emulates: makes R what it should be. */
static void mend_int3(struct diff_result *r, const struct diff_case *c)
{
    uint64_t offset = diff_code_offset(c, r->out.rip);

    if (r->vector != X86_UD || offset >= DIFF_SIZE || r->image[offset] != 0xCC)
        return;
    r->vector = X86_BP;
    r->out.rip++;
    r->out.rflags &= ~(uint64_t)X86_FLAG_RF;
}

bool engine_takes(const struct engine_executor *e, const struct diff_case *c)
{
    bool takes = c->code_size == X86_CODE64;

    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        takes &= !(c->in.selector[i] & 4); /* of the LDT */
    takes &= x86_is_canonical(c->in.gpr[X86_RSP]);
    return takes || !e->emulated;
}

void engine_run(void *opaque, const struct diff_case *c, struct diff_result *r)
{
    struct engine_executor *e = opaque;
    enum engine_exit exit;

    load_case(e, c);
    e->runs++;
    e->expired = false;
    do { /* more than once when interrupted: the state goes out and in again */
        e->port.requests = 0;
        e->ops->state_in(e->vcpu, &e->cpu);
        e->running = true;
        exit = e->ops->run(e->vcpu);
        e->running = false;
        e->ops->state_out(e->vcpu, &e->cpu);
    } while (exit == EXIT_KICK && !e->expired);
    r->timeout = exit == EXIT_KICK;
    r->translated = e->ops != &interp_engine && e->ops != &kvm_engine;
    r->vector = -1;
    r->error = r->cr2 = 0;
    memset(&r->out, 0, sizeof(r->out));
    if (exit == EXIT_HALT)
        read_result(e, r);
    for (unsigned i = 0; i < DIFF_PAGES; i++)
        if (diff_page_access(i))
            memcpy(r->image + i * 4096, mem_peek(e->machine.mem, (WINDOW >> 12) + i), 4096);
    r->emulated = e->emulated;
    if (e->emulated)
        mend_int3(r, c);
}

void engine_tick(void *opaque)
{
    struct engine_executor *e = opaque;

    if (!e->running)
        return;
    if (e->seen == e->runs) {
        e->expired = true;
        cpu_port_request(&e->port, CPU_REQ_KICK);
    }
    e->seen = e->runs;
}

static void *interrupt(void *executor)
{
    struct engine_executor *e = executor;

    while (e->interrupting) {
        cpu_port_request(&e->port, CPU_REQ_KICK);
        time_sleep_ns(5 * NS_PER_US);
    }
    return NULL;
}

bool engine_interrupt(struct engine_executor *e)
{
    sigset_t all, old;
    int failed;

    sigfillset(&all); /* the native side's signals are the other thread's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    e->interrupting = true;
    failed = pthread_create(&e->interrupter, NULL, interrupt, e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    e->interrupting = !failed;
    return !failed;
}

struct engine_executor *engine_create(const struct engine_ops *ops)
{
    struct engine_executor *e = aligned_alloc(64, ALIGN_UP(sizeof(*e), 64));
    struct machine *m;
    struct error err = {0};

    if (!e)
        return NULL;
    memset(e, 0, sizeof(*e));
    e->ops = ops;
    e->emulated = engine_is_emulated(ops);
    e->port.apic_ops = &no_apic;
    m = &e->machine;
    m->cpus = 1;
    m->mem = mem_create(RAM, &err);
    m->bus = m->mem ? bus_create(&err) : NULL;
    e->loop = m->bus ? loop_create(&err) : NULL; /* never started: no timers here */
    m->clock = e->loop ? clock_create(e->loop, m->bus, &err) : NULL;
    if (m->clock) {
        x86_model_default(&m->model, 1, clock_tsc_hz(m->clock));
        if (!ops->restrict_model || ops->restrict_model(&m->model, &err) == 0)
            e->engine = ops->create(m, &err);
    }
    e->vcpu = e->engine ? ops->vcpu_create(e->engine, &e->port, &err) : NULL;
    if (!e->vcpu) {
        fprintf(stderr, "diff: %s\n", err.text);
        engine_destroy(e);
        return NULL;
    }
    build_tables(e);
    build_kernel(e);
    build_state(e);
    return e;
}

void engine_destroy(struct engine_executor *e)
{
    if (!e)
        return;
    if (e->interrupting) {
        e->interrupting = false;
        pthread_join(e->interrupter, NULL);
    }
    if (e->vcpu)
        e->ops->vcpu_destroy(e->vcpu);
    if (e->engine)
        e->ops->destroy(e->engine);
    if (e->machine.clock)
        clock_destroy(e->machine.clock);
    if (e->loop)
        loop_destroy(e->loop);
    if (e->machine.bus)
        bus_destroy(e->machine.bus);
    if (e->machine.mem)
        mem_destroy(e->machine.mem);
    free(e);
}
