/*
 * Fuzz target: the instruction decoder and an engine (RIG_ENGINE). An input chooses a mode,
 * registers and code; memory holds descriptor tables with something of every kind, and page tables
 * with pages of every kind. The guest runs for a bounded number of blocks, and then again from
 * further on in the code.
 *
 * Wrong is what a sanitizer finds, a hang, and a byte changed in what is not RAM.
 */
#include "../unit/interp_rig.h"

#include "base/util.h"
#include "cpu/core/run.h"

#include <stdlib.h>
#include <string.h>

#define SNIPPET 16 /* bytes of code; after each the guest starts again with all registers new */
#define TURNS   24 /* for each */

#define REQ_MEANINGLESS (1u << 31) /* a request that nobody takes, so that it stays */

#define CODE      0x10F80ULL /* runs on into the next page */
#define DATA      0x20000ULL
#define TSS_OTHER 0x21000ULL /* of 32 bits, and of 16 bits 100h further */
#define ABSENT    0x70000ULL
#define READ_ONLY 0x71000ULL
#define SYSTEM    0x72000ULL
#define NO_CODE   0x73000ULL
#define MMIO      0x74000ULL
#define RESERVED  0x75000ULL
#define ALIAS     0x76000ULL /* of the code */
#define PAE_TABLE 0x6000ULL
#define PD_32     0x7000ULL
#define PT_32     0x8000ULL

enum mode {
    MODE_REAL_16,
    MODE_V86,
    MODE_PROTECTED_16,
    MODE_FLAT_32,
    MODE_PAGED_32,
    MODE_PAE_32,
    MODE_USER_32,
    MODE_LONG,
    MODE_LONG_USER,
    MODE_COMPATIBILITY,
    MODES,
};

struct input {
    uint8_t mode, cr, flags, status, vector, spare;
    uint8_t reg[16];
};

static struct rig *rig;
static uint8_t *image; /* memory to start from */

/* What descriptors there are beside the rig's own. */
static const struct {
    uint16_t selector;
    uint64_t low;
} descriptors[] = {
    {0x58, 0x00CF9F000000FFFF}, /* conforming code */
    {0x60, 0x0000EC000018B002}, /* call gate of 32 bits */
    {0x68, 0x0000E4020018B002}, /* and of 16, with two parameters */
    {0x70, 0x0000E50000780000}, /* task gate */
    {0x78, 0x0000E90210000067}, /* TSS */
    {0x80, 0x0000E1021100002B}, /* TSS of 16 bits */
    {0x88, 0x0000E200C00000FF}, /* LDT: the GDT again */
    {0x90, 0x0040F70000000FFF}, /* expand-down data */
    {0x98, 0x00CF730000000FFF}, /* not present */
    {0xA0, 0x0000EC000008B002}, /* call gate of 64 bits */
    {0xB0, 0x0040FB012000000F}, /* a few bytes of user code */
};

static const uint64_t values[32] = {
    0,
    1,
    2,
    7,
    0xFF,
    0xFFFF,
    0xFFFFFFFF,
    UINT64_MAX,
    0x80000000,
    1ULL << 63,
    0x00007FFFFFFFFFFF,
    0x0000800000000000,
    0xFFFF800000000000,
    CODE + 8,
    DATA,
    DATA + 0xFFD,
    TSS_OTHER,
    ABSENT - 4,
    READ_ONLY + 16,
    SYSTEM,
    NO_CODE,
    MMIO + 0x30,
    MMIO - 8,
    ALIAS + 0xF80,
    RESERVED,
    RIG_GDT + 0x60,
    RIG_IDT64,
    RIG_TABLES + 0x1000,
    0xC0000080,
    0x4B564D01,
    0x277,
    RIG_STACK - 64,
};

static void build_tss(void)
{
    struct mem *mem = rig->machine.mem;
    const uint32_t tss[26] = {
        [1] = RIG_STACK,          RIG_DATA,        [7] = PD_32,       [8] = CODE,      [9] = 2,
        [14] = RIG_STACK - 0x100, [18] = RIG_DATA, [19] = RIG_CODE32, [20] = RIG_DATA, RIG_DATA,
        [25] = 0x680000,
    };
    const uint16_t tss16[22] = {
        [7] = RIG_HANDLERS & 0xFFFF, 2,          [13] = 0xE000, [17] = RIG_DATA16,
        [18] = RIG_CODE16,           RIG_DATA16, RIG_DATA16,
    };

    mem_write(mem, TSS_OTHER, tss, sizeof(tss));
    mem_write(mem, TSS_OTHER + 0x100, tss16, sizeof(tss16));
}

static void build_tables(void)
{
    struct mem *mem = rig->machine.mem;
    const uint64_t user = 7;
    uint32_t entry;

    rig_map(rig, ABSENT, 0, 0);
    rig_map(rig, READ_ONLY, READ_ONLY, user & ~2ULL);
    rig_map(rig, SYSTEM, SYSTEM, user & ~4ULL);
    rig_map(rig, NO_CODE, NO_CODE, user | 1ULL << 63);
    rig_map(rig, MMIO, MEM_VGA_START, user);
    rig_map(rig, RESERVED, RESERVED, user | 1ULL << 51);
    rig_map(rig, ALIAS, CODE & ~0xFFFULL, user);
    /* PAE: the same page directory. It is where rig_map put it. */
    rig_put64(rig, PAE_TABLE, (RIG_TABLES + 0x2000) | 1);
    entry = PT_32 | 7;
    mem_write(mem, PD_32, &entry, 4);
    for (uint32_t page = 0; page < RIG_RAM; page += MEM_PAGE_SIZE) {
        entry = page | (page == READ_ONLY ? 5 : page == SYSTEM ? 3 : page == ABSENT ? 0 : 7);
        if (page == MMIO)
            entry = MEM_VGA_START | 7;
        mem_write(mem, PT_32 + page / MEM_PAGE_SIZE * 4, &entry, 4);
    }
}

static void stop(void)
{
    rig_destroy(rig);
    free(image);
}

static void start(void)
{
    static const uint8_t gates[] = {0x85, 0x8F, 0x86, 0xEE, 0xEF}; /* from vector 80h on */
    struct mem *mem;

    rig = rig_create(1, 256 * KiB);
    if (!rig)
        abort();
    mem = rig->machine.mem;
    for (unsigned i = 0; i < ARRAY_SIZE(descriptors); i++)
        rig_put64(rig, RIG_GDT + descriptors[i].selector, descriptors[i].low);
    for (unsigned i = 0; i < ARRAY_SIZE(gates); i++) {
        mem_write(mem, RIG_IDT32 + (0x80 + i) * 8 + 5, &gates[i], 1);
        mem_write(mem, RIG_IDT64 + (0x80 + i) * 16 + 5, &gates[i], 1);
    }
    mem_write(mem, RIG_IDT32 + 0x80 * 8 + 2, &(uint16_t){0x78}, 2);
    /* Handlers go on, but for their first: ADD AL, 3; IRET. */
    for (unsigned v = 1; v < 256; v += 4)
        mem_write(mem, RIG_HANDLERS + v, "\x04\x03\xCF", 3);
    build_tss();
    build_tables();
    image = malloc(RIG_RAM);
    if (!image)
        abort();
    atexit(stop);
    mem_read(mem, 0, image, MEM_VGA_START);
    mem_read(mem, MEM_VGA_END, image + MEM_VGA_END, RIG_RAM - MEM_VGA_END);
}

static void segments(struct x86_cpu *cpu, uint16_t code, uint16_t data)
{
    for (unsigned i = 0; i < X86_SEGMENTS; i++) {
        uint16_t selector = i == X86_CS ? code : data;

        cpu->seg[i] = rig_segment(selector & 0xFFF8);
        cpu->seg[i].selector = selector;
    }
}

static void choose_mode(struct x86_cpu *cpu, enum mode mode)
{
    if (mode == MODE_REAL_16) {
        rig_state_real(rig, cpu, CODE & 0xFFFF);
        cpu->seg[X86_CS].selector = CODE >> 16 << 12;
        cpu->seg[X86_CS].base = CODE & 0xFFFF0000;
        return;
    }
    if (mode >= MODE_LONG) {
        rig_state_64(rig, cpu, CODE);
        if (mode == MODE_LONG_USER)
            segments(cpu, RIG_USER_CODE64, RIG_USER_DATA);
        if (mode == MODE_COMPATIBILITY)
            segments(cpu, RIG_USER_CODE32, RIG_USER_DATA);
        return;
    }
    rig_state_32(rig, cpu, CODE);
    if (mode != MODE_FLAT_32 && mode != MODE_PROTECTED_16) {
        cpu->cr0 |= X86_CR0_PG;
        cpu->cr3 = PD_32;
    }
    switch (mode) {
    case MODE_V86:
        cpu->rflags |= X86_FLAG_VM;
        cpu->reg[X86_RIP] = CODE & 0xFFFF;
        for (unsigned i = 0; i < X86_SEGMENTS; i++)
            cpu->seg[i] = (struct x86_seg){.limit = 0xFFFF, .attr = 0xF3};
        cpu->seg[X86_CS].selector = CODE >> 16 << 12;
        cpu->seg[X86_CS].base = CODE & 0xFFFF0000;
        break;
    case MODE_PROTECTED_16:
        segments(cpu, RIG_CODE16, RIG_DATA16);
        cpu->seg[X86_CS].base = CODE & 0xFFFF0000;
        cpu->reg[X86_RIP] = CODE & 0xFFFF;
        break;
    case MODE_PAE_32:
        cpu->cr4 |= X86_CR4_PAE;
        cpu->cr3 = PAE_TABLE;
        cpu->pdpte[0] = (RIG_TABLES + 0x2000) | 1;
        break;
    case MODE_USER_32: segments(cpu, RIG_USER_CODE32, RIG_USER_DATA); break;
    default: break;
    }
}

static void choose_state(struct x86_cpu *cpu, const struct input *in)
{
    static const uint64_t cr4[] = {X86_CR4_SMEP, X86_CR4_UMIP, X86_CR4_DE, X86_CR4_TSD};

    choose_mode(cpu, in->mode % MODES);
    for (unsigned i = 0; i < X86_GPRS; i++)
        if (i != X86_RSP || in->reg[i] & 0x80)
            cpu->reg[i] = values[in->reg[i] & 31] + (in->reg[i] >> 5 & 3);
    cpu->gdtr.limit = 0xB7;
    for (unsigned i = 0; i < ARRAY_SIZE(cr4); i++)
        if (in->cr & 1u << i)
            cpu->cr4 |= cr4[i];
    if (in->cr & 0x10)
        cpu->cr4 |= rig->machine.model.feature[X86_FEAT_SMAP] ? X86_CR4_SMAP : 0;
    if (in->cr & 0x20)
        cpu->cr0 ^= X86_CR0_WP;
    if (in->cr & 0x40)
        cpu->cr0 |= X86_CR0_AM;
    if (in->cr & 0x80)
        cpu->cr0 |= in->status & 0x20 ? X86_CR0_TS : X86_CR0_EM;
    cpu->rflags |= (in->flags & 0x0F) << 8 | (in->flags & 0x30u) << 8 | (in->status & 0xD5);
    if (in->flags & 0x40)
        cpu->rflags |= X86_FLAG_NT;
    if (in->flags & 0x80)
        cpu->rflags |= X86_FLAG_AC | X86_FLAG_RF;
    if (in->status & 2) {
        cpu->dr[0] = values[in->spare & 31];
        cpu->dr[1] = CODE + (in->spare & 15);
        cpu->dr7 |= 0xA | (uint64_t)(in->spare & 0xF0) << 12;
    }
    cpu->nmi_blocked = true;
}

static void check_outside_ram(void)
{
    static const uint8_t zero[MEM_PAGE_SIZE];
    const uint8_t *base = mem_peek(rig->machine.mem, 0);

    for (uint64_t at = MEM_VGA_START; at < MEM_VGA_END; at += MEM_PAGE_SIZE)
        if (memcmp(base + at, zero, MEM_PAGE_SIZE) != 0)
            abort();
}

/* Runs from CPU on, until an exit or for a while. */
static void run(struct x86_cpu *cpu, unsigned vector)
{
    struct rig_cpu *c = &rig->cpu[0];
    int exit = -1;

    RIG_ENGINE.state_in(c->vcpu, cpu);
    for (unsigned i = 0; i < TURNS && exit < 0; i++) {
        if (i == 3 && vector)
            c->apic.vector = (int)vector;
        /* An NMI that is masked at first; and what ends loops and repeated strings. */
        atomic_store(&c->port.requests,
                     CPU_REQ_NMI | REQ_MEANINGLESS | (i == 3 ? CPU_REQ_INTR : 0));
        exit = core_turn(c->vcpu);
    }
    c->apic.vector = -1;
    RIG_ENGINE.state_out(c->vcpu, cpu);
    if (cpu->reg[X86_NONE] || x86_cpl(cpu) > 3)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct x86_cpu cpu;
    struct mem *mem;
    struct input in;
    char text[2048];

    if (size <= sizeof(in) || size > 512)
        return 0;
    if (!rig)
        start();
    mem = rig->machine.mem;
    memcpy(&in, data, sizeof(in));
    mem_write(mem, 0, image, MEM_VGA_START);
    mem_write(mem, MEM_VGA_END, image + MEM_VGA_END, RIG_RAM - MEM_VGA_END);
    mem_write(mem, CODE, data + sizeof(in), size - sizeof(in));
    mem_write(mem, DATA, data, size);
    for (size_t at = 0; at < size - sizeof(in); at += SNIPPET) {
        choose_state(&cpu, &in);
        cpu.reg[X86_RIP] += at;
        run(&cpu, in.vector);
    }
    RIG_ENGINE.history(rig->cpu[0].vcpu, text, sizeof(text));
    check_outside_ram();
    return 0;
}
