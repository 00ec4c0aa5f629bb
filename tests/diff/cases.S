/*
 * Cases written by hand: what random operands seldom meet. Each runs several times with random
 * registers, except that
 *   RBX, RSI, RDI  point into the data pages: 1000h before their end at an absent page, 400h and
 *                  900h into them
 *   RSP, RBP       point into the middle of the stack
 *   RCX            is 5
 * What follows the code is INT3. The pages in order: two of data, a read-only one, one of data, an
 * absent one; from RBX the second of these begins at 800h.
 */
    .intel_syntax noprefix

/* CASE name, bits [, rwx]: rwx code runs in pages that it may write. */
    .macro CASE name, bits, access=rx
    .section .rodata
9:  .asciz "\name"
    .section .data.rel.ro, "aw"
    .balign 8
    .quad 9b, case_\name, end_\name
    .long \bits
    .ifc \access, rwx
    .long 1
    .else
    .long 0
    .endif
    .text
    .code\bits
case_\name:
    .endm
    .macro END name
end_\name:
    .code64
    .endm

    .section .data.rel.ro, "aw"
    .balign 8
    .globl hand_cases
    .hidden hand_cases
hand_cases:

/* Flags. */

    CASE carry_chain, 64
    add eax, ebx
    adc rdx, rsi
    adc cx, 0x7fff
    sbb rax, rdx
    inc r8b
    adc r9, r9
    dec r10w
    rcl r11, 1
    rcr r12d, 3
    cmc
    adc r13, -1
    setc al
    setp ah
    setl bl
    lahf
    END carry_chain

    CASE sahf_all, 64
    mov ah, 0xff
    sahf
    pushfq
    mov ah, 0
    sahf
    pushfq
    pop rax
    pop rdx
    END sahf_all

    CASE popf_user, 64
    /* Neither IF nor IOPL changes at CPL 3. */
    push 0x3fd5 - 0x100
    popfq
    pushfq
    pop rax
    push 0
    popfq
    pushfq
    pop rdx
    pushf
    popf
    END popf_user

    CASE popf_nt_id_ac, 64
    push 0x244202
    popfq
    pushfq
    pop rax
    push 0x244202
    popf
    pushfq
    END popf_nt_id_ac

    CASE shifts_by_zero, 64
    xor ecx, ecx
    stc
    shl rax, cl
    shl eax, cl
    rcl edx, cl
    shld r8, r9, cl
    rol r10d, cl
    sar r11b, cl
    mov cl, 0x40
    shr r12, cl
    shl r13d, cl
    END shifts_by_zero

    CASE inc_keeps_carry, 64
    stc
    inc rax
    setc dl
    clc
    dec rax
    setc dh
    neg r8
    not r8
    END inc_keeps_carry

    CASE adx, 64
    xor eax, eax
    mov rdx, r9
    mulx r8, r9, r10
    adcx rax, r8
    adox r11, r9
    adcx r12, r11
    adox r13, r12
    END adx

/* Registers. */

    CASE partial_registers, 64
    mov ah, bl
    mov bh, al
    xchg ch, dl
    mov al, sil
    movzx ecx, ah
    movsx dx, bh
    mov ax, 0x8000
    cwde
    cdqe
    cqo
    mov esi, esi
    xchg eax, eax
    .byte 0x48, 0x90
    .byte 0x41, 0x90
    .byte 0x87, 0xc0
    bswap r9d
    .byte 0x66, 0x0f, 0xc8
    END partial_registers

    CASE xchg_same, 64
    xchg eax, eax
    xchg r8d, r8d
    xadd r9, r9
    xadd al, ah
    cmpxchg r10d, r11d
    cmpxchg rax, rdx
    END xchg_same

    CASE cmov_zero_extends, 64
    stc
    cmovnc eax, edx
    cmovc r8d, r9d
    cmovnc r10w, r11w
    END cmov_zero_extends

    CASE bit_offsets, 64
    mov rax, -9
    bts [rbx + 64], rax
    mov eax, -33
    btr dword ptr [rbx + 128], eax
    mov ax, 0x7f
    btc word ptr [rbx + 256], ax
    mov rax, 0x4000
    bt [rbx], rax
    mov eax, 0x40000
    lock btc [rbx - 0x800], eax
    cmp al, 1
    END bit_offsets

    CASE scan_zero, 64
    xor eax, eax
    bsf rdx, rax
    bsr r8d, eax
    tzcnt r9, rax
    lzcnt r10d, eax
    popcnt r11, rax
    cmp al, 1
    END scan_zero

/* Division. */

    CASE idiv_overflow, 64
    mov rax, 0x8000000000000000
    cqo
    mov r8, -1
    idiv r8
    END idiv_overflow

    CASE div_by_zero, 64
    xor edx, edx
    xor r8d, r8d
    div r8b
    END div_by_zero

    CASE div_8_overflow, 64
    mov ax, 0x100
    mov cl, 1
    div cl
    END div_8_overflow

    CASE idiv_edges, 64
    mov eax, 0x80000001
    cdq
    mov r8d, -1
    idiv r8d
    mov ax, -128
    mov r9b, 1
    idiv r9b
    cmp al, 3
    END idiv_edges

/* Strings. */

    CASE movs_overlap_up, 64
    cld
    lea rsi, [rbx + 1]
    mov rdi, rbx
    mov ecx, 100
    rep movsb
    lea rsi, [rbx]
    lea rdi, [rbx + 3]
    mov ecx, 20
    rep movsq
    END movs_overlap_up

    CASE movs_overlap_down, 64
    std
    lea rsi, [rbx + 400]
    lea rdi, [rbx + 403]
    mov ecx, 50
    rep movsd
    mov ecx, 50
    rep movsw
    cld
    END movs_overlap_down

    CASE movs_into_absent, 64
    cld
    lea rdi, [rbx + 0x1000 - 50]
    mov ecx, 20
    rep movsd
    END movs_into_absent

    CASE movs_from_absent_down, 64
    std
    lea rsi, [rbp - 0x1000 + 30]
    and rsi, -0x1000
    add rsi, 33
    mov ecx, 40
    rep movsw
    END movs_from_absent_down

    CASE stos_into_readonly, 64
    cld
    lea rdi, [rbx - 0x1000 - 60]
    mov ecx, 0x4000
    rep stosq
    END stos_into_readonly

    CASE strings_of_nothing, 64
    xor ecx, ecx
    xor esi, esi
    xor edi, edi
    rep movsb
    rep stosq
    repe cmpsb
    repne scasd
    rep lodsw
    pushfq
    END strings_of_nothing

    CASE compare_strings, 64
    cld
    mov ecx, 64
    lea rdi, [rsi + 64]
    mov r8, rsi
    rep movsb
    mov rsi, r8
    lea rdi, [rsi + 64]
    xor byte ptr [rdi + 37], 1
    mov ecx, 64
    repe cmpsb
    mov r9, rcx
    mov ecx, 3
    repne cmpsw
    mov al, [rdi + 5]
    mov ecx, 100
    repne scasb
    repe scasb
    END compare_strings

    CASE strings_address32, 64
    cld
    mov esi, 0x10007100
    mov edi, 0x10007203
    mov rcx, 0x100000004
    .byte 0x67
    rep movsd
    mov rax, 0x5500000000000000
    or rsi, rax
    mov ecx, 2
    .byte 0x67
    rep lodsq
    END strings_address32

    CASE strings_segment, 64
    cld
    mov rax, 0x10007000
    wrfsbase rax
    mov esi, 0x20
    mov ecx, 3
    .byte 0x64, 0xf3, 0x48, 0xa5
    .byte 0x64, 0xac
    END strings_segment

    CASE strings_both_prefixes, 64
    cld
    mov ecx, 3
    .byte 0xf2, 0xf3, 0xa4
    mov ecx, 3
    .byte 0xf3, 0xf2, 0xa6
    mov ecx, 3
    .byte 0xf2, 0xa5
    .byte 0xf3, 0x48, 0xab
    END strings_both_prefixes

    CASE single_step_string, 64
    cld
    mov ecx, 3
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    rep movsb
    nop
    END single_step_string

/* The stack. */

    CASE push_rsp, 64
    push rsp
    push qword ptr [rsp]
    push qword ptr [rsp + 8]
    pop qword ptr [rsp]
    pop qword ptr [rsp + 8]
    pop rsp
    END push_rsp

    CASE pop_rsp_memory, 64
    push rax
    push rdx
    pop qword ptr [rsp + 16]
    pop qword ptr [rsp - 8]
    END pop_rsp_memory

    CASE push_sizes, 64
    push -1
    push 0x12345678
    .byte 0x66, 0x68, 0x34, 0x12
    .byte 0x66, 0x50
    .byte 0x66, 0x6a, 0x80
    .byte 0x66, 0x48, 0x50
    pop ax
    push fs
    push gs
    pop r8
    .byte 0x66, 0x0f, 0xa0
    pop cx
    pop r9
    END push_sizes

    CASE enter_leave, 64
    enter 32, 0
    push rax
    enter 16, 1
    enter 8, 3
    leave
    leave
    .byte 0x66
    leave
    END enter_leave

    CASE push_faults_keep_rsp, 64
    and rsp, -0x1000
    sub rsp, 0x1000
    push rax
    END push_faults_keep_rsp

    CASE pop_memory_faults, 64
    push rax
    pop qword ptr [rbx + 0x1000 - 4]
    END pop_memory_faults

    CASE call_faults, 64
    mov rsp, 0x10
    call rbx
    END call_faults

    CASE stack_not_canonical, 64
    mov rsp, 0x800000000000
    pop rax
    END stack_not_canonical

    CASE frame_not_canonical, 64
    mov rbp, 0x7ffffffffffffffe
    mov rax, [rbp]
    END frame_not_canonical

    CASE data_not_canonical, 64
    mov rax, 0x7ffffffffffc
    mov rdx, [rax]
    END data_not_canonical

    CASE straddles_canonical, 64
    mov rax, 0x7ffffffffffc
    mov rdx, [rax + rax]
    END straddles_canonical

/* Branches. */

    CASE call_and_return, 64
    call 1f
    inc eax
    jmp 3f
1:  call 2f
    inc edx
    ret
2:  lea r8, [rip]
    ret
3:  push 0
    push 0
    lea r9, [rip + 4f]
    push r9
    ret 16
4:  cmp al, 1
    END call_and_return

    CASE indirect, 64
    lea rax, [rip + 1f]
    mov [rbx], rax
    jmp qword ptr [rbx]
    ud2
1:  lea r8, [rip + 2f]
    call r8
    ud2
2:  lea rdx, [rip + 3f]
    mov [rsp], rdx
    jmp [rsp]
    ud2
3:  mov [rsp], rdx
    lea rdx, [rip + 4f]
    mov [rsp], rdx
    call [rsp]
    ud2
4:  pop rcx
    END indirect

    CASE loops, 64
    mov ecx, 5
    xor eax, eax
1:  add eax, ecx
    loop 1b
    mov ecx, 7
2:  dec eax
    test al, 3
    loopne 2b
    mov ecx, 3
3:  cmp eax, eax
    loope 3b
    jrcxz 4f
    ud2
4:  mov rcx, 0x100000000
    jecxz 5f
    ud2
5:  mov rcx, 0x100000001
    .byte 0x67, 0xe2, 0x00
    END loops

    CASE jump_not_canonical, 64
    mov rax, 0x800000000000
    jmp rax
    END jump_not_canonical

    CASE return_not_canonical, 64
    mov rax, 0x1234567890123456
    push rax
    ret
    END return_not_canonical

    CASE jump_to_data, 64
    jmp rbx
    END jump_to_data

    CASE jump_to_absent, 64
    lea rax, [rbx + 0x1000]
    call rax
    END jump_to_absent

    CASE self_loop_counts, 64
    mov ecx, 1000
1:  loop 1b
    mov ecx, 1000
2:  add rax, rdx
    dec ecx
    jnz 2b
    END self_loop_counts

/* Encodings. */

    CASE fifteen_bytes, 64
    .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90
    END fifteen_bytes

    CASE sixteen_bytes, 64
    .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66
    .byte 0x90
    END sixteen_bytes

    CASE rex_not_last, 64
    .byte 0x48, 0x66, 0x01, 0xd0
    .byte 0x48, 0x41, 0x01, 0xd0
    .byte 0x4f, 0x2e, 0x89, 0xd0
    END rex_not_last

    CASE last_segment_wins, 64
    .byte 0x64, 0x65, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00
    .byte 0x65, 0x2e, 0x8b, 0x03
    END last_segment_wins

    CASE prefix_66_and_rexw, 64
    .byte 0x66, 0x48, 0x05, 0x78, 0x56, 0x34, 0x12
    .byte 0x66, 0x05, 0x78, 0x56
    .byte 0x66, 0x48, 0x6a, 0x01
    END prefix_66_and_rexw

    CASE lock_register, 64
    .byte 0xf0, 0x01, 0xd0
    END lock_register

    CASE lock_mov, 64
    .byte 0xf0, 0x89, 0x03
    END lock_mov

    CASE lock_nop, 64
    .byte 0xf0, 0x90
    END lock_nop

    CASE undefined_2, 64
    ud2
    END undefined_2

    CASE undefined_1, 64
    .byte 0x0f, 0xb9, 0xc0
    END undefined_1

    CASE not_in_64_bit, 64
    .byte 0x06
    END not_in_64_bit

    CASE not_in_64_bit_daa, 64
    .byte 0x27
    END not_in_64_bit_daa

    CASE vex_with_66, 64
    .byte 0x66, 0xc5, 0xf8, 0x57, 0xc0
    END vex_with_66

    CASE vex_with_rex, 64
    .byte 0x48, 0xc5, 0xf8, 0x57, 0xc0
    END vex_with_rex

    CASE vex_with_lock, 64
    .byte 0xf0, 0xc5, 0xf8, 0x57, 0xc0
    END vex_with_lock

    CASE lea_register, 64
    .byte 0x8d, 0xc0
    END lea_register

    CASE mov_to_cs, 64
    .byte 0x8e, 0xc8
    END mov_to_cs

    CASE lea_forms, 64
    lea eax, [rbx + rcx * 8 - 1]
    lea dx, [rbx + rcx]
    lea r8, [ebx + ecx * 4]
    lea r9d, [eip + 5]
    lea r10, [rip - 5]
    .byte 0x64, 0x4c, 0x8d, 0x1b
    lea r12, [rcx * 2 + 0x12345678]
    END lea_forms

    CASE address32_wraps, 64
    mov eax, 0xfffffff0
    mov rdx, 0xff00000010007100
    mov r8d, [edx]
    mov r9, [edx + eax + 0x20]
    mov r10b, [edx + eax * 4 + 0x44]
    END address32_wraps

    CASE moffs, 64
    .byte 0x48, 0xa1
    .quad 0x300010007008
    .byte 0x67, 0xa3
    .long 0x10007101
    .byte 0xa2
    .quad 0x3000100071ff
    END moffs

    CASE hints, 64
    nop dword ptr [rax + rax]
    nop word ptr [0]
    .byte 0x0f, 0x19, 0x00
    .byte 0x0f, 0x1e, 0x07
    endbr64
    prefetcht0 [0]
    prefetchnta [rbx + 0x1000]
    prefetchw [0]
    pause
    .byte 0xf3, 0x0f, 0x1e, 0xc8
    lfence
    mfence
    sfence
    END hints

    CASE flush_absent, 64
    clflush [rbx]
    clflush [rbx + 0x1000]
    END flush_absent

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

/* Atomics. */

    CASE exchange_16, 64
    movdqu xmm0, [rbx]
    mov rax, [rbx]
    mov rdx, [rbx + 8]
    lock cmpxchg16b [rbx]
    setz r8b
    lock cmpxchg16b [rbx]
    setz r9b
    lock cmpxchg8b [rbx + 32]
    cmpxchg8b [rbx + 37]
    cmpxchg16b [rbx + 8]
    END exchange_16

    CASE atomics_across_pages, 64
    lock add qword ptr [rbx - 0x1000 - 0x803], rdx
    lock xadd [rbx - 0x1000 - 0x801], eax
    xchg [rbx - 0x1000 - 0x802], r8
    lock cmpxchg [rbx - 0x1000 - 0x804], r9
    lock inc word ptr [rbx + 0xfff]
    END atomics_across_pages

    CASE compare_exchange_readonly, 64
    mov eax, 1
    lock cmpxchg [rbx - 0x200], edx
    END compare_exchange_readonly

/* x87. */

    CASE x87_environment, 64
    fninit
    fld1
    fldpi
    fdiv st, st(1)
    fnstcw [rbx]
    fnstsw ax
    fnstsw [rbx + 2]
    fstp tbyte ptr [rbx + 16]
    fld tbyte ptr [rbx + 16]
    fxam
    fnstsw ax
    END x87_environment

    CASE x87_overflow, 64
    fninit
    fld1
    fld1
    fld1
    fld1
    fld1
    fld1
    fld1
    fld1
    fld1
    fnstsw ax
    END x87_overflow

    CASE x87_underflow, 64
    fninit
    fstp qword ptr [rbx]
    fnstsw ax
    fxch st(3)
    fcompp
    END x87_underflow

    CASE x87_unmasked, 64
    fninit
    mov word ptr [rbx], 0x37b
    fldcw [rbx]
    fldz
    fld1
    fdivrp st(1), st
    nop
    fwait
    END x87_unmasked

    CASE x87_pending_is_not_waited_for, 64
    fninit
    mov word ptr [rbx], 0x37b
    fldcw [rbx]
    fldz
    fld1
    fdivrp st(1), st
    fnstsw ax
    fnclex
    fld1
    fwait
    END x87_pending_is_not_waited_for

    CASE x87_unmask_later, 64
    fninit
    fldz
    fld1
    fdivrp st(1), st
    mov word ptr [rbx], 0x340
    fldcw [rbx]
    fnstsw ax
    fld1
    END x87_unmask_later

    CASE x87_save_restore, 64
    fninit
    fldl2e
    fldl2t
    fldlg2
    fnsave [rbx]
    fld1
    frstor [rbx]
    fxsave [rbx + 512]
    fninit
    fxrstor [rbx + 512]
    mov dword ptr [rbx + 12], 0
    mov qword ptr [rbx + 16], 0
    mov dword ptr [rbx + 24], 0
    mov dword ptr [rbx + 512 + 28], 0
    mov qword ptr [rbx + 512 + 8], 0
    mov qword ptr [rbx + 512 + 16], 0
    mov word ptr [rbx + 512 + 6], 0
    END x87_save_restore

    CASE x87_integers, 64
    fninit
    fild word ptr [rbx]
    fild dword ptr [rbx + 2]
    fild qword ptr [rbx + 6]
    fbld [rbx + 16]
    fbstp [rbx + 64]
    fistp qword ptr [rbx + 80]
    fisttp dword ptr [rbx + 88]
    fistp word ptr [rbx + 92]
    END x87_integers

    CASE x87_remainder, 64
    fninit
    fldpi
    fldl2t
    fscale
    fld st
1:  fprem
    fnstsw ax
    sahf
    jp 1b
    fprem1
    fpatan
    fsincos
    fptan
    fyl2xp1
    f2xm1
    cmp al, 1
    END x87_remainder

    CASE mmx_aliases, 64
    fninit
    fld1
    fld1
    movq mm3, [rbx]
    paddd mm3, mm0
    pshufw mm1, mm3, 0x1b
    movq2dq xmm0, mm1
    fnstsw ax
    emms
    movntq [rbx + 8], mm3
    END mmx_aliases

    CASE mmx_pending, 64
    fninit
    mov word ptr [rbx], 0x37b
    fldcw [rbx]
    fldz
    fld1
    fdivrp st(1), st
    paddb mm0, mm1
    END mmx_pending

/* SSE and AVX. */

    CASE sse_unmasked, 64
    mov dword ptr [rbx], 0x1d80
    ldmxcsr [rbx]
    xorps xmm1, xmm1
    movaps xmm0, xmm1
    cmpeqps xmm2, xmm2
    psrld xmm2, 25
    cvtdq2ps xmm2, xmm2
    divps xmm2, xmm1
    END sse_unmasked

    CASE sse_sticky_flags, 64
    mov dword ptr [rbx], 0x1f80
    ldmxcsr [rbx]
    sqrtpd xmm0, [rsi]
    addps xmm1, [rdi]
    cvttsd2si rax, xmm0
    ucomisd xmm0, xmm1
    stmxcsr [rbx + 4]
    END sse_sticky_flags

    CASE mxcsr_reserved, 64
    mov dword ptr [rbx], 0x11f80
    ldmxcsr [rbx]
    END mxcsr_reserved

    CASE sse_unaligned, 64
    movups xmm0, [rbx + 1]
    movups [rbx + 0x1000 - 16], xmm0
    vaddps xmm1, xmm0, [rbx + 3]
    addps xmm1, [rbx + 4]
    END sse_unaligned

    CASE avx_unaligned, 64
    vmovups ymm0, [rbx + 1]
    vmovaps ymm1, [rbx]
    vmovaps ymm2, [rbx + 16]
    END avx_unaligned

    CASE sse_crosses_pages, 64
    movups xmm0, [rbx - 0x1000 - 0x805]
    movups [rbx - 0x1000 - 0x807], xmm0
    vmovups ymm1, [rbx - 0x1000 - 0x811]
    movdqu [rbx + 0x1000 - 15], xmm0
    END sse_crosses_pages

    CASE masked_moves_do_not_fault, 64
    /* Lanes that are masked off lie in an absent page. */
    vpcmpeqd ymm0, ymm0, ymm0
    vpsrldq ymm0, ymm0, 8
    vextracti128 xmm1, ymm0, 1
    vpxor xmm1, xmm1, xmm1
    vinserti128 ymm0, ymm0, xmm1, 1
    vmaskmovps ymm2, ymm0, [rbx + 0x1000 - 8]
    vpmaskmovd [rbx + 0x1000 - 8], ymm0, ymm2
    vpmaskmovq ymm3, ymm0, [rbx + 0x1000 - 8]
    vpxor ymm0, ymm0, ymm0
    vmaskmovpd ymm4, ymm0, [0]
    vmaskmovpd [0], ymm0, ymm4
    END masked_moves_do_not_fault

    CASE masked_move_faults, 64
    vpcmpeqd ymm0, ymm0, ymm0
    vpmaskmovd [rbx + 0x1000 - 16], ymm0, ymm2
    END masked_move_faults

    CASE maskmov_bytes, 64
    lea rdi, [rbx - 0x1000 - 0x807]
    maskmovdqu xmm0, xmm1
    maskmovq mm0, mm1
    lea rdi, [rbx + 0x1000 - 4]
    pxor xmm1, xmm1
    movd xmm1, ebx
    maskmovdqu xmm0, xmm1
    END maskmov_bytes

    CASE gather_stops, 64
    /* The elements before the one that faults are there, their mask bits clear. */
    vpxor xmm1, xmm1, xmm1
    mov eax, 0x1000
    vmovd xmm1, eax
    vpslldq xmm1, xmm1, 8
    vpcmpeqd xmm2, xmm2, xmm2
    vpgatherdd xmm0, [rbx + xmm1], xmm2
    END gather_stops

    CASE gather_all, 64
    vpxor ymm1, ymm1, ymm1
    vpcmpeqd ymm2, ymm2, ymm2
    vgatherdps ymm0, [rbx + ymm1 * 4 + 12], ymm2
    vpcmpeqd ymm2, ymm2, ymm2
    vpgatherqq ymm3, [rbx + ymm1 * 8 - 1], ymm2
    vpxor ymm2, ymm2, ymm2
    vpgatherdq ymm4, [xmm1], ymm2
    END gather_all

    CASE upper_halves, 64
    addps xmm0, xmm1
    vaddps xmm2, xmm0, xmm1
    vzeroupper
    vaddpd ymm3, ymm4, ymm5
    vzeroall
    END upper_halves

    CASE xsave_initial, 64
    vzeroall
    fninit
    mov eax, 7
    xor edx, edx
    vmovdqu [rbx + 512], ymm0
    vmovdqu [rbx + 544], ymm0
    xsave [rbx]
    fld1
    mov qword ptr [rbx + 512], 1
    mov qword ptr [rbx + 520], 0
    xrstor [rbx]
    mov dword ptr [rbx + 28], 0
    mov dword ptr [rbx + 512], 0
    mov qword ptr [rbx + 8], 0
    mov qword ptr [rbx + 16], 0
    mov word ptr [rbx + 6], 0
    END xsave_initial

    CASE xsave_unaligned, 64
    mov eax, 7
    xor edx, edx
    xsave [rbx + 8]
    END xsave_unaligned

    CASE xrstor_bad_header, 64
    mov eax, 7
    xor edx, edx
    mov qword ptr [rbx + 512], 8
    mov qword ptr [rbx + 520], 0
    xrstor [rbx]
    END xrstor_bad_header

    CASE alignment_check, 64
    pushfq
    or dword ptr [rsp], 0x40000
    popfq
    mov eax, [rbx]
    mov ax, [rbx + 2]
    mov eax, [rbx + 2]
    END alignment_check

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

    CASE write_code_page_readonly, 64
    mov byte ptr [rip + 1f], 0x90
1:  nop
    END write_code_page_readonly

/* 32-bit code. */

    CASE decimal, 32
    aaa
    aas
    cmp al, 5
    daa
    das
    cmp al, 5
    aam
    aad
    cmp al, 5
    aam 7
    aad 3
    cmp al, 5
    .byte 0xd6
    END decimal

    CASE aam_0, 32
    aam 0
    END aam_0

    CASE push_all, 32
    pushad
    pushaw
    popaw
    popad
    END push_all

    CASE bounds, 32
    mov dword ptr [ebx], -5
    mov dword ptr [ebx + 4], 100
    mov eax, -5
    bound eax, [ebx]
    mov eax, 100
    bound eax, [ebx]
    inc eax
    bound eax, [ebx]
    END bounds

    CASE into_overflow, 32
    mov eax, 0x7fffffff
    xor edx, edx
    into
    inc eax
    into
    END into_overflow

    CASE segments_on_stack, 32
    /* The upper halves of what is pushed may be written or not. */
    push 0
    push 0
    push 0
    push 0
    add esp, 16
    push es
    push cs
    push ss
    push ds
    pop es
    pop ss
    pop eax
    pop ds
    push fs
    pop gs
    .byte 0x66, 0x1e
    pop ax
    END segments_on_stack

    CASE far_pointers, 32
    mov dword ptr [ebx], 0x1234
    mov word ptr [ebx + 4], 0x2b
    les eax, [ebx]
    lds edx, [ebx]
    lss ecx, [ebx]
    mov word ptr [ebx + 4], 0
    les esi, [ebx]
    lgs edi, [ebx]
    END far_pointers

    CASE null_segment_used, 32
    xor eax, eax
    mov es, eax
    mov eax, es:[ebx]
    END null_segment_used

    CASE null_segment_string, 32
    xor eax, eax
    mov es, eax
    stosb
    END null_segment_string

    CASE write_through_code_segment, 32
    mov eax, cs:[ebx]
    mov cs:[ebx], eax
    END write_through_code_segment

    CASE code_selector_in_ds, 32
    mov eax, 0x23
    mov ds, eax
    mov edx, [ebx]
    mov [ebx], edx
    END code_selector_in_ds

    CASE address16, 32
    .byte 0x67, 0x8d, 0x40, 0x10
    .byte 0x67, 0x66, 0x8d, 0x4f, 0xfe
    .byte 0x67, 0x8d, 0x16, 0x34, 0x12
    mov ecx, 0x10000
    .byte 0x67, 0xe3, 0x00
    .byte 0x67, 0x8b, 0x00
    END address16

    CASE arpl, 32
    mov eax, 0x28
    mov edx, 0x33
    arpl ax, dx
    setz cl
    arpl ax, dx
    setz ch
    arpl [ebx], dx
    END arpl

    CASE aliases, 32
    .byte 0x82, 0xc0, 0x7f
    .byte 0x82, 0x2b, 0x01
    .byte 0xf6, 0xc9, 0x80
    .byte 0xc0, 0xf2, 0x03
    cmp al, 1
    END aliases

    CASE far_within_32, 32
    call 1f
1:  pop eax
    .byte 0x05
    .long 2f - 1b
    mov [ebx], eax
    mov word ptr [ebx + 4], 0x23
    .byte 0xff, 0x1b
    jmp 3f
2:  retf
3:  pushfd
    push 0
    pop edx
    push cs
    call 4f
4:  .byte 0x81, 0x04, 0x24
    .long 5f - 4b
    iretd
5:  inc eax
    END far_within_32

    CASE branch16, 32
    .byte 0x66, 0xeb, 0x00
    END branch16

    CASE return16, 32
    push ebx
    .byte 0x66, 0xc3
    END return16

    CASE stack_wraps, 32
    mov esp, 2
    push eax
    END stack_wraps

    CASE address_wraps, 32
    mov eax, -16
    mov edx, [ebx + eax + 32]
    END address_wraps

    CASE modify_32, 32, rwx
    call 1f
1:  pop edi
    mov ecx, 3
2:  add eax, 1
    inc byte ptr [edi + 8] /* the 1 */
    loop 2b
    END modify_32

    CASE int_in_32, 32
    int 0x40
    END int_in_32

    CASE enter_32, 32
    enter 16, 2
    .byte 0x66
    enter 8, 0
    leave
    END enter_32

    CASE pop_ss_shadow, 32
    pushfd
    or dword ptr [esp], 0x100
    mov eax, ss
    popfd
    push eax
    pop ss
    inc edx
    inc edx
    END pop_ss_shadow

/* 16-bit code: the segments begin at the window's start and end with it, at F000h. */

    CASE limits_16, 16
    mov byte ptr [0xdfff], 1
    mov word ptr [bx], 2
    mov ax, [0xeffe]
    END limits_16

    CASE limit_16_data, 16
    mov ax, [0xefff]
    END limit_16_data

    CASE limit_16_stack, 16
    mov bp, 0xf000
    mov ax, [bp]
    END limit_16_stack

    CASE limit_16_push, 16
    mov sp, 0xf002
    push ax
    END limit_16_push

    CASE limit_16_code, 16
    mov ax, 0xf000
    jmp ax
    END limit_16_code

    CASE limit_16_call, 16
    mov dx, 0xffff
    call dx
    END limit_16_call

    CASE stack_16_keeps_upper_half, 16
    mov esp, 0x1234d000
    push ax
    push ebx
    pusha
    popa
    pop ecx
    enter 8, 1
    leave
    END stack_16_keeps_upper_half

    CASE stack_16_wraps, 16
    mov esp, 0x50001
    push ax
    END stack_16_wraps

    CASE offsets_16_wrap, 16
    mov ax, 0x7000
    mov bx, 0xfff0
    mov si, 0x7020
    mov cl, [bx + si + 8]
    mov edx, 0x7010
    mov ch, [edx]
    mov edi, 0xfffffff0
    mov al, [edx + edi + 4]
    END offsets_16_wrap

    CASE address_16_beyond, 16
    mov edx, 0x10007
    mov al, [edx]
    END address_16_beyond

    CASE strings_16, 16
    cld
    mov ecx, 0x70003
    mov esi, 0x12347100
    mov edi, 0x43218100
    rep movsb
    rep movsw
    mov cx, 2
    rep stosd
    std
    mov cx, 3
    repe cmpsb
    cld
    END strings_16

    CASE string_16_limit, 16
    cld
    mov cx, 0x100
    mov di, 0xeff0
    rep stosb
    END string_16_limit

    CASE branches_16, 16
    call 1f
    jmp 2f
1:  inc ax
    ret
2:  mov ecx, 0x10002
3:  dec dx
    loop 3b
    .byte 0x67
    loop 4f
    ud2
4:  jcxz 5f
    push cs
    call 6f
    jmp 7f
6:  .byte 0xcb /* far return */
7:  cmp al, 1
    .byte 0x66, 0x0f, 0x84
    .long 0
5:  inc ax
    END branches_16

    CASE far_16, 16
    mov word ptr [bx], 0x1234
    mov word ptr [bx + 2], 0x0f
    les si, [bx]
    lds di, [bx]
    mov word ptr [bx + 2], 0x07
    call 1f
1:  pop ax
    add ax, 11
    mov [bx], ax
    .byte 0xff, 0x2f
    nop
    ud2
    END far_16

    CASE to_32_and_back, 16
    /* The flat segment's IP is what 16-bit code sees plus its base. */
    call 1f
1:  pop ax
    movzx eax, ax
    .byte 0x66, 0x05
    .long 0x10000000 + 3f - 1b
    push dword ptr 0x23
    push eax
    .byte 0x66, 0xcb
    .code32
3:  mov edx, cs
    mov ecx, [ebx]
    END to_32_and_back

    CASE interrupt_16, 16
    int 0x21
    END interrupt_16

    CASE bound_16, 16
    mov word ptr [bx], 3
    mov word ptr [bx + 2], -3
    mov ax, 4
    bound ax, [bx]
    END bound_16

    .section .data.rel.ro, "aw"
    .globl hand_cases_end
    .hidden hand_cases_end
hand_cases_end:
    .section .note.GNU-stack, "", @progbits
