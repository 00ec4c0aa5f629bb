/*
 * Refcounts made anew from what a check has counted.
 */
#ifndef DOPPEL_BLK_QCOW2_REBUILD_H
#define DOPPEL_BLK_QCOW2_REBUILD_H

#include "blk/qcow2/counts.h"

/* Writes a new refcount table and new blocks behind the end of the file, and has the header lead
 * there. What is in memory is then stale. The old ones become leaks. */
int qcow2_rebuild(struct qcow2_counts *c);

#endif
