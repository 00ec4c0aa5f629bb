/*
 * The process of a disk: carries out the requests that it finds in shared memory.
 */
#include "blk/isolated/isolated.h"

#include "base/kept_server.h"
#include "base/time.h"
#include "base/util.h"
#include "blk/isolated/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct flight {
    struct blk_request request;
    struct iovec iov;
    struct server *server;
    _Atomic bool busy;
};

struct server {
    int link;
    struct blk *blk;
    int files[KEPT_FILES];
    struct isolated_memory *memory;
    struct kept_side requests;
    pthread_mutex_t lock; /* a leaf: guards RESULTS and the ring of results */
    struct kept_side results;
    struct flight flight[ISOLATED_REQUESTS];
    _Atomic unsigned pending; /* requests that are being carried out or answered */
};

static void answer(struct server *s, uint32_t number, int result)
{
    const struct isolated_result entry = {.number = number, .result = result};
    bool wake;

    pthread_mutex_lock(&s->lock);
    wake = isolated_answer(s->memory, &s->results, &entry);
    pthread_mutex_unlock(&s->lock);
    if (wake)
        kept_wake(s->files[KEPT_RESULT_EVENT]);
}

static void request_done(struct blk_request *request, int result)
{
    struct flight *f = container_of(request, struct flight, request);
    struct server *s = f->server;
    uint32_t number = (uint32_t)(f - s->flight);

    atomic_store(&f->busy, false); /* the other side may use its number again from the answer on */
    answer(s, number, result);
    atomic_fetch_sub(&s->pending, 1); /* the last use of S here */
}

/* Carries out a request. Returns false if it is none: the other side is not what it should be. */
static bool begin_request(struct server *s, const struct isolated_request *r)
{
    struct flight *f;

    if (!isolated_check(r))
        return false;
    f = &s->flight[r->number];
    if (atomic_exchange(&f->busy, true))
        return false;
    f->server = s;
    f->iov = (struct iovec){.iov_base = isolated_data(s->memory, r->page), .iov_len = r->size};
    f->request = (struct blk_request){.kind = (enum blk_kind)r->kind,
                                      .unmap = r->unmap,
                                      .offset = r->offset,
                                      .size = r->size,
                                      .iov = &f->iov,
                                      .iovs = 1,
                                      .done = request_done};
    atomic_fetch_add(&s->pending, 1);
    blk_submit(s->blk, &f->request);
    return true;
}

/* Takes what is there. Returns false if the other side breaks the rules. */
static bool take_requests(struct server *s)
{
    struct isolated_request request;
    bool good = true;

    for (unsigned i = 0; i < ISOLATED_REQUESTS && good; i++) {
        if (!isolated_take(s->memory, &s->requests, &request))
            break;
        good = begin_request(s, &request);
    }
    blk_kick(s->blk);
    return good;
}

static int serve(struct server *s, struct error *err)
{
    bool sleeps;

    do {
        if (!take_requests(s))
            return error_set(err, EPROTO, "the other side breaks the rules of requests");
        sleeps = kept_index_sleeps(&s->memory->requests, s->requests.read);
    } while (kept_wait(s->link, s->files[KEPT_REQUEST_EVENT], sleeps));
    return 0;
}

static void wait_for_requests(struct server *s)
{
    while (atomic_load(&s->pending))
        time_sleep_ns(NS_PER_MS);
}

static struct kept_hello introduce(struct blk *blk, const struct blk_options *options)
{
    struct blk_info info = blk_info(blk);
    const struct isolated_about about = {
        .size = info.size,
        .block = info.block,
        .optimal = info.optimal,
        .format = (uint8_t)options->format,
        .readonly = info.readonly,
        .discards = info.discards,
        .zeroes = info.zeroes,
    };
    struct kept_hello hello = kept_link_hello();

    memcpy(hello.about, &about, sizeof(about));
    return hello;
}

static int start_and_serve(struct server *s, const struct blk_options *options, struct error *err)
{
    struct kept_hello hello = introduce(s->blk, options);
    void *memory = NULL;
    int ret = kept_server_begin(s->link, &hello, ISOLATED_BYTES, s->files, &memory, err);

    if (ret < 0)
        return ret == -EPIPE ? 0 : ret;
    s->memory = memory;
    ret = serve(s, err);
    wait_for_requests(s);
    kept_memory_drop(ISOLATED_BYTES, s->files, memory);
    return ret;
}

int isolated_serve(int link, const struct blk_options *options, const struct blk_host *host,
                   struct error *err)
{
    struct blk_host own = host ? *host : (struct blk_host){0};
    struct error why = {0};
    struct server *s = calloc(1, sizeof(*s));
    int ret;

    own.isolated = true;
    if (!s)
        return error_set(err, ENOMEM, "no memory to serve a disk");
    s->link = link;
    pthread_mutex_init(&s->lock, NULL);
    s->blk = blk_open(options, &own, &why);
    ret = s->blk ? start_and_serve(s, options, err) : kept_server_apologize(link, &why, err);
    blk_close(s->blk);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return ret;
}
