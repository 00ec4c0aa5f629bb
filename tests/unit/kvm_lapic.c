/*
 * Local APICs in KVM: interrupts reach a guest that runs, by message and from the 8259s, and the
 * end of a level-triggered one, and of no other, comes back.
 */
#include "interp_test.h"

#include "cpu/kvm/kvm.h"
#include "cpu/kvm/lapic_page.h"

#include <string.h>

#define CODE      RIG_FREE
#define HANDLER   (RIG_FREE + 0x100)
#define KICK_PORT 0x10
#define LEVEL     0x31
#define EDGE      0x50
#define EXTERNAL  0x60
#define PIN       20
#define MESSAGE   0xFEE00000

/* The board. */
static struct {
    struct local_apics apics;
    unsigned ends, ended, acknowledged;
} board;

static void on_end(void *unused, unsigned vector)
{
    board.ends++;
    board.ended = vector;
}

static unsigned acknowledge(void *unused)
{
    board.acknowledged++;
    board.apics.lint.set(board.apics.lint.opaque, 0, false);
    return EXTERNAL;
}

/* The guest's write to KICK_PORT ends the run. */
static void kick(void *port, uint64_t offset, unsigned size, uint64_t value)
{
    cpu_port_request(port, CPU_REQ_KICK);
}

static uint64_t read_nothing(void *port, uint64_t offset, unsigned size)
{
    return 0;
}

static struct engine *engine;
static struct vcpu *vcpu;
static struct cpu_port port;

static int set_up(void **unused)
{
    static const struct kvm_options options = {.calls = &kvm_host_calls, .apics = KVM_APICS_OWN};
    static const struct bus_ops ops = {read_nothing, kick, 1};
    const struct lapic_board outside = {.eoi = on_end, .acknowledge = acknowledge};
    struct lapic_state state;
    struct error err = {0};

    rig = rig_create(1, 0);
    if (!rig)
        return -1;
    memset(&board, 0, sizeof(board));
    port = (struct cpu_port){.id = 0};
    vcpu = NULL;
    engine = kvm_create_with(&rig->machine, &options, &err);
    if (!engine || kvm_engine.local_apics(engine, &outside, &board.apics, &err) != 0)
        return 0;
    vcpu = kvm_engine.vcpu_create(engine, &port, &err);
    assert_non_null(vcpu);
    assert_int_equal(bus_claim(rig->machine.bus, BUS_PORT, KICK_PORT, 1, "kick", &ops, &port, NULL),
                     0);
    board.apics.firmware_setup(board.apics.opaque);
    board.apics.state_out(board.apics.opaque, 0, &state);
    state.base |= APIC_BASE_X2APIC;
    board.apics.state_in(board.apics.opaque, 0, &state);
    return 0;
}

static int tear_down(void **unused)
{
    kvm_engine.vcpu_destroy(vcpu);
    if (engine)
        kvm_engine.destroy(engine);
    rig_destroy(rig);
    return 0;
}

/* Lets the guest wait for an interrupt with VECTOR, whose handler ends it and then the run. */
static void run_until(uint8_t vector)
{
    const int32_t to = (int32_t)(HANDLER - (RIG_HANDLERS + vector + 5));
    struct x86_cpu cpu;
    enum engine_exit exit;

    if (!vcpu) {
        print_message("not run: this host's KVM has no local APICs without the rest\n");
        skip();
    }
    rig_clear(rig);
    PUT(CODE, 0xFB, 0x90, 0xEB, 0xFD); /* sti; 1: nop; jmp 1b */
    PUT(RIG_HANDLERS + vector, 0xE9, (uint8_t)to, (uint8_t)(to >> 8), (uint8_t)(to >> 16),
        (uint8_t)(to >> 24));
    PUT(HANDLER, 0xB9, 0x0B, 8, 0, 0, /* mov $0x80B, %ecx */
        0x31, 0xC0, 0x31, 0xD2,       /* xor %eax, %eax; xor %edx, %edx */
        0x0F, 0x30,                   /* wrmsr */
        0xB8, vector, 0, 0, 0,        /* mov $vector, %eax */
        0xE6, KICK_PORT, 0xEB, 0xFE); /* out; jmp . */
    rig_state_64(rig, &cpu, CODE);
    kvm_engine.state_in(vcpu, &cpu);
    do {
        atomic_fetch_and(&port.requests, ~(uint32_t)CPU_REQ_KICK);
        exit = kvm_engine.run(vcpu);
        assert_int_equal(exit, EXIT_KICK);
        kvm_engine.state_out(vcpu, &cpu);
    } while (cpu.reg[X86_RAX] != vector);
}

static void send(uint32_t data)
{
    if (vcpu)
        board.apics.msi.send(board.apics.msi.opaque, MESSAGE, data);
}

static void test_level(void **unused)
{
    if (vcpu)
        board.apics.expect(board.apics.opaque, PIN, MESSAGE, 0xC000 | LEVEL);
    send(0xC000 | LEVEL);
    run_until(LEVEL);
    assert_int_equal(board.ends, 1);
    assert_int_equal(board.ended, LEVEL);
}

static void test_edge(void **unused)
{
    send(EDGE);
    run_until(EDGE);
    assert_int_equal(board.ends, 0);
}

static void test_external(void **unused)
{
    if (vcpu)
        board.apics.lint.set(board.apics.lint.opaque, 0, true);
    run_until(EXTERNAL);
    assert_int_equal(board.acknowledged, 1);
    assert_int_equal(board.ends, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_level), TEST(test_edge), TEST(test_external)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
