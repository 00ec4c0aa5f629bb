/*
 * Local APICs under load from all sides: processors on threads of their own that send each other
 * interrupts, timers on the loop's thread, and a level-triggered line of an I/O APIC. No interrupt
 * may be lost and nothing may deadlock; meant to be run under ThreadSanitizer, too.
 */
#include "test.h"

#include "base/util.h"
#include "bus/clock.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#define CPUS   4
#define HOPS   4000
#define LEVELS 1000
#define TICKS  20

enum { RING_VECTOR = 0x50, LEVEL_VECTOR = 0x61, TIMER_VECTOR = 0xEC };
enum { EOI = 0x80B, SVR = 0x80F, ICR = 0x830, LVT_TIMER = 0x832, INITIAL = 0x838, DIVIDE = 0x83E };

struct machine {
    struct loop *loop;
    struct bus *bus;
    struct clock *clock;
    struct lapic_set *set;
    struct ioapic *ioapic;
    struct cpu_port port[CPUS];
    sem_t awake[CPUS], level_handled;
    _Atomic unsigned hops, levels, ticks[CPUS];
    _Atomic bool stop;
};

struct cpu {
    struct machine *m;
    unsigned n;
    pthread_t thread;
};

static void wake(void *opaque)
{
    sem_post(opaque);
}

static void board_eoi(void *opaque, unsigned vector)
{
    struct machine *m = opaque;
    bus_lock(m->bus);
    ioapic_eoi(m->ioapic, vector);
    bus_unlock(m->bus);
}

static unsigned board_acknowledge(void *opaque)
{
    (void)opaque;
    return 0;
}

static void wrmsr(struct cpu_port *port, uint32_t msr, uint64_t value)
{
    assert_int_equal(port->apic_ops->msr_write(port->apic, msr, value), 0);
}

static void set_level(struct machine *m, bool level)
{
    struct irq_line pin = ioapic_pin(m->ioapic, 5);
    bus_lock(m->bus);
    irq_set(&pin, level);
    bus_unlock(m->bus);
}

static void handle(struct cpu *cpu, int vector)
{
    struct machine *m = cpu->m;
    struct cpu_port *port = &m->port[cpu->n];
    switch (vector) {
    case RING_VECTOR:
        if (atomic_fetch_add(&m->hops, 1) < HOPS)
            wrmsr(port, ICR, (uint64_t)((cpu->n + 1) % CPUS) << 32 | 0x4000 | RING_VECTOR);
        break;
    case LEVEL_VECTOR:
        atomic_fetch_add(&m->levels, 1);
        set_level(m, false);
        break;
    case TIMER_VECTOR: atomic_fetch_add(&m->ticks[cpu->n], 1); break;
    }
    wrmsr(port, EOI, 0);
    if (vector == LEVEL_VECTOR)
        sem_post(&m->level_handled);
}

static void *run(void *opaque)
{
    struct cpu *cpu = opaque;
    struct machine *m = cpu->m;
    struct cpu_port *port = &m->port[cpu->n];
    wrmsr(port, DIVIDE, 0xB);
    wrmsr(port, LVT_TIMER, 0x20000 | TIMER_VECTOR);
    wrmsr(port, INITIAL, 200000 + 10000 * cpu->n);
    while (!atomic_load(&m->stop)) {
        sem_wait(&m->awake[cpu->n]);
        if (!(atomic_fetch_and(&port->requests, ~(uint32_t)CPU_REQ_INTR) & CPU_REQ_INTR))
            continue;
        while (port->apic_ops->pending(port->apic) >= 0)
            handle(cpu, port->apic_ops->ack(port->apic));
    }
    return NULL;
}

static void assemble(struct machine *m)
{
    struct cpu_port *ports[CPUS];
    struct lapic_board board = {board_eoi, board_acknowledge, m};
    m->loop = loop_create(NULL);
    m->bus = bus_create(NULL);
    m->clock = clock_create(m->loop, m->bus, NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        sem_init(&m->awake[i], 0, 0);
        ports[i] = &m->port[i];
        *ports[i] = (struct cpu_port){.id = i, .wake = wake, .wake_opaque = &m->awake[i]};
    }
    sem_init(&m->level_handled, 0, 0);
    m->set = lapic_set_create(m->clock, ports, CPUS, 40, &board, NULL);
    m->ioapic = ioapic_create(m->bus, IOAPIC_BASE, CPUS, lapic_set_msi(m->set), NULL);
    assert_non_null(m->ioapic);
    for (unsigned i = 0; i < CPUS; i++) {
        wrmsr(ports[i], 0x1B, 0xFEE00C00 | (i == 0) << 8);
        wrmsr(ports[i], SVR, 0x1FF);
    }
    /* Pin 5: level-triggered, to whoever of the four is least busy. */
    bus_write(m->bus, BUS_MMIO, IOAPIC_BASE, 4, 0x1B);
    bus_write(m->bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4, 0x0F000000);
    bus_write(m->bus, BUS_MMIO, IOAPIC_BASE, 4, 0x1A);
    bus_write(m->bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4, 0x8900 | LEVEL_VECTOR);
    assert_int_equal(loop_start(m->loop, NULL), 0);
}

static void disassemble(struct machine *m)
{
    lapic_set_dev(m->set)->ops->free(lapic_set_dev(m->set));
    ioapic_dev(m->ioapic)->ops->free(ioapic_dev(m->ioapic));
    clock_destroy(m->clock);
    loop_destroy(m->loop);
    bus_destroy(m->bus);
}

static bool reaches(_Atomic unsigned *value, unsigned wanted)
{
    struct timespec ms = {.tv_nsec = 1000000};
    for (int i = 0; i < 20000 && atomic_load(value) < wanted; i++)
        nanosleep(&ms, NULL);
    return atomic_load(value) >= wanted;
}

static void test_storm(void **unused)
{
    struct machine m = {0};
    struct cpu cpu[CPUS];
    (void)unused;
    assemble(&m);
    for (unsigned i = 0; i < CPUS; i++) {
        cpu[i] = (struct cpu){.m = &m, .n = i};
        assert_int_equal(pthread_create(&cpu[i].thread, NULL, run, &cpu[i]), 0);
    }
    struct msi_sink sink = lapic_set_msi(m.set);
    sink.send(sink.opaque, 0xFEE00000, RING_VECTOR);
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 20;
    for (unsigned i = 0; i < LEVELS; i++) {
        set_level(&m, true);
        assert_int_equal(sem_timedwait(&m.level_handled, &limit), 0);
    }
    assert_true(reaches(&m.hops, HOPS + 1));
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(reaches(&m.ticks[i], TICKS));
    atomic_store(&m.stop, true);
    for (unsigned i = 0; i < CPUS; i++) {
        sem_post(&m.awake[i]);
        pthread_join(cpu[i].thread, NULL);
    }
    assert_int_equal(atomic_load(&m.hops), HOPS + 1);
    assert_int_equal(atomic_load(&m.levels), LEVELS);
    disassemble(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
