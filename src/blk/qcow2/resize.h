/*
 * Making the disk of an image larger or smaller.
 */
#ifndef DOPPEL_BLK_QCOW2_RESIZE_H
#define DOPPEL_BLK_QCOW2_RESIZE_H

#include "blk/qcow2/qcow2_private.h"

/* The driver's (driver.h). Requests wait until it is done. */
int qcow2_resize(struct blk *blk, uint64_t size, struct error *err);

#endif
