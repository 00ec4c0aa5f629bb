/*
 * The host's KVM fails: each call to it in turn, with each error that it may have. The engine, its
 * vCPU or the run must fail with that error and a text, and nothing may be left over.
 */
#include "interp_test.h"
#include "kvm_failing.h"
#include "open_files.h"

#include "base/util.h"
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#define CODE RIG_FREE

static unsigned useful; /* calls up to the end of the run */

static const struct kvm_options options = {.calls = &kvm_failing_calls, .apics = KVM_APICS_BOARD},
                                with_apics = {.calls = &kvm_failing_calls, .apics = KVM_APICS_OWN};

static int set_up(void **unused)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

static int tear_down(void **unused)
{
    rig_destroy(rig);
    return 0;
}

/* How a machine has ended: at which stage, and why. */
enum stage { CREATE, VCPU, RUN, NOTHING_FAILED };

static enum stage run_vcpu(struct vcpu *vcpu, struct error *err)
{
    struct x86_cpu cpu;
    enum engine_exit exit;

    rig_state_64(rig, &cpu, CODE);
    kvm_engine.state_in(vcpu, &cpu);
    exit = kvm_engine.run(vcpu);
    if (exit == EXIT_FAILED) {
        *err = *kvm_engine.failure(vcpu);
        return RUN;
    }
    kvm_engine.state_out(vcpu, &cpu);
    assert_int_equal(exit, EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RAX], 7);
    return NOTHING_FAILED;
}

/* Makes a machine on the rig's memory and runs its vCPU. */
static enum stage try_machine(struct error *err)
{
    struct cpu_port port = rig->cpu[0].port;
    struct engine *engine = kvm_create_with(&rig->machine, &options, err);
    struct vcpu *vcpu;
    enum stage stage = VCPU;

    if (!engine)
        return CREATE;
    vcpu = kvm_engine.vcpu_create(engine, &port, err);
    if (vcpu)
        stage = run_vcpu(vcpu, err);
    useful = fault.calls;
    fault.fail_at = UINT32_MAX; /* what is destroyed cannot fail */
    kvm_engine.vcpu_destroy(vcpu);
    kvm_engine.destroy(engine);
    return stage;
}

/* ---- The same with local APICs of KVM's ---- */

#define KICK_PORT 0x10

/* The guest's write to KICK_PORT ends the run. */
static void kick(void *port, uint64_t offset, unsigned size, uint64_t value)
{
    cpu_port_request(port, CPU_REQ_KICK);
}

static uint64_t read_nothing(void *port, uint64_t offset, unsigned size)
{
    return 0;
}

static void ignore_end(void *unused, unsigned vector)
{
}

static unsigned no_vector(void *unused)
{
    return 0x20;
}

/* Gives the local APIC a periodic timer, and a message and a line; has the guest run; and takes the
 * state. What was lost shows in the run. */
static enum stage run_with_apics(struct vcpu *vcpu, struct cpu_port *port,
                                 const struct local_apics *apics, struct error *err)
{
    struct lapic_state state;
    struct x86_cpu cpu;
    enum engine_exit exit;

    apics->firmware_setup(apics->opaque);
    apics->state_out(apics->opaque, 0, &state);
    state.lvt[0] = 0x20040;
    state.timer_initial = 1u << 30;
    state.timer_running = true;
    apics->state_in(apics->opaque, 0, &state);
    apics->expect(apics->opaque, 20, 0xFEE00000, 0xC031);
    apics->msi.send(apics->msi.opaque, 0xFEE00000, 0x50);
    apics->lint.set(apics->lint.opaque, 0, true);
    rig_state_64(rig, &cpu, CODE);
    kvm_engine.state_in(vcpu, &cpu);
    do {
        atomic_fetch_and(&port->requests, ~(uint32_t)CPU_REQ_KICK);
        exit = kvm_engine.run(vcpu);
        kvm_engine.state_out(vcpu, &cpu);
    } while (exit == EXIT_KICK && cpu.reg[X86_RAX] != 7); /* a failure kicks, too */
    if (exit == EXIT_FAILED) {
        *err = *kvm_engine.failure(vcpu);
        return RUN;
    }
    apics->state_out(apics->opaque, 0, &state);
    assert_int_equal(exit, EXIT_KICK);
    assert_true(state.timer_running);
    assert_int_equal(state.timer_initial, 1u << 30);
    return NOTHING_FAILED;
}

static enum stage create_and_run(struct engine *engine, const struct local_apics *apics,
                                 struct error *err)
{
    static const struct bus_ops ops = {read_nothing, kick, 1};
    struct cpu_port port = {.id = 0};
    enum stage stage = VCPU;
    struct vcpu *vcpu;

    bus_claim(rig->machine.bus, BUS_PORT, KICK_PORT, 1, "kick", &ops, &port, NULL);
    vcpu = kvm_engine.vcpu_create(engine, &port, err);
    if (vcpu)
        stage = run_with_apics(vcpu, &port, apics, err);
    useful = fault.calls;
    fault.fail_at = UINT32_MAX;
    kvm_engine.vcpu_destroy(vcpu);
    bus_release(rig->machine.bus, BUS_PORT, KICK_PORT);
    return stage;
}

static bool has_apics; /* at the last try */

static enum stage try_with_apics(struct error *err)
{
    const struct lapic_board board = {.eoi = ignore_end, .acknowledge = no_vector};
    struct engine *engine = kvm_create_with(&rig->machine, &with_apics, err);
    enum stage stage = CREATE;
    struct local_apics apics;
    int ret = engine ? kvm_engine.local_apics(engine, &board, &apics, err) : -1;

    has_apics = ret == 0;
    if (has_apics)
        stage = create_and_run(engine, &apics, err);
    else if (ret == 1) /* the board's will do */
        stage = NOTHING_FAILED;
    fault.fail_at = UINT32_MAX;
    if (engine)
        kvm_engine.destroy(engine);
    return stage;
}

/* Has call NUMBER fail. Returns the stage at which that was told. */
static enum stage fail_call_of(enum stage (*try)(struct error *err), unsigned number, int error)
{
    struct error err = {0};
    enum stage stage;

    fault.calls = 0;
    fault.fail_at = number + 1;
    fault.code = error;
    stage = try(&err);
    if (stage == NOTHING_FAILED)
        return stage;
    assert_true(err.code > 0);
    assert_true(strlen(err.text) > 10);
    return stage;
}

static enum stage fail_call(unsigned number, int error)
{
    return fail_call_of(try_machine, number, error);
}

/* Calls are failed until there are no more. Some failures are none: what KVM says of a register
 * that it may lack, and EINVAL, with which it refuses a state that the interpreter then executes.
 */
static void test_each_call(void **unused)
{
    static const int errors[] = {EBUSY, EPERM, ENOMEM, EINVAL, EIO};
    unsigned stages[NOTHING_FAILED + 1] = {0}, files, calls;

    rig_clear(rig);
    PUT(CODE, 0xB8, 7, 0, 0, 0, 0xF4); /* mov $7, %eax; hlt */
    assert_int_equal(fail_call(UINT32_MAX, 0), NOTHING_FAILED);
    calls = useful;
    files = open_files();
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
        for (unsigned number = 0; number < calls; number++) {
            stages[fail_call(number, errors[i])]++;
            assert_int_equal(open_files(), files);
        }
    assert_int_equal(stages[CREATE] + stages[VCPU] + stages[RUN] + stages[NOTHING_FAILED],
                     calls * ARRAY_SIZE(errors));
    assert_true(stages[CREATE] > 50);
    assert_true(stages[VCPU] > 10);
    assert_true(stages[RUN] > 20);
}

/* Where KVM will not have local APICs, the board's do; otherwise the same. */
static void test_each_call_with_apics(void **unused)
{
    static const int errors[] = {EBUSY, EPERM, ENOMEM, EINVAL};
    unsigned stages[NOTHING_FAILED + 1] = {0}, files, calls, without = 0;

    rig_clear(rig);
    PUT(CODE, 0xB8, 7, 0, 0, 0, 0xE6, KICK_PORT, 0xEB, 0xFE); /* mov $7, %eax; out; jmp . */
    assert_int_equal(fail_call_of(try_with_apics, UINT32_MAX, 0), NOTHING_FAILED);
    if (!has_apics) {
        print_message("not run: this host's KVM has no local APICs without the rest\n");
        skip();
    }
    calls = useful;
    files = open_files();
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
        for (unsigned number = 0; number < calls; number++) {
            stages[fail_call_of(try_with_apics, number, errors[i])]++;
            without += !has_apics;
            assert_int_equal(open_files(), files);
        }
    assert_true(without >= 2 * ARRAY_SIZE(errors));
    assert_true(stages[RUN] > 20 * ARRAY_SIZE(errors) / 2);
}

/* The device node is gone or refused: the error says which it is. */
static void test_no_device(void **unused)
{
    static const int errors[] = {ENOENT, EACCES, EPERM, EBUSY, ENOMEM};

    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        struct error err = {0};

        fault.calls = 0;
        fault.fail_at = 1;
        fault.code = errors[i];
        assert_int_equal(try_machine(&err), CREATE);
        assert_int_equal(err.code, errors[i]);
        assert_non_null(strstr(err.text, "/dev/kvm"));
        assert_non_null(strstr(err.text, strerror(errors[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_call, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_each_call_with_apics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_device, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
