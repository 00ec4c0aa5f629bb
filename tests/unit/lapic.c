/*
 * The local APIC as operating systems use it: priorities, EOI, IPIs by every addressing mode, the
 * timer's modes, mode changes, errors, pins, save and restore.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/lapic.h"
#include "fake_clock.h"
#include "state_image.h"

#define CPUS 20 /* two x2APIC clusters */

enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    PPR = 0xA0,
    EOI = 0xB0,
    LDR = 0xD0,
    DFR = 0xE0,
    SVR = 0xF0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_PERF = 0x340,
    LINT0 = 0x350,
    LINT1 = 0x360,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3E0,
};
#define MSR(offset)     (0x800u + (offset) / 16)
#define APIC_BASE       0x1Bu
#define TSC_DEADLINE    0x6E0u
#define X2_ENABLED(bsp) (0xFEE00C00u | (bsp) << 8)

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct cpu_port port[CPUS];
    struct lapic_set *set;
    unsigned wakes[CPUS], eois, last_eoi;
    unsigned extint_vector;
};

static void wake(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void board_eoi(void *opaque, unsigned vector)
{
    struct fixture *f = opaque;
    f->eois++;
    f->last_eoi = vector;
}

static unsigned board_acknowledge(void *opaque)
{
    struct fixture *f = opaque;
    struct irq_line intr = lapic_set_lint(f->set, 0);
    irq_set(&intr, false); /* calling back must not deadlock */
    return f->extint_vector;
}

static struct fixture *start(void)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    struct lapic_board board = {board_eoi, board_acknowledge, f};
    struct cpu_port *ports[CPUS];
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL, f->bus, NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        f->port[i] = (struct cpu_port){.id = i, .wake = wake, .wake_opaque = &f->wakes[i]};
        ports[i] = &f->port[i];
    }
    f->set = lapic_set_create(f->clock, ports, CPUS, 40, &board, NULL);
    assert_non_null(f->set);
    return f;
}

static void finish(struct fixture *f)
{
    struct dev *dev = lapic_set_dev(f->set);
    dev->ops->free(dev);
    clock_destroy(f->clock);
    bus_destroy(f->bus);
    test_free(f);
}

static uint32_t rd(struct fixture *f, unsigned cpu, uint32_t offset)
{
    return (uint32_t)f->port[cpu].apic_ops->mmio_read(f->port[cpu].apic, offset, 4);
}

static void wr(struct fixture *f, unsigned cpu, uint32_t offset, uint32_t value)
{
    f->port[cpu].apic_ops->mmio_write(f->port[cpu].apic, offset, 4, value);
}

static int wrmsr(struct fixture *f, unsigned cpu, uint32_t msr, uint64_t value)
{
    return f->port[cpu].apic_ops->msr_write(f->port[cpu].apic, msr, value);
}

static uint64_t rdmsr(struct fixture *f, unsigned cpu, uint32_t msr)
{
    uint64_t value = 0;
    assert_int_equal(f->port[cpu].apic_ops->msr_read(f->port[cpu].apic, msr, &value), 0);
    return value;
}

static bool rdmsr_faults(struct fixture *f, unsigned cpu, uint32_t msr)
{
    uint64_t value;
    return f->port[cpu].apic_ops->msr_read(f->port[cpu].apic, msr, &value) == -1;
}

static int pending(struct fixture *f, unsigned cpu)
{
    return f->port[cpu].apic_ops->pending(f->port[cpu].apic);
}

static int ack(struct fixture *f, unsigned cpu)
{
    return f->port[cpu].apic_ops->ack(f->port[cpu].apic);
}

/* The requests that reached the vCPU since the last call. */
static uint32_t requests(struct fixture *f, unsigned cpu)
{
    return atomic_exchange(&f->port[cpu].requests, 0);
}

static void msi(struct fixture *f, uint64_t address, uint32_t data)
{
    struct msi_sink sink = lapic_set_msi(f->set);
    sink.send(sink.opaque, address, data);
}

static void enable_all(struct fixture *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        wr(f, i, SVR, 0x1FF);
}

static void x2apic_all(struct fixture *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(wrmsr(f, i, APIC_BASE, X2_ENABLED(i == 0)), 0);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(wrmsr(f, i, MSR(SVR), 0x1FF), 0);
}

/* Which of the first 20 processors have VECTOR pending; acknowledges and ends it there. */
static uint32_t receivers(struct fixture *f, int vector)
{
    uint32_t set = 0;
    for (unsigned i = 0; i < CPUS; i++)
        if (pending(f, i) == vector) {
            set |= 1u << i;
            assert_int_equal(ack(f, i), vector);
            if (rdmsr(f, i, APIC_BASE) & 0x400)
                wrmsr(f, i, MSR(EOI), 0);
            else
                wr(f, i, EOI, 0);
        }
    return set;
}

static void test_reset_values(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    assert_int_equal(rdmsr(f, 0, APIC_BASE), 0xFEE00900);
    assert_int_equal(rdmsr(f, 1, APIC_BASE), 0xFEE00800);
    assert_int_equal(rd(f, 3, ID), 3u << 24);
    assert_int_equal(rd(f, 0, VERSION) & 0xFF00FF, 0x50014);
    assert_int_equal(rd(f, 0, SVR), 0xFF);
    assert_int_equal(rd(f, 0, DFR), 0xFFFFFFFF);
    assert_int_equal(rd(f, 0, LINT0), 0x10000);
    wr(f, 0, LINT0, 0x700); /* software-disabled: stays masked */
    assert_int_equal(rd(f, 0, LINT0), 0x10700);
    lapic_firmware_setup(f->set);
    assert_int_equal(rd(f, 0, SVR), 0x1FF);
    assert_int_equal(rd(f, 0, LINT0), 0x700);
    assert_int_equal(rd(f, 0, LINT1), 0x400);
    assert_int_equal(rd(f, 1, LINT0), 0x10000);
    wr(f, 0, SVR, 0xFF); /* disabling masks everything */
    assert_int_equal(rd(f, 0, LINT0), 0x10700);
    finish(f);
}

static void test_priority_and_eoi(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    assert_int_equal(pending(f, 0), -1);
    msi(f, 0xFEE00000, 0x41);
    assert_int_equal(requests(f, 0), CPU_REQ_INTR);
    assert_int_equal(f->wakes[0], 1);
    assert_int_equal(pending(f, 0), 0x41);
    msi(f, 0xFEE00000, 0x45);
    msi(f, 0xFEE00000, 0x62);
    assert_int_equal(rd(f, 0, IRR + 0x20), 0x22);
    assert_int_equal(ack(f, 0), 0x62);
    assert_int_equal(rd(f, 0, PPR), 0x60);
    assert_int_equal(rd(f, 0, ISR + 0x30), 4);
    assert_int_equal(pending(f, 0), -1);
    msi(f, 0xFEE00000, 0x6F); /* same class: must wait */
    assert_int_equal(pending(f, 0), -1);
    assert_int_equal(ack(f, 0), -1);
    requests(f, 0);
    msi(f, 0xFEE00000, 0x70); /* nests */
    assert_int_equal(requests(f, 0), CPU_REQ_INTR);
    assert_int_equal(ack(f, 0), 0x70);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, PPR), 0x60);
    wr(f, 0, EOI, 0);
    assert_int_equal(requests(f, 0), CPU_REQ_INTR); /* 6F was waiting for this */
    assert_int_equal(ack(f, 0), 0x6F);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eois, 0); /* all were edges */

    /* The task priority holds back its own class and those below; CR8 is its upper half. */
    f->port[0].apic_ops->set_cr8(f->port[0].apic, 4);
    assert_int_equal(rd(f, 0, TPR), 0x40);
    assert_int_equal(pending(f, 0), -1);
    requests(f, 0);
    wr(f, 0, TPR, 0x3F);
    assert_int_equal(requests(f, 0), CPU_REQ_INTR);
    assert_int_equal(f->port[0].apic_ops->get_cr8(f->port[0].apic), 3);
    assert_int_equal(rd(f, 0, PPR), 0x3F);
    assert_int_equal(ack(f, 0), 0x45);
    assert_int_equal(rd(f, 0, PPR), 0x40);
    wr(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    wr(f, 0, EOI, 0); /* one too many does nothing */
    assert_int_equal(pending(f, 0), -1);
    finish(f);
}

static void test_level_broadcasts_eoi(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    msi(f, 0xFEE00000, 0xC031);
    assert_int_equal(rd(f, 0, TMR + 0x10), 1u << 17);
    assert_int_equal(ack(f, 0), 0x31);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    assert_int_equal(f->last_eoi, 0x31);
    msi(f, 0xFEE00000, 0x8031); /* level, deasserted: nothing */
    assert_int_equal(pending(f, 0), -1);
    msi(f, 0xFEE00000, 0x31); /* the same vector as an edge */
    assert_int_equal(ack(f, 0), 0x31);
    assert_int_equal(rd(f, 0, TMR + 0x10), 0);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    wr(f, 0, SVR, 0x11FF); /* EOI broadcasts suppressed */
    msi(f, 0xFEE00000, 0xC031);
    assert_int_equal(ack(f, 0), 0x31);
    wr(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    finish(f);
}

static void test_disabled(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    msi(f, 0xFEE00000, 0x41); /* software-disabled since reset */
    assert_int_equal(pending(f, 0), -1);
    assert_int_equal(rd(f, 0, IRR + 0x20), 0);
    msi(f, 0xFEE00000, 0x400);
    assert_int_equal(requests(f, 0), CPU_REQ_NMI);
    msi(f, 0xFEC00000, 0x400); /* not an APIC's address */
    assert_int_equal(requests(f, 0), 0);

    wr(f, 0, SVR, 0x1FF);
    msi(f, 0xFEE00000, 0x41);
    wr(f, 0, TPR, 0x20);
    assert_int_equal(wrmsr(f, 0, APIC_BASE, 0xFEE00100), 0);
    assert_int_equal(f->port[0].apic_ops->base(f->port[0].apic), UINT64_MAX);
    assert_int_equal(pending(f, 0), -1);
    msi(f, 0xFEE00000, 0x400);
    assert_int_equal(requests(f, 0) & CPU_REQ_NMI, 0);
    /* The pins are now INTR and NMI. */
    struct irq_line intr = lapic_set_lint(f->set, 0), nmi = lapic_set_lint(f->set, 1);
    irq_set(&nmi, true);
    assert_int_equal(requests(f, 0), CPU_REQ_NMI);
    assert_int_equal(requests(f, 1), 0);
    irq_set(&intr, true);
    assert_int_equal(requests(f, 0), CPU_REQ_INTR);
    assert_int_equal(pending(f, 0), 256);
    f->extint_vector = 8;
    assert_int_equal(ack(f, 0), 8);
    assert_int_equal(pending(f, 0), -1);
    /* Enabled again, it is as after reset. */
    assert_int_equal(wrmsr(f, 0, APIC_BASE, 0xFEE00900), 0);
    assert_int_equal(rd(f, 0, TPR), 0);
    assert_int_equal(rd(f, 0, SVR), 0xFF);
    assert_int_equal(rd(f, 0, IRR + 0x20), 0);
    finish(f);
}

static void test_base_transitions(void **unused)
{
    struct fixture *f = start();
    enum { OFF = 0xFEE00000, X1 = 0xFEE00800, X2 = 0xFEE00C00, BAD = 0xFEE00400 };
    (void)unused;
    assert_int_equal(wrmsr(f, 1, APIC_BASE, BAD), -1);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, OFF), 0);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X2), -1); /* not directly */
    assert_int_equal(wrmsr(f, 1, APIC_BASE, BAD), -1);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X1), 0);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X2), 0);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X2), 0);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X1), -1); /* only by disabling */
    assert_int_equal(wrmsr(f, 1, APIC_BASE, BAD), -1);
    assert_int_equal(f->port[1].apic_ops->base(f->port[1].apic), UINT64_MAX);
    assert_int_equal(rdmsr(f, 1, APIC_BASE), X2);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, OFF), 0);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, 0x12345800), 0);
    assert_int_equal(f->port[1].apic_ops->base(f->port[1].apic), 0x12345000);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X1 | 1), -1);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X1 | 0x200), -1);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X1 | 1ULL << 40), -1);
    assert_int_equal(wrmsr(f, 1, APIC_BASE, X1 | 1ULL << 39), 0);
    assert_true(rdmsr_faults(f, 1, MSR(ID))); /* not in x2APIC mode */
    assert_int_equal(wrmsr(f, 1, MSR(EOI), 0), -1);
    finish(f);
}

static void test_x2apic_registers(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    x2apic_all(f);
    assert_int_equal(rdmsr(f, 19, MSR(ID)), 19);
    assert_int_equal(rdmsr(f, 19, MSR(LDR)), 0x10008);
    assert_int_equal(wrmsr(f, 0, MSR(TPR), 0x100), -1);
    assert_int_equal(wrmsr(f, 0, MSR(TPR), 0x10), 0);
    assert_int_equal(rdmsr(f, 0, MSR(PPR)), 0x10);
    assert_int_equal(wrmsr(f, 0, MSR(PPR), 0), -1);
    assert_int_equal(wrmsr(f, 0, MSR(EOI), 1), -1);
    assert_int_equal(wrmsr(f, 0, MSR(EOI), 0), 0);
    assert_true(rdmsr_faults(f, 0, MSR(EOI)));
    assert_true(rdmsr_faults(f, 0, MSR(DFR)));
    assert_true(rdmsr_faults(f, 0, MSR(ICR_HIGH)));
    assert_true(rdmsr_faults(f, 0, 0x82F)); /* CMCI */
    assert_true(rdmsr_faults(f, 0, 0x83F)); /* self IPI is write-only */
    assert_true(rdmsr_faults(f, 0, 0x8FF));
    assert_true(rdmsr_faults(f, 0, 0x7FF));
    assert_int_equal(wrmsr(f, 0, MSR(LDR), 0), -1);
    assert_int_equal(wrmsr(f, 0, MSR(ESR), 1), -1);
    assert_int_equal(wrmsr(f, 0, MSR(ESR), 0), 0);
    assert_int_equal(wrmsr(f, 0, MSR(ICR), 1u << 20), -1);
    assert_int_equal(wrmsr(f, 0, MSR(LVT_TIMER), 0x80000), -1);
    assert_int_equal(wrmsr(f, 0, MSR(DIVIDE), 4), -1);
    assert_int_equal(wrmsr(f, 0, MSR(INITIAL), 1ULL << 32), -1);
    assert_int_equal(wrmsr(f, 0, 0x83F, 0x100), -1);

    assert_int_equal(wrmsr(f, 0, 0x83F, 0x77), 0);
    assert_int_equal(receivers(f, 0x77), 1);
    uint64_t icr = 5ULL << 32 | 0x4055;
    assert_int_equal(wrmsr(f, 0, MSR(ICR), icr), 0);
    assert_int_equal(rdmsr(f, 0, MSR(ICR)), icr);
    assert_int_equal(receivers(f, 0x55), 1u << 5);
    /* Logical: cluster 1, members 0 and 2. */
    wrmsr(f, 0, MSR(ICR), 0x10005ULL << 32 | 0x4856);
    assert_int_equal(receivers(f, 0x56), 5u << 16);
    wrmsr(f, 0, MSR(ICR), 0xFFFFFFFFULL << 32 | 0x4056);
    assert_int_equal(receivers(f, 0x56), 0xFFFFF);
    wrmsr(f, 0, MSR(ICR), 0xFFULL << 32 | 0x4056); /* 32-bit IDs: no broadcast */
    assert_int_equal(receivers(f, 0x56), 0);
    msi(f, 0xFEEFF000, 0x57); /* but in a message it is */
    assert_int_equal(receivers(f, 0x57), 0xFFFFF);
    msi(f, 0xFEE00000 | 0x0A << 12 | 4, 0x57); /* logical, eight bits: cluster 0 */
    assert_int_equal(receivers(f, 0x57), 0xA);
    finish(f);
}

static void ipi(struct fixture *f, unsigned cpu, uint8_t destination, uint32_t low)
{
    wr(f, cpu, ICR_HIGH, (uint32_t)destination << 24);
    wr(f, cpu, ICR, low);
}

static void test_ipi_destinations(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    ipi(f, 2, 7, 0x4050);
    assert_int_equal(rd(f, 2, ICR), 0x4050);
    assert_int_equal(rd(f, 2, ICR_HIGH), 7u << 24);
    assert_int_equal(receivers(f, 0x50), 1u << 7);
    ipi(f, 2, 0xFF, 0x4050);
    assert_int_equal(receivers(f, 0x50), 0xFFFFF);
    ipi(f, 2, 40, 0x4050); /* nobody */
    assert_int_equal(receivers(f, 0x50), 0);
    ipi(f, 2, 0, 0x44050);
    assert_int_equal(receivers(f, 0x50), 1u << 2);
    ipi(f, 2, 0, 0x84050);
    assert_int_equal(receivers(f, 0x50), 0xFFFFF);
    ipi(f, 2, 0, 0xC4050);
    assert_int_equal(receivers(f, 0x50), 0xFFFFF & ~4);

    /* Logical, flat model: one bit each. */
    for (unsigned i = 0; i < 8; i++)
        wr(f, i, LDR, 0x01000000u << i);
    ipi(f, 0, 0x28, 0x4850);
    assert_int_equal(receivers(f, 0x50), 0x28);
    /* Cluster model: cluster in the upper half. */
    for (unsigned i = 0; i < CPUS; i++) {
        wr(f, i, DFR, 0);
        assert_int_equal(rd(f, i, DFR), 0x0FFFFFFF);
        wr(f, i, LDR, (i / 4) << 28 | 1u << (24 + i % 4));
    }
    ipi(f, 0, 0x25, 0x4850);
    assert_int_equal(receivers(f, 0x50), 5u << 8);
    ipi(f, 0, 0xFF, 0x4850);
    assert_int_equal(receivers(f, 0x50), 0xFFFFF);

    /* Lowest priority: only the least busy one of those addressed, in turn. */
    for (unsigned i = 0; i < CPUS; i++)
        wr(f, i, TPR, i == 5 ? 0 : 0x20);
    ipi(f, 0, 0x1F, 0x4950);
    assert_int_equal(receivers(f, 0x50), 1u << 5);
    wr(f, 5, TPR, 0x20);
    uint32_t seen = 0;
    for (int i = 0; i < 2 * CPUS; i++) {
        ipi(f, 0, 0x1F, 0x4950);
        uint32_t got = receivers(f, 0x50);
        assert_int_equal(__builtin_popcount(got), 1);
        seen |= got;
    }
    assert_int_equal(seen, 0xF0);
    wr(f, 4, SVR, 0xFF);
    wr(f, 4, TPR, 0); /* the least busy one takes no interrupts */
    ipi(f, 0, 0x11, 0x4950);
    assert_int_equal(receivers(f, 0x50), 0);
    finish(f);
}

static void test_init_sipi_nmi(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    wr(f, 1, SVR, 0x1FF);
    wr(f, 1, TPR, 0x50);
    ipi(f, 0, 1, 0xC500);
    assert_int_equal(requests(f, 1), CPU_REQ_INIT);
    assert_int_equal(rd(f, 1, TPR), 0);
    assert_int_equal(rd(f, 1, SVR), 0xFF);
    assert_int_equal(rd(f, 1, ID), 1u << 24);
    ipi(f, 0, 1, 0x8500); /* INIT level de-assert */
    assert_int_equal(requests(f, 1), 0);
    ipi(f, 0, 1, 0x4698);
    assert_int_equal(requests(f, 1), CPU_REQ_SIPI);
    assert_int_equal(atomic_load(&f->port[1].sipi_vector), 0x98);
    ipi(f, 0, 0, 0xC4400);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(requests(f, i), i ? CPU_REQ_NMI : 0);
    ipi(f, 0, 0, 0x44500); /* INIT to self does not exist */
    ipi(f, 0, 0, 0x84600);
    assert_int_equal(requests(f, 0), 0);
    assert_int_equal(requests(f, 1), 0);
    finish(f);
}

static void test_errors(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    wr(f, 0, LVT_ERROR, 0xFE);
    ipi(f, 0, 1, 0x400F);
    assert_int_equal(pending(f, 1), -1);
    assert_int_equal(rd(f, 0, ESR), 0); /* only a write makes it visible */
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x20);
    assert_int_equal(ack(f, 0), 0xFE);
    wr(f, 0, EOI, 0);
    msi(f, 0xFEE00000, 0x05);
    rd(f, 0, 0x40);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0xC0);
    assert_int_equal(ack(f, 0), 0xFE);
    wr(f, 0, EOI, 0);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0);

    wr(f, 0, LVT_ERROR, 3); /* an error interrupt that is itself an error */
    wr(f, 0, 0x3F0, 0);     /* the self IPI register is for x2APIC mode */
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0xC0);
    finish(f);
}

static void test_pins(void **unused)
{
    struct fixture *f = start();
    struct irq_line intr = lapic_set_lint(f->set, 0), nmi = lapic_set_lint(f->set, 1);
    (void)unused;
    lapic_firmware_setup(f->set);
    irq_set(&intr, true);
    assert_int_equal(requests(f, 0), CPU_REQ_INTR);
    assert_int_equal(pending(f, 0), 256);
    assert_int_equal(pending(f, 1), -1);
    wr(f, 0, TPR, 0xF0); /* ExtINT knows no priority */
    assert_int_equal(pending(f, 0), 256);
    irq_set(&intr, false);
    assert_int_equal(pending(f, 0), -1);
    wr(f, 0, TPR, 0);
    irq_set(&intr, true);
    f->extint_vector = 0x30;
    assert_int_equal(ack(f, 0), 0x30);
    assert_int_equal(rd(f, 0, ISR + 0x10), 0);
    requests(f, 0);
    irq_set(&nmi, true);
    irq_set(&nmi, true);
    assert_int_equal(requests(f, 0), CPU_REQ_NMI);
    assert_int_equal(f->wakes[0], 3);
    irq_set(&nmi, false);

    /* A fixed interrupt, first edge- then level-triggered. */
    wr(f, 0, LINT0, 0x40);
    irq_set(&intr, true);
    assert_int_equal(ack(f, 0), 0x40);
    wr(f, 0, EOI, 0);
    assert_int_equal(pending(f, 0), -1);
    wr(f, 0, LINT0, 0x8040);
    assert_int_equal(rd(f, 0, LINT0), 0xC040);
    assert_int_equal(ack(f, 0), 0x40);
    wr(f, 0, EOI, 0); /* still high: again */
    assert_int_equal(ack(f, 0), 0x40);
    irq_set(&intr, false);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, LINT0), 0x8040);
    assert_int_equal(pending(f, 0), -1);

    msi(f, 0xFEE00000, 0x700); /* an ExtINT message waits until acknowledged */
    assert_int_equal(pending(f, 0), 256);
    assert_int_equal(ack(f, 0), 0x30);
    assert_int_equal(pending(f, 0), -1);
    finish(f);
}

static void test_timer_one_shot_and_periodic(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    wr(f, 0, DIVIDE, 3); /* by 16 */
    wr(f, 0, LVT_TIMER, 0xEC);
    wr(f, 0, INITIAL, 1000);
    assert_int_equal(rd(f, 0, CURRENT), 1000);
    fake_clock_advance(f->clock, 8000);
    assert_int_equal(rd(f, 0, CURRENT), 500);
    fake_clock_advance(f->clock, 7999);
    assert_int_equal(pending(f, 0), -1);
    assert_int_equal(rd(f, 0, CURRENT), 1);
    fake_clock_advance(f->clock, 1);
    assert_int_equal(requests(f, 0), CPU_REQ_INTR);
    assert_int_equal(ack(f, 0), 0xEC);
    assert_int_equal(rd(f, 0, CURRENT), 0);
    wr(f, 0, EOI, 0);
    fake_clock_advance(f->clock, 100000);
    assert_int_equal(pending(f, 0), -1);

    wr(f, 0, DIVIDE, 0xB); /* by 1 */
    wr(f, 0, LVT_TIMER, 0x200EC);
    wr(f, 0, INITIAL, 300000);
    for (int i = 0; i < 5; i++) {
        fake_clock_advance(f->clock, 299999);
        assert_int_equal(pending(f, 0), -1);
        fake_clock_advance(f->clock, 1);
        assert_int_equal(ack(f, 0), 0xEC);
        wr(f, 0, EOI, 0);
    }
    /* The count goes on while masked, and dividing anew keeps it. */
    wr(f, 0, LVT_TIMER, 0x300EC);
    fake_clock_advance(f->clock, 850000);
    assert_int_equal(pending(f, 0), -1);
    assert_int_equal(rd(f, 0, CURRENT), 50000);
    wr(f, 0, DIVIDE, 0);
    assert_int_equal(rd(f, 0, CURRENT), 50000);
    fake_clock_advance(f->clock, 20000);
    assert_int_equal(rd(f, 0, CURRENT), 40000);
    wr(f, 0, LVT_TIMER, 0x200EC);
    fake_clock_advance(f->clock, 80000);
    assert_int_equal(ack(f, 0), 0xEC);
    wr(f, 0, INITIAL, 0);
    assert_int_equal(fake_clock_next(f->clock), UINT64_MAX);

    finish(f);
}

/* A period of one tick fires, but does not take the host over; and while its interrupt waits, as
 * for a guest that halts with interrupts off, the host has nothing to do for it. */
static void test_timer_shortest_period(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    wr(f, 0, DIVIDE, 0xB); /* by 1 */
    wr(f, 0, LVT_TIMER, 0x200EC);
    wr(f, 0, INITIAL, 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pending(f, 0), -1);
        assert_int_equal(fake_clock_next(f->clock), clock_now(f->clock) + CLOCK_SHORTEST_PERIOD_NS);
        fake_clock_advance(f->clock, CLOCK_SHORTEST_PERIOD_NS);
        assert_int_equal(fake_clock_next(f->clock), UINT64_MAX);
        fake_clock_advance(f->clock, 10000000);
        assert_int_equal(ack(f, 0), 0xEC);
        wr(f, 0, EOI, 0);
    }
    /* What was due while one waited is lost; the phase is kept. */
    wr(f, 0, INITIAL, 1000000);
    fake_clock_advance(f->clock, 3400000);
    assert_int_equal(ack(f, 0), 0xEC);
    wr(f, 0, EOI, 0);
    assert_int_equal(pending(f, 0), -1);
    assert_int_equal(rd(f, 0, CURRENT), 600000);
    assert_int_equal(fake_clock_next(f->clock), clock_now(f->clock) + 600000);
    /* Another vector does not have to wait for the first. */
    fake_clock_advance(f->clock, 600000);
    wr(f, 0, LVT_TIMER, 0x200ED);
    fake_clock_advance(f->clock, 1000000);
    assert_int_equal(ack(f, 0), 0xED);
    finish(f);
}

static void test_timer_deadline(void **unused)
{
    struct fixture *f = start();
    (void)unused;
    enable_all(f);
    fake_clock_advance(f->clock, 1000);
    assert_int_equal(wrmsr(f, 0, TSC_DEADLINE, 5000), 0); /* not in this mode: ignored */
    assert_int_equal(rdmsr(f, 0, TSC_DEADLINE), 0);
    wr(f, 0, LVT_TIMER, 0x400EC);
    wr(f, 0, INITIAL, 1000); /* ignored in turn */
    assert_int_equal(rd(f, 0, INITIAL), 0);
    assert_int_equal(wrmsr(f, 0, TSC_DEADLINE, 5000), 0);
    assert_int_equal(rdmsr(f, 0, TSC_DEADLINE), 5000);
    assert_int_equal(rd(f, 0, CURRENT), 0);
    fake_clock_advance(f->clock, 1499);
    assert_int_equal(pending(f, 0), -1);
    fake_clock_advance(f->clock, 1);
    assert_int_equal(ack(f, 0), 0xEC);
    assert_int_equal(rdmsr(f, 0, TSC_DEADLINE), 0);
    wr(f, 0, EOI, 0);

    wrmsr(f, 0, TSC_DEADLINE, 10); /* past: at once */
    assert_int_equal(ack(f, 0), 0xEC);
    wr(f, 0, EOI, 0);
    wrmsr(f, 0, TSC_DEADLINE, 100000);
    wrmsr(f, 0, TSC_DEADLINE, 0); /* disarms */
    fake_clock_advance(f->clock, 100000);
    assert_int_equal(pending(f, 0), -1);
    wrmsr(f, 0, TSC_DEADLINE, 100000000);
    wr(f, 0, LVT_TIMER, 0xEC); /* so does leaving the mode */
    wr(f, 0, LVT_TIMER, 0x400EC);
    assert_int_equal(rdmsr(f, 0, TSC_DEADLINE), 0);
    fake_clock_advance(f->clock, 100000000);
    assert_int_equal(pending(f, 0), -1);
    finish(f);
}

static void test_odd_accesses(void **unused)
{
    struct fixture *f = start();
    const struct apic_ops *ops = f->port[0].apic_ops;
    void *apic = f->port[0].apic;
    (void)unused;
    assert_int_equal(ops->mmio_read(apic, VERSION + 2, 1), 5);
    assert_int_equal(ops->mmio_read(apic, VERSION + 4, 4), 0);
    assert_int_equal(ops->mmio_read(apic, VERSION, 8), rd(f, 0, VERSION));
    ops->mmio_write(apic, TPR, 1, 0x30);
    ops->mmio_write(apic, TPR + 4, 4, 0x30);
    assert_int_equal(rd(f, 0, TPR), 0);
    ops->mmio_write(apic, TPR, 8, 0xFFFFFFFF00000030);
    assert_int_equal(rd(f, 0, TPR), 0x30);
    assert_int_equal(ops->mmio_read(apic, 0xFFC, 4), 0);
    finish(f);
}

static void test_state(void **unused)
{
    struct fixture *f = start(), *g = start();
    (void)unused;
    x2apic_all(f);
    wrmsr(f, 0, MSR(LVT_TIMER), 0x200EC);
    wrmsr(f, 0, MSR(INITIAL), 500000);
    wrmsr(f, 1, MSR(TPR), 0x20);
    msi(f, 0xFEE00000, 0x41);
    assert_int_equal(ack(f, 0), 0x41);
    msi(f, 0xFEE00000, 0xC051);
    fake_clock_advance(f->clock, 10000);

    struct state_image image = {0};
    struct state *save = image_save(&image);
    clock_state(f->clock, save);
    lapic_set_dev(f->set)->ops->state(lapic_set_dev(f->set), save);
    assert_int_equal(image_done(save), 0);
    struct state *load = image_load(&image);
    clock_state(g->clock, load);
    lapic_set_dev(g->set)->ops->state(lapic_set_dev(g->set), load);
    assert_int_equal(image_done(load), 0);

    assert_int_equal(rdmsr(g, 0, APIC_BASE), 0xFEE00D00);
    assert_int_equal(rdmsr(g, 1, MSR(TPR)), 0x20);
    assert_int_equal(requests(g, 0), CPU_REQ_INTR);
    assert_int_equal(ack(g, 0), 0x51);
    wrmsr(g, 0, MSR(EOI), 0);
    assert_int_equal(g->last_eoi, 0x51);
    wrmsr(g, 0, MSR(EOI), 0);
    assert_int_equal(rdmsr(g, 0, MSR(CURRENT)), rdmsr(f, 0, MSR(CURRENT)));
    fake_clock_advance(g->clock, 990000);
    assert_int_equal(pending(g, 0), 0xEC);

    struct dev *dev = lapic_set_dev(g->set);
    dev->ops->reset(dev);
    assert_int_equal(rdmsr(g, 0, APIC_BASE), 0xFEE00900);
    assert_int_equal(pending(g, 0), -1);
    assert_int_equal(fake_clock_next(g->clock), UINT64_MAX);
    image_free(&image);
    finish(f);
    finish(g);
}

/* Whose turn it is with lowest-priority interrupts goes on, too. */
static void test_turns_go_on(void **unused)
{
    struct fixture *f = start(), *g = start();
    struct state_image image = {0};
    (void)unused;
    for (unsigned i = 0; i < CPUS; i++)
        wr(f, i, SVR, 0x1FF);
    for (unsigned turn = 0; turn < 3; turn++) {
        msi(f, 0xFEEFF000, 0x4150);
        assert_int_equal(receivers(f, 0x50), 1u << turn);
    }
    assert_int_equal(image_save_dev(&image, lapic_set_dev(f->set)), 0);
    assert_int_equal(image_load_dev(&image, lapic_set_dev(g->set)), 0);
    msi(g, 0xFEEFF000, 0x4150);
    assert_int_equal(receivers(g, 0x50), 1u << 3);
    image_free(&image);
    finish(f);
    finish(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_values),
        cmocka_unit_test(test_priority_and_eoi),
        cmocka_unit_test(test_level_broadcasts_eoi),
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_base_transitions),
        cmocka_unit_test(test_x2apic_registers),
        cmocka_unit_test(test_ipi_destinations),
        cmocka_unit_test(test_init_sipi_nmi),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_timer_one_shot_and_periodic),
        cmocka_unit_test(test_timer_shortest_period),
        cmocka_unit_test(test_timer_deadline),
        cmocka_unit_test(test_odd_accesses),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_turns_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
