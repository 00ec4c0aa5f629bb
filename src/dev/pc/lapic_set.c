/*
 * The local APICs of a VM as a set: creating and saving them, and finding the ones a message is
 * for (SDM volume 3, 11.6.2 and 11.12.10).
 */
#include "dev/pc/lapic_private.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define DEFAULT_BASE 0xFEE00000u

static bool matches_logical(const struct lapic *apic, uint32_t destination)
{
    uint32_t id = lapic_logical_id(apic);
    if (lapic_is_x2apic(apic))
        return id >> 16 == destination >> 16 && (id & destination & 0xFFFF);
    if (destination > 0xFF)
        return false;
    uint32_t common = id >> 24 & destination;
    bool flat = apic->regs.dfr >> 28 == 0xF;
    return flat ? common : id >> 28 == destination >> 4 && (common & 0xF);
}

static bool matches(const struct lapic *apic, const struct lapic *sender,
                    const struct apic_message *message)
{
    switch (message->shorthand) {
    case TO_SELF: return apic == sender;
    case TO_ALL: return true;
    case TO_OTHERS: return apic != sender;
    case TO_DESTINATION: break;
    }
    if (message->broadcast)
        return true;
    return message->logical ? matches_logical(apic, message->destination)
                            : apic->port->id == message->destination;
}

/* Lowest-priority delivery picks, of the APICs that match, the one whose processor does the least
 * important work; several of those take turns. */
static struct lapic *pick_lowest(struct lapic_set *set, const struct lapic *sender,
                                 const struct apic_message *message)
{
    struct lapic *best = NULL;
    unsigned lowest = UINT32_MAX;
    unsigned turn = atomic_fetch_add(&set->turn, 1);
    for (unsigned i = 0; i < set->count; i++) {
        struct lapic *apic = &set->apic[(turn + i) % set->count];
        lapic_enter(apic);
        unsigned priority = lapic_priority(apic);
        bool able = (apic->regs.base & BASE_ENABLE) && (apic->regs.svr & SVR_ENABLE);
        if (able && priority < lowest && matches(apic, sender, message)) {
            best = apic;
            lowest = priority;
        }
        lapic_leave(apic);
    }
    return best;
}

void lapic_send(struct lapic_set *set, const struct lapic *sender,
                const struct apic_message *message)
{
    unsigned first = 0, end = set->count;
    if (message->delivery == DELIVER_LOWEST) {
        const struct lapic *chosen = pick_lowest(set, sender, message);
        if (!chosen)
            return;
        first = (unsigned)(chosen - set->apic);
        end = first + 1;
    } else if (message->shorthand == TO_DESTINATION && !message->logical && !message->broadcast) {
        first = message->destination;
        end = first < set->count ? first + 1 : 0;
    }
    for (unsigned i = first; i < end; i++) {
        struct lapic *apic = &set->apic[i];
        lapic_enter(apic);
        if (matches(apic, sender, message))
            lapic_accept(apic, message);
        lapic_leave(apic);
    }
}

/* A message-signalled interrupt: the address holds the destination, the data the rest. */
static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
    struct lapic_set *set = opaque;
    bool level = data >> 15 & 1;
    bool assert = data >> 14 & 1;
    if (address >> 20 != DEFAULT_BASE >> 20 || (level && !assert))
        return;
    struct apic_message message = {
        .delivery = data >> 8 & 7,
        .vector = data & 0xFF,
        .level = level,
        .logical = address >> 2 & 1,
        .destination = address >> 12 & 0xFF,
    };
    message.broadcast = message.destination == 0xFF;
    if (message.delivery != DELIVER_SIPI)
        lapic_send(set, NULL, &message);
}

struct msi_sink lapic_set_msi(struct lapic_set *set)
{
    return (struct msi_sink){.send = msi_send, .opaque = set};
}

void lapic_firmware_setup(struct lapic_set *set)
{
    struct lapic *apic = &set->apic[0];
    lapic_enter(apic);
    apic->regs.svr |= SVR_ENABLE;
    apic->regs.lvt[LVT_LINT0] = DELIVER_EXTINT << 8;
    apic->regs.lvt[LVT_LINT1] = DELIVER_NMI << 8;
    lapic_leave(apic);
}

/* --- the device --- */

static void reset(struct dev *dev)
{
    struct lapic_set *set = container_of(dev, struct lapic_set, dev);
    for (unsigned i = 0; i < set->count; i++) {
        struct lapic *apic = &set->apic[i];
        lapic_enter(apic);
        apic->regs.base = DEFAULT_BASE | BASE_ENABLE | (apic->port->id ? 0 : BASE_BSP);
        lapic_clear(apic);
        lapic_leave(apic);
    }
}

static void state_out(void *opaque, unsigned cpu, struct lapic_state *state)
{
    struct lapic_set *set = opaque;
    struct lapic *apic = &set->apic[cpu];
    lapic_enter(apic);
    *state = apic->regs;
    state->turn = atomic_load(&set->turn);
    lapic_leave(apic);
}

static void state_in(void *opaque, unsigned cpu, const struct lapic_state *state)
{
    struct lapic_set *set = opaque;
    struct lapic *apic = &set->apic[cpu];
    if (cpu == 0)
        atomic_store(&set->turn, state->turn);
    lapic_enter(apic);
    apic->regs = *state;
    /* What the guest cannot bring about, a damaged file must not either. */
    apic->regs.base &= ~set->base_reserved;
    if (!(apic->regs.base & BASE_ENABLE))
        apic->regs.base &= ~(uint64_t)BASE_X2APIC;
    apic->regs.timer_running &= apic->regs.timer_initial != 0;
    apic->regs.timer_divide &= 0xB;
    atomic_store(&apic->pending, PENDING_NONE); /* so that the vCPU is told again */
    lapic_timer_arm(apic);
    lapic_leave(apic);
}

static void firmware_setup(void *opaque)
{
    lapic_firmware_setup(opaque);
}

struct local_apics lapic_set_apics(struct lapic_set *set)
{
    return (struct local_apics){.msi = lapic_set_msi(set),
                                .lint = lapic_set_lint(set, 0),
                                .firmware_setup = firmware_setup,
                                .state_out = state_out,
                                .state_in = state_in,
                                .opaque = set};
}

static void state(struct dev *dev, struct state *s)
{
    struct lapic_set *set = container_of(dev, struct lapic_set, dev);
    const struct local_apics apics = lapic_set_apics(set);
    local_apics_state(&apics, set->count, s);
}

void lapic_set_plug(struct lapic_set *set, bool in)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct cpu_port *port = set->apic[i].port;
        port->apic_ops = in ? &lapic_apic_ops : NULL;
        port->apic = in ? &set->apic[i] : NULL;
    }
}

static void destroy(struct dev *dev)
{
    struct lapic_set *set = container_of(dev, struct lapic_set, dev);
    for (unsigned i = 0; i < set->count; i++) {
        timer_free(set->apic[i].timer);
        pthread_mutex_destroy(&set->apic[i].lock);
    }
    lapic_set_plug(set, false);
    free(set);
}

static const struct dev_ops ops = {
    .name = "lapic",
    .reset = reset,
    .state = state,
    .free = destroy,
};

struct lapic_set *lapic_set_create(struct clock *clock, struct cpu_port *const ports[],
                                   unsigned count, unsigned physical_bits,
                                   const struct lapic_board *board, struct error *err)
{
    struct lapic_set *set = calloc(1, sizeof(*set) + count * sizeof(set->apic[0]));
    if (!set) {
        error_set(err, ENOMEM, "local APICs: out of memory");
        return NULL;
    }
    set->dev.ops = &ops;
    set->clock = clock;
    set->board = *board;
    set->base_reserved = ~((1ULL << physical_bits) - 1) | 0x2FF;
    for (; set->count < count; set->count++) {
        struct lapic *apic = &set->apic[set->count];
        struct timer *timer = timer_create_on(clock, lapic_timer_expired, apic);
        if (!timer) {
            error_set(err, ENOMEM, "local APICs: out of memory");
            destroy(&set->dev);
            return NULL;
        }
        apic->set = set;
        apic->port = ports[set->count];
        apic->timer = timer;
        apic->outbox.eoi = -1;
        pthread_mutex_init(&apic->lock, NULL);
    }
    lapic_set_plug(set, true);
    reset(&set->dev);
    return set;
}

struct dev *lapic_set_dev(struct lapic_set *set)
{
    return &set->dev;
}
