/*
 * An image in memory: made from its file, and freed.
 */
#ifndef DOPPEL_BLK_QCOW2_LOAD_H
#define DOPPEL_BLK_QCOW2_LOAD_H

#include "blk/qcow2/header.h"

/* Reads header and tables of the image in FILE. Where an image may be written to, its tables do not
 * overlap. With how->damaged, what is wrong with the tables only makes all changes fail
 * (q->failed), but for those of a check. NULL: ERR says why; FILE and how->backing stay the
 * caller's. */
struct qcow2 *qcow2_load(struct blk *file, const struct qcow2_how *how, struct qcow2_info *info,
                         struct error *err);
/* Reads the header only. */
int qcow2_load_info(struct blk *file, struct qcow2_info *info, struct error *err);
/* Reads the tables again, which a tool has changed in the file. With the image's lock, and nothing
 * in flight. On failure all further changes fail. */
int qcow2_load_again(struct qcow2 *q, struct error *err);
/* Forgets all changes that have not been written, and reads the tables again: for an image that
 * takes no more changes. As qcow2_load_again. */
int qcow2_start_over(struct qcow2 *q, struct error *err);
/* Forgets all, without a write. File and backing image stay open. */
void qcow2_unload(struct qcow2 *q);

#endif
