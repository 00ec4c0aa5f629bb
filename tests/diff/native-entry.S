/*
 * The signal handler's outer part. A case runs with segment registers, FS and GS bases and an AC
 * flag of its own; C code must have the process's back before it runs (thread-local storage is
 * reached through FS), and the kernel does not switch these on signal delivery and return. ID and
 * NT, which a case can set, would otherwise stay set for good.
 */
    .text
    .globl native_entry
    .type native_entry, @function
native_entry:
    pushfq
    andl    $~0x244000, (%rsp)      /* ID, AC, NT */
    popfq
    leaq    native_swap(%rip), %rcx
    rdfsbase %rax
    movq    %rax, 16(%rcx)
    rdgsbase %rax
    movq    %rax, 24(%rcx)
    movw    %ds, 32(%rcx)
    movw    %es, 34(%rcx)
    movw    %fs, 36(%rcx)
    movw    %gs, 38(%rcx)
    movq    0(%rcx), %rax
    wrfsbase %rax
    movq    8(%rcx), %rax
    wrgsbase %rax
    subq    $8, %rsp
    call    native_signal
    addq    $8, %rsp
    leaq    native_swap(%rip), %rcx
    movw    32(%rcx), %ds
    movw    34(%rcx), %es
    movw    36(%rcx), %fs
    movw    38(%rcx), %gs
    movq    16(%rcx), %rax
    wrfsbase %rax
    movq    24(%rcx), %rax
    wrgsbase %rax
    ret
    .size native_entry, . - native_entry

    .bss
    .balign 16
    .globl native_swap
    .hidden native_swap
native_swap:
    .skip   40

    .section .note.GNU-stack, "", @progbits
