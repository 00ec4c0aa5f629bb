/*
 * A disk that a process of its own serves: the side that uses it.
 */
#include "blk/isolated/isolated.h"

#include "base/time.h"
#include "base/util.h"
#include "blk/isolated/isolated_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_NS    (30 * NS_PER_S) /* for the process to open the disk */
#define PATIENCE_NS (30 * NS_PER_S) /* of the process with a server (blk_host) */

static struct isolated *isolated_of(struct blk *blk)
{
    return container_of(blk, struct isolated, blk);
}

/* ---- Requests: any thread ---- */

static void isolated_submit(struct blk *blk, struct blk_request *request)
{
    struct isolated *i = isolated_of(blk);
    bool broken, wake = false;

    pthread_mutex_lock(&i->lock);
    broken = i->broken;
    if (!broken) {
        blk_list_put(&i->waiting, request);
        wake = isolated_pump(i);
    }
    pthread_mutex_unlock(&i->lock);
    if (broken)
        blk_complete(request, -EIO);
    if (wake)
        kept_user_wake(&i->user);
}

/* ---- The thread ---- */

static void fail_all(void *opaque)
{
    struct isolated *i = opaque;
    struct blk_request *request;
    struct blk_list failed;

    pthread_mutex_lock(&i->lock);
    i->broken = true;
    failed = isolated_forget_all(i);
    pthread_mutex_unlock(&i->lock);
    while ((request = blk_list_take(&failed)))
        blk_complete(request, -EIO);
}

/* Takes all results. Returns what is wrong, or NULL. */
static const char *take_results(void *opaque)
{
    struct isolated *i = opaque;
    struct isolated_result result;
    bool more = true, good = true;

    while (more && good) {
        struct blk_request *ended = NULL;
        bool wake = false;

        pthread_mutex_lock(&i->lock);
        more = isolated_collect(i->memory, &i->results, &result);
        if (more)
            good = isolated_end_part(i, &result, &ended);
        i->user.progress |= more && good;
        if (more && good)
            wake = isolated_pump(i);
        pthread_mutex_unlock(&i->lock);
        if (wake)
            kept_user_wake(&i->user);
        if (ended)
            blk_complete(ended, ended->own.result);
    }
    return good ? NULL : "its process breaks the rules";
}

/* Takes what a process says of the disk. False: it cannot be. */
static bool take_about(const struct kept_hello *hello, struct isolated_about *about)
{
    _Static_assert(sizeof(*about) <= sizeof(hello->about), "it has room");
    memcpy(about, hello->about, sizeof(*about));
    return (about->block == 512 || about->block == 4096) && about->size % about->block == 0 &&
           about->size <= INT64_MAX && about->optimal && !(about->optimal & (about->optimal - 1)) &&
           about->format <= BLK_QCOW2;
}

static bool is_same(const struct isolated *i, const struct kept_hello *hello)
{
    const struct blk_info *info = &i->blk.info;
    struct isolated_about about;

    return take_about(hello, &about) && about.size == atomic_load(&i->blk.size) &&
           about.block == info->block && about.readonly == info->readonly;
}

/* A new process is there: starts it, with all that the last one has not done. */
static const char *start_anew(void *opaque, const struct kept_hello *hello)
{
    struct isolated *i = opaque;
    bool wake;

    if (!is_same(i, hello))
        return "is another disk since its process has been started anew";
    log_line(i->blk.host->log, LOG_LEVEL_WARNING, "disk '%s': its process has been started anew",
             i->file);
    pthread_mutex_lock(&i->lock);
    memset(&i->memory->requests, 0, sizeof(i->memory->requests));
    memset(&i->memory->results, 0, sizeof(i->memory->results));
    i->requests = i->results = (struct kept_side){0, 0};
    wake = isolated_send_all(i);
    wake |= isolated_pump(i);
    pthread_mutex_unlock(&i->lock);
    event_clear(i->user.files[KEPT_REQUEST_EVENT]);
    if (wake)
        kept_user_wake(&i->user);
    kept_user_send_files(&i->user, hello);
    return NULL;
}

static bool any_waits(void *opaque)
{
    struct isolated *i = opaque;
    bool waits;

    pthread_mutex_lock(&i->lock);
    waits = i->waiting.first;
    for (unsigned n = 0; n < ISOLATED_REQUESTS && !waits; n++)
        waits = i->part[n].request;
    pthread_mutex_unlock(&i->lock);
    return waits;
}

static bool sleeps(void *opaque)
{
    struct isolated *i = opaque;

    return kept_index_sleeps(&i->memory->results, i->results.read);
}

static const struct kept_user_ops user_ops = {.sleeps = sleeps,
                                              .take = take_results,
                                              .waits = any_waits,
                                              .begin = start_anew,
                                              .fail = fail_all};

/* ---- Opening and closing ---- */

static void isolated_close(struct blk *blk)
{
    struct isolated *i = isolated_of(blk);

    kept_user_end(&i->user);
    kept_pages_free(&i->pages);
    pthread_mutex_destroy(&i->lock);
    free(i->file);
    free(i);
}

static struct where *isolated_where(struct blk *blk, unsigned n)
{
    return n == 0 ? &isolated_of(blk)->user.where : NULL;
}

static const struct blk_driver isolated_driver = {
    .submit = isolated_submit, .where = isolated_where, .close = isolated_close};

static int take_hello(struct isolated *i, const struct kept_hello *hello, struct error *err)
{
    struct isolated_about about;

    if (!take_about(hello, &about))
        return error_set(err, EPROTO, "its process breaks the rules");
    i->blk.info = (struct blk_info){.block = about.block,
                                    .optimal = about.optimal,
                                    .readonly = about.readonly,
                                    .discards = about.discards,
                                    .zeroes = about.zeroes,
                                    .format = blk_format_name((enum blk_format)about.format),
                                    .file = i->file};
    atomic_store(&i->blk.size, about.size);
    return 0;
}

static int open_disk(struct isolated *i, struct error *err)
{
    struct kept_hello hello;
    int ret;

    if (kept_pages_init(&i->pages, ISOLATED_PAGES) < 0)
        return error_set(err, ENOMEM, "out of memory");
    ret = kept_user_open(&i->user, ISOLATED_BYTES, FIRST_NS, &hello, err);
    i->memory = i->user.memory;
    if (ret == 0)
        ret = take_hello(i, &hello, err);
    return ret == 0 ? kept_user_start(&i->user, &hello, "disk, isolated", err) : ret;
}

/* How long to wait for a result before the process is killed: longer than the process waits for a
 * server, and than a rate limit has a part wait for the one before. */
static uint64_t patience(const struct blk_options *options, const struct blk_host *host)
{
    uint64_t ns = 2 * (host->patience_ns ? host->patience_ns : PATIENCE_NS);

    if (options->iops)
        ns += NS_PER_S / options->iops;
    if (options->bps)
        ns += ISOLATED_DATA_MOST * NS_PER_S / options->bps;
    return ns;
}

static struct isolated *new_isolated(const struct blk_options *options, const struct blk_host *host,
                                     int link)
{
    struct isolated *i = calloc(1, sizeof(*i));
    char *file = strdup(options->file);

    if (!i || !file) {
        free(i);
        free(file);
        close(link);
        return NULL;
    }
    i->file = file;
    snprintf(i->name, sizeof(i->name), "disk '%s'", file);
    kept_user_init(&i->user, &user_ops, i, i->name, host->log, link, patience(options, host));
    i->blk.driver = &isolated_driver;
    i->blk.host = host;
    pthread_mutex_init(&i->lock, NULL);
    return i;
}

struct blk *isolated_open(const struct blk_options *options, const struct blk_host *host,
                          struct error *err)
{
    struct error why = {0};
    struct isolated *i;
    int link;

    if (options->snapshot && !options->readonly) {
        error_set(err, EINVAL,
                  "disk '%s': snapshot and isolate do not go together: what was written would be "
                  "lost with its process",
                  options->file);
        return NULL;
    }
    link = host->isolate ? host->isolate(host->isolate_opaque, options->file) : -ENOSYS;
    if (link < 0) {
        error_set(err, -link, "disk '%s': no supervisor can start a process for it (isolate): %s",
                  options->file, strerror(-link));
        return NULL;
    }
    i = new_isolated(options, host, link);
    if (i && open_disk(i, &why) == 0)
        return &i->blk;
    if (i)
        isolated_close(&i->blk);
    if (i && strstr(why.text, options->file))
        error_set(err, why.code, "%s", why.text);
    else
        error_set(err, i ? why.code : ENOMEM, "disk '%s': %s", options->file,
                  i ? why.text : "out of memory");
    return NULL;
}
