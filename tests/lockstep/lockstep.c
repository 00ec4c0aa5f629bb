/*
 * Two machines side by side, one interpreted and one translated, execute the same guest (guest.c).
 * At each of its HLTs all registers and all memory must be the same. With --interrupt the second is
 * interrupted again and again. With --32 the guest is 32-bit code.
 *
 *     lockstep GUEST.bin ENGINE [--32] [--interrupt]
 */
#include "lockstep.h"

#include "../unit/interp_rig.h"
#include "../variants.h"
#include "base/time.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define STACK_TOP      0x78000ULL
#define STACK_SIZE     0x8000ULL /* below it */
#define POINTS_MIN     38        /* that the guest has */
#define TRANSLATED_MIN 500
#define FS_BASE        0x90000ULL
#define VECTOR         0x20

const struct engine_ops *lockstep_engine;

struct side {
    const struct engine_ops *ops;
    struct rig *rig;
    struct x86_cpu cpu;
};

/* 32-bit code with PAE, by the same page tables but the first level. */
static void start_32(struct side *side)
{
    struct x86_cpu *cpu = &side->cpu;
    uint64_t directory = 0;

    rig_state_32(side->rig, cpu, RIG_FREE);
    mem_read(side->rig->machine.mem, RIG_TABLES + MEM_PAGE_SIZE, &directory, sizeof(directory));
    cpu->cr0 |= X86_CR0_PG;
    cpu->cr3 = RIG_TABLES + MEM_PAGE_SIZE;
    cpu->cr4 |= X86_CR4_PAE;
    cpu->pdpte[0] = directory & ~6ULL; /* no rights in this level */
}

static bool load(struct side *side, const char *path, bool wide)
{
    static uint8_t guest[0x40000];
    FILE *f = fopen(path, "rb");
    size_t size;

    if (!f)
        return false;
    size = fread(guest, 1, sizeof(guest), f);
    fclose(f);
    if (wide)
        rig_state_64(side->rig, &side->cpu, RIG_FREE);
    else
        start_32(side);
    side->cpu.seg[X86_FS].base = FS_BASE;
    side->cpu.reg[X86_RSP] = STACK_TOP - 8; /* as after a CALL */
    memcpy(side->cpu.xsave, &(uint16_t){0x37F}, 2);
    side->cpu.xsave[4] = 0; /* all x87 registers are empty */
    return size && mem_write(side->rig->machine.mem, RIG_FREE, guest, size) == 0;
}

/* Runs to the next HLT. False: it ended in another way. */
static bool advance(struct side *side)
{
    enum engine_exit exit;

    side->cpu.activity = X86_RUNNING;
    side->ops->state_in(side->rig->cpu[0].vcpu, &side->cpu);
    exit = side->ops->run(side->rig->cpu[0].vcpu);
    side->ops->state_out(side->rig->cpu[0].vcpu, &side->cpu);
    if (exit != EXIT_HALT || side->cpu.reg[X86_RIP] < RIG_FREE) {
        printf("%s: exit %d at %" PRIx64 "\n", side->ops->name, (int)exit, side->cpu.reg[X86_RIP]);
        return false;
    }
    return true;
}

static bool same_value(const char *what, unsigned i, uint64_t a, uint64_t b)
{
    if (a != b)
        printf("%s %u: %" PRIx64 " and %" PRIx64 "\n", what, i, a, b);
    return a == b;
}

static bool same_registers(const struct x86_cpu *a, const struct x86_cpu *b)
{
    bool same = same_value("rflags", 0, a->rflags, b->rflags);

    same &= same_value("cr2", 0, a->cr2, b->cr2);
    for (unsigned i = 0; i <= X86_RIP; i++)
        same &= same_value("register", i, a->reg[i], b->reg[i]);
    for (unsigned i = 0; i < X86_XSAVE_YMMH + 256; i++)
        if (i < X86_XSAVE_HEADER || i >= X86_XSAVE_YMMH)
            same &= same_value("xsave", i, a->xsave[i], b->xsave[i]);
    return same;
}

/* All memory but the stack, where flags that are dead lie about after faults. */
static bool same_memory(struct mem *a, struct mem *b)
{
    bool same = true;

    for (uint64_t gpn = 0; gpn < RIG_RAM >> MEM_PAGE_SHIFT; gpn++) {
        const uint8_t *pa = mem_peek(a, gpn), *pb = mem_peek(b, gpn);

        if (!pa || !pb || (gpn << MEM_PAGE_SHIFT) - (STACK_TOP - STACK_SIZE) < STACK_SIZE)
            continue;
        if (memcmp(pa, pb, MEM_PAGE_SIZE) != 0) {
            printf("page %" PRIx64 " differs\n", gpn);
            same = false;
        }
    }
    return same;
}

static bool compare(struct side *a, struct side *b)
{
    bool same = same_registers(&a->cpu, &b->cpu);

    same &= same_memory(a->rig->machine.mem, b->rig->machine.mem);
    if (!same)
        printf("at %" PRIx64 ", RAX %" PRIx64 " and %" PRIx64 "\n", a->cpu.reg[X86_RIP],
               a->cpu.reg[X86_RAX], b->cpu.reg[X86_RAX]);
    return same;
}

static bool run(struct side *a, struct side *b)
{
    unsigned points = 0;

    do {
        if (!advance(a) || !advance(b) || !compare(a, b))
            return false;
        points++;
    } while (a->cpu.reg[X86_RAX]);
    printf("%u points, the same at each\n", points);
    return points >= POINTS_MIN;
}

/* Whether S has executed more than a little by translation. */
static bool was_translated(const struct side *s)
{
    uint64_t translated = rig_count(s->rig, "work", "translated-instructions");

    printf("%" PRIu64 " instructions translated\n", translated);
    return translated >= TRANSLATED_MIN;
}

/* What interrupts a machine. */
struct interrupter {
    pthread_t thread;
    struct rig_cpu *cpu;
    _Atomic bool stop;
};

static void *interrupt(void *opaque)
{
    struct interrupter *i = opaque;

    while (!i->stop) {
        i->cpu->apic.vector = VECTOR;
        cpu_port_request(&i->cpu->port, CPU_REQ_INTR);
        time_sleep_ns(3 * NS_PER_US);
    }
    return NULL;
}

static bool run_interrupted(struct side *a, struct side *b)
{
    struct interrupter i = {.cpu = &b->rig->cpu[0]};
    uint64_t interrupts;
    bool same;

    if (pthread_create(&i.thread, NULL, interrupt, &i) != 0)
        return false;
    same = run(a, b);
    i.stop = true;
    pthread_join(i.thread, NULL);
    interrupts = rig_exits(b->rig, CAUSE_INTERRUPT);
    printf("%" PRIu64 " interrupts\n", interrupts);
    return same && interrupts;
}

int main(int argc, char **argv)
{
    struct engine_ops space;
    struct side side[2] = {{.ops = &interp_engine}};
    bool narrow = argc > 3 && !strcmp(argv[3], "--32"), good = false;
    bool interrupted = argc > 3 + narrow && !strcmp(argv[3 + narrow], "--interrupt");

    side[1].ops = argc > 2 ? variant_find(argv[2], &space) : NULL;
    if (!side[1].ops || argc != 3 + narrow + interrupted) {
        fprintf(stderr, "usage: lockstep GUEST.bin ENGINE [--32] [--interrupt]\n");
        return 2;
    }
    for (unsigned i = 0; i < 2; i++) {
        lockstep_engine = side[i].ops;
        side[i].rig = rig_create(1, 0);
    }
    if (side[0].rig && side[1].rig && load(&side[0], argv[1], !narrow) &&
        load(&side[1], argv[1], !narrow))
        good =
            (interrupted ? run_interrupted : run)(&side[0], &side[1]) && was_translated(&side[1]);
    for (unsigned i = 0; i < 2; i++) {
        lockstep_engine = side[i].ops;
        if (side[i].rig)
            rig_destroy(side[i].rig);
    }
    return !good;
}
