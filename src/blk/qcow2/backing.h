/*
 * What a user is told of an image's backing file.
 */
#ifndef DOPPEL_BLK_QCOW2_BACKING_H
#define DOPPEL_BLK_QCOW2_BACKING_H

#include <stddef.h>

struct qcow2;

#define QCOW2_ADVICE 320 /* bytes of advice, with the byte 0 at its end; the rest is cut off */

/* Writes how the backing file that the image names is named by its user: "add ',backing=F' behind
 * it", with the path as seen from here and with as many commas as the place needs. */
void qcow2_backing_advice(const struct qcow2 *q, char text[QCOW2_ADVICE]);

/* Warns if the backing file that was named is none that the image's own name of it leads to. The
 * file system is not asked about that name. */
void qcow2_backing_compare(const struct qcow2 *q);

#endif
