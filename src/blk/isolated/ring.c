/*
 * The rings that a disk's process shares with the process that uses the disk.
 */
#include "blk/isolated/ring.h"

bool isolated_publish(struct isolated_memory *memory, struct kept_side *side,
                      const struct isolated_request *request)
{
    memory->request[side->written++ % ISOLATED_REQUESTS] = *request;
    return kept_index_publish(&memory->requests, side->written);
}

bool isolated_collect(struct isolated_memory *memory, struct kept_side *side,
                      struct isolated_result *result)
{
    const volatile struct isolated_result *entry = &memory->result[side->read % ISOLATED_REQUESTS];

    if (!kept_index_ahead(&memory->results, side->read))
        return false;
    result->number = entry->number;
    result->result = entry->result;
    side->read++;
    return true;
}

bool isolated_take(struct isolated_memory *memory, struct kept_side *side,
                   struct isolated_request *request)
{
    const volatile struct isolated_request *entry =
        &memory->request[side->read % ISOLATED_REQUESTS];

    if (!kept_index_ahead(&memory->requests, side->read))
        return false;
    request->number = entry->number;
    request->kind = entry->kind;
    request->unmap = entry->unmap;
    request->offset = entry->offset;
    request->size = entry->size;
    request->page = entry->page;
    side->read++;
    return true;
}

bool isolated_answer(struct isolated_memory *memory, struct kept_side *side,
                     const struct isolated_result *result)
{
    memory->result[side->written++ % ISOLATED_REQUESTS] = *result;
    return kept_index_publish(&memory->results, side->written);
}

bool isolated_check(const struct isolated_request *request)
{
    uint64_t most = (uint64_t)ISOLATED_PAGES * ISOLATED_PAGE;

    if (request->number >= ISOLATED_REQUESTS || request->kind > BLK_ZEROES)
        return false;
    if (request->kind != BLK_READ && request->kind != BLK_WRITE)
        return true;
    return request->page < ISOLATED_PAGES && request->size <= ISOLATED_DATA_MOST &&
           request->size <= most - (uint64_t)request->page * ISOLATED_PAGE;
}
