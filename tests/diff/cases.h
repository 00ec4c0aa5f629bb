/*
 * Cases written by hand, in cases-*.S.
 */
#ifndef DOPPEL_TESTS_DIFF_CASES_H
#define DOPPEL_TESTS_DIFF_CASES_H

#include "generate.h"

#define CASES_VARIATIONS 12 /* of registers and addresses, for each */

unsigned cases_count(void);
void cases_make(const struct generator *g, unsigned i, unsigned variation, struct diff_case *c);

#endif
