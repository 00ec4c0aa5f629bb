/*
 * Guests that try what a translator gets wrong: code that changes behind its links, operands and
 * branches to anywhere, state that only its own registers hold. The interpreter must agree, so the
 * same tests run there.
 */
#include "interp_test.h"

#include "base/util.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CODE RIG_FREE
#define DATA 0x40000ULL
#define PTE  7u /* present, writable, user */

static struct sigaction on_fpe; /* the engine's handler; cmocka puts its own there in each test */

static int setup(void **state)
{
    rig = rig_create(1, 0);
    sigaction(SIGFPE, NULL, &on_fpe);
    return rig ? 0 : -1;
}

static uint64_t get64(uint64_t gpa)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 8), 0);
    return value;
}

static bool in_handler(const struct x86_cpu *cpu)
{
    return cpu->reg[X86_RIP] - RIG_HANDLERS <= 256;
}

/* The vector whose handler halted. */
static int vector_of(const struct x86_cpu *cpu)
{
    assert_true(in_handler(cpu));
    return (int)(cpu->reg[X86_RIP] - 1 - RIG_HANDLERS);
}

/* Of the frame that an exception left; with an error code it is one word up. */
static uint64_t faulting_rip(const struct x86_cpu *cpu, bool has_error)
{
    return get64(cpu->reg[X86_RSP] + (has_error ? 8 : 0));
}

/* Runs 64-bit code at RIP to a HLT of its own and returns RAX. */
static uint64_t result(uint64_t rip)
{
    struct x86_cpu cpu;

    rig_state_64(rig, &cpu, rip);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_false(in_handler(&cpu));
    return cpu.reg[X86_RAX];
}

/* --- Code that changes --- */

/* A call within a page is linked to code that is out of date by then: A calls X, and both are
 * translated anew after X has changed, A first. */
static void test_link_to_stale(void **unused)
{
    const uint64_t a = CODE + 0x1000, x = CODE + 0x1100;

    rig_clear(rig);
    /* mov ebx, 3; 1: call a; dec ebx; jnz 1b */
    PUT(CODE, 0xBB, 3, 0, 0, 0, 0xE8, 0xF6, 0x0F, 0, 0, 0xFF, 0xCB, 0x75, 0xF7);
    PUT(CODE + 14, 0xC6, 0x05, 0xEC, 0x10, 0, 0, 2); /* mov byte [x+1], 2 */
    PUT(CODE + 21, 0xBB, 3, 0, 0, 0, 0xE8, 0xE1, 0x0F, 0, 0, 0xFF, 0xCB, 0x75, 0xF7, 0xF4);
    PUT(a, 0xE8, 0xFB, 0, 0, 0, 0xC3); /* call x; ret */
    PUT(x, 0xB8, 1, 0, 0, 0, 0xC3);    /* mov eax, 1; ret */
    assert_int_equal(result(CODE), 2);
}

/* INVLPG of the page it stands in, which is another one by then. */
static void test_invlpg_here(void **unused)
{
    const uint64_t v = 0x40000000, p = CODE, q = CODE + 0x1000;
    struct x86_cpu cpu;

    rig_clear(rig);
    for (unsigned i = 0; i < 3; i++) {
        rig_map(rig, v, p, PTE);
        /* mov [rdi], r8; invlpg [rbx]; mov eax, 1 or 2; hlt */
        PUT(p, 0x4C, 0x89, 0x07, 0x0F, 0x01, 0x3B, 0xB8, 1, 0, 0, 0, 0xF4);
        PUT(q, 0x4C, 0x89, 0x07, 0x0F, 0x01, 0x3B, 0xB8, 2, 0, 0, 0, 0xF4);
        rig_state_64(rig, &cpu, v);
        cpu.reg[X86_RBX] = v;
        cpu.reg[X86_RDI] = rig->next_table - MEM_PAGE_SIZE; /* the last table was made for V */
        cpu.reg[X86_R8] = q | PTE;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], 2);
        assert_int_equal(cpu.reg[X86_RIP], v + 12);
    }
}

/* A function whose first instruction lies across two pages, called often; then another page stands
 * behind the first one, or either is written to. */
static void test_across_pages(void **unused)
{
    const uint64_t v = 0x40000000, p = CODE + 0x1000, q = CODE + 0x2000, r = CODE + 0x3000;
    const struct {
        uint64_t rdi, r8, result;
    } changes[] = {
        {0, r | PTE, 0x30201},    /* the second page is R; where that says so, see below */
        {q, 0xC3000605, 0x60501}, /* mov eax, ...; ret */
        {p + 0xFF8, 0x07B8ULL << 48, 0x40307},
        {p + 0xFF8, 0x01EBULL << 48, 0x40301}, /* jmp to add al, 0, without MOV */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(changes) * 2; i++) {
        const unsigned n = i % ARRAY_SIZE(changes);
        struct x86_cpu cpu;

        rig_clear(rig);
        rig_map(rig, v, p, PTE);
        rig_map(rig, v + 0x1000, q, PTE);
        /* mov ebx, 40; 1: call rdx; add r9, rax; dec ebx; jnz 1b; mov [rdi], r8; invlpg [rsi] */
        PUT(CODE, 0xBB, 40, 0, 0, 0, 0xFF, 0xD2, 0x49, 0x01, 0xC1, 0xFF, 0xCB, 0x75, 0xF7, 0x4C,
            0x89, 0x07, 0x0F, 0x01, 0x3E);
        /* mov ebx, 40; 1: call rdx; add r10, rax; dec ebx; jnz 1b; hlt */
        PUT(CODE + 20, 0xBB, 40, 0, 0, 0, 0xFF, 0xD2, 0x49, 0x01, 0xC2, 0xFF, 0xCB, 0x75, 0xF7,
            0xF4);
        PUT(p + 0xFFE, 0xB8, 0x01); /* mov eax, 0x40301; ret */
        PUT(q, 0x03, 0x04, 0x00, 0xC3);
        PUT(r, 0x02, 0x03, 0x00, 0xC3);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RDX] = v + 0xFFE;
        cpu.reg[X86_RSI] = n ? DATA : v + 0x1000;
        cpu.reg[X86_RDI] = n ? changes[n].rdi : rig->next_table - MEM_PAGE_SIZE + 8;
        cpu.reg[X86_R8] = changes[n].r8;
        cpu.reg[X86_R9] = cpu.reg[X86_R10] = 0;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_false(in_handler(&cpu));
        assert_int_equal(cpu.reg[X86_R9], 40 * 0x40301);
        assert_int_equal(cpu.reg[X86_R10], 40 * changes[n].result);
    }
}

/* Translations made so far. */
static uint64_t translations(void)
{
    return rig_count(rig, "work", "translations");
}

/* What stands in the middle of a region is entered from outside, by its first instruction: with the
 * flags that it wants, with registers that are traded there, and not when the code has changed. */
static void test_enter_in_the_middle(void **unused)
{
    /* cmp edi, esi; jmp 1f; ud2; 1: lea r10, [r10+r11]; jc 2f; mov eax, 1; hlt; 2: mov eax, 2; hlt
     */
    static const uint8_t code[] = {0x39, 0xF7, 0xEB, 0x02, 0x0F, 0x0B, 0x4F, 0x8D,
                                   0x14, 0x1A, 0x72, 0x06, 0xB8, 1,    0,    0,
                                   0,    0xF4, 0xB8, 2,    0,    0,    0,    0xF4};
    uint64_t before = 0;

    rig_clear(rig);
    put(CODE, code, sizeof(code));
    for (unsigned i = 0; i < 8; i++) {
        bool middle = i % 4 >= 2, carry = i & 1;
        struct x86_cpu cpu;

        if (i == 4)
            PUT(CODE + 19, 3); /* mov eax, 3 */
        rig_state_64(rig, &cpu, CODE + (middle ? 6 : 0));
        cpu.reg[X86_RDI] = carry && !middle ? 1 : 2;
        cpu.reg[X86_RSI] = 2;
        cpu.reg[X86_R10] = 100;
        cpu.reg[X86_R11] = 1 + i;
        cpu.rflags |= carry && middle ? X86_FLAG_CF : 0;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], !carry ? 1 : i < 4 ? 2 : 3);
        assert_int_equal(cpu.reg[X86_R10], 101 + i);
        if (middle)
            assert_int_equal(translations(), before);
        before = translations();
    }
}

static void *run_first(void *unused)
{
    return (void *)(intptr_t)RIG_ENGINE.run(rig->cpu[0].vcpu);
}

/* A loop that only a write from outside can end. */
static void test_loop_is_changed(void **unused)
{
    struct x86_cpu cpu;
    pthread_t thread;
    void *exit;

    for (unsigned i = 0; i < 20; i++) {
        rig_clear(rig);
        PUT(CODE, 0x48, 0xFF, 0xC0, 0xEB, 0xFB, 0xF4); /* 1: inc rax; jmp 1b; hlt */
        rig_state_64(rig, &cpu, CODE);
        RIG_ENGINE.state_in(rig->cpu[0].vcpu, &cpu);
        assert_int_equal(pthread_create(&thread, NULL, run_first, NULL), 0);
        usleep(2000);
        PUT(CODE + 4, 0x00); /* jmp to the hlt */
        assert_int_equal(pthread_join(thread, &exit), 0);
        assert_int_equal((intptr_t)exit, EXIT_HALT);
    }
}

/* --- Encodings --- */

/* Prefixes that mean nothing: with another operand the instruction would not fit in 15 bytes. */
static void test_longest(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned prefixes = 6; prefixes <= 12; prefixes++) {
        uint8_t code[32];
        unsigned size = 0;

        rig_clear(rig);
        memset(code, 0x3E, prefixes); /* DS */
        size = prefixes;
        memcpy(code + size, "\x03\x03\x66", 2); /* add eax, [rbx] */
        size += 2;
        memset(code + size, 0x66, prefixes);
        size += prefixes;
        memcpy(code + size, "\x03\x03\xF4", 3); /* add ax, [rbx]; hlt */
        size += 3;
        put(CODE, code, size);
        rig_put64(rig, DATA, 0x10001);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = DATA;
        cpu.reg[X86_RAX] = 0;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RIP], CODE + size);
        assert_int_equal(cpu.reg[X86_RAX], 0x10002);
    }
}

/* --- State --- */

/* MXCSR's sticky flags, set by code that goes straight on to code with x87 instructions. */
static void test_sticky_flags(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    /* 1: ldmxcsr [rdi]; divss xmm0, xmm1; jmp rbx; 2: dec ecx; jnz 1b; stmxcsr [rdi+8]; hlt */
    PUT(CODE, 0x0F, 0xAE, 0x17, 0xEB, 0, 0xF3, 0x0F, 0x5E, 0xC1, 0xFF, 0xE3);
    PUT(CODE + 11, 0xFF, 0xC9, 0x75, 0xF1, 0x0F, 0xAE, 0x5F, 0x08, 0xF4);
    PUT(CODE + 0x1000, 0xD9, 0xE8, 0xDD, 0xD8, 0xFF, 0xE6); /* fld1; fstp st0; jmp rsi */
    rig_put64(rig, DATA, 0x1F80);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RDI] = DATA;
    cpu.reg[X86_RBX] = CODE + 0x1000;
    cpu.reg[X86_RSI] = CODE + 11;
    cpu.reg[X86_RCX] = 8;
    memcpy(cpu.xsave, &(uint16_t){0x37F}, 2);
    cpu.xsave[4] = 0; /* all x87 registers are empty */
    memcpy(cpu.xsave + X86_XSAVE_XMM, &(float){1}, 4);
    memcpy(cpu.xsave + X86_XSAVE_XMM + 16, &(float){3}, 4);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(get64(DATA + 8) & 0x20, 0x20); /* PE */
}

/* --- Privilege and addresses --- */

/* CPL 1 has a supervisor's pages, but not its instructions. */
static void test_level_1(void **unused)
{
    static const uint8_t code[][3] = {{0xFA, 0x90, 0x90}, {0xFB, 0x90, 0x90}, {0x0F, 0x01, 0xF8}};

    for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
        struct x86_cpu cpu;

        rig_clear(rig);
        PUT(CODE, 0x90, 0x90, 0x90, 0x90, 0xF4);
        put(CODE, code[i], sizeof(code[i]));
        for (unsigned level = 0; level < 2; level++) {
            rig_state_64(rig, &cpu, CODE);
            cpu.seg[X86_CS].selector |= (uint16_t)level;
            cpu.seg[X86_SS].selector |= (uint16_t)level;
            cpu.seg[X86_CS].attr |= (uint16_t)(level << 5);
            cpu.seg[X86_SS].attr |= (uint16_t)(level << 5);
            assert_int_equal(run(&cpu), EXIT_HALT);
            if (level)
                assert_int_equal(faulting_rip(&cpu, true), CODE);
            else
                assert_false(in_handler(&cpu));
        }
    }
}

/* Where nothing is mapped, or nothing can be. */
static const uint64_t wild[] = {
    0x0000800000000000, 0x00007FFFFFFFFFFF, 0xFFFF7FFFFFFFFFFF, 0xFFFF800000000000,
    0xFFFFFFFFFFFFFFF9, 0xFFFFFFFFFFFFFFFF, 0x8000000000000000, 0x0001000000040000,
    0x4000000000040000, 0x00000001F0000000, 0x0000000000100008, 0x00007FF000040000,
};

/* Each form of operand, led to a wild address in each way: nothing but #GP, #SS or #PF, at the
 * instruction, with no register changed. */
static void test_wild_operands(void **unused)
{
    static const struct {
        uint8_t size, code[10];
        uint8_t base, index, scale;
    } forms[] = {
        {3, {0x48, 0x8B, 0x03}, X86_RBX, X86_NONE, 0},                   /* mov rax, [rbx] */
        {3, {0x48, 0x89, 0x03}, X86_RBX, X86_NONE, 0},                   /* mov [rbx], rax */
        {4, {0x48, 0x8B, 0x04, 0x33}, X86_RBX, X86_RSI, 0},              /* mov rax, [rbx+rsi] */
        {4, {0x48, 0x89, 0x04, 0xF3}, X86_RBX, X86_RSI, 3},              /* [rbx+rsi*8] */
        {8, {0x48, 0x8B, 0x04, 0xF5, 0, 0, 0, 0}, X86_NONE, X86_RSI, 3}, /* [rsi*8] */
        {4, {0x65, 0x48, 0x8B, 0x03}, X86_RBX, X86_NONE, 0},             /* gs:[rbx] */
        {5, {0x64, 0x48, 0x89, 0x04, 0x33}, X86_RBX, X86_RSI, 0},        /* fs:[rbx+rsi] */
        {4, {0x4D, 0x8B, 0x14, 0x1B}, X86_R11, X86_RBX, 0},              /* mov r10, [r11+rbx] */
        {5, {0xF0, 0x48, 0x0F, 0xB1, 0x0B}, X86_RBX, X86_NONE, 0},       /* lock cmpxchg */
        {3, {0x0F, 0x10, 0x03}, X86_RBX, X86_NONE, 0},                   /* movups xmm0, [rbx] */
        {4, {0xC5, 0xFC, 0x11, 0x03}, X86_RBX, X86_NONE, 0},             /* vmovups [rbx], ymm0 */
        {2, {0xFF, 0x33}, X86_RBX, X86_NONE, 0},                         /* push [rbx] */
        {2, {0xFF, 0x13}, X86_RBX, X86_NONE, 0},                         /* call [rbx] */
        {2, {0xFF, 0x23}, X86_RBX, X86_NONE, 0},                         /* jmp [rbx] */
        {1, {0x50}, X86_RSP, X86_NONE, 0},                               /* push rax */
        {1, {0x58}, X86_RSP, X86_NONE, 0},                               /* pop rax */
        {1, {0xC3}, X86_RSP, X86_NONE, 0},                               /* ret */
        {1, {0xC9}, X86_RBP, X86_NONE, 0},                               /* leave */
        {5, {0xE8, 0, 0, 0, 0}, X86_RSP, X86_NONE, 0},                   /* call */
        {1, {0x9C}, X86_RSP, X86_NONE, 0},                               /* pushf */
        {2, {0xDD, 0x03}, X86_RBX, X86_NONE, 0},                         /* fld qword [rbx] */
        {2, {0xF7, 0x33}, X86_RBX, X86_NONE, 0},                         /* div dword [rbx] */
        {1, {0xAA}, X86_RDI, X86_NONE, 0},                               /* stosb */
        {2, {0xF3, 0xAB}, X86_RDI, X86_NONE, 0},                         /* rep stosd */
        {2, {0xF3, 0xA4}, X86_RSI, X86_NONE, 0},                         /* rep movsb */
        {3, {0xF3, 0x48, 0xA5}, X86_RDI, X86_NONE, 0},                   /* rep movsq */
        {2, {0x48, 0xA7}, X86_RSI, X86_NONE, 0},                         /* cmpsq */
    };

    for (unsigned f = 0; f < ARRAY_SIZE(forms); f++) {
        rig_clear(rig);
        /* IST 1 for the frames. */
        for (unsigned v = X86_SS_FAULT; v <= X86_PF; v++)
            PUT(RIG_IDT64 + v * 16 + 4, 1);
        rig_put64(rig, RIG_TSS64 + 0x24, RIG_STACK);
        put(CODE, forms[f].code, forms[f].size);
        PUT(CODE + forms[f].size, 0xF4);
        for (unsigned w = 0; w < ARRAY_SIZE(wild); w++)
            for (unsigned way = 0; way < 3; way++) {
                /* At first by the base alone; then by base and index, the sum overflowing; then
                 * by the segment. */
                uint64_t rest = way == 1 ? 0x9234567890ABCDE8 : 0;
                uint64_t segment = way == 2 ? 0x00007000DEADB000 : 0;
                struct x86_cpu cpu, before;
                int vector;

                if ((way == 1 && forms[f].index == X86_NONE) ||
                    (way == 2 && forms[f].code[0] != 0x64 && forms[f].code[0] != 0x65))
                    continue;
                rig_state_64(rig, &cpu, CODE);
                cpu.reg[X86_RDX] = 5;
                cpu.reg[X86_RCX] = 1;
                cpu.seg[X86_FS].base = cpu.seg[X86_GS].base = segment;
                if (forms[f].index != X86_NONE)
                    cpu.reg[forms[f].index] =
                        forms[f].base == X86_NONE ? wild[w] >> forms[f].scale : rest;
                if (forms[f].base != X86_NONE)
                    cpu.reg[forms[f].base] =
                        wild[w] - (forms[f].index == X86_NONE ? 0 : rest << forms[f].scale) -
                        segment;
                before = cpu;
                assert_int_equal(run(&cpu), EXIT_HALT);
                vector = vector_of(&cpu);
                assert_true(vector == X86_GP || vector == X86_SS_FAULT || vector == X86_PF);
                assert_int_equal(faulting_rip(&cpu, true), CODE);
                for (unsigned r = 0; r < X86_GPRS; r++)
                    if (r != X86_RSP)
                        assert_int_equal(cpu.reg[r], before.reg[r]);
                assert_int_equal(get64(cpu.reg[X86_RSP] + 32), before.reg[X86_RSP]);
            }
    }
}

/* The lowest displacement there is, from a base that moves down: one check for both accesses would
 * ask for a page 4 GiB away, which is mapped. */
static void test_lowest_displacement(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    rig_map(rig, DATA + (1ULL << 32), DATA + 0x1000, PTE);
    rig_put64(rig, DATA, 3);
    rig_put64(rig, DATA + 8, 5);
    /* mov rax, [rbx - 0x80000000]; sub rbx, 8; add rax, [rbx - 0x80000000]; hlt */
    PUT(CODE, 0x48, 0x8B, 0x83, 0, 0, 0, 0x80, 0x48, 0x83, 0xEB, 8, 0x48, 0x03, 0x83, 0, 0, 0, 0x80,
        0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RBX] = DATA + 8 + 0x80000000;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_false(in_handler(&cpu));
    assert_int_equal(cpu.reg[X86_RAX], 8);
}

/* Branches to anywhere, by register, from memory, and by RET. */
static void test_wild_targets(void **unused)
{
    static const struct {
        uint8_t size, code[4];
    } ways[] = {{2, {0xFF, 0xE3}}, {2, {0xFF, 0xD3}}, {2, {0x53, 0xC3}}, {2, {0xFF, 0x27}}};

    for (unsigned i = 0; i < ARRAY_SIZE(ways) * 2; i++) {
        rig_clear(rig);
        put(CODE, ways[i / 2].code, ways[i / 2].size);
        for (unsigned w = 0; w < ARRAY_SIZE(wild); w++) {
            bool canonical = (uint64_t)((int64_t)(wild[w] << 16) >> 16) == wild[w];
            struct x86_cpu cpu;

            rig_state_64(rig, &cpu, CODE);
            cpu.reg[X86_RBX] = wild[w];
            cpu.reg[X86_RDI] = DATA;
            rig_put64(rig, DATA, wild[w]);
            assert_int_equal(run(&cpu), EXIT_HALT);
            assert_int_equal(vector_of(&cpu), canonical ? X86_PF : X86_GP);
            assert_int_equal(faulting_rip(&cpu, true),
                             canonical ? wild[w] : CODE + (ways[i / 2].code[0] == 0x53));
        }
    }
}

/* The same code at CPL 0 and 3: what the one has in its software TLB is nothing to the other. */
static void test_levels_apart(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    rig_map(rig, DATA, DATA, 3);             /* the supervisor's */
    PUT(CODE, 0x48, 0x8B, 0x03, 0x0F, 0x0B); /* mov rax, [rbx]; ud2 */
    rig_put64(rig, DATA, 0x5EC2E7);
    for (unsigned i = 0; i < 6; i++) {
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = DATA;
        cpu.reg[X86_RAX] = 0;
        if (i & 1) {
            cpu.seg[X86_CS] = rig_segment(RIG_USER_CODE64);
            cpu.seg[X86_SS] = rig_segment(RIG_USER_DATA);
        }
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), i & 1 ? X86_PF : X86_UD);
        assert_int_equal(cpu.reg[X86_RAX], i & 1 ? 0 : 0x5EC2E7);
    }
}

/* The same within one run: the kernel reads its page and goes to user code that reads it, too. */
static void test_after_the_kernel(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    rig_map(rig, DATA, DATA, 3);
    rig_put64(rig, DATA, 0x5EC2E7);
    /* mov rdx, [rbx]; mov [rbx], rdx; sysretq */
    PUT(CODE, 0x48, 0x8B, 0x13, 0x48, 0x89, 0x13, 0x48, 0x0F, 0x07);
    PUT(CODE + 0x100, 0x48, 0x89, 0x03); /* mov [rbx], rax */
    rig_state_64(rig, &cpu, CODE);
    cpu.star = (uint64_t)RIG_USER_CODE32 << 48;
    cpu.reg[X86_RBX] = DATA;
    cpu.reg[X86_RCX] = CODE + 0x100;
    cpu.reg[X86_R11] = 2;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_PF);
    assert_int_equal(faulting_rip(&cpu, true), CODE + 0x100);
    assert_int_equal(cpu.reg[X86_RDX], 0x5EC2E7);
    assert_int_equal(get64(DATA), 0x5EC2E7);
}

/* SMAP: what STAC opens, CLAC closes, in a loop that would run without leaving translated code. */
static void test_smap(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    rig_map(rig, CODE, CODE, 3); /* supervisor code, because of SMEP and for the rest, too */
    for (uint64_t page = 0; page < CODE; page += MEM_PAGE_SIZE)
        rig_map(rig, page, page, 3);
    /* 1: stac; mov rax, [rbx]; mov [rbx], rax; clac; dec ecx; jnz 1b; mov rdx, [rbx] */
    PUT(CODE, 0x0F, 0x01, 0xCB, 0x48, 0x8B, 0x03, 0x48, 0x89, 0x03, 0x0F, 0x01, 0xCA, 0xFF, 0xC9,
        0x75, 0xF0, 0x48, 0x8B, 0x13, 0xF4);
    rig_put64(rig, DATA, 7);
    rig_state_64(rig, &cpu, CODE);
    cpu.cr4 |= X86_CR4_SMAP;
    cpu.reg[X86_RBX] = DATA;
    cpu.reg[X86_RCX] = 20;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_PF);
    assert_int_equal(faulting_rip(&cpu, true), CODE + 16);
    assert_int_equal(cpu.reg[X86_RAX], 7);
    assert_int_equal(cpu.reg[X86_RDX], 0);
}

/* --- Several at once --- */

/* Two machines on one thread, in turn. */
static void test_two_machines(void **unused)
{
    struct rig *rigs[2] = {rig_create(1, 0), rig_create(1, 0)}, *usual = rig;

    for (unsigned i = 0; i < 2; i++) {
        rig = rigs[i];
        assert_non_null(rig);
        PUT(CODE, 0x48, 0xFF, 0x03, 0x48, 0x8B, 0x03, 0xF4); /* inc [rbx]; mov rax, [rbx]; hlt */
    }
    for (unsigned n = 1; n <= 20; n++)
        for (unsigned i = 0; i < 2; i++) {
            struct x86_cpu cpu;

            rig = rigs[i];
            rig_state_64(rig, &cpu, CODE);
            cpu.reg[X86_RBX] = DATA;
            if (n % 3 == 0 && i) /* now and then only the first runs */
                continue;
            assert_int_equal(run(&cpu), EXIT_HALT);
            assert_int_equal(cpu.reg[X86_RAX], i ? n - n / 3 : n);
        }
    rig_destroy(rigs[0]);
    rig_destroy(rigs[1]);
    rig = usual;
}

struct scribbler {
    pthread_t thread;
    _Atomic bool stop;
    struct rig *rig;
};

static uint32_t random_next(uint32_t *state)
{
    return *state = *state * 1664525 + 1013904223;
}

/* Bytes that decide much: opcodes of loads and stores, of branches, ModRM and prefixes. */
static void *scribble(void *opaque)
{
    static const uint8_t bytes[] = {0x8B, 0x89, 0x03, 0xC3, 0xD8, 0x75, 0xEB, 0xF6, 0x48,
                                    0x4D, 0x66, 0x0F, 0xFF, 0x50, 0x58, 0xE8, 0xC5, 0x10};
    struct scribbler *s = opaque;
    uint32_t state = 1;

    for (unsigned n = 0; !s->stop; n++) {
        uint32_t r = random_next(&state);

        mem_write(s->rig->machine.mem, CODE + (r >> 8) % 64, &bytes[(r >> 20) % sizeof(bytes)], 1);
        if (n % 64 == 0)
            cpu_port_request(&s->rig->cpu[0].port, CPU_REQ_KICK);
    }
    return NULL;
}

/* User code that changes while it is decoded, translated and run: whatever that does, it does to
 * the guest. */
static void test_scribbled_code(void **unused)
{
    struct scribbler s = {.rig = rig};
    unsigned ended[3] = {0};
    struct x86_cpu cpu;

    sigaction(SIGFPE, &on_fpe, NULL);
    rig_clear(rig);
    assert_int_equal(pthread_create(&s.thread, NULL, scribble, &s), 0);
    for (unsigned i = 0; ended[1] < 2000; i++) {
        enum engine_exit exit;

        rig_state_64(rig, &cpu, CODE);
        cpu.seg[X86_CS] = rig_segment(RIG_USER_CODE64);
        cpu.seg[X86_SS] = rig_segment(RIG_USER_DATA);
        for (unsigned r = 0; r < X86_GPRS; r++)
            cpu.reg[r] = i & 1 ? DATA + r * 8 : 0x5555555500000000ULL + r * 0x1001001ULL;
        rig->cpu[0].port.requests = 0;
        exit = run(&cpu);
        assert_true(exit == EXIT_KICK || exit == EXIT_HALT || exit == EXIT_SHUTDOWN);
        ended[exit == EXIT_KICK ? 0 : exit == EXIT_HALT ? 1 : 2]++;
        if (exit == EXIT_SHUTDOWN)
            rig_clear(rig);
    }
    s.stop = true;
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    rig->cpu[0].port.requests = 0;
}

/* --- The end --- */

/* A loop goes round and then dies: the report ends with the instruction that it died of. */
static void test_last_instruction(void **unused)
{
    struct x86_cpu cpu;
    char text[4096], expected[32], *line;

    rig_clear(rig);
    /* mov rdx, where nothing is; mov ebx, DATA; mov ecx, 200 */
    PUT(CODE, 0x48, 0xBA, 0, 0, 0, 0, 0, 0x70, 0, 0, 0xBB, 0, 0, 4, 0, 0xB9, 200, 0, 0, 0);
    /* 1: mov [rbx], al; dec ecx; cmovz rbx, rdx; jmp 1b */
    PUT(CODE + 20, 0x88, 0x03, 0xFF, 0xC9, 0x48, 0x0F, 0x44, 0xDA, 0xEB, 0xF6);
    rig_state_64(rig, &cpu, CODE);
    cpu.idtr.limit = 0;
    assert_int_equal(run(&cpu), EXIT_SHUTDOWN);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 20);
    RIG_ENGINE.history(rig->cpu[0].vcpu, text, sizeof(text));
    text[strlen(text) - 1] = 0;
    line = strrchr(text, '\n');
    snprintf(expected, sizeof(expected), "%016llx ", (unsigned long long)CODE + 20);
    assert_non_null(strstr(line ? line : text, expected));
    rig_clear(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_to_stale),    cmocka_unit_test(test_invlpg_here),
        cmocka_unit_test(test_across_pages),     cmocka_unit_test(test_enter_in_the_middle),
        cmocka_unit_test(test_loop_is_changed),  cmocka_unit_test(test_longest),
        cmocka_unit_test(test_sticky_flags),     cmocka_unit_test(test_level_1),
        cmocka_unit_test(test_wild_operands),    cmocka_unit_test(test_lowest_displacement),
        cmocka_unit_test(test_wild_targets),     cmocka_unit_test(test_levels_apart),
        cmocka_unit_test(test_after_the_kernel), cmocka_unit_test(test_smap),
        cmocka_unit_test(test_two_machines),     cmocka_unit_test(test_scribbled_code),
        cmocka_unit_test(test_last_instruction),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
