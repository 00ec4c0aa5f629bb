/*
 * The second half of a check: what was counted against what the image says.
 */
#ifndef DOPPEL_BLK_QCOW2_REPAIR_H
#define DOPPEL_BLK_QCOW2_REPAIR_H

#include "blk/qcow2/counts.h"

/* Compares the counts with the refcounts, and the flags of L1 and L2 entries with the counts;
 * corrects what c->how says. With the image's lock. */
int qcow2_compare(struct qcow2_counts *c);

#endif
