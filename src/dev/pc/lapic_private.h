/*
 * Inside the local APIC: shared by its files lapic*.c and by nothing else.
 *
 * Every entry point locks one APIC with lapic_enter, changes it, and unlocks with lapic_leave. What
 * has to be told to others meanwhile (the vCPU, other APICs, the board) collects in the outbox and
 * goes out in lapic_leave, after the lock is given up.
 */
#ifndef DOPPEL_DEV_PC_LAPIC_PRIVATE_H
#define DOPPEL_DEV_PC_LAPIC_PRIVATE_H

#include "dev/pc/lapic.h"

#include <pthread.h>

/* IA32_APIC_BASE (SDM volume 3, figure 11-5). */
#define BASE_BSP    (1u << 8)
#define BASE_X2APIC (1u << 10)
#define BASE_ENABLE (1u << 11)

/* Spurious-interrupt vector register. */
#define SVR_ENABLE       (1u << 8)
#define SVR_NO_BROADCAST (1u << 12)

/* Local vector table entries, in register order. */
enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
_Static_assert(LVT_COUNT == LAPIC_LVTS, "the state has them all");
#define LVT_VECTOR         0xFFu
#define LVT_MODE           (7u << 8)
#define LVT_STATUS         (1u << 12) /* never set: delivery takes no time */
#define LVT_REMOTE_IRR     (1u << 14)
#define LVT_LEVEL          (1u << 15)
#define LVT_MASKED         (1u << 16)
#define LVT_TIMER_MODE     (3u << 17)
#define LVT_TIMER_PERIODIC (1u << 17)
#define LVT_TIMER_DEADLINE (2u << 17)

/* Delivery modes, as in the LVT, the ICR and messages. */
enum delivery {
    DELIVER_FIXED,
    DELIVER_LOWEST,
    DELIVER_SMI,
    DELIVER_RESERVED,
    DELIVER_NMI,
    DELIVER_INIT,
    DELIVER_SIPI,
    DELIVER_EXTINT,
};

/* Error status register. */
#define ESR_SEND_ILLEGAL_VECTOR    (1u << 5)
#define ESR_RECEIVE_ILLEGAL_VECTOR (1u << 6)
#define ESR_ILLEGAL_REGISTER       (1u << 7)

/* Shorthands, as in bits 18-19 of the ICR. */
enum shorthand { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

struct apic_message {
    enum delivery delivery;
    uint8_t vector;
    bool level;
    enum shorthand shorthand;
    bool logical;
    bool broadcast; /* the destination is all ones */
    uint32_t destination;
};

#define PENDING_NONE   (-1)
#define PENDING_EXTINT 256

struct outbox {
    uint32_t requests; /* CPU_REQ_* for the APIC's own vCPU */
    int eoi;           /* vector to broadcast, or -1 */
    bool has_message;
    struct apic_message message;
};

struct lapic {
    struct lapic_set *set;
    struct cpu_port *port;
    struct timer *timer;

    /* Read without the lock; lapic_leave brings them up to date. */
    _Atomic int pending;   /* what apic_ops.pending returns */
    _Atomic uint64_t page; /* where the register page is, UINT64_MAX when nowhere */
    _Atomic uint8_t task;  /* copy of tpr */
    pthread_mutex_t lock;  /* guards what follows */
    struct outbox outbox;  /* empty while the lock is free */
    struct lapic_state regs;
};

struct lapic_set {
    struct dev dev;
    struct clock *clock;
    struct lapic_board board;
    uint64_t base_reserved; /* bits of IA32_APIC_BASE that must be 0 */
    _Atomic unsigned turn;  /* breaks ties for lowest-priority delivery */
    unsigned count;
    struct lapic apic[];
};

/* lapic.c */
void lapic_enter(struct lapic *apic);
void lapic_leave(struct lapic *apic);
void lapic_clear(struct lapic *apic); /* what INIT does */
void lapic_accept(struct lapic *apic, const struct apic_message *message);
void lapic_raise_lvt(struct lapic *apic, enum lvt entry);
void lapic_level_lint(struct lapic *apic, unsigned n);
void lapic_log_error(struct lapic *apic, uint8_t bit);
void lapic_eoi(struct lapic *apic);
bool lapic_requested(const struct lapic *apic, uint8_t vector); /* its bit in the IRR */
unsigned lapic_priority(const struct lapic *apic);
uint32_t lapic_logical_id(const struct lapic *apic);

static inline bool lapic_is_x2apic(const struct lapic *apic)
{
    return apic->regs.base & BASE_X2APIC;
}

/* lapic_timer.c */
void lapic_timer_expired(void *apic); /* the host timer's callback */
void lapic_timer_arm(struct lapic *apic);
void lapic_timer_accepted(struct lapic *apic, uint8_t vector);
void lapic_timer_set_initial(struct lapic *apic, uint32_t value);
void lapic_timer_set_divide(struct lapic *apic, uint8_t value);
void lapic_timer_set_lvt(struct lapic *apic, uint32_t value);
void lapic_timer_set_tsc(struct lapic *apic, uint64_t value);
uint64_t lapic_timer_tsc(struct lapic *apic);
uint32_t lapic_timer_count(const struct lapic *apic);

/* lapic_regs.c */
extern const struct apic_ops lapic_apic_ops;
int lapic_pending(void *apic);
int lapic_acknowledge(void *apic);

/* lapic_set.c */
void lapic_send(struct lapic_set *set, const struct lapic *sender,
                const struct apic_message *message);

#endif
