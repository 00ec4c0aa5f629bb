/*
 * What a vCPU gives out as its state is complete: given to another vCPU between any two
 * instructions, the program goes on as if nothing had happened.
 */
#include "interp_test.h"

#include "base/util.h"
#include "cpu/core/run.h"

#include <string.h>

#define CODE  RIG_FREE
#define DATA  0x20000ULL
#define TURNS 8

#define DR7_LOCAL_0  1u
#define DR7_ACCESS_0 (3u << 16)
#define DR7_WORD_0   (1u << 18)

static int setup(void **state)
{
    rig = rig_create(2, 0);
    return rig ? 0 : -1;
}

static int vector_of(const struct x86_cpu *cpu)
{
    return (int)(cpu->reg[X86_RIP] - 1 - RIG_HANDLERS);
}

/* Has vCPU 0 execute from CPU to RIP. CPU becomes the state then. */
static void run_to(struct x86_cpu *cpu, uint64_t rip)
{
    struct vcpu *vcpu = rig->cpu[0].vcpu;

    RIG_ENGINE.state_in(vcpu, cpu);
    for (unsigned i = 0; i < TURNS && cpu->reg[X86_RIP] != rip; i++) {
        assert_int_equal(core_turn(vcpu), -1);
        RIG_ENGINE.state_out(vcpu, cpu);
    }
    assert_int_equal(cpu->reg[X86_RIP], rip);
}

/* Has vCPU 1 go on from CPU to the next HLT. */
static void go_on(struct x86_cpu *cpu)
{
    struct vcpu *vcpu = rig->cpu[1].vcpu;

    RIG_ENGINE.state_in(vcpu, cpu);
    assert_int_equal(RIG_ENGINE.run(vcpu), EXIT_HALT);
    RIG_ENGINE.state_out(vcpu, cpu);
}

/* No instruction breakpoint right behind a load of SS (SDM volume 3, 6.8.3). */
static void test_ss_shadow(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x8E, 0xD0, 0x90, 0xF4); /* mov ss, ax; nop; hlt */
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = RIG_DATA;
    cpu.dr[0] = CODE + 2;
    cpu.dr7 |= DR7_LOCAL_0;
    run_to(&cpu, CODE + 2);
    assert_true(cpu.interrupt_shadow);
    assert_true(cpu.ss_shadow);
    go_on(&cpu);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 4);
    assert_false(cpu.ss_shadow);
}

/* A data breakpoint that the load of SS has met traps behind the next instruction. */
static void test_trap_behind_ss_shadow(void **unused)
{
    uint16_t selector = RIG_DATA;
    struct x86_cpu cpu;
    uint64_t frame[5];

    rig_clear(rig);
    PUT(CODE, 0x8E, 0x14, 0x25, 0, 0, 2, 0, 0x90, 0xF4); /* mov ss, [DATA]; nop; hlt */
    put(DATA, &selector, sizeof(selector));
    rig_state_64(rig, &cpu, CODE);
    cpu.dr[0] = DATA;
    cpu.dr7 |= DR7_LOCAL_0 | DR7_ACCESS_0 | DR7_WORD_0;
    run_to(&cpu, CODE + 7);
    assert_true(cpu.trap_pending);
    assert_int_equal(cpu.pending_dr6, 1);
    assert_int_equal(cpu.dr6, X86_DR6_RESET);
    go_on(&cpu);
    assert_int_equal(vector_of(&cpu), X86_DB);
    assert_int_equal(cpu.dr6, X86_DR6_RESET | 1);
    assert_false(cpu.trap_pending);
    assert_int_equal(cpu.pending_dr6, 0);
    assert_int_equal(mem_read(rig->machine.mem, cpu.reg[X86_RSP], frame, sizeof(frame)), 0);
    assert_int_equal(frame[0], CODE + 8);
}

/* Nor does the single-step trap that is due come twice, or never. */
static void test_single_step_behind_ss_shadow(void **unused)
{
    struct x86_cpu cpu;
    uint64_t frame[5];

    rig_clear(rig);
    PUT(CODE, 0x8E, 0xD0, 0x90, 0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = RIG_DATA;
    cpu.rflags |= X86_FLAG_TF;
    run_to(&cpu, CODE + 2);
    assert_true(cpu.ss_shadow);
    go_on(&cpu);
    assert_int_equal(vector_of(&cpu), X86_DB);
    assert_int_equal(mem_read(rig->machine.mem, cpu.reg[X86_RSP], frame, sizeof(frame)), 0);
    assert_int_equal(frame[0], CODE + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ss_shadow),
        cmocka_unit_test(test_trap_behind_ss_shadow),
        cmocka_unit_test(test_single_step_behind_ss_shadow),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
