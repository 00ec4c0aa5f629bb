/*
 * The memory that a disk's process shares with the process that uses the disk: a ring of requests,
 * a ring of results, and pages for the data.
 *
 *      VM process                                       the disk's process
 *        isolated_publish --> requests --> isolated_take, isolated_check
 *        isolated_collect <-- results  <-- isolated_answer
 *                        data: pages that a request names by their number
 *
 * Guest memory is not shared: data is copied into and out of the pages. There are as many entries
 * in each ring as there can be requests, so neither is ever full. A side that goes to sleep says so
 * in the memory, and the other one then writes to its event file.
 *
 * Either side may be hostile to the other. Each keeps its indices to itself, copies an entry before
 * it looks at it, and checks what it has copied.
 *
 * One thread at a time for each side of a ring.
 */
#ifndef DOPPEL_BLK_ISOLATED_RING_H
#define DOPPEL_BLK_ISOLATED_RING_H

#include "blk/blk.h"

#include <stdatomic.h>

#define ISOLATED_REQUESTS   256u /* at once; a request's number is below */
#define ISOLATED_PAGE       4096u
#define ISOLATED_PAGES      16384u /* 64 MiB; the host gives memory only for those that are used */
#define ISOLATED_DATA_MOST  (1u << 20) /* bytes that one request moves */
#define ISOLATED_DATA_START 65536u     /* where the pages begin */
#define ISOLATED_BYTES      (ISOLATED_DATA_START + (uint64_t)ISOLATED_PAGES * ISOLATED_PAGE)

struct isolated_request {
    uint32_t number;
    uint16_t kind; /* enum blk_kind */
    uint16_t unmap;
    uint64_t offset, size;
    uint32_t page; /* READ, WRITE: where the data is */
    uint32_t unused;
};

struct isolated_result {
    uint32_t number;
    int32_t result;
};

/* A ring's indices, each in a cache line of its own; they count up and wrap. */
struct isolated_index {
    _Atomic uint32_t written;
    uint32_t padding[15];
    _Atomic uint32_t sleeps; /* the reader wants an event */
    uint32_t more_padding[15];
};

struct isolated_memory {
    struct isolated_index requests, results;
    struct isolated_request request[ISOLATED_REQUESTS];
    struct isolated_result result[ISOLATED_REQUESTS];
};
_Static_assert(sizeof(struct isolated_memory) <= ISOLATED_DATA_START, "the data lies behind");

static inline void *isolated_data(struct isolated_memory *memory, uint32_t page)
{
    return (uint8_t *)memory + ISOLATED_DATA_START + (uint64_t)page * ISOLATED_PAGE;
}

/* What a side knows of the rings. Zero at first, as the memory's indices are. */
struct isolated_side {
    uint32_t written, read;
};

/* For the side that uses the disk. isolated_publish returns whether the other side is to be woken.
 */
bool isolated_publish(struct isolated_memory *memory, struct isolated_side *side,
                      const struct isolated_request *request);
/* Returns whether there was a result. */
bool isolated_collect(struct isolated_memory *memory, struct isolated_side *side,
                      struct isolated_result *result);
/* Says that this side goes to sleep, unless results have come. Returns whether it may. */
bool isolated_client_sleeps(struct isolated_memory *memory, const struct isolated_side *side);

/* The same for the disk's process. */
bool isolated_take(struct isolated_memory *memory, struct isolated_side *side,
                   struct isolated_request *request);
bool isolated_answer(struct isolated_memory *memory, struct isolated_side *side,
                     const struct isolated_result *result);
bool isolated_server_sleeps(struct isolated_memory *memory, const struct isolated_side *side);

/* Whether REQUEST is one: its kind, and that its data lies in the pages. What depends on the disk
 * blk_submit checks. */
bool isolated_check(const struct isolated_request *request);

#endif
