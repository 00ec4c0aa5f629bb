/*
 * Local APICs under load from all sides: processors on threads of their own that send each other
 * interrupts, timers on the loop's thread, a level-triggered line of an I/O APIC, and messages from
 * threads that hold no lock. No interrupt may be lost and nothing may deadlock; run under
 * ThreadSanitizer, too.
 */
#include "test.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "bus/clock.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/lapic.h"

#include <pthread.h>
#include <semaphore.h>

#define CPUS   4
#define HOPS   4000
#define LEVELS 1000
#define TICKS  20

#define SENDERS  3
#define MESSAGES 300

enum { RING_VECTOR = 0x50, LEVEL_VECTOR = 0x61, TIMER_VECTOR = 0xEC };
/* Of messages: the first sender's (the next one's is 10h more), that which counts for nothing, and
 * what processors send themselves. */
enum { MESSAGE_VECTOR = 0x70, NOISE_VECTOR = 0x31, SELF_VECTOR = 0x42 };
enum { ID = 0x802, PPR = 0x80A, EOI = 0x80B, SVR = 0x80F, IRR = 0x820, ESR = 0x828, ICR = 0x830 };
enum { LVT_TIMER = 0x832, INITIAL = 0x838, DIVIDE = 0x83E, SELF_IPI = 0x83F };

struct machine {
    struct loop *loop;
    struct bus *bus;
    struct clock *clock;
    struct lapic_set *set;
    struct ioapic *ioapic;
    struct cpu_port port[CPUS];
    sem_t awake[CPUS], level_handled;
    _Atomic unsigned hops, levels, ticks[CPUS];
    sem_t answered[SENDERS]; /* a processor has taken one of this sender's messages */
    _Atomic unsigned taken[SENDERS][CPUS];
    bool busy; /* processors use their APICs all the time */
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

static uint64_t rdmsr(struct cpu_port *port, uint32_t msr)
{
    uint64_t value = 0;
    assert_int_equal(port->apic_ops->msr_read(port->apic, msr, &value), 0);
    return value;
}

static void take_message(struct cpu *cpu, unsigned sender)
{
    atomic_fetch_add(&cpu->m->taken[sender][cpu->n], 1);
    sem_post(&cpu->m->answered[sender]);
}

/* What a kernel does with its own APIC while messages come in. */
static void use_own_apic(struct cpu_port *port, bool send)
{
    port->apic_ops->set_cr8(port->apic, 14);
    if (send)
        wrmsr(port, SELF_IPI, SELF_VECTOR);
    assert_int_equal(rdmsr(port, ID), port->id);
    rdmsr(port, PPR);
    rdmsr(port, IRR);
    rdmsr(port, LVT_TIMER);
    wrmsr(port, INITIAL, 500000);
    wrmsr(port, ESR, 0);
    assert_int_equal(port->apic_ops->get_cr8(port->apic), 14);
    port->apic_ops->set_cr8(port->apic, 0);
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
    case MESSAGE_VECTOR:
    case MESSAGE_VECTOR + 0x10:
    case MESSAGE_VECTOR + 0x20: take_message(cpu, (unsigned)(vector - MESSAGE_VECTOR) / 16); break;
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
    unsigned turn = 0;
    wrmsr(port, DIVIDE, 0xB);
    wrmsr(port, LVT_TIMER, 0x20000 | TIMER_VECTOR);
    wrmsr(port, INITIAL, 200000 + 10000 * cpu->n);
    while (!atomic_load(&m->stop)) {
        if (m->busy) {
            struct timespec soon = time_spec(time_real_ns() + 200 * NS_PER_US);
            use_own_apic(port, turn++ % 8 == 0);
            sem_timedwait(&m->awake[cpu->n], &soon);
        } else {
            sem_wait(&m->awake[cpu->n]);
        }
        uint32_t requests =
            atomic_fetch_and(&port->requests, ~(uint32_t)(CPU_REQ_INTR | CPU_REQ_NMI));
        if (requests & CPU_REQ_NMI) /* only the first sender sends them */
            take_message(cpu, 0);
        if (!(requests & CPU_REQ_INTR))
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
    for (int i = 0; i < 20000 && atomic_load(value) < wanted; i++)
        time_sleep_ns(NS_PER_MS);
    return atomic_load(value) >= wanted;
}

static void start(struct machine *m, struct cpu cpu[CPUS])
{
    for (unsigned i = 0; i < CPUS; i++) {
        cpu[i] = (struct cpu){.m = m, .n = i};
        assert_int_equal(thread_start(&cpu[i].thread, "cpu", run, &cpu[i], NULL), 0);
    }
}

static void stop(struct machine *m, struct cpu cpu[CPUS])
{
    atomic_store(&m->stop, true);
    for (unsigned i = 0; i < CPUS; i++) {
        sem_post(&m->awake[i]);
        pthread_join(cpu[i].thread, NULL);
    }
}

static void test_storm(void **unused)
{
    struct machine m = {0};
    struct cpu cpu[CPUS];
    (void)unused;
    assemble(&m);
    start(&m, cpu);
    struct msi_sink sink = lapic_set_msi(m.set);
    sink.send(sink.opaque, 0xFEE00000, RING_VECTOR);
    struct timespec limit = time_spec(time_real_ns() + 20 * NS_PER_S);
    for (unsigned i = 0; i < LEVELS; i++) {
        set_level(&m, true);
        assert_int_equal(sem_timedwait(&m.level_handled, &limit), 0);
    }
    assert_true(reaches(&m.hops, HOPS + 1));
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(reaches(&m.ticks[i], TICKS));
    stop(&m, cpu);
    assert_int_equal(atomic_load(&m.hops), HOPS + 1);
    assert_int_equal(atomic_load(&m.levels), LEVELS);
    disassemble(&m);
}

/* ---- Messages from threads without a lock ---- */

/* Message addresses and data (SDM volume 3, 11.11). */
#define TO(destination)  (0xFEE00000u | (destination) << 12)
#define LOGICAL          (1u << 2)
#define MODE_LOWEST      (1u << 8)
#define MODE_SMI         (2u << 8)
#define MODE_NMI         (4u << 8)
#define MODE_SIPI        (6u << 8)
#define LEVEL_DEASSERTED (1u << 15)

struct sender {
    struct machine *m;
    unsigned n;
    pthread_t thread;
};

/* Sends message NUMBER of a sender's and says which processors are to take it: a mask, and whether
 * it is one of them or each. */
static unsigned send_one(struct sender *s, unsigned number, bool *any)
{
    struct msi_sink sink = lapic_set_msi(s->m->set);
    uint32_t vector = MESSAGE_VECTOR + 0x10 * s->n;
    unsigned cpu = number % CPUS, some = 1 + number % (1u << CPUS);
    some = some < 1u << CPUS ? some : 5;
    *any = false;
    switch (number % 5) {
    case 0: sink.send(sink.opaque, TO(cpu), vector); return 1u << cpu;
    case 1: sink.send(sink.opaque, TO(0xFF), vector); return (1u << CPUS) - 1;
    case 2: sink.send(sink.opaque, TO(some) | LOGICAL, vector); return some;
    case 3:
        sink.send(sink.opaque, TO(some) | LOGICAL, vector | MODE_LOWEST);
        *any = true;
        return some;
    default: sink.send(sink.opaque, TO(cpu), s->n ? vector : MODE_NMI); return 1u << cpu;
    }
}

/* Messages that nobody takes, and ones whose number does not matter. */
static void send_noise(struct sender *s)
{
    static const struct {
        uint32_t address, data;
    } noise[] = {
        {TO(0xFF), NOISE_VECTOR},
        {TO(3) | LOGICAL, NOISE_VECTOR | MODE_LOWEST},
        {TO(CPUS + 7), NOISE_VECTOR},
        {TO(CPUS + 7), NOISE_VECTOR | MODE_LOWEST},
        {TO(0xF0) | LOGICAL, NOISE_VECTOR},
        {TO(0), NOISE_VECTOR | MODE_SMI},
        {TO(0), NOISE_VECTOR | MODE_SIPI},
        {TO(1), NOISE_VECTOR | LEVEL_DEASSERTED},
        {TO(2), 3}, /* an illegal vector is an error of the receiver's */
        {0xFED00000, NOISE_VECTOR},
    };
    struct msi_sink sink = lapic_set_msi(s->m->set);
    for (unsigned i = 0; i < ARRAY_SIZE(noise); i++)
        sink.send(sink.opaque, noise[i].address, noise[i].data);
}

static void *send_messages(void *opaque)
{
    struct sender *s = opaque;
    struct timespec limit = time_spec(time_real_ns() + 60 * NS_PER_S);
    for (unsigned number = 0; number < MESSAGES; number++) {
        unsigned before[CPUS], total = 0;
        bool any;
        for (unsigned i = 0; i < CPUS; i++)
            before[i] = atomic_load(&s->m->taken[s->n][i]);
        unsigned cpus = send_one(s, number, &any);
        send_noise(s);
        for (unsigned i = any ? 1 : (unsigned)__builtin_popcount(cpus); i > 0; i--)
            assert_int_equal(sem_timedwait(&s->m->answered[s->n], &limit), 0);
        for (unsigned i = 0; i < CPUS; i++) {
            unsigned took = atomic_load(&s->m->taken[s->n][i]) - before[i];
            total += took;
            assert_true(took == (any ? took & (cpus >> i & 1) : cpus >> i & 1));
        }
        assert_int_equal(total, any ? 1 : __builtin_popcount(cpus));
    }
    return NULL;
}

/* Each message reaches those that it is for, once, while their own threads use the APICs. */
static void test_messages(void **unused)
{
    struct machine m = {.busy = true};
    struct cpu cpu[CPUS];
    struct sender sender[SENDERS];
    (void)unused;
    assemble(&m);
    start(&m, cpu);
    for (unsigned i = 0; i < SENDERS; i++) {
        sem_init(&m.answered[i], 0, 0);
        sender[i] = (struct sender){.m = &m, .n = i};
        assert_int_equal(thread_start(&sender[i].thread, "sender", send_messages, &sender[i], NULL),
                         0);
    }
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(sender[i].thread, NULL);
    stop(&m, cpu);
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_not_equal(sem_trywait(&m.answered[i]), 0); /* and no more */
    disassemble(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm),
                                       cmocka_unit_test(test_messages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
