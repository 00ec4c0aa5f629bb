/*
 * The interpreter where guests of their own cannot easily look: its caches of decoded code, thunks
 * and address spaces, the engine's functions, and corners of exception delivery.
 */
#include "interp_test.h"

#include "base/util.h"
#include "cpu/interp/interp.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define CODE RIG_FREE
#define PTE  7u /* present, writable, user */

/* And not the translator in front of it. */
static bool is_interp(void)
{
    return strcmp(RIG_ENGINE.name, "interp") == 0;
}

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

static uint64_t get(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, size), 0);
    return value;
}

/* Runs 64-bit code at RIP to a HLT of its own and returns RAX. */
static uint64_t result_64(uint64_t rip)
{
    struct x86_cpu cpu;

    rig_state_64(rig, &cpu, rip);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_true(cpu.reg[X86_RIP] < RIG_HANDLERS || cpu.reg[X86_RIP] > RIG_HANDLERS + 256);
    return cpu.reg[X86_RAX];
}

/* The vector whose handler halted. */
static int vector_of(const struct x86_cpu *cpu)
{
    return (int)(cpu->reg[X86_RIP] - 1 - RIG_HANDLERS);
}

static uint64_t instructions(void)
{
    return rig_count(rig, "run", "instructions");
}

static uint64_t forgotten(enum forget_cause cause)
{
    return rig_count(rig, "forgotten", forget_cause_name[cause]);
}

/* --- Code that changes --- */

/* MOV EAX, 0; HLT, whose operand the instruction before it changes to 2Ah. */
static void test_modifies_next(void **unused)
{
    static const struct {
        uint8_t size, code[24];
    } ways[] = {
        {7, {0xC6, 0x05, 1, 0, 0, 0, 0x2A}},       /* mov byte [rip+1], 2Ah */
        {8, {0xF0, 0x80, 0x0D, 1, 0, 0, 0, 0x2A}}, /* lock or byte [rip+1], 2Ah */
        {7, {0x80, 0x05, 1, 0, 0, 0, 0x2A}},       /* add byte [rip+1], 2Ah */
        /* mov ecx, 1; lea rdi, [rip+5]; mov al, 2Ah; rep stosb */
        {16, {0xB9, 1, 0, 0, 0, 0x48, 0x8D, 0x3D, 5, 0, 0, 0, 0xB0, 0x2A, 0xF3, 0xAA}},
        /* push 2Ah; pop [rip+1]: eight bytes, HLT is the fifth */
        {16, {0x48, 0xB8, 0x2A, 0, 0, 0, 0xF4, 0, 0, 0, 0x50, 0x8F, 0x05, 1, 0, 0}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        rig_clear(rig);
        put(CODE, ways[i].code, ways[i].size);
        if (ways[i].code[0] == 0x48) /* the displacement's last byte */
            PUT(CODE + ways[i].size, 0, 0xB8, 0, 0, 0, 0, 0xF4);
        else
            PUT(CODE + ways[i].size, 0xB8, 0, 0, 0, 0, 0xF4);
        assert_int_equal(result_64(CODE), 0x2A);
    }
}

/* A store of 16 bytes goes through a buffer; it replaces the rest of its block. */
static void test_modifies_rest(void **unused)
{
    static const uint8_t rest[16] = {0xB8, 0x2A, 0, 0, 0, 0xF4};
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x0F, 0x11, 0x05, 0, 0, 0, 0); /* movups [rip], xmm0 */
    for (unsigned i = 7; i < 40; i++)
        PUT(CODE + i, 0x90);
    PUT(CODE + 40, 0xF4);
    rig_state_64(rig, &cpu, CODE);
    memcpy(cpu.xsave + X86_XSAVE_XMM, rest, sizeof(rest));
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RAX], 0x2A);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 7 + 6);
}

/* What a device writes. */
static void test_written_from_outside(void **unused)
{
    rig_clear(rig);
    PUT(CODE, 0xB8, 1, 0, 0, 0, 0xF4);
    assert_int_equal(result_64(CODE), 1);
    PUT(CODE + 1, 2);
    assert_int_equal(result_64(CODE), 2);
}

/* An instruction across two pages whose second half changes; reached directly, and from another
 * that lies across two pages. */
static void test_straddling(void **unused)
{
    const uint64_t a = CODE + 0xFFD, b = CODE + 0x2FFD;

    rig_clear(rig);
    PUT(a, 0xE9, 0xFB, 0x1F, 0, 0); /* jmp b */
    PUT(b, 0xB8, 1, 0, 0, 0, 0xF4); /* mov eax, 1; hlt */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(result_64(b), 1);
        assert_int_equal(result_64(a), 1);
    }
    PUT(b + 3, 2);
    assert_int_equal(result_64(a), 0x20001);
    PUT(b + 3, 3);
    assert_int_equal(result_64(b), 0x30001);
    PUT(b + 1, 2);
    assert_int_equal(result_64(a), 0x30002);
}

/* A page at two addresses: a jump to the next page is one to itself at the first, and to another at
 * the second. */
static void test_jump_between_aliases(void **unused)
{
    const uint64_t v = 0x40000000, u = 0x40100000, p = CODE, q = CODE + 0x1000;

    rig_clear(rig);
    rig_map(rig, v, p, PTE);
    rig_map(rig, v + 0x1000, p, PTE);
    rig_map(rig, u, p, PTE);
    rig_map(rig, u + 0x1000, q, PTE);
    PUT(p, 0xE9, 0xFB, 0x10, 0, 0); /* jmp $+1100h */
    PUT(p + 0x100, 0xB8, 1, 0, 0, 0, 0xF4);
    PUT(q + 0x100, 0xB8, 2, 0, 0, 0, 0xF4);
    assert_int_equal(result_64(v), 1);
    assert_int_equal(result_64(u), 2);
    assert_int_equal(result_64(v), 1);
}

/* Identifiers of address spaces are used again after a while, what they stood for is not. */
static void test_address_space_identifiers(void **unused)
{
    const uint64_t v = 0x40000000, p = CODE, q = CODE + 0x1000;
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(p, 0xB8, 1, 0, 0, 0, 0xF4);
    PUT(q, 0xB8, 2, 0, 0, 0, 0xF4);
    for (unsigned more = 4090; more < 4100; more++) {
        rig_map(rig, v, p, PTE);
        assert_int_equal(result_64(v), 1);
        rig_map(rig, v, q, PTE);
        rig_state_64(rig, &cpu, v);
        for (unsigned i = 0; i < more; i++)
            RIG_ENGINE.state_in(rig->cpu[0].vcpu, &cpu);
        assert_int_equal(result_64(v), 2);
    }
}

/* The same where the guest itself changes a page's translation and then loads CR3 that often. */
static void test_many_cr3_loads(void **unused)
{
    const uint64_t v = 0x40000000, p = CODE + 0x1000, q = CODE + 0x2000;
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(p, 0xB8, 1, 0, 0, 0, 0xC3);
    PUT(q, 0xB8, 2, 0, 0, 0, 0xC3);
    /* call rbx; mov esi, eax; mov [rdi], r8; mov r9, cr3; 1: mov cr3, r9; dec ecx; jnz 1b;
     * call rbx; hlt */
    PUT(CODE, 0xFF, 0xD3, 0x89, 0xC6, 0x4C, 0x89, 0x07, 0x41, 0x0F, 0x20, 0xD9, 0x41, 0x0F, 0x22,
        0xD9, 0xFF, 0xC9, 0x75, 0xF8, 0xFF, 0xD3, 0xF4);
    rig_map(rig, v, p, PTE);
    for (unsigned loads = 4090; loads < 4100; loads++) {
        rig_map(rig, v, p, PTE);
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = v;
        cpu.reg[X86_RCX] = loads;
        cpu.reg[X86_RDI] = rig->next_table - MEM_PAGE_SIZE; /* the last table was made for V */
        cpu.reg[X86_R8] = q | PTE;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 22);
        assert_int_equal(cpu.reg[X86_RSI], 1);
        assert_int_equal(cpu.reg[X86_RAX], 2);
    }
}

/* Blocks that do not fit at once. */
static void test_small_arena(void **unused)
{
    enum { BLOCKS = 40, ROUNDS = 50 };
    struct rig *usual = rig;
    struct x86_cpu cpu;

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    for (unsigned bits = 32; bits <= 64; bits += 32) {
        rig = rig_create(1, 4096);
        assert_non_null(rig);
        for (unsigned i = 0; i < BLOCKS; i++)
            PUT(CODE + i * 5, 0xFF, 0xC0, 0xEB, 0x01, 0xF4); /* inc eax; jmp over hlt */
        /* dec ecx; jnz CODE; hlt */
        PUT(CODE + BLOCKS * 5, 0xFF, 0xC9, 0x0F, 0x85, 0x30, 0xFF, 0xFF, 0xFF, 0xF4);
        (bits == 32 ? rig_state_32 : rig_state_64)(rig, &cpu, CODE);
        cpu.reg[X86_RCX] = ROUNDS;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RAX], BLOCKS * ROUNDS);
        assert_int_equal(cpu.reg[X86_RIP], CODE + BLOCKS * 5 + 9);
        if (is_interp()) /* a translation needs no decoding again */
            assert_true(rig_count(rig, "work", "blocks-decoded") > BLOCKS * 2);
        assert_int_equal(instructions(), ROUNDS * (BLOCKS * 2 + 2) + 1);
        rig_destroy(rig);
    }
    rig = usual;
}

/* Fills the memory for thunks with VSHUFPS of three registers and, in what is left, PSHUFD of two.
 */
static void exhaust_thunks(struct thunk_cache *thunks)
{
    struct x86_insn insn;

    for (unsigned n = 0, full = 0; full < 2; n++) {
        uint8_t vshufps[] = {0xC5, (uint8_t)(0x04 | (n >> 8 & 15) << 3 | (n >> 18 & 1) << 7), 0xC6,
                             (uint8_t)(0xC0 | (n >> 12 & 63)), (uint8_t)n};
        uint8_t pshufd[] = {0x66, 0x0F, 0x70, (uint8_t)(0xC0 | (n >> 8 & 63)), (uint8_t)n};

        assert_int_equal(x86_decode(X86_CODE64, false, full ? pshufd : vshufps, 5, &insn), 5);
        full += !thunk_get(thunks, &insn);
        assert_true(n < 1u << 20);
    }
}

/* Room for thunks is made while a block is decoded that has one already. */
static void test_thunks_exhausted(void **unused)
{
    struct thunk_cache *thunks = interp_of((struct core *)rig->engine)->thunks;
    uint32_t low[3];
    struct x86_cpu cpu;

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    rig_clear(rig);
    /* paddd xmm0, xmm1; hlt */
    PUT(CODE, 0x66, 0x0F, 0xFE, 0xC1, 0xF4);
    /* paddd xmm0, xmm1; psubd xmm2, xmm1; jmp; paddd xmm0, xmm1; hlt */
    PUT(CODE + 16, 0x66, 0x0F, 0xFE, 0xC1, 0x66, 0x0F, 0xFA, 0xD1, 0xEB, 0, 0x66, 0x0F, 0xFE, 0xC1,
        0xF4);
    rig_state_64(rig, &cpu, CODE);
    assert_int_equal(run(&cpu), EXIT_HALT);
    exhaust_thunks(thunks);
    rig_state_64(rig, &cpu, CODE + 16);
    for (unsigned i = 0; i < 3; i++)
        memcpy(cpu.xsave + X86_XSAVE_XMM + i * 16, &(uint32_t){10 * (i + 1)}, 4);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 16 + 15);
    for (unsigned i = 0; i < 3; i++)
        memcpy(&low[i], cpu.xsave + X86_XSAVE_XMM + i * 16, 4);
    assert_int_equal(low[0], 10 + 20 + 20);
    assert_int_equal(low[2], 30 - 20);
    assert_false(thunk_cache_full(thunks));
}

/* --- Several vCPUs --- */

static void *run_second(void *unused)
{
    return (void *)(intptr_t)RIG_ENGINE.run(rig->cpu[1].vcpu);
}

/* The first changes the operand of an instruction, then says so; the second executes it. */
static void test_code_of_another(void **unused)
{
    enum { ROUNDS = 300, FLAG = 0x40000, ACK = 0x40040, OTHER = 0x20000 };
    struct rig *usual = rig;
    struct x86_cpu cpu;
    pthread_t thread;
    void *exit;

    rig = rig_create(2, 0);
    assert_non_null(rig);
    /* inc ecx; mov [OTHER+15], ecx; mov [FLAG], ecx;
     * wait: pause; cmp [ACK], ecx; jne wait; cmp ecx, ROUNDS; jne; hlt */
    PUT(CODE, 0x41, 0x89, 0x0D, 0x0F, 0, 2, 0, 0x89, 0x0D, 0, 0, 4, 0, 0xF3, 0x90, 0x39, 0x0D, 0x40,
        0, 4, 0, 0x75, 0xF6, 0x81, 0xF9, ROUNDS & 255, ROUNDS >> 8, 0, 0, 0x75, 0xE1, 0xF4);
    /* wait: pause; mov ebx, [FLAG]; cmp ebx, edx; je wait; mov edx, ebx; mov eax, 0; cmp eax, ebx;
     * jne out; mov [ACK], ebx; cmp ebx, ROUNDS; jne wait; hlt; out: inc esi; hlt */
    PUT(OTHER, 0xF3, 0x90, 0x8B, 0x1D, 0, 0, 4, 0, 0x39, 0xD3, 0x74, 0xF4, 0x89, 0xDA, 0xB8, 0, 0,
        0, 0, 0x39, 0xD8, 0x75, 0x0F, 0x89, 0x1D, 0x40, 0, 4, 0, 0x81, 0xFB, ROUNDS & 255,
        ROUNDS >> 8, 0, 0, 0x75, 0xDB, 0xF4, 0x46, 0xF4);
    rig_state_32(rig, &cpu, OTHER);
    RIG_ENGINE.state_in(rig->cpu[1].vcpu, &cpu);
    assert_int_equal(pthread_create(&thread, NULL, run_second, NULL), 0);
    rig_state_32(rig, &cpu, CODE);
    RIG_ENGINE.state_in(rig->cpu[0].vcpu, &cpu);
    alarm(60); /* should the second give up, the first waits in vain */
    assert_int_equal(RIG_ENGINE.run(rig->cpu[0].vcpu), EXIT_HALT);
    pthread_join(thread, &exit);
    alarm(0);
    assert_int_equal((intptr_t)exit, EXIT_HALT);
    RIG_ENGINE.state_out(rig->cpu[1].vcpu, &cpu);
    assert_int_equal(cpu.reg[X86_RSI], 0);
    assert_int_equal(cpu.reg[X86_RBX], ROUNDS);
    rig_destroy(rig);
    rig = usual;
}

/* Both count up one operand that lies across two pages. */
static void test_split_lock(void **unused)
{
    enum { ROUNDS = 2000, WHERE = 0x40FFE };
    struct rig *usual = rig;
    struct x86_cpu cpu;
    pthread_t thread;
    void *exit;

    excuse(rig_is_emulated(), "this one is an emulator, which leaves that out");
    rig = rig_create(2, 0);
    assert_non_null(rig);
    /* lock inc dword [WHERE]; dec ecx; jnz; hlt */
    PUT(CODE, 0xF0, 0xFF, 0x05, 0xFE, 0x0F, 4, 0, 0x49, 0x75, 0xF6, 0xF4);
    rig_state_32(rig, &cpu, CODE);
    cpu.reg[X86_RCX] = ROUNDS;
    RIG_ENGINE.state_in(rig->cpu[0].vcpu, &cpu);
    RIG_ENGINE.state_in(rig->cpu[1].vcpu, &cpu);
    assert_int_equal(pthread_create(&thread, NULL, run_second, NULL), 0);
    assert_int_equal(RIG_ENGINE.run(rig->cpu[0].vcpu), EXIT_HALT);
    pthread_join(thread, &exit);
    assert_int_equal((intptr_t)exit, EXIT_HALT);
    assert_int_equal(get(WHERE, 4), ROUNDS * 2);
    rig_destroy(rig);
    rig = usual;
}

/* One runs thunks while the other needs room for its own, also within an instruction that waits for
 * all others to stand still. */
static void test_thunks_renewed(void **unused)
{
    enum { FLAG = 0x40000, SPLIT = 0x40FFE, OTHER = 0x20000 };
    struct rig *usual = rig;
    struct x86_cpu cpu;
    pthread_t thread;
    uint32_t sum;
    void *exit;

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    rig = rig_create(2, 0);
    assert_non_null(rig);
    /* lock inc dword [SPLIT]; paddd xmm0, xmm1; inc ecx; cmp byte [FLAG], 0; je; hlt */
    PUT(OTHER, 0xF0, 0xFF, 0x05, 0xFE, 0x0F, 4, 0, 0x66, 0x0F, 0xFE, 0xC1, 0x41, 0x80, 0x3D, 0, 0,
        4, 0, 0, 0x74, 0xEB, 0xF4);
    PUT(CODE, 0x66, 0x0F, 0xFA, 0xD1, 0xF4); /* psubd xmm2, xmm1; hlt */
    rig_state_32(rig, &cpu, OTHER);
    memcpy(cpu.xsave + X86_XSAVE_XMM + 16, &(uint32_t){1}, 4);
    RIG_ENGINE.state_in(rig->cpu[1].vcpu, &cpu);
    assert_int_equal(pthread_create(&thread, NULL, run_second, NULL), 0);
    exhaust_thunks(interp_of((struct core *)rig->engine)->thunks);
    rig_state_32(rig, &cpu, CODE);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 5);
    PUT(FLAG, 1);
    pthread_join(thread, &exit);
    assert_int_equal((intptr_t)exit, EXIT_HALT);
    RIG_ENGINE.state_out(rig->cpu[1].vcpu, &cpu);
    assert_int_equal(cpu.reg[X86_RIP], OTHER + 22);
    memcpy(&sum, cpu.xsave + X86_XSAVE_XMM, 4);
    assert_int_equal(sum, cpu.reg[X86_RCX]);
    assert_int_equal(get(SPLIT, 4), sum);
    rig_destroy(rig);
    rig = usual;
}

/* --- The engine's functions --- */

static void test_state_round_trip(void **unused)
{
    static struct x86_cpu in, out;

    memset(&in, 0, sizeof(in));
    rig_state_64(rig, &in, 0x123456789);
    for (unsigned i = 0; i < X86_GPRS; i++)
        in.reg[i] = 0x0101010101010101 * (i + 1);
    in.rflags = X86_FLAG_ONE | X86_FLAGS_STATUS | X86_FLAG_DF | X86_FLAG_ID;
    for (unsigned i = 0; i < sizeof(in.xsave); i++)
        in.xsave[i] = (uint8_t)(i * 7);
    in.lstar = 0xFFFF800000001234;
    in.dr[2] = 0x1000;
    in.kernel_gs_base = 0x1234;
    in.seg[X86_GS].base = 0xFFFF888800000000;
    in.nmi_blocked = true;
    in.physical_bits = rig->machine.model.physical_bits;
    RIG_ENGINE.state_in(rig->cpu[0].vcpu, &in);
    RIG_ENGINE.state_out(rig->cpu[0].vcpu, &out);
    assert_memory_equal(&in, &out, sizeof(in));
}

static void test_history(void **unused)
{
    struct x86_cpu cpu;
    char text[4096];

    if (!is_interp()) /* which alone notes every block */
        skip();
    rig_clear(rig);
    PUT(CODE, 0x89, 0xC8, 0xEB, 0x10);        /* mov eax, ecx; jmp */
    PUT(CODE + 0x14, 0x31, 0xD2, 0x0F, 0x0B); /* xor edx, edx; ud2 */
    rig_state_64(rig, &cpu, CODE);
    cpu.idtr.limit = 0;
    assert_int_equal(run(&cpu), EXIT_SHUTDOWN);
    assert_int_equal(cpu.activity, X86_SHUTDOWN);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 0x16);
    RIG_ENGINE.history(rig->cpu[0].vcpu, text, sizeof(text));
    assert_non_null(strstr(text, "0000000000010000  89 c8"));
    assert_non_null(strstr(text, "mov eax, ecx"));
    assert_non_null(strstr(text, "xor edx, edx"));
    assert_null(strstr(text, "jmp"));             /* only how earlier blocks began */
    for (unsigned size = 1; size < 200; size++) { /* never beyond the buffer */
        memset(text, 0x55, sizeof(text));
        RIG_ENGINE.history(rig->cpu[0].vcpu, text, size);
        assert_non_null(memchr(text, 0, size));
        assert_int_equal(text[size], 0x55);
    }
}

/* Executed instructions are counted, faulting ones are not. */
static void test_counts(void **unused)
{
    uint64_t before;
    struct x86_cpu cpu;

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    rig_clear(rig);
    PUT(CODE, 0xFF, 0xC0, 0xFF, 0xC0, 0x0F, 0xAB, 0x03, 0x90, 0x90); /* bts [rbx], eax */
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RBX] = 0x40000000;
    before = instructions();
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_PF);
    assert_int_equal(instructions() - before, 2 + 1);
    assert_true(rig_exits(rig, CAUSE_PAGE_FAULT) > 0);
    /* Where the operand is not the one in the instruction. */
    PUT(CODE, 0x40, 0x40, 0x0F, 0xA3, 0x07); /* inc ax; inc ax; bt [bx], ax */
    rig_state_real(rig, &cpu, 0);
    cpu.seg[X86_CS].base = CODE;
    cpu.reg[X86_RBX] = 0xFFFF;
    before = instructions();
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_GP);
    assert_int_equal(instructions() - before, 2 + 1);
}

/* What a measured run is made of. */
struct measured {
    uint64_t exits[CAUSE_COUNT], exit_ns[CAUSE_COUNT], guest_ns, run_ns;
    uint64_t sum_ns; /* of all causes and the guest */
};

static struct measured measured(void)
{
    struct measured m = {.guest_ns = rig_counter(rig, "run", "guest").ns,
                         .run_ns = rig_counter(rig, "run", "run").ns};

    m.sum_ns = m.guest_ns;
    for (unsigned i = 0; i < CAUSE_COUNT; i++) {
        struct engine_counter exits = rig_counter(rig, "exits", exit_cause_name[i]);

        m.exits[i] = exits.count;
        m.exit_ns[i] = exits.ns;
        m.sum_ns += exits.ns;
    }
    return m;
}

/* All time inside run() is put down to something, once; exits are counted by what caused them. */
static void test_measures(void **unused)
{
    enum { ROUNDS = 50000 };
    struct measured before, after;
    struct x86_cpu cpu;

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    rig_clear(rig);
    PUT(CODE, 0xE6, 0x80, 0x0F, 0xA2, 0xFF, 0xCE, 0x75, 0xF8); /* 1: out; cpuid; dec esi; jnz 1b */
    PUT(CODE + 8, 0x8B, 0x04, 0x25, 0, 0, 0, 0x40);            /* mov eax, [40000000h] */
    before = measured();
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RSI] = ROUNDS;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_PF);
    after = measured();
    assert_int_equal(after.exits[CAUSE_PORT] - before.exits[CAUSE_PORT], ROUNDS);
    assert_int_equal(after.exits[CAUSE_CPUID] - before.exits[CAUSE_CPUID], ROUNDS);
    assert_int_equal(after.exits[CAUSE_PAGE_FAULT] - before.exits[CAUSE_PAGE_FAULT], 1);
    assert_true(after.exit_ns[CAUSE_PORT] > before.exit_ns[CAUSE_PORT]);
    assert_true(after.exit_ns[CAUSE_CPUID] > before.exit_ns[CAUSE_CPUID]);
    assert_true(after.exit_ns[CAUSE_PAGE_FAULT] > before.exit_ns[CAUSE_PAGE_FAULT]);
    assert_true(after.guest_ns > before.guest_ns);
    assert_in_range(after.sum_ns - before.sum_ns, (after.run_ns - before.run_ns) / 10 * 7,
                    (after.run_ns - before.run_ns) / 10 * 11);
    if (is_interp()) {
        assert_int_equal(after.exits[CAUSE_INSTRUCTION], 0);
        return;
    }
    assert_true(after.exits[CAUSE_TRANSLATION] > before.exits[CAUSE_TRANSLATION]);
    assert_in_range(rig_count(rig, "interpreted", "cpuid"), 1, ROUNDS);
    assert_true(rig_counter(rig, "interpreted", "cpuid").ns > 0);
    assert_int_equal(rig_count(rig, "interpreted", "rsm"), 0);
}

/* What was forgotten is put down to its cause. */
static void test_forgets(void **unused)
{
    uint64_t written, mapping;
    struct x86_cpu cpu;

    excuse(rig_is_kvm(), "it is about how the interpreter does it");
    rig_clear(rig);
    PUT(CODE, 0xC6, 0x05, 1, 0, 0, 0, 0x2A);      /* mov byte [rip+1], 2Ah */
    PUT(CODE + 7, 0xB8, 0, 0, 0, 0);              /* mov eax, 0 */
    PUT(CODE + 12, 0x0F, 0x01, 0x3C, 0x24, 0xF4); /* invlpg [rsp]; hlt */
    written = forgotten(FORGET_WRITTEN);
    mapping = forgotten(FORGET_MAPPING);
    rig_state_64(rig, &cpu, CODE);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(forgotten(FORGET_WRITTEN) - written, 1);
    assert_int_equal(forgotten(FORGET_MAPPING) - mapping, 1);
}

/* The APIC counts in the clock's TSC; the guest may have moved its own. */
static void test_tsc_deadline(void **unused)
{
    struct rig_apic *apic = &rig->cpu[0].apic;
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x0F, 0x30, 0x0F, 0x32, 0xF4); /* wrmsr; rdmsr; hlt */
    rig_state_64(rig, &cpu, CODE);
    cpu.tsc_adjust = 0x1000;
    cpu.reg[X86_RCX] = 0x6E0;
    cpu.reg[X86_RAX] = 0x5000;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(apic->msr, 0x6E0);
    assert_int_equal(apic->msr_value, 0x4000);
    assert_int_equal(cpu.reg[X86_RAX], 0x5000);
    rig_state_64(rig, &cpu, CODE);
    cpu.tsc_adjust = 0x1000;
    cpu.reg[X86_RCX] = 0x6E0;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(apic->msr_value, 0); /* disarmed */
    assert_int_equal(cpu.reg[X86_RAX], 0);
}

/* --- Exceptions --- */

static void test_nmi_blocking(void **unused)
{
    struct x86_cpu cpu;

    excuse(rig_is_emulated(), "this one is an emulator, which leaves that out");
    rig_clear(rig);
    PUT(CODE, 0x48, 0xCF); /* iretq */
    /* From a frame that names no code segment. */
    rig_state_64(rig, &cpu, CODE);
    cpu.nmi_blocked = true;
    cpu.reg[X86_RSP] = 0x50000;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_GP);
    assert_false(cpu.nmi_blocked);
    /* To an IDT that ends before the NMI's gate, and has those for what follows from that. */
    PUT(RIG_IDT64 + X86_NMI * 16 + 5, 0);
    rig_state_64(rig, &cpu, CODE);
    atomic_fetch_or(&rig->cpu[0].port.requests, CPU_REQ_NMI);
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_GP);
    assert_true(cpu.nmi_blocked);
}

static void test_debug_exceptions(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0xF4, 0x90);
    /* HLT is stepped over, too. */
    rig_state_64(rig, &cpu, CODE);
    cpu.rflags |= X86_FLAG_TF;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_DB);
    assert_int_equal(get(RIG_STACK - 40, 8), CODE + 1);
    /* The handler may use the debug registers. */
    rig_state_64(rig, &cpu, CODE);
    cpu.dr7 |= 1u << 13;
    cpu.rflags |= X86_FLAG_TF;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(vector_of(&cpu), X86_DB);
    assert_int_equal(cpu.dr7, X86_DR7_RESET);
}

/* An armed breakpoint that code does not concern leaves its accesses to the software TLB, and the
 * code to the translator. */
static void test_breakpoints_elsewhere(void **unused)
{
    enum { ROUNDS = 20000 };
    static const struct {
        uint64_t address, dr7;
    } armed[] = {{0x50000, 0xD0001}, {CODE + 0x1000, 1}};
    uint64_t misses, translations;
    struct x86_cpu cpu;

    for (unsigned i = 0; i < ARRAY_SIZE(armed); i++) {
        rig_clear(rig);
        PUT(CODE, 0x89, 0x0B, 0xFF, 0xC9, 0x75, 0xFA, 0xF4); /* mov [rbx], ecx; dec ecx; jnz; hlt */
        rig_state_64(rig, &cpu, CODE);
        cpu.reg[X86_RBX] = 0x40000;
        cpu.reg[X86_RCX] = ROUNDS;
        cpu.dr[0] = armed[i].address;
        cpu.dr7 |= armed[i].dr7;
        misses = rig_exits(rig, CAUSE_TLB_MISS);
        translations = rig_count(rig, "work", "translations");
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(cpu.reg[X86_RIP], CODE + 7);
        assert_true(rig_exits(rig, CAUSE_TLB_MISS) - misses < 100);
        if (RIG_ENGINE.name[0] == 'b')
            assert_true(rig_count(rig, "work", "translations") > translations);
    }
}

/* A stack that the TSS names and that has no room is named in the error code. The handler of #SS
 * is conforming, so that it needs no other stack. */
static void test_inner_stack_too_small(void **unused)
{
    enum { CONFORMING = RIG_CODE16, USER_STACK = 0x60000 };
    const uint64_t small = RIG_TSS + 16; /* 16 bytes from 0 */
    struct x86_cpu cpu;

    excuse(rig_is_emulated(), "this one is an emulator, which leaves that out");
    rig_clear(rig);
    PUT(CODE, 0xCC); /* int3 */
    rig_put64(rig, RIG_GDT + CONFORMING, 0x00CF9F000000FFFF);
    rig_put64(rig, RIG_GDT + small, 0x004093000000000F);
    rig_put64(rig, RIG_TSS32 + 4, 0x10 | small << 32);
    rig_put64(rig, RIG_IDT32 + X86_SS_FAULT * 8,
              RIG_HANDLERS | (uint64_t)CONFORMING << 16 | 0x8E00ULL << 32);
    rig_state_32(rig, &cpu, CODE);
    cpu.gdtr.limit += 8;
    cpu.seg[X86_CS] = rig_segment(RIG_USER_CODE32 & ~3u);
    cpu.seg[X86_CS].selector |= 3;
    cpu.seg[X86_SS] = rig_segment(RIG_USER_DATA & ~3u);
    cpu.seg[X86_SS].selector |= 3;
    cpu.reg[X86_RSP] = USER_STACK;
    run(&cpu); /* HLT is privileged, so all ends in shutdown */
    assert_int_equal(get(USER_STACK - 16, 4), small);
}

/* --- Single instructions --- */

static void test_lgdt_64(void **unused)
{
    struct x86_cpu cpu;

    rig_clear(rig);
    PUT(CODE, 0x66, 0x0F, 0x01, 0x13, 0xF4); /* data16 lgdt [rbx]; hlt */
    PUT(0x40000, 0x57, 0, 0, 0xC0, 0, 0x45, 0, 0, 0, 0);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RBX] = 0x40000;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.gdtr.limit, 0x57);
    assert_int_equal(cpu.gdtr.base, 0x4500C000);
}

/* SMAP leaves a stack in a user's page alone while AC is set, also for far transfers. */
static void test_far_return_under_smap(void **unused)
{
    const uint64_t frame[] = {CODE + 0x20, RIG_CODE64};
    struct x86_cpu cpu;

    rig_clear(rig);
    rig_map(rig, RIG_GDT, RIG_GDT, PTE & ~4u); /* the tables' accesses are not explicit */
    PUT(CODE, 0x48, 0xCB);                     /* retfq */
    PUT(CODE + 0x20, 0xF4);
    put(0x50000, frame, sizeof(frame));
    rig_state_64(rig, &cpu, CODE);
    cpu.cr4 |= X86_CR4_SMAP;
    cpu.rflags |= X86_FLAG_AC;
    cpu.reg[X86_RSP] = 0x50000;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 0x21);
}

/* An access across 4 GiB is beyond the limit, whether its segment is known to be flat or looked at.
 */
static void test_wrap_at_4_gib(void **unused)
{
    static const uint8_t prefix[] = {0x3E, 0x2E, 0x64, 0x36}; /* DS, CS, FS, SS */
    struct x86_cpu cpu;

    excuse(rig_is_emulated(), "this one is an emulator, which leaves that out");
    for (unsigned i = 0; i < ARRAY_SIZE(prefix); i++) {
        for (unsigned size = 1; size <= 4; size += 3) {
            rig_clear(rig);
            PUT(CODE, prefix[i], size == 1 ? 0x8A : 0x8B, 0x03, 0xF4); /* mov eax or al, [ebx] */
            rig_state_32(rig, &cpu, CODE);
            cpu.reg[X86_RBX] = 0xFFFFFFFE;
            assert_int_equal(run(&cpu), EXIT_HALT);
            if (size == 1)
                assert_int_equal(cpu.reg[X86_RIP], CODE + 4);
            else
                assert_int_equal(vector_of(&cpu), prefix[i] == 0x36 ? X86_SS_FAULT : X86_GP);
        }
    }
}

/* Strings are moved page by page where that shows nothing. */
static void test_strings(void **unused)
{
    static const struct {
        uint8_t code[4];
        uint32_t limit, rcx, left;
        int vector;
    } cases[] = {
        {{0xF3, 0xA4, 0xF4}, 0xFFFFFFFF, 0x1234, 0, -1},
        {{0xF3, 0x64, 0xA4, 0xF4}, 0xFFFFFFFF, 0x1234, 0, -1}, /* FS: */
        {{0xF3, 0x64, 0xA4, 0xF4}, 0x20010, 0x20, 0x20 - 0x11, X86_GP},
        {{0xF3, 0x64, 0xA5, 0xF4}, 0x20010, 0x20, 0x20 - 4, X86_GP},
    };
    static uint8_t bytes[0x1300];
    struct x86_cpu cpu;

    excuse(rig_is_emulated(), "this one is an emulator, which leaves that out");
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 17 + i / 256);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t size = cases[i].code[2] == 0xA5 ? 4 : 1, done = cases[i].rcx - cases[i].left;

        rig_clear(rig);
        put(CODE, cases[i].code, sizeof(cases[i].code));
        put(0x20000, bytes, sizeof(bytes));
        rig_state_32(rig, &cpu, CODE);
        cpu.seg[X86_FS].limit = cases[i].limit;
        cpu.reg[X86_RCX] = cases[i].rcx;
        cpu.reg[X86_RSI] = 0x20000;
        cpu.reg[X86_RDI] = 0x30001;
        assert_int_equal(run(&cpu), EXIT_HALT);
        if (cases[i].vector >= 0)
            assert_int_equal(vector_of(&cpu), cases[i].vector);
        assert_int_equal(cpu.reg[X86_RCX], cases[i].left);
        assert_int_equal(cpu.reg[X86_RSI], 0x20000 + done * size);
        assert_int_equal(cpu.reg[X86_RDI], 0x30001 + done * size);
        assert_memory_equal((uint8_t *)mem_peek(rig->machine.mem, 0x30) + 1, bytes, done * size);
        assert_int_equal(get(0x30001 + done * size, 1), 0);
    }
    /* A segment that is not flat, in 64-bit code with addresses of 32 bits: RSI wraps, the linear
     * address does not. */
    rig_clear(rig);
    PUT(CODE, 0x67, 0xF3, 0x64, 0xA4, 0xF4);
    rig_map(rig, 0x100000000, 0x20000, PTE);
    put(0x20000, "abcdefgh", 8);
    put(0x804, "ABCD", 4);
    rig_state_64(rig, &cpu, CODE);
    cpu.seg[X86_FS].base = 0x804;
    cpu.reg[X86_RCX] = 6;
    cpu.reg[X86_RSI] = 0xFFFFFFFD; /* 100000801h */
    put(0x20801, "xyz", 3);
    cpu.reg[X86_RDI] = 0x30000;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_memory_equal(mem_peek(rig->machine.mem, 0x30), "xyzABC", 6);
    assert_int_equal(cpu.reg[X86_RSI], 3);
}

/* A register of a device that counts what happens to it. */
static struct device {
    uint64_t value;
    unsigned reads, writes;
    bool unmaps; /* reading takes it out of the page tables */
} device;

static uint64_t device_read(void *dev, uint64_t offset, unsigned size)
{
    device.reads++;
    if (device.unmaps)
        rig_map(rig, MEM_VGA_START, 0, 0);
    return device.value;
}

static void device_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    device.writes++;
    device.value = value;
}

static void add_device(uint64_t value)
{
    static const struct bus_ops ops = {device_read, device_write, 8};

    rig_clear(rig);
    device = (struct device){.value = value};
    assert_int_equal(
        bus_claim(rig->machine.bus, BUS_MMIO, MEM_VGA_START, 8, "register", &ops, &device, NULL),
        0);
}

static void remove_device(void)
{
    bus_release(rig->machine.bus, BUS_MMIO, MEM_VGA_START);
}

static void test_locked_mmio(void **unused)
{
    struct x86_cpu cpu;

    add_device(100);
    PUT(CODE, 0xF0, 0x0F, 0xC1, 0x0B, 0xF0, 0xFF, 0x03, 0xF4); /* lock xadd, inc dword [ebx] */
    rig_state_32(rig, &cpu, CODE);
    cpu.reg[X86_RBX] = MEM_VGA_START;
    cpu.reg[X86_RCX] = 5;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(device.value, 106);
    assert_int_equal(cpu.reg[X86_RCX], 100);
    assert_int_equal(device.reads, 2);
    assert_int_equal(device.writes, 2);
    remove_device();
}

/* An operand is translated once: an instruction that has set flags does not fault any more. */
static void test_unmapped_between(void **unused)
{
    struct x86_cpu cpu;

    excuse(rig_is_kvm(), "KVM translates the operand for each access");
    add_device(100);
    device.unmaps = true;
    PUT(CODE, 0xF9, 0x11, 0x0B, 0xF4); /* stc; adc [rbx], ecx */
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RBX] = MEM_VGA_START;
    cpu.reg[X86_RCX] = 5;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 4);
    assert_int_equal(device.value, 106);
    assert_int_equal(device.reads, 1);
    assert_int_equal(device.writes, 1);
    remove_device();
}

/* With a breakpoint armed, an instruction that writes to ROM begins anew as a step: before it has
 * popped the x87's stack. */
static void test_pop_to_rom(void **unused)
{
    const struct mem_region_config config = {
        .name = "rom", .gpa = MEM_VGA_START, .kind = MEM_ROM, .size = MEM_PAGE_SIZE};
    struct mem_region *rom;
    struct x86_cpu cpu;

    rig_clear(rig);
    rom = mem_region_add(rig->machine.mem, &config, NULL);
    assert_non_null(rom);
    /* fninit; fldz; fld1; fstp dword [rbx]; fnstsw ax */
    PUT(CODE, 0xDB, 0xE3, 0xD9, 0xEE, 0xD9, 0xE8, 0xD9, 0x1B, 0xDF, 0xE0, 0xF4);
    rig_state_64(rig, &cpu, CODE);
    cpu.reg[X86_RBX] = MEM_VGA_START;
    cpu.dr[0] = 0x40000; /* not in this code, which would be executed in steps */
    cpu.dr7 |= 1;
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_RIP], CODE + 11);
    assert_int_equal(cpu.reg[X86_RAX] & 0x3800, 7 << 11);
    mem_region_remove(rom);
}

/* Returning to virtual-8086 mode checks EIP against the limit of 64 KiB. */
static void test_iret_to_v86(void **unused)
{
    struct x86_cpu cpu;

    for (unsigned beyond = 0; beyond < 2; beyond++) {
        const uint32_t frame[] = {(beyond ? 0x10000 : 0) + 0x20,
                                  0x1000,
                                  X86_FLAG_VM | X86_FLAG_ONE,
                                  0x1000,
                                  0x2000,
                                  0,
                                  0,
                                  0,
                                  0};

        rig_clear(rig);
        PUT(CODE, 0xCF); /* iret */
        PUT(CODE + 0x20, 0x0F, 0x0B);
        put(0x50000, frame, sizeof(frame));
        rig_state_32(rig, &cpu, CODE);
        cpu.reg[X86_RSP] = 0x50000;
        assert_int_equal(run(&cpu), EXIT_HALT);
        assert_int_equal(vector_of(&cpu), beyond ? X86_GP : X86_UD);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modifies_next),
        cmocka_unit_test(test_modifies_rest),
        cmocka_unit_test(test_written_from_outside),
        cmocka_unit_test(test_straddling),
        cmocka_unit_test(test_jump_between_aliases),
        cmocka_unit_test(test_address_space_identifiers),
        cmocka_unit_test(test_many_cr3_loads),
        cmocka_unit_test(test_small_arena),
        cmocka_unit_test(test_thunks_exhausted),
        cmocka_unit_test(test_code_of_another),
        cmocka_unit_test(test_split_lock),
        cmocka_unit_test(test_thunks_renewed),
        cmocka_unit_test(test_state_round_trip),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_measures),
        cmocka_unit_test(test_forgets),
        cmocka_unit_test(test_tsc_deadline),
        cmocka_unit_test(test_nmi_blocking),
        cmocka_unit_test(test_debug_exceptions),
        cmocka_unit_test(test_breakpoints_elsewhere),
        cmocka_unit_test(test_inner_stack_too_small),
        cmocka_unit_test(test_lgdt_64),
        cmocka_unit_test(test_far_return_under_smap),
        cmocka_unit_test(test_wrap_at_4_gib),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_locked_mmio),
        cmocka_unit_test(test_unmapped_between),
        cmocka_unit_test(test_pop_to_rom),
        cmocka_unit_test(test_iret_to_v86),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
