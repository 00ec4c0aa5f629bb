/*
 * The one source of time for a VM: guest nanoseconds, the guest's TSC, and timers.
 *
 * Guest time starts at 0 when the clock is created, runs with CLOCK_MONOTONIC and stands still
 * while the clock is paused. The guest's TSC is the host's plus an offset, so that RDTSC needs no
 * exit.
 */
#ifndef DOPPEL_BUS_CLOCK_H
#define DOPPEL_BUS_CLOCK_H

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"
#include "bus/bus.h"

#include <stdbool.h>
#include <stdint.h>

struct clock;
struct timer;

/* Timers fire on LOOP's thread with BUS's lock held. */
struct clock *clock_create(struct loop *loop, struct bus *bus, struct error *err);
void clock_destroy(struct clock *clock);

/* The shortest period at which a device has a periodic timer of the guest's call it. A guest may
 * program less, but cannot make the host do nothing else; it then gets one interrupt for several
 * periods. KVM has the same limit (its parameter min_timer_period_us). */
#define CLOCK_SHORTEST_PERIOD_NS 200000

uint64_t clock_now(const struct clock *clock); /* guest ns */
/* No timer fires until clock_resume, but for one whose callback has the board lock already. */
void clock_pause(struct clock *clock);
void clock_resume(struct clock *clock);

uint64_t clock_tsc_hz(const struct clock *clock);     /* of the host's TSC, and so the guest's */
uint64_t clock_tsc(const struct clock *clock);        /* the guest's TSC now, without TSC_ADJUST */
uint64_t clock_tsc_offset(const struct clock *clock); /* guest TSC = host TSC + this */
/* False for clocks of tests whose TSC has nothing to do with the host's. */
bool clock_tsc_is_hosts(const struct clock *clock);
/* When the guest's TSC will read (or read) TSC, in guest ns, saturating. */
uint64_t clock_tsc_to_ns(const struct clock *clock, uint64_t tsc);

/* CLOCK_REALTIME at guest time 0, in ns since 1970; what the RTC and kvmclock's wall clock show. */
uint64_t clock_epoch_ns(const struct clock *clock);

void clock_state(struct clock *clock, struct state *s);

typedef void timer_cb(void *opaque);

/* A one-shot timer, disarmed. Arming and disarming work from any thread, with or without locks
 * held. A callback that was under way when its timer was disarmed or re-armed without the board
 * lock may still come once: it must look at its device's state and not trust being called. A timer
 * that is armed, while its callback runs, for a moment that has passed fires CLOCK_RETRY_NS later:
 * no state of a device makes the loop call it without end. */
#define CLOCK_RETRY_NS 100000
struct timer *timer_create_on(struct clock *clock, timer_cb *cb, void *opaque);
void timer_free(struct timer *timer); /* board lock not held; no callback after it returns */
void timer_arm(struct timer *timer, uint64_t deadline_ns);
void timer_disarm(struct timer *timer);
/* The armed deadline, or UINT64_MAX. */
uint64_t timer_deadline(const struct timer *timer);

#endif
