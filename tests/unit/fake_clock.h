/*
 * A clock that stands still until a test moves it: bus/clock.h without threads or real time.
 *
 * A test (or fuzz target) that compiles fake_clock.c in gets it in place of the library's clock.
 * It takes NULL for the loop and the error. The TSC starts at 0 and runs at FAKE_TSC_HZ.
 */
#ifndef DOPPEL_TESTS_UNIT_FAKE_CLOCK_H
#define DOPPEL_TESTS_UNIT_FAKE_CLOCK_H

#include "bus/clock.h"

#define FAKE_TSC_HZ 2000000000ULL

/* Lets NS guest nanoseconds pass; what comes due fires in order, at its time, under the board
 * lock, which must not be held. */
void fake_clock_advance(struct clock *clock, uint64_t ns);
/* When the next timer is due, or UINT64_MAX. */
uint64_t fake_clock_next(const struct clock *clock);

#endif
