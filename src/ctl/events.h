/*
 * What happens to a virtual machine, told to any number of queues.
 *
 * Telling takes one lock, waits for nothing and calls nothing, so it may be done with any lock
 * held.
 */
#ifndef DOPPEL_CTL_EVENTS_H
#define DOPPEL_CTL_EVENTS_H

#include "base/error.h"
#include "ctl/doppel.h"

#include <pthread.h>

struct event_hub {
    pthread_mutex_t lock; /* guards the queues, too; taken last */
    struct doppel_events *first;
    bool ended;
    uint64_t end_ns;
};

void event_hub_init(struct event_hub *hub);
void event_hub_destroy(struct event_hub *hub); /* and all its queues */

/* TEXT is NULL but for lines of the log. After DOPPEL_EVENT_ENDED nothing is told any more. */
void event_tell(struct event_hub *hub, enum doppel_event_kind kind, enum doppel_log_level level,
                const char *text);

struct doppel_events *event_queue_open(struct event_hub *hub, struct error *err);

#endif
