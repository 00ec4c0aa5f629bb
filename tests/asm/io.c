/*
 * IOPL and the I/O permission bitmap: ports, CLI, STI, POPF and their kin at level 3 (SDM volume 1,
 * 19.5; volume 3, 5.9). Built for 32-bit and 64-bit mode.
 */
#include "rt/rt.h"

/* A port that nobody minds: the POST code. */
#define PORT 0x80

USER_INSN(u_inb, "xchg %%edx, %%ecx; inb %%dx, %%al")
USER_INSN(u_inw, "xchg %%edx, %%ecx; inw %%dx, %%ax")
USER_INSN(u_inl, "xchg %%edx, %%ecx; inl %%dx, %%eax")
USER_INSN(u_outb_imm, "outb %%al, $0x80")
USER_INSN(u_cli, "cli")
USER_INSN(u_sti, "sti")
USER_INSN(u_popf, "push %0; popf; pushf; pop %0")
USER_CODE static word u_outsb(word port)
{
    static USER_DATA const u8 data = 0;
    const u8 *p = &data;
    asm volatile(USER_AT "outsb" : "+S"(p) : "d"(port));
    return 0;
}

static void allow(unsigned port, bool yes)
{
    if (yes)
        rt_tss.io_bits[port / 8] &= (u8) ~(1u << port % 8);
    else
        rt_tss.io_bits[port / 8] |= (u8)(1u << port % 8);
}

static void limit_tss(u32 limit)
{
    u64 *d = &rt_gdt[TSS / 8];
    *d = (*d & ~0xFFFFull & ~(0xFull << 48) & ~(2ull << 40)) | (limit & 0xFFFF) |
         (u64)(limit >> 16) << 48;
    asm volatile("ltr %w0" : : "r"(TSS));
}

/* IN begins with an exchange of two bytes' length, so the fault is at its second instruction: these
 * ask for the vector only. */
static bool refused(word (*fn)(word), word arg)
{
    const struct trap *t = user(fn, arg);
    return t->f.vector == GP && !t->f.error;
}

static bool allowed(word (*fn)(word), word arg)
{
    return user(fn, arg)->f.vector == VECTOR_DONE;
}

static void bitmap(void)
{
    rt_user_flags = 2;
    check(refused(u_inb, PORT), "IN byte, bit set");
    check(refused(u_outb_imm, 0), "OUT immediate, bit set");
    check(refused(u_outsb, PORT), "OUTSB, bit set");
    allow(PORT, true);
    check(allowed(u_inb, PORT), "IN byte, bit clear");
    check(allowed(u_outb_imm, 0), "OUT immediate, bit clear");
    check(allowed(u_outsb, PORT), "OUTSB, bit clear");
    check(refused(u_inb, PORT + 1), "IN byte of the next port");
    check(refused(u_inw, PORT), "IN word, second bit set");
    allow(PORT + 1, true);
    check(allowed(u_inw, PORT), "IN word, both clear");
    check(refused(u_inl, PORT), "IN dword, two of four clear");
    allow(PORT + 2, true);
    check(refused(u_inl, PORT), "IN dword, three of four clear");
    allow(PORT + 3, true);
    check(allowed(u_inl, PORT), "IN dword, all clear");
    for (unsigned port = 0x85; port < 0x8A; port++)
        allow(port, true);
    check(allowed(u_inl, 0x86), "IN dword whose bits lie in two bytes");
    allow(0x88, false);
    check(refused(u_inl, 0x86), "IN dword, a bit of the second byte set");
    allow(0xFFFF, true);
    check(allowed(u_inb, 0xFFFF), "the last port");
    allow(0xFFFF, false);

    u32 base = offsetof(struct tss, io_bits);
    limit_tss(base + PORT / 8);
    check(refused(u_inb, PORT), "the byte after the port's bits must be within the TSS");
    limit_tss(base + PORT / 8 + 1);
    check(allowed(u_inb, PORT), "it is");
    limit_tss(sizeof(rt_tss) - 1);
    rt_tss.iomap = sizeof(rt_tss);
    check(refused(u_inb, PORT), "a bitmap beyond the TSS allows nothing");
    rt_tss.iomap = (u16)base;
    for (unsigned port = PORT; port < 0x90; port++)
        allow(port, false);
}

static void iopl(void)
{
    for (word level = 0; level < 4; level++) {
        rt_user_flags = 2 | level << 12;
        bool enough = level == 3;
        check(allowed(u_inb, PORT) == enough, "IOPL %lu: IN", level);
        check((enough ? allowed : refused)(u_cli, 0), "IOPL %lu: CLI", level);
        check((enough ? allowed : refused)(u_sti, 0), "IOPL %lu: STI", level);
        const struct trap *t = user(u_popf, 2 | FL_IF | FL_IOPL | FL_DF);
        equal(t->f.ax & (FL_IF | FL_IOPL), (enough ? FL_IF : 0) | level << 12, "IOPL %lu: POPF",
              level);
        rt_user_flags |= FL_IF;
        t = user(u_popf, 2);
        equal(t->f.ax & (FL_IF | FL_IOPL), (enough ? 0 : FL_IF) | level << 12,
              "IOPL %lu: POPF of 0", level);
    }
    rt_user_flags = 2;
    write_flags(2 | FL_IOPL);
    equal(read_flags() & FL_IOPL, FL_IOPL, "POPF at level 0 sets IOPL");
    write_flags(2);
}

void test(void)
{
    bitmap();
    iopl();
}
