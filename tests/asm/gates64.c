/*
 * Interrupts, gates and returns in 64-bit mode: the frame and its alignment, interrupt stacks, call
 * gates, IRETQ and RETFQ, null and long-mode segments (SDM volume 3, 5.8.3.1, 6.14).
 */
#include "rt/rt.h"

#define HOLE 0x0000800000000000ul

enum {
    CODE_BOTH = SPARE, /* L and D */
    GATE_TO_KERNEL = SPARE + 16,
    GATE_TO_32 = SPARE + 32,
    GATE_BAD_TOP = SPARE + 48,
    CODE_ABSENT = SPARE + 64,
    LDT = SPARE + 80,
};

static u8 ist_stack[2][4096] __attribute__((aligned(16)));
static u64 ldt[2];
static volatile word seen[8];

/* A handler that notes the stack it was given, and returns. */
asm("raw_handler:\n"
    "    mov %rsp, seen\n"
    "    mov 24(%rsp), %rax; mov %rax, seen + 8\n"
    "    mov 32(%rsp), %rax; mov %rax, seen + 16\n"
    "    mov %ss, %rax; mov %rax, seen + 24\n"
    "    mov %cs, %rax; mov %rax, seen + 32\n"
    "    iretq\n"
    "far_landing:\n"
    "    mov %rsp, seen\n"
    "    mov %ss, %rax; mov %rax, seen + 24\n"
    "    mov %cs, %rax; mov %rax, seen + 32\n"
    "    lretq\n");
extern u8 raw_handler[], far_landing[];

USER_INSN(u_int_50, "int $0x50")

static void frames(void)
{
    word sp;
    rt_idt[0x50] = gate(raw_handler, KCODE, GATE_INTR | SEG_DPL3);
    for (unsigned off = 0; off < 16; off += 5) {
        asm volatile("mov %%rsp, %%rbx; sub %1, %%rsp; mov %%rsp, %0; int $0x50; mov %%rbx, %%rsp"
                     : "=&r"(sp)
                     : "r"((word)off)
                     : "rax", "rbx", "memory");
        check(seen[0] == (sp & ~15ul) - 40, "the frame is aligned below RSP mod 16 = %u",
              (unsigned)(sp & 15));
        check(seen[1] == sp && seen[2] == KDATA, "RSP and SS are pushed within level 0, too");
    }
    equal(seen[3], KDATA, "SS stays within a level");
    user_runs(u_int_50, 0, "INT n from level 3 and back");
    equal(seen[0], rt_tss.rsp[0] - 40, "RSP0 of the TSS is used");
    equal(seen[2], UDATA | 3, "SS of level 3 is pushed");
    equal(seen[3], 0, "SS is null after a change of privilege");

    rt_idt[0x50].ist = 1;
    asm volatile("int $0x50" : : : "rax", "memory");
    equal(seen[0], rt_tss.ist[0] - 40, "IST1 is used within level 0");
    rt_idt[0x50].ist = 2;
    user_runs(u_int_50, 0, "INT n from level 3 by IST2");
    equal(seen[0], rt_tss.ist[1] - 40, "IST2 is used from level 3");
    rt_idt[0x50].ist = 0;

    word rsp0 = rt_tss.rsp[0];
    rt_tss.rsp[0] = HOLE;
    tcg_differs("#GP, not #SS");
    user_faults(SS, 0, u_int_50, 0, "RSP0 not canonical");
    rt_tss.rsp[0] = rsp0;

    rt_idt[0x50] = gate(raw_handler, KCODE32, GATE_INTR);
    faults(GP, KCODE32, asm volatile(AT "int $0x50"), "a gate to 32-bit code");
    rt_idt[0x50] = gate((void *)HOLE, KCODE, GATE_INTR);
    tcg_differs("the handler's first instruction faults");
    faults(GP, 0, asm volatile(AT "int $0x50"), "a gate to a non-canonical address");
    rt_idt[0x50] = gate(raw_handler, KCODE, GATE_TASK);
    tcg_differs("the index in the error code is doubled");
    faults(GP, 0x50 * 8 + 2, asm volatile(AT "int $0x50"), "no task gates in 64-bit mode");
    rt_idt[0x50] = gate(raw_handler, KCODE, 0x86);
    tcg_differs("the index in the error code is doubled");
    faults(GP, 0x50 * 8 + 2, asm volatile(AT "int $0x50"), "no 16-bit gates in 64-bit mode");
}

struct far_pointer {
    u64 offset;
    u16 selector;
} __attribute__((packed));
static struct far_pointer far64;
struct far_pointer32 {
    u32 offset;
    u16 selector;
} __attribute__((packed));
USER_DATA static struct far_pointer32 far32 = {0, 0};

USER_CODE static word u_far_call(word selector)
{
    far32.selector = (u16)selector;
    asm volatile(USER_AT "lcall *%0" : : "m"(far32) : "rax", "memory");
    return 7;
}

static void far_transfers(void)
{
#define FAR_CALL(s, o)                                                                             \
    far64 = (struct far_pointer){(word)(o), (s)};                                                  \
    asm volatile(AT "rex.w lcall *%0" : : "m"(far64) : "rax", "memory")
    runs(FAR_CALL(KCODE, far_landing), "far CALL m16:64");
    tcg_differs("L and D are both taken");
    faults(GP, CODE_BOTH, FAR_CALL(CODE_BOTH, far_landing), "far CALL to code with L and D");
    faults(NP, CODE_ABSENT, FAR_CALL(CODE_ABSENT, far_landing), "far CALL to code not present");
    tcg_differs("the target faults");
    faults(GP, 0, FAR_CALL(KCODE, HOLE), "far CALL to a non-canonical address");
    memset((void *)seen, 0, sizeof(seen));
    rt_trapped(user(u_far_call, GATE_TO_KERNEL | 3), VECTOR_DONE, 0, "call gate from level 3");
    equal(seen[0], rt_tss.rsp[0] - 32, "four words on the stack of RSP0");
    equal(seen[3], 0, "SS null");
    equal(seen[4], KCODE, "CS at level 0");
    user_faults(GP, KCODE32, u_far_call, GATE_TO_32 | 3, "call gate to 32-bit code");
    user_faults(GP, GATE_BAD_TOP, u_far_call, GATE_BAD_TOP | 3,
                "call gate whose upper half has a type");
    user_faults(GP, KCODE, u_far_call, KCODE, "far CALL from level 3 to the kernel's code");
    faults(GP, TSS, FAR_CALL(TSS, 0), "no task switches in 64-bit mode");
}

static void iretq(word cs, word ip, word flags, word ss, word sp)
{
    asm volatile("push %0; push %1; push %2; push %3; push %4\n" AT "iretq"
                 :
                 : "r"(ss), "r"(sp), "r"(flags), "r"(cs), "r"(ip)
                 : "memory");
}

asm("    .pushsection .user.text, \"ax\"\n"
    "level3: mov %ss, %rax; mov %ds, %rcx; mov %es, %rdx; mov %fs, %rsi; mov %gs, %rdi\n"
    "        int $0x20\n"
    "    .popsection\n"
    "level0: mov %ss, %rax; int $0x77\n");
extern u8 level3[], level0[];
USER_DATA static word level3_stack[32] = {0};
#define LEVEL3_TOP ((word)(level3_stack + 16))

USER_CODE static word u_load_ss(word selector)
{
    asm volatile(USER_AT "mov %w0, %%ss" : : "r"(selector));
    return 0;
}

static void returns(void)
{
    word sp = (word)(ist_stack[1] + 2048);
    const struct trap *t = TRAP(iretq(KCODE, (word)level0, 2, KDATA, sp));
    rt_trapped(t, 0x77, 0, "IRETQ within level 0");
    equal(t->f.sp, sp, "pops RSP");
    t = TRAP(iretq(KCODE, (word)level0, 2, 0, sp));
    rt_trapped(t, 0x77, 0, "IRETQ within level 0 to a null SS");
    equal(t->f.ax, 0, "SS is null");
    t = TRAP(iretq(UCODE | 3, (word)level3, 2, UDATA | 3, LEVEL3_TOP));
    rt_trapped(t, VECTOR_DONE, 0, "IRETQ to level 3");
    equal(t->f.ax, UDATA | 3, "SS of level 3");
    equal(t->f.sp, LEVEL3_TOP, "RSP of level 3");
    faults(GP, 0, iretq(UCODE | 3, (word)level3, 2, 0, LEVEL3_TOP), "to level 3 with SS null");
    faults(GP, 0, iretq(UCODE | 3, (word)level3, 2, 3, LEVEL3_TOP),
           "to level 3 with SS null, RPL 3");
    faults(GP, UDATA, iretq(UCODE | 3, (word)level3, 2, UDATA, LEVEL3_TOP), "with SS of RPL 0");
    faults(GP, KDATA, iretq(UCODE | 3, (word)level3, 2, KDATA | 3, LEVEL3_TOP), "with SS of DPL 0");
    faults(GP, 0, iretq(0, (word)level0, 2, KDATA, sp), "IRETQ to a null CS");
    faults(GP, KDATA, iretq(KDATA, (word)level0, 2, KDATA, sp), "IRETQ to data");
    tcg_differs("L and D are both taken");
    faults(GP, CODE_BOTH, iretq(CODE_BOTH, (word)level0, 2, KDATA, sp), "IRETQ to L and D");
    tcg_differs("the target faults");
    faults(GP, 0, iretq(KCODE, HOLE, 2, KDATA, sp), "IRETQ to a non-canonical address");
    faults(GP, 0, write_flags(2 | FL_NT); asm volatile(AT "iretq"), "IRETQ with NT");
}

static void load_data_segments(unsigned ds, unsigned es, unsigned fs, unsigned gs)
{
    asm volatile("mov %0, %%ds; mov %1, %%es; mov %2, %%fs; mov %3, %%gs"
                 :
                 : "r"(ds), "r"(es), "r"(fs), "r"(gs));
}

static void check_data_segments(struct trap *t, unsigned ds, const char *how)
{
    rt_trapped(t, VECTOR_DONE, 0, "%s", how);
    equal(t->f.cx, ds, "%s: DS", how);
    tcg_differs("null selectors keep their RPL");
    check(!t->f.dx && !t->f.si && !t->f.di, "%s: ES, FS and GS are 0", how);
}

/* A return to an outer level makes 0 of a null selector that has an RPL (SDM volume 2, IRET: "IF
 * SegmentSelector = NULL"), as of one that the outer level may not use; the base stays. */
static void null_selectors(void)
{
    word star = rdmsr(MSR_STAR);
    wrmsr(MSR_STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE << 32); /* as kernels have it */
    for (unsigned i = 0; i < 3; i++) {
        load_data_segments(0, 0, 0, 0);
        check_data_segments(TRAP(iretq(UCODE | 3, (word)level3, 2, UDATA | 3, LEVEL3_TOP)), 0,
                            "IRETQ with null segments");
        load_data_segments(3, 1, 2, 3);
        wrmsr(MSR_FS_BASE, 0x12345000);
        check_data_segments(TRAP(iretq(UCODE | 3, (word)level3, 2, UDATA | 3, LEVEL3_TOP)), 0,
                            "IRETQ with null selectors of RPL 1 to 3");
        equal(rdmsr(MSR_FS_BASE), 0x12345000, "the base of FS stays");
        load_data_segments(UDATA | 3, 1, KDATA, 2);
        check_data_segments(TRAP(iretq(UCODE | 3, (word)level3, 2, UDATA | 3, LEVEL3_TOP)),
                            UDATA | 3, "IRETQ with DS of level 3");
    }
    load_data_segments(1, 3, 2, 1);
    check_data_segments(
        TRAP(asm volatile("push %0; push %1; push %2; push %3\n" AT
                          "lretq" : : "r"((word)UDATA | 3),
                          "r"(LEVEL3_TOP), "r"((word)UCODE | 3), "r"((word)level3) : "memory")),
        0, "RETFQ with null selectors of RPL 1 to 3");
    load_data_segments(KDATA, 3, 2, 1);
    word fs, gs;
    const struct trap *t = TRAP(iretq(KCODE, (word)level0, 2, KDATA, (word)(ist_stack[1] + 2048)));
    rt_trapped(t, 0x77, 0, "IRETQ within level 0");
    asm volatile("mov %%fs, %0; mov %%gs, %1" : "=r"(fs), "=r"(gs));
    check(fs == 2 && gs == 1, "keeps the RPL of null selectors");
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_STAR, star);
    load_data_segments(KDATA, KDATA, 0, 0);
}

static void segments(void)
{
    runs(asm volatile("mov %w0, %%ss; mov %w1, %%ss" : : "r"(0), "r"(KDATA)), "SS null at level 0");
    tcg_differs("RPL is not looked at");
    faults(GP, 0, LOAD_SEGMENT("ss", 3), "SS null with RPL 3 at level 0");
    user_faults(GP, 0, u_load_ss, 0, "SS null at level 3");
    user_faults(GP, 0, u_load_ss, 3, "SS null at level 3, RPL 3");
    word value = 0;
    runs(asm volatile("mov %w1, %%ds; mov %%ds:%2, %0; mov %w3, %%ds" : "=&r"(value) : "r"(0),
                      "m"(seen[0]), "r"(KDATA)),
         "reading through a null DS");
    rt_gdt[SPARE / 8 + 20] = descriptor(0x12340000, 0, SEG_DATA);
    LOAD_SEGMENT("fs", SPARE + 160);
    equal(rdmsr(MSR_FS_BASE), 0x12340000, "loading FS sets its base");
    LOAD_SEGMENT("fs", 0);
    wrmsr(MSR_FS_BASE, (word)&seen[0] - 0x7FFFFFF0);
    seen[0] = 0xABCD;
    asm volatile("mov %%fs:0x7FFFFFF0, %0" : "=r"(value));
    equal(value, 0xABCD, "limits do not matter, bases do");
    wrmsr(MSR_FS_BASE, 0);
    faults(GP, LDT, LOAD_SEGMENT("fs", LDT), "FS of an LDT");
    runs(asm volatile("lldt %w0" : : "r"(LDT)), "LLDT");
    runs(LOAD_SEGMENT("fs", 0xC), "FS from the LDT");
    asm volatile("lldt %w0; mov %w0, %%fs" : : "r"(0));
    faults(GP, 0xC, LOAD_SEGMENT("fs", 0xC), "FS from a null LDT");
}

void test(void)
{
    for (unsigned i = 0; i < 2; i++)
        rt_tss.ist[i] = (word)(ist_stack[i] + sizeof(ist_stack[i]));
    reset_gate(SS, GATE_INTR, 1);
    rt_gdt[CODE_BOTH / 8] = descriptor(0, 0xFFFFF, SEG_CODE | SEG_LONG | SEG_BIG | SEG_PAGES);
    rt_gdt[CODE_ABSENT / 8] = descriptor(0, 0xFFFFF, (SEG_CODE & ~SEG_P) | SEG_LONG | SEG_PAGES);
    rt_gdt[LDT / 8] = descriptor((u32)(word)ldt, sizeof(ldt) - 1, SYS_LDT);
    ldt[1] = descriptor(0, 0xFFFFF, SEG_DATA | SEG_BIG | SEG_PAGES);
    struct gate g = gate(far_landing, KCODE, GATE_CALL | SEG_DPL3);
    memcpy(&rt_gdt[GATE_TO_KERNEL / 8], &g, sizeof(g));
    g.reserved = 0x100;
    memcpy(&rt_gdt[GATE_BAD_TOP / 8], &g, sizeof(g));
    g = gate(far_landing, KCODE32, GATE_CALL | SEG_DPL3);
    memcpy(&rt_gdt[GATE_TO_32 / 8], &g, sizeof(g));
    frames();
    far_transfers();
    returns();
    null_selectors();
    segments();
}
