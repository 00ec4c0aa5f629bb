/*
 * The contract's debugger: single steps and breakpoints that the guest does not see; and what other
 * threads may do while a vCPU runs: kick it, and read its statistics.
 */
#include "interp_test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define CODE      RIG_FREE
#define DATA      0x20000ULL
#define FROM      0x30000ULL
#define TO        0x30FF0ULL /* so that a copy goes on in the next page */
#define ROUNDS    5u
#define COPIED    40u
#define PER_ROUND 8u
#define VECTOR    0x40

/* Offsets in the program. */
enum { LOOP = 5, STORE = 9, BEHIND_STORE = 16, COPY = 24, END = 38 };

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

/* It adds, stores, reads its own flags and copies. */
static void put_program(void)
{
    rig_clear(rig);
    /* mov ecx, ROUNDS; 1: inc eax; push rax; pop rbx; mov [DATA], ebx; pushfq; pop rdx; dec ecx;
     * jnz 1b; xor eax, edx; mov ecx, COPIED; mov rdi, r8; rep movsb; lea rbx, [rbx]; nop; hlt */
    PUT(CODE, 0xB9, ROUNDS, 0, 0, 0);
    PUT(CODE + LOOP, 0xFF, 0xC0, 0x50, 0x5B);
    PUT(CODE + STORE, 0x89, 0x1C, 0x25, 0, 0, 2, 0);
    PUT(CODE + BEHIND_STORE, 0x9C, 0x5A, 0xFF, 0xC9, 0x75, 0xEF, 0x31, 0xD0);
    PUT(CODE + COPY, 0xB9, COPIED, 0, 0, 0, 0x4C, 0x89, 0xC7, 0xF3, 0xA4, 0x48, 0x8D, 0x1B, 0x90);
    PUT(CODE + END, 0xF4);
    rig_put64(rig, FROM, 0x1122334455667788);
}

/* Where the program starts. */
static void start(struct x86_cpu *cpu)
{
    rig_state_64(rig, cpu, CODE);
    cpu->reg[X86_RSI] = FROM;
    cpu->reg[X86_R8] = TO;
}

/* Instructions of the program, with one for each element that is copied. */
#define STEPS (1u + ROUNDS * PER_ROUND + 3u + COPIED + 2u + 1u)

static void attach(const struct engine_debug *debug)
{
    assert_int_equal(RIG_ENGINE.debug(rig->cpu[0].vcpu, debug), 0);
}

static void detach(void)
{
    attach(&(struct engine_debug){0});
}

/* Goes on where vCPU 0 is. */
static enum engine_exit go_on(struct x86_cpu *cpu)
{
    enum engine_exit exit = RIG_ENGINE.run(rig->cpu[0].vcpu);

    RIG_ENGINE.state_out(rig->cpu[0].vcpu, cpu);
    return exit;
}

/* What a guest could see. */
static void assert_same(const struct x86_cpu *a, const struct x86_cpu *b)
{
    assert_memory_equal(a->reg, b->reg, sizeof(a->reg));
    assert_int_equal(a->rflags, b->rflags);
    assert_memory_equal(a->dr, b->dr, sizeof(a->dr));
    assert_int_equal(a->dr6, b->dr6);
    assert_int_equal(a->dr7, b->dr7);
    assert_int_equal(a->activity, b->activity);
}

/* Puts the program and runs it to its END without a debugger, so often that it is translated. */
static void run_undisturbed(struct x86_cpu *end)
{
    put_program();
    for (unsigned i = 0; i < 3; i++) {
        start(end);
        assert_int_equal(run(end), EXIT_HALT);
        assert_int_equal(end->reg[X86_RIP], CODE + END + 1);
    }
}

static void test_steps(void **unused)
{
    static const struct engine_debug step = {.step = true};
    struct x86_cpu end, cpu;
    enum engine_exit exit;
    unsigned steps = 0;

    run_undisturbed(&end);
    start(&cpu);
    attach(&step);
    for (exit = run(&cpu); exit == EXIT_STEP && steps <= STEPS; exit = go_on(&cpu)) {
        steps++;
        assert_false(cpu.rflags & (X86_FLAG_TF | X86_FLAG_RF));
    }
    detach();
    assert_int_equal(exit, EXIT_HALT);
    assert_int_equal(steps, STEPS);
    assert_same(&cpu, &end);
}

/* A step ends where an event has been delivered, too, before the handler's first instruction. */
static void test_steps_to_handlers(void **unused)
{
    static const struct engine_debug step = {.step = true};
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x90, 0x0F, 0x0B); /* nop; ud2 */
    rig_state_64(rig, &cpu, CODE);
    attach(&step);
    assert_int_equal(run(&cpu), EXIT_STEP);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 1);
    assert_int_equal(go_on(&cpu), EXIT_STEP);
    assert_int_equal(cpu.reg[X86_RIP], RIG_HANDLERS + X86_UD);

    rig_state_64(rig, &cpu, CODE);
    cpu.rflags |= X86_FLAG_IF;
    rig->cpu[0].apic.vector = VECTOR;
    cpu_port_request(&rig->cpu[0].port, CPU_REQ_INTR);
    assert_int_equal(run(&cpu), EXIT_STEP);
    assert_int_equal(cpu.reg[X86_RIP], RIG_HANDLERS + VECTOR);
    assert_int_equal(go_on(&cpu), EXIT_STEP);
    detach();
}

static void test_breakpoint(void **unused)
{
    static const struct engine_debug debug = {
        .count = 2,
        .breakpoint = {{BREAK_EXECUTE, CODE + 0x800, 0}, {BREAK_EXECUTE, CODE + STORE, 0}}};
    struct x86_cpu end, cpu;

    run_undisturbed(&end);
    start(&cpu);
    attach(&debug);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        assert_int_equal(i == 1 ? run(&cpu) : go_on(&cpu), EXIT_BREAKPOINT);
        assert_int_equal(RIG_ENGINE.debug_met(rig->cpu[0].vcpu), 1);
        assert_int_equal(cpu.reg[X86_RIP], CODE + STORE);
        assert_int_equal(cpu.reg[X86_RBX], i);
    }
    assert_int_equal(go_on(&cpu), EXIT_HALT);
    assert_same(&cpu, &end);

    /* One that is set where the vCPU stands is met at once; one that is taken away, never. */
    start(&cpu);
    RIG_ENGINE.state_in(rig->cpu[0].vcpu, &cpu);
    attach(&(struct engine_debug){.count = 1, .breakpoint = {{BREAK_EXECUTE, CODE, 0}}});
    assert_int_equal(go_on(&cpu), EXIT_BREAKPOINT);
    assert_int_equal(cpu.reg[X86_RIP], CODE);
    detach();
    assert_int_equal(go_on(&cpu), EXIT_HALT);
    assert_same(&cpu, &end);
}

/* An exit for another reason in between does not make a breakpoint forgotten, or met twice. */
static void test_breakpoint_and_kick(void **unused)
{
    struct vcpu *vcpu = rig->cpu[0].vcpu;
    struct x86_cpu cpu;

    put_program();
    start(&cpu);
    RIG_ENGINE.state_in(vcpu, &cpu);
    attach(&(struct engine_debug){.count = 1, .breakpoint = {{BREAK_EXECUTE, CODE, 0}}});
    for (unsigned i = 0; i < 2; i++) {
        RIG_ENGINE.kick(vcpu);
        assert_int_equal(go_on(&cpu), EXIT_KICK);
        assert_int_equal(cpu.reg[X86_RIP], CODE);
        atomic_fetch_and(&rig->cpu[0].port.requests, ~(uint32_t)CPU_REQ_KICK);
        if (i == 0)
            assert_int_equal(go_on(&cpu), EXIT_BREAKPOINT);
    }
    assert_int_equal(go_on(&cpu), EXIT_HALT);
    detach();
}

/* Runs the program with BREAKPOINT. Returns how often it is met. */
static unsigned count_hits(enum engine_break kind, uint64_t address, uint64_t size)
{
    const struct engine_debug debug = {.count = 1, .breakpoint = {{kind, address, size}}};
    struct x86_cpu end, cpu;
    enum engine_exit exit;
    unsigned hits = 0;

    run_undisturbed(&end);
    start(&cpu);
    attach(&debug);
    for (exit = run(&cpu); exit == EXIT_BREAKPOINT; exit = go_on(&cpu))
        hits++;
    detach();
    assert_int_equal(exit, EXIT_HALT);
    assert_same(&cpu, &end);
    return hits;
}

static void test_watchpoints(void **unused)
{
    static const struct engine_debug debug = {.count = 1,
                                              .breakpoint = {{BREAK_WRITE, DATA + 3, 1}}};
    struct x86_cpu cpu;

    assert_int_equal(count_hits(BREAK_WRITE, DATA, 4), ROUNDS);
    assert_int_equal(count_hits(BREAK_WRITE, DATA + 4, 8), 0);
    assert_int_equal(count_hits(BREAK_WRITE, FROM, 8), 0);
    assert_int_equal(count_hits(BREAK_ACCESS, FROM, 8), 8);
    assert_int_equal(count_hits(BREAK_WRITE, TO + 12, 8), 8); /* in two pages */
    assert_int_equal(count_hits(BREAK_WRITE, 0, 0x100000), 3 * ROUNDS + COPIED);

    start(&cpu);
    attach(&debug);
    assert_int_equal(run(&cpu), EXIT_BREAKPOINT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + BEHIND_STORE);
    detach();
}

static void test_refuses(void **unused)
{
    struct engine_debug debug = {.count = ENGINE_BREAKPOINTS + 1};

    assert_int_equal(RIG_ENGINE.debug(rig->cpu[0].vcpu, &debug), -EINVAL);
    debug = (struct engine_debug){.count = 1, .breakpoint = {{BREAK_WRITE, DATA, 0}}};
    assert_int_equal(RIG_ENGINE.debug(rig->cpu[0].vcpu, &debug), -EINVAL);
}

/* --- From other threads -------------------------------------------------------------------------
 */

static void *run_thread(void *opaque)
{
    return (void *)(intptr_t)RIG_ENGINE.run(rig->cpu[0].vcpu);
}

static void note(void *opaque, const struct engine_counter *counter)
{
    uint64_t *sum = opaque;

    *sum += counter->count;
}

/* While a guest is in an endless loop, its statistics only grow; and a kick brings it out. */
static void test_counters_and_kick(void **unused)
{
    uint64_t last = 0;
    struct x86_cpu cpu;
    pthread_t thread;
    void *exit;

    rig_clear(rig);
    PUT(CODE, 0xE6, 0x80, 0xEB, 0xFC); /* 1: out 80h, al; jmp 1b */
    rig_state_64(rig, &cpu, CODE);
    RIG_ENGINE.state_in(rig->cpu[0].vcpu, &cpu);
    assert_int_equal(pthread_create(&thread, NULL, run_thread, NULL), 0);
    for (unsigned grown = 0; grown < 20;) {
        uint64_t sum = 0;

        RIG_ENGINE.counters(rig->cpu[0].vcpu, note, &sum);
        assert_true(sum >= last);
        grown += sum > last;
        last = sum;
    }
    RIG_ENGINE.kick(rig->cpu[0].vcpu);
    pthread_join(thread, &exit);
    assert_int_equal((intptr_t)exit, EXIT_KICK);
    atomic_store(&rig->cpu[0].port.requests, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_steps_to_handlers),
        cmocka_unit_test(test_breakpoint),
        cmocka_unit_test(test_breakpoint_and_kick),
        cmocka_unit_test(test_watchpoints),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_counters_and_kick),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
