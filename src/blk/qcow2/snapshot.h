/*
 * Internal snapshots: with nothing in flight. These take the image's lock.
 */
#ifndef DOPPEL_BLK_QCOW2_SNAPSHOT_H
#define DOPPEL_BLK_QCOW2_SNAPSHOT_H

#include "blk/qcow2/qcow2_private.h"

#include "base/error.h"

int qcow2_make_snapshot(struct qcow2 *q, const char *name, struct error *err);
int qcow2_drop_snapshot(struct qcow2 *q, const char *name, struct error *err);
/* Changes q->disk_size, too. */
int qcow2_go_back(struct qcow2 *q, const char *name, struct error *err);

#endif
