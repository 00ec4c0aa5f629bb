/*
 * Requests on their way to the one thread that carries them out.
 *
 *      any thread                              the thread
 *        inbox_put ------> list ------------>    inbox_take
 *        inbox_kick -----> eventfd --------->    waits for it, among other things
 *                                                inbox_awake
 *
 * The eventfd is written to only if the thread has taken the list and has not said since that it is
 * awake: so a kick costs nothing while the thread is at work.
 *
 * The lock is a leaf.
 */
#ifndef DOPPEL_BLK_INBOX_H
#define DOPPEL_BLK_INBOX_H

#include "blk/list.h"

#include <stdatomic.h>

struct inbox {
    pthread_mutex_t lock;
    struct blk_list list;
    bool asleep, ending;
    _Atomic bool filled; /* the list is not empty: to be read without the lock */
    int event;           /* an eventfd that does not block */
};

/* Returns 0 or a negative errno. */
int inbox_create(struct inbox *inbox);
void inbox_destroy(struct inbox *inbox);

void inbox_put(struct inbox *inbox, struct blk_request *request);
/* Has the thread take what is in the list, if it does not know of it. */
void inbox_kick(struct inbox *inbox);
/* Has inbox_take return false from now on, and wakes the thread. */
void inbox_end(struct inbox *inbox);

/* The thread's: appends the list to LIST. Afterwards a kick writes to the eventfd. Returns false
 * when it is the end. */
bool inbox_take(struct inbox *inbox, struct blk_list *list);
/* The thread's: it takes the list before it waits again. */
void inbox_awake(struct inbox *inbox);

#endif
