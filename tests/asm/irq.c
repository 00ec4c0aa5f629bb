/*
 * The interrupt sources of the board: the PICs with the PIT and the RTC, the I/O APIC with the
 * same, the time of day; then STI's shadow, HLT, and string instructions that interrupts break into
 * (SDM volume 3, 6.8; 8259A, 8254, MC146818A and 82093AA data sheets). 32-bit.
 */
#include "rt/apic.h"
#include "rt/rt.h"

enum { PIC1 = 0x20, PIC2 = 0xA0, PIT = 0x40, RTC = 0x70 };
enum { PIC_BASE = 0x30, IOAPIC_BASE = 0x50 };
#define IOAPIC 0xFEC00000ul

static volatile unsigned count[MAX_VECTORS];

static void on_pic(struct frame *f)
{
    count[f->vector]++;
    if (f->vector >= PIC_BASE + 8)
        outb(PIC2, 0x20);
    outb(PIC1, 0x20);
}

static void on_apic(struct frame *f)
{
    count[f->vector]++;
    apic_eoi();
}

static u8 rtc_read(u8 index)
{
    outb(RTC, index);
    return inb(RTC + 1);
}

static void rtc_write(u8 index, u8 v)
{
    outb(RTC, index);
    outb(RTC + 1, v);
}

static void pic_init(void)
{
    outb(PIC1, 0x11);
    outb(PIC2, 0x11);
    outb(PIC1 + 1, PIC_BASE);
    outb(PIC2 + 1, PIC_BASE + 8);
    outb(PIC1 + 1, 4);
    outb(PIC2 + 1, 2);
    outb(PIC1 + 1, 1);
    outb(PIC2 + 1, 1);
    outb(PIC1 + 1, 0xFF);
    outb(PIC2 + 1, 0xFF);
    for (unsigned v = PIC_BASE; v < PIC_BASE + 16; v++)
        rt_handler[v] = on_pic;
    for (unsigned v = IOAPIC_BASE; v < IOAPIC_BASE + 24; v++)
        rt_handler[v] = on_apic;
}

static void pit_rate(unsigned hz)
{
    unsigned divisor = 1193182 / hz;
    outb(PIT + 3, 0x34); /* counter 0, both bytes, mode 2 */
    outb(PIT, (u8)divisor);
    outb(PIT, (u8)(divisor >> 8));
}

static void pit_stop(void)
{
    outb(PIT + 3, 0x30); /* mode 0: waits for a count that is not given */
}

/* Waits with interrupts on until VECTOR has come TIMES times, or PATIENCE_MS have passed. */
static bool comes(unsigned vector, unsigned times)
{
    count[vector] = 0;
    asm volatile("sti");
    for (unsigned i = 0; i < PATIENCE_MS && count[vector] < times; i++)
        delay_us(1000);
    asm volatile("cli");
    return count[vector] >= times;
}

/* How often VECTOR comes in MS milliseconds. */
static unsigned comes_within(unsigned vector, unsigned ms)
{
    count[vector] = 0;
    asm volatile("sti");
    delay_us(ms * 1000);
    asm volatile("cli");
    return count[vector];
}

static bool waits_in_irr(void)
{
    outb(PIC1, 0x0A);
    for (unsigned i = 0; i < PATIENCE_MS && !(inb(PIC1) & 1); i++)
        delay_us(1000);
    return inb(PIC1) & 1;
}

/* The RTC's periodic interrupt, which comes again only after register C was read. */
static bool rtc_comes(unsigned vector)
{
    count[vector] = 0;
    asm volatile("sti");
    for (unsigned i = 0; i < PATIENCE_MS * 10 && count[vector] < 3; i++) {
        delay_us(100);
        (void)rtc_read(0x0C);
    }
    asm volatile("cli");
    return count[vector] >= 3;
}

static void legacy(void)
{
    pit_rate(100);
    outb(PIC1 + 1, 0xFE);
    check(comes(PIC_BASE, 5), "PIT at 100 Hz by the PIC");
    outb(PIC1 + 1, 0xFF);
    (void)comes_within(PIC_BASE, 1);
    equal(comes_within(PIC_BASE, 30), 0, "masked in the PIC");
    check(waits_in_irr(), "it waits in the PIC's IRR");
    pit_stop();

    rtc_write(0x8A, (rtc_read(0x8A) & 0xF0) | 0x6);  /* 1024 Hz */
    rtc_write(0x8B, (rtc_read(0x8B) & 0x8F) | 0x40); /* PIE */
    (void)rtc_read(0x8C);
    outb(PIC1 + 1, 0xFB);
    outb(PIC2 + 1, 0xFE);
    check(rtc_comes(PIC_BASE + 8), "RTC periodic interrupt by the second PIC");
    equal(rtc_read(0x0D) & 0x80, 0x80, "RTC: valid RAM and time");
    outb(PIC1 + 1, 0xFF);
    outb(PIC2 + 1, 0xFF);
    (void)rtc_read(0x0C);
}

static void time_of_day(void)
{
    rtc_write(0x0B, rtc_read(0x0B) | 2); /* 24 hours */
    bool binary = rtc_read(0x0B) & 4;
    while (rtc_read(0x0A) & 0x80)
        cpu_pause();
    u8 second = rtc_read(0), minute = rtc_read(2), hour = rtc_read(4);
    u8 day = rtc_read(7), month = rtc_read(8), year = rtc_read(9);
    if (!binary) {
        u8 *all[] = {&second, &minute, &hour, &day, &month, &year};
        for (unsigned i = 0; i < 6; i++)
            *all[i] = (u8)((*all[i] >> 4) * 10 + (*all[i] & 15));
    }
    check(second < 60 && minute < 60 && hour < 24, "the time is one");
    check(day >= 1 && day <= 31 && month >= 1 && month <= 12 && year >= 24, "the date is one");
    unsigned waited = 0;
    u8 then = rtc_read(0);
    while (rtc_read(0) == then && waited < PATIENCE_MS) {
        delay_us(1000);
        waited++;
    }
    check(waited < PATIENCE_MS, "seconds pass");
}

static u32 ioapic_read(u8 index)
{
    *(volatile u32 *)IOAPIC = index;
    return *(volatile u32 *)(IOAPIC + 0x10);
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

static void io_apic(void)
{
    apic_enable();
    check((ioapic_read(1) >> 16 & 0xFF) >= 23, "24 pins");
    check(ioapic_read(0x10) & 0x10000, "pins are masked after reset");
    route(2, IOAPIC_BASE + 2);
    pit_rate(100);
    check(comes(IOAPIC_BASE + 2, 5), "PIT at 100 Hz by pin 2");
    route(2, 0x10000 | (IOAPIC_BASE + 2));
    (void)comes_within(IOAPIC_BASE + 2, 1);
    equal(comes_within(IOAPIC_BASE + 2, 30), 0, "masked in the I/O APIC");
    pit_stop();
    route(8, IOAPIC_BASE + 8);
    (void)rtc_read(0x0C);
    check(rtc_comes(IOAPIC_BASE + 8), "RTC by pin 8");
    route(8, 0x10000);
    rtc_write(0x8B, rtc_read(0x8B) & 0x8F);
}

/* An interrupt is pending: when is it taken? */
static volatile word taken_at;

static void on_pending(struct frame *f)
{
    count[f->vector]++;
    taken_at = f->ip;
    f->flags &= ~FL_IF;
    apic_eoi();
}

static void pend(void)
{
    count[0x90] = 0;
    taken_at = 0;
    apic_send(ICR_SELF | ICR_ASSERT | 0x90, 0);
    delay_us(50);
}

static void shadows(void)
{
    rt_handler[0x90] = on_pending;
    word at;
    pend();
    asm volatile("movl $1f, %0; sti; nop; 1: nop; cli" : "=r"(at) : : "memory");
    equal(taken_at, at, "after STI, one instruction runs first");
    pend();
    asm volatile("sti; cli; nop; nop" : : : "memory");
    equal(count[0x90], 0, "STI; CLI lets nothing in");
    asm volatile("sti; nop; nop");
    pend();
    asm volatile("sti; hlt; 1: movl $1b, %0; cli" : "=r"(at) : : "memory");
    equal(taken_at, at, "STI; HLT: it is woken, and saves the address after HLT");
    pend();
    asm volatile("movl $1f, %0; mov %%ss, %%ecx; push $0x202; popf; 1: mov %%ecx, %%ss; nop; cli"
                 : "=r"(at)
                 :
                 : "ecx", "memory");
    equal(taken_at, at, "after POPF at once");
    pend();
    asm volatile("movl $1f, %0; sti; jmp 1f; nop; 1: nop; cli" : "=r"(at) : : "memory");
    equal(taken_at, at, "the instruction after STI may be a jump");
}

static void halting(void)
{
    route(2, IOAPIC_BASE + 2);
    pit_rate(100);
    count[IOAPIC_BASE + 2] = 0;
    for (unsigned i = 0; i < 5; i++)
        asm volatile("sti; hlt; cli");
    check(count[IOAPIC_BASE + 2] >= 5, "HLT sleeps until an interrupt, five times");
    pit_stop();
}

static volatile word string_cx, string_ip;

static void on_string(struct frame *f)
{
    if (count[f->vector]++ == 0) {
        string_cx = f->cx;
        string_ip = f->ip;
    }
    apic_eoi();
}

static void broken_strings(void)
{
    u8 *from = alloc_pages(1024, PAGE), *to = alloc_pages(1024, PAGE);
    rt_handler[IOAPIC_BASE + 2] = on_string;
    for (unsigned i = 0; i < 1024 * PAGE; i += 4)
        *(u32 *)(from + i) = i;
    pit_rate(5000);
    unsigned broken = 0;
    for (unsigned tries = 0; tries < 10000 && !broken; tries++) { /* each takes a moment only */
        word n = 1024 * PAGE, at;
        u8 *s = from, *d = to;
        count[IOAPIC_BASE + 2] = 0;
        asm volatile("movl $1f, %3; sti; nop; 1: rep movsb; cli"
                     : "+c"(n), "+S"(s), "+D"(d), "=&r"(at)
                     :
                     : "memory");
        broken = count[IOAPIC_BASE + 2] && string_ip == at && string_cx && string_cx < 1024 * PAGE;
    }
    pit_stop();
    route(2, 0x10000);
    check(broken, "an interrupt breaks into REP MOVSB, with CX %lx left", string_cx);
    check(!memcmp(from, to, 1024 * PAGE), "which goes on and copies everything");
}

void test(void)
{
    pic_init();
    legacy();
    time_of_day();
    io_apic();
    shadows();
    halting();
    broken_strings();
}
