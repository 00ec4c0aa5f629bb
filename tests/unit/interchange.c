/*
 * Machines that get another engine while they live: on the real clock, with threads.
 */
#include "kvm_failing.h"
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "cpu/engines.h"
#include "cpu/kvm/kvm.h"
#include "dev/pc/lapic.h"
#include "mem/change.h"
#include "mem/log.h"
#include "vm/vm_private.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ENTRY      0x1000
#define AP_ENTRY   0x2000 /* of start-up vector 2 */
#define ROUNDS     0x500  /* what the guest counts here is 32 bits wide */
#define TICKS      0x508
#define MESSAGES   0x50C
#define GO         0x510 /* not 0: the other processor is to be started */
#define END        0x514 /* not 0: that is enough */
#define ANY_TSC    0x518 /* not 0: the TSC may go back */
#define STATUS     7
#define DIRTY_PAGE 3 /* GPN of a page that the guest writes to in each round */
#define TIMEOUT_MS 60000

/*
 * The guest, 16-bit code. Processor 0 has its local APIC interrupt it every 100 us, counts its
 * rounds, and compares the TSC from one to the next. Once GO is set it starts processor 1, which
 * halts, and sends it a message in each round, which that counts.
 */
__asm__(".pushsection .rodata\n"
        ".code16\n"
        "guest:\n"
        "    movw $0x4000, %sp\n"
        "    movw $tick - guest + 0x1000, 0x100\n" /* vector 40h */
        "    movw $0, 0x102\n"
        "    movw $message - guest + 0x1000, 0x104\n" /* 41h */
        "    movw $0, 0x106\n"
        "    call enable\n"
        "    movl $0x83E, %ecx\n" /* the timer counts by 1 */
        "    movl $0xB, %eax\n"
        "    wrmsr\n"
        "    movl $0x832, %ecx\n" /* periodic, vector 40h */
        "    movl $0x20040, %eax\n"
        "    wrmsr\n"
        "    movl $0x838, %ecx\n"
        "    movl $100000, %eax\n"
        "    wrmsr\n"
        "    sti\n"
        "    xorl %esi, %esi\n"
        "    xorl %edi, %edi\n"
        "1:  rdtsc\n"
        "    cmpl $0, 0x518\n"
        "    jne 2f\n"
        "    cmpl %edi, %edx\n"
        "    jb 9f\n"
        "    ja 2f\n"
        "    cmpl %esi, %eax\n"
        "    jb 9f\n"
        "2:  movl %eax, %esi\n"
        "    movl %edx, %edi\n"
        "    incl 0x500\n"
        "    incl 0x3000\n"
        "    cmpl $0, 0x514\n"
        "    jne 8f\n"
        "    cmpl $1, 0x510\n"
        "    jb 1b\n"
        "    ja 3f\n"
        "    movl $2, 0x510\n"
        "    movl $0x830, %ecx\n" /* INIT and start-up to processor 1 */
        "    movl $1, %edx\n"
        "    movl $0x4500, %eax\n"
        "    wrmsr\n"
        "    movl $0x4602, %eax\n"
        "    wrmsr\n"
        "    jmp 1b\n"
        "3:  movl $0x830, %ecx\n"
        "    movl $1, %edx\n"
        "    movl $0x41, %eax\n"
        "    wrmsr\n"
        "    jmp 1b\n"
        "8:  movb $7, %al\n"
        "    outb %al, $0xF4\n"
        "9:  movb $9, %al\n"
        "    outb %al, $0xF4\n"
        "4:  hlt\n"
        "    jmp 4b\n"
        /* The local APIC in x2APIC mode, enabled. */
        "enable:\n"
        "    movl $0x1B, %ecx\n"
        "    rdmsr\n"
        "    orl $0x400, %eax\n"
        "    wrmsr\n"
        "    movl $0x80F, %ecx\n"
        "    movl $0x1FF, %eax\n"
        "    xorl %edx, %edx\n"
        "    wrmsr\n"
        "    ret\n"
        "tick:\n"
        "    incl 0x508\n"
        "    jmp 5f\n"
        "message:\n"
        "    incl 0x50C\n"
        "5:  pushl %eax\n"
        "    pushl %ecx\n"
        "    pushl %edx\n"
        "    movl $0x80B, %ecx\n" /* end of interrupt */
        "    xorl %eax, %eax\n"
        "    xorl %edx, %edx\n"
        "    wrmsr\n"
        "    popl %edx\n"
        "    popl %ecx\n"
        "    popl %eax\n"
        "    iret\n"
        "other:\n"
        "    movw $0x3800, %sp\n"
        "    call enable\n"
        "    sti\n"
        "6:  hlt\n"
        "    jmp 6b\n"
        "start_up:\n"
        "    ljmp $0, $other - guest + 0x1000\n"
        "guest_end:\n"
        ".code64\n"
        ".popsection");
extern const uint8_t guest[], start_up[], guest_end[];

static int load_guest(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    cpu->seg[X86_CS].selector = 0;
    cpu->seg[X86_CS].base = 0;
    cpu->reg[X86_RIP] = ENTRY;
    assert_int_equal(mem_write(mem, AP_ENTRY, start_up, (uint64_t)(guest_end - start_up)), 0);
    return mem_write(mem, ENTRY, guest, (uint64_t)(guest_end - guest));
}

static const char *const devices[] = {"debug-exit", NULL};
static const struct vm_config config = {
    .cpus = 2, .memory = 2 * MiB, .load = load_guest, .devices.list = devices};

/* ---- Engines that only this test has ---- */

/* The interpreter, but its instructions are counted and timed whatever the machine wants. */
static struct engine *create_measured(const struct machine *machine, struct error *err)
{
    struct machine m = *machine;

    m.measure = true;
    return interp_engine.create(&m, err);
}

/* Engines that cannot be created, or whose second vCPU cannot. */
static struct engine *create_none(const struct machine *machine, struct error *err)
{
    error_set(err, EBUSY, "this engine is never there");
    return NULL;
}

static struct vcpu *create_one_vcpu(struct engine *engine, struct cpu_port *port, struct error *err)
{
    if (port->id == 0)
        return interp_engine.vcpu_create(engine, port, err);
    error_set(err, ENOMEM, "this engine has one vCPU");
    return NULL;
}

/* The interpreter with local APICs that are not the board's. */
static struct {
    struct lapic_set *set;
    struct vm *vm; /* whose they are */
    bool refuses;
} own;

static int plug_in_own(struct engine *engine, const struct lapic_board *board,
                       struct local_apics *apics, struct error *err)
{
    struct vm *vm = own.vm;

    if (own.refuses)
        return error_set(err, EPERM, "there are no local APICs");
    for (unsigned i = 0; i < vm->cpus; i++)
        assert_null(vm->cpu[i].port.apic_ops);
    own.set = lapic_set_create(vm->machine.clock, vm->ports, vm->cpus,
                               vm->machine.model.physical_bits, board, err);
    assert_non_null(own.set);
    *apics = lapic_set_apics(own.set);
    return 0;
}

/* When the engine has been exchanged, the ports are the next one's. */
static void destroy_own(struct engine *engine)
{
    const struct apic_ops *ops[VM_MAX_CPUS];
    void *apics[VM_MAX_CPUS];

    for (unsigned i = 0; i < own.vm->cpus; i++) {
        ops[i] = own.vm->cpu[i].port.apic_ops;
        apics[i] = own.vm->cpu[i].port.apic;
    }
    if (own.set)
        lapic_set_dev(own.set)->ops->free(lapic_set_dev(own.set));
    own.set = NULL;
    for (unsigned i = 0; i < own.vm->cpus; i++) {
        own.vm->cpu[i].port.apic_ops = ops[i];
        own.vm->cpu[i].port.apic = apics[i];
    }
    interp_engine.destroy(engine);
}

static struct engine *create_refused(const struct machine *machine, struct error *err)
{
    static const struct kvm_options options = {.calls = &kvm_failing_calls, .apics = KVM_APICS_OWN};

    return kvm_create_with(machine, &options, err);
}

/* KVM with the board's local APICs, also where it can have some. */
static struct engine *create_with_board_apics(const struct machine *machine, struct error *err)
{
    static const struct kvm_options options = {.calls = &kvm_host_calls, .apics = KVM_APICS_BOARD};

    return kvm_create_with(machine, &options, err);
}

/* KVM with local APICs of its own, if it has them. */
static struct engine *create_with_own_apics(const struct machine *machine, struct error *err)
{
    static const struct kvm_options options = {.calls = &kvm_host_calls, .apics = KVM_APICS_OWN};

    return kvm_create_with(machine, &options, err);
}

static struct engine_ops kvm_own_engine, kvm_board_engine, measured_engine, absent_engine,
    lame_engine, own_engine, refused_engine;

static struct engine *create_own(const struct machine *machine, struct error *err)
{
    struct engine *engine = interp_engine.create(machine, err);

    engine->ops = &own_engine;
    return engine;
}

static int make_engines(void **unused)
{
    measured_engine = absent_engine = lame_engine = own_engine = interp_engine;
    measured_engine.create = create_measured;
    absent_engine.create = create_none;
    lame_engine.vcpu_create = create_one_vcpu;
    kvm_own_engine = kvm_board_engine = refused_engine = kvm_engine;
    kvm_own_engine.create = create_with_own_apics;
    kvm_board_engine.create = create_with_board_apics;
    refused_engine.create = create_refused;
    own_engine.create = create_own;
    own_engine.local_apics = plug_in_own;
    own_engine.destroy = destroy_own;
    return 0;
}

/* ---- What is done with machines ---- */

static uint32_t word(struct vm *vm, uint64_t gpa)
{
    uint32_t value = 0;

    assert_int_equal(mem_read(vm->machine.mem, gpa, &value, 4), 0);
    return value;
}

static void set_word(struct vm *vm, uint64_t gpa, uint32_t value)
{
    assert_int_equal(mem_write(vm->machine.mem, gpa, &value, 4), 0);
}

static struct vm *create(const struct engine_ops *engine)
{
    struct error err = {0};
    struct vm *vm = vm_create(engine, &config, &err);

    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

static struct vm *start(const struct engine_ops *engine)
{
    struct vm *vm = create(engine);

    assert_int_equal(vm_start(vm, NULL), 0);
    return vm;
}

static void switch_to(struct vm *vm, const struct engine_ops *engine)
{
    struct error err = {0};

    if (vm_switch_engine(vm, engine, &err) < 0)
        fail_msg("%s", err.text);
}

/* Waits until the guest has counted MORE at GPA. */
static void wait_for(struct vm *vm, uint64_t gpa, uint32_t more)
{
    uint32_t from = word(vm, gpa);
    uint64_t end = time_now_ns() + TIMEOUT_MS * NS_PER_MS;

    static struct vm_end how;

    while (word(vm, gpa) - from < more) {
        if (time_now_ns() > end || vm_wait(vm, 0, &how) == 0)
            fail_msg("the guest does not count at %x: %d %d %s", (unsigned)gpa, how.outcome,
                     how.status, how.report);
        time_sleep_ns(NS_PER_MS / 10);
    }
}

static void expect_end(struct vm *vm)
{
    static struct vm_end end;

    wait_for(vm, ROUNDS, 100);
    set_word(vm, END, 1);
    assert_int_equal(vm_wait(vm, TIMEOUT_MS, &end), 0);
    assert_int_equal(end.outcome, VM_DEBUG_EXIT);
    assert_int_equal(end.status, STATUS << 1 | 1);
    vm_destroy(vm);
}

/* ---- Tests ---- */

/* Changes VM's engine CHANGES times, in turn to each of COUNT ENGINES, after ROUNDS of the guest's.
 * The second processor is started after some changes. */
static void go_on(struct vm *vm, const struct engine_ops *const *engines, unsigned count,
                  unsigned changes, unsigned rounds)
{
    for (unsigned i = 1; i <= changes; i++) {
        wait_for(vm, ROUNDS, rounds);
        wait_for(vm, TICKS, 2);
        if (i == 6)
            set_word(vm, GO, 1);
        if (i > 6)
            wait_for(vm, MESSAGES, 2);
        switch_to(vm, engines[i % count]);
    }
    wait_for(vm, TICKS, 2);
    wait_for(vm, MESSAGES, 2);
    expect_end(vm);
}

/* Interrupts, messages between processors and the TSC go on from engine to engine; the second
 * processor is started after some changes. */
static void test_goes_on(void **unused)
{
    static const struct engine_ops *const engines[] = {&interp_engine, &bt_engine, &measured_engine,
                                                       &bt_eager_engine};
    struct vm *vm = start(engines[0]);

    go_on(vm, engines, ARRAY_SIZE(engines), 24, 100);
}

/* The same with engines that bring local APICs along, and with the first one that does. */
static void test_own_local_apics(void **unused)
{
    static const struct engine_ops *const engines[] = {&interp_engine, &own_engine};
    struct vm *vm = start(engines[0]);

    own.vm = vm;
    for (unsigned i = 1; i <= 9; i++) {
        wait_for(vm, TICKS, 2);
        if (i == 2)
            set_word(vm, GO, 1);
        if (i > 2)
            wait_for(vm, MESSAGES, 2);
        switch_to(vm, engines[i % 2]);
        assert_int_equal(vm->cpu[1].port.apic == own.set, 0);
    }
    wait_for(vm, TICKS, 2);
    wait_for(vm, MESSAGES, 2);
    expect_end(vm);
}

/* The same with KVM, whose local APICs are its own or the board's. Both processors' timers and
 * messages go on, whoever has the local APICs. A KVM that emulates processors has a TSC that
 * differs.
 */
static void test_kvm_goes_on(void **unused)
{
    static const struct engine_ops *const engines[] = {&bt_engine, &kvm_own_engine, &interp_engine,
                                                       &kvm_board_engine, &kvm_own_engine};
    struct error err = {0};
    struct vm *vm = vm_create(&kvm_own_engine, &config, &err);

    if (!vm) {
        print_message("not run: %s\n", err.text);
        skip();
    }
    set_word(vm, ANY_TSC, 1);
    assert_int_equal(vm_start(vm, NULL), 0);
    go_on(vm, engines, ARRAY_SIZE(engines), 25, 10);
}

/* Everything that a processor has, on a machine that is not started: what comes out of the last of
 * several engines is what the first one was given. */
static void fill(struct x86_cpu *x, unsigned id)
{
    x->reg[X86_RAX] = 0x1122334455667788 + id;
    x->reg[X86_R15] = 0x8877665544332211 + id;
    x->reg[X86_RIP] = 0x1234;
    x->rflags = X86_FLAG_ONE | X86_FLAG_CF | X86_FLAG_SF | X86_FLAG_OF | X86_FLAG_RF | X86_FLAG_AC;
    x->cr2 = 0x5000;
    x->dr[0] = 0x1111;
    x->dr[3] = 0x4444;
    x->dr6 = X86_DR6_RESET | 1;
    x->dr7 = X86_DR7_RESET | 1;
    x->lstar = 0xFFFF800000001000;
    x->star = 0x0023001000000000;
    x->sysenter_eip = 0x777;
    x->kernel_gs_base = 0x666;
    x->tsc_aux = id;
    x->tsc_adjust = 0x100000;
    x->pat = 0x0007040600070406;
    x->mtrr_base[1] = 0x80000000;
    x->kvm_system_time = 0x3001;
    x->kvm_pv_eoi = 0x3101;
    x->interrupt_shadow = x->ss_shadow = true;
    x->nmi_blocked = true;
    x->nmis_pending = 1;
    x->trap_pending = true;
    x->pending_dr6 = 2;
    x->exception = (struct x86_exception){
        .pending = true, .vector = X86_GP, .has_error = id, .error = id ? 0x18 : 0};
    for (unsigned i = X86_XSAVE_XMM; i < X86_XSAVE_XMM + 256; i++)
        x->xsave[i] = (uint8_t)(i + id);
    x->xsave[X86_XSAVE_HEADER] = X86_XCR0_ALL;
    for (unsigned i = X86_XSAVE_YMMH; i < X86_XSAVE_SIZE; i++)
        x->xsave[i] = (uint8_t)(3 * i + id);
}

static void test_state(void **unused)
{
    static const struct engine_ops *const engines[] = {&bt_engine, &own_engine, &interp_engine};
    const uint32_t requests = CPU_REQ_NMI | CPU_REQ_NMI_AGAIN | CPU_REQ_INIT | CPU_REQ_SIPI;
    struct vm *vm = create(&interp_engine);
    struct x86_cpu given[2], seen;
    uint64_t ns = clock_now(vm->machine.clock), tsc = clock_tsc(vm->machine.clock);

    own.vm = vm;
    memset(given, 0, sizeof(given));
    for (unsigned i = 0; i < 2; i++) {
        interp_engine.state_out(vm->cpu[i].vcpu, &given[i]);
        fill(&given[i], i);
        interp_engine.state_in(vm->cpu[i].vcpu, &given[i]);
        interp_engine.state_out(vm->cpu[i].vcpu, &given[i]); /* fixed bits as it has them */
        atomic_store(&vm->cpu[i].port.sipi_vector, (uint8_t)(0x20 + i));
        cpu_port_request(&vm->cpu[i].port, requests);
    }
    for (unsigned n = 0; n < ARRAY_SIZE(engines); n++) {
        switch_to(vm, engines[n]);
        for (unsigned i = 0; i < 2; i++) {
            memset(&seen, 0, sizeof(seen));
            engines[n]->state_out(vm->cpu[i].vcpu, &seen);
            assert_memory_equal(&seen, &given[i], sizeof(seen));
            assert_int_equal(atomic_load(&vm->cpu[i].port.requests) & requests, requests);
            assert_int_equal(atomic_load(&vm->cpu[i].port.sipi_vector), 0x20 + i);
        }
    }
    assert_int_equal(clock_now(vm->machine.clock), ns);
    assert_int_equal(clock_tsc(vm->machine.clock), tsc);
    vm_destroy(vm);
}

/* A processor that waits for its start-up, one that has halted, and a local APIC with interrupts
 * requested and in service. */
static void test_activity(void **unused)
{
    struct vm *vm = create(&interp_engine);
    struct x86_cpu x = {0};
    const struct apic_ops *apic = vm->cpu[0].port.apic_ops;
    uint64_t value;

    own.vm = vm;
    interp_engine.state_out(vm->cpu[0].vcpu, &x);
    x.activity = X86_HALTED;
    interp_engine.state_in(vm->cpu[0].vcpu, &x);
    assert_int_equal(apic->msr_write(vm->cpu[0].port.apic, 0x1B, 0xFEE00D00), 0); /* x2APIC */
    assert_int_equal(apic->msr_write(vm->cpu[0].port.apic, 0x80F, 0x1FF), 0);
    assert_int_equal(apic->msr_write(vm->cpu[0].port.apic, 0x83F, 0x51), 0); /* to itself */
    assert_int_equal(apic->ack(vm->cpu[0].port.apic), 0x51);
    assert_int_equal(apic->msr_write(vm->cpu[0].port.apic, 0x83F, 0x62), 0);
    for (unsigned n = 0; n < 2; n++) {
        switch_to(vm, n ? &bt_engine : &own_engine);
        vm->engine->ops->state_out(vm->cpu[0].vcpu, &x);
        assert_int_equal(x.activity, X86_HALTED);
        vm->engine->ops->state_out(vm->cpu[1].vcpu, &x);
        assert_int_equal(x.activity, X86_WAIT_SIPI);
        assert_true(vm->cpu[1].wait_sipi);
        assert_int_equal(apic->pending(vm->cpu[0].port.apic), 0x62);
        assert_int_equal(apic->msr_read(vm->cpu[0].port.apic, 0x812, &value), 0); /* in service */
        assert_int_equal(value, 1u << (0x51 - 0x40));
        assert_true(atomic_load(&vm->cpu[0].port.requests) & CPU_REQ_INTR);
    }
    vm_destroy(vm);
}

/* All registers of a local APIC come back from KVM as they were, and so do its timer's period,
 * which stands still with guest time, and its deadline. */

#define APIC_REGISTERS                                                                             \
    0x40 /* as MSRs from 800h on; the one with which it sends to itself is none */
#define TSC_DEADLINE 0x6E0

static void read_apic(struct vm *vm, uint64_t values[APIC_REGISTERS])
{
    const struct cpu_port *port = &vm->cpu[0].port;

    for (unsigned i = 0; i < APIC_REGISTERS; i++)
        if (port->apic_ops->msr_read(port->apic, 0x800 + i, &values[i]) < 0)
            values[i] = UINT64_MAX;
    assert_int_equal(port->apic_ops->msr_read(port->apic, TSC_DEADLINE, &values[0]), 0);
    assert_int_equal(port->apic_ops->msr_read(port->apic, 0x1B, &values[1]), 0);
}

static void write_apic(struct vm *vm, uint32_t msr, uint64_t value)
{
    const struct cpu_port *port = &vm->cpu[0].port;

    assert_int_equal(port->apic_ops->msr_write(port->apic, msr, value), 0);
}

static void test_kvm_local_apic(void **unused)
{
    static const uint32_t modes[] = {0x40, 0x20040, 0x40040}; /* one-shot, periodic, deadline */
    struct error err = {0};
    struct vm *vm = vm_create(&kvm_own_engine, &config, &err);

    if (!vm) {
        print_message("not run: %s\n", err.text);
        skip();
    }
    switch_to(vm, &bt_engine);
    write_apic(vm, 0x1B, 0xFEE00D00); /* x2APIC */
    write_apic(vm, 0x80F, 0x1FF);
    write_apic(vm, 0x835, 0x10000 | 0x35);
    write_apic(vm, 0x83F, 0x51); /* to itself: in service, and one requested */
    assert_int_equal(vm->cpu[0].port.apic_ops->ack(vm->cpu[0].port.apic), 0x51);
    write_apic(vm, 0x83F, 0x62);
    write_apic(vm, 0x808, 0x35);
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        uint64_t before[APIC_REGISTERS], after[APIC_REGISTERS];

        write_apic(vm, 0x832, modes[i]);
        write_apic(vm, 0x83E, 0x3); /* by 16 */
        write_apic(vm, 0x838, 1u << 30);
        if (i == 2)
            write_apic(vm, TSC_DEADLINE, clock_tsc(vm->machine.clock) + (1ULL << 40));
        read_apic(vm, before);
        switch_to(vm, &kvm_own_engine);
        switch_to(vm, &kvm_own_engine);
        switch_to(vm, &bt_engine);
        read_apic(vm, after);
        assert_memory_equal(after, before, sizeof(after));
    }
    vm_destroy(vm);
}

/* A machine whose engine cannot be exchanged goes on under the one that it has. */
static void test_failures(void **unused)
{
    static const struct {
        const struct engine_ops *engine;
        bool refuses;
        int code;
    } cases[] = {
        {&absent_engine, false, EBUSY}, {&lame_engine, false, ENOMEM}, {&own_engine, true, EPERM}};
    struct vm *vm = start(&bt_engine);
    struct error err;

    own.vm = vm;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        own.refuses = cases[i].refuses;
        assert_int_equal(vm_switch_engine(vm, cases[i].engine, &err), -cases[i].code);
        assert_int_equal(err.code, cases[i].code);
        assert_ptr_equal(vm->engine->ops, &bt_engine);
        wait_for(vm, ROUNDS, 100);
        wait_for(vm, TICKS, 2);
    }
    own.refuses = false;
    /* Nor is a pause of the caller's ended. */
    vm_pause(vm);
    assert_int_equal(vm_switch_engine(vm, &absent_engine, NULL), -EBUSY);
    switch_to(vm, &interp_engine);
    assert_int_equal(vm->pauses, 1);
    vm_resume(vm);
    vm_stop(vm);
    vm_wait(vm, -1, NULL);
    assert_int_equal(vm_switch_engine(vm, &bt_engine, &err), -ESHUTDOWN);
    vm_destroy(vm);
}

/* /dev/kvm that vanishes or refuses, at each call in turn: the machine goes on as it was, unless
 * KVM can do without that call. */
static void test_kvm_refuses(void **unused)
{
    static const int codes[] = {ENOENT, EPERM, EBUSY, ENOMEM};
    /* A machine that is made under KVM has only what KVM can give its processors. */
    struct vm *vm = vm_create(&kvm_engine, &config, NULL) ?: create(&bt_engine);
    unsigned calls = 0, refusals = 0;
    struct error err;
    int ret;

    switch_to(vm, &bt_engine);
    assert_int_equal(vm_start(vm, NULL), 0);
    for (;;) {
        fault.calls = 0;
        fault.fail_at = calls + 1;
        fault.code = codes[calls % ARRAY_SIZE(codes)];
        err = (struct error){0};
        vm_pause(vm); /* the guest is not to run under it */
        ret = vm_switch_engine(vm, &refused_engine, &err);
        if (ret == 0)
            switch_to(vm, &bt_engine);
        vm_resume(vm);
        if (fault.calls < fault.fail_at)
            break;
        assert_true(ret == 0 || *err.text);
        assert_ptr_equal(vm->engine->ops, &bt_engine);
        wait_for(vm, ROUNDS, 10);
        refusals += ret < 0;
        calls++;
    }
    print_message("KVM: %s; of %u calls, %u are needed\n", ret == 0 ? "there" : err.text, calls,
                  refusals);
    assert_true(refusals >= 1);
    wait_for(vm, TICKS, 2);
    expect_end(vm);
}

/* The dirty log that runs meanwhile misses nothing, and memory that is taken away meanwhile is what
 * the next engine asks the gate for. */
static void test_memory(void **unused)
{
    static const struct engine_ops *const engines[] = {&interp_engine, &bt_engine};
    struct vm *vm = start(engines[0]);
    struct mem_change balloon = {.kind = MEM_BALLOON, .gpn = 64};
    uint64_t dirty[8];

    assert_int_equal(mem_log_start(vm->machine.mem, NULL), 0);
    for (unsigned i = 1; i <= 10; i++) {
        wait_for(vm, ROUNDS, 10);
        switch_to(vm, engines[i % 2]);
        mem_log_fetch(vm->machine.mem, 0, 512, dirty);
        assert_true(dirty[0] >> DIRTY_PAGE & 1);
        wait_for(vm, ROUNDS, 10);
        mem_log_fetch(vm->machine.mem, 0, 512, dirty);
        assert_true(dirty[0] >> DIRTY_PAGE & 1);
        assert_int_equal(mem_change(vm->machine.mem, &balloon, 1), 1);
        set_word(vm, balloon.gpn << MEM_PAGE_SHIFT, 1); /* it is there again */
    }
    mem_log_stop(vm->machine.mem);
    expect_end(vm);
}

/* ---- Others who look ---- */

struct onlooker {
    struct vm *vm;
    _Atomic bool done;
    uint64_t instructions; /* that were seen last */
};

static void add_instructions(void *opaque, const struct engine_counter *counter)
{
    if (!strcmp(counter->name, "instructions"))
        *(uint64_t *)opaque += counter->count;
}

static void ignore_line(void *opaque, const char *text)
{
}

static void *look_on(void *opaque)
{
    struct onlooker *o = opaque;

    while (!atomic_load(&o->done)) {
        uint64_t seen = 0;

        vm_counters(o->vm, add_instructions, &seen);
        assert_true(seen >= o->instructions);
        o->instructions = seen;
        vm_output_room(o->vm); /* kicks */
        vm_where(o->vm, ignore_line, NULL);
    }
    return NULL;
}

/* Takes pages away from the guest, as the memory manager does, and has the engines hear of it. */
static void *take_away(void *opaque)
{
    struct onlooker *o = opaque;
    struct mem_change change = {.kind = MEM_BALLOON, .gpn = 100};

    while (!atomic_load(&o->done)) {
        set_word(o->vm, change.gpn << MEM_PAGE_SHIFT, 1);
        mem_change(o->vm->machine.mem, &change, 1);
    }
    return NULL;
}

/* Two threads that switch at once, one that asks and kicks all the time, and one that takes memory
 * away. What is counted never becomes less. */
static void *switch_often(void *opaque)
{
    static const struct engine_ops *const engines[] = {&interp_engine, &measured_engine};
    struct onlooker *o = opaque;

    for (unsigned i = 1; i <= 20; i++)
        assert_int_equal(vm_switch_engine(o->vm, engines[i % 2], NULL), 0);
    return NULL;
}

static void test_onlookers(void **unused)
{
    void *(*const run[])(void *) = {look_on, take_away, switch_often};
    struct vm *vm = start(&interp_engine);
    struct onlooker o = {.vm = vm};
    pthread_t thread[ARRAY_SIZE(run)];

    set_word(vm, GO, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(run); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run[i], &o), 0);
    switch_often(&o);
    pthread_join(thread[2], NULL);
    wait_for(vm, MESSAGES, 2);
    atomic_store(&o.done, true);
    pthread_join(thread[0], NULL);
    pthread_join(thread[1], NULL);
    assert_true(o.instructions > 0);
    expect_end(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),     cmocka_unit_test(test_own_local_apics),
        cmocka_unit_test(test_kvm_goes_on), cmocka_unit_test(test_state),
        cmocka_unit_test(test_activity),    cmocka_unit_test(test_kvm_local_apic),
        cmocka_unit_test(test_failures),    cmocka_unit_test(test_kvm_refuses),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_onlookers),
    };

    return cmocka_run_group_tests(tests, make_engines, NULL);
}
