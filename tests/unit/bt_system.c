/*
 * Guests for what the translator inlines of string and sensitive instructions: the fast path, each
 * way off it, and what the state is where one ends in the middle. The interpreter must agree, so
 * the same tests run there.
 */
#include "test.h"

#include "base/util.h"
#include "interp_rig.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#define CODE RIG_FREE
#define DATA 0x40000ULL /* physical; three pages, mapped at HIGH in another order */
#define HIGH 0x40000000ULL
#define PTE  7u /* present, writable, user */

static struct rig *rig;

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

static int teardown(void **state)
{
    rig_destroy(rig);
    return 0;
}

static enum engine_exit run(struct x86_cpu *cpu)
{
    enum engine_exit exit;

    RIG_ENGINE.state_in(rig->cpu[0].vcpu, cpu);
    exit = RIG_ENGINE.run(rig->cpu[0].vcpu);
    RIG_ENGINE.state_out(rig->cpu[0].vcpu, cpu);
    return exit;
}

static void put(uint64_t gpa, const void *bytes, size_t size)
{
    assert_int_equal(mem_write(rig->machine.mem, gpa, bytes, size), 0);
}

#define PUT(gpa, ...)                                                                              \
    put(gpa, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static uint8_t get(uint64_t gpa)
{
    uint8_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 1), 0);
    return value;
}

/* The vector whose handler halted, or -1 where the code itself did. */
static int vector_of(const struct x86_cpu *cpu)
{
    uint64_t at = cpu->reg[X86_RIP] - 1 - RIG_HANDLERS;

    return at < 256 ? (int)at : -1;
}

/* Three pages at HIGH, the middle one lowest in memory; bytes count up in each. */
static void prepare(void)
{
    rig_clear(rig);
    rig_map(rig, HIGH, DATA + 0x1000, PTE);
    rig_map(rig, HIGH + 0x1000, DATA, PTE);
    rig_map(rig, HIGH + 0x2000, DATA + 0x2000, PTE);
    for (unsigned i = 0; i < 0x3000; i++)
        PUT(DATA + i, (uint8_t)(i * 7 + (i >> 8)));
}

static uint8_t high(uint64_t offset)
{
    static const uint64_t page[] = {DATA + 0x1000, DATA, DATA + 0x2000};

    return get(page[offset >> 12] + (offset & 0xFFF));
}

static void user(struct x86_cpu *cpu)
{
    cpu->seg[X86_CS] = rig_segment(RIG_USER_CODE64);
    cpu->seg[X86_SS] = rig_segment(RIG_USER_DATA);
}

/* --- Strings --- */

/* Copies across pages, with every width and by what divides neither page nor element. */
static void test_across_pages(void **unused)
{
    static const struct {
        uint8_t size, code[3], width;
    } forms[] = {{2, {0xF3, 0xA4}, 1},
                 {3, {0x66, 0xF3, 0xA5}, 2},
                 {2, {0xF3, 0xA5}, 4},
                 {3, {0xF3, 0x48, 0xA5}, 8},
                 {2, {0xF2, 0xA4}, 1}}; /* REPNE repeats, too */
    static uint8_t before[0x3000];

    for (unsigned f = 0; f < ARRAY_SIZE(forms); f++) {
        uint64_t bytes = 0x1100 / forms[f].width * forms[f].width;
        struct x86_cpu cpu;

        prepare();
        for (unsigned i = 0; i < sizeof(before); i++)
            before[i] = high(i);
        put(CODE, forms[f].code, forms[f].size);
        PUT(CODE + forms[f].size, 0xF4);
        rig_state_64(rig, &cpu, CODE);
        cpu.rflags |= X86_FLAG_CF | X86_FLAG_ZF;
        cpu.reg[X86_RSI] = HIGH + 0x0A03;
        cpu.reg[X86_RDI] = HIGH + 0x1DF5;
        cpu.reg[X86_RCX] = bytes / forms[f].width;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RCX], 0);
        assert_int_equal(cpu.reg[X86_RSI], HIGH + 0x0A03 + bytes);
        assert_int_equal(cpu.reg[X86_RDI], HIGH + 0x1DF5 + bytes);
        assert_int_equal(cpu.rflags & X86_FLAGS_STATUS, X86_FLAG_CF | X86_FLAG_ZF);
        for (unsigned i = 0; i < sizeof(before); i++)
            assert_int_equal(high(i), i - 0x1DF5 < bytes ? before[i - 0x1DF5 + 0x0A03] : before[i]);
    }
}

/* Two addresses of one page: what is copied to the one is read again at the other. */
static void test_overlap_by_alias(void **unused)
{
    struct x86_cpu cpu;

    prepare();
    rig_map(rig, HIGH + 0x3000, DATA, PTE);
    PUT(CODE, 0xF3, 0xA4, 0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RSI] = HIGH + 0x1010;
    cpu.reg[X86_RDI] = HIGH + 0x3013; /* 3 ahead: a pattern of 3 */
    cpu.reg[X86_RCX] = 300;
    assert_int_equal(run(&cpu), EXIT_HALT);
    for (unsigned i = 0; i < 303; i++)
        assert_int_equal(get(DATA + 0x10 + i), (uint8_t)((0x10 + i % 3) * 7));
}

/* The third page is missing: so many elements are done, and the fault is at the instruction. Then
 * the same with one element that lies across the edge. */
static void test_fault_in_the_middle(void **unused)
{
    for (unsigned across = 0; across < 2; across++) {
        struct x86_cpu cpu;

        prepare();
        rig_map(rig, HIGH + 0x2000, DATA, 0);
        PUT(CODE, 0x90, 0xF3, 0x48, 0xAB, 0xF4); /* nop; rep stosq; hlt */
        rig_state_64(rig, &cpu, CODE);
        user(&cpu);
        cpu.reg[X86_RAX] = 0x1111111111111111;
        cpu.reg[X86_RDI] = HIGH + 0x0FF0 - across;
        cpu.reg[X86_RCX] = 1000;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), X86_PF);
        assert_int_equal(cpu.cr2, HIGH + 0x2000);
        assert_int_equal(cpu.reg[X86_RDI], HIGH + 0x2000 - (across ? 1 : 0));
        assert_int_equal(cpu.reg[X86_RCX], 1000 - 514);
        assert_int_equal(high(0x1FFF - across), 0x11);
        assert_int_equal(high(0x0FEF - across), (uint8_t)((0x1FEF - across) * 7 + 0x1F));
    }
}

/* Downwards. */
static void test_direction(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned i = 0; i < 2; i++) {
        prepare();
        PUT(CODE, 0xFD, 0xF3, 0xAA, 0xAA, 0xF4); /* std; rep stosb; stosb; hlt */
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RAX] = 0x5A;
        cpu.reg[X86_RDI] = HIGH + 0x1004;
        cpu.reg[X86_RCX] = 9;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RDI], HIGH + 0x1004 - 10);
        assert_int_equal(high(0x1004), 0x5A);
        assert_int_equal(high(0x0FFB), 0x5A);
        assert_int_not_equal(high(0x0FFA), 0x5A);
        assert_int_not_equal(high(0x1005), 0x5A);
    }
}

/* Overwrites what comes next in its own page. */
static void test_overwrites_itself(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned round = 0; round < 3; round++) {
        prepare();
        /* rep stosb; mov eax, 1; hlt: all but the hlt becomes NOPs */
        PUT(CODE, 0xF3, 0xAA, 0xB8, 1, 0, 0, 0, 0xF4);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RAX] = 0x90;
        cpu.reg[X86_RDI] = CODE + 2;
        cpu.reg[X86_RCX] = 5;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], 0x90);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 8);
    }
}

/* The single forms, one after the other. */
static void test_single(void **unused)
{
    struct x86_cpu cpu;

    prepare();
    /* movsb; movsq; lodsd; stosw; cmpsb; pushf; scasb; hlt */
    PUT(CODE, 0xA4, 0x48, 0xA5, 0xAD, 0x66, 0xAB, 0xA6, 0x9C, 0xAE, 0xF4);
    rig_put64(rig, DATA, 0x1122334455667788);
    rig_put64(rig, DATA + 8, 0x99AABBCCDDEEFF00);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RAX] = ~0ULL;
    cpu.reg[X86_RSI] = DATA;
    cpu.reg[X86_RDI] = HIGH + 0x0FFB;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), -1);
    assert_int_equal(cpu.reg[X86_RSI], DATA + 1 + 8 + 4 + 1);
    assert_int_equal(cpu.reg[X86_RDI], HIGH + 0x0FFB + 1 + 8 + 2 + 1 + 1);
    for (unsigned i = 0; i < 5; i++) /* to the edge; behind it stands DATA itself */
        assert_int_equal(high(0x0FFB + i), (uint8_t)(0x1122334455667788 >> i * 8));
    assert_int_equal(cpu.reg[X86_RAX] >> 32, 0);
    assert_int_equal(get(DATA + 4), (uint8_t)cpu.reg[X86_RAX]);
    assert_int_equal(get(DATA + 5), (uint8_t)(cpu.reg[X86_RAX] >> 8));
}

struct kicker {
    struct cpu_port *port;
    unsigned us;
};

static void *kick(void *opaque)
{
    const struct kicker *k = opaque;

    usleep(k->us);
    cpu_port_request(k->port, CPU_REQ_KICK);
    return NULL;
}

/* A request comes in sooner or later in the middle; registers and memory show how far it got. */
static void test_request_in_the_middle(void **unused)
{
    unsigned inside = 0;

    for (unsigned i = 0; i < 20; i++) {
        struct kicker k = {&rig->cpu[0].port, 1000 + 37 * i};
        struct x86_cpu cpu;
        pthread_t thread;

        prepare();
        /* 1: mov rdi, rbx; mov ecx, 0x3000; rep stosb; inc al; jmp 1b */
        PUT(CODE, 0x48, 0x89, 0xDF, 0xB9, 0, 0x30, 0, 0, 0xF3, 0xAA, 0xFE, 0xC0, 0xEB, 0xF2);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = HIGH;
        assert_int_equal(pthread_create(&thread, NULL, kick, &k), 0);
        assert_int_equal(run(&cpu), EXIT_KICK);
        assert_int_equal(pthread_join(thread, NULL), 0);
        rig->cpu[0].port.requests = 0;
        if (cpu.reg[X86_RIP] != CODE + 8)
            continue;
        inside += cpu.reg[X86_RCX] != 0x3000;
        assert_int_equal(cpu.reg[X86_RDI] + cpu.reg[X86_RCX], HIGH + 0x3000);
        if (cpu.reg[X86_RDI] > HIGH)
            assert_int_equal(high(cpu.reg[X86_RDI] - HIGH - 1), (uint8_t)cpu.reg[X86_RAX]);
        if (cpu.reg[X86_RCX] && cpu.reg[X86_RAX])
            assert_int_equal(high(cpu.reg[X86_RDI] - HIGH), (uint8_t)(cpu.reg[X86_RAX] - 1));
    }
    assert_int_not_equal(inside, 0);
}

/* --- Time --- */

static void test_time_stamps(void **unused)
{
    const uint64_t ahead = 1ULL << 52;
    struct x86_cpu cpu;
    uint64_t before, after, one, two;

    prepare();
    /* rdtsc; mov rbx, rax; mov rsi, rdx; mov ecx, -1 (64 bits); rdtscp; hlt */
    PUT(CODE, 0x0F, 0x31, 0x48, 0x89, 0xC3, 0x48, 0x89, 0xD6, 0x48, 0x83, 0xC9, 0xFF, 0x0F, 0x01,
        0xF9, 0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.rflags |= X86_FLAG_CF;
    cpu.tsc_aux = 0x1234;
    cpu.tsc_adjust = ahead;
    cpu.reg[X86_RAX] = cpu.reg[X86_RDX] = ~0ULL;
    before = clock_tsc(rig->machine.clock) + ahead;
    assert_int_equal(run(&cpu), EXIT_HALT);
    after = clock_tsc(rig->machine.clock) + ahead;
    one = cpu.reg[X86_RSI] << 32 | cpu.reg[X86_RBX];
    two = cpu.reg[X86_RDX] << 32 | cpu.reg[X86_RAX];
    assert_int_equal(
        (cpu.reg[X86_RSI] | cpu.reg[X86_RBX] | cpu.reg[X86_RDX] | cpu.reg[X86_RAX]) >> 32, 0);
    assert_true(before <= one && one <= two && two <= after);
    assert_int_equal(cpu.reg[X86_RCX], 0x1234);
}

static void test_time_stamp_disable(void **unused)
{
    static const uint8_t code[2][4] = {{0x0F, 0x31, 0xF4}, {0x0F, 0x01, 0xF9, 0xF4}};

    for (unsigned i = 0; i < 8; i++) {
        bool level3 = i & 2, disabled = i & 4;
        struct x86_cpu cpu;

        prepare();
        put(CODE, code[i & 1], sizeof(code[0]));
        rig_state_64(rig, &cpu, CODE);
        if (level3)
            user(&cpu);
        if (disabled)
            cpu.cr4 |= X86_CR4_TSD;
        cpu.reg[X86_RDX] = ~0ULL;
        assert_int_equal(run(&cpu), EXIT_HALT);
        if (level3) /* HLT faults there, too, but behind it */
            assert_int_equal(vector_of(&cpu), X86_GP);
        assert_int_equal(cpu.reg[X86_RDX] == ~0ULL, level3 && disabled);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_across_pages),          cmocka_unit_test(test_overlap_by_alias),
        cmocka_unit_test(test_fault_in_the_middle),   cmocka_unit_test(test_direction),
        cmocka_unit_test(test_overwrites_itself),     cmocka_unit_test(test_single),
        cmocka_unit_test(test_request_in_the_middle), cmocka_unit_test(test_time_stamps),
        cmocka_unit_test(test_time_stamp_disable),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
