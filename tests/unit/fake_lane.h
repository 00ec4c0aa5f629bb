/*
 * Workers and the event loop's jobs and watches, run when a test says so: base/workers.h and what
 * devices use of base/loop.h without threads.
 *
 * A test (or fuzz target) that compiles fake_lane.c in gets it in place of the library's.
 */
#ifndef DOPPEL_TESTS_UNIT_FAKE_LANE_H
#define DOPPEL_TESTS_UNIT_FAKE_LANE_H

#include "base/loop.h"
#include "base/workers.h"

/* Has one posted work run, or calls one posted job, or else one watch whose file is ready; none
 * with a lock held. False: there was none. */
bool fake_workers_step(struct workers *workers);
bool fake_loop_step(struct loop *loop);
/* Both, until nothing is posted. Fails the test after 100,000 steps. */
void fake_lane_run(struct workers *workers, struct loop *loop);

#endif
