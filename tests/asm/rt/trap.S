/*
 * Trap entry for all 256 vectors, the mark that a caught trap returns to, and the way into user
 * mode. struct frame in rt.h describes what is pushed here.
 */
#include "gdt.h"

#ifdef __x86_64__
#define WORD 8
#else
#define WORD 4
#endif

    .text
    .globl rt_stubs
    .balign 16
rt_stubs:
    vector = 0
    .rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
    .else
    push $0
    .endif
    push $vector
    jmp common
    vector = vector + 1
    .endr

#ifdef __x86_64__
common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rsp
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call rt_dispatch
    mov %rbx, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

/* int rt_mark(void): 0 now, 1 when a trap comes back here. */
    .globl rt_mark, rt_unwind
rt_mark:
    pushf
    pop mark_flags
    mov (%rsp), %rax
    mov %rax, mark_ip
    lea 8(%rsp), %rax
    mov %rax, mark_sp
    mov %rbx, mark_regs
    mov %rbp, mark_regs + 8
    mov %r12, mark_regs + 16
    mov %r13, mark_regs + 24
    mov %r14, mark_regs + 32
    mov %r15, mark_regs + 40
    xor %eax, %eax
    ret
rt_unwind:
    mov $KDATA, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    mov mark_sp, %rsp
    mov mark_regs, %rbx
    mov mark_regs + 8, %rbp
    mov mark_regs + 16, %r12
    mov mark_regs + 24, %r13
    mov mark_regs + 32, %r14
    mov mark_regs + 40, %r15
    push mark_flags
    popf
    mov $1, %eax
    jmp *mark_ip

/* void rt_enter_user(void *code, unsigned long arg, void *stack, unsigned long flags,
 *                    unsigned cs) */
    .globl rt_enter_user
rt_enter_user:
    mov %rdi, %rax
    mov %rsi, %rdi
    push $(UDATA | 3)
    push %rdx
    push %rcx
    push %r8
    push %rax
    iretq
#else
common:
    push %ds
    push %es
    push %fs
    push %gs
    pusha
    mov $KDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    mov %esp, %ebx
    and $-16, %esp
    sub $12, %esp
    push %ebx
    call rt_dispatch
    mov %ebx, %esp
    popa
    pop %gs
    pop %fs
    pop %es
    pop %ds
    add $8, %esp
    iret

    .globl rt_mark, rt_unwind
rt_mark:
    pushf
    pop mark_flags
    mov (%esp), %eax
    mov %eax, mark_ip
    lea 4(%esp), %eax
    mov %eax, mark_sp
    mov %ebx, mark_regs
    mov %ebp, mark_regs + 4
    mov %esi, mark_regs + 8
    mov %edi, mark_regs + 12
    xor %eax, %eax
    ret
rt_unwind:
    mov $KDATA, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov mark_sp, %esp
    mov mark_regs, %ebx
    mov mark_regs + 4, %ebp
    mov mark_regs + 8, %esi
    mov mark_regs + 12, %edi
    push mark_flags
    popf
    mov $1, %eax
    jmp *mark_ip

    .globl rt_enter_user
rt_enter_user:
    mov 4(%esp), %eax
    mov 12(%esp), %edx
    mov 16(%esp), %ecx
    mov 20(%esp), %ebx
    push $(UDATA | 3)
    push %edx
    push %ecx
    push %ebx
    push %eax
    mov $(UDATA | 3), %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    iret
#endif

    .bss
    .balign 8
mark_ip:
    .skip 8
mark_sp:
    .skip 8
mark_flags:
    .skip 8
mark_regs:
    .skip 48

    .section .user.text, "ax"
/* Where user code returns to; its result is in the frame's AX. */
    .globl rt_user_return
rt_user_return:
    int $VECTOR_DONE

    .section .note.GNU-stack, "", @progbits
