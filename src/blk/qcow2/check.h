/*
 * Counting the references to each cluster of the file, and correcting what does not agree.
 */
#ifndef DOPPEL_BLK_QCOW2_CHECK_H
#define DOPPEL_BLK_QCOW2_CHECK_H

#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/qcow2_private.h"

/* qcow2_check, with no request in flight. Takes the image's lock. */
int qcow2_check_image(struct qcow2 *q, const struct qcow2_check *how, struct qcow2_checked *checked,
                      struct error *err);

#endif
