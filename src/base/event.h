/*
 * Event files (eventfd(2)) that another process has, too, which may be hostile.
 *
 * O_NONBLOCK belongs to the open file, which both processes share. The other one can clear it at
 * any time and fill or empty the counter, so that read(2) and write(2) wait for ever, even right
 * after poll(2). These functions do not depend on O_NONBLOCK and never wait:
 *
 * - To signal, an asynchronous read of an empty file is begun (io_submit(2)) that has the event
 * file for its completion. The kernel then adds 1 to the counter, or leaves it if it is full.
 * - To clear, preadv2(2) is called with RWF_NOWAIT.
 */
#ifndef DOPPEL_BASE_EVENT_H
#define DOPPEL_BASE_EVENT_H

#include "base/error.h"

#include <stdbool.h>

/* What signals are sent with, for any number of event files. */
struct event_sender {
    unsigned long context; /* aio_context_t; 0: closed */
    int empty;
};

/* A sender that event_sender_close accepts, before event_sender_open. */
#define EVENT_SENDER_CLOSED ((struct event_sender){.context = 0, .empty = -1})

int event_sender_open(struct event_sender *sender, struct error *err);
void event_sender_close(struct event_sender *sender);

/* Signals FD, which stays readable until somebody clears it. -EINVAL: it is no event file. At most
 * 32 threads at the same time; they may hold locks. */
int event_signal(struct event_sender *sender, int fd);
/* Clears FD. Whether it was signalled. */
bool event_clear(int fd);

#endif
