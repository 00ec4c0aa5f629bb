/*
 * Bytes on their way from a device, on some thread of the VM's, to the thread that writes them out.
 */
#ifndef DOPPEL_CON_OUTBOX_H
#define DOPPEL_CON_OUTBOX_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct outbox;

/* Becomes full at LIMIT bytes, and takes EXCESS more from who does not heed that yet. WAKE_FD is an
 * eventfd, not owned, written to when bytes come in. */
struct outbox *outbox_create(size_t limit, size_t excess, int wake_fd, struct error *err);
void outbox_destroy(struct outbox *box);

/* Puts SIZE bytes in. Never waits, since who calls may have any lock: what finds no room at all is
 * dropped. Returns how many bytes went in. */
size_t outbox_put(struct outbox *box, const void *data, size_t size);
/* Whether who puts something in should wait, until half of the limit is free again. Takes no lock.
 */
bool outbox_full(const struct outbox *box);

/* Takes out at most SIZE bytes; returns how many, 0 when empty. *ROOM becomes true when the box was
 * full and is no longer. */
size_t outbox_take(struct outbox *box, void *data, size_t size, bool *room);
bool outbox_empty(struct outbox *box);

#endif
