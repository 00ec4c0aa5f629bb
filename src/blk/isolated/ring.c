/*
 * The rings that a disk's process shares with the process that uses the disk.
 */
#include "blk/isolated/ring.h"

/* Makes the entry before WRITTEN visible. Returns whether the reader is to be woken. */
static bool publish(struct isolated_index *index, uint32_t written)
{
    atomic_store_explicit(&index->written, written, memory_order_release);
    /* The reader says that it sleeps and then looks once more. Either it sees the entry, or this
     * side sees that it sleeps. */
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&index->sleeps, memory_order_relaxed) &&
           atomic_exchange(&index->sleeps, 0);
}

static bool sleeps(struct isolated_index *index, uint32_t read)
{
    atomic_store_explicit(&index->sleeps, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&index->written, memory_order_acquire) == read;
}

bool isolated_publish(struct isolated_memory *memory, struct isolated_side *side,
                      const struct isolated_request *request)
{
    memory->request[side->written++ % ISOLATED_REQUESTS] = *request;
    return publish(&memory->requests, side->written);
}

bool isolated_collect(struct isolated_memory *memory, struct isolated_side *side,
                      struct isolated_result *result)
{
    const volatile struct isolated_result *entry = &memory->result[side->read % ISOLATED_REQUESTS];

    if (atomic_load_explicit(&memory->results.written, memory_order_acquire) == side->read)
        return false;
    result->number = entry->number;
    result->result = entry->result;
    side->read++;
    return true;
}

bool isolated_client_sleeps(struct isolated_memory *memory, const struct isolated_side *side)
{
    return sleeps(&memory->results, side->read);
}

bool isolated_take(struct isolated_memory *memory, struct isolated_side *side,
                   struct isolated_request *request)
{
    const volatile struct isolated_request *entry =
        &memory->request[side->read % ISOLATED_REQUESTS];

    if (atomic_load_explicit(&memory->requests.written, memory_order_acquire) == side->read)
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

bool isolated_answer(struct isolated_memory *memory, struct isolated_side *side,
                     const struct isolated_result *result)
{
    memory->result[side->written++ % ISOLATED_REQUESTS] = *result;
    return publish(&memory->results, side->written);
}

bool isolated_server_sleeps(struct isolated_memory *memory, const struct isolated_side *side)
{
    return sleeps(&memory->requests, side->read);
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
