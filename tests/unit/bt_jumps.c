/*
 * Guests that reach code by the second level of the jump table, which knows only where the code
 * lies in memory: by another virtual address, at another privilege level, as code of another size,
 * and where a breakpoint has come to stand. The interpreter must agree, so the same tests run
 * there.
 *
 * The second level is searched only with a page that the vCPU has executed code of. So each guest
 * first calls a RET in the page, which no other has called.
 */
#include "interp_test.h"

#include "base/util.h"

#define CODE  RIG_FREE
#define PAGE  (RIG_FREE + 0x1000) /* of the function, */
#define FIRST 0x40000000ULL       /* and where it is mapped */
#define AGAIN 0x40201000ULL
#define RETS  0x800u /* offset of RETs in the page */
#define PTE   7u     /* present, writable, user */

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

static void prepare(void)
{
    rig_clear(rig);
    rig_map(rig, FIRST, PAGE, PTE);
    rig_map(rig, AGAIN, PAGE, PTE);
    PUT(PAGE + RETS, 0xC3, 0xC3, 0xC3, 0xC3);
    PUT(CODE, 0xFF, 0xD6, 0xFF, 0xD0, 0xF4); /* call rsi; call rax; hlt */
}

/* Returns the vector whose handler halted, or -1 where the code itself did. */
static int vector_of(const struct x86_cpu *cpu)
{
    uint64_t at = cpu->reg[X86_RIP] - 1 - RIG_HANDLERS;

    return at < 256 ? (int)at : -1;
}

/* Runs CPU at CODE, where RET number N and then the function in the page at PAGE_AT are called. */
static void call(struct x86_cpu *cpu, uint64_t page_at, unsigned n)
{
    cpu->reg[X86_RSI] = page_at + RETS + n;
    cpu->reg[X86_RAX] = page_at;
    assert_int_equal(run(cpu), EXIT_HALT);
}

/* The function sees the address at which it was called. */
static void test_two_addresses(void **unused)
{
    const uint64_t at[] = {FIRST, AGAIN, FIRST, AGAIN};

    prepare();
    PUT(PAGE, 0x48, 0x8D, 0x15, 0, 0, 0, 0, 0xC3); /* lea rdx, [rip]; ret */
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        struct x86_cpu cpu;

        rig_state_64(rig, &cpu, CODE);
        call(&cpu, at[i], i);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RDX], at[i] + 7);
    }
}

/* What may be done at level 0 faults at level 3. */
static void test_two_levels(void **unused)
{
    struct x86_cpu cpu;
    uint64_t at = 0;

    prepare();
    PUT(PAGE, 0xFA, 0xC3); /* cli; ret */
    rig_state_64(rig, &cpu, CODE);
    call(&cpu, FIRST, 0);
    assert_int_equal(vector_of(&cpu), -1);
    rig_state_64(rig, &cpu, CODE);
    cpu.seg[X86_CS] = rig_segment(RIG_USER_CODE64);
    cpu.seg[X86_SS] = rig_segment(RIG_USER_DATA);
    call(&cpu, FIRST, 1);
    assert_int_equal(vector_of(&cpu), X86_GP);
    assert_int_equal(mem_read(rig->machine.mem, cpu.reg[X86_RSP] + 8, &at, sizeof(at)), 0);
    assert_int_equal(at, FIRST); /* not the HLT behind the call, which faults, too */
}

/* 64-bit code, and the same bytes as 32-bit code. */
static void test_two_sizes(void **unused)
{
    struct x86_cpu cpu;

    prepare();
    PUT(PAGE, 0x48, 0xFF, 0xC2, 0xC3); /* inc rdx; ret. Or: dec eax; inc edx; ret */
    rig_state_64(rig, &cpu, CODE);
    call(&cpu, PAGE, 0);
    assert_int_equal(cpu.reg[X86_RAX], PAGE);
    rig_state_32(rig, &cpu, CODE);
    call(&cpu, PAGE, 1);
    assert_int_equal(cpu.reg[X86_RAX], PAGE - 1);
    assert_int_equal(vector_of(&cpu), -1);
}

/* A breakpoint on a function that has been called often by then. */
static void test_breakpoint(void **unused)
{
    struct x86_cpu cpu;

    prepare();
    PUT(PAGE, 0xFF, 0xC2, 0xC3); /* inc edx; ret */
    /* 1: call rax; dec ebx; jnz 1b; mov dr0, rax; mov dr7, rcx; call rax; hlt */
    PUT(CODE, 0xFF, 0xD0, 0xFF, 0xCB, 0x75, 0xFA, 0x0F, 0x23, 0xC0, 0x0F, 0x23, 0xF9, 0xFF, 0xD0,
        0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = FIRST;
    cpu.reg[X86_RBX] = 40;
    cpu.reg[X86_RCX] = 0x402; /* DR0, on instructions */
    cpu.reg[X86_RDX] = 0;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_DB);
    assert_int_equal(cpu.reg[X86_RDX], 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_addresses),
        cmocka_unit_test(test_two_levels),
        cmocka_unit_test(test_two_sizes),
        cmocka_unit_test(test_breakpoint),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
