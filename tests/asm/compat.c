/*
 * Compatibility mode, 16-bit code under long mode, and leaving and entering long mode
 * (SDM volume 1, 3.2.1; volume 3, 9.8.5).
 */
#include "rt/rt.h"

enum {
    CODE_BASED = SPARE, /* 32-bit code with a base */
    DATA_SMALL = SPARE + 8,
    CODE16_HIGH = SPARE + 16, /* 16-bit code based where this guest's is */
    DATA_BASED = SPARE + 24,
};

static volatile u32 seen[16];

/*
 * Each part is entered by a far jump from 64-bit code with R15 = where to come back to, and leaves
 * by one. ESI, EDI and EBX are its arguments.
 */
asm("    .code32\n"
    "basics:\n"
    "    mov %esp, seen\n"
    "    push $-1\n"
    "    mov %esp, seen + 4\n"
    "    add $4, %esp\n"
    "    mov $1, %eax\n"
    "    .byte 0x48\n" /* DEC EAX here, REX.W there */
    "    mov %eax, seen + 8\n"
    "    mov $0xFFFFFFFF, %eax\n"
    "    mov seen - 1(%eax, %eax), %ecx\n" /* wraps at 32 bits: seen - 3 */
    "    mov %ecx, seen + 12\n"
    "    mov $0x12345678, %eax\n"
    "    ljmp $0x08, $back\n"
    "limits:\n"
    "    mov %esi, %fs\n"
    "    movb %fs:(%edi), %al\n"
    "    ljmp $0x08, $back\n"
    "trap:\n"
    "    int $0x70\n"
    "    ljmp $0x08, $back\n"
    "no_swapgs:\n"
    "    .byte 0x0F, 0x01, 0xF8\n" /* SWAPGS */
    "    ljmp $0x08, $back\n"
    /* Out of long mode and into it again, with paging off between. */
    "leave:\n"
    "    mov %cr0, %eax\n"
    "    btr $31, %eax\n"
    "    mov %eax, %cr0\n"
    "    jmp 1f\n"
    "1:  mov $0xC0000080, %ecx\n"
    "    rdmsr\n"
    "    mov %eax, seen\n"
    "    mov %cr4, %eax\n"
    "    mov %eax, seen + 4\n"
    "    mov %cr0, %eax\n"
    "    bts $31, %eax\n"
    "    mov %eax, %cr0\n"
    "    rdmsr\n"
    "    mov %eax, seen + 8\n"
    "    ljmp $0x08, $back\n"
    "    .code64\n"
    "back:\n"
    "    jmp *%r15\n");
extern u8 basics[], limits[], trap[], no_swapgs[], leave[];

asm("    .code16\n"
    "sixteen:\n"
    "    mov $0xFFFF, %ax\n"
    "    push %ax\n"
    "    mov %esp, %ecx\n"
    "    pop %ax\n"
    "    inc %ax\n" /* INC AX in 16-bit code */
    "    pushf; pop %dx\n"
    "    ljmpl $0x08, $sixteen_back\n"
    "    .code64\n"
    "sixteen_back:\n"
    "    movzwl %ax, %eax; mov %eax, seen\n"
    "    mov %ecx, seen + 4\n"
    "    movzwl %dx, %eax; mov %eax, seen + 8\n"
    "    jmp *%r15\n");
extern u8 sixteen[];

/* Runs CODE in the segment SELECTOR. */
static void enter(unsigned selector, u8 *code, word si, word di)
{
    struct {
        u32 offset;
        u16 selector;
    } __attribute__((packed)) to = {(u32)(word)code, (u16)selector};
    asm volatile("lea 2f(%%rip), %%r15; ljmp *%0; 2:"
                 :
                 : "m"(to), "S"(si), "D"(di)
                 : "rax", "rbx", "rcx", "rdx", "r15", "memory", "cc");
}

static void compatibility(void)
{
    seen[0] = 0;
    word high = 0x123456789ABCDEF0, r8;
    asm volatile("mov %0, %%r8" : : "r"(high) : "r8");
    runs(enter(KCODE32, basics, 0, 0), "32-bit code under long mode");
    asm volatile("mov %%r8, %0" : "=r"(r8));
    equal(r8, high, "R8 survives");
    equal(seen[0] - seen[1], 4, "PUSH is four bytes");
    equal(seen[2], 0, "48h is DEC EAX");
    equal(seen[3], *(volatile u32 *)((u8 *)seen - 3), "addresses wrap at 32 bits");
    struct trap *t = TRAP(enter(KCODE32, trap, 0, 0));
    rt_trapped(t, 0x70, 0, "INT n from 32-bit code");
    check(t->f.cs == KCODE32 && t->f.ss == KDATA, "has a 64-bit frame");
    equal(t->f.ip, (word)trap + 2, "with its EIP");
    faults(UD, 0, enter(KCODE32, no_swapgs, 0, 0), "SWAPGS in compatibility mode");
    runs(enter(KCODE32, limits, DATA_SMALL, 0xFFF), "up to a segment's limit");
    tcg_differs("no limits");
    faults(GP, 0, enter(KCODE32, limits, DATA_SMALL, 0x1000), "beyond it");
    tcg_differs("null is not looked for");
    faults(GP, 0, enter(KCODE32, limits, 0, 0), "through a null segment");
    runs(enter(CODE_BASED, basics - 0x1000, 0, 0), "code with a base");
    runs(enter(KCODE32, limits, DATA_BASED, 0x1000), "data with a base near 4G wraps");
    LOAD_SEGMENT("fs", 0);
}

static void narrow(void)
{
    rt_gdt[CODE16_HIGH / 8] = descriptor((u32)(word)sixteen, 0xFFFF, SEG_CODE);
    word sp;
    asm volatile("mov %%rsp, %0" : "=r"(sp));
    runs(enter(CODE16_HIGH, 0, 0, 0), "16-bit code under long mode");
    equal(seen[0], 0, "INC AX of FFFFh");
    check(seen[2] & FL_ZF, "sets ZF");
    check((u32)sp > seen[1], "with a 32-bit stack");
}

static void long_mode(void)
{
    runs(enter(KCODE32, leave, 0, 0), "out of long mode, and back");
    equal(seen[0] & (EFER_LME | EFER_LMA), EFER_LME, "EFER.LMA goes with CR0.PG");
    equal(seen[2] & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "and comes with it");
    if (on_tcg()) {
        skip("it takes what leads nowhere", "control bits that may not be");
        return;
    }
    faults(GP, 0, write_cr0(read_cr0() & ~CR0_PG), "clearing CR0.PG in 64-bit code");
    faults(GP, 0, write_cr4(read_cr4() & ~CR4_PAE), "clearing CR4.PAE");
    faults(GP, 0, wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_LME), "clearing EFER.LME");
    faults(GP, 0, wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1ull << 63), "a reserved bit of EFER");
    faults(GP, 0, write_cr0(read_cr0() | 1ul << 32), "the upper half of CR0");
    faults(GP, 0, write_cr4(read_cr4() | 1ul << 32), "the upper half of CR4");
    faults(GP, 0, write_cr0(read_cr0() & ~CR0_PE), "CR0.PG without PE");
    faults(GP, 0, write_cr0((read_cr0() & ~CR0_CD) | CR0_NW), "CR0.NW without CD");
}

void test(void)
{
    u32 code = SEG_CODE | SEG_BIG | SEG_PAGES, data = SEG_DATA | SEG_BIG;
    rt_gdt[CODE_BASED / 8] = descriptor(0x1000, 0xFFFFF, code);
    rt_gdt[DATA_SMALL / 8] = descriptor(0x100000, 0xFFF, data);
    rt_gdt[DATA_BASED / 8] = descriptor(0xFFFFF000, 0xFFFFF, data | SEG_PAGES);
    compatibility();
    narrow();
    long_mode();
}
