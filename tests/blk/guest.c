/*
 * A guest with several queues, at random.
 */
#include "guest.h"

#include "base/util.h"
#include "pattern.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 256u /* sectors of a request */

struct request {
    struct blk_request request;
    struct history_op *op; /* NULL: a read */
    struct guest *guest;
    sem_t *finished;
    struct iovec iov[2];
    uint8_t *data;
    uint64_t first, count;
    int result;
};

static void die(const char *what, uint64_t sector, int result)
{
    printf("%s, sector %" PRIu64 ": %s\n", what, sector, result ? strerror(-result) : "wrong data");
    fflush(stdout);
    abort();
}

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

void guest_begin(struct guest *guest, const uint32_t *base)
{
    pthread_mutex_init(&guest->lock, NULL);
    guest->busy = must(calloc(guest->sectors, sizeof(*guest->busy)));
    guest->now = must(calloc(guest->sectors, sizeof(*guest->now)));
    guest->discarded = must(calloc(guest->sectors, sizeof(*guest->discarded)));
    memcpy(guest->now, base, guest->sectors * sizeof(*guest->now));
}

void guest_end(struct guest *guest)
{
    free(guest->busy);
    free(guest->now);
    free(guest->discarded);
    pthread_mutex_destroy(&guest->lock);
}

/* What a request is to do: mostly small, and often on the borders of clusters. */
static void choose(struct guest *guest, struct request *request, uint64_t *random)
{
    static const enum blk_kind kinds[] = {BLK_WRITE, BLK_WRITE, BLK_WRITE,   BLK_WRITE, BLK_READ,
                                          BLK_READ,  BLK_FLUSH, BLK_DISCARD, BLK_ZEROES};
    unsigned how = (unsigned)pattern_below(random, 4);
    uint64_t unit = how < 2 ? 1 : how == 2 ? 8 : 128;
    enum blk_kind kind = kinds[pattern_below(random, ARRAY_SIZE(kinds))];

    request->request.kind = kind;
    request->request.unmap = kind == BLK_ZEROES && pattern_below(random, 2);
    request->first = pattern_below(random, guest->sectors / unit) * unit;
    request->count = unit * (1 + pattern_below(random, unit == 128 ? 2 : 16));
    request->count = MIN(request->count, MIN(MOST, guest->sectors - request->first));
    if (kind == BLK_FLUSH)
        request->first = request->count = 0;
}

/* Whether nothing else is under way there. */
static bool is_free(const struct guest *guest, const struct request *request)
{
    for (uint64_t i = 0; i < request->count; i++)
        if (guest->busy[request->first + i])
            return false;
    return true;
}

/* Adds what changes something to the history; false if that is full. */
static bool note(struct guest *guest, struct request *request)
{
    static const enum history_kind kinds[] = {[BLK_WRITE] = HISTORY_WRITE,
                                              [BLK_FLUSH] = HISTORY_FLUSH,
                                              [BLK_DISCARD] = HISTORY_DISCARD,
                                              [BLK_ZEROES] = HISTORY_ZEROES};
    enum blk_kind kind = request->request.kind;

    if (kind == BLK_READ)
        return true;
    request->op = history_add(guest->history, kinds[kind], request->first, request->count);
    if (request->op && kind == BLK_WRITE)
        request->op->version = atomic_fetch_add(guest->version, 1) + 1;
    return request->op;
}

static void done(struct blk_request *blk_request, int result)
{
    struct request *request = container_of(blk_request, struct request, request);

    if (request->op && !result)
        atomic_store(&request->op->done, history_moment(request->guest->history));
    request->result = result;
    sem_post(request->finished);
}

/* Two pieces, so that their border lies where no driver expects it. */
static void prepare(struct request *request, uint64_t *random)
{
    size_t size = request->count * SECTOR, cut = size ? pattern_below(random, size) : 0;
    struct blk_request *r = &request->request;

    r->offset = request->first * SECTOR;
    r->size = size;
    r->done = done;
    if (r->kind != BLK_READ && r->kind != BLK_WRITE)
        return;
    request->data = must(malloc(size));
    if (r->kind == BLK_WRITE)
        pattern_fill(request->data, request->first, request->count, request->op->version);
    request->iov[0] = (struct iovec){request->data, cut ? cut : size};
    request->iov[1] = (struct iovec){request->data + cut, size - cut};
    r->iov = request->iov;
    r->iovs = cut ? 2 : 1;
}

static bool is_now(const struct guest *guest, uint64_t sector, uint32_t version)
{
    return version == guest->now[sector] || (guest->discarded[sector] && !version);
}

static void check_read(struct guest *guest, const struct request *request)
{
    for (uint64_t i = 0; i < request->count; i++) {
        uint64_t sector = request->first + i;
        uint32_t version = pattern_version(request->data + i * SECTOR, sector);

        if (is_now(guest, sector, version))
            continue;
        printf("version %" PRIu32 " instead of %" PRIu32 "\n", version, guest->now[sector]);
        die("read", sector, 0);
    }
}

/* Makes sure of what the sectors of a write hold that has failed: what they held, or what was to be
 * written. */
static void read_again(struct guest *guest, const struct request *request)
{
    uint32_t written = request->request.kind == BLK_WRITE ? request->op->version : 0;
    uint8_t *data = must(malloc(request->count * SECTOR));
    int result = blk_read(guest->blk, request->first * SECTOR, data, request->count * SECTOR);

    if (result)
        die("read", request->first, result);
    for (uint64_t i = 0; i < request->count; i++) {
        uint64_t sector = request->first + i;
        uint32_t version = pattern_version(data + i * SECTOR, sector);

        if (version != written && !is_now(guest, sector, version))
            die("read after a write that failed", sector, 0);
        guest->now[sector] = version;
        guest->discarded[sector] = false;
    }
    free(data);
}

/* Takes over what a request has done. With the lock. */
static void take_over(struct guest *guest, const struct request *request)
{
    enum blk_kind kind = request->request.kind;

    if (kind == BLK_READ)
        check_read(guest, request);
    for (uint64_t i = request->first; i < request->first + request->count; i++) {
        if (kind == BLK_WRITE || kind == BLK_ZEROES) {
            guest->now[i] = kind == BLK_WRITE ? request->op->version : 0;
            guest->discarded[i] = false;
        }
        if (kind == BLK_DISCARD)
            guest->discarded[i] = true;
    }
}

/* Ends a request, and lets go of its sectors. */
static void finish(struct guest *guest, struct request *request)
{
    static const char *const names[] = {[BLK_READ] = "read",
                                        [BLK_WRITE] = "write",
                                        [BLK_FLUSH] = "flush",
                                        [BLK_DISCARD] = "discard",
                                        [BLK_ZEROES] = "zeroes"};
    enum blk_kind kind = request->request.kind;

    bool full = guest->full && request->result == -ENOSPC;

    if (request->result && !full)
        die(names[kind], request->first, request->result);
    atomic_fetch_add(&guest->refused, full);
    if (full && (kind == BLK_WRITE || kind == BLK_ZEROES))
        read_again(guest, request);
    pthread_mutex_lock(&guest->lock);
    if (!full || kind == BLK_DISCARD) /* which may have been done in part */
        take_over(guest, request);
    for (uint64_t i = request->first; i < request->first + request->count; i++)
        guest->busy[i] = false;
    pthread_mutex_unlock(&guest->lock);
    free(request->data);
}

static void submit(struct guest *guest, struct request *request)
{
    if (request->op)
        atomic_store(&request->op->submitted, history_moment(guest->history));
    blk_submit(guest->blk, &request->request);
}

enum outcome { BEGUN, NOT_NOW, FULL };

/* The history has the requests for a sector in their order, since the sector is reserved under the
 * same lock. */
static enum outcome reserve(struct guest *guest, struct request *request)
{
    enum outcome outcome = NOT_NOW;

    pthread_mutex_lock(&guest->lock);
    if (is_free(guest, request))
        outcome = note(guest, request) ? BEGUN : FULL;
    for (uint64_t i = 0; outcome == BEGUN && i < request->count; i++)
        guest->busy[request->first + i] = true;
    pthread_mutex_unlock(&guest->lock);
    return outcome;
}

bool guest_batch(struct guest *guest, unsigned depth, uint64_t *random)
{
    struct request list[GUEST_DEPTH] = {0};
    enum outcome outcome = BEGUN;
    unsigned count = 0;
    sem_t finished;

    sem_init(&finished, 0, 0);
    depth = MIN(1 + (unsigned)pattern_below(random, depth), (unsigned)GUEST_DEPTH);
    for (unsigned i = 0; i < depth && outcome != FULL; i++) {
        struct request *request = &list[count];

        *request = (struct request){.guest = guest, .finished = &finished};
        choose(guest, request, random);
        outcome = reserve(guest, request);
        if (outcome != BEGUN)
            continue;
        prepare(request, random);
        submit(guest, request);
        count++;
    }
    blk_kick(guest->blk);
    for (unsigned i = 0; i < count; i++)
        while (sem_wait(&finished) < 0)
            ;
    for (unsigned i = 0; i < count; i++)
        finish(guest, &list[i]);
    sem_destroy(&finished);
    return outcome != FULL;
}

void guest_settle(struct guest *guest)
{
    uint8_t *data = must(guest_read_all(guest->blk, guest->sectors));

    for (uint64_t i = 0; i < guest->sectors; i++) {
        uint32_t version = pattern_version(data + i * SECTOR, i);

        if (!is_now(guest, i, version))
            die("read", i, 0);
        guest->now[i] = version;
        guest->discarded[i] = false;
    }
    free(data);
}

void guest_replaced(struct guest *guest, const uint32_t *versions)
{
    memcpy(guest->now, versions, guest->sectors * sizeof(*guest->now));
    memset(guest->discarded, 0, guest->sectors * sizeof(*guest->discarded));
}

void guest_flush(struct guest *guest)
{
    struct history_op *op = history_add(guest->history, HISTORY_FLUSH, 0, 0);
    int result;

    if (op)
        atomic_store(&op->submitted, history_moment(guest->history));
    result = blk_flush(guest->blk);
    if (result)
        die("flush", 0, result);
    if (op)
        atomic_store(&op->done, history_moment(guest->history));
}

uint8_t *guest_read_all(struct blk *blk, uint64_t sectors)
{
    uint8_t *data = must(malloc(sectors * SECTOR));
    int result = blk_read(blk, 0, data, sectors * SECTOR);

    if (result) {
        free(data);
        return NULL;
    }
    return data;
}
