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

#include "mem/mem.h"

#include <sys/uio.h>

#define MEM_PIN_LIMIT  (64ULL << 20) /* bytes, of all pins; counted in whole pages */
#define MEM_PIN_WINDOW (1ULL << 20)  /* bytes, of one */

struct mem_pin {
    uint64_t gpa, size; /* what is pinned */
    enum mem_access access;
};

/* Pins RAM from GPA on: PIN says how much, which is less than SIZE where MEM_PIN_WINDOW or the
 * COUNT elements of IOV do not suffice. Stores where it is in IOV and the number of elements in
 * COUNT. May block until pages are present. 0, -EFAULT if any of the SIZE bytes is not RAM, -EAGAIN
 * if the limit is reached: try again after an unpin. */
int mem_pin(struct mem *mem, uint64_t gpa, uint64_t size, enum mem_access access,
            struct mem_pin *pin, struct iovec *iov, unsigned *count);
/* If the pin was for writing, its bytes are marked in the dirty log and the listeners hear of them,
 * before the call returns. Any thread. */
void mem_unpin(struct mem *mem, struct mem_pin *pin);
/* Instead of MEM_PIN_LIMIT. */
void mem_set_pin_limit(struct mem *mem, uint64_t bytes);

#endif
