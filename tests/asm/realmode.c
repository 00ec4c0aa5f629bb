/*
 * Down to real mode and back: interrupts through the IVT, address wrap, segments that keep their
 * protected-mode limits ("unreal" mode), 16-bit protected mode, and faults without error codes
 * (SDM volume 3, 9.9, 20.1).
 */
#include "rt/rt.h"

#define LOW     0x10000 /* where the code below is copied: segment 1000h */
#define LOW_SEG 0x1000
#define RESULTS 0x0F00 /* offset from LOW of an array of words */

/*
 * Entered in 32-bit mode by a call with the address of a 16-bit routine in EAX. Goes down, calls
 * the routine with DS = ES = SS = 1000h, and comes back. Position: LOW.
 */
asm("    .pushsection .rodata\n"
    "    .balign 16\n"
    "low_begin:\n"
    "    .code32\n"
    "go_down:\n"
    "    pusha\n"
    "    mov %esp, 0x10E00\n"
    "    sgdt 0x10E10\n"
    "    sidt 0x10E20\n"
    "    mov %eax, %ebx\n"
    "    ljmp $0x60, $(1f - low_begin)\n"
    "    .code16\n"
    "1:  mov $0x68, %ax\n" /* 16-bit data: limit FFFFh */
    "    mov %ax, %ds\n"
    "    mov %ax, %es\n"
    "    mov %ax, %ss\n"
    "    lidtl %cs:ivt - low_begin\n"
    "    mov %cr0, %eax\n"
    "    and $0xFE, %al\n"
    "    mov %eax, %cr0\n"
    "    ljmp $0x1000, $(2f - low_begin)\n"
    "2:  mov %cs, %ax\n"
    "    mov %ax, %ds\n"
    "    mov %ax, %es\n"
    "    mov %ax, %ss\n"
    "    mov $0xE000, %esp\n"
    "    call *%bx\n"
    /* Back up. */
    "come_up:\n"
    "    cli\n"
    "    mov $0x1000, %ax\n"
    "    mov %ax, %ds\n"
    "    lgdtl 0xE10\n"
    "    mov %cr0, %eax\n"
    "    or $1, %al\n"
    "    mov %eax, %cr0\n"
    "    ljmpl $0x08, $(0x10000 + 3f - low_begin)\n"
    "    .code32\n"
    "3:  mov $0x10, %eax\n"
    "    mov %eax, %ds\n"
    "    mov %eax, %es\n"
    "    mov %eax, %ss\n"
    "    mov %eax, %fs\n"
    "    mov %eax, %gs\n"
    "    mov 0x10E00, %esp\n"
    "    lidt 0x10E20\n"
    "    popa\n"
    "    ret\n"
    "ivt: .word 0x3FF\n"
    "    .long 0\n"
    "    .code16\n"

    /* INT n: vector 60h goes to int_handler, which notes what was pushed. */
    "real_int:\n"
    "    push $0\n"
    "    pop %es\n"
    "    movw $(int_handler - low_begin), %es:0x180\n"
    "    movw %cs, %es:0x182\n"
    "    sti\n"
    "    mov %sp, 0xF00\n"
    "    int $0x60\n"
    "real_int_after:\n"
    "    mov %sp, 0xF0C\n"
    "    pushf\n"
    "    pop 0xF0E\n"
    "    cli\n"
    "    ret\n"
    "int_handler:\n"
    "    mov %sp, %bp\n"
    "    mov %bp, 0xF02\n"
    "    mov (%bp), %ax\n"
    "    sub $(real_int_after - low_begin), %ax\n"
    "    mov %ax, 0xF04\n"
    "    mov 2(%bp), %ax\n"
    "    mov %ax, 0xF06\n"
    "    mov 4(%bp), %ax\n"
    "    mov %ax, 0xF08\n"
    "    pushf\n"
    "    pop 0xF0A\n"
    "    iret\n"

    /* Faults: #DE, #UD and a word at FFFFh, each by the IVT and without an error code. */
    "real_faults:\n"
    "    push $0\n"
    "    pop %es\n"
    "    movw $(fault_handler - low_begin), %es:0\n"
    "    movw %cs, %es:2\n"
    "    movw $(fault_handler - low_begin), %es:0x18\n"
    "    movw %cs, %es:0x1A\n"
    "    movw $(fault_handler - low_begin), %es:0x34\n"
    "    movw %cs, %es:0x36\n"
    "    movw $(fault_handler - low_begin), %es:0x30\n"
    "    movw %cs, %es:0x32\n"
    "    mov $0xF00, %di\n"
    "    xor %cx, %cx\n"
    "    mov $(4f - low_begin), %si\n"
    "    div %cl\n"
    "4:  mov $(5f - low_begin), %si\n"
    "    lldt %ax\n"
    "5:  mov $(6f - low_begin), %si\n"
    "    mov $0xFFFF, %bx\n"
    "    mov (%bx), %ax\n"
    "6:  mov $(7f - low_begin), %si\n"
    "    mov $0xFFFF, %ebp\n"
    "    mov (%ebp), %eax\n"
    "7:  mov $(8f - low_begin), %si\n"
    "    mov $0x10000, %ebx\n"
    "    mov (%ebx), %al\n"
    "8:  ret\n"
    /* Notes the stack's depth, and goes on at SI. */
    "fault_handler:\n"
    "    mov %sp, %ax\n"
    "    mov %ax, (%di)\n"
    "    add $2, %di\n"
    "    mov %sp, %bp\n"
    "    mov %si, (%bp)\n"
    "    iret\n"

    /* INT n beyond the limit of the IVT is #GP; TF steps. */
    "real_limits:\n"
    "    push $0\n"
    "    pop %es\n"
    "    movw $(fault_handler - low_begin), %es:0x34\n"
    "    movw %cs, %es:0x36\n"
    "    movw $(count_handler - low_begin), %es:4\n"
    "    movw %cs, %es:6\n"
    "    lidtl %cs:short_ivt - low_begin\n"
    "    mov $0xF00, %di\n"
    "    mov $(9f - low_begin), %si\n"
    "    int $0x80\n"
    "9:  lidtl %cs:ivt - low_begin\n"
    "    xor %cx, %cx\n"
    "    push $0x102\n"
    "    popf\n"
    "    nop\n"
    "    nop\n"
    "    push $2\n"
    "    popf\n"
    "    mov %cx, 0xF02\n"
    "    ret\n"
    "count_handler:\n"
    "    inc %cx\n"
    "    iret\n"
    "short_ivt: .word 0x1FF\n"
    "    .long 0\n"

    /* Addresses: wrap of 16-bit effective addresses, and segments with A20 open. */
    "real_addresses:\n"
    "    mov $0xFFFF, %bx\n"
    "    mov $0x11, %si\n"
    "    movb $0x5A, 0x10\n"
    "    mov (%bx,%si), %al\n" /* FFFFh + 11h = 10h */
    "    mov %al, 0xF00\n"
    "    mov $0xFFFF, %ax\n"
    "    mov %ax, %es\n"
    "    mov %es:0x10, %eax\n" /* 100000h: the guest's own image */
    "    mov %eax, 0xF02\n"
    "    mov %cs, 0xF06\n"
    "    mov %ss, 0xF08\n"
    "    push %sp\n"
    "    pop %ax\n"
    "    mov %ax, 0xF0A\n"
    "    mov %sp, 0xF0C\n"
    "    smsw %ax\n"
    "    mov %ax, 0xF0E\n"
    "    ret\n"

    /* A stack pointer of 0: PUSH wraps to FFFEh. */
    "real_stack:\n"
    "    mov %sp, %bp\n"
    "    xor %esp, %esp\n"
    "    push $0x1234\n"
    "    mov %sp, %ax\n"
    "    mov %bp, %sp\n"
    "    mov %ax, 0xF00\n"
    "    mov 0xFFFE, %ax\n"
    "    mov %ax, 0xF02\n"
    "    ret\n"

    /* Unreal mode: FS gets a 4 GiB limit in protected mode and keeps it. */
    "real_unreal:\n"
    "    lgdtl 0xE10\n"
    "    mov %cr0, %eax\n"
    "    or $1, %al\n"
    "    mov %eax, %cr0\n"
    "    mov $0x10, %cx\n"
    "    mov %cx, %fs\n"
    "    and $0xFE, %al\n"
    "    mov %eax, %cr0\n"
    "    mov $0x100000, %ebx\n"
    "    mov %fs:(%ebx), %eax\n"
    "    mov %eax, 0xF00\n"
    "    mov $0x1000, %ax\n" /* a load changes the base and not the limit */
    "    mov %ax, %fs\n"
    "    mov $0xF0000, %ebx\n"
    "    mov %fs:(%ebx), %eax\n"
    "    mov %eax, 0xF04\n"
    "    ret\n"
    "low_end:\n"
    "    .code32\n"
    "    .popsection\n");
extern u8 low_begin[], low_end[], go_down[], real_int[], real_faults[], real_addresses[],
    real_stack[], real_unreal[], real_limits[], int_handler[];

static volatile u16 *const results = (volatile u16 *)(LOW + RESULTS);

static void in_real_mode(u8 *routine)
{
    memset((void *)results, 0, 64);
    asm volatile("call *%0"
                 :
                 : "r"(LOW + (go_down - low_begin)), "a"(routine - low_begin)
                 : "memory", "cc");
}

static void interrupts(void)
{
    in_real_mode(real_int);
    equal((u16)(results[0] - results[1]), 6, "INT pushes three words");
    equal(results[2], 0, "IP after it");
    equal(results[3], LOW_SEG, "CS");
    equal(results[4] & FL_IF, FL_IF, "FLAGS as before");
    equal(results[5] & (FL_IF | FL_TF), 0, "IF and TF are cleared");
    equal(results[6], results[0], "IRET pops them");
    equal(results[7] & FL_IF, FL_IF, "and IF comes back");
}

static void faults_without_codes(void)
{
    static const char *const name[] = {"DIV", "LLDT", "a word at FFFFh", "a dword at SS:FFFFh",
                                       "a byte at 10000h"};
    in_real_mode(real_faults);
    for (unsigned i = 0; i < 5; i++) {
        if (i >= 2)
            tcg_differs("no limits");
        equal(results[i], 0xE000 - 2 - 6, "%s faults, with three words and no error code", name[i]);
    }
}

static void limits(void)
{
    in_real_mode(real_limits);
    equal(results[0], 0xE000 - 2 - 6, "INT n beyond the IVT's limit is #GP");
    equal(results[1], 4, "TF traps after each instruction");
}

static void addresses(void)
{
    u32 image = *(volatile u32 *)0x100000;
    in_real_mode(real_addresses);
    equal(results[0] & 0xFF, 0x5A, "16-bit addresses wrap at 64K");
    equal(results[1] | (u32)results[2] << 16, image, "FFFF:0010 is above 1M");
    equal(results[3], LOW_SEG, "CS is the segment");
    equal(results[4], LOW_SEG, "SS is the segment");
    equal(results[5], 0xE000 - 2, "PUSH SP pushes the old one");
    equal(results[6], 0xE000 - 2, "SP comes back");
    equal(results[7] & 1, 0, "CR0.PE is clear");
    in_real_mode(real_stack);
    equal(results[0], 0xFFFE, "PUSH at SP 0 wraps to FFFEh");
    equal(results[1], 0x1234, "where the word is");
    in_real_mode(real_unreal);
    equal(results[0] | (u32)results[1] << 16, image, "a 4G limit survives the way down");
    equal(results[2] | (u32)results[3] << 16, image, "and loads of the register");
}

/*
 * 16-bit protected mode: default sizes and their prefixes. Entered by a far call, SP in a 16-bit
 * stack.
 */
asm("    .pushsection .rodata\n"
    "narrow_begin:\n"
    "    .code16\n"
    "    mov $0xFFFFFFFF, %eax\n"
    "    mov $0x1234, %ax\n"
    "    mov %eax, 0xF00\n"
    "    mov $0x1F00F, %esi\n"
    "    mov $0xF00, %si\n" /* ESI = 10F00h */
    "    mov (%si), %cx\n"  /* only SI counts */
    "    mov %cx, 0xF04\n"
    "    mov $0x10F00, %esp\n"
    "    pushl $0x55667788\n" /* only SP counts */
    "    mov 0xEFC, %eax\n"
    "    mov %eax, 0xF08\n"
    "    mov %esp, 0xF0C\n"
    "    call 1f\n"
    "1:  mov %esp, 0xF10\n"
    "    mov $3, %ecx\n"
    "    mov $0x20000, %ecx\n"
    "    xor %dx, %dx\n"
    "2:  inc %dx\n"
    "    cmp $5, %dx\n"
    "    je 3f\n"
    "    addr32 loop 2b\n" /* counts ECX, which is not 0 */
    "3:  mov %dx, 0xF14\n"
    "    ljmpl $0x08, $narrow_back\n"
    "narrow_end:\n"
    "    .code32\n"
    "    .popsection\n"
    "narrow_back:\n"
    "    mov $0x10, %eax\n"
    "    mov %eax, %ds\n"
    "    mov %eax, %ss\n"
    "    mov %ebx, %esp\n"
    "    jmp *%ebp\n");
extern u8 narrow_begin[], narrow_end[];

static void narrow(void)
{
    memcpy((void *)(LOW + 0x8000), narrow_begin, (size_t)(narrow_end - narrow_begin));
    memset((void *)results, 0, 64);
    asm volatile("push %%ebp; mov %%esp, %%ebx; mov $1f, %%ebp\n"
                 "mov %w0, %%ds; mov %w0, %%ss; ljmp $0x60, $0x8000\n"
                 "1: pop %%ebp"
                 :
                 : "r"(0x68)
                 : "eax", "ebx", "ecx", "edx", "esi", "memory", "cc");
    volatile u32 *r = (volatile u32 *)results;
    equal(r[0], 0xFFFF1234, "16-bit code: MOV AX leaves the upper half");
    equal(r[1] & 0xFFFF, 0x1234, "addresses use SI, not ESI");
    equal(r[2], 0x55667788, "PUSH uses SP, not ESP");
    equal(r[3], 0x10EFC, "and leaves the upper half of ESP");
    equal(r[4], 0x10EFA, "near CALL pushes a word");
    equal(r[5] & 0xFFFF, 5, "67h makes LOOP count ECX");
}

void test(void)
{
    /* 60h: 16-bit code at LOW; 68h: 16-bit data there. */
    rt_gdt[0x60 / 8] = descriptor(LOW, 0xFFFF, SEG_CODE);
    rt_gdt[0x68 / 8] = descriptor(LOW, 0xFFFF, SEG_DATA);
    memcpy((void *)LOW, low_begin, (size_t)(low_end - low_begin));
    interrupts();
    faults_without_codes();
    limits();
    addresses();
    narrow();
}
