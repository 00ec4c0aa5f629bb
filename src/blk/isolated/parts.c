/*
 * Requests to a disk that another process serves, in the parts that it gets.
 *
 *      waiting --isolated_pump--> sent --isolated_end_part--> ended
 *                                   '-- isolated_send_all: the process has died
 */
#include "blk/isolated/isolated_private.h"

#include "base/util.h"
#include "base/buffers.h"

#include <errno.h>

static bool moves(const struct isolated_request *r)
{
    return r->kind == BLK_READ || r->kind == BLK_WRITE;
}

static bool changes(unsigned kind)
{
    return kind == BLK_WRITE || kind == BLK_DISCARD || kind == BLK_ZEROES;
}

/* ---- Sending ---- */

static bool overlap(const struct isolated_request *a, uint64_t offset, uint64_t size)
{
    return changes(a->kind) && a->offset < offset + size && offset < a->offset + a->size;
}

/* Whether a change in flight overlaps [OFFSET, OFFSET + SIZE). */
static bool is_being_changed(const struct isolated *i, uint64_t offset, uint64_t size)
{
    for (unsigned n = 0; n < ISOLATED_REQUESTS; n++)
        if (i->part[n].request && overlap(&i->part[n].as, offset, size))
            return true;
    return false;
}

static struct isolated_part *free_part(struct isolated *i)
{
    for (unsigned n = 0; n < ISOLATED_REQUESTS; n++)
        if (!i->part[n].request)
            return &i->part[n];
    return NULL;
}

static bool send_part(struct isolated *i, struct isolated_part *p)
{
    void *data = isolated_data(i->memory, p->as.page);

    if (p->as.kind == BLK_WRITE)
        buffers_gather(p->request->iov, p->skip, data, p->as.size);
    return isolated_publish(i->memory, &i->requests, &p->as);
}

/* Takes pages for the part's data, and makes it smaller if there are too few. */
static bool find_pages(struct isolated *i, struct isolated_part *p)
{
    uint64_t size = MIN(p->as.size, ISOLATED_DATA_MOST);
    unsigned wanted = (unsigned)(ALIGN_UP(size, ISOLATED_PAGE) / ISOLATED_PAGE);

    p->pages = kept_pages_take(&i->pages, 1, wanted, &p->as.page);
    p->as.size = MIN(size, (uint64_t)p->pages * ISOLATED_PAGE);
    return p->pages > 0;
}

/* Sets a part up for what is left of REQUEST. Returns NULL if it must wait. */
static struct isolated_part *next_part(struct isolated *i, struct blk_request *request)
{
    uint64_t offset = request->own.at + request->own.moved;
    uint64_t size = request->kind == BLK_FLUSH ? 0 : request->size - request->own.moved;
    struct isolated_part *p = free_part(i);
    struct isolated_part part = {.skip = request->own.moved};

    part.as = (struct isolated_request){
        .kind = (uint16_t)request->kind, .unmap = request->unmap, .offset = offset, .size = size};
    if (!p || (changes(request->kind) && is_being_changed(i, offset, size)) ||
        (moves(&part.as) && !find_pages(i, &part)))
        return NULL;
    part.request = request;
    part.as.number = (uint32_t)(p - i->part);
    *p = part;
    return p;
}

/* Sends parts of REQUEST. Returns whether all of it is sent. */
static bool send_request(struct isolated *i, struct blk_request *request, bool *wake)
{
    do {
        struct isolated_part *p = next_part(i, request);

        if (!p)
            return false;
        request->own.pieces++;
        request->own.moved += p->as.size;
        *wake |= send_part(i, p);
    } while (request->kind != BLK_FLUSH && request->own.moved < request->size);
    return true;
}

bool isolated_pump(struct isolated *i)
{
    bool wake = false;

    while (i->waiting.first && send_request(i, i->waiting.first, &wake))
        blk_list_take(&i->waiting);
    return wake;
}

bool isolated_send_all(struct isolated *i)
{
    bool wake = false;

    for (unsigned n = 0; n < ISOLATED_REQUESTS; n++)
        if (i->part[n].request)
            wake |= send_part(i, &i->part[n]);
    return wake;
}

/* ---- Results ---- */

/* The request of a part that has ended, if it was the last one; else NULL. */
static struct blk_request *finish(struct isolated *i, struct blk_request *request, int result)
{
    if (result < 0 && !request->own.result)
        request->own.result = result;
    request->own.pieces--;
    /* What has failed is not sent to its end. Only the first that waits is sent in part. */
    if (request->own.result < 0 && request == i->waiting.first)
        blk_list_take(&i->waiting);
    else if (request == i->waiting.first)
        return NULL;
    return request->own.pieces ? NULL : request;
}

bool isolated_end_part(struct isolated *i, const struct isolated_result *result,
                       struct blk_request **ended)
{
    struct isolated_part *p = &i->part[MIN(result->number, ISOLATED_REQUESTS - 1)];
    int code = MAX(MIN(result->result, 0), -4095);
    struct blk_request *request = p->request;

    if (result->number >= ISOLATED_REQUESTS || !request)
        return false;
    if (p->as.kind == BLK_READ && code == 0)
        buffers_scatter(request->iov, p->skip, isolated_data(i->memory, p->as.page), p->as.size);
    kept_pages_give(&i->pages, p->as.page, p->pages);
    p->request = NULL;
    *ended = finish(i, request, code);
    return true;
}

struct blk_list isolated_forget_all(struct isolated *i)
{
    struct blk_list all = blk_list_take_all(&i->waiting);

    for (struct blk_request *r = all.first; r; r = r->own.next)
        r->own.pieces = 0;
    for (unsigned n = 0; n < ISOLATED_REQUESTS; n++) {
        struct blk_request *r = i->part[n].request;

        i->part[n].request = NULL;
        if (!r || !r->own.pieces) /* in the list already */
            continue;
        r->own.pieces = 0;
        blk_list_put(&all, r);
    }
    return all;
}
