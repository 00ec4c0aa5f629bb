/*
 * The instruction table against the engines: each entry is executed at CPL 0 and CPL 3, and what is
 * called privileged traps there, and nothing else does. The same for what a control register, IOPL,
 * a gate or virtual-8086 mode decides.
 */
#include "interp_test.h"

#include "base/util.h"
#include "cpu/interp/select.h"
#include "cpu/treatment.h"
#include "x86/isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE  RIG_FREE
#define DATA  0x20000ULL
#define STACK 0x30800ULL

/* ---- Encodings ---- */

struct example {
    uint8_t bytes[15], length;
    enum x86_code_size size;
};

/* One of each entry: with memory at RSI, or with registers, where memory cannot be. */
static struct example *examples;
static const struct x86_insn_info *table;
static unsigned rows;

static void note(enum x86_code_size size, const uint8_t bytes[15])
{
    struct x86_insn insn;
    struct example *e;
    int length = x86_decode(size, false, bytes, 15, &insn);

    if (length <= 0 || insn.info < table || insn.info >= table + rows)
        return;
    e = &examples[insn.info - table];
    if (e->length || (insn.z.attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return;
    *e = (struct example){.length = (uint8_t)length, .size = size};
    memcpy(e->bytes, insn.bytes, sizeof(e->bytes));
}

static void note_legacy(enum x86_code_size size, uint8_t modrm)
{
    static const uint8_t prefixes[][3] = {{0},       {1, 0x48},       {1, 0x66},       {1, 0xF3},
                                          {1, 0xF2}, {2, 0xF3, 0x48}, {2, 0x66, 0x48}, {1, 0x67}};
    static const uint8_t maps[][3] = {{0}, {1, 0x0F}, {2, 0x0F, 0x38}, {2, 0x0F, 0x3A}};

    for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++)
        for (unsigned m = 0; m < ARRAY_SIZE(maps); m++)
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                uint8_t bytes[15] = {0};
                unsigned n = prefixes[p][0];

                memcpy(bytes, prefixes[p] + 1, n);
                memcpy(bytes + n, maps[m] + 1, maps[m][0]);
                n += maps[m][0];
                bytes[n] = (uint8_t)opcode;
                bytes[n + 1] = modrm;
                note(size, bytes);
            }
}

static void note_vex(uint8_t modrm)
{
    for (unsigned map = 1; map <= 3; map++)
        for (unsigned wlpp = 0; wlpp < 16; wlpp++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                for (unsigned vvvv = 14; vvvv < 16; vvvv++) {
                    uint8_t w = (uint8_t)((wlpp & 8) << 4), lpp = wlpp & 7;
                    const uint8_t bytes[15] = {0xC4,
                                               (uint8_t)(0xE0 | map),
                                               (uint8_t)(w | vvvv << 3 | lpp),
                                               (uint8_t)opcode,
                                               modrm,
                                               0x23};

                    note(X86_CODE64, bytes);
                }
}

/* Where the first encoding is an unusual one. */
static void note_usual(void)
{
    static const uint8_t usual[][15] = {
        {0x48, 0xF7, 0xF6},             /* div rsi */
        {0x48, 0xF7, 0xFE},             /* idiv rsi */
        {0x48, 0x0F, 0x07},             /* sysretq */
        {0xE8, 0x00, 0x00, 0x00, 0x00}, /* call to what follows */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(usual); i++)
        note(X86_CODE64, usual[i]);
}

static void find_examples(void)
{
    static const uint8_t rm[] = {0x06, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0x04};

    table = x86_insn_table(&rows);
    examples = calloc(rows, sizeof(*examples));
    note_usual();
    for (unsigned i = 0; i < ARRAY_SIZE(rm); i++)
        for (unsigned reg = 0; reg < 8; reg++)
            note_legacy(X86_CODE64, (uint8_t)(rm[i] | reg << 3));
    for (unsigned i = 0; i < ARRAY_SIZE(rm); i++)
        for (unsigned reg = 0; reg < 8; reg++) {
            note_vex((uint8_t)(rm[i] | reg << 3));
            note_legacy(X86_CODE32, (uint8_t)(rm[i] | reg << 3));
            note_legacy(X86_CODE16, (uint8_t)(rm[i] | reg << 3));
        }
}

/* ---- What is wrong: all of it is said before the test fails ---- */

static unsigned wrongs;

static void __attribute__((format(printf, 1, 2))) note_wrong(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    putchar('\n');
    wrongs++;
}

/* ---- Executing one ---- */

/* What came of it. An instruction that has been executed is followed by NOP (STI needs a next one)
 * and UD2. */
struct outcome {
    int vector; /* -1: the processor halted or shut down by itself */
    uint64_t error;
    bool trapped; /* by the instruction, and not behind it */
};

/* Executes E from CPU, which is completed. */
static struct outcome execute_from(struct x86_cpu *cpu, const struct example *e)
{
    unsigned slot = e->size == X86_CODE64 ? 8 : 4;
    uint64_t frame[2] = {0}, handler, base = cpu->seg[X86_CS].base;
    struct outcome o = {.vector = -1};
    enum engine_exit exit;

    PUT(CODE + base, 0x0F, 0x0B); /* what is not long enough is not left over */
    put(CODE + base, e->bytes, e->length);
    PUT(CODE + base + e->length, 0x90, 0x0F, 0x0B);
    exit = run(cpu);
    handler = cpu->reg[X86_RIP] - 1 - RIG_HANDLERS;
    if (exit != EXIT_HALT || handler > 255)
        return o;
    o.vector = (int)handler;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(mem_read(rig->machine.mem,
                                  cpu->seg[X86_SS].base + cpu->reg[X86_RSP] + i * slot, &frame[i],
                                  slot),
                         0);
    if (handler == X86_GP || handler == X86_PF || handler == X86_SS_FAULT || handler == X86_NP ||
        handler == X86_TS || handler == X86_AC || handler == X86_DF) {
        o.error = frame[0];
        frame[0] = frame[1];
    }
    o.trapped = frame[0] == CODE;
    return o;
}

/* What memory operands are, and the stack: they lead to NEXT, the code behind the instruction. */
static void put_operands(const struct x86_insn_info *info, uint64_t next, unsigned cpl)
{
    rig_put64(rig, DATA, next);
    rig_put64(rig, STACK, next);
    rig_put64(rig, STACK + 8, RIG_USER_CODE64); /* for IRETQ */
    rig_put64(rig, STACK + 16, X86_FLAG_ONE);
    rig_put64(rig, STACK + 24, STACK);
    rig_put64(rig, STACK + 32, RIG_USER_DATA);
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_LDS: /* far pointers */
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS: rig_put64(rig, DATA + 4, cpl ? RIG_USER_DATA : RIG_DATA); break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR: rig_put64(rig, DATA, 0x1F80); break; /* as after a reset */
    case ZYDIS_MNEMONIC_INVPCID: rig_put64(rig, DATA, 0); break;
    case ZYDIS_MNEMONIC_LTR: rig_put64(rig, DATA, RIG_TSS); break; /* busy, so refused otherwise */
    case ZYDIS_MNEMONIC_FLDCW: rig_put64(rig, DATA, 0x037F); break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: rig_put64(rig, STACK, X86_FLAG_ONE | X86_FLAG_CF); break;
    default: break;
    }
}

static void prepare(struct x86_cpu *cpu, const struct x86_insn_info *info, const struct example *e,
                    unsigned cpl)
{
    rig_clear(rig);
    if (e->size == X86_CODE64)
        rig_state_64(rig, cpu, CODE);
    else
        rig_state_32(rig, cpu, CODE);
    if (e->size == X86_CODE16)
        cpu->seg[X86_CS] = rig_segment(RIG_CODE16);
    if (cpl == 3) {
        for (unsigned i = 0; i < X86_SEGMENTS; i++)
            cpu->seg[i] = rig_segment(RIG_USER_DATA);
        cpu->seg[X86_CS] = rig_segment(e->size == X86_CODE64 ? RIG_USER_CODE64 : RIG_USER_CODE32);
        if (e->size == X86_CODE16)
            cpu->seg[X86_CS].attr &= (uint16_t)~X86_ATTR_DB;
    }
    cpu->reg[X86_RSI] = cpu->reg[X86_RDI] = cpu->reg[X86_RBX] = cpu->reg[X86_RBP] = DATA;
    cpu->reg[X86_RSP] = STACK;
    cpu->reg[X86_RCX] = 0x10; /* an MSR that there is: the TSC */
    cpu->sysenter_cs = RIG_CODE64;
    cpu->sysenter_eip = CODE + e->length;
    cpu->sysenter_esp = STACK;
    cpu->lstar = CODE + e->length;
    cpu->star = (uint64_t)RIG_CODE64 << 32 | (uint64_t)(RIG_USER_DATA - 8) << 48;
    if (info->mnemonic == ZYDIS_MNEMONIC_XSETBV) {
        cpu->reg[X86_RAX] = 7;
        cpu->reg[X86_RCX] = 0;
    }
    if (info->mnemonic == ZYDIS_MNEMONIC_XGETBV)
        cpu->reg[X86_RCX] = 0;
    memcpy(cpu->xsave, &(uint16_t){0x037F}, 2); /* as after FNINIT: all exceptions masked */
    put_operands(info, CODE + e->length, cpl);
}

static struct outcome execute(const struct x86_insn_info *info, unsigned cpl, uint64_t cr4_set,
                              uint64_t cr4_clear, uint64_t rflags)
{
    const struct example *e = &examples[info - table];
    struct x86_cpu cpu;

    prepare(&cpu, info, e, cpl);
    cpu.cr4 = (cpu.cr4 | cr4_set) & ~cr4_clear;
    cpu.rflags |= rflags;
    return execute_from(&cpu, e);
}

/* Whether it was refused for want of privilege: #GP(0), or #UD where the manual has that. */
static bool is_refused(struct outcome o)
{
    return o.trapped && ((o.vector == X86_GP && o.error == 0) || o.vector == X86_UD);
}

static void expect(const struct x86_insn_info *info, struct outcome o, bool refused,
                   const char *when)
{
    if (is_refused(o) != refused)
        note_wrong("%s %s: vector %d, error %llx, %s, but the table says '%s'",
                   ZydisMnemonicGetString(info->mnemonic), when, o.vector,
                   (unsigned long long)o.error, o.trapped ? "trapped" : "executed",
                   isa_privilege(info));
}

static void check_switch(const struct x86_insn_info *info, uint64_t bit, bool needs_it)
{
    expect(info, execute(info, 3, 0, bit, 0), needs_it, "at CPL 3 with the bit clear");
    expect(info, execute(info, 3, bit, 0, 0), !needs_it, "at CPL 3 with the bit set");
    expect(info, execute(info, 0, bit, 0, 0), false, "at CPL 0 with the bit set");
}

/* Nothing makes it differ. What operands are refused is refused at both levels. */
static void check_user(const struct x86_insn_info *info)
{
    struct outcome kernel = execute(info, 0, 0, 0, 0), user = execute(info, 3, 0, 0, 0);

    if (is_refused(kernel) != is_refused(user) ||
        (is_refused(user) && kernel.vector != user.vector))
        note_wrong("%s: vector %d at CPL 0, %d at CPL 3", ZydisMnemonicGetString(info->mnemonic),
                   kernel.vector, user.vector);
}

/* What has to be enabled, by what. */
static void check_optional(const struct x86_insn_info *info)
{
    const struct example *e = &examples[info - table];
    struct x86_cpu cpu;

    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: check_switch(info, X86_CR4_FSGSBASE, true); return;
    case ZYDIS_MNEMONIC_XGETBV: check_switch(info, X86_CR4_OSXSAVE, true); return;
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
        expect(info, execute(info, 3, 0, 0, 0), false, "at CPL 3, enabled");
        prepare(&cpu, info, e, 3);
        cpu.efer &= ~(uint64_t)X86_EFER_SCE;
        cpu.sysenter_cs = 0;
        expect(info, execute_from(&cpu, e), true, "at CPL 3, not enabled");
        return;
    default: note_wrong("%s is optional, by what?", ZydisMnemonicGetString(info->mnemonic)); return;
    }
}

/* A gate for CPL 0, and one for all. Its refusal names the gate. INTO goes nowhere without OF. */
static void check_gate(const struct x86_insn_info *info)
{
    const struct example *e = &examples[info - table];
    unsigned vector = info->mnemonic == ZYDIS_MNEMONIC_INT    ? e->bytes[e->length - 1]
                      : info->mnemonic == ZYDIS_MNEMONIC_INT3 ? X86_BP
                                                              : X86_OF;

    for (unsigned dpl = 0; dpl <= 3; dpl += 3) {
        uint64_t at = e->size == X86_CODE64 ? RIG_IDT64 + vector * 16 : RIG_IDT32 + vector * 8;
        struct x86_cpu cpu;
        struct outcome o;

        prepare(&cpu, info, e, 3);
        PUT(at + 5, (uint8_t)(0x8E | dpl << 5));
        cpu.rflags |= X86_FLAG_OF;
        o = execute_from(&cpu, e);
        if (dpl == 3)
            assert_int_equal(o.vector, vector);
        else
            assert_true(o.trapped && o.vector == X86_GP && o.error == vector * 8 + 2);
    }
}

/* Virtual-8086 mode; elsewhere anybody may. */
static void check_v86(const struct x86_insn_info *info)
{
    const struct example *e = &examples[info - table];

    check_user(info);
    for (unsigned iopl = 0; iopl <= 3; iopl += 3) {
        struct x86_cpu cpu;
        struct outcome o;

        rig_clear(rig);
        rig_state_32(rig, &cpu, 0);
        cpu.rflags |= X86_FLAG_VM | iopl << 12;
        for (unsigned i = 0; i < X86_SEGMENTS; i++)
            cpu.seg[i] = (struct x86_seg){
                .base = 0x10000, .limit = 0xFFFF, .attr = 0xF3, .selector = 0x1000};
        cpu.reg[X86_RSP] = 0x8000;
        put(0x10000, e->bytes, e->length);
        PUT(0x10000 + e->length, 0x0F, 0x0B);
        run(&cpu);
        o = (struct outcome){.vector = (int)(cpu.reg[X86_RIP] - 1 - RIG_HANDLERS)};
        /* IRET goes to 0000:0000 and there meets no UD2, but not a #GP of its own either. */
        if ((o.vector == X86_GP) != (iopl == 0))
            note_wrong("%s in virtual-8086 mode with IOPL %u: vector %d",
                       ZydisMnemonicGetString(info->mnemonic), iopl, o.vector);
    }
}

static void check(const struct x86_insn_info *info)
{
    switch ((enum x86_privilege)info->privilege) {
    case X86_PRIV_USER: check_user(info); return;
    case X86_PRIV_CPL0:
        expect(info, execute(info, 0, 0, 0, 0), false, "at CPL 0");
        expect(info, execute(info, 3, 0, 0, 0), true, "at CPL 3");
        expect(info, execute(info, 3, 0, 0, X86_FLAG_IOPL), true, "at CPL 3 with IOPL 3");
        return;
    case X86_PRIV_IOPL:
        expect(info, execute(info, 0, 0, 0, 0), false, "at CPL 0");
        expect(info, execute(info, 3, 0, 0, 0), true, "at CPL 3");
        expect(info, execute(info, 3, 0, 0, X86_FLAG_IOPL), false, "at CPL 3 with IOPL 3");
        return;
    case X86_PRIV_TSD: check_switch(info, X86_CR4_TSD, false); return;
    case X86_PRIV_UMIP: check_switch(info, X86_CR4_UMIP, false); return;
    case X86_PRIV_OPT: check_optional(info); return;
    case X86_PRIV_GATE: check_gate(info); return;
    case X86_PRIV_V86: check_v86(info); return;
    case X86_PRIV_PCE: /* there are no counters: every number is refused */
        expect(info, execute(info, 3, 0, X86_CR4_PCE, 0), true, "at CPL 3");
        return;
    case X86_PRIV_COUNT: break;
    }
    note_wrong("%s: privilege %u", ZydisMnemonicGetString(info->mnemonic), info->privilege);
}

static void test_privilege(void **unused)
{
    unsigned checked = 0;

    wrongs = 0;
    for (unsigned i = 0; i < rows; i++) {
        if (!examples[i].length)
            note_wrong("no example of %s, class %u", ZydisMnemonicGetString(table[i].mnemonic),
                       table[i].class);
        if (!rig->machine.model.feature[table[i].feature])
            continue;
        check(&table[i]);
        checked++;
    }
    assert_true(checked > 400);
    assert_int_equal(wrongs, 0);
}

/* ---- Who executes it ---- */

struct count {
    const char *name;
    uint64_t count;
};

static void add_count(void *opaque, const struct engine_counter *counter)
{
    struct count *c = opaque;

    if (!strcmp(counter->group, "interpreted") && !strcmp(counter->name, c->name))
        c->count += counter->count;
}

/* How often the translator has left an instruction to the interpreter. */
static uint64_t count_interpreted(const struct x86_insn_info *info)
{
    struct count c = {ZydisMnemonicGetString(info->mnemonic), 0};

    RIG_ENGINE.counters(rig->cpu[0].vcpu, add_count, &c);
    return c.count;
}

/* Whether the interpreter has a thunk for the example. */
static bool has_thunk(const struct example *e)
{
    struct x86_insn insn;
    struct uop op = {.fn = NULL};

    assert_true(x86_decode(e->size, false, e->bytes, e->length, &insn) > 0);
    select_uop(rig->cpu[0].vcpu, &insn, MODE_64, &op);
    return op.fn == op_native;
}

static void check_treatment(const struct x86_insn_info *info, unsigned cpl)
{
    enum treatment said = bt_treatment(info, cpl == 3);
    uint64_t before = count_interpreted(info);
    struct outcome o;
    bool interpreted;

    o = execute(info, cpl, 0, 0, info->mnemonic == ZYDIS_MNEMONIC_STI ? X86_FLAG_IF : 0);
    interpreted = count_interpreted(info) != before;
    if (interpreted != (said == TREATMENT_EMULATED))
        note_wrong("%s at CPL %u is said to be %s, and is %sinterpreted (vector %d%s)",
                   ZydisMnemonicGetString(info->mnemonic), cpl, treatment_name[said],
                   interpreted ? "" : "not ", o.vector, o.trapped ? ", trapped" : "");
}

/* What is said to be emulated is left to the interpreter, and nothing else is; what is said to be
 * the host's has a thunk, and nothing else has. */
static void test_treatment(void **unused)
{
    bool interpreter = !strcmp(RIG_ENGINE.name, interp_engine.name);

    wrongs = 0;
    for (unsigned i = 0; i < rows; i++) {
        const struct x86_insn_info *info = &table[i];

        if (examples[i].size != X86_CODE64 || !rig->machine.model.feature[info->feature])
            continue;
        if (interpreter && has_thunk(&examples[i]) != (interp_treatment(info) == TREATMENT_HOST))
            note_wrong(
                "%s is said to be %s, and has %s thunk", ZydisMnemonicGetString(info->mnemonic),
                treatment_name[interp_treatment(info)], has_thunk(&examples[i]) ? "a" : "no");
        /* IRETQ is inlined only for frames that bt_system.c has. */
        for (unsigned cpl = 0; !interpreter && cpl <= 3; cpl += 3)
            if (info->mnemonic != ZYDIS_MNEMONIC_IRETQ)
                check_treatment(info, cpl);
    }
    assert_int_equal(wrongs, 0);
}

/* ---- The table in words ---- */

static void test_textbook(void **unused)
{
    unsigned count, pentium = 0, escapes = 0;
    struct isa_entry *entries = isa_entries(&count);

    assert_non_null(entries);
    assert_int_equal(count, rows);
    for (unsigned i = 0; i < count; i++) {
        const struct x86_insn_info *info = entries[i].info;

        if (i > 0 && strcmp(entries[i - 1].name, entries[i].name) >= 0)
            fail_msg("'%s' is there twice", entries[i].name);
        assert_false(isa_escapes(info) && (!info->sensitive || isa_is_privileged(info)));
        if (isa_is_pentium(info)) {
            if (!isa_escapes(info))
                fail_msg("'%s' is one of the 17, and does not escape", entries[i].name);
            pentium++;
        }
        escapes += isa_escapes(info);
    }
    /* PUSHF, PUSHFD, POPF and POPFD are two instructions of the paper's; VERR and VERW are one. */
    assert_int_equal(pentium, 20);
    assert_true(escapes > pentium + 10);
    free(entries);
}

static int setup(void **unused)
{
    rig = rig_create(1, 0);
    find_examples();
    return rig ? 0 : -1;
}

static int end(void **state)
{
    free(examples);
    return teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_privilege),
                                       cmocka_unit_test(test_treatment),
                                       cmocka_unit_test(test_textbook)};

    return cmocka_run_group_tests(tests, setup, end);
}
