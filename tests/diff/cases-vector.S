/*
 * Cases written by hand: x87, MMX, SSE and AVX. See cases.inc.
 */
#include "cases.inc"

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

    .section .note.GNU-stack, "", @progbits
