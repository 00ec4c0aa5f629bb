/*
 * What every unit test includes: cmocka and what it wants included before it.
 */
#ifndef DOPPEL_TESTS_UNIT_TEST_H
#define DOPPEL_TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif
