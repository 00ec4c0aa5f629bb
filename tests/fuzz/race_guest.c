/*
 * Memory and states for race.c.
 *
 * Each vCPU has SNIPPETS pieces of code; every exception and interrupt leads to a handler that goes
 * on with the next of them, in turns at level 0 and at level 3. An input chooses for each vCPU
 * between 64-bit code with paging and 32-bit code without, and what else is unusual; the rest of it
 * is what the pieces of code are made of.
 */
#include "race.h"

#include "base/util.h"

#include <string.h>

/* Guest physical; one to one for 64-bit code, too. */
#define PML4     0x1000ULL
#define PDPT     0x2000ULL
#define PD       0x3000ULL
#define TABLES   0x4000ULL /* of RAM, one to one */
#define WINDOW_T 0x6000ULL /* of WINDOW */
#define GDT      0x7000ULL
#define TSS      0x7800ULL /* 128 bytes for each vCPU */
#define IDT      0x8000ULL /* of 64-bit code, for each vCPU */
#define IDT32    0xA000ULL
#define HANDLER  0xC000ULL /* 256 bytes for each vCPU */
#define COUNTER  0xD000ULL
#define CODE     0x20000ULL /* a page for each vCPU */
#define DATA     0x30000ULL
#define STACK    0x40000ULL /* the top of vCPU 0's at level 0; that of level 3 is below */

/* Linear addresses of other pages than they say. */
#define WINDOW       0x400000ULL
#define WINDOW_PAGES 80u

#define SNIPPETS     8u
#define SNIPPET_SIZE 256u

enum {
    CODE64 = 0x08,
    DATA0 = 0x10,
    CODE32 = 0x18,
    USER_CODE32 = 0x33,
    USER_DATA = 0x3B,
    USER_CODE64 = 0x43,
    TSS0 = 0x48, /* 16 bytes for each vCPU */
};

/* Bits of a vCPU's first byte of the input. */
enum {
    OPTION_32 = 1,         /* 32-bit code without paging */
    OPTION_USER_GATE = 2,  /* #AC and #BP are handled at level 3 */
    OPTION_ALIGNED = 4,    /* CR0.AM, and RFLAGS.AC at level 3 */
    OPTION_MISALIGNED = 8, /* the stack of level 3 */
    OPTION_STEP = 16,      /* RFLAGS.TF at level 3 */
    OPTION_USER_FIRST = 32,
    OPTION_STRAIGHT = 64, /* no loops but the handler's */
    OPTION_DUEL = 128,    /* only locked accesses and new code, in the shared page */
};

/* A stream of choices, as long as anybody wants. */
struct choices {
    const uint8_t *input;
    size_t size, at;
};

static unsigned choose(struct choices *c, unsigned n)
{
    size_t lap = c->at / c->size;
    unsigned byte = c->input[c->at++ % c->size];

    return (unsigned)(byte + lap * 149 + (lap * lap >> 2)) % n;
}

/* Code under construction. */
struct snippet {
    uint8_t bytes[SNIPPET_SIZE];
    unsigned size;
};

static void add(struct snippet *s, const void *bytes, unsigned size)
{
    if (s->size + size > sizeof(s->bytes))
        return;
    memcpy(s->bytes + s->size, bytes, size);
    s->size += size;
}
#define ADD(s, ...) add(s, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void add32(struct snippet *s, uint64_t value)
{
    uint32_t low = (uint32_t)value;

    add(s, &low, 4);
}

/* MOV of a constant to 32-bit register REG. */
static void add_load(struct snippet *s, unsigned reg, uint64_t value)
{
    ADD(s, (uint8_t)(0xB8 + reg));
    add32(s, value);
}

/* --- Operands --------------------------------------------------------------------------------- */

/* An offset in a page: in the middle, or such that operands cross cache lines or pages. */
static unsigned choose_offset(struct choices *c)
{
    switch (choose(c, 4)) {
    case 0: return choose(c, 64) * 64 + 56 + choose(c, 8);
    case 1: return 4088 + choose(c, 8);
    default: return choose(c, 256) * 8;
    }
}

static uint64_t choose_address(struct choices *c, unsigned n)
{
    unsigned offset = choose_offset(c);

    switch (choose(c, 16)) {
    case 0: return TABLES + choose(c, 128) * 8;
    case 1: return WINDOW_T + choose(c, WINDOW_PAGES) * 8;
    case 2: return CODE + choose(c, RACE_CPUS) * MEM_PAGE_SIZE + offset;
    case 3:
    case 4:
    case 5: return WINDOW + choose(c, WINDOW_PAGES) * MEM_PAGE_SIZE + offset;
    case 6:
    case 7:
    case 8:
    case 9: return RACE_SHARED + offset;
    case 10: return choose(c, 2) ? GDT + offset % 0x100 : STACK - 0x100 + offset % 0x200;
    case 11: return choose(c, 2) ? 0x800000 + offset : 0xFEE00000 + choose(c, 64) * 16;
    default: return DATA + choose(c, 2) * MEM_PAGE_SIZE + offset;
    }
}

static unsigned choose_port(struct choices *c)
{
    static const uint16_t ports[] = {0x20,  0x21,  0xA0,  0xA1,  0x40,  0x42,  0x43,  0x60,
                                     0x61,  0x64,  0x70,  0x71,  0x80,  0x92,  0x3F8, 0x3F9,
                                     0x3FD, 0x2F8, 0x4D0, 0xCF8, 0xCFC, 0x600, 0x604, 0x608};

    return ports[choose(c, ARRAY_SIZE(ports))];
}

/* --- Operations ------------------------------------------------------------------------------- */

/* An access to [RBX]. */
static void add_access(struct snippet *s, struct choices *c, unsigned n)
{
    static const struct {
        uint8_t size, code[6];
    } accesses[] = {
        {2, {0x8B, 0x03}},                   /* mov eax, [rbx] */
        {2, {0x89, 0x03}},                   /* mov [rbx], eax */
        {3, {0x48, 0x89, 0x03}},             /* mov [rbx], rax */
        {2, {0x88, 0x03}},                   /* mov [rbx], al */
        {2, {0x01, 0x03}},                   /* add [rbx], eax */
        {3, {0xF0, 0xFF, 0x03}},             /* lock inc dword [rbx] */
        {4, {0xF0, 0x48, 0x01, 0x03}},       /* lock add [rbx], rax */
        {4, {0xF0, 0x0F, 0xC1, 0x03}},       /* lock xadd [rbx], eax */
        {4, {0xF0, 0x0F, 0xB1, 0x13}},       /* lock cmpxchg [rbx], edx */
        {4, {0xF0, 0x0F, 0xC7, 0x0B}},       /* lock cmpxchg8b [rbx] */
        {5, {0xF0, 0x48, 0x0F, 0xC7, 0x0B}}, /* lock cmpxchg16b [rbx] */
        {4, {0xF0, 0x0F, 0xAB, 0x0B}},       /* lock bts [rbx], ecx */
        {2, {0x87, 0x03}},                   /* xchg [rbx], eax */
        {3, {0x0F, 0x11, 0x03}},             /* movups [rbx], xmm0 */
        {3, {0x0F, 0x10, 0x03}},             /* movups xmm0, [rbx] */
        {2, {0xDD, 0x1B}},                   /* fstp qword [rbx] */
        {3, {0x0F, 0xAE, 0x03}},             /* fxsave [rbx] */
        {2, {0xFF, 0x33}},                   /* push [rbx] */
        {2, {0x8F, 0x03}},                   /* pop [rbx] */
        {2, {0xFF, 0x13}},                   /* call [rbx] */
    };
    unsigned i = choose(c, ARRAY_SIZE(accesses));

    add_load(s, 3, choose_address(c, n));
    add(s, accesses[i].code, accesses[i].size);
}

/* A locked access to the shared page. */
static void add_lock(struct snippet *s, struct choices *c, unsigned n)
{
    add_load(s, 3, RACE_SHARED + choose_offset(c));
    ADD(s, 0xF0, 0xFF, 0x03); /* lock inc dword [rbx] */
}

/* Writes MOV EAX, n; RET to the shared page and calls it, by one of its addresses. */
static void add_rewrite(struct snippet *s, struct choices *c, unsigned n)
{
    unsigned at = choose(c, 4) * 1024 + choose(c, 2) * 61;
    bool alias = choose(c, 4) == 0;

    add_load(s, 3, RACE_SHARED + at);
    ADD(s, 0xC6, 0x03, 0xB8); /* mov byte [rbx], B8h */
    ADD(s, 0xC7, 0x43, 0x01); /* mov dword [rbx + 1], n */
    add32(s, choose(c, 256));
    ADD(s, 0xC6, 0x43, 0x05, 0xC3); /* mov byte [rbx + 5], C3h */
    if (alias)
        add_load(s, 3, WINDOW + RACE_SHARED - CODE + at);
    ADD(s, 0xFF, 0xD3); /* call rbx */
}

/* Maps a page of WINDOW or of RAM to something else; INVLPG, or not. */
static void add_remap(struct snippet *s, struct choices *c, unsigned n)
{
    static const uint16_t flags[] = {7, 7, 7, 0x67, 5, 3, 0, 0x107, 1};
    unsigned window = choose(c, 4), page = window ? choose(c, WINDOW_PAGES) : 0x20 + choose(c, 32);
    uint64_t target = CODE + choose(c, 32) * MEM_PAGE_SIZE;

    add_load(s, 3, (window ? WINDOW_T : TABLES) + page * 8);
    ADD(s, 0xC7, 0x03); /* mov dword [rbx], target */
    add32(s, target | flags[choose(c, ARRAY_SIZE(flags))]);
    if (choose(c, 2)) {
        add_load(s, 3, (window ? WINDOW : 0) + page * MEM_PAGE_SIZE);
        ADD(s, 0x0F, 0x01, 0x3B); /* invlpg [rbx] */
    }
}

static void add_port(struct snippet *s, struct choices *c, unsigned n)
{
    static const uint8_t code[][2] = {{0xEC}, {0xEE}, {0xED}, {0xEF}, {0xF3, 0x6C}, {0xF3, 0x6E}};
    unsigned i = choose(c, ARRAY_SIZE(code));

    add_load(s, 2, choose_port(c));
    add_load(s, 0, choose(c, 256));
    add_load(s, 6, DATA + choose_offset(c));
    add_load(s, 7, DATA + choose_offset(c));
    add_load(s, 1, choose(c, 4) ? choose(c, 64) : UINT32_MAX);
    add(s, code[i], code[i][1] ? 2 : 1);
}

/* A repeated string instruction; of a count that faults stop. */
static void add_string(struct snippet *s, struct choices *c, unsigned n)
{
    static const uint8_t code[] = {0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD, 0xA6, 0xAF};

    add_load(s, 6, choose_address(c, n));
    add_load(s, 7, choose_address(c, n));
    add_load(s, 1, choose(c, 8) ? choose(c, 256) : UINT32_MAX);
    ADD(s, choose(c, 4) ? 0xFC : 0xFD, choose(c, 2) ? 0xF3 : 0xF2,
        code[choose(c, ARRAY_SIZE(code))]);
}

/* An interrupt command, or another register of the local APIC: the timer, its own errors, ... */
static void add_apic(struct snippet *s, struct choices *c, unsigned n)
{
    static const uint16_t modes[] = {0x4000, 0x4000, 0x4400, 0x4500, 0x4600, 0xC4000 & 0xFFFF};
    static const uint16_t registers[] = {0x80,  0xB0,  0xF0,  0x280, 0x320,
                                         0x350, 0x360, 0x380, 0x3E0};
    unsigned mode = choose(c, 8), shorthand = choose(c, 4);
    uint64_t base = choose(c, 2) ? 0xFEE00000 : WINDOW + 64 * MEM_PAGE_SIZE;

    if (choose(c, 2)) {
        add_load(s, 3, base + 0x310);
        ADD(s, 0xC7, 0x03);
        add32(s, (uint64_t)choose(c, 3) << 24);
        add_load(s, 3, base + 0x300);
        ADD(s, 0xC7, 0x03);
        add32(s, (uint64_t)shorthand << 18 | modes[mode % ARRAY_SIZE(modes)] |
                     (mode == 4 && choose(c, 8) ? 0x40 : choose(c, 256)));
    } else {
        add_load(s, 3, base + registers[choose(c, ARRAY_SIZE(registers))]);
        ADD(s, 0xC7, 0x03);
        add32(s, choose(c, 2) ? choose(c, 256) : (uint64_t)choose(c, 256) << 16 | 0x20030);
    }
}

/* What changes how all else works. */
static void add_system(struct snippet *s, struct choices *c, unsigned n)
{
    static const struct {
        uint8_t size, code[12];
    } system[] = {
        {1, {0xFB}},                                                      /* sti */
        {1, {0xFA}},                                                      /* cli */
        {2, {0xFB, 0xF4}},                                                /* sti; hlt */
        {2, {0xF3, 0x90}},                                                /* pause */
        {6, {0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8}},                        /* CR3 anew */
        {6, {0x0F, 0x20, 0xE0, 0x0F, 0x22, 0xE0}},                        /* CR4 anew */
        {10, {0x0F, 0x20, 0xC0, 0x0F, 0xBA, 0xF8, 18, 0x0F, 0x22, 0xC0}}, /* btc of CR0.AM */
        {10, {0x0F, 0x20, 0xC0, 0x0F, 0xBA, 0xF8, 16, 0x0F, 0x22, 0xC0}}, /* of CR0.WP */
        {6, {0x9C, 0x80, 0x4C, 0x24, 0x01, 0x01}},                        /* pushf; TF */
        {7, {0x9C, 0x80, 0x4C, 0x24, 0x02, 0x04, 0x9D}},                  /* pushf; AC; popf */
        {1, {0x9D}},                                                      /* popf */
        {2, {0x48, 0xCF}},                                                /* iretq */
        {2, {0xCD, 0x30}},                                                /* int 30h */
        {1, {0xCC}},                                                      /* int3 */
        {2, {0x0F, 0x0B}},                                                /* ud2 */
        {4, {0x66, 0x8C, 0xD0, 0x8E}},                         /* mov ax, ss; MOV to segment */
        {3, {0x0F, 0x23, 0xC3}},                               /* mov dr0, rbx */
        {8, {0xB8, 0x03, 0x07, 0x0D, 0x00, 0x0F, 0x23, 0xF8}}, /* DR7: watch, both kinds */
        {5, {0x31, 0xC0, 0x0F, 0x23, 0xF8}},                   /* DR7 off */
        {2, {0x0F, 0xA2}},                                     /* cpuid */
        {2, {0x0F, 0x09}},                                     /* wbinvd */
    };
    unsigned i = choose(c, ARRAY_SIZE(system));

    add(s, system[i].code, system[i].size);
}

static void add_raw(struct snippet *s, struct choices *c, unsigned n)
{
    for (unsigned left = 1 + choose(c, 6); left; left--)
        ADD(s, (uint8_t)choose(c, 256));
}

/* A short loop around what comes before, or an endless one. */
static void add_loop(struct snippet *s, struct choices *c, unsigned n)
{
    unsigned back = MIN(s->size, choose(c, 40));

    if (choose(c, 8) == 0)
        ADD(s, 0xEB, (uint8_t)(-2 - (int)back)); /* jmp */
    else
        ADD(s, 0xFE, 0xCD, 0x75, (uint8_t)(-4 - (int)back)); /* dec ch; jnz */
}

static void make_snippet(struct snippet *s, struct choices *c, unsigned n, unsigned options)
{
    static void (*const all[])(struct snippet *s, struct choices *c, unsigned n) = {
        add_access,  add_access,  add_access, add_access, add_access, add_rewrite,
        add_rewrite, add_rewrite, add_remap,  add_remap,  add_port,   add_string,
        add_apic,    add_system,  add_system, add_raw,    add_loop,   add_loop,
    };

    s->size = 0;
    while (s->size < SNIPPET_SIZE - 80) {
        unsigned i = choose(c, ARRAY_SIZE(all));

        if (options & OPTION_DUEL)
            (i & 1 ? add_lock : add_rewrite)(s, c, n);
        else if (all[i] != add_loop || !(options & OPTION_STRAIGHT))
            all[i](s, c, n);
    }
    if (choose(c, 3) == 0)
        ADD(s, 0xE9), add32(s, -(uint64_t)s->size - 4); /* again; what follows is for faults */
    ADD(s, 0xCD, 0x30);
}

/* --- Tables ----------------------------------------------------------------------------------- */

static void put(struct mem *mem, uint64_t gpa, uint64_t value)
{
    mem_write(mem, gpa, &value, 8);
}

static void write_pages(struct mem *mem)
{
    const uint64_t all = 7;

    put(mem, PML4, PDPT | all);
    put(mem, PDPT, PD | all);
    put(mem, PDPT + 3 * 8, 0xC0000000 | all | 0x80); /* the local APIC, in a page of 1 GiB */
    put(mem, PD, TABLES | all);
    put(mem, PD + 8, (TABLES + MEM_PAGE_SIZE) | all);
    put(mem, PD + 16, WINDOW_T | all);
    put(mem, PD + 24, 0 | all | 0x80); /* RAM again, in a page of 2 MiB */
    for (uint64_t page = 0; page < RACE_RAM / MEM_PAGE_SIZE; page++)
        put(mem, TABLES + page * 8, page * MEM_PAGE_SIZE | all);
    for (uint64_t page = 0; page < WINDOW_PAGES; page++)
        put(mem, WINDOW_T + page * 8, (CODE + page * MEM_PAGE_SIZE) | all);
    put(mem, WINDOW_T + 64 * 8, 0xFEE00000 | all);
    put(mem, WINDOW_T + 65 * 8, 0xFEC00000 | all);
    put(mem, WINDOW_T + 66 * 8, MEM_VGA_START | all);
    put(mem, WINDOW_T + 67 * 8, 0xD0000000 | all);
    put(mem, WINDOW_T + 68 * 8, DATA | 5);
    put(mem, WINDOW_T + 69 * 8, DATA | 3);
    put(mem, WINDOW_T + 70 * 8, RACE_SHARED | all | 1ULL << 63);
    put(mem, WINDOW_T + 71 * 8, DATA | all | 1ULL << 51);
    put(mem, WINDOW_T + 72 * 8, 0);
    put(mem, WINDOW_T + 73 * 8, WINDOW_T | all);
}

static uint64_t stack_of(unsigned n)
{
    return STACK + n * 0x4000;
}

static uint64_t user_stack_of(unsigned n, unsigned options)
{
    return stack_of(n) - 0x2000 + (options & OPTION_MISALIGNED ? 2 : 0);
}

static const uint64_t gdt[] = {
    0,
    0x00AF9B000000FFFF, /* 64-bit code */
    0x00CF93000000FFFF, /* data */
    0x00CF9B000000FFFF, /* 32-bit code */
    0,
    0,
    0x00CFFB000000FFFF, /* user: 32-bit code */
    0x00CFF3000000FFFF, /* data */
    0x00AFFB000000FFFF, /* 64-bit code */
};

static uint64_t gate(uint64_t target, uint16_t selector, unsigned dpl)
{
    return (target & 0xFFFF) | (uint64_t)selector << 16 | (0x8E00ULL | dpl << 13) << 32 |
           (target >> 16) << 48;
}

static void write_descriptors(struct mem *mem, unsigned n, unsigned options)
{
    const uint64_t tss = TSS + n * 128;

    mem_write(mem, GDT, gdt, sizeof(gdt));
    put(mem, GDT + TSS0 + n * 16, 0x67 | tss << 16 | 0x8BULL << 40);
    if (options & OPTION_32) {
        put(mem, tss + 4, stack_of(n) | (uint64_t)DATA0 << 32);
    } else {
        put(mem, tss + 4, stack_of(n));
        put(mem, tss + 36, stack_of(n) - 0x800); /* IST 1 */
    }
    for (unsigned v = 0; v < 256; v++) {
        bool user = (options & OPTION_USER_GATE) && (v == X86_AC || v == X86_BP);
        uint64_t target = user ? CODE + n * MEM_PAGE_SIZE : HANDLER + n * 256;
        unsigned dpl = v == X86_BP || v == X86_OF || v == 0x30 ? 3 : 0;

        put(mem, IDT + n * MEM_PAGE_SIZE + v * 16,
            gate(target, user ? USER_CODE64 : CODE64, dpl) | (v == X86_DF ? 1ULL << 32 : 0));
        put(mem, IDT32 + n * MEM_PAGE_SIZE + v * 8, gate(target, user ? USER_CODE32 : CODE32, dpl));
    }
}

/* Counts, ends the interrupt, and goes on with the snippet of that number: at level 0 or 3. */
static void write_handler(struct mem *mem, unsigned n, unsigned options)
{
    const bool wide = !(options & OPTION_32);
    const uint64_t counter = COUNTER + n * 64,
                   flags = X86_FLAG_ONE | X86_FLAG_IF |
                           (options & OPTION_ALIGNED ? X86_FLAG_AC : 0) |
                           (options & OPTION_STEP ? X86_FLAG_TF : 0);
    struct snippet s = {0};

    add_load(&s, 4, stack_of(n));
    add_load(&s, 3, counter);
    ADD(&s, 0xFF, 0x03, 0x8B, 0x03);   /* inc dword [rbx]; mov eax, [rbx] */
    ADD(&s, 0x83, 0xE0, SNIPPETS - 1); /* and eax, SNIPPETS - 1 */
    ADD(&s, 0xC1, 0xE0, 8, 0x05);      /* shl eax, 8; add eax, code */
    add32(&s, CODE + n * MEM_PAGE_SIZE);
    add_load(&s, 2, 0xFEE000B0);
    ADD(&s, 0xC7, 0x02, 0, 0, 0, 0);        /* mov dword [rdx], 0: EOI */
    ADD(&s, 0xF6, 0x03, SNIPPETS, 0x75, 3); /* test byte [rbx], SNIPPETS; jnz */
    ADD(&s, 0xFB, 0xFF, 0xE0);              /* sti; jmp rax */
    ADD(&s, 0x6A, USER_DATA, 0x68);         /* push */
    add32(&s, user_stack_of(n, options));
    ADD(&s, 0x68);
    add32(&s, flags);
    ADD(&s, 0x6A, wide ? USER_CODE64 : USER_CODE32, 0x50);
    if (wide)
        ADD(&s, 0x48);
    ADD(&s, 0xCF); /* iret */
    mem_write(mem, HANDLER + n * 256, s.bytes, s.size);
    put(mem, counter, options & OPTION_USER_FIRST ? SNIPPETS : 0);
}

void race_write(struct mem *mem, const uint8_t *input, size_t size)
{
    struct choices c = {.input = input, .size = size, .at = RACE_CPUS};

    write_pages(mem);
    for (unsigned n = 0; n < RACE_CPUS; n++) {
        write_descriptors(mem, n, input[n]);
        write_handler(mem, n, input[n]);
        for (unsigned i = 0; i < SNIPPETS; i++) {
            struct snippet s;

            make_snippet(&s, &c, n, input[n]);
            mem_write(mem, CODE + n * MEM_PAGE_SIZE + i * SNIPPET_SIZE, s.bytes, s.size);
        }
    }
}

/* --- States ----------------------------------------------------------------------------------- */

static struct x86_seg segment(uint16_t selector)
{
    uint16_t attr = (uint16_t)(gdt[selector / 8] >> 40 & 0xF0FF);

    return (struct x86_seg){.limit = UINT32_MAX, .attr = attr, .selector = selector};
}

void race_state(struct x86_cpu *cpu, unsigned n, const uint8_t *input, size_t size)
{
    const unsigned options = input[n];

    cpu->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP;
    cpu->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    cpu->xcr0 = X86_XCR0_ALL;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        cpu->seg[i] = segment(i == X86_SS ? DATA0 : USER_DATA); /* IRET keeps those */
    cpu->gdtr = (struct x86_dtr){GDT, TSS0 + RACE_CPUS * 16 - 1};
    cpu->tr = (struct x86_seg){TSS + n * 128, 0x67, 0x8B, (uint16_t)(TSS0 + n * 16)};
    cpu->reg[X86_RIP] = HANDLER + n * 256;
    cpu->reg[X86_RSP] = stack_of(n);
    if (options & OPTION_ALIGNED)
        cpu->cr0 |= X86_CR0_AM;
    if (options & OPTION_32) {
        cpu->seg[X86_CS] = segment(CODE32);
        cpu->idtr = (struct x86_dtr){IDT32 + n * MEM_PAGE_SIZE, 256 * 8 - 1};
        return;
    }
    cpu->seg[X86_CS] = segment(CODE64);
    cpu->idtr = (struct x86_dtr){IDT + n * MEM_PAGE_SIZE, 256 * 16 - 1};
    cpu->cr0 |= X86_CR0_PG;
    cpu->cr3 = PML4;
    cpu->cr4 |= X86_CR4_PAE;
    cpu->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
}
