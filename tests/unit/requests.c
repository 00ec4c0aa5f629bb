/*
 * Requests reach a vCPU whatever its guest does; what stops the other vCPUs resumes them; and no
 * request is lost or left over.
 */
#include "interp_test.h"

#include "base/util.h"
#include "cpu/core/vcpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE     RIG_FREE
#define DATA     0x20000ULL
#define PORT     0x300u
#define MMIO     0x200000ULL /* of a device, behind the end of RAM */
#define READS    1000u       /* more than that, and nobody looks at requests */
#define WARM_UPS 3           /* after which code is decoded and translated */

/* A device that makes a request at its COUNTDOWNth access. */
static struct {
    unsigned accesses, countdown;
    uint32_t request;
    uint64_t value; /* that reads return, and writes change */
    uint64_t gate;  /* if not 0, the device is an IDT, and this is its gate for #AC */
} device;

static void accessed(void)
{
    if (++device.accesses > READS) {
        fprintf(stderr, "the vCPU has not looked at its requests\n");
        abort();
    }
    if (device.countdown && --device.countdown == 0)
        cpu_port_request(&rig->cpu[0].port, device.request);
}

static uint64_t device_read(void *dev, uint64_t offset, unsigned size)
{
    accessed();
    if (!device.gate)
        return device.value;
    if (offset / 8 == X86_AC)
        return device.gate;
    return (RIG_HANDLERS + offset / 8) | RIG_CODE32 << 16 | 0x8E00ULL << 32;
}

static void device_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    accessed();
    device.value = value;
}

static void expect(unsigned countdown, uint32_t request)
{
    memset(&device, 0, sizeof(device));
    device.countdown = countdown;
    device.request = request;
    atomic_store(&rig->cpu[0].port.requests, 0);
}

static struct safepoint *safe_point(void)
{
    return &((struct core *)rig->engine)->safepoint;
}

static uint64_t get(uint64_t gpa)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 8), 0);
    return value;
}

static int vector_of(const struct x86_cpu *cpu)
{
    return (int)(cpu->reg[X86_RIP] - 1 - RIG_HANDLERS);
}

static void user_segments(struct x86_cpu *cpu, uint16_t code)
{
    for (unsigned i = 0; i < X86_SEGMENTS; i++) {
        uint16_t selector = i == X86_CS ? code : RIG_USER_DATA;

        cpu->seg[i] = rig_segment(selector & 0xFFF8);
        cpu->seg[i].selector = selector;
    }
}

static int setup(void **state)
{
    static const struct bus_ops ops = {device_read, device_write, 8};
    struct error err;

    rig = rig_create(2, 0);
    return rig && bus_claim(rig->machine.bus, BUS_PORT, PORT, 8, "test", &ops, NULL, &err) == 0 &&
                   bus_claim(rig->machine.bus, BUS_MMIO, MMIO, MEM_PAGE_SIZE, "test", &ops, NULL,
                             &err) == 0
               ? 0
               : -1;
}

/* --- Exceptions without end ------------------------------------------------------------------- */

/* #AC goes to level 3, where the stack is misaligned: its delivery raises #AC. The vCPU stays
 * reachable meanwhile, and its state is complete: given to it again, it goes on. */
static void test_exceptions_without_end(void **unused)
{
    const uint64_t handler = CODE + 16;
    struct x86_cpu cpu;

    excuse(rig_is_emulated(), "this one is an emulator, which leaves that out");
    rig_clear(rig);
    PUT(CODE, 0x8B, 0x04, 0x24); /* mov eax, [esp] */
    PUT(handler, 0xF4);          /* hlt, which is #GP */
    rig_state_32(rig, &cpu, CODE);
    user_segments(&cpu, RIG_USER_CODE32);
    cpu.idtr.base = MMIO;
    cpu.cr0 |= X86_CR0_AM;
    cpu.rflags |= X86_FLAG_AC;
    cpu.reg[X86_RSP] = DATA + 0x802;
    for (unsigned i = 0; i < 2; i++) {
        expect(5, CPU_REQ_KICK | CPU_REQ_ENGINE);
        device.gate = (handler & 0xFFFF) | (uint64_t)RIG_USER_CODE32 << 16 | 0xEE00ULL << 32 |
                      handler >> 16 << 48;
        assert_int_equal(run(&cpu), EXIT_KICK);
        assert_int_equal(device.accesses, 5);
        assert_int_equal(rig->cpu[0].port.requests, CPU_REQ_KICK);
        assert_true(cpu.exception.pending);
        assert_int_equal(cpu.exception.vector, X86_AC);
        assert_int_equal(cpu.reg[X86_RIP], CODE);
    }
    atomic_store(&rig->cpu[0].port.requests, 0);
    cpu.reg[X86_RSP] -= 2;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_GP);
    assert_false(cpu.exception.pending);
    assert_int_equal(get(DATA + 0x800 - 16), CODE << 32); /* error code 0, then EIP */
}

/* What an INIT finds half delivered is gone. */
static void test_init_forgets(void **unused)
{
    struct x86_cpu cpu;

    x86_cpu_reset(&cpu);
    cpu.exception = (struct x86_exception){.pending = true, .vector = X86_AC};
    cpu.nmis_pending = 1;
    x86_cpu_init(&cpu);
    assert_false(cpu.exception.pending);
    assert_int_equal(cpu.nmis_pending, 0);
}

/* --- Strings ---------------------------------------------------------------------------------- */

/* Each iteration of a string instruction may keep a device busy for long. */
static void test_strings_of_devices(void **unused)
{
    static const struct {
        uint8_t code[2];
        uint64_t rsi, rdi;
    } strings[] = {
        {{0xF3, 0x6C}, 0, DATA},                             /* rep insb */
        {{0xF3, 0x6E}, DATA, 0},                             /* rep outsb */
        {{0xF3, 0xA4}, MMIO, DATA},                          /* rep movsb */
        {{0xF3, 0xA4}, DATA, MMIO}, {{0xF3, 0xAA}, 0, MMIO}, /* rep stosb */
        {{0xF3, 0xAC}, MMIO, 0},                             /* rep lodsb */
        {{0xF3, 0xA6}, MMIO, DATA},                          /* repe cmpsb */
        {{0xF2, 0xAE}, 0, MMIO},                             /* repne scasb */
    };

    excuse(rig_is_kvm(), "KVM hands over a page at once");
    for (unsigned i = 0; i < ARRAY_SIZE(strings); i++) {
        struct x86_cpu cpu;

        rig_clear(rig);
        rig_map(rig, MMIO, MMIO, 7);
        put(CODE, strings[i].code, 2);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RAX] = 1;
        cpu.reg[X86_RDX] = PORT;
        cpu.reg[X86_RSI] = strings[i].rsi;
        cpu.reg[X86_RDI] = strings[i].rdi;
        cpu.reg[X86_RCX] = 900;
        expect(3, CPU_REQ_KICK);
        assert_int_equal(run(&cpu), EXIT_KICK);
        assert_int_equal(cpu.reg[X86_RCX], 900 - 3);
        assert_int_equal(cpu.reg[X86_RIP], CODE);
    }
}

/* --- Locked accesses -------------------------------------------------------------------------- */

/* Another vCPU, which is asked to a safe point. */
struct other {
    pthread_t thread;
    void (*deed)(void); /* what it does on the way there, or NULL */
    _Atomic bool running, done, asked;
};

static void *run_other(void *opaque)
{
    struct other *other = opaque;
    struct cpu_port *port = &rig->cpu[1].port;

    safepoint_enter(safe_point(), 1);
    atomic_store(&other->running, true);
    while (!other->asked && !atomic_load(&other->done))
        other->asked = atomic_load(&port->requests) & CPU_REQ_ENGINE;
    if (other->asked && other->deed)
        other->deed();
    safepoint_leave(safe_point(), 1);
    return NULL;
}

/* Runs vCPU 0 beside another; returns whether the other was asked to a safe point. */
static bool run_beside(struct x86_cpu *cpu, void (*deed)(void))
{
    struct other other = {.deed = deed};

    atomic_store(&rig->cpu[1].port.requests, 0);
    assert_int_equal(pthread_create(&other.thread, NULL, run_other, &other), 0);
    while (!atomic_load(&other.running))
        ;
    assert_int_equal(run(cpu), EXIT_HALT);
    atomic_store(&other.done, true);
    pthread_join(other.thread, NULL);
    assert_false(safe_point()->stopping);
    assert_int_equal(safe_point()->running, 0);
    return other.asked;
}

#define OPERAND (CODE + 0x800) /* in the page of the code */

/* So often that the page is no longer held to be one of code (block.c: WRITES_KEPT). */
static void rewrite_code(void)
{
    for (unsigned i = 0; i < 32; i++)
        mem_write(rig->machine.mem, CODE, (uint8_t[]){0xF0}, 1);
}

static void map_operand(uint64_t gpa, uint64_t flags)
{
    rig_map(rig, MMIO + 0x1000 + (OPERAND & 0xFFF000), gpa, flags);
}

static void protect(void)
{
    map_operand(OPERAND & ~0xFFFULL, 5);
}

static void unmap(void)
{
    map_operand(0, 0);
}

static void map_device(void)
{
    map_operand(MMIO, 7);
}

/* A locked access to a page of code stops the others. While it waits for them, one of them makes
 * the page something else. */
static void test_changed_while_stopping(void **unused)
{
    static const struct {
        void (*deed)(void);
        int vector; /* or -1 */
        uint64_t value;
    } cases[] = {
        {NULL, -1, 8},      {rewrite_code, -1, 8}, {protect, X86_PF, 7},
        {unmap, X86_PF, 7}, {map_device, -1, 7},
    };

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct x86_cpu cpu;

        rig_clear(rig);
        PUT(CODE, 0xF0, 0xFF, 0x03, 0xF4); /* lock inc dword [rbx]; hlt */
        for (unsigned n = 0; n <= WARM_UPS; n++) {
            map_operand(OPERAND & ~0xFFFULL, 7);
            rig_put64(rig, OPERAND, 7);
            expect(0, 0);
            device.value = 41;
            rig_state_64(rig, &cpu, CODE);
            cpu.reg[X86_RBX] = MMIO + 0x1000 + (OPERAND & 0xFFFFFF);
            if (n < WARM_UPS)
                assert_int_equal(run(&cpu), EXIT_HALT);
            else
                assert_true(run_beside(&cpu, cases[i].deed));
        }
        assert_int_equal(cases[i].vector < 0 ? CODE + 4 : RIG_HANDLERS + X86_PF + 1,
                         cpu.reg[X86_RIP]);
        assert_int_equal(get(OPERAND), cases[i].value);
        assert_int_equal(device.value, cases[i].deed == map_device ? 42 : 41);
    }
}

/* The host executes no locked instruction on an operand in two cache lines: it takes the others to
 * a safe point instead. The result is that of an operand in one line. */
static void test_split_locks(void **unused)
{
    static const struct {
        uint8_t size, length, code[6];
    } locked[] = {
        {4, 3, {0xF0, 0x01, 0x06}},             /* lock add [rsi], eax */
        {8, 4, {0xF0, 0x48, 0x01, 0x06}},       /* lock add [rsi], rax */
        {2, 4, {0x66, 0xF0, 0x29, 0x06}},       /* lock sub [rsi], ax */
        {4, 4, {0xF0, 0x83, 0x16, 0x05}},       /* lock adc dword [rsi], 5 */
        {4, 3, {0xF0, 0xFF, 0x06}},             /* lock inc dword [rsi] */
        {8, 4, {0xF0, 0x48, 0xFF, 0x0E}},       /* lock dec qword [rsi] */
        {4, 3, {0xF0, 0xF7, 0x1E}},             /* lock neg dword [rsi] */
        {4, 3, {0xF0, 0xF7, 0x16}},             /* lock not dword [rsi] */
        {4, 5, {0xF0, 0x0F, 0xBA, 0x2E, 9}},    /* lock bts dword [rsi], 9 */
        {4, 4, {0xF0, 0x0F, 0xAB, 0x0E}},       /* lock bts [rsi], ecx */
        {8, 5, {0xF0, 0x48, 0x0F, 0xBB, 0x0E}}, /* lock btc [rsi], rcx */
        {2, 5, {0x66, 0xF0, 0x0F, 0xB3, 0x0E}}, /* lock btr [rsi], cx */
        {4, 4, {0xF0, 0x0F, 0xC1, 0x06}},       /* lock xadd [rsi], eax */
        {4, 4, {0xF0, 0x0F, 0xB1, 0x16}},       /* lock cmpxchg [rsi], edx: not equal */
        {8, 4, {0xF0, 0x0F, 0xC7, 0x0E}},       /* lock cmpxchg8b [rsi]: equal */
        {4, 2, {0x87, 0x06}},                   /* xchg [rsi], eax */
        {8, 3, {0x48, 0x87, 0x06}},             /* xchg [rsi], rax */
    };

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    rig_clear(rig);
    for (unsigned i = 0; i < ARRAY_SIZE(locked); i++) {
        struct x86_cpu cpu, expected;
        uint64_t value = 0, at = DATA;

        put(CODE + i * 16, locked[i].code, locked[i].length);
        PUT(CODE + i * 16 + locked[i].length, 0xF4);
        for (unsigned n = 0; n <= WARM_UPS; n++) {
            at = n < WARM_UPS ? DATA : DATA + 64 - locked[i].size / 2;
            rig_put64(rig, at, 0x123456789ABCDEF0);
            rig_state_64(rig, &cpu, CODE + i * 16);
            cpu.reg[X86_RAX] = 0x9ABCDEF0;
            cpu.reg[X86_RDX] = 0x12345678;
            cpu.reg[X86_RCX] = 11;
            cpu.reg[X86_RSI] = at;
            if (n == WARM_UPS) {
                assert_true(run_beside(&cpu, NULL));
                break;
            }
            assert_int_equal(run(&cpu), EXIT_HALT);
            expected = cpu;
            value = get(at);
        }
        assert_int_equal(get(at), value);
        expected.reg[X86_RSI] = at;
        assert_memory_equal(cpu.reg, expected.reg, sizeof(cpu.reg));
        assert_int_equal(cpu.rflags, expected.rflags);
    }
}

/* --- NMIs ------------------------------------------------------------------------------------- */

/* Has NMIs handled by CODE + 100h: counts in EBX. */
static void handle_nmis(void)
{
    rig_clear(rig);
    PUT(CODE + 0x100, 0xFF, 0xC3, 0x48, 0xCF); /* inc ebx; iretq */
    PUT(RIG_IDT64 + X86_NMI * 16, (uint8_t)(CODE + 0x100), (CODE + 0x100) >> 8 & 0xFF);
    PUT(RIG_IDT64 + X86_NMI * 16 + 6, (CODE + 0x100) >> 16 & 0xFF);
}

/* One NMI is in service, one is pending; what comes then is lost (SDM volume 3, 6.7.1). */
static void test_nmis_together(void **unused)
{
    for (unsigned i = 0; i < 4 * WARM_UPS; i++) {
        const unsigned together = i % 4;
        struct x86_cpu cpu;

        if (i == 0) {
            handle_nmis();
            PUT(CODE, 0xCC); /* int3 */
        }
        rig_state_64(rig, &cpu, CODE);
        user_segments(&cpu, RIG_USER_CODE64);
        for (unsigned seg = 0; seg < X86_SEGMENTS; seg++)
            if (seg != X86_CS && seg != X86_SS)
                cpu.seg[seg] = (struct x86_seg){.attr = X86_ATTR_UNUSABLE};
        cpu.reg[X86_RSP] = DATA + 0x800;
        expect(0, 0);
        for (unsigned n = 0; n < together; n++)
            cpu_port_request(&rig->cpu[0].port, CPU_REQ_NMI);
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), X86_BP);
        assert_int_equal(cpu.reg[X86_RBX], MIN(together, 2u));
        assert_false(cpu.nmi_blocked);
        assert_int_equal(cpu.nmis_pending, 0);
    }
}

/* A vCPU that halts while NMIs are masked sleeps: no request is left that would wake it. */
static void test_masked_nmi_sleeps(void **unused)
{
    struct x86_cpu cpu;

    handle_nmis();
    PUT(CODE, 0xF4, 0x48, 0xCF); /* hlt; iretq */
    PUT(CODE + 0x80, 0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.nmi_blocked = true;
    expect(0, 0);
    for (unsigned n = 0; n < 3; n++) {
        cpu_port_request(&rig->cpu[0].port, CPU_REQ_NMI);
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(rig->cpu[0].port.requests, 0);
        assert_int_equal(cpu.nmis_pending, 1);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 1);
    }
    /* The pending one follows the IRET. */
    cpu.activity = X86_RUNNING;
    cpu.reg[X86_RSP] = RIG_STACK - 40;
    rig_put64(rig, RIG_STACK - 40, CODE + 0x80);
    rig_put64(rig, RIG_STACK - 32, RIG_CODE64);
    rig_put64(rig, RIG_STACK - 24, X86_FLAG_ONE);
    rig_put64(rig, RIG_STACK - 16, RIG_STACK - 0x100);
    rig_put64(rig, RIG_STACK - 8, RIG_DATA);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 0x81);
    assert_int_equal(cpu.reg[X86_RBX], 1);
    assert_false(cpu.nmi_blocked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exceptions_without_end),
        cmocka_unit_test(test_init_forgets),
        cmocka_unit_test(test_strings_of_devices),
        cmocka_unit_test(test_changed_while_stopping),
        cmocka_unit_test(test_split_locks),
        cmocka_unit_test(test_nmis_together),
        cmocka_unit_test(test_masked_nmi_sleeps),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
