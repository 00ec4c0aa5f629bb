/*
 * The test device (--test-device): ports that echo, interrupt lines, and memory behind registers,
 * reached by every kind of access that test suites for QEMU's pc-testdev use. 64-bit.
 */
#include "rt/apic.h"
#include "rt/rt.h"

enum { ECHO = 0xE0, FLUSH = 0xE4, LINE = 0x2000 };
enum { VECTOR = 0x60 };
#define IOAPIC 0xFEC00000ul
#define MEMORY 0xFF000000ul
#define SIZE   0x10000

static volatile unsigned count;

#define PORT_ACCESS(letter, type)                                                                  \
    static void out##letter(u16 port, type v)                                                      \
    {                                                                                              \
        asm volatile("out" #letter " %0, %1" : : "a"(v), "d"(port));                               \
    }                                                                                              \
    static type in##letter(u16 port)                                                               \
    {                                                                                              \
        type v;                                                                                    \
        asm volatile("in" #letter " %1, %0" : "=a"(v) : "d"(port));                                \
        return v;                                                                                  \
    }
PORT_ACCESS(w, u16)
PORT_ACCESS(l, u32)

static void on_line(struct frame *f)
{
    count++;
    apic_eoi();
}

/* Lowers the line at the third interrupt. */
static void on_level(struct frame *f)
{
    if (++count == 3)
        outb(LINE + 14, 0);
    apic_eoi();
}

static void echo(void)
{
    outl(ECHO, 0x44332211);
    equal(inl(ECHO), 0x44332211, "four bytes");
    equal(inb(ECHO), 0x11, "one byte of them");
    equal(inw(ECHO + 2), 0x4433, "two of them");
    outw(ECHO + 1, 0xBBAA);
    outb(ECHO + 3, 0xCC);
    equal(inl(ECHO), 0xCCBBAA11, "written by parts");
    outl(FLUSH, 0x1000);
    equal(inl(ECHO), 0xCCBBAA11, "flushing a page changes nothing");

    static const char text[] = "string";
    static char last[4];
    const void *from = text;
    void *to = last;
    word n = 6;
    asm volatile("cld; rep outsb" : "+S"(from), "+c"(n) : "d"((u16)ECHO) : "memory");
    equal(inb(ECHO), 'g', "REP OUTSB: the last byte stays");
    n = 4;
    asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"((u16)ECHO) : "memory");
    check(last[0] == 'g' && last[3] == 'g', "REP INSB reads it again and again");
}

static void ioapic_write(u8 index, u32 v)
{
    *(volatile u32 *)IOAPIC = index;
    *(volatile u32 *)(IOAPIC + 0x10) = v;
}

static void route(unsigned pin, u32 low)
{
    ioapic_write((u8)(0x11 + 2 * pin), apic_read(APIC_ID));
    ioapic_write((u8)(0x10 + 2 * pin), low);
}

/* Level-triggered by bit 15. Returns how many interrupts came meanwhile. */
static unsigned interrupts(u16 line, u8 level)
{
    count = 0;
    outb(LINE + line, level);
    asm volatile("sti; nop; nop; cli");
    return count;
}

static void lines(void)
{
    rt_handler[VECTOR] = on_line;
    apic_enable();
    for (u16 line = 14; line <= 22; line += 8) { /* an ISA interrupt, and one beyond them */
        route(line, VECTOR);
        equal(interrupts(line, 1), 1, "line %u rises", line);
        equal(interrupts(line, 1), 0, "it is high already");
        equal(interrupts(line, 0), 0, "it falls");
        equal(interrupts(line, 0xFF), 1, "it rises again");
        outb(LINE + line, 0);
        route(line, 0x10000);
    }
    rt_handler[VECTOR] = on_level;
    route(14, 1u << 15 | VECTOR);
    equal(interrupts(14, 1), 3, "a level comes again after each EOI while it is high");
    route(14, 0x10000);
}

static void memory(void)
{
    write_cr4(read_cr4() | CR4_OSFXSR);
    volatile u64 *first = (void *)MEMORY;
    *first = 0x8877665544332211;
    equal(*first, 0x8877665544332211, "eight bytes");
    *(volatile u8 *)(MEMORY + 3) = 0x99;
    equal(*(volatile u32 *)(MEMORY + 1), 0x55993322, "bytes, at odd addresses");
    *(volatile u16 *)(MEMORY + 7) = 0xBEEF;
    equal(*first, 0xEF77665599332211, "two bytes, over the edge of eight");
    asm volatile("lock addl $1, (%0)" : : "r"(MEMORY) : "memory", "cc");
    equal(*first, 0xEF77665599332212, "a locked instruction");
    asm volatile("movups (%0), %%xmm0; movups %%xmm0, 16(%0)" : : "r"(MEMORY) : "memory");
    equal(*(volatile u64 *)(MEMORY + 16), 0xEF77665599332212, "sixteen bytes");

    u8 *from = alloc_pages(1, PAGE), *to = alloc_pages(1, PAGE);
    for (unsigned i = 0; i < PAGE; i++)
        from[i] = (u8)(i * 7);
    memcpy((void *)(MEMORY + SIZE - PAGE), from, PAGE);
    memcpy(to, (void *)(MEMORY + SIZE - PAGE), PAGE);
    equal(memcmp(from, to, PAGE), 0, "the last page, by string instructions");
}

void test(void)
{
    echo();
    lines();
    memory();
}
