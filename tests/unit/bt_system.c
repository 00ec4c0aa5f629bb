/*
 * Guests for what the translator inlines of string and sensitive instructions: the fast path, each
 * way off it, and what the state is where one ends in the middle. The interpreter must agree, so
 * the same tests run there.
 */
#include "interp_test.h"

#include "base/util.h"
#include "cpu/bt/switches.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#define CODE RIG_FREE
#define DATA 0x40000ULL /* physical; three pages, mapped at HIGH in another order */
#define HIGH 0x40000000ULL
#define PTE  7u /* present, writable, user */

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

/* The translator with big handlers inlined only after so many exits. */
static int setup_late(unsigned exits)
{
    static struct bt_switches late = {.heat = 1, .region_max = 48, .code_size = 4 * MiB};
    struct cpu_port *port;

    late.inline_after = exits;
    rig = rig_create(1, 0);
    if (!rig)
        return -1;
    port = &rig->cpu[0].port;
    RIG_ENGINE.vcpu_destroy(rig->cpu[0].vcpu);
    RIG_ENGINE.destroy(rig->engine);
    rig->engine = bt_create_with(&rig->machine, &late, NULL);
    rig->cpu[0].vcpu = bt_engine.vcpu_create(rig->engine, port, NULL);
    return rig->cpu[0].vcpu ? 0 : -1;
}

static int setup_at_first_exit(void **state)
{
    return setup_late(1);
}

static int setup_at_fifth_exit(void **state)
{
    return setup_late(5);
}

static uint8_t get(uint64_t gpa)
{
    uint8_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 1), 0);
    return value;
}

static uint64_t get64(uint64_t gpa)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 8), 0);
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

/* --- RFLAGS --- */

/* An interrupt waits while IF is 0. POPF takes it at once, STI and POPF of IF 0 do not. */
static void test_waiting_interrupt(void **unused)
{
    static const struct {
        uint8_t code[6];
        uint64_t flags, taken_at;
    } cases[] = {{{0x53, 0x9D, 0x90, 0x90, 0x90, 0xF4}, X86_FLAG_IF | X86_FLAG_CF, 2},
                 {{0x53, 0x9D, 0x90, 0xFB, 0x90, 0x90}, X86_FLAG_CF, 5},
                 {{0xFB, 0x53, 0x9D, 0x90, 0x90, 0xF4}, X86_FLAG_IF | X86_FLAG_CF, 2}};

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
        for (unsigned early = 0; early < 2; early++) {
            struct x86_cpu cpu;

            prepare();
            put(CODE, cases[i].code, sizeof(cases[i].code)); /* push rbx; popf or sti first */
            PUT(CODE + 6, 0xF4);
            rig->cpu[0].apic.vector = 0x40;
            rig_state_64(rig, &cpu, CODE);
            if (early)
                cpu_port_request(&rig->cpu[0].port, CPU_REQ_INTR);
            cpu.reg[X86_RBX] = cases[i].flags | X86_FLAG_ONE;
            assert_int_equal(run(&cpu), EXIT_HALT);
            assert_int_equal(vector_of(&cpu), 0x40);
            assert_int_equal(get64(cpu.reg[X86_RSP]), CODE + cases[i].taken_at);
            assert_true(get64(cpu.reg[X86_RSP] + 16) & X86_FLAG_IF);
        }
}

/* POPF of each flag, at both levels: what changes, and what follows from it. */
static void test_popf(void **unused)
{
    static const uint64_t bits[] = {
        0,           X86_FLAG_CF, X86_FLAG_PF, X86_FLAG_AF,   X86_FLAG_ZF, X86_FLAG_SF,
        X86_FLAG_OF, X86_FLAG_DF, X86_FLAG_ID, X86_FLAG_IOPL, X86_FLAG_NT, X86_FLAG_AC,
        X86_FLAG_IF, X86_FLAG_TF, X86_FLAG_RF, X86_FLAG_VM,   1ULL << 40};
    const uint64_t never = X86_FLAG_RF | X86_FLAG_VM | 1ULL << 40;

    for (unsigned level = 0; level < 4; level += 3)
        for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
            for (unsigned before = 0; before < 2; before++) {
                uint64_t fixed = level ? X86_FLAG_IF | X86_FLAG_IOPL : 0, expected;
                struct x86_cpu cpu;
                int vector;

                prepare();
                rig->cpu[0].apic.vector = -1;
                PUT(CODE, 0x53, 0x9D, 0x9C, 0x58, 0xF4); /* push rbx; popf; pushf; pop rax; hlt */
                rig_state_64(rig, &cpu, CODE);
                if (level)
                    user(&cpu);
                cpu.rflags |= before ? X86_FLAGS_STATUS : 0;
                cpu.reg[X86_RBX] = bits[i] | X86_FLAG_ONE;
                expected = (bits[i] & ~never & ~fixed) | (cpu.rflags & fixed) | X86_FLAG_ONE;
                assert_int_equal(run(&cpu), EXIT_HALT);
                vector = vector_of(&cpu);
                if (bits[i] == X86_FLAG_TF) {
                    assert_int_equal(vector, X86_DB);
                    assert_int_equal(get64(cpu.reg[X86_RSP]), CODE + 3); /* after PUSHF */
                    continue;
                }
                assert_int_equal(vector, level ? X86_GP : -1);
                assert_int_equal(cpu.reg[X86_RAX], expected);
            }
}

/* --- System calls --- */

#define KERNEL (CODE + 0x1000)

static void system_call_state(struct x86_cpu *cpu)
{
    prepare();
    rig_state_64(rig, cpu, CODE);
    user(cpu);
    cpu->efer |= X86_EFER_SCE;
    cpu->star = (uint64_t)RIG_CODE64 << 32 | (uint64_t)(RIG_USER_CODE64 - 19) << 48;
    cpu->lstar = KERNEL;
    cpu->sfmask = X86_FLAG_IF | X86_FLAG_CF | X86_FLAG_DF | X86_FLAG_AC;
    cpu->rflags |= X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_ID;
}

/* There and back, many times: segments, flags and addresses on both sides. */
static void test_system_call(void **unused)
{
    struct x86_cpu cpu;

    system_call_state(&cpu);
    PUT(CODE, 0x83, 0xF8, 0x64, 0xF9, 0x0F, 0x05); /* 1: cmp eax, 100; stc; syscall */
    PUT(CODE + 6, 0x83, 0xD2, 0, 0x83, 0xF8, 0x64, 0x72, 0xF2, 0xF4); /* adc edx, 0; cmp; jb; hlt */
    /* inc rax; setc bl; mov rsi, cs; mov rdi, ss; mov r8, rcx; mov r9, r11; pushf; pop rbp;
     * mov r15, cr3; sysretq */
    PUT(KERNEL, 0x48, 0xFF, 0xC0, 0x0F, 0x92, 0xC3, 0x8C, 0xCE, 0x8C, 0xD7, 0x49, 0x89, 0xC8);
    PUT(KERNEL + 13, 0x4D, 0x89, 0xD9, 0x9C, 0x5D, 0x41, 0x0F, 0x20, 0xDF, 0x48, 0x0F, 0x07);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_GP); /* of the HLT at level 3 */
    assert_int_equal(get64(cpu.reg[X86_RSP] + 8), CODE + 14);
    assert_int_equal(get64(cpu.reg[X86_RSP] + 16), RIG_USER_CODE64);
    assert_int_equal(get64(cpu.reg[X86_RSP] + 40), RIG_USER_DATA);
    assert_int_equal(cpu.reg[X86_RAX], 100);
    assert_int_equal(cpu.reg[X86_RDX], 100); /* SYSRET brought CF back */
    assert_int_equal(cpu.reg[X86_RBX], 0);
    assert_int_equal(cpu.reg[X86_RSI], RIG_CODE64);
    assert_int_equal(cpu.reg[X86_RDI], RIG_DATA);
    assert_int_equal(cpu.reg[X86_R8], CODE + 6);
    assert_int_equal(cpu.reg[X86_R9] & ~(uint64_t)X86_FLAGS_STATUS,
                     X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_ID | X86_FLAG_ONE);
    assert_true(cpu.reg[X86_R9] & X86_FLAG_CF);
    assert_int_equal(cpu.reg[X86_RBP] & ~(uint64_t)X86_FLAGS_STATUS, X86_FLAG_ID | X86_FLAG_ONE);
    assert_int_equal(cpu.reg[X86_R15], cpu.cr3);
}

/* What stops SYSCALL and SYSRET, and what SYSRET brings about. */
static void test_system_call_ends(void **unused)
{
    enum { DISABLED, FAR_AWAY, STEPPED, INTERRUPTED, NEITHER, CASES };

    for (unsigned i = 0; i < CASES * 2; i++) {
        struct x86_cpu cpu;
        int vector;

        system_call_state(&cpu);
        PUT(CODE, 0x90, 0x0F, 0x05, 0x90, 0x90, 0xF4); /* nop; syscall; nop; nop; hlt */
        /* or r11, rbx; mov rcx, rdx if that is not 0; sysretq */
        PUT(KERNEL, 0x49, 0x09, 0xDB, 0x48, 0x85, 0xD2, 0x48, 0x0F, 0x45, 0xCA, 0x48, 0x0F, 0x07);
        rig->cpu[0].apic.vector = -1;
        switch (i % CASES) {
        case DISABLED: cpu.efer &= ~(uint64_t)X86_EFER_SCE; break;
        case FAR_AWAY: cpu.reg[X86_RDX] = 0x0000800000000000; break;
        case STEPPED: cpu.reg[X86_RBX] = X86_FLAG_TF; break;
        case INTERRUPTED:
            cpu.rflags &= ~(uint64_t)X86_FLAG_IF;
            cpu.reg[X86_RBX] = X86_FLAG_IF;
            rig->cpu[0].apic.vector = 0x41;
            cpu_port_request(&rig->cpu[0].port, CPU_REQ_INTR);
            break;
        default: break;
        }
        assert_int_equal(run(&cpu), EXIT_HALT);
        vector = vector_of(&cpu);
        switch (i % CASES) {
        case DISABLED:
            assert_int_equal(vector, X86_UD);
            assert_int_equal(get64(cpu.reg[X86_RSP]), CODE + 1);
            break;
        case FAR_AWAY:
            assert_int_equal(vector, X86_GP);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 8), KERNEL + 10);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 16), RIG_CODE64);
            break;
        case STEPPED:
            assert_int_equal(vector, X86_DB);
            assert_int_equal(get64(cpu.reg[X86_RSP]), CODE + 3);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 8), RIG_USER_CODE64);
            break;
        case INTERRUPTED:
            assert_int_equal(vector, 0x41);
            assert_int_equal(get64(cpu.reg[X86_RSP]), CODE + 3);
            break;
        default:
            assert_int_equal(vector, X86_GP);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 8), CODE + 5);
        }
    }
}

/* SMAP on and off, AC masked and not: what the kernel may touch. */
static void test_system_call_context(void **unused)
{
    for (unsigned i = 0; i < 4; i++) {
        bool smap = i & 1, ac = i & 2;
        struct x86_cpu cpu;

        system_call_state(&cpu);
        for (uint64_t page = 0; page < RIG_RAM; page += MEM_PAGE_SIZE)
            if (page != DATA && page != CODE && page != CODE - MEM_PAGE_SIZE)
                rig_map(rig, page, page, 3);
        PUT(RIG_IDT64 + X86_PF * 16 + 4, 1); /* IST 1: the stack is the user's */
        rig_put64(rig, RIG_TSS64 + 0x24, RIG_STACK);
        PUT(CODE, 0x0F, 0x05, 0x90, 0xF4);               /* syscall; nop; hlt */
        PUT(KERNEL, 0x48, 0x8B, 0x03, 0x48, 0x0F, 0x07); /* mov rax, [rbx]; sysretq */
        cpu.cr4 |= smap ? X86_CR4_SMAP : 0;
        cpu.rflags |= ac ? X86_FLAG_AC : 0;
        cpu.sfmask &= ~(uint64_t)X86_FLAG_AC;
        cpu.reg[X86_RBX] = DATA;
        cpu.reg[X86_RSP] = CODE;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), smap && !ac ? X86_PF : X86_GP);
    }
}

/* --- IRETQ --- */

/* To level 3, with what makes it more than usual. */
static void test_iret(void **unused)
{
    enum {
        USUAL,
        FAR_AWAY,
        OTHER_STACK,
        NOT_PRESENT,
        SHORT_TABLE,
        NESTED,
        STEPPED,
        INTERRUPTED,
        OLD_DATA,
        ACROSS,
        NO_FRAME,
        CASES
    };

    for (unsigned i = 0; i < CASES * 2; i++) {
        uint64_t frame = i % CASES == ACROSS ? HIGH + 0x0FF0 : HIGH + 0x1100;
        uint64_t flags = X86_FLAG_ONE | X86_FLAG_CF | X86_FLAG_ID | X86_FLAG_DF, at = CODE + 0x800;
        uint64_t words[] = {at, RIG_USER_CODE64 | 0xABCD0000, flags, 0x1234567890, RIG_USER_DATA};
        uint64_t resumes = i < CASES ? 0 : X86_FLAG_RF; /* as after a fault */
        struct x86_cpu cpu;
        int vector;

        system_call_state(&cpu); /* for STAR */
        rig_state_64(rig, &cpu, CODE);
        cpu.star = (uint64_t)(RIG_USER_CODE64 - 19) << 48;
        cpu.seg[X86_ES] = cpu.seg[X86_DS] = cpu.seg[X86_FS] = cpu.seg[X86_GS] =
            (struct x86_seg){.attr = X86_ATTR_UNUSABLE};
        PUT(CODE, 0x90, 0x48, 0xCF);           /* nop; iretq */
        PUT(at, 0x9C, 0x58, 0x8C, 0xD9, 0xF4); /* pushf, which faults, for RSP */
        for (unsigned v = X86_NP; v <= X86_PF; v++)
            PUT(RIG_IDT64 + v * 16 + 4, 1); /* IST 1 */
        rig_put64(rig, RIG_TSS64 + 0x24, RIG_STACK);
        cpu.reg[X86_RSP] = frame;
        rig->cpu[0].apic.vector = -1;
        switch (i % CASES) {
        case FAR_AWAY: words[0] = 0x0000800000000000; break;
        case OTHER_STACK: words[4] = RIG_DATA; break;
        case NOT_PRESENT: PUT(RIG_GDT + (RIG_USER_CODE64 & ~7) + 5, 0x7B); break;
        case SHORT_TABLE: cpu.gdtr.limit = (RIG_USER_CODE64 & ~7) + 6; break;
        case NESTED: cpu.rflags |= X86_FLAG_NT; break;
        case STEPPED:
            words[2] |= X86_FLAG_TF;
            PUT(at, 0x90);
            break;
        case INTERRUPTED:
            words[2] |= X86_FLAG_IF;
            rig->cpu[0].apic.vector = 0x42;
            cpu_port_request(&rig->cpu[0].port, CPU_REQ_INTR);
            break;
        case OLD_DATA:
            cpu.seg[X86_DS] = rig_segment(RIG_DATA);
            PUT(at, 0x8C, 0xD9, 0xF4); /* mov ecx, ds; hlt */
            cpu.reg[X86_RCX] = 7;
            break;
        case NO_FRAME: cpu.reg[X86_RSP] = HIGH + 0x2FF0; break;
        default: break;
        }
        words[2] |= resumes;
        for (unsigned n = 0; n < ARRAY_SIZE(words); n++)
            for (unsigned byte = 0; byte < 8; byte++) {
                static const uint64_t page[] = {DATA + 0x1000, DATA, DATA + 0x2000};
                uint64_t offset = frame - HIGH + n * 8 + byte;

                PUT(page[offset >> 12] + (offset & 0xFFF), (uint8_t)(words[n] >> byte * 8));
            }
        assert_int_equal(run(&cpu), EXIT_HALT);
        vector = vector_of(&cpu);
        switch (i % CASES) {
        case USUAL:
        case ACROSS:
            assert_int_equal(vector, X86_PF);
            assert_int_equal(cpu.cr2, 0x1234567890 - 8);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 8), at);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 16), RIG_USER_CODE64);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 24), flags | X86_FLAG_RF);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 32), 0x1234567890);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 40), RIG_USER_DATA);
            break;
        case STEPPED:
            assert_int_equal(vector, X86_DB);
            assert_int_equal(get64(cpu.reg[X86_RSP]), at + 1);
            break;
        case INTERRUPTED:
            assert_int_equal(vector, 0x42);
            assert_int_equal(get64(cpu.reg[X86_RSP]), at);
            break;
        case OLD_DATA:
            assert_int_equal(vector, X86_GP);
            assert_int_equal(cpu.reg[X86_RCX], 0);
            break;
        default:
            assert_int_equal(vector, i % CASES == NO_FRAME      ? X86_PF
                                     : i % CASES == NOT_PRESENT ? X86_NP
                                                                : X86_GP);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 8), CODE + 1);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 16), RIG_CODE64);
        }
    }
}

/* --- The others --- */

/* Bits far from the operand: each instruction, both widths, both directions, with and without LOCK;
 * then on a page that is not there. */
static void test_bit_strings(void **unused)
{
    static const int64_t bits[] = {0, 31, 64, 200, -1, -500, 0x1000 * 8, -0x1000 * 8 + 3, 0x7FFF};

    for (unsigned op = 0; op < 4; op++) /* BT, BTS, BTR, BTC */
        for (unsigned form = 0; form < 4; form++)
            for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
                bool wide = form & 1, lock = form & 2 && op;
                uint64_t at = HIGH + 0x1010 + (uint64_t)(bits[i] >> 3);
                uint8_t mask = (uint8_t)(1u << (bits[i] & 7)), was, is;
                struct x86_cpu cpu;

                prepare();
                was = high(at - HIGH);
                /* lock; bt... [rbx + rsi * 2 + 16], rax; setc dl; hlt */
                PUT(CODE, lock ? 0xF0 : 0x90, wide ? 0x48 : 0x40, 0x0F, 0xA3 + 8 * op, 0x44, 0x73,
                    0x10, 0x0F, 0x92, 0xC2, 0xF4);
                rig_state_64(rig, &cpu, CODE);
                cpu.reg[X86_RBX] = HIGH + 0x0800;
                cpu.reg[X86_RSI] = 0x0400;
                cpu.reg[X86_RAX] = (uint64_t)bits[i];
                if (!wide)
                    cpu.reg[X86_RAX] = (uint32_t)bits[i] | 0x1234567800000000;
                assert_int_equal(run(&cpu), EXIT_HALT);
                assert_int_equal(vector_of(&cpu), -1);
                assert_int_equal(cpu.reg[X86_RDX], !!(was & mask));
                is = high(at - HIGH);
                assert_int_equal(is, op == 0   ? was
                                     : op == 1 ? was | mask
                                     : op == 2 ? was & ~mask
                                               : was ^ mask);
                assert_int_equal(high(at - HIGH + 1),
                                 (uint8_t)(high(at - HIGH) - is + high(at - HIGH + 1)));
            }
    for (unsigned i = 0; i < 2; i++) {
        struct x86_cpu cpu;

        prepare();
        rig_map(rig, HIGH + 0x2000, DATA, i ? 1 : 0); /* read-only, or not there */
        PUT(CODE, 0x48, 0x0F, 0xAB, 0x03, 0xF4);      /* bts [rbx], rax; hlt */
        rig_state_64(rig, &cpu, CODE);
        cpu.cr0 |= X86_CR0_WP;
        cpu.reg[X86_RBX] = HIGH + 0x1008;
        cpu.reg[X86_RAX] = 0x1000 * 8 + 5;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), X86_PF);
        assert_int_equal(cpu.cr2, HIGH + 0x2008);
        assert_int_equal(get64(cpu.reg[X86_RSP]), i ? 3 : 2);
        assert_int_equal(get64(cpu.reg[X86_RSP] + 8), CODE);
    }
}

static void test_bases(void **unused)
{
    for (unsigned i = 0; i < 4; i++) {
        struct x86_cpu cpu;

        prepare();
        /* wrfsbase rbx; wrgsbase ecx; mov rax, fs:[0]; rdgsbase rdx; rdfsbase esi; hlt */
        PUT(CODE, 0xF3, 0x48, 0x0F, 0xAE, 0xD3, 0xF3, 0x0F, 0xAE, 0xD9, 0x64, 0x48, 0x8B, 0x04,
            0x25, 0, 0, 0, 0, 0xF3, 0x48, 0x0F, 0xAE, 0xCA, 0xF3, 0x0F, 0xAE, 0xC6, 0xF4);
        rig_put64(rig, DATA, 0x1122334455667788);
        rig_state_64(rig, &cpu, CODE);
        if (i & 2)
            user(&cpu);
        cpu.cr4 |= X86_CR4_FSGSBASE;
        if (i == 1)
            cpu.cr4 &= ~(uint64_t)X86_CR4_FSGSBASE;
        cpu.reg[X86_RBX] = i == 3 ? 0x0000800000000000 : HIGH + 0x1000;
        cpu.reg[X86_RCX] = 0xFFFFFFFF87654321;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), i == 1 ? X86_UD : i ? X86_GP : -1);
        if (i & 1) {
            assert_int_equal(get64(cpu.reg[X86_RSP] + (i == 3 ? 8 : 0)), CODE);
            continue;
        }
        assert_int_equal(cpu.reg[X86_RAX], 0x1122334455667788);
        assert_int_equal(cpu.reg[X86_RDX], 0x87654321);
        assert_int_equal(cpu.reg[X86_RSI], (uint32_t)(HIGH + 0x1000));
        assert_int_equal(cpu.seg[X86_FS].base, HIGH + 0x1000);
    }
}

/* Out of CR0, CR2, CR3, CR4 and segments, from both levels. */
static void test_registers(void **unused)
{
    for (unsigned level = 0; level < 4; level += 3) {
        struct x86_cpu cpu;

        prepare();
        /* mov [r8], ss; mov eax, ss; mov rbx, cr0; mov rcx, cr2; mov rdx, cr3; mov rsi, cr4;
         * mov di, ds; hlt */
        PUT(CODE, 0x41, 0x8C, 0x10, 0x8C, 0xD0, 0x0F, 0x20, 0xC3, 0x0F, 0x20, 0xD1, 0x0F, 0x20,
            0xDA, 0x0F, 0x20, 0xE6, 0x66, 0x8C, 0xDF, 0xF4);
        rig_state_64(rig, &cpu, CODE);
        if (level)
            user(&cpu);
        cpu.cr2 = 0x123456789ABC;
        cpu.reg[X86_R8] = HIGH + 0x0FFF; /* across pages */
        cpu.reg[X86_RAX] = cpu.reg[X86_RBX] = cpu.reg[X86_RDI] = ~0ULL;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], level ? RIG_USER_DATA : RIG_DATA);
        assert_int_equal(high(0x0FFF), cpu.reg[X86_RAX]);
        assert_int_equal(high(0x1000), 0);
        if (level) {
            assert_int_equal(vector_of(&cpu), X86_GP);
            assert_int_equal(get64(cpu.reg[X86_RSP] + 8), CODE + 5);
            continue;
        }
        assert_int_equal(cpu.reg[X86_RBX], cpu.cr0);
        assert_int_equal(cpu.reg[X86_RCX], 0x123456789ABC);
        assert_int_equal(cpu.reg[X86_RDX], cpu.cr3);
        assert_int_equal(cpu.reg[X86_RSI], cpu.cr4);
        assert_int_equal(cpu.reg[X86_RDI], 0xFFFFFFFFFFFF0000 | cpu.seg[X86_DS].selector);
    }
}

/* LOOP and JRCXZ, ahead and back, with flags that live across them. */
static void test_counted_branches(void **unused)
{
    for (uint64_t count = 0; count < 4; count++) {
        struct x86_cpu cpu;

        prepare();
        /* stc; jrcxz 2f; 1: adc eax, 0; inc ebx; stc; loop 1b; adc edx, 0; 2: sbb esi, esi; hlt */
        PUT(CODE, 0xF9, 0xE3, 0x0B, 0x83, 0xD0, 0, 0xFF, 0xC3, 0xF9, 0xE2, 0xF8, 0x83, 0xD2, 0,
            0x19, 0xF6, 0xF4);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RCX] = count;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), -1);
        assert_int_equal(cpu.reg[X86_RCX], 0);
        assert_int_equal(cpu.reg[X86_RAX], count);
        assert_int_equal(cpu.reg[X86_RBX], count);
        assert_int_equal(cpu.reg[X86_RDX], count ? 1 : 0);
        assert_int_equal((uint32_t)cpu.reg[X86_RSI], count ? 0 : 0xFFFFFFFF);
    }
}

/* --- What is inlined where it is frequent --- */

/* Three such instructions in a loop: each is translated again once, and nothing shows of it. */
static void test_inlined_when_frequent(void **unused)
{
    struct x86_cpu cpu;

    prepare();
    /* 1: mov rdi, rbx; mov ecx, 100; stc; rep stosb; adc rdx, 0; bts [rbx], rsi; adc r8, 0;
     * push 3; popf; adc r9, 0; inc rsi; dec rbp; jnz 1b; hlt */
    PUT(CODE, 0x48, 0x89, 0xDF, 0xB9, 100, 0, 0, 0, 0xF9, 0xF3, 0xAA, 0x48, 0x83, 0xD2, 0);
    PUT(CODE + 15, 0x48, 0x0F, 0xAB, 0x33, 0x49, 0x83, 0xD0, 0, 0x6A, 3, 0x9D, 0x49, 0x83, 0xD1, 0,
        0x48, 0xFF, 0xC6, 0x48, 0xFF, 0xCD, 0x75, 0xDA, 0xF4);
    for (unsigned round = 0; round < 2; round++) {
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = HIGH + 0x0FF0;
        cpu.reg[X86_RSI] = 790; /* a few bits in what is filled, and behind it */
        cpu.reg[X86_RBP] = 64;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 39);
        assert_int_equal(cpu.reg[X86_RDX], 64);
        assert_int_equal(cpu.reg[X86_R9], 64);
        assert_int_equal(high(0x0FF0 + 99), 0);
        assert_int_equal(high(0x0FF0 + 101), 0xFF);
        assert_int_equal(rig_count(rig, "work", "retranslations"), 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_across_pages),
        cmocka_unit_test(test_overlap_by_alias),
        cmocka_unit_test(test_fault_in_the_middle),
        cmocka_unit_test(test_direction),
        cmocka_unit_test(test_overwrites_itself),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_request_in_the_middle),
        cmocka_unit_test(test_time_stamps),
        cmocka_unit_test(test_time_stamp_disable),
        cmocka_unit_test(test_waiting_interrupt),
        cmocka_unit_test(test_popf),
        cmocka_unit_test(test_system_call),
        cmocka_unit_test(test_system_call_ends),
        cmocka_unit_test(test_system_call_context),
        cmocka_unit_test(test_iret),
        cmocka_unit_test(test_bit_strings),
        cmocka_unit_test(test_bases),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_counted_branches),
    };

    const struct CMUnitTest late[] = {cmocka_unit_test(test_inlined_when_frequent)};

    return cmocka_run_group_tests(tests, setup, teardown) +
           cmocka_run_group_tests(tests, setup_at_first_exit, teardown) +
           cmocka_run_group_tests(late, setup_at_fifth_exit, teardown);
}
