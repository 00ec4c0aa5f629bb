/*
 * Cases written by hand: 32-bit and 16-bit code. See cases.inc.
 */
#include "cases.inc"

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

    .section .note.GNU-stack, "", @progbits
