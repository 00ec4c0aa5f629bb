/*
 * Bytes on their way from a device, on some thread of the VM's, to the thread that writes them out.
 */
#ifndef DOPPEL_CON_OUTBOX_H
#define DOPPEL_CON_OUTBOX_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct outbox;

/* Holds at most LIMIT bytes. WAKE_FD is an eventfd, not owned, written to when bytes come in. */
struct outbox *outbox_create(size_t limit, int wake_fd, struct error *err);
void outbox_destroy(struct outbox *box);

/* Puts SIZE bytes in, waiting while the box is full: a terminal that stands still holds its guest
 * up. After outbox_close bytes are dropped and nobody waits. */
void outbox_put(struct outbox *box, const void *data, size_t size);
void outbox_close(struct outbox *box);

/* Takes out at most SIZE bytes; returns how many, 0 when empty. */
size_t outbox_take(struct outbox *box, void *data, size_t size);
bool outbox_empty(struct outbox *box);

#endif
