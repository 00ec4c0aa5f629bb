/*
 * A boot sector that works on the disk it was booted from, through the BIOS: writes SECTORS sectors
 * from FIRST on, each filled with its number, reads each back and compares. Sector FIRST - 1 has the
 * number of sectors in its first word, and a delay between them in its second.
 *
 * It ends QEMU through port 501h (isa-debug-exit): status 3 if all was well, 5 if not.
 */
        .code16
        .globl  _start
        .equ    FIRST, 64
        .equ    BUFFER, 0x8000
        .equ    CHECK, 0x9000

_start: xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7C00, %sp
        movb    %dl, drive

        movl    $FIRST - 1, packet_sector
        movb    $0x42, %ah
        movw    $BUFFER, packet_buffer
        call    transfer
        movw    BUFFER, %ax
        movw    %ax, sectors
        movw    BUFFER + 2, %ax
        movw    %ax, delay

        xorw    %bx, %bx
next:   cmpw    sectors, %bx
        je      good
        incw    %bx
        movzwl  %bx, %eax
        addl    $FIRST - 1, %eax
        movl    %eax, packet_sector

        movw    $BUFFER, %di            # fill
        movw    %bx, %ax
        movw    $256, %cx
        rep stosw
        movb    $0x43, %ah
        movw    $BUFFER, packet_buffer
        call    transfer
        movb    $0x42, %ah
        movw    $CHECK, packet_buffer
        call    transfer
        movw    $BUFFER, %si            # compare
        movw    $CHECK, %di
        movw    $256, %cx
        repe cmpsw
        jne     bad

        movw    delay, %cx
wait:   jcxz    next
        inb     $0x80, %al
        loop    wait
        jmp     next

good:   movw    $1, %ax
        jmp     end
bad:    movw    $2, %ax
end:    movw    $0x501, %dx
        outb    %al, %dx
        hlt
        jmp     end

        # AH: 42h reads, 43h writes, without verifying
transfer:
        xorb    %al, %al
        movw    $packet, %si
        movb    drive, %dl
        pushw   %bx
        int     $0x13
        popw    %bx
        jc      bad
        ret

drive:  .byte   0
sectors:
        .word   0
delay:  .word   0
        .balign 4
packet: .byte   16, 0
        .word   1
packet_buffer:
        .word   0, 0
packet_sector:
        .long   0, 0

        .org    510
        .word   0xAA55
