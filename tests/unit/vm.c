/*
 * The VM's life, driven by an engine that executes C functions instead of guest code.
 */
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "vm/acpi.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The engine ---- */

/* What a vCPU does in run(). The bootstrap processor's is that of the VM; an application
 * processor's starts when a start-up IPI gives it a code segment. */
typedef enum engine_exit program(struct vcpu *vcpu);

struct fake {
    struct engine engine;
    const struct machine *machine;
};

struct vcpu {
    const struct machine *machine;
    struct cpu_port *port;
    struct x86_cpu x;
    uint64_t runs;
};

/* One for each VM, found by the size of its memory: the vtable has no room for a parameter. */
static program *programs[2];
#define MEMORY(n) ((2 + (uint64_t)(n)) * MiB)

static const struct engine_ops fake_engine;

static struct engine *fake_create(const struct machine *machine, struct error *err)
{
    struct fake *fake = calloc(1, sizeof(*fake));

    *fake = (struct fake){.engine.ops = &fake_engine, .machine = machine};
    return &fake->engine;
}

static void fake_destroy(struct engine *engine)
{
    free(engine);
}

static struct vcpu *fake_vcpu_create(struct engine *engine, struct cpu_port *port,
                                     struct error *err)
{
    struct vcpu *vcpu = aligned_alloc(64, ALIGN_UP(sizeof(*vcpu), 64));

    memset(vcpu, 0, sizeof(*vcpu));
    vcpu->machine = ((struct fake *)engine)->machine;
    vcpu->port = port;
    return vcpu;
}

static void fake_vcpu_destroy(struct vcpu *vcpu)
{
    free(vcpu);
}

static enum engine_exit fake_run(struct vcpu *vcpu)
{
    uint32_t leave = CPU_REQ_KICK | CPU_REQ_INIT | CPU_REQ_SIPI;

    if (atomic_load(&vcpu->port->requests) & leave)
        return EXIT_KICK;
    atomic_fetch_and(&vcpu->port->requests, ~(uint32_t)(CPU_REQ_INTR | CPU_REQ_NMI));
    vcpu->runs++;
    return programs[mem_ram_size(vcpu->machine->mem) / MiB - 2](vcpu);
}

static void fake_state_out(struct vcpu *vcpu, struct x86_cpu *cpu)
{
    *cpu = vcpu->x;
}

static void fake_state_in(struct vcpu *vcpu, const struct x86_cpu *cpu)
{
    vcpu->x = *cpu;
}

static void fake_counters(const struct vcpu *vcpu, engine_counter_fn *each, void *opaque)
{
    each(opaque, &(struct engine_counter){"exits", "halt", 1, 0});
}

static void fake_kick(struct vcpu *vcpu)
{
    cpu_port_request(vcpu->port, CPU_REQ_KICK);
}

static uint64_t fake_rip(const struct vcpu *vcpu)
{
    return 0x1234;
}

static void fake_history(struct vcpu *vcpu, char *buf, unsigned size)
{
    snprintf(buf, size, "fff0  0f0b  ud2\n");
}

static const struct engine_ops fake_engine = {
    .name = "fake",
    .create = fake_create,
    .destroy = fake_destroy,
    .vcpu_create = fake_vcpu_create,
    .vcpu_destroy = fake_vcpu_destroy,
    .run = fake_run,
    .state_out = fake_state_out,
    .state_in = fake_state_in,
    .counters = fake_counters,
    .kick = fake_kick,
    .rip = fake_rip,
    .history = fake_history,
};

/* ---- What programs are made of ---- */

static void out(struct vcpu *vcpu, uint16_t port, unsigned size, uint32_t value)
{
    bus_write(vcpu->machine->bus, BUS_PORT, port, size, value);
}

static void apic_write(struct vcpu *vcpu, uint32_t offset, uint32_t value)
{
    vcpu->port->apic_ops->mmio_write(vcpu->port->apic, offset, 4, value);
}

static enum engine_exit power_off(struct vcpu *vcpu)
{
    out(vcpu, 0x604, 2, 5u << 10 | 1u << 13);
    return EXIT_KICK;
}

/* Ends the VM, telling VALUE. */
static enum engine_exit tell(struct vcpu *vcpu, uint32_t value)
{
    out(vcpu, 0xF4, 4, value);
    return EXIT_KICK;
}

static struct vm *create(unsigned n, unsigned cpus, program *bsp)
{
    static const char *const devices[] = {"debug-exit", NULL};
    struct vm_config config = {.cpus = cpus, .memory = MEMORY(n), .devices = {.list = devices}};
    struct error err = {0};
    struct vm *vm = vm_create(&fake_engine, &config, &err);

    programs[n] = bsp;
    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

static struct vm_end end_of(struct vm *vm)
{
    static struct vm_end end;

    assert_int_equal(vm_wait(vm, 10000, &end), 0);
    vm_destroy(vm);
    return end;
}

static struct vm_end run_to_end(unsigned cpus, program *bsp)
{
    struct vm *vm = create(0, cpus, bsp);

    assert_int_equal(vm_start(vm, NULL), 0);
    return end_of(vm);
}

/* ---- Ends ---- */

static void test_poweroff(void **unused)
{
    assert_int_equal(run_to_end(1, power_off).outcome, VM_POWEROFF);
    assert_int_equal(run_to_end(3, power_off).outcome, VM_POWEROFF);
}

static enum engine_exit tell_21(struct vcpu *vcpu)
{
    return tell(vcpu, 21);
}

static void test_debug_exit(void **unused)
{
    struct vm_end end = run_to_end(1, tell_21);

    assert_int_equal(end.outcome, VM_DEBUG_EXIT);
    assert_int_equal(end.status, 43);
}

static enum engine_exit triple_fault(struct vcpu *vcpu)
{
    vcpu->x.activity = X86_SHUTDOWN;
    vcpu->x.reg[X86_R10] = 0x1234567890ABCDEF;
    return EXIT_SHUTDOWN;
}

static void test_crash(void **unused)
{
    struct vm_end end = run_to_end(1, triple_fault);

    assert_int_equal(end.outcome, VM_CRASHED);
    assert_non_null(strstr(end.report, "vCPU 0: triple fault\n"));
    assert_non_null(strstr(end.report, "shut down, real mode"));
    assert_non_null(strstr(end.report, "RIP 000000000000fff0"));
    assert_non_null(strstr(end.report, "R10 1234567890abcdef"));
    assert_non_null(strstr(end.report, "CS   f000 base 00000000ffff0000"));
    assert_non_null(strstr(end.report, "0f0b  ud2\n"));
}

static enum engine_exit halt(struct vcpu *vcpu)
{
    return EXIT_HALT;
}

static void test_stop(void **unused)
{
    struct vm *vm = create(0, 2, halt);
    struct vm_end end;

    assert_int_equal(vm_start(vm, NULL), 0);
    assert_int_equal(vm_start(vm, NULL), -EALREADY);
    assert_int_equal(vm_wait(vm, 20, &end), -ETIMEDOUT);
    vm_stop(vm);
    assert_int_equal(vm_wait(vm, 10000, &end), 0);
    assert_int_equal(end.outcome, VM_STOPPED);
    vm_destroy(vm);

    vm = create(0, 2, halt); /* never started */
    vm_stop(vm);
    assert_int_equal(end_of(vm).outcome, VM_STOPPED);
    vm_destroy(create(0, 1, halt));
}

static void test_refuses(void **unused)
{
    struct vm_config config = {.cpus = 1, .memory = 4096};
    struct error err = {0};

    assert_null(vm_create(&fake_engine, &config, &err));
    assert_int_equal(err.code, EINVAL);
    config.memory = MEMORY(0);
    config.cpus = VM_MAX_CPUS + 1;
    assert_null(vm_create(&fake_engine, &config, &err));
    assert_int_equal(err.code, EINVAL);
    config.cpus = 0;
    assert_null(vm_create(&fake_engine, &config, NULL));
}

/* What firmware leaves: memory types, the local APIC as a wire for the 8259s. */
static enum engine_exit look_at_firmware(struct vcpu *vcpu)
{
    const struct x86_cpu *x = &vcpu->x;
    void *apic = vcpu->port->apic;

    if (x->mtrr_def_type != 0xC06 || x->mtrr_fixed[2] != 0 ||
        x->mtrr_fixed[3] != 0x0606060606060606 || x->mtrr_base[0] != 0xC0000000 ||
        (x->mtrr_mask[0] & 0xFFFFFFFFF) != 0xFC0000800 || x->pat != 0x0007040600070406)
        return tell(vcpu, 1);
    if (vcpu->port->apic_ops->base(apic) != BOARD_LAPIC_ADDRESS ||
        vcpu->port->apic_ops->mmio_read(apic, 0x350, 4) != 0x700 ||
        vcpu->port->apic_ops->mmio_read(apic, 0x360, 4) != 0x400)
        return tell(vcpu, 2);
    return tell(vcpu, 3);
}

static void test_firmware(void **unused)
{
    assert_int_equal(run_to_end(1, look_at_firmware).status, 7);
}

/* ---- Reset ---- */

static _Atomic unsigned boots;

static enum engine_exit reset_once(struct vcpu *vcpu)
{
    uint64_t rsdp = 0, low = 0, ier;

    if (vcpu->port->id != 0)
        return EXIT_HALT;
    mem_read(vcpu->machine->mem, ACPI_RSDP_ADDRESS, &rsdp, 8);
    mem_read(vcpu->machine->mem, 0x5000, &low, 8);
    ier = bus_read(vcpu->machine->bus, BUS_PORT, 0x3F9, 1);
    if (memcmp(&rsdp, "RSD PTR ", 8) != 0 || low != 0 || ier != 0 || vcpu->x.reg[X86_RIP] != 0xFFF0)
        return tell(vcpu, 99);
    if (++boots == 2)
        return power_off(vcpu);
    rsdp = 0;
    low = 1;
    mem_write(vcpu->machine->mem, ACPI_RSDP_ADDRESS, &rsdp, 8);
    mem_write(vcpu->machine->mem, 0x5000, &low, 8);
    out(vcpu, 0x3F9, 1, 3);
    vcpu->x.reg[X86_RIP] = 0x1000;
    out(vcpu, 0x64, 1, 0xFE);
    return EXIT_KICK;
}

static void test_reset(void **unused)
{
    boots = 0;
    assert_int_equal(run_to_end(4, reset_once).outcome, VM_POWEROFF);
    assert_int_equal(boots, 2);
}

static enum engine_exit reset_by_cf9(struct vcpu *vcpu)
{
    out(vcpu, 0xCF9, 1, 6);
    return EXIT_KICK;
}

static void test_no_reboot(void **unused)
{
    struct vm_config config = {.cpus = 1, .memory = MEMORY(0), .no_reboot = true};
    struct vm *vm = vm_create(&fake_engine, &config, NULL);

    programs[0] = reset_by_cf9;
    assert_int_equal(vm_start(vm, NULL), 0);
    assert_int_equal(end_of(vm).outcome, VM_RESET);
}

/* ---- Processors ---- */

#define ICR_INIT 0x4500u
#define ICR_SIPI 0x4600u

static enum engine_exit start_other(struct vcpu *vcpu)
{
    if (vcpu->port->id == 1) /* running at all means that it was started */
        return tell(vcpu, (uint32_t)(vcpu->x.seg[X86_CS].base | vcpu->x.reg[X86_RIP]));
    apic_write(vcpu, 0x310, 1u << 24);
    apic_write(vcpu, 0x300, ICR_INIT);
    apic_write(vcpu, 0x300, ICR_SIPI | 0x9A);
    return EXIT_HALT;
}

static void test_start_up(void **unused)
{
    struct vm_end end = run_to_end(2, start_other);

    assert_int_equal(end.outcome, VM_DEBUG_EXIT);
    assert_int_equal(end.status, 0x9A000 << 1 | 1);
}

/* After INIT, a processor waits; only the start-up IPI after it counts. */
static enum engine_exit init_other(struct vcpu *vcpu)
{
    if (vcpu->port->id == 1) {
        if (vcpu->x.seg[X86_CS].base == 0x20000)
            return tell(vcpu, 7);
        vcpu->x.reg[X86_RAX] = 1;
        apic_write(vcpu, 0x310, 0); /* tells processor 0: an interrupt with vector 80 */
        apic_write(vcpu, 0x300, 0x4000 | 80);
        return EXIT_HALT;
    }
    apic_write(vcpu, 0x0F0, 0x1FF);
    apic_write(vcpu, 0x310, 1u << 24);
    if (vcpu->port->apic_ops->pending(vcpu->port->apic) == 80) {
        vcpu->port->apic_ops->ack(vcpu->port->apic);
        apic_write(vcpu, 0x300, ICR_INIT);
        apic_write(vcpu, 0x300, ICR_SIPI | 0x20);
    } else if (vcpu->runs == 1) {
        apic_write(vcpu, 0x300, ICR_SIPI | 0x10);
    }
    return EXIT_HALT;
}

static void test_init(void **unused)
{
    struct vm_end end = run_to_end(2, init_other);

    assert_int_equal(end.outcome, VM_DEBUG_EXIT);
    assert_int_equal(end.status, 15);
}

/* Waits for its APIC timer, halted. */
static enum engine_exit sleep_a_while(struct vcpu *vcpu)
{
    if (vcpu->runs == 1) {
        apic_write(vcpu, 0x0F0, 0x1FF);
        apic_write(vcpu, 0x3E0, 0xB); /* divide by 1 */
        apic_write(vcpu, 0x320, 50);
        apic_write(vcpu, 0x380, X86_APIC_TIMER_HZ / 5);
        return EXIT_HALT;
    }
    return tell(vcpu, vcpu->runs == 2 && vcpu->port->apic_ops->pending(vcpu->port->apic) == 50);
}

static void test_halted_sleeps(void **unused)
{
    struct vm *vm = create(0, 4, sleep_a_while);
    struct vm_end end;
    uint64_t before;

    assert_int_equal(vm_start(vm, NULL), 0);
    before = time_process_ns();
    assert_int_equal(vm_wait(vm, 10000, &end), 0);
    assert_in_range(time_process_ns() - before, 0, 10000000); /* of 200 ms */
    assert_int_equal(end.status, 3);
    vm_destroy(vm);
}

/* ---- Pause ---- */

static _Atomic uint64_t turns;

static enum engine_exit turn(struct vcpu *vcpu)
{
    while (!(atomic_load(&vcpu->port->requests) & CPU_REQ_KICK))
        turns++;
    return EXIT_KICK;
}

/* Keeps the counter of HLTs, of which there is one for all vCPUs. */
static void note_halt(void *opaque, const struct engine_counter *counter)
{
    struct engine_counter *halt = opaque;

    if (!strcmp(counter->group, "exits") && !strcmp(counter->name, "halt")) {
        assert_null(halt->name);
        *halt = *counter;
    }
}

static void test_pause(void **unused)
{
    struct vm *vm = create(0, 1, turn);
    struct engine_counter halt = {0};
    struct vm_stats stats;
    uint64_t now, elapsed;

    turns = 0;
    assert_int_equal(vm_start(vm, NULL), 0);
    while (turns == 0)
        usleep(1000);
    vm_pause(vm);
    vm_pause(vm);
    now = turns;
    vm_stats(vm, &stats);
    elapsed = stats.elapsed_ns;
    usleep(20000);
    vm_resume(vm); /* one of two */
    usleep(20000);
    assert_int_equal(turns, now);
    vm_stats(vm, &stats);
    assert_int_equal(stats.elapsed_ns, elapsed);
    vm_resume(vm);
    while (turns == now)
        usleep(1000);
    vm_stats(vm, &stats);
    assert_true(stats.elapsed_ns > elapsed);
    vm_counters(vm, note_halt, &halt);
    assert_int_equal(halt.count, 1);
    assert_int_equal(halt.ns, 0); /* it never was */
    vm_pause(vm);                 /* and ended while paused */
    vm_stop(vm);
    assert_int_equal(end_of(vm).outcome, VM_STOPPED);
}

/* ---- Local APICs that the engine brings along ---- */

static struct {
    uint32_t data; /* of the last message */
    unsigned messages, setups;
    bool in_port; /* the board has plugged in its own all the same */
} own_apics;

static void own_message(void *opaque, uint64_t address, uint32_t data)
{
    own_apics.messages++;
    own_apics.data = data;
}

static void own_firmware_setup(void *opaque)
{
    own_apics.setups++;
}

static void own_state_in(void *opaque, unsigned cpu, const struct lapic_state *state)
{
    assert_int_equal(state->base & 0xFFFFF000, 0xFEE00000);
}

static int own_local_apics(struct engine *engine, const struct lapic_board *board,
                           struct local_apics *apics, struct error *err)
{
    assert_non_null(board->eoi);
    *apics = (struct local_apics){
        .msi.send = own_message, .firmware_setup = own_firmware_setup, .state_in = own_state_in};
    return 0;
}

static void io_apic_write(struct vcpu *vcpu, uint32_t reg, uint32_t value)
{
    bus_write(vcpu->machine->bus, BUS_MMIO, 0xFEC00000, 4, reg);
    bus_write(vcpu->machine->bus, BUS_MMIO, 0xFEC00010, 4, value);
}

/* Has COM1 interrupt because its transmitter is empty; the I/O APIC's pin 4 has vector 55h. */
static enum engine_exit interrupt_by_com1(struct vcpu *vcpu)
{
    own_apics.in_port = vcpu->port->apic_ops;
    io_apic_write(vcpu, 0x10 + 2 * 4, 0x55);
    out(vcpu, 0x3FC, 1, 8); /* OUT2: the interrupt is connected */
    out(vcpu, 0x3F9, 1, 2); /* transmitter empty */
    return power_off(vcpu);
}

static struct engine *own_create(const struct machine *machine, struct error *err);

static const struct engine_ops own_apic_engine = {
    .name = "own-apic",
    .local_apics = own_local_apics,
    .create = own_create,
    .destroy = fake_destroy,
    .vcpu_create = fake_vcpu_create,
    .vcpu_destroy = fake_vcpu_destroy,
    .run = fake_run,
    .kick = fake_kick,
    .state_out = fake_state_out,
    .state_in = fake_state_in,
};

static struct engine *own_create(const struct machine *machine, struct error *err)
{
    struct engine *engine = fake_create(machine, err);

    engine->ops = &own_apic_engine;
    return engine;
}

/* The engine's choice: its own local APICs get the messages, and the board's are in no port. */
static void test_local_apics(void **unused)
{
    struct vm_config config = {.cpus = 1, .memory = MEMORY(0)};
    struct vm *vm = vm_create(&own_apic_engine, &config, NULL);

    assert_non_null(vm);
    assert_int_equal(own_apics.setups, 1);
    programs[0] = interrupt_by_com1;
    assert_int_equal(vm_start(vm, NULL), 0);
    assert_int_equal(end_of(vm).outcome, VM_POWEROFF);
    assert_false(own_apics.in_port);
    assert_int_equal(own_apics.messages, 1);
    assert_int_equal(own_apics.data & 0xFF, 0x55);
}

/* ---- Serial ports ---- */

struct heard {
    char text[64];
    size_t size;
};

static void hear(void *opaque, const void *data, size_t size)
{
    struct heard *heard = opaque;

    assert_true(heard->size + size < sizeof(heard->text));
    memcpy(heard->text + heard->size, data, size);
    heard->size += size;
}

/* Sends what it receives until a full stop, then powers off at once. */
static enum engine_exit echo(struct vcpu *vcpu)
{
    for (;;) {
        uint64_t byte;

        if (atomic_load(&vcpu->port->requests) & CPU_REQ_KICK)
            return EXIT_KICK;
        if (!(bus_read(vcpu->machine->bus, BUS_PORT, 0x2FD, 1) & 1))
            continue;
        byte = bus_read(vcpu->machine->bus, BUS_PORT, 0x2F8, 1);
        out(vcpu, 0x2F8, 1, (uint32_t)byte);
        if (byte == '.')
            return power_off(vcpu);
    }
}

static void test_serial(void **unused)
{
    struct heard heard = {0};
    struct vm_config config = {.cpus = 1,
                               .memory = MEMORY(0),
                               .devices.serial[1] = {.sent = {.output = hear, .opaque = &heard}}};
    struct vm *vm = vm_create(&fake_engine, &config, NULL);

    programs[0] = echo;
    assert_int_equal(vm_serial_input(vm, 1, "to and ", 7), 7); /* before it runs */
    assert_int_equal(vm_serial_input(vm, 9, "x", 1), 0);
    assert_int_equal(vm_start(vm, NULL), 0);
    assert_int_equal(vm_serial_input(vm, 1, "fro.", 4), 4);
    assert_int_equal(vm_wait(vm, 10000, NULL), 0);
    assert_string_equal(heard.text, "to and fro."); /* all of it, before the end is told */
    vm_destroy(vm);
}

/* ---- Two at once ---- */

static enum engine_exit count_then_tell(struct vcpu *vcpu)
{
    uint64_t own = mem_ram_size(vcpu->machine->mem), found = 0;

    if (vcpu->runs == 1)
        mem_write(vcpu->machine->mem, 0x5000, &own, 8);
    if (vcpu->runs < 1000)
        return EXIT_KICK;
    mem_read(vcpu->machine->mem, 0x5000, &found, 8);
    return tell(vcpu, (uint32_t)(found / MiB));
}

static void test_two(void **unused)
{
    struct vm *a = create(0, 2, count_then_tell), *b = create(1, 2, count_then_tell);

    assert_int_equal(vm_start(a, NULL), 0);
    assert_int_equal(vm_start(b, NULL), 0);
    assert_int_equal(end_of(a).status, 2 << 1 | 1);
    assert_int_equal(end_of(b).status, 3 << 1 | 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poweroff),      cmocka_unit_test(test_debug_exit),
        cmocka_unit_test(test_crash),         cmocka_unit_test(test_stop),
        cmocka_unit_test(test_refuses),       cmocka_unit_test(test_firmware),
        cmocka_unit_test(test_reset),         cmocka_unit_test(test_no_reboot),
        cmocka_unit_test(test_start_up),      cmocka_unit_test(test_init),
        cmocka_unit_test(test_halted_sleeps), cmocka_unit_test(test_pause),
        cmocka_unit_test(test_serial),        cmocka_unit_test(test_two),
        cmocka_unit_test(test_local_apics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
