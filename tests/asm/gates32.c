/*
 * Segment loads, far transfers, call gates, interrupt and trap gates, changes of privilege and IRET
 * in 32-bit protected mode, with every check and its error code (SDM volume 3, 5.5-5.8, 6.12;
 * volume 2, CALL, RET, IRET, INT n, MOV).
 */
#include "rt/rt.h"

/* Descriptors the tests add to the GDT. */
enum {
    CODE_ABSENT = SPARE,
    CODE_CONFORMING = SPARE + 8,
    CODE_CONFORMING3 = SPARE + 16,
    CODE_UNREADABLE = SPARE + 24,
    CODE_SMALL = SPARE + 32,
    DATA_ABSENT = SPARE + 40,
    DATA_READ_ONLY = SPARE + 48,
    GATE_TO_KERNEL = SPARE + 56,
    GATE_FOR_KERNEL = SPARE + 64,
    GATE_ABSENT = SPARE + 72,
    GATE_NULL = SPARE + 80,
    GATE_TO_DATA = SPARE + 88,
    GATE_TO_ABSENT = SPARE + 96,
    GATE_CONFORMING = SPARE + 104,
    GATE_TO_USER = SPARE + 112,
    STACK_ABSENT = SPARE + 120,
    STACK_ABSENT1 = SPARE + 168,
    DATA_FRESH = SPARE + 128,
    CODE_LEVEL1 = SPARE + 136,
    DATA_LEVEL1 = SPARE + 144,
    GATE_TO_LEVEL1 = SPARE + 152,
    GATE_SMALL = SPARE + 160,
    BEYOND = GDT_SLOTS * 8,
};

struct far_pointer {
    u32 offset;
    u16 selector;
} __attribute__((packed));

static struct far_pointer target; /* what far_call() and far_jump() use */
static volatile u32 seen[8];      /* what the code called left behind */

static void set(unsigned selector, u64 d)
{
    rt_gdt[selector / 8] = d;
}

static u64 call_gate(void *offset, u16 selector, u8 attr, u8 parameters)
{
    struct gate g = gate(offset, selector, attr);
    g.ist = parameters;
    u64 d;
    memcpy(&d, &g, sizeof(d));
    return d;
}

/* far_landing: notes CS, SS, its first two parameters and ESP, and returns dropping two. */
asm("far_landing:\n"
    "    movl %cs, %eax; movl %eax, seen\n"
    "    movl %ss, %eax; movl %eax, seen + 4\n"
    "    movl 8(%esp), %eax; movl %eax, seen + 8\n"
    "    movl 12(%esp), %eax; movl %eax, seen + 12\n"
    "    movl %esp, seen + 16\n"
    "    lret $8\n"
    "far_return: lret\n"
    "just_iret: iret\n"
    "far_jumped: jmp *%ebx\n");
extern u8 far_landing[], far_return[], far_jumped[], just_iret[];

/* A handler in the lowest 64 KiB, for a 16-bit gate: notes the words pushed, and jumps to EBX. */
asm("narrow: movl %esp, seen + 8\n"
    "    movzwl 2(%esp), %eax; movl %eax, seen + 4\n"
    "    addl $6, %esp\n"
    "    jmp *%ebx\n"
    "narrow_end:\n");
extern u8 narrow[], narrow_end[];
#define NARROW ((u8 *)0x7000)

static void segment_loads(void)
{
    faults(GP, BEYOND, LOAD_SEGMENT("ds", BEYOND), "DS beyond the GDT");
    faults(GP, CODE_UNREADABLE, LOAD_SEGMENT("es", CODE_UNREADABLE),
           "ES of code that cannot be read");
    faults(GP, TSS, LOAD_SEGMENT("fs", TSS), "FS of a TSS");
    faults(NP, DATA_ABSENT, LOAD_SEGMENT("gs", DATA_ABSENT), "GS not present");
    asm volatile("lldt %w0" : : "r"(0));
    faults(GP, 0xC, LOAD_SEGMENT("gs", 0xC), "GS from an LDT that is null");
    faults(GP, 0, LOAD_SEGMENT("ss", 0), "SS null");
    faults(GP, 0, LOAD_SEGMENT("ss", 3), "SS null with RPL 3");
    faults(GP, KDATA, LOAD_SEGMENT("ss", KDATA | 3), "SS with RPL 3");
    faults(GP, UDATA, LOAD_SEGMENT("ss", UDATA), "SS with DPL 3");
    faults(GP, KCODE, LOAD_SEGMENT("ss", KCODE), "SS of code");
    faults(GP, DATA_READ_ONLY, LOAD_SEGMENT("ss", DATA_READ_ONLY), "SS of read-only data");
    faults(SS, STACK_ABSENT, LOAD_SEGMENT("ss", STACK_ABSENT), "SS not present");
    faults(GP, BEYOND, asm volatile("push %0\n" AT "pop %%ds" : : "i"(BEYOND)), "POP DS");
    static const struct far_pointer bad = {0, BEYOND};
    faults(GP, BEYOND, asm volatile(AT "lds %0, %%eax" : : "m"(bad) : "eax"), "LDS");
    tcg_differs("no checks of null or of segment types");
    faults(GP, 0, WITH_SEGMENT("fs", 0, "movb %%fs:0, %%al"), "reading through a null FS");
    tcg_differs("no checks of null or of segment types");
    faults(GP, 0, WITH_SEGMENT("gs", 3, "movb %%al, %%gs:0"), "writing through a null GS");
    runs(asm volatile("mov %w0, %%fs; movb %%fs:0, %%al" : : "r"(KCODE) : "eax"),
         "reading through code that can be read");
    tcg_differs("no checks of null or of segment types");
    faults(GP, 0, WITH_SEGMENT("fs", KCODE, "movb %%al, %%fs:0"), "writing through a code segment");
    tcg_differs("no checks of null or of segment types");
    faults(GP, 0, WITH_SEGMENT("fs", DATA_READ_ONLY, "movb %%al, %%fs:0"),
           "writing through read-only data");
    runs(LOAD_SEGMENT("fs", CODE_CONFORMING3 | 3), "FS of conforming code");
    runs(LOAD_SEGMENT("fs", DATA_FRESH), "FS of data not yet accessed");
    equal(rt_gdt[DATA_FRESH / 8] >> 40 & 0xFF, 0x93, "which sets its accessed bit");
    faults(GP, KCODE, asm volatile("movw $8, %%ax\n" AT "lldt %%ax" : : : "eax"),
           "LLDT of a code segment");
}

USER_CODE static word u_load_ds(word selector)
{
    asm volatile(USER_AT "mov %w0, %%ds" : : "r"(selector));
    return 0;
}

static void far_transfers(void)
{
#define FAR_CALL(s, o)                                                                             \
    target = (struct far_pointer){(u32)(o), (s)};                                                  \
    asm volatile("push %%eax; push %%eax\n" AT "lcall *%0; add $8, %%esp" : : "m"(target) : "eax")
#define FAR_JUMP(s, o)                                                                             \
    target = (struct far_pointer){(u32)(o), (s)};                                                  \
    asm volatile("mov $2f, %%ebx\n" AT "ljmp *%0; 2:" : : "m"(target) : "ebx")
    runs(FAR_CALL(KCODE, far_return), "far CALL to the same segment");
    runs(FAR_JUMP(KCODE, far_jumped), "far JMP to the same segment");
    runs(FAR_CALL(CODE_CONFORMING, far_return), "far CALL to conforming code");
    faults(GP, 0, FAR_CALL(0, far_return), "far CALL to null");
    faults(GP, 0, FAR_JUMP(3, far_return), "far JMP to null with RPL 3");
    faults(GP, BEYOND, FAR_CALL(BEYOND, far_return), "far CALL beyond the GDT");
    faults(GP, KDATA, FAR_CALL(KDATA, far_return), "far CALL to data");
    faults(GP, KDATA, FAR_JUMP(KDATA, far_return), "far JMP to data");
    faults(GP, KCODE, FAR_CALL(KCODE | 3, far_return), "far CALL with RPL 3");
    faults(GP, UCODE, FAR_CALL(UCODE, far_return), "far CALL to code with DPL 3");
    faults(GP, UCODE, FAR_JUMP(UCODE | 3, far_return), "far JMP to code with DPL 3");
    faults(GP, CODE_CONFORMING3, FAR_CALL(CODE_CONFORMING3, far_return),
           "far CALL to conforming code with DPL 3");
    faults(NP, CODE_ABSENT, FAR_CALL(CODE_ABSENT, far_return), "far CALL to code not present");
    tcg_differs("the error code is the selector");
    faults(GP, 0, FAR_CALL(CODE_SMALL, far_return), "far CALL beyond the limit");
    faults(GP, 0, FAR_JUMP(CODE_SMALL, far_return), "far JMP beyond the limit");
    faults(GP, 0, asm volatile("push $0; push $far_return\n" AT "lret"), "RETF to null");
    faults(GP, KDATA, asm volatile("push %0; push $far_return\n" AT "lret" : : "i"(KDATA)),
           "RETF to data");
    faults(NP, CODE_ABSENT,
           asm volatile("push %0; push $far_return\n" AT "lret" : : "i"(CODE_ABSENT)),
           "RETF to code not present");
    tcg_differs("the limit is not checked");
    faults(GP, 0, asm volatile("push %0; push $far_return\n" AT "lret" : : "i"(CODE_SMALL)),
           "RETF beyond the limit");
    faults(GP, UCODE, asm volatile("push %0; push $far_return\n" AT "lret" : : "i"(UCODE)),
           "RETF to code with DPL 3 and RPL 0");
}

/* Far calls of user code. */
static struct far_pointer user_target;
USER_CODE static word u_far_call(word gate_selector)
{
    user_target.selector = (u16)gate_selector;
    user_target.offset = 0;
    word before, after;
    asm volatile("mov %%esp, %0\n"
                 "push $0x2222; push $0x1111\n" USER_AT "lcall *%2\n"
                 "mov %%esp, %1; mov %0, %%esp"
                 : "=&S"(before), "=&D"(after)
                 : "m"(user_target)
                 : "eax", "memory");
    return before == after;
}

USER_CODE static word u_far_jump(word selector)
{
    user_target.selector = (u16)selector;
    user_target.offset = (u32)far_jumped;
    asm volatile("mov $2f, %%ebx\n" USER_AT "ljmp *%0; 2:" : : "m"(user_target) : "ebx");
    word cs;
    asm volatile("mov %%cs, %0" : "=r"(cs));
    return cs;
}

static void call_gates(void)
{
    u32 esp0 = rt_tss.esp0;
    const struct trap *t = user(u_far_call, GATE_TO_KERNEL | 3);
    rt_trapped(t, VECTOR_DONE, 0, "CALL through a gate from level 3");
    equal(t->f.ax, 1, "and back, with RETF 8 dropping the parameters of both stacks");
    equal(seen[0], KCODE, "CS at level 0");
    equal(seen[1], KDATA, "SS from the TSS");
    equal(seen[2], 0x1111, "first parameter");
    equal(seen[3], 0x2222, "second parameter");
    equal(seen[4], esp0 - 24, "ESP from the TSS, less SS ESP 2 parameters CS EIP");
    user_faults(GP, GATE_FOR_KERNEL, u_far_call, GATE_FOR_KERNEL | 3,
                "a gate of DPL 0 from level 3");
    user_faults(GP, GATE_FOR_KERNEL, u_far_call, GATE_FOR_KERNEL, "the same with RPL 0");
    faults(GP, GATE_FOR_KERNEL, FAR_CALL(GATE_FOR_KERNEL | 3, 0), "and from level 0 with RPL 3");
    user_faults(NP, GATE_ABSENT, u_far_call, GATE_ABSENT | 3, "a gate not present");
    user_faults(GP, 0, u_far_call, GATE_NULL | 3, "a gate to null");
    user_faults(GP, KDATA, u_far_call, GATE_TO_DATA | 3, "a gate to data");
    user_faults(NP, CODE_ABSENT, u_far_call, GATE_TO_ABSENT | 3, "a gate to code not present");
    user_faults(GP, KCODE, u_far_jump, GATE_TO_KERNEL | 3, "JMP through a gate to more privilege");
    user_faults(GP, KCODE, u_far_jump, KCODE, "far JMP to the kernel's code");
    t = user(u_far_jump, CODE_CONFORMING | 3);
    rt_trapped(t, VECTOR_DONE, 0, "far JMP from level 3 to conforming code");
    equal(t->f.ax, CODE_CONFORMING | 3, "which keeps level 3");
    faults(GP, UCODE, FAR_CALL(GATE_TO_USER, 0), "a gate to less privileged code");
    runs(FAR_CALL(GATE_FOR_KERNEL, 0), "a gate within level 0");

    static u8 stack1[256];
    rt_tss.esp1 = (u32)(stack1 + sizeof(stack1));
    rt_tss.ss1 = DATA_LEVEL1 | 1;
    t = user(u_far_call, GATE_TO_LEVEL1 | 3);
    rt_trapped(t, VECTOR_DONE, 0, "CALL through a gate from level 3 to level 1");
    check(seen[0] == (CODE_LEVEL1 | 1) && seen[1] == (DATA_LEVEL1 | 1), "CS and SS at level 1");
    static const struct {
        u16 selector;
        u8 vector;
        const char *name;
    } bad[] = {{0, TS, "null"},
               {BEYOND | 1, TS, "beyond the GDT"},
               {UDATA | 3, TS, "of DPL 3"},
               {DATA_LEVEL1, TS, "of RPL 0"},
               {CODE_LEVEL1 | 1, TS, "of code"},
               {DATA_READ_ONLY | 1, TS, "read-only"},
               {STACK_ABSENT1 | 1, SS, "not present"}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        rt_tss.ss1 = bad[i].selector;
        if (bad[i].vector == SS)
            tcg_differs("#TS, not #SS");
        user_faults(bad[i].vector, bad[i].selector & ~3u, u_far_call, GATE_TO_LEVEL1 | 3,
                    "the TSS's SS %s", bad[i].name);
    }
    tcg_differs("the limit is not checked");
    user_faults(GP, 0, u_far_call, GATE_SMALL | 3, "a gate beyond the code's limit");
}

/* --- interrupts ------------------------------------------------------------------------------ */

static struct frame interrupted;
static volatile word flags_inside;

static void note_interrupt(struct frame *f)
{
    interrupted = *f;
    flags_inside = read_flags();
}

USER_INSN(u_int_50, "int $0x50")
USER_INSN(u_int_52, "int $0x52")

static void interrupt_gates(void)
{
    word kept = FL_CF | FL_DF | FL_NT | 0x3000;
    rt_handler[0x50] = note_interrupt;
    reset_gate(0x50, GATE_INTR | SEG_DPL3, 0);
    write_flags(2 | FL_IF | kept);
    asm volatile("int $0x50");
    write_flags(2);
    equal(interrupted.flags & ~0xD5ul, 2 | FL_IF | (kept & ~FL_CF), "flags saved");
    equal(flags_inside & (FL_IF | FL_NT | FL_TF), 0, "an interrupt gate clears IF, NT and TF");
    reset_gate(0x50, GATE_TRAP | SEG_DPL3, 0);
    asm volatile("sti; int $0x50; cli");
    equal(flags_inside & FL_IF, FL_IF, "a trap gate leaves IF");

    rt_trapped(user(u_int_50, 0), VECTOR_DONE, 0, "INT n from level 3 and IRET back");
    equal(interrupted.cs, UCODE | 3, "CS saved");
    equal(interrupted.ss, UDATA | 3, "SS saved");
    equal(interrupted.ds, UDATA | 3, "DS stays");

    /* A 16-bit gate pushes words: the handler drops them and returns by itself. */
    rt_idt[0x51] = gate(NARROW, KCODE, 0x86);
    memcpy(NARROW, narrow, (size_t)(narrow_end - narrow));
    asm volatile("mov %%esp, seen + 12; mov $2f, %%ebx; int $0x51; 2:"
                 :
                 :
                 : "eax", "ebx", "memory");
    equal(seen[3] - seen[2], 6, "a 16-bit gate pushes three words");
    equal(seen[1], KCODE, "CS among them");

    rt_handler[0x50] = NULL;

    rt_idt[0x52] = gate(just_iret, UCODE | 3, GATE_INTR);
    faults(GP, UCODE, asm volatile(AT "int $0x52"), "a gate to less privileged code");
    rt_idt[0x52] = gate(just_iret, CODE_SMALL, GATE_INTR);
    tcg_differs("the limit is not checked");
    faults(GP, 0, asm volatile(AT "int $0x52"), "a gate beyond the code's limit");
    rt_idt[0x52] = gate(just_iret, CODE_LEVEL1, GATE_INTR | SEG_DPL3);
    rt_tss.ss1 = BEYOND | 1;
    user_faults(TS, BEYOND, u_int_52, 0, "INT n to level 1 with a bad stack there");
    rt_tss.ss1 = DATA_LEVEL1 | 1;
}

/* --- IRET ------------------------------------------------------------------------------------ */

/* IRET to CS:EIP with EFLAGS; at another level, also to SS:ESP. */
static void iret(word cs, word eip, word flags, word ss, word esp)
{
    asm volatile("push %0; push %1; push %2; push %3; push %4\n" AT "iret"
                 :
                 : "r"(ss), "r"(esp), "r"(flags), "r"(cs), "r"(eip)
                 : "memory");
}

/* What runs at level 3 after an IRET: reports its DS and flags. */
asm("    .pushsection .user.text, \"ax\"\n"
    "level3: pushf; pop %eax; mov %ds, %ecx; mov %es, %edx; mov %fs, %edi; mov %gs, %esi\n"
    "    int $0x20\n"
    "level3_iret: iret\n"
    "    .popsection\n");
extern u8 level3[], level3_iret[];
static u32 level3_stack[64];
#define LEVEL3_TOP ((word)(level3_stack + 32))

USER_CODE static word u_iret(word flags)
{
    word after;
    asm volatile("push %1; push %%cs; push $2f\n" USER_AT "iret; 2: pushf; pop %0"
                 : "=r"(after)
                 : "r"(flags)
                 : "memory");
    return after;
}

USER_CODE static word u_iret_to_kernel(word cs)
{
    asm volatile("pushf; push %0; push $0\n" USER_AT "iret" : : "r"(cs) : "memory");
    return 0;
}

static void returns(void)
{
    word here = (word)far_jumped;
    word outer = (word)level3;
    faults(GP, 0, iret(0, here, 2, 0, 0), "IRET to null");
    faults(GP, BEYOND, iret(BEYOND, here, 2, 0, 0), "IRET beyond the GDT");
    faults(GP, KDATA, iret(KDATA, here, 2, 0, 0), "IRET to data");
    faults(GP, UCODE, iret(UCODE, here, 2, 0, 0), "IRET to DPL 3 with RPL 0");
    faults(GP, KCODE, iret(KCODE | 3, here, 2, UDATA | 3, 0), "IRET to DPL 0 with RPL 3");
    faults(NP, CODE_ABSENT, iret(CODE_ABSENT, here, 2, 0, 0), "IRET to code not present");
    if (on_tcg())
        skip("the limit is not checked", "IRET beyond the limit");
    else
        faults(GP, 0, iret(CODE_SMALL, here, 2, 0, 0), "IRET beyond the limit");
    faults(GP, 0, iret(UCODE | 3, outer, 2, 0, LEVEL3_TOP), "IRET to level 3 with SS null");
    faults(GP, UDATA, iret(UCODE | 3, outer, 2, UDATA, LEVEL3_TOP), "with SS of RPL 0");
    faults(GP, KDATA, iret(UCODE | 3, outer, 2, KDATA | 3, LEVEL3_TOP), "with SS of DPL 0");
    faults(GP, UCODE, iret(UCODE | 3, outer, 2, UCODE | 3, LEVEL3_TOP), "with SS of code");

    asm volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%gs" : : "r"(KDATA), "r"(UDATA | 3));
    const struct trap *t = TRAP(iret(UCODE | 3, outer, 2 | FL_IF | 0x3000, UDATA | 3, LEVEL3_TOP));
    rt_trapped(t, VECTOR_DONE, 0, "IRET to level 3");
    equal(t->f.ax & (FL_IF | FL_IOPL), FL_IF | FL_IOPL, "at level 0 IRET sets IF and IOPL");
    equal(t->f.cx, 0, "DS of DPL 0 becomes null");
    equal(t->f.dx, 0, "ES of DPL 0 becomes null");
    equal(t->f.si, UDATA | 3, "GS of DPL 3 stays");
    asm volatile("mov %0, %%fs; mov %1, %%gs" : : "r"(2), "r"(3));
    t = TRAP(iret(UCODE | 3, outer, 2, UDATA | 3, LEVEL3_TOP));
    rt_trapped(t, VECTOR_DONE, 0, "IRET to level 3 with null selectors of RPL 2 and 3");
    tcg_differs("null selectors keep their RPL");
    check(!t->f.di && !t->f.si, "FS and GS become 0");
    asm volatile("mov %0, %%gs" : : "r"(1));
    t = TRAP(asm volatile("push %0; push %1; push %2; push %3\n" AT "lret" : : "r"(UDATA | 3),
                          "r"(LEVEL3_TOP), "r"(UCODE | 3), "r"(level3) : "memory"));
    rt_trapped(t, VECTOR_DONE, 0, "RETF to level 3 with a null selector of RPL 1");
    tcg_differs("null selectors keep their RPL");
    equal(t->f.si, 0, "GS becomes 0");

    rt_user_flags = 2;
    t = user(u_iret, 2 | FL_IF | FL_IOPL | FL_DF | FL_AC | FL_NT);
    rt_trapped(t, VECTOR_DONE, 0, "IRET within level 3");
    equal(t->f.ax & (FL_IF | FL_IOPL | FL_DF | FL_AC | FL_NT), FL_DF | FL_AC | FL_NT,
          "at level 3 IRET leaves IF and IOPL");
    rt_user_flags = 2 | FL_IOPL;
    t = user(u_iret, 2 | FL_IF);
    equal(t->f.ax & (FL_IF | FL_IOPL), FL_IF | FL_IOPL, "with IOPL 3 it sets IF, and leaves IOPL");
    rt_user_flags = 2;
    t = user(u_iret, 2 | FL_VM);
    tcg_differs("VM is taken at any level");
    equal(t->f.ax & FL_VM, 0, "at level 3 IRET cannot enter virtual-8086 mode");
    user_faults(GP, KCODE, u_iret_to_kernel, KCODE, "IRET from level 3 to level 0");
    t = TRAP(write_flags(2 | FL_NT); asm volatile(AT "iret"));
    check(t->f.vector == TS, "IRET with NT and no task to return to is #TS");
    t = TRAP(asm volatile("push %0; push %1; push %2; push %3\n" AT "lret" : : "r"(UDATA | 3),
                          "r"(LEVEL3_TOP), "r"(UCODE | 3), "r"(level3) : "memory"));
    rt_trapped(t, VECTOR_DONE, 0, "RETF to level 3");
    equal(t->f.sp, LEVEL3_TOP, "ESP at level 3");
    t = TRAP(asm volatile("push %0; push %1; push $0; push $0; push %2; push %3\n" AT
                          "lret $8" : : "r"(UDATA | 3),
                          "r"(LEVEL3_TOP), "r"(UCODE | 3), "r"(level3) : "memory"));
    equal(t->f.sp, LEVEL3_TOP + 8, "RETF 8 drops parameters of the outer stack too");
}

static void set_up(void)
{
    u32 code = SEG_CODE | SEG_BIG | SEG_PAGES, data = SEG_DATA | SEG_BIG | SEG_PAGES;
    set(CODE_ABSENT, descriptor(0, 0xFFFFF, code & ~SEG_P));
    set(CODE_CONFORMING, descriptor(0, 0xFFFFF, code | 4));
    set(CODE_CONFORMING3, descriptor(0, 0xFFFFF, code | 4 | SEG_DPL3));
    set(CODE_UNREADABLE, descriptor(0, 0xFFFFF, code & ~2u));
    set(CODE_SMALL, descriptor(0, 0xFFF, SEG_CODE | SEG_BIG));
    set(DATA_ABSENT, descriptor(0, 0xFFFFF, data & ~SEG_P));
    set(DATA_READ_ONLY, descriptor(0, 0xFFFFF, data & ~2u));
    set(STACK_ABSENT, descriptor(0, 0xFFFFF, data & ~SEG_P));
    set(STACK_ABSENT1, descriptor(0, 0xFFFFF, (data & ~SEG_P) | 0x20));
    set(DATA_FRESH, descriptor(0, 0xFFFFF, data & ~1u));
    set(CODE_LEVEL1, descriptor(0, 0xFFFFF, code | 0x20));
    set(DATA_LEVEL1, descriptor(0, 0xFFFFF, data | 0x20));
    set(GATE_TO_KERNEL, call_gate(far_landing, KCODE, GATE_CALL | SEG_DPL3, 2));
    set(GATE_FOR_KERNEL, call_gate(far_return, KCODE, GATE_CALL, 0));
    set(GATE_ABSENT, call_gate(far_landing, KCODE, (GATE_CALL | SEG_DPL3) & ~SEG_P, 2));
    set(GATE_NULL, call_gate(far_landing, 0, GATE_CALL | SEG_DPL3, 2));
    set(GATE_TO_DATA, call_gate(far_landing, KDATA, GATE_CALL | SEG_DPL3, 2));
    set(GATE_TO_ABSENT, call_gate(far_landing, CODE_ABSENT, GATE_CALL | SEG_DPL3, 2));
    set(GATE_TO_USER, call_gate(far_landing, UCODE | 3, GATE_CALL, 0));
    set(GATE_TO_LEVEL1, call_gate(far_landing, CODE_LEVEL1, GATE_CALL | SEG_DPL3, 2));
    set(GATE_SMALL, call_gate(far_landing, CODE_SMALL, GATE_CALL | SEG_DPL3, 2));
}

void test(void)
{
    set_up();
    segment_loads();
    user_faults(GP, KDATA, u_load_ds, KDATA, "DS of DPL 0 at level 3");
    user_faults(GP, KDATA, u_load_ds, KDATA | 3, "DS of DPL 0 at level 3, RPL 3");
    user_runs(u_load_ds, UDATA, "DS of DPL 3 at level 3, RPL 0");
    user_runs(u_load_ds, 0, "DS null at level 3");
    far_transfers();
    call_gates();
    interrupt_gates();
    returns();
}
