/*
 * A set of clusters of the file: those that hold metadata, so that nothing else is written there.
 */
#ifndef DOPPEL_BLK_QCOW2_SET_H
#define DOPPEL_BLK_QCOW2_SET_H

#include "blk/qcow2/qcow2_private.h"

/* Adds N clusters from FIRST on: all of them, or none. Returns 0, -EEXIST if one is in the set
 * already, or -ENOMEM. */
int qcow2_set_add(struct qcow2_set *set, uint64_t first, uint64_t n);
/* Takes those of them out that are in the set. */
void qcow2_set_remove(struct qcow2_set *set, uint64_t first, uint64_t n);
bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster);
void qcow2_set_free(struct qcow2_set *set);

#endif
