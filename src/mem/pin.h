/*
 * Pins: host addresses of guest memory for work outside of all locks, as a worker does it.
 *
 * A pinned page is private and stays where it is until it is unpinned; who takes pages away skips
 * it. So pins are taken when a request is served and not before, and are kept for as long as that
 * takes. All pins of a VM together are limited; a request that is larger than what is left is
 * served in windows.
 */
#ifndef DOPPEL_MEM_PIN_H
#define DOPPEL_MEM_PIN_H

#include "base/fifo.h"
#include "mem/mem.h"

#include <sys/uio.h>

#define MEM_PIN_LIMIT  (64ULL << 20) /* bytes, of all pins; counted in whole pages */
#define MEM_PIN_WINDOW (1ULL << 20)  /* bytes, of one */

struct mem_pin {
    uint64_t gpa, size; /* what is pinned */
    enum mem_access access;
    bool uncounted; /* by mem_pin_uncounted */
};

/* Pins RAM from GPA on: PIN says how much, which is less than SIZE where MEM_PIN_WINDOW or the
 * COUNT elements of IOV do not suffice. Stores where it is in IOV and the number of elements in
 * COUNT. May block until pages are present. 0, -EFAULT if any of the SIZE bytes is not RAM, -EAGAIN
 * if the limit is reached: try again after an unpin. */
int mem_pin(struct mem *mem, uint64_t gpa, uint64_t size, enum mem_access access,
            struct mem_pin *pin, struct iovec *iov, unsigned *count);
/* As mem_pin, for a few pages whose owner must have them to give others back, as the rings of a
 * queue are: they do not count against the limit, and all SIZE bytes are pinned or none. -EINVAL:
 * COUNT elements are not enough (one for each page always is). */
int mem_pin_uncounted(struct mem *mem, uint64_t gpa, uint64_t size, enum mem_access access,
                      struct mem_pin *pin, struct iovec *iov, unsigned *count);
/* If the pin was for writing, its bytes are marked in the dirty log and the listeners hear of them,
 * before the call returns. Any thread. */
void mem_unpin(struct mem *mem, struct mem_pin *pin);
/* Instead of MEM_PIN_LIMIT. */
void mem_set_pin_limit(struct mem *mem, uint64_t bytes);

/* Someone whose mem_pin has failed with -EAGAIN and who rests until something is unpinned. The
 * owner sets RUN and OPAQUE; the rest is mem's and 0 at first. */
struct mem_pin_waiter {
    /* Posts (workers_post, loop_post) and does nothing else. Any thread, whatever locks it has. */
    void (*run)(void *opaque);
    void *opaque;
    struct fifo_link link;
    unsigned running; /* threads that are about to call RUN or inside it */
};

/* Has WAITER's function called once, at the next unpin or when the limit changes. What was unpinned
 * between the failure and this call it does not hear of: the caller tries once more after this, and
 * rests if that fails, too. */
void mem_pin_await(struct mem *mem, struct mem_pin_waiter *waiter);
/* Afterwards the function is not running and is not called until WAITER is used again. */
void mem_pin_forget(struct mem *mem, struct mem_pin_waiter *waiter);

#endif
