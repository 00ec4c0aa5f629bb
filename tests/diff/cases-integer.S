/*
 * Cases written by hand: integer instructions, strings, the stack, near branches, odd
 * encodings. See cases.inc.
 */
#include "cases.inc"

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

    .section .note.GNU-stack, "", @progbits
