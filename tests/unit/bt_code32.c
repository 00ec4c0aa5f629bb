/*
 * Guests in 32-bit code that try what a translation to 64-bit code gets wrong: addresses that wrap
 * at 4 GiB, upper halves of registers, segments that are not flat or become so, stacks of 16 bits,
 * branches that are cut, bytes that mean another thing in 64-bit code. The interpreter must agree,
 * so the same tests run there.
 */
#include "interp_test.h"

#include "base/util.h"

#include <string.h>

#define CODE   RIG_FREE
#define CODE32 (RIG_FREE + 0x1000)
#define DATA   0x40000ULL
#define TOP    0xFFFFF000ULL /* the last page of 4 GiB */
#define PTE    7u            /* present, writable, user */

/* Descriptors behind the rig's. */
#define GDT_OWN   0x58u
#define GDT_LIMIT (GDT_OWN + 31)
enum { OFFSET_4G = GDT_OWN, OFFSET_PAGE = GDT_OWN + 8, READ_ONLY = GDT_OWN + 16 };
#define BASE 0x40800u

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

static void run_to_halt(struct x86_cpu *cpu)
{
    assert_int_equal(run(cpu), EXIT_HALT);
}

static uint32_t get32(uint64_t gpa)
{
    uint32_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 4), 0);
    return value;
}

static void put32(uint64_t gpa, uint32_t value)
{
    put(gpa, &value, 4);
}

/* The vector whose handler halted, or -1 where the code itself did. */
static int vector_of(const struct x86_cpu *cpu)
{
    uint64_t at = cpu->reg[X86_RIP] - 1 - RIG_HANDLERS;

    return at < 256 ? (int)at : -1;
}

/* A loop of 100 rounds is translated, and little of it is interpreted. */
static void test_is_translated(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    /* mov ecx, 100; 1: inc eax; push eax; pop ebx; mov [DATA], ebx; dec ecx; jnz 1b; hlt */
    PUT(CODE, 0xB9, 100, 0, 0, 0, 0x40, 0x50, 0x5B, 0x89, 0x1D, 0, 0, 4, 0, 0x49, 0x75, 0xF4, 0xF4);
    rig_state_32(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = 7;
    run_to_halt(&cpu);
    assert_int_equal(cpu.reg[X86_RBX], 107);
    assert_int_equal(get32(DATA), 107);
    if (strcmp(RIG_ENGINE.name, interp_engine.name) != 0)
        assert_true(rig_count(rig, "work", "translated-instructions") >= 7);
}

/* The same bytes in 64- and in 32-bit code. */
static void test_both_sizes(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x48, 0xFF, 0xC0, 0xF4); /* inc rax; or dec eax, inc eax; hlt */
    for (unsigned i = 0; i < 6; i++) {
        (i & 1 ? rig_state_32 : rig_state_64)(rig, &cpu, CODE);
        cpu.reg[X86_RAX] = 5;
        run_to_halt(&cpu);
        assert_int_equal(cpu.reg[X86_RAX], i & 1 ? 5 : 6);
    }
}

/* The same within one run, in one address space: 64-bit code calls what 32-bit code then calls. */
static void test_change_of_size(void **unused)
{
    const uint64_t both = CODE + 0x100;
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(both, 0x48, 0xFF, 0xC0, 0xC3); /* inc rax; or dec eax, inc eax; ret */
    PUT(CODE, 0xFF, 0xD3, 0xFF, 0xD3); /* call rbx; call rbx; then push CODE32's address; retfq */
    PUT(CODE + 4, 0x6A, RIG_CODE32, 0x68, 0, 0x10, 1, 0, 0x48, 0xCB);
    PUT(CODE32, 0xFF, 0xD3, 0xFF, 0xD3, 0xF4); /* call ebx; call ebx; hlt */
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = 5;
    cpu.reg[X86_RBX] = both;
    run_to_halt(&cpu);
    assert_int_equal(vector_of(&cpu), -1);
    assert_int_equal(cpu.reg[X86_RAX], 7);
    assert_int_equal(cpu.reg[X86_RSP], RIG_STACK);
}

/* The registers that 32-bit code does not have, which hold other things meanwhile. */
static void test_upper_registers(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    /* push CODE32's address; retfq */
    PUT(CODE, 0x6A, RIG_CODE32, 0x68, 0, 0x10, 1, 0, 0x48, 0xCB);
    /* inc [eax]; inc [ebx]; inc [ecx]; inc [edx]; inc [esi]; inc [edi]; inc [ebp]; push; hlt */
    PUT(CODE32, 0xFF, 0x00, 0xFF, 0x03, 0xFF, 0x01, 0xFF, 0x02, 0xFF, 0x06, 0xFF, 0x07);
    PUT(CODE32 + 12, 0xFF, 0x45, 0x00, 0x50, 0xF4);
    for (unsigned rounds = 0; rounds < 3; rounds++) {
        rig_state_64(rig, &cpu, CODE);
        for (unsigned i = 0; i < X86_GPRS; i++)
            if (i != X86_RSP)
                cpu.reg[i] = DATA + i * 0x1000;
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), -1);
        for (unsigned i = 0; i < X86_GPRS; i++) {
            if (i == X86_RSP)
                continue;
            assert_int_equal(cpu.reg[i], DATA + i * 0x1000);
            assert_int_equal(get32(DATA + i * 0x1000), i < X86_R8 ? rounds + 1 : 0);
        }
    }
}

/* --- Addresses that wrap --- */

/* Compatibility mode: the last page of 4 GiB, and what an address that is not cut would lead to,
 * which 64-bit code has put into the software TLB just before. */
static void prepare_wrap(struct x86_cpu *cpu)
{
    static const uint64_t decoys[] = {1ULL << 32, 0xFFFFFFFFFFFFF000};

    rig_clear(rig);
    rig_map(rig, TOP, DATA, PTE);
    rig_map(rig, decoys[0], DATA + 0x1000, PTE);
    rig_map(rig, decoys[1], DATA + 0x2000, PTE);
    /* mov rax, [decoys[0]]; mov [decoys[0]], rax; and so on; push CODE32's selector and address;
     * retfq */
    PUT(CODE, 0x48, 0xA1, 0, 0, 0, 0, 1, 0, 0, 0, 0x48, 0xA3, 0, 0, 0, 0, 1, 0, 0, 0);
    PUT(CODE + 20, 0x48, 0xA1, 0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF);
    PUT(CODE + 30, 0x48, 0xA3, 0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF);
    PUT(CODE + 40, 0x6A, RIG_CODE32, 0x68, 0, 0x10, 1, 0, 0x48, 0xCB);
    rig_state_64(rig, cpu, CODE);
}

static void test_wrapped_operands(void **unused)
{
    static const struct {
        uint8_t size, code[10];
        uint64_t rbx, rsi;
        uint32_t linear;
    } cases[] = {
        {3, {0x8B, 0x43, 0x20}, 0xFFFFFFF0, 0, 0x10},                /* mov eax, [ebx + 20h] */
        {3, {0x8B, 0x43, 0xE0}, 0x10, 0, 0xFFFFFFF0},                /* mov eax, [ebx - 20h] */
        {3, {0x8B, 0x04, 0x33}, 0xFFFFFFF0, 0x20, 0x10},             /* mov eax, [ebx + esi] */
        {3, {0x8B, 0x04, 0xB3}, 0x20, 0xFFFFFFF4, 0xFFFFFFF0},       /* mov eax, [ebx + esi * 4] */
        {7, {0x8B, 0x04, 0xF5, 0x10, 0, 0, 0}, 0, 0x20000000, 0x10}, /* mov eax, [esi * 8 + 10h] */
        {6, {0x8B, 0x83, 0, 0, 0, 0xF0}, 0x10000010, 0, 0x10},       /* mov eax, [ebx + disp32] */
        {5, {0xA1, 0xF0, 0xFF, 0xFF, 0xFF}, 0, 0, 0xFFFFFFF0},       /* mov eax, [disp32] */
        {6, {0x8B, 0x05, 0xF0, 0xFF, 0xFF, 0xFF}, 0, 0, 0xFFFFFFF0}, /* the same */
        {2, {0x8B, 0x03}, 0xDEADBEEF00000010, 0, 0x10},              /* mov eax, [ebx] */
        {3, {0x8B, 0x04, 0x33}, 0xDEADBEEF00000008, 1ULL << 63 | 8, 0x10},
        {4, {0x64, 0x8B, 0x43, 0x10}, 0xFFFBF800, 0, 0x10},           /* mov eax, fs:[ebx + 10h] */
        {4, {0x64, 0x8B, 0x04, 0x33}, 0xFFFBF000, 0x7F0, 0xFFFFFFF0}, /* mov eax, fs:[ebx + esi] */
        {6, {0x53, 0x58, 0x8B, 0x04, 0x24, 0x90}, 0, 0, 0x10}, /* push, pop, mov eax, [esp] */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct x86_cpu cpu;

        prepare_wrap(&cpu);
        put32(0x10, 0x10101010);
        put32(DATA + 0xFF0, 0xF0F0F0F0);
        put(CODE32, cases[i].code, cases[i].size);
        PUT(CODE32 + cases[i].size, 0xF4);
        cpu.reg[X86_RBX] = cases[i].rbx;
        cpu.reg[X86_RSI] = cases[i].rsi;
        cpu.seg[X86_FS].base = BASE;
        if (i + 1 == ARRAY_SIZE(cases))
            cpu.reg[X86_RSP] = 0x10;
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RAX], cases[i].linear == 0x10 ? 0x10101010 : 0xF0F0F0F0);
    }
}

/* Stacks that reach down past 0: a push, a call and its return. */
static void test_wrapped_stack(void **unused)
{
    struct x86_cpu cpu;

    prepare_wrap(&cpu);
    /* xor esp, esp; push 5; call 1f; hlt; 1: mov eax, [esp]; ret */
    PUT(CODE32, 0x31, 0xE4, 0x6A, 5, 0xE8, 1, 0, 0, 0, 0xF4, 0x8B, 0x04, 0x24, 0xC3);
    run_to_halt(&cpu);
    assert_int_equal(vector_of(&cpu), -1);
    assert_int_equal(cpu.reg[X86_RIP], CODE32 + 10);
    assert_int_equal(cpu.reg[X86_RAX], CODE32 + 9);
    assert_int_equal(cpu.reg[X86_RSP], 0xFFFFFFFC);
    assert_int_equal(get32(DATA + 0xFFC), 5);
    assert_int_equal(get32(DATA + 0xFF8), CODE32 + 9);
}

/* A base that wraps between two accesses that lie close together. */
static void test_wrapped_base(void **unused)
{
    struct x86_cpu cpu;

    prepare_wrap(&cpu);
    put32(0x10, 0x10101010);
    put32(0x14, 0x14141414);
    /* mov eax, [ebx + 8]; sub ebx, 16; mov edx, [ebx + 28]; hlt */
    PUT(CODE32, 0x8B, 0x43, 8, 0x83, 0xEB, 16, 0x8B, 0x53, 28, 0xF4);
    cpu.reg[X86_RBX] = 8;
    run_to_halt(&cpu);
    assert_int_equal(vector_of(&cpu), -1);
    assert_int_equal(cpu.reg[X86_RAX], 0x10101010);
    assert_int_equal(cpu.reg[X86_RDX], 0x14141414);
}

/* Bits far from their operand. */
static void test_wrapped_bits(void **unused)
{
    static const struct {
        uint32_t ebx, esi, linear;
    } cases[] = {
        {0xFFFFFFF0, 256, 0x10}, {0x10, (uint32_t)-256, 0xFFFFFFF0}, {0x30, (uint32_t)-256, 0x10}};

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t gpa = cases[i].linear == 0x10 ? 0x10 : DATA + 0xFF0;
        struct x86_cpu cpu;

        prepare_wrap(&cpu);
        put32(gpa, 1);
        /* btr [ebx], esi; sbb eax, eax; inc esi; bts [ebx], esi; hlt */
        PUT(CODE32, 0x0F, 0xB3, 0x33, 0x19, 0xC0, 0x46, 0x0F, 0xAB, 0x33, 0xF4);
        cpu.reg[X86_RBX] = cases[i].ebx;
        cpu.reg[X86_RSI] = cases[i].esi;
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RAX], 0xFFFFFFFF);
        assert_int_equal(get32(gpa), 2);
    }
}

/* An operand across 4 GiB is beyond the limit. */
static void test_across(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned segment = 0; segment < 2; segment++) {
        prepare_wrap(&cpu);
        PUT(CODE32, segment ? 0x64 : 0x3E, 0x8B, 0x03, 0xF4); /* mov eax, fs:[ebx] or ds:[ebx] */
        cpu.reg[X86_RBX] = 0xFFFFFFFE;
        cpu.seg[X86_FS].base = BASE;
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), X86_GP);
    }
}

/* --- Code that wraps --- */

static void test_wrapped_code(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned i = 0; i < 3; i++) {
        prepare_wrap(&cpu);
        PUT(CODE32, 0xE9); /* jmp to 10h before the end */
        put32(CODE32 + 1, (uint32_t)(TOP + 0xFF0 - (CODE32 + 5)));
        PUT(DATA + 0x1000, 0xB8, 0xBB, 0, 0, 0, 0xF4); /* what is at 4 GiB */
        if (i == 0) { /* mov ebx, 2 and NOPs up to the end; then, at 0: mov eax, 1; hlt */
            PUT(DATA + 0xFF0, 0xBB, 2, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                0x90, 0x90, 0x90);
            PUT(0, 0xB8, 1, 0, 0, 0, 0xF4);
        } else if (i == 1) { /* jmp to 0 */
            PUT(DATA + 0xFF0, 0xBB, 2, 0, 0, 0, 0xEB, 9);
            PUT(0, 0xB8, 1, 0, 0, 0, 0xF4);
        } else { /* an instruction across the end */
            PUT(DATA + 0xFF0, 0xBB, 2, 0, 0, 0, 0xEB, 6);
            PUT(DATA + 0xFFD, 0xB8, 1, 0);
            PUT(0, 0, 0, 0xF4);
        }
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RAX], 1);
        assert_int_equal(cpu.reg[X86_RBX], 2);
        assert_true(cpu.reg[X86_RIP] < 16);
    }
}

/* A branch with a 16-bit operand size. */
static void test_cut_branch(void **unused)
{
    static const uint8_t code[][5] = {
        {0x66, 0xEB, 0xFE}, {0x66, 0xE9, 0xFC, 0xFF}, {0x66, 0x74, 0xFD}};

    for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
        struct x86_cpu cpu;

        rig_clear(rig);
        put(CODE, code[i], sizeof(code[i]));
        mem_fill(rig->machine.mem, 0, 0xF4, 16);
        rig_state_32(rig, &cpu, CODE);
        cpu.rflags |= X86_FLAG_ZF;
        run_to_halt(&cpu);
        assert_true(cpu.reg[X86_RIP] < 16);
    }
}

/* --- Segments --- */

static void put_descriptor(unsigned selector, uint32_t base, uint64_t rest)
{
    rig_put64(rig, RIG_GDT + selector,
              rest | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)(base >> 24) << 56);
}

static void prepare_segments(struct x86_cpu *cpu)
{
    rig_clear(rig);
    put_descriptor(OFFSET_4G, BASE, 0x00CF93000000FFFF);
    put_descriptor(OFFSET_PAGE, BASE, 0x0040930000000FFF);
    put_descriptor(READ_ONLY, BASE, 0x00CF91000000FFFF);
    put32(BASE + 0x10, 0x11111111);
    put32(BASE + 0x1010, 0x22222222);
    put32(0x10, 0x33333333);
    rig_state_32(rig, cpu, CODE);
    cpu->gdtr.limit = GDT_LIMIT;
}

/* One piece of code and FS of all kinds. */
static void test_fs(void **unused)
{
    static const struct {
        uint16_t selector;
        uint32_t edi;
        bool write;
        int vector;
        uint32_t eax;
    } cases[] = {
        {OFFSET_4G, 0x10, false, -1, 0x11111111},
        {OFFSET_4G, 0x1010, false, -1, 0x22222222},
        {OFFSET_4G, 0x10, true, -1, 0},
        {OFFSET_PAGE, 0x10, false, -1, 0x11111111},
        {OFFSET_PAGE, 0x1010, false, X86_GP, 0},
        {OFFSET_PAGE, 0xFFD, false, X86_GP, 0},
        {READ_ONLY, 0x10, false, -1, 0x11111111},
        {READ_ONLY, 0x10, true, X86_GP, 0},
        {RIG_DATA, 0x10, false, -1, 0x33333333},
        {0, 0x10, false, X86_GP, 0},
        {OFFSET_4G, 0xFFFFFFFD, false, X86_GP, 0},
        {OFFSET_4G, 0x1010, false, -1, 0x22222222},
        {OFFSET_4G, -BASE + 0x10, false, -1, 0x33333333},
    };

    for (unsigned write = 0; write < 2; write++) {
        struct x86_cpu cpu;

        prepare_segments(&cpu);
        /* mov fs, edx; mov eax, fs:[edi] or mov fs:[edi], eax; hlt */
        PUT(CODE, 0x8E, 0xE2, 0x64, write ? 0x89 : 0x8B, 0x07, 0xF4);
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            if (cases[i].write != write)
                continue;
            rig_state_32(rig, &cpu, CODE);
            cpu.gdtr.limit = GDT_LIMIT;
            cpu.reg[X86_RDX] = cases[i].selector;
            cpu.reg[X86_RDI] = cases[i].edi;
            cpu.reg[X86_RAX] = 0;
            run_to_halt(&cpu);
            assert_int_equal(vector_of(&cpu), cases[i].vector);
            assert_int_equal(cpu.reg[X86_RAX], cases[i].eax);
        }
    }
}

/* DS stops being flat in the middle of code, and is again. */
static void test_not_flat(void **unused)
{
    struct x86_cpu cpu;

    prepare_segments(&cpu);
    put32(0x800, 0x33333333);
    put32(BASE + 0x800, 0x11111111);
    /* mov ds, edx; mov eax, [edi]; mov ds, ecx; mov ebx, [edi]; hlt */
    PUT(CODE, 0x8E, 0xDA, 0x8B, 0x07, 0x8E, 0xD9, 0x8B, 0x1F, 0xF4);
    for (unsigned i = 0; i < 6; i++) {
        rig_state_32(rig, &cpu, CODE);
        cpu.gdtr.limit = GDT_LIMIT;
        cpu.reg[X86_RDX] = i & 1 ? OFFSET_4G : RIG_DATA;
        cpu.reg[X86_RCX] = i & 2 ? OFFSET_4G : RIG_DATA;
        cpu.reg[X86_RDI] = 0x800;
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RAX], i & 1 ? 0x11111111 : 0x33333333);
        assert_int_equal(cpu.reg[X86_RBX], i & 2 ? 0x11111111 : 0x33333333);
    }
}

/* A flat stack segment of which SP is used. */
static void test_small_stack(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x50, 0x5B, 0x50, 0xF4); /* push eax; pop ebx; push eax; hlt */
    for (unsigned small = 0; small < 2; small++) {
        rig_state_32(rig, &cpu, CODE);
        if (small)
            cpu.seg[X86_SS].attr &= (uint16_t)~X86_ATTR_DB;
        cpu.reg[X86_RSP] = 0x50010;
        cpu.reg[X86_RAX] = 0xABCD;
        run_to_halt(&cpu);
        assert_int_equal(cpu.reg[X86_RSP], 0x5000C);
        assert_int_equal(cpu.reg[X86_RBX], 0xABCD);
        assert_int_equal(get32(small ? 0xC : 0x5000C), 0xABCD);
        put32(0x5000C, 0);
    }
}

/* CS may be read only through itself, where it is readable, and never written. */
static void test_code_segment(void **unused)
{
    for (unsigned write = 0; write < 2; write++) {
        struct x86_cpu cpu;

        rig_clear(rig);
        put32(DATA, 0x12345678);
        PUT(CODE, 0x2E, write ? 0x89 : 0x8B, 0x03, 0xF4); /* mov eax, cs:[ebx]; or the reverse */
        rig_state_32(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = DATA;
        run_to_halt(&cpu);
        assert_int_equal(vector_of(&cpu), write ? X86_GP : -1);
        if (!write)
            assert_int_equal(cpu.reg[X86_RAX], 0x12345678);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_translated),    cmocka_unit_test(test_both_sizes),
        cmocka_unit_test(test_change_of_size),   cmocka_unit_test(test_upper_registers),
        cmocka_unit_test(test_wrapped_operands), cmocka_unit_test(test_wrapped_stack),
        cmocka_unit_test(test_wrapped_base),     cmocka_unit_test(test_wrapped_bits),
        cmocka_unit_test(test_across),           cmocka_unit_test(test_wrapped_code),
        cmocka_unit_test(test_cut_branch),       cmocka_unit_test(test_fs),
        cmocka_unit_test(test_not_flat),         cmocka_unit_test(test_small_stack),
        cmocka_unit_test(test_code_segment),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
