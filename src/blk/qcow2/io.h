/*
 * Requests: straight to the file where the map is in memory, else on a thread of the image's pool.
 */
#ifndef DOPPEL_BLK_QCOW2_IO_H
#define DOPPEL_BLK_QCOW2_IO_H

#include "blk/qcow2/qcow2_private.h"

/* The driver's (driver.h). */
void qcow2_submit(struct blk *blk, struct blk_request *request);
void qcow2_kick(struct blk *blk);
int qcow2_perform(struct blk *blk, struct blk_request *request);

/* A tool changes the disk like a request: between these nothing stops the requests. Begin waits
 * while they are stopped. */
void qcow2_begin(struct qcow2 *q);
void qcow2_end(struct qcow2 *q);

/* Afterwards no request is in flight, and new ones wait until qcow2_go. For changes of the
 * image as a whole. Waits: not with a lock, not on a thread that completes requests. */
void qcow2_stop(struct qcow2 *q);
void qcow2_go(struct qcow2 *q);

#endif
