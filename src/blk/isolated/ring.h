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
 * in each ring as there can be requests, so neither is ever full.
 *
 * One thread at a time for each side of a ring.
 */
#ifndef DOPPEL_BLK_ISOLATED_RING_H
#define DOPPEL_BLK_ISOLATED_RING_H

#include "base/kept_memory.h"
#include "blk/blk.h"

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

struct isolated_memory {
    struct kept_index requests, results;
    struct isolated_request request[ISOLATED_REQUESTS];
    struct isolated_result result[ISOLATED_REQUESTS];
};
_Static_assert(sizeof(struct isolated_memory) <= ISOLATED_DATA_START, "the data lies behind");

static inline void *isolated_data(struct isolated_memory *memory, uint32_t page)
{
    return (uint8_t *)memory + ISOLATED_DATA_START + (uint64_t)page * ISOLATED_PAGE;
}

/* What a disk's process says of the disk in its hello (base/kept_link.h). */
struct isolated_about {
    uint64_t size;
    uint32_t block, optimal;
    uint8_t format; /* enum blk_format */
    uint8_t readonly, discards, zeroes;
};

/* For the side that uses the disk. isolated_publish returns whether the other side is to be woken.
 */
bool isolated_publish(struct isolated_memory *memory, struct kept_side *side,
                      const struct isolated_request *request);
/* Returns whether there was a result. */
bool isolated_collect(struct isolated_memory *memory, struct kept_side *side,
                      struct isolated_result *result);

/* The same for the disk's process. */
bool isolated_take(struct isolated_memory *memory, struct kept_side *side,
                   struct isolated_request *request);
bool isolated_answer(struct isolated_memory *memory, struct kept_side *side,
                     const struct isolated_result *result);

/* Whether REQUEST is one: its kind, and that its data lies in the pages. What depends on the disk
 * blk_submit checks. */
bool isolated_check(const struct isolated_request *request);

#endif
