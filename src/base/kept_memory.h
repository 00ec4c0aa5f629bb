/*
 * Memory that a kept process shares with the process that uses it: rings, and pages for data.
 *
 * Either side may be hostile to the other. Each keeps its own indices to itself, copies an entry
 * before it looks at it, and checks what it has copied.
 *
 * A ring has one index that its writer counts up and its reader compares with its own. A reader
 * that goes to sleep says so in the memory, and the writer then writes to its event file.
 */
#ifndef DOPPEL_BASE_KEPT_MEMORY_H
#define DOPPEL_BASE_KEPT_MEMORY_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- Rings ---- */

/* Parts in cache lines of their own. Indices count up and wrap. */
struct kept_index {
    _Atomic uint32_t written;
    uint32_t padding[15];
    _Atomic uint32_t sleeps; /* the reader wants an event */
    uint32_t more_padding[15];
};

/* What a side knows of the rings. Zero at first, as the memory's indices are. */
struct kept_side {
    uint32_t written, read;
};

/* Makes what stands before WRITTEN visible. Returns whether the reader is to be woken. */
bool kept_index_publish(struct kept_index *index, uint32_t written);
/* How much of what READ has not come to is there: what is written counts. */
uint32_t kept_index_ahead(const struct kept_index *index, uint32_t read);
/* Says that the reader goes to sleep, unless there is more than READ. Returns whether it may. */
bool kept_index_sleeps(struct kept_index *index, uint32_t read);

/* ---- The memory ---- */

enum { KEPT_MEMORY, KEPT_REQUEST_EVENT, KEPT_RESULT_EVENT, KEPT_FILES };

/* Makes SIZE bytes of memory and two event files, and maps the memory to *MEMORY. The other side
 * cannot make the memory shorter, which would end this process. On failure FILES that were made
 * stay in FILES, whose members are -1 at first. */
int kept_memory_make(uint64_t size, int files[KEPT_FILES], void **memory, struct error *err);
/* Maps what the other side has made. */
int kept_memory_map(int fd, uint64_t size, void **memory, struct error *err);
/* Closes the files that are there, and unmaps MEMORY, which may be NULL. */
void kept_memory_drop(uint64_t size, int files[KEPT_FILES], void *memory);

/* In the kept process: waits until EVENT is signalled, which it clears, or does not wait if not
 * MAY_SLEEP. EVENT -1: it only looks at LINK. False: the other end of LINK is closed. */
bool kept_wait(int link, int event, bool may_sleep);
/* In the kept process: signals EVENT. */
void kept_wake(int event);

/* ---- Pages ---- */

/* Which pages of the memory are in use. */
struct kept_pages {
    uint32_t count, next; /* of them; where to look first */
    uint64_t *used;       /* a bit for each */
};

int kept_pages_init(struct kept_pages *pages, uint32_t count);
void kept_pages_free(struct kept_pages *pages);
/* Takes up to MOST free pages that follow each other, LEAST at least. Returns how many; 0: there
 * are none. */
uint32_t kept_pages_take(struct kept_pages *pages, uint32_t least, uint32_t most, uint32_t *first);
void kept_pages_give(struct kept_pages *pages, uint32_t first, uint32_t count);

#endif
