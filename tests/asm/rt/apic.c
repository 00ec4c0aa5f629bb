/*
 * The local APIC, starting other processors, and a delay. See apic.h.
 */
#include "apic.h"
#include "rt.h"

extern u8 rt_ap_code[], rt_ap_code_end[];
void rt_ap_main(void);

void *volatile rt_ap_stack;
static void (*volatile ap_function)(void);
static volatile bool ap_up;

void apic_enable(void)
{
    apic_write(APIC_SVR, 0x1FF);
}

void apic_send(u32 icr, u32 destination)
{
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR, icr);
}

void rt_ap_main(void)
{
    lidt(&rt_idtr);
    apic_enable();
    ap_up = true;
    ap_function();
}

bool ap_start(u32 id, void (*fn)(void))
{
    memcpy((void *)AP_PAGE, rt_ap_code, (size_t)(rt_ap_code_end - rt_ap_code));
    rt_ap_stack = (u8 *)alloc_pages(4, PAGE) + 4 * PAGE;
    ap_function = fn;
    ap_up = false;
    apic_enable();
    apic_send(ICR_INIT, id);
    delay_us(10000);
    for (unsigned wait = 0; wait < PATIENCE_MS && !ap_up; wait++) {
        if (wait % (PATIENCE_MS / 2) == 0)
            apic_send(ICR_SIPI | AP_PAGE / PAGE, id);
        delay_us(1000);
    }
    return ap_up;
}

void delay_us(u32 n)
{
    enum { SPEAKER = 0x61, GATE = 1, OUT = 0x20, COUNTER2 = 0x42, CONTROL = 0x43 };
    while (n) {
        u32 part = n < 40000 ? n : 40000;
        u32 count = part * 1193 / 1000 + 1;
        outb(SPEAKER, (u8)((inb(SPEAKER) & ~3u) | GATE));
        outb(CONTROL, 0xB0); /* counter 2, low then high byte, mode 0 */
        outb(COUNTER2, (u8)count);
        outb(COUNTER2, (u8)(count >> 8));
        while (!(inb(SPEAKER) & OUT))
            cpu_pause();
        n -= part;
    }
}
