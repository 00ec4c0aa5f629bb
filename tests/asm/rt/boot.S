/*
 * Entry: from Multiboot 1 (32-bit protected mode, no paging) into the guest's own mode, for the
 * first processor and, through a real-mode page, for the others (SDM volume 3, 9.8, 9.8.5).
 *
 * CR0, CR4 and EFER start the same on every machine: CR0 = PE MP ET NE WP, CR4 = PAE in a 64-bit
 * guest and else 0, EFER = LME NXE in a 64-bit guest.
 */
#include "gdt.h"

#define CR0_BOOT 0x10033

    .section .multiboot, "a"
    .balign 4
    .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

    .text
    .code32
    .globl rt_start
rt_start:
    cli
    mov $rt_stack_top, %esp
    mov $rt_main, %ebx
    call make_boot_tables

/* EBX: where to go, ESP: the stack. */
enter:
    cld
    push $0
    popf
    lgdt rt_gdtr
    mov $KDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
#ifdef __x86_64__
    mov $0x20, %eax
    mov %eax, %cr4
    mov $rt_boot_pml4, %eax
    mov %eax, %cr3
    mov $0xC0000080, %ecx
    xor %edx, %edx
    mov $0x900, %eax
    wrmsr
    mov $(CR0_BOOT | 0x80000000), %eax
    mov %eax, %cr0
    ljmp $KCODE, $1f
    .code64
1:  mov %ebx, %ebx
    call *%rbx
#else
    xor %eax, %eax
    mov %eax, %cr4
    mov $CR0_BOOT, %eax
    mov %eax, %cr0
    ljmp $KCODE, $1f
1:  call *%ebx
#endif
2:  cli
    hlt
    jmp 2b

    .code32
/* Identity-maps 4 GiB with 2 MiB pages, open to user code. */
make_boot_tables:
#ifdef __x86_64__
    movl $(rt_boot_pdpt + 7), rt_boot_pml4
    mov $(rt_boot_pd + 7), %eax
    xor %ecx, %ecx
1:  mov %eax, rt_boot_pdpt(, %ecx, 8)
    add $4096, %eax
    inc %ecx
    cmp $4, %ecx
    jb 1b
    mov $0x87, %eax
    xor %ecx, %ecx
1:  mov %eax, rt_boot_pd(, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jb 1b
#endif
    ret

ap_protected:
    mov $KDATA, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov rt_ap_stack, %esp
    mov $rt_ap_main, %ebx
    jmp enter

/* Copied to AP_PAGE. */
    .code16
    .globl rt_ap_code, rt_ap_code_end
rt_ap_code:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl AP_PAGE + 1f - rt_ap_code
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $KCODE32, $ap_protected
    .balign 4
1:  .word GDT_SLOTS * 8 - 1
    .long rt_gdt
rt_ap_code_end:

    .data
    .balign 8
    .globl rt_gdt, rt_gdtr
rt_gdt:
    .quad 0
#ifdef __x86_64__
    .quad 0x00AF9B000000FFFF
#else
    .quad 0x00CF9B000000FFFF
#endif
    .quad 0x00CF93000000FFFF
    .quad 0x00CFFB000000FFFF
    .quad 0x00CFF3000000FFFF
    .quad 0x00AFFB000000FFFF
    .quad 0x00CFF3000000FFFF
    .quad 0x00CF9B000000FFFF
    .quad 0x00009B000000FFFF
    .quad 0x000093000000FFFF
    .fill GDT_SLOTS - 10, 8, 0
    .word 0
rt_gdtr:
    .word GDT_SLOTS * 8 - 1
    .long rt_gdt, 0

    .bss
    .balign 4096
#ifdef __x86_64__
    .globl rt_boot_pml4
rt_boot_pml4:
    .skip 4096
rt_boot_pdpt:
    .skip 4096
rt_boot_pd:
    .skip 4 * 4096
#endif
    .skip 16384
rt_stack_top:

    .section .note.GNU-stack, "", @progbits
