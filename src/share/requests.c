/*
 * Requests to an isolated folder, on their way to its process and back.
 */
#include "share/remote_private.h"

#include "base/buffers.h"
#include "base/util.h"
#include "share/operation.h"

#include <errno.h>
#include <stddef.h>

void remote_slots_init(struct share_remote *r)
{
    for (uint32_t i = 0; i < RING_REQUESTS; i++)
        r->slot[i].next = i + 1;
    r->free = 0;
}

/* ---- Places in the memory ---- */

/* Finds a place for SIZE bytes: the small one at SMALL, or pages. */
static bool find_place(struct share_remote *r, uint64_t small, uint32_t size, uint64_t *place,
                       uint32_t *page, uint32_t *pages)
{
    uint32_t wanted = (size + RING_PAGE - 1) / RING_PAGE;

    *pages = 0;
    *place = small;
    if (size <= RING_SMALL)
        return true;
    *pages = kept_pages_take(&r->pages, wanted, wanted, page);
    *place = offsetof(struct share_ring, page) + (uint64_t)*page * RING_PAGE;
    return *pages > 0;
}

static void *at(const struct share_remote *r, uint64_t place)
{
    return (uint8_t *)r->ring + place;
}

static bool find_places(struct share_remote *r, struct remote_slot *slot, uint32_t number)
{
    uint64_t small = offsetof(struct share_ring, small) + (uint64_t)number * 2 * RING_SMALL;
    struct share_ring_entry *e = &slot->entry;

    if (!find_place(r, small, e->in_size, &e->in, &slot->in_page, &slot->in_pages))
        return false;
    if (find_place(r, small + RING_SMALL, e->out_size, &e->out, &slot->out_page, &slot->out_pages))
        return true;
    kept_pages_give(&r->pages, slot->in_page, slot->in_pages);
    return false;
}

/* ---- Sending ---- */

/* Copies what SLOT's request says into the memory, once: the guest may change it afterwards, and a
 * process that gets it again must find what the one before had begun with. */
static void copy_request(const struct share_remote *r, struct remote_slot *slot)
{
    const struct fuse_in_header *header = at(r, slot->entry.in);

    buffers_gather(slot->request->in, 0, at(r, slot->entry.in), slot->entry.in_size);
    slot->renames = slot->entry.in_size >= sizeof(*header) &&
                    (header->opcode == FUSE_RENAME || header->opcode == FUSE_RENAME2);
}

/* Sends REQUEST. False: it must wait. */
static bool send_request(struct share_remote *r, struct share_request *request, bool *wake)
{
    uint32_t number = r->free;
    struct remote_slot *slot = &r->slot[number];
    struct remote_slot next = {.request = request, .next = slot->next};

    if (number == RING_REQUESTS)
        return false;
    next.entry = (struct share_ring_entry){
        .number = number,
        .kind = RING_REQUEST,
        .in_size = (uint32_t)buffers_length(request->in, request->ins),
        .out_size = (uint32_t)MIN(buffers_length(request->out, request->outs), RING_PART_MOST),
    };
    if (!find_places(r, &next, number))
        return false;
    copy_request(r, &next);
    r->free = slot->next;
    r->used++;
    *slot = next;
    atomic_store(&r->ring->intent[number].begun, 0);
    *wake |= share_ring_send(r->ring, &r->requests, &slot->entry);
    return true;
}

bool remote_pump(struct share_remote *r)
{
    bool wake = false;

    while (r->waiting.first && !r->load_again) {
        struct share_request *request =
            container_of(r->waiting.first, struct share_request, job.link);

        if (!send_request(r, request, &wake))
            break;
        fifo_remove(&r->waiting, r->waiting.first);
    }
    return wake;
}

bool remote_control(struct share_remote *r, enum share_ring_kind kind)
{
    const struct share_ring_entry entry = {.kind = (uint16_t)kind};

    r->controls++;
    return share_ring_send(r->ring, &r->requests, &entry);
}

/* ---- Their ends ---- */

static void free_slot(struct share_remote *r, struct remote_slot *slot)
{
    kept_pages_give(&r->pages, slot->in_page, slot->in_pages);
    kept_pages_give(&r->pages, slot->out_page, slot->out_pages);
    *slot = (struct remote_slot){.next = r->free};
    r->free = (uint32_t)(slot - r->slot);
    r->used--;
}

/* The order in which requests are sent once more. */
enum turn {
    BEFORE_OPEN, /* what renames: a file that has its new name already is opened by that */
    BEFORE_RECALL,
    AT_LAST
};

static enum turn turn_of(const struct remote_slot *slot)
{
    return slot->renames ? BEFORE_OPEN : slot->recalled ? BEFORE_RECALL : AT_LAST;
}

/* Sends those once more that were sent and whose TURN it is. Returns whether there were any. */
static bool send_again(struct share_remote *r, enum turn turn)
{
    bool any = false;

    for (uint32_t i = 0; i < RING_REQUESTS; i++) {
        struct remote_slot *slot = &r->slot[i];

        if (!slot->request || turn_of(slot) != turn)
            continue;
        slot->entry.again = 1;
        share_ring_send(r->ring, &r->requests, &slot->entry);
        any = true;
    }
    return any;
}

void remote_send_all(struct share_remote *r)
{
    remote_control(r, RING_LOAD);
    send_again(r, BEFORE_OPEN);
    remote_control(r, RING_OPEN);
    if (send_again(r, BEFORE_RECALL))
        remote_control(r, RING_RECALL);
    send_again(r, AT_LAST);
    remote_pump(r);
}

struct share_request *remote_end(struct share_remote *r, uint32_t number, int32_t result)
{
    struct remote_slot *slot = &r->slot[MIN(number, RING_REQUESTS - 1)];
    struct share_request *request = slot->request;

    if (number >= RING_REQUESTS || !request || result > (int64_t)slot->entry.out_size ||
        (result < 0 && result != -ECANCELED && result != -EPROTO))
        return NULL;
    if (result > 0)
        buffers_scatter(request->out, 0, at(r, slot->entry.out), (uint64_t)result);
    free_slot(r, slot);
    return request;
}

void remote_forget_all(struct share_remote *r, struct fifo *all)
{
    *all = r->waiting;
    r->waiting = (struct fifo){.first = NULL};
    for (uint32_t i = 0; i < RING_REQUESTS; i++)
        if (r->slot[i].request) {
            fifo_put(all, &r->slot[i].request->job.link);
            free_slot(r, &r->slot[i]);
        }
}

void remote_fail(struct share_request *request)
{
    struct fuse_in_header header;

    if (!share_gather(request->in, request->ins, 0, &header, sizeof(header)))
        request->done(request, -EPROTO);
    else if (share_has_no_answer(header.opcode))
        request->done(request, 0);
    else
        share_answer(request, header.unique, -EIO, NULL, 0);
}
