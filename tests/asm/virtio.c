/*
 * A driver for the virtio entropy device (--device rng): finds it on the PCI bus, negotiates, has
 * it fill memory, by polling and by MSI-X, moves its BAR, breaks a rule and starts anew
 * (virtio 1.2, 3.1, 4.1 and 5.4). 64-bit.
 */
#include "rt/apic.h"
#include "rt/rt.h"

enum { VECTOR = 0x60 };
enum { SIZE = 8 };
enum { STATUS_BROKEN = 0x40 };

/* Common configuration (4.1.4.3). */
enum {
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    STATUS = 20,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_AREAS = 32,
};

struct descriptor {
    u64 address;
    u32 size;
    u16 flags, next;
};
struct available {
    u16 flags, index, ring[SIZE];
};
struct used {
    u16 flags, index;
    struct {
        u32 head, written;
    } ring[SIZE];
};

static unsigned device; /* number on bus 0 */
static u64 bar[6];
static unsigned common_bar;
static volatile u8 *common, *notify, *table;
static u32 notify_multiplier;
static unsigned msix;
static volatile struct descriptor *descriptors;
static volatile struct available *available;
static volatile struct used *used;
static volatile unsigned interrupts;

/* --- configuration space --- */

static void outl(u16 port, u32 v)
{
    asm volatile("outl %0, %1" : : "a"(v), "d"(port));
}

static u32 inl(u16 port)
{
    u32 v;
    asm volatile("inl %1, %0" : "=a"(v) : "d"(port));
    return v;
}

static u32 config(unsigned reg)
{
    outl(0xCF8, 1u << 31 | device << 11 | (reg & 0xFC));
    return inl(0xCFC) >> 8 * (reg & 3);
}

static void set_config(unsigned reg, u32 v)
{
    outl(0xCF8, 1u << 31 | device << 11 | reg);
    outl(0xCFC, v);
}

static bool find(void)
{
    for (device = 0; device < 32; device++)
        if (config(0) == 0x10441AF4)
            return true;
    return false;
}

/* Where the registers are as the BARs stand. */
static void locate(void)
{
    for (unsigned n = 0; n < 6; n++) {
        u32 low = config(0x10 + 4 * n);
        bar[n] = low & ~0xFul;
        if ((low & 6) == 4)
            bar[n] |= (u64)config(0x14 + 4 * n) << 32;
    }
    for (unsigned at = config(0x34) & 0xFF; at; at = config(at + 1) & 0xFF) {
        volatile u8 *place = (volatile u8 *)(bar[config(at + 4) & 7] + config(at + 8));
        u32 kind = config(at) & 0xFF, type = config(at + 3) & 0xFF;
        if (kind == 9 && type == 1) {
            common = place;
            common_bar = config(at + 4) & 7;
        }
        if (kind == 9 && type == 2) {
            notify = place;
            notify_multiplier = config(at + 16);
        }
        if (kind == 0x11) {
            msix = at;
            table = (volatile u8 *)(bar[config(at + 4) & 7] + (config(at + 4) & ~7u));
        }
    }
}

/* --- registers --- */

static void put16(volatile u8 *base, unsigned offset, u16 v)
{
    *(volatile u16 *)(base + offset) = v;
}

static void put32(volatile u8 *base, unsigned offset, u32 v)
{
    *(volatile u32 *)(base + offset) = v;
}

static u8 status(void)
{
    return common[STATUS];
}

/* Waits, with interrupts on, until the device has used N chains. */
static bool wait_used(u16 n)
{
    for (unsigned ms = 0; ms < PATIENCE_MS && used->index != n; ms++) {
        asm volatile("sti");
        delay_us(1000);
        asm volatile("cli");
    }
    return used->index == n;
}

static bool reset(void)
{
    common[STATUS] = 0;
    for (unsigned ms = 0; ms < PATIENCE_MS && status(); ms++)
        delay_us(1000);
    return status() == 0;
}

static void start(void)
{
    check(reset(), "the status reads 0 after a reset");
    common[STATUS] = 1;
    common[STATUS] = 3;
    put32(common, DRIVER_FEATURE_SELECT, 1);
    put32(common, DRIVER_FEATURE, 1);
    put32(common, DRIVER_FEATURE_SELECT, 0);
    put32(common, DRIVER_FEATURE, 0);
    common[STATUS] = 11;
    equal(status(), 11, "the device agrees to VERSION_1 alone");
    memset((void *)available, 0, PAGE);
    memset((void *)used, 0, PAGE);
    put16(common, QUEUE_SELECT, 0);
    put16(common, QUEUE_SIZE, SIZE);
    put16(common, QUEUE_VECTOR, 1);
    equal(*(volatile u16 *)(common + QUEUE_VECTOR), 1, "vector 1 is there");
    const u64 areas[] = {(u64)descriptors, (u64)available, (u64)used};
    for (unsigned i = 0; i < 3; i++) {
        put32(common, QUEUE_AREAS + 8 * i, (u32)areas[i]);
        put32(common, QUEUE_AREAS + 8 * i + 4, (u32)(areas[i] >> 32));
    }
    put16(common, QUEUE_ENABLE, 1);
    common[STATUS] = 15;
    equal(status(), 15, "driver OK");
}

static void ring(void)
{
    u16 offset = *(volatile u16 *)(common + QUEUE_NOTIFY_OFF);
    put16(notify, offset * notify_multiplier, 0);
}

static void request(u16 n, void *buffer, u32 size)
{
    descriptors[n] = (struct descriptor){(u64)buffer, size, 2, 0};
    available->ring[available->index % SIZE] = n;
    asm volatile("" : : : "memory");
    available->index++;
}

/* --- tests --- */

static void on_interrupt(struct frame *f)
{
    interrupts++;
    apic_eoi();
}

static bool filled(const u8 *buffer, unsigned size)
{
    u64 any = 0;
    for (unsigned i = 0; i < size; i++)
        any |= buffer[i];
    return any != 0;
}

static void polling(u8 *buffer)
{
    available->flags = 1; /* no interrupts */
    request(0, buffer, 100);
    ring();
    check(wait_used(1), "a request is served");
    equal(used->ring[0].head, 0, "that one");
    equal(used->ring[0].written, 100, "all of it");
    check(filled(buffer, 100) && filled(buffer + 84, 16), "with random bytes");
    check(!filled(buffer + 100, 100), "and nothing behind them");
    equal(interrupts, 0, "without an interrupt");
    available->flags = 0;
}

static void by_interrupt(u8 *buffer)
{
    put32(table, 16, 0xFEE00000 | apic_read(APIC_ID) >> 24 << 12);
    put32(table, 20, 0);
    put32(table, 24, VECTOR);
    put32(table, 28, 1);
    set_config(msix & 0xFC, 0x80000000);
    for (u16 n = 1; n <= 3; n++)
        request(n, buffer + PAGE * n, 16 * n);
    ring();
    check(wait_used(4), "three requests at once");
    equal(interrupts, 0, "no interrupt while the vector is masked");
    put32(table, 28, 0);
    for (unsigned ms = 0; ms < PATIENCE_MS && !interrupts; ms++) {
        asm volatile("sti");
        delay_us(1000);
        asm volatile("cli");
    }
    equal(interrupts, 1, "one afterwards");
    for (u16 n = 1; n <= 3; n++) {
        equal(used->ring[n].head, n, "request %u", n);
        equal(used->ring[n].written, 16 * n, "with its length");
        check(filled(buffer + PAGE * n, 16 * n), "and content");
    }
}

static void move_bar(u8 *buffer)
{
    volatile u8 *before = common;
    set_config(0x10 + 4 * common_bar, 0xE0000000);
    equal(before[STATUS], 0xFF, "nothing is where the BAR was");
    locate();
    equal(status(), 15, "the device is where it is now");
    interrupts = 0;
    request(4, buffer, 32);
    ring();
    check(wait_used(5), "and hears its doorbell there");
    for (unsigned ms = 0; ms < PATIENCE_MS && !interrupts; ms++) {
        asm volatile("sti");
        delay_us(1000);
        asm volatile("cli");
    }
    equal(interrupts, 1, "its table has moved, too");
}

static void broken(u8 *buffer)
{
    descriptors[0] = (struct descriptor){(u64)buffer, 16, 3, 0}; /* its own successor */
    available->ring[available->index % SIZE] = 0;
    asm volatile("" : : : "memory");
    available->index++;
    ring();
    for (unsigned ms = 0; ms < PATIENCE_MS && !(status() & STATUS_BROKEN); ms++)
        delay_us(1000);
    equal(status(), 15 | STATUS_BROKEN, "a chain in a circle: the device needs a reset");
    equal(used->index, 5, "and serves nothing");
    start();
    request(0, buffer, 64);
    ring();
    check(wait_used(1), "after a reset it works again");
}

void test(void)
{
    if (!check(find(), "there is a virtio entropy device"))
        return;
    locate();
    check(bar[common_bar] && (config(4) & 2), "firmware has placed it");
    set_config(4, 6); /* memory, bus master */
    rt_handler[VECTOR] = on_interrupt;
    apic_enable();
    descriptors = alloc_pages(1, PAGE);
    available = alloc_pages(1, PAGE);
    used = alloc_pages(1, PAGE);
    u8 *buffer = alloc_pages(4, PAGE);
    start();
    polling(buffer);
    by_interrupt(buffer);
    move_bar(buffer);
    broken(buffer);
}
