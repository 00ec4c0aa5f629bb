/*
 * What the engine makes of what the host's KVM says: between the two stands a script, which has
 * KVM_RUN return what the test wants without running the guest, and adds to the events that are on
 * their way. So rare moments come at will, on any KVM.
 */
#include "interp_test.h"

#include "base/util.h"
#include "cpu/core/debug.h"
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/mman.h>

#define CODE     RIG_FREE
#define DATA     0x20000ULL
#define VECTOR   0x40
#define RUN_SIZE 4096u

/* A turn of the script: one call of KVM_RUN. */
struct turn {
    bool real;                         /* the guest runs */
    int result;                        /* of KVM_RUN, if it does not */
    void (*fill)(struct kvm_run *run); /* the exit, unless NULL */
    struct kvm_vcpu_events events;     /* what is on its way then: injected, pending and masked */
};

static struct {
    const struct turn *turn;
    unsigned turns, next;
    const struct kvm_vcpu_events *events; /* of the last turn, until they are taken out */

    int vcpu;                           /* the first that is created; others are those of probes */
    bool tells, opens;                  /* what a probe finds: breakpoints, interrupt windows */
    unsigned interrupts, interrupts_at; /* KVM_INTERRUPT: how often, and before which turn last */
    bool completed[8];                  /* by turn: KVM_RUN was to complete an exit only */
    struct kvm_vcpu_events set;         /* by the last KVM_SET_VCPU_EVENTS */
    struct kvm_guest_debug debug;
    unsigned debugs;
} script;

/* Has CALL look at, or change, the struct kvm_run of the vCPU FD. */
static void with_run(int fd, void (*call)(struct kvm_run *run))
{
    void *run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    assert_ptr_not_equal(run, MAP_FAILED);
    call(run);
    munmap(run, RUN_SIZE);
}

static void note_completion(struct kvm_run *run)
{
    if (script.next < ARRAY_SIZE(script.completed))
        script.completed[script.next] = run->immediate_exit;
}

static int scripted_run(int fd, void *argument)
{
    static const struct turn rest = {.real = true};
    const struct turn *turn = script.next < script.turns ? &script.turn[script.next] : &rest;

    with_run(fd, note_completion);
    script.next++;
    script.events = turn->real ? NULL : &turn->events;
    if (turn->real)
        return kvm_host_calls.ioctl(NULL, fd, KVM_RUN, argument);
    if (turn->fill)
        with_run(fd, turn->fill);
    return turn->result;
}

static int get_events(int fd, struct kvm_vcpu_events *events)
{
    int ret = kvm_host_calls.ioctl(NULL, fd, KVM_GET_VCPU_EVENTS, events);

    if (script.events) {
        events->exception = script.events->exception;
        events->interrupt.injected |= script.events->interrupt.injected;
        events->interrupt.nr |= script.events->interrupt.nr;
        events->nmi = script.events->nmi;
    }
    script.events = NULL;
    return ret;
}

/* A probe's guest: leaves as if it had met the breakpoint that it has, or taken interrupts. */
static void meet_probe(struct kvm_run *run)
{
    const bool data = script.debug.arch.debugreg[7] & 8;

    run->exit_reason = run->request_interrupt_window
                           ? (script.opens ? KVM_EXIT_IRQ_WINDOW_OPEN : KVM_EXIT_IO)
                           : KVM_EXIT_DEBUG;
    run->debug.arch.dr6 = script.tells ? 1u << data : 0;
    run->debug.arch.pc = script.debug.arch.debugreg[0] + (data ? 7 : 0);
}

static int probe_ioctl(int fd, unsigned long request, void *argument)
{
    if (request != KVM_RUN)
        return kvm_host_calls.ioctl(NULL, fd, request, argument);
    with_run(fd, meet_probe);
    return 0;
}

static int scripted_ioctl(void *opaque, int fd, unsigned long request, void *argument)
{
    int ret;

    switch (request) {
    case KVM_CREATE_VCPU:
        ret = kvm_host_calls.ioctl(NULL, fd, request, argument);
        script.vcpu = script.vcpu < 0 ? ret : script.vcpu;
        return ret;
    case KVM_SET_GUEST_DEBUG:
        script.debug = *(struct kvm_guest_debug *)argument;
        script.debugs += fd == script.vcpu;
        break;
    case KVM_INTERRUPT:
        script.interrupts++;
        script.interrupts_at = script.next;
        break;
    case KVM_SET_VCPU_EVENTS: script.set = *(struct kvm_vcpu_events *)argument; break;
    case KVM_GET_VCPU_EVENTS: return get_events(fd, argument);
    case KVM_RUN:
        if (fd == script.vcpu)
            return scripted_run(fd, argument);
        break;
    default: break;
    }
    return fd == script.vcpu ? kvm_host_calls.ioctl(NULL, fd, request, argument)
                             : probe_ioctl(fd, request, argument);
}

static int scripted_open(void *opaque)
{
    return kvm_host_calls.open(NULL);
}

static const struct kvm_calls calls = {.open = scripted_open, .ioctl = scripted_ioctl};
static const struct kvm_options options = {.calls = &calls};

/* --- The machine ------------------------------------------------------------------------------ */

static struct engine *engine;
static struct vcpu *vcpu;
static struct cpu_port *port;

static int set_up(void **unused)
{
    rig = rig_create(1, 0);
    if (!rig)
        return -1;
    memset(&script, 0, sizeof(script));
    script.vcpu = -1;
    port = &rig->cpu[0].port;
    RIG_ENGINE.vcpu_destroy(rig->cpu[0].vcpu);
    rig->cpu[0].vcpu = NULL;
    /* The model of the rig's engine may have been made with another KVM_RUN, but by the same KVM.
     */
    engine = kvm_create_with(&rig->machine, &options, NULL);
    /* A vCPU that was created to find out what KVM supports is none of the machine's. */
    script.vcpu = -1;
    vcpu = engine ? kvm_engine.vcpu_create(engine, port, NULL) : NULL;
    return vcpu ? 0 : -1;
}

static int tear_down(void **unused)
{
    kvm_engine.vcpu_destroy(vcpu);
    kvm_engine.destroy(engine);
    rig_destroy(rig);
    return 0;
}

static void begin(const struct turn *turns, unsigned count)
{
    script.turn = turns;
    script.turns = count;
    script.next = 0;
    memset(script.completed, 0, sizeof(script.completed));
}
#define SCRIPT(...)                                                                                \
    do {                                                                                           \
        static const struct turn turns_[] = {__VA_ARGS__};                                         \
        begin(turns_, ARRAY_SIZE(turns_));                                                         \
    } while (0)

static enum engine_exit go_on(struct x86_cpu *cpu)
{
    enum engine_exit exit = kvm_engine.run(vcpu);

    kvm_engine.state_out(vcpu, cpu);
    return exit;
}

static enum engine_exit run_from(struct x86_cpu *cpu)
{
    kvm_engine.state_in(vcpu, cpu);
    return go_on(cpu);
}

/* mov $7, %eax; hlt */
static void put_seven(struct x86_cpu *cpu)
{
    rig_clear(rig);
    PUT(CODE, 0xB8, 7, 0, 0, 0, 0xF4);
    rig_state_64(rig, cpu, CODE);
}

static void assert_seven(struct x86_cpu *cpu)
{
    assert_int_equal(cpu->reg[X86_RIP], CODE + 6);
    assert_int_equal(cpu->reg[X86_RAX], 7);
}

/* The guest has halted in the handler of VECTOR. */
static void assert_handled(const struct x86_cpu *cpu, unsigned vector)
{
    assert_int_equal(cpu->reg[X86_RIP], RIG_HANDLERS + vector + 1);
    assert_int_equal(cpu->activity, X86_HALTED);
}

/* --- Events ----------------------------------------------------------------------------------- */

static void fill_halt(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_HLT;
}

/* A debug trap of HLT wakes the guest before it sleeps: the handler's first instruction is
 * executed.
 */
static void test_trap_behind_halt(void **unused)
{
    struct x86_cpu cpu;

    put_seven(&cpu);
    SCRIPT({.fill = fill_halt, .events.exception = {.pending = 1, .nr = X86_DB}});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_handled(&cpu, X86_DB);
}

/* INT3 whose delivery was interrupted is executed again, not delivered with RIP at it; and KVM
 * forgets it. */
static void test_software_exceptions(void **unused)
{
    static const struct turn turns[][1] = {
        {{.result = -EFAULT, .events.exception = {.injected = 1, .nr = X86_BP}}},
        {{.result = -EFAULT, .events.exception = {.injected = 1, .nr = X86_OF}}}};

    for (unsigned i = 0; i < ARRAY_SIZE(turns); i++) {
        struct x86_cpu cpu;

        put_seven(&cpu);
        memset(&script.set, 0xFF, sizeof(script.set));
        begin(turns[i], 1);
        assert_int_equal(run_from(&cpu), EXIT_HALT);
        assert_seven(&cpu);
        assert_int_equal(script.set.exception.injected, 0);
    }
}

static void test_nmi(void **unused)
{
    struct x86_cpu cpu;

    put_seven(&cpu);
    SCRIPT({.result = -EFAULT, .events.nmi = {.injected = 1, .masked = 1}});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_handled(&cpu, X86_NMI);
    assert_true(cpu.nmi_blocked);
    assert_int_equal(cpu.nmis_pending, 0);

    /* One in service and one that waits, which KVM is told of. */
    script.opens = true;
    put_seven(&cpu);
    cpu.nmi_blocked = true;
    cpu.nmis_pending = 1;
    begin(NULL, 0);
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_true(script.set.nmi.masked);
    assert_int_equal(script.set.nmi.pending, 1);
    assert_seven(&cpu);
    assert_true(cpu.nmi_blocked);
    assert_int_equal(cpu.nmis_pending, 1);
}

static void raise_interrupt(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.size = run->io.count = 1;
    run->io.port = 0x80;
    run->io.data_offset = 2048;
    run->ready_for_interrupt_injection = 1;
    rig->cpu[0].apic.vector = VECTOR;
    cpu_port_request(port, CPU_REQ_INTR);
}

/* What KVM says when an exception waits. */
static void take_nothing(struct kvm_run *run)
{
    run->ready_for_interrupt_injection = 0;
}

/* An instruction that has exited is completed before an interrupt is injected: it may end with a
 * fault, and KVM then says that it takes no interrupt. */
static void test_interrupt_while_completing(void **unused)
{
    struct x86_cpu cpu;

    script.opens = true;
    put_seven(&cpu);
    cpu.rflags |= X86_FLAG_IF;
    SCRIPT({.fill = raise_interrupt}, {.result = -EINTR});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_handled(&cpu, VECTOR);
    assert_int_equal(script.interrupts, 1);
    assert_int_equal(script.interrupts_at, 2);
    assert_true(script.completed[1]);
    assert_false(script.completed[2]);

    put_seven(&cpu);
    cpu.rflags |= X86_FLAG_IF;
    SCRIPT({.fill = raise_interrupt}, {.result = -EINTR, .fill = take_nothing},
           {.fill = fill_halt});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_int_equal(script.interrupts, 1);
    assert_true(script.completed[1]);
    rig->cpu[0].apic.vector = -1;
    atomic_store(&port->requests, 0);
}

/* The guest takes interrupts between STI and CLI only. Where KVM would not tell, the interpreter
 * executes the guest until it has taken what waits. */
static void test_window(void **unused)
{
    struct x86_cpu cpu;

    put_seven(&cpu);
    PUT(CODE, 0xFB, 0x90, 0xFA, 0xF4); /* sti; nop; cli; hlt */
    rig->cpu[0].apic.vector = VECTOR;
    begin(NULL, 0);
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_handled(&cpu, VECTOR);
    assert_int_equal(script.interrupts, 0);
}

static unsigned set_priority, sets;

static unsigned get_priority(void *apic)
{
    return 3;
}

static void note_priority(void *apic, unsigned value)
{
    set_priority = value;
    sets++;
}

static void raise_priority(struct kvm_run *run)
{
    assert_int_equal(run->cr8, 3);
    run->cr8 = 5;
    run->exit_reason = KVM_EXIT_HLT;
}

/* CR8 is the upper half of a register: it is written only if the guest has written it. */
static void test_priority(void **unused)
{
    struct apic_ops ops = *port->apic_ops;
    const struct apic_ops *before = port->apic_ops;
    struct x86_cpu cpu;

    ops.get_cr8 = get_priority;
    ops.set_cr8 = note_priority;
    port->apic_ops = &ops;
    put_seven(&cpu);
    SCRIPT({.fill = fill_halt});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_int_equal(sets, 0);
    put_seven(&cpu);
    SCRIPT({.fill = raise_priority});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_int_equal(sets, 1);
    assert_int_equal(set_priority, 5);
    port->apic_ops = before;
}

/* --- Registers -------------------------------------------------------------------------------- */

/* The bytes of the extended state are registers, whatever its header says: KVM has them, and gives
 * them back. */
static void test_extended_state(void **unused)
{
    struct x86_cpu cpu, before;

    put_seven(&cpu);
    for (unsigned i = 0; i < 8; i++)
        memset(cpu.xsave + 32 + i * 16, 0x10 + (int)i, 10);
    memset(cpu.xsave + X86_XSAVE_XMM, 0x20, 256);
    memset(cpu.xsave + X86_XSAVE_YMMH, 0x30, 256);
    cpu.xsave[4] = 0xFF;                   /* all of the x87's registers are in use */
    cpu.xsave[X86_XSAVE_MXCSR + 1] = 0x3F; /* round down */
    for (unsigned header = 0; header < 2; header++) {
        cpu.xsave[X86_XSAVE_HEADER] = header ? X86_XCR0_X87 : 0;
        before = cpu;
        assert_int_equal(run_from(&cpu), EXIT_HALT);
        assert_memory_equal(cpu.xsave + 32, before.xsave + 32, 128);
        assert_memory_equal(cpu.xsave, before.xsave, 6);
        assert_memory_equal(cpu.xsave + X86_XSAVE_MXCSR, before.xsave + X86_XSAVE_MXCSR, 4);
        assert_memory_equal(cpu.xsave + X86_XSAVE_XMM, before.xsave + X86_XSAVE_XMM, 256);
        if (x86_xcr0_bits(&rig->machine.model) & X86_XCR0_AVX)
            assert_memory_equal(cpu.xsave + X86_XSAVE_YMMH, before.xsave + X86_XSAVE_YMMH, 256);
        cpu = before;
    }
}

/* --- Entry ------------------------------------------------------------------------------------ */

static void fill_invalid(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_FAIL_ENTRY;
    run->fail_entry.hardware_entry_failure_reason = 0x80000021;
}

static void fill_failed(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_FAIL_ENTRY;
    run->fail_entry.hardware_entry_failure_reason = 0x80000022;
}

static void fill_unknown(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_UNKNOWN;
}

/* A state that the processor does not enter is the interpreter's; what else it refuses ends the run
 * with an error. */
static void test_refused_entry(void **unused)
{
    struct x86_cpu cpu;

    put_seven(&cpu);
    SCRIPT({.fill = fill_invalid}, {.fill = fill_invalid});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_seven(&cpu);

    put_seven(&cpu);
    SCRIPT({.fill = fill_failed});
    assert_int_equal(run_from(&cpu), EXIT_FAILED);
    assert_non_null(strstr(kvm_engine.failure(vcpu)->text, "refuses the guest"));
}

static void test_unknown_exit(void **unused)
{
    struct x86_cpu cpu;

    put_seven(&cpu);
    SCRIPT({.fill = fill_unknown});
    assert_int_equal(run_from(&cpu), EXIT_FAILED);
    assert_non_null(strstr(kvm_engine.failure(vcpu)->text, "unknown reason"));
}

/* --- Breakpoints ------------------------------------------------------------------------------ */

static void attach(const struct engine_debug *debug)
{
    assert_int_equal(kvm_engine.debug(vcpu, debug), 0);
}

static const struct engine_debug three = {.count = 3,
                                          .breakpoint = {{BREAK_WRITE, DATA, 4},
                                                         {BREAK_EXECUTE, CODE + 5, 0},
                                                         {BREAK_ACCESS, DATA + 16, 8}}};

/* What KVM is told of three breakpoints, and with none that there are none any more. */
static void test_debug_registers(void **unused)
{
    const __u64 *dr = script.debug.arch.debugreg;
    struct x86_cpu cpu;

    script.tells = true;
    put_seven(&cpu);
    attach(&three);
    SCRIPT({.fill = fill_halt});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_int_equal(script.debug.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
    assert_int_equal(dr[0], DATA);
    assert_int_equal(dr[1], CODE + 5);
    assert_int_equal(dr[2], DATA + 16);
    /* Enabled and general detection; 4 bytes written; an instruction; 8 bytes accessed. */
    assert_int_equal(dr[7], DR7_INIT | DR7_GD | 0x2A | 0xDu << 16 | 0x0u << 20 | 0xBu << 24);

    put_seven(&cpu);
    attach(&(struct engine_debug){0});
    SCRIPT({.fill = fill_halt});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_int_equal(script.debug.control, 0);
    assert_int_equal(script.debugs, 2);
}

/* What does not fit is the interpreter's: five breakpoints; a range of too many pieces; one that
 * this KVM does not tell of; and all, while the guest uses breakpoints itself. */
static void test_interpreted_breakpoints(void **unused)
{
    struct engine_debug debug = {.count = 5};
    struct x86_cpu cpu;

    script.tells = true;
    for (unsigned i = 0; i < 5; i++)
        debug.breakpoint[i] = (struct engine_breakpoint){BREAK_EXECUTE, CODE + 5, 0};
    for (unsigned i = 0; i < 3; i++) {
        if (i == 1) {
            debug.count = 2;
            debug.breakpoint[0] = (struct engine_breakpoint){BREAK_WRITE, DATA + 1, 29};
        } else if (i == 2) {
            debug.count = 2;
            debug.breakpoint[0] = (struct engine_breakpoint){BREAK_WRITE, DATA, 8};
        }
        put_seven(&cpu);
        if (i == 2) {
            cpu.dr[3] = DATA;
            cpu.dr7 |= 0x40;
        }
        attach(&debug);
        begin(NULL, 0);
        assert_int_equal(run_from(&cpu), EXIT_BREAKPOINT);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 5);
        assert_int_equal(script.next, 0);
        assert_int_equal(script.debugs, 0);
    }
    attach(&(struct engine_debug){0});
}

static void test_untold_breakpoints(void **unused)
{
    struct x86_cpu cpu;

    put_seven(&cpu);
    attach(&three);
    begin(NULL, 0);
    assert_int_equal(run_from(&cpu), EXIT_BREAKPOINT);
    assert_int_equal(kvm_engine.debug_met(vcpu), 1);
    assert_int_equal(script.next, 0);
    attach(&(struct engine_debug){0});
}

static void meet_code(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch.dr6 = DR6_INIT | 2;
}

static void meet_data(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch.dr6 = DR6_INIT | 4;
}

static void meet_step(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch.dr6 = DR6_INIT | DR6_BS;
}

static void meet_general(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch.dr6 = DR6_INIT | DR6_BD;
}

static void test_met(void **unused)
{
    struct x86_cpu cpu;

    script.tells = true;
    attach(&three);

    /* On an instruction: in front of it, once. */
    put_seven(&cpu);
    cpu.reg[X86_RIP] = CODE + 5;
    SCRIPT({.fill = meet_code});
    assert_int_equal(run_from(&cpu), EXIT_BREAKPOINT);
    assert_int_equal(kvm_engine.debug_met(vcpu), 1);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 5);
    assert_int_equal(go_on(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 6);

    /* On data: behind the instruction that KVM has executed. */
    put_seven(&cpu);
    SCRIPT({.fill = meet_data});
    assert_int_equal(run_from(&cpu), EXIT_BREAKPOINT);
    assert_int_equal(kvm_engine.debug_met(vcpu), 2);
    assert_int_equal(cpu.reg[X86_RIP], CODE);

    /* The guest's own single step: its handler is called, with DR6 as it must be. */
    put_seven(&cpu);
    SCRIPT({.fill = meet_step});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    assert_handled(&cpu, X86_DB);
    assert_int_equal(cpu.dr6, DR6_INIT | DR6_BS);

    attach(&(struct engine_debug){0});
}

/* The guest enables a breakpoint of its own: mov %rax, %dr7, which general detection has stopped.
 * From then on both have theirs, by the interpreter. */
static void test_guests_own(void **unused)
{
    static const struct engine_debug debug = {.count = 1, .breakpoint = {{BREAK_WRITE, DATA, 1}}};
    struct x86_cpu cpu;
    unsigned entered;

    script.tells = true;
    put_seven(&cpu);
    PUT(CODE, 0x0F, 0x23, 0xF8, 0x90, 0xF4); /* mov %rax, %dr7; nop; hlt */
    cpu.reg[X86_RAX] = DR7_INIT | 2;
    cpu.dr[0] = CODE + 4;
    attach(&debug);
    SCRIPT({.fill = meet_general}, {.fill = meet_general});
    assert_int_equal(run_from(&cpu), EXIT_HALT);
    entered = script.next;
    assert_handled(&cpu, X86_DB);
    assert_int_equal(cpu.dr7, DR7_INIT | 2);
    assert_int_equal(cpu.dr6, DR6_INIT | 1);
    assert_int_equal(entered, 1);
    attach(&(struct engine_debug){0});
}

/* Without a script in between: code at CPL 0 meets a breakpoint in each round of a loop. */
static void test_real(void **unused)
{
    static const struct engine_debug debug = {.count = 1,
                                              .breakpoint = {{BREAK_EXECUTE, CODE + 5, 0}}};
    struct x86_cpu cpu;

    script.tells = true;
    put_seven(&cpu);
    PUT(CODE, 0xB9, 5, 0, 0, 0, 0xFF, 0xC0, 0xE2, 0xFC, 0xF4); /* mov $5, %ecx; 1: inc %eax; loop
                                                                * 1b; hlt */
    attach(&debug);
    begin(NULL, 0);
    kvm_engine.state_in(vcpu, &cpu);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(go_on(&cpu), EXIT_BREAKPOINT);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 5);
        assert_int_equal(cpu.reg[X86_RAX], i);
    }
    assert_int_equal(go_on(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RAX], 5);
    assert_true(script.next >= 6);
    attach(&(struct engine_debug){0});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_trap_behind_halt),
        TEST(test_software_exceptions),
        TEST(test_nmi),
        TEST(test_interrupt_while_completing),
        TEST(test_window),
        TEST(test_priority),
        TEST(test_extended_state),
        TEST(test_refused_entry),
        TEST(test_unknown_exit),
        TEST(test_debug_registers),
        TEST(test_interpreted_breakpoints),
        TEST(test_untold_breakpoints),
        TEST(test_met),
        TEST(test_guests_own),
        TEST(test_real),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
