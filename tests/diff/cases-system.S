/*
 * Cases written by hand: what depends on privilege, segments and traps, and code that
 * changes itself. See cases.inc.
 */
#include "cases.inc"

/* Interrupts and single step. */

    CASE int_3_long, 64
    .byte 0xcd, 0x03
    END int_3_long

    CASE int_4, 64
    int 4
    END int_4

    CASE int_0, 64
    int 0
    END int_0

    CASE int_13, 64
    int 13
    END int_13

    CASE int_ff, 64
    int 0xff
    END int_ff

    CASE single_step, 64
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    add eax, edx
    nop
    END single_step

    CASE single_step_fault, 64
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    mov eax, [rbx + 0x1000]
    nop
    END single_step_fault

    CASE single_step_jump, 64
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    jmp 1f
    nop
1:  nop
    END single_step_jump

    CASE single_step_mov_ss, 64
    mov eax, ss
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    mov ss, eax
    inc edx
    inc edx
    END single_step_mov_ss

    CASE single_step_popf, 64
    pushfq
    pop rax
    push rax
    or eax, 0x100
    push rax
    popfq
    popfq
    nop
    END single_step_popf

    CASE single_step_pushf, 64
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    pushfq
    nop
    END single_step_pushf

/* Segments. */

    CASE far_to_32_and_back, 64
    /* Through memory: m16:32. */
    lea eax, [rip + 1f]
    mov [rbx], eax
    mov dword ptr [rbx + 4], 0x23
    mov r8, rbx
    mov ebx, ebx
    .byte 0xff, 0x2b
1:  .code32
    mov eax, cs
    inc edx
    push ds
    pop es
    call 2f
2:  pop ecx
    .byte 0x81, 0xc1
    .long 3f - 2b
    push 0x33
    push ecx
    retf
3:  .code64
    mov eax, cs
    mov r9, rsp
    END far_to_32_and_back

    CASE iret_to_32, 64
    mov eax, esp
    push 0x2b
    push rax
    pushfq
    push 0x23
    lea rax, [rip + 1f]
    push rax
    iretq
1:  .code32
    pushfd
    pop eax
    END iret_to_32

    CASE iret_bad_ss, 64
    push 0
    push rsp
    pushfq
    push 0x33
    push rbx
    iretq
    END iret_bad_ss

    CASE iret_bad_cs, 64
    push 0x2b
    push rsp
    pushfq
    push 0x2b
    push rbx
    iretq
    END iret_bad_cs

    CASE iret_kernel, 64
    push 0x18
    push rsp
    pushfq
    push 0x10
    push rbx
    iretq
    END iret_kernel

    CASE far_to_kernel, 64
    mov dword ptr [rbx], 0
    mov dword ptr [rbx + 4], 0x10
    .byte 0xff, 0x2b
    END far_to_kernel

    CASE far_to_data, 64
    mov dword ptr [rbx + 4], 0x2b
    .byte 0xff, 0x1b
    END far_to_data

    CASE far_to_null, 64
    mov dword ptr [rbx + 4], 3
    .byte 0xff, 0x2b
    END far_to_null

    CASE far_beyond_table, 64
    mov dword ptr [rbx + 4], 0x803
    .byte 0xff, 0x2b
    END far_beyond_table

    CASE far_call_and_return, 64
    lea rax, [rip + 1f]
    mov [rbx], eax
    mov dword ptr [rbx + 4], 0x33
    .byte 0xff, 0x1b
    jmp 2f
1:  mov rdx, [rsp]
    .byte 0xcb
2:  cmp al, 1
    END far_call_and_return

    CASE segment_lookups, 64
    xor ecx, ecx
1:  lar eax, ecx
    setz r8b
    lsl edx, ecx
    setz r9b
    verr cx
    setz r10b
    verw cx
    setz r11b
    and eax, 0xf0ff00
    add r12, rax
    add r13, rdx
    rol r14, 1
    xor r14, r8
    add ecx, 1
    cmp ecx, 0x33
    jbe 1b
    xor eax, eax
    xor edx, edx
    cmp ecx, eax
    END segment_lookups

    CASE segment_loads, 64
    mov eax, 0x2b
    mov ds, eax
    xor edx, edx
    mov es, edx
    mov r8d, ds
    mov r9w, es
    mov [rbx], ds
    mov fs, eax
    rdfsbase r10
    mov edx, 0x33
    mov gs, edx
    rdgsbase r11
    END segment_loads

    CASE segment_load_null_ss, 64
    xor eax, eax
    mov ss, eax
    END segment_load_null_ss

    CASE segment_load_kernel, 64
    mov eax, 0x18
    mov ds, eax
    END segment_load_kernel

    CASE segment_load_beyond, 64
    mov eax, 0x1003
    mov fs, eax
    END segment_load_beyond

    CASE segment_bases, 64
    mov rax, 0x10007000
    wrfsbase rax
    mov rdx, fs:[0x10]
    mov rcx, 0x300000000000
    wrgsbase rcx
    rdgsbase r8
    mov r9, gs:[0x10007010]
    wrfsbase eax
    rdfsbase r10d
    END segment_bases

    CASE segment_base_not_canonical, 64
    mov rax, 0x800000000000
    wrgsbase rax
    END segment_base_not_canonical

/* Privileged instructions. */

    CASE privileged_hlt, 64
    hlt
    END privileged_hlt

    CASE privileged_port, 64
    mov edx, 0x60
    in al, dx
    END privileged_port

    CASE privileged_cr, 64
    mov rax, cr0
    END privileged_cr

    CASE privileged_msr, 64
    mov ecx, 0xc0000080
    rdmsr
    END privileged_msr

    CASE privileged_cli, 64
    cli
    END privileged_cli

    CASE privileged_lgdt_absent, 64
    lgdt [0]
    END privileged_lgdt_absent

    CASE cr_that_is_none, 64
    .byte 0x0f, 0x20, 0xe8
    END cr_that_is_none

/* Code that changes. */

    CASE modify_next, 64, rwx
    mov byte ptr [rip + 1f + 1], 0x77
1:  mov al, 0x11
    mov dword ptr [rip + 2f + 1], 0x55667788
2:  mov edx, 0x12345678
    END modify_next

    CASE modify_in_loop, 64, rwx
    mov ecx, 6
    xor eax, eax
1:  add eax, 1
    inc byte ptr [rip + 1b + 2]
    loop 1b
    END modify_in_loop

    CASE modify_opcode, 64, rwx
    mov ecx, 4
1:  add eax, edx
    xor byte ptr [rip + 1b], 0x28
    loop 1b
    cmp al, 1
    END modify_opcode

    CASE modify_by_string, 64, rwx
    cld
    lea rdi, [rip + 1f]
    mov al, 0x90
    mov ecx, 8
    rep stosb
1:  ud2
    ud2
    ud2
    ud2
    mov ecx, 1
    END modify_by_string

    CASE modify_behind_call, 64, rwx
    mov r8d, 3
1:  call 2f
    inc byte ptr [rip + 2f + 1]
    dec r8d
    jnz 1b
    jmp 3f
2:  mov al, 5
    add r9b, al
    ret
3:  cmp al, 1
    END modify_behind_call

    CASE modify_branch, 64, rwx
    mov ecx, 3
1:  jmp 2f
2:  inc eax
3:  inc edx
    mov byte ptr [rip + 1b + 1], 2 /* to 3 */
    loop 1b
    END modify_branch

    CASE modify_through_alias, 64, rwx
    /* The page is there at a second address; between, IRET serializes. */
    mov r8d, 3
    mov rdx, 0x300000000000
1:  lea rax, [rip + 2f]
    inc byte ptr [rax + rdx + 1]
    mov rcx, rsp
    push 0x2b
    push rcx
    pushfq
    push 0x33
    push rax
    iretq
2:  mov al, 5
    add r9b, al
    dec r8d
    jnz 1b
    END modify_through_alias

    CASE write_code_page_readonly, 64
    mov byte ptr [rip + 1f], 0x90
1:  nop
    END write_code_page_readonly

    .section .note.GNU-stack, "", @progbits
