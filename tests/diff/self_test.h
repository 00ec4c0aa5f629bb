/*
 * The test's test: see self_test.c.
 */
#ifndef DOPPEL_TESTS_DIFF_SELF_TEST_H
#define DOPPEL_TESTS_DIFF_SELF_TEST_H

#include "generate.h"

/* Runs COUNT cases natively twice and plants a difference in each. False when one was missed or
 * the host does not agree with itself. */
bool self_test(const struct generator *g, struct native *native, uint64_t count);

#endif
