/*
 * Disks that an NBD server has.
 */
#include "blk/nbd/nbd.h"

#include "base/buffers.h"
#include "blk/inbox.h"
#include "blk/nbd/library.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS       32
#define PIECE_MOST  (512 * KiB) /* of what is moved */
#define RANGE_MOST  (GiB)       /* of what is discarded or made zeroes */
#define PATIENCE_NS (30 * NS_PER_S)
/* A request may take so many times the patience in all, from when it was submitted: however often
 * the server answers, whoever waits for a machine's requests does not wait longer. */
#define REQUEST_PATIENCE 10u

/* A request that is at the server, one piece after the other. */
struct slot {
    struct nbd *nbd;
    struct blk_request *request; /* NULL: free */
    char *buffer;  /* for pieces that lie in more than one of its buffers; NULL: none yet */
    uint64_t size; /* of the piece */
    bool bounced;  /* the piece is in BUFFER */
    bool answered;
    int error; /* of the answer: 0 or a positive errno */
};

struct nbd {
    struct blk blk;
    char *name;
    struct nbd_library lib;
    struct nbd_handle *handle; /* the thread's alone, once it runs. NULL: the server is gone */
    bool keep;                 /* discard=ignore */
    bool flushes, trims, zeroes;
    bool lost;                /* a flush has failed: all later ones do */
    uint64_t patience, heard; /* when the server last answered, or was first asked */
    unsigned busy;            /* slots in use */
    struct slot slots[SLOTS];
    unsigned answers;        /* of them, those with an answer that is not taken yet */
    struct blk_list waiting; /* requests that have no slot yet */
    struct inbox inbox;
    bool has_inbox, started; /* what of INBOX and THREAD is there */
    pthread_t thread;
    struct where where;
};

static struct nbd *nbd_of(struct blk *blk)
{
    return container_of(blk, struct nbd, blk);
}

/* ---- The server ---- */

/* Called by libnbd with its own lock held, so it only takes a note. */
static int note_answer(void *opaque, int *error)
{
    struct slot *slot = opaque;

    slot->answered = true;
    slot->error = *error;
    slot->nbd->answers++;
    return 1;
}

/* Has the server go on with the part of SLOT that is due. Returns false if libnbd refuses. */
static bool send_piece(struct nbd *nbd, struct slot *slot, void *buffer)
{
    const struct blk_request *request = slot->request;
    nbd_completion_callback done = {.callback = note_answer, .user_data = slot};
    uint64_t at = request->own.at + request->own.moved;
    uint32_t hole = request->unmap && !nbd->keep ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
    int64_t cookie = -1;

    switch (request->kind) {
    case BLK_READ: cookie = nbd->lib.aio_pread(nbd->handle, buffer, slot->size, at, done, 0); break;
    case BLK_WRITE:
        cookie = nbd->lib.aio_pwrite(nbd->handle, buffer, slot->size, at, done, 0);
        break;
    case BLK_FLUSH: cookie = nbd->lib.aio_flush(nbd->handle, done, 0); break;
    case BLK_DISCARD: cookie = nbd->lib.aio_trim(nbd->handle, slot->size, at, done, 0); break;
    case BLK_ZEROES:
        cookie = nbd->zeroes ? nbd->lib.aio_zero(nbd->handle, slot->size, at, done, hole)
                             : nbd->lib.aio_pwrite(nbd->handle, buffer, slot->size, at, done, 0);
        break;
    }
    return cookie >= 0;
}

/* Ends SLOT's request, and frees the slot. */
static void end_slot(struct nbd *nbd, struct slot *slot, int result)
{
    struct blk_request *request = slot->request;

    slot->request = NULL;
    nbd->busy--;
    blk_complete(request, result);
}

/* Returns the address of the part that is due if it lies in one buffer of the request's. */
static char *find_in_one(const struct slot *slot)
{
    uint64_t skip = slot->request->own.moved;
    const struct iovec *iov = slot->request->iov;

    while (skip >= iov->iov_len)
        skip -= iov++->iov_len;
    return iov->iov_len - skip >= slot->size ? (char *)iov->iov_base + skip : NULL;
}

/* Sets SLOT's piece and where its bytes are. Returns false without memory. */
static bool prepare_piece(struct nbd *nbd, struct slot *slot, void **buffer)
{
    const struct blk_request *request = slot->request;
    bool moves = request->kind == BLK_READ || request->kind == BLK_WRITE;
    bool by_writing = request->kind == BLK_ZEROES && !nbd->zeroes;
    uint64_t rest = request->size - request->own.moved;

    slot->answered = slot->bounced = false;
    slot->size = MIN(rest, moves || by_writing ? PIECE_MOST : RANGE_MOST);
    *buffer = moves ? find_in_one(slot) : NULL;
    if (*buffer || !(moves || by_writing))
        return true;
    if (!slot->buffer && !(slot->buffer = malloc(PIECE_MOST)))
        return false;
    if (request->kind == BLK_WRITE)
        buffers_gather(request->iov, request->own.moved, slot->buffer, slot->size);
    else if (by_writing)
        memset(slot->buffer, 0, slot->size);
    slot->bounced = moves;
    *buffer = slot->buffer;
    return true;
}

/* Whether there is nothing to ask the server for. */
static bool needs_no_server(const struct nbd *nbd, const struct blk_request *request)
{
    return (request->kind == BLK_FLUSH && !nbd->flushes) ||
           (request->kind == BLK_DISCARD && (nbd->keep || !nbd->trims));
}

/* Sends the next piece of SLOT's request, or ends it. */
static void continue_slot(struct nbd *nbd, struct slot *slot)
{
    void *buffer;

    if (!nbd->handle)
        end_slot(nbd, slot, -EIO);
    else if (nbd->lost && slot->request->kind == BLK_FLUSH)
        end_slot(nbd, slot, -EIO);
    else if (needs_no_server(nbd, slot->request))
        end_slot(nbd, slot, 0);
    else if (!prepare_piece(nbd, slot, &buffer))
        end_slot(nbd, slot, -ENOMEM);
    else if (!send_piece(nbd, slot, buffer))
        end_slot(nbd, slot, -EIO);
}

/* A flush has failed: there is no telling which writes the server has lost. */
static void lose_writes(struct nbd *nbd, int error)
{
    if (!nbd->lost)
        log_line(nbd->blk.host->log, LOG_LEVEL_ERROR,
                 "disk '%s': the server lost what was written (%s); from now on each flush fails",
                 nbd->name, strerror(error));
    nbd->lost = true;
}

/* The server has answered for SLOT's piece. */
static void take_answer(struct nbd *nbd, struct slot *slot)
{
    struct blk_request *request = slot->request;
    int error = slot->error;

    nbd->answers--;
    nbd->heard = time_now_ns();
    if (error && request->kind == BLK_FLUSH) {
        lose_writes(nbd, error);
        end_slot(nbd, slot, -EIO);
        return;
    }
    if (error) {
        /* What only a connection can suffer is of no interest to a guest. */
        end_slot(nbd, slot, error == ENOTCONN || error == ESHUTDOWN ? -EIO : -error);
        return;
    }
    if (request->kind == BLK_READ && slot->bounced)
        buffers_scatter(request->iov, request->own.moved, slot->buffer, slot->size);
    request->own.moved += slot->size;
    if (request->kind == BLK_FLUSH || request->own.moved == request->size)
        end_slot(nbd, slot, 0);
    else
        continue_slot(nbd, slot);
}

static void take_answers(struct nbd *nbd)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (nbd->slots[i].request && nbd->slots[i].answered)
            take_answer(nbd, &nbd->slots[i]);
}

static void fill_slots(struct nbd *nbd)
{
    for (unsigned i = 0; i < SLOTS && nbd->waiting.first; i++) {
        struct slot *slot = &nbd->slots[i];

        if (slot->request)
            continue;
        slot->request = blk_list_take(&nbd->waiting);
        if (nbd->busy++ == 0)
            nbd->heard = time_now_ns();
        continue_slot(nbd, slot);
    }
}

/* Gives the server up: what it has not answered fails. */
static void give_up(struct nbd *nbd, const char *why)
{
    log_tell(nbd->blk.host->log, LOG_LEVEL_ERROR,
             "disk '%s': the server is gone (%s); from now on all of its reads and writes fail",
             nbd->name, why);
    nbd->lib.close(nbd->handle); /* it forgets all buffers */
    nbd->handle = NULL;
    nbd->answers = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if (nbd->slots[i].request)
            end_slot(nbd, &nbd->slots[i], -EIO);
}

/* ---- The thread ---- */

static bool is_gone(const struct nbd *nbd)
{
    return nbd->lib.aio_is_dead(nbd->handle) || nbd->lib.aio_is_closed(nbd->handle);
}

/* Waits until the server or a thread of this process says something, for MILLISECONDS at most (-1:
 * for ever), and has libnbd read or write. */
static void wait_for_server(struct nbd *nbd, int milliseconds)
{
    struct pollfd fds[2] = {{.fd = nbd->inbox.event, .events = POLLIN}, {.fd = -1}};
    uint64_t count;
    unsigned direction = 0;

    if (nbd->handle) {
        direction = nbd->lib.aio_get_direction(nbd->handle);
        fds[1].fd = nbd->lib.aio_get_fd(nbd->handle);
        fds[1].events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                                (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    }
    if (poll(fds, 2, milliseconds) <= 0)
        return;
    if (fds[0].revents && read(nbd->inbox.event, &count, sizeof(count)) < 0)
        return;
    if (!fds[1].revents)
        return;
    if (direction & LIBNBD_AIO_DIRECTION_READ && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
        nbd->lib.aio_notify_read(nbd->handle);
    else
        nbd->lib.aio_notify_write(nbd->handle);
}

/* When the oldest request must have ended; UINT64_MAX: there is none. */
static uint64_t request_deadline(const struct nbd *nbd)
{
    /* Those that wait are in the order in which they came. */
    uint64_t oldest = nbd->waiting.first ? nbd->waiting.first->own.since : UINT64_MAX;

    for (unsigned i = 0; i < SLOTS && nbd->busy; i++)
        if (nbd->slots[i].request)
            oldest = MIN(oldest, nbd->slots[i].request->own.since);
    return oldest == UINT64_MAX ? oldest : oldest + REQUEST_PATIENCE * nbd->patience;
}

/* How many milliseconds the server may go on without an answer, and with the oldest request; 0: no
 * more. Parts of an answer do not count: a server that sends single bytes could keep a request for
 * as long as it likes. */
static int patience_left(const struct nbd *nbd)
{
    uint64_t now = time_now_ns(), end = MIN(nbd->heard + nbd->patience, request_deadline(nbd));

    if (now >= end)
        return 0;
    return (int)MIN((end - now) / NS_PER_MS + 1, (uint64_t)INT32_MAX);
}

/* How many milliseconds the thread may wait. */
static int how_long(const struct nbd *nbd)
{
    if (nbd->answers || (nbd->waiting.first && nbd->busy < SLOTS))
        return 0;
    return nbd->busy ? patience_left(nbd) : -1;
}

static void *serve(void *opaque)
{
    struct nbd *nbd = opaque;

    where_begin(&nbd->where);
    while (inbox_take(&nbd->inbox, &nbd->waiting)) {
        fill_slots(nbd);
        if (nbd->handle && is_gone(nbd))
            give_up(nbd, "it has closed the connection");
        wait_for_server(nbd, how_long(nbd));
        inbox_awake(&nbd->inbox);
        if (nbd->handle)
            take_answers(nbd);
        if (nbd->handle && nbd->busy && patience_left(nbd) == 0)
            give_up(nbd, time_now_ns() >= request_deadline(nbd) ? "it takes too long"
                                                                : "it does not answer");
    }
    if (nbd->handle)
        nbd->lib.aio_disconnect(nbd->handle, 0);
    where_end(&nbd->where);
    return NULL;
}

/* ---- The driver ---- */

static void nbd_submit(struct blk *blk, struct blk_request *request)
{
    request->own.since = time_now_ns();
    inbox_put(&nbd_of(blk)->inbox, request);
}

static void nbd_kick(struct blk *blk)
{
    inbox_kick(&nbd_of(blk)->inbox);
}

static struct where *nbd_where(struct blk *blk, unsigned n)
{
    return n == 0 ? &nbd_of(blk)->where : NULL;
}

static void nbd_close_it(struct blk *blk)
{
    struct nbd *nbd = nbd_of(blk);

    if (nbd->started) {
        inbox_end(&nbd->inbox);
        pthread_join(nbd->thread, NULL);
    }
    if (nbd->handle)
        nbd->lib.close(nbd->handle);
    for (unsigned i = 0; i < SLOTS; i++)
        free(nbd->slots[i].buffer);
    if (nbd->has_inbox)
        inbox_destroy(&nbd->inbox);
    free(nbd->name);
    free(nbd);
}

static const struct blk_driver nbd_driver = {
    .submit = nbd_submit,
    .kick = nbd_kick,
    .where = nbd_where,
    .close = nbd_close_it,
};

/* ---- Opening ---- */

static int refuse(const struct nbd *nbd, struct error *err)
{
    const char *why = nbd->lib.get_error();
    int code = nbd->lib.get_errno();
    const char *colon = why ? strstr(why, ": ") : NULL;

    /* It begins with the name of a function. */
    if (colon && strncmp(why, "nbd_", 4) == 0)
        why = colon + 2;
    return error_set(err, code ? code : EIO, "disk '%s': no connection to the server: %s",
                     nbd->name, why ? why : "it has closed it");
}

static int connect_it(struct nbd *nbd, struct error *err)
{
    nbd->heard = time_now_ns();
    nbd->handle = nbd->lib.create();
    if (!nbd->handle || nbd->lib.aio_connect_uri(nbd->handle, nbd->name) < 0)
        return refuse(nbd, err);
    while (!nbd->lib.aio_is_ready(nbd->handle)) {
        int left = patience_left(nbd);

        if (is_gone(nbd))
            return refuse(nbd, err);
        if (left == 0)
            return error_set(err, ETIMEDOUT, "disk '%s': the server does not answer", nbd->name);
        wait_for_server(nbd, left);
    }
    return 0;
}

static int look_at(struct nbd *nbd, struct error *err)
{
    struct blk_info *info = &nbd->blk.info;
    int64_t size = nbd->lib.get_size(nbd->handle);
    int64_t block = nbd->lib.get_block_size(nbd->handle, LIBNBD_SIZE_MINIMUM);
    int64_t optimal = nbd->lib.get_block_size(nbd->handle, LIBNBD_SIZE_PREFERRED);

    if (size < 0 || block < 0)
        return refuse(nbd, err);
    if (block > 4096)
        return error_set(err, EINVAL, "disk '%s': its blocks are of %lld bytes; 4096 are the most",
                         nbd->name, (long long)block);
    if (nbd->lib.is_read_only(nbd->handle) == 1 && !info->readonly)
        return error_set(err, EROFS, "disk '%s': the server lets it only be read; add ',readonly'",
                         nbd->name);
    info->block = block > 512 ? 4096 : 512;
    info->optimal = optimal >= 4096 && optimal <= (int64_t)MiB && (optimal & (optimal - 1)) == 0
                        ? (unsigned)optimal
                        : 4096;
    nbd->blk.size = ALIGN_DOWN((uint64_t)size, info->block);
    nbd->flushes = nbd->lib.can_flush(nbd->handle) == 1;
    nbd->trims = nbd->lib.can_trim(nbd->handle) == 1;
    nbd->zeroes = nbd->lib.can_zero(nbd->handle) == 1;
    info->discards = nbd->trims && !nbd->keep && !info->readonly;
    info->zeroes = nbd->zeroes && !info->readonly;
    return 0;
}

static int begin(struct nbd *nbd, struct error *err)
{
    int ret = inbox_create(&nbd->inbox);

    if (ret < 0)
        return error_set(err, -ret, "disk '%s': %s", nbd->name, strerror(-ret));
    nbd->has_inbox = true;
    ret = nbd_library_load(&nbd->lib, err);
    if (ret == 0)
        ret = connect_it(nbd, err);
    if (ret == 0)
        ret = look_at(nbd, err);
    if (ret == 0)
        ret = thread_start(&nbd->thread, "blk nbd", serve, nbd, err);
    nbd->started = ret == 0;
    return ret;
}

struct blk *nbd_open(const struct blk_options *options, const struct blk_host *host,
                     struct error *err)
{
    struct nbd *nbd = calloc(1, sizeof(*nbd));

    if (!nbd || !(nbd->name = strdup(options->file))) {
        free(nbd);
        error_set(err, ENOMEM, "disk '%s': out of memory", options->file);
        return NULL;
    }
    blk_begin(&nbd->blk, &nbd_driver, options, host, nbd->name);
    nbd->keep = options->keep;
    nbd->patience = host->patience_ns ? host->patience_ns : PATIENCE_NS;
    for (unsigned i = 0; i < SLOTS; i++)
        nbd->slots[i].nbd = nbd;
    if (begin(nbd, err) < 0) {
        nbd_close_it(&nbd->blk);
        return NULL;
    }
    return &nbd->blk;
}
