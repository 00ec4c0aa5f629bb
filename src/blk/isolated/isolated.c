/*
 * A disk that a process of its own serves: the side that uses it.
 */
#include "blk/isolated/isolated.h"

#include "base/kept_link.h"
#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "blk/isolated/isolated_private.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FIRST_NS    (30 * NS_PER_S) /* for the process to open the disk */
#define PATIENCE_NS (30 * NS_PER_S) /* of the process with a server (blk_host) */

static struct isolated *isolated_of(struct blk *blk)
{
    return container_of(blk, struct isolated, blk);
}

static void wake_process(struct isolated *i)
{
    int ret = event_signal(&i->sender, i->files[KEPT_REQUEST_EVENT]);

    if (ret < 0)
        log_line(i->blk.host->log, LOG_LEVEL_WARNING,
                 "disk '%s': cannot tell its process of requests: %s", i->file, strerror(-ret));
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
        wake_process(i);
}

/* ---- The thread ---- */

static void fail_all(struct isolated *i, const char *why)
{
    struct blk_request *request;
    struct blk_list failed;

    log_tell(i->blk.host->log, LOG_LEVEL_ERROR, "disk '%s': %s; it cannot be used any more",
             i->file, why);
    pthread_mutex_lock(&i->lock);
    i->broken = true;
    failed = isolated_forget_all(i);
    pthread_mutex_unlock(&i->lock);
    while ((request = blk_list_take(&failed)))
        blk_complete(request, -EIO);
}

/* Takes all results. Returns what is wrong, or NULL. */
static const char *take_results(struct isolated *i)
{
    struct isolated_result result;
    bool more = true, good = true;

    while (more && good) {
        struct blk_request *ended = NULL;
        bool wake = false;

        pthread_mutex_lock(&i->lock);
        more = isolated_collect(i->memory, &i->results, &result);
        if (more)
            good = isolated_end_part(i, &result, &ended);
        i->progress |= more && good;
        if (more && good)
            wake = isolated_pump(i);
        pthread_mutex_unlock(&i->lock);
        if (wake)
            wake_process(i);
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
static const char *start_anew(struct isolated *i, const struct kept_hello *hello, pid_t sender)
{
    const char *wrong = take_results(i); /* of the last one */
    bool wake;

    if (wrong)
        return wrong;
    kept_watch_process(&i->watch, sender);
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
    event_clear(i->files[KEPT_REQUEST_EVENT]);
    if (wake)
        wake_process(i);
    if (kept_link_send_files(i->link, hello->number, i->files, KEPT_FILES) < 0)
        log_line(i->blk.host->log, LOG_LEVEL_WARNING, "disk '%s': its process is gone again",
                 i->file);
    return NULL;
}

/* Looks whether a process has come. Returns what is wrong, or NULL. */
static const char *look_at_link(struct isolated *i)
{
    struct kept_hello hello;
    pid_t sender = 0;
    int ret = kept_link_receive_hello(i->link, &hello, &sender);

    if (ret == 0)
        return NULL;
    if (ret < 0)
        return ret == -EPIPE ? "its process is gone for good" : "its process breaks the rules";
    if (!hello.error)
        return start_anew(i, &hello, sender);
    log_clean(hello.text);
    log_line(i->blk.host->log, LOG_LEVEL_WARNING, "its process was started anew, but: %s",
             hello.text);
    return NULL;
}

static bool any_waits(struct isolated *i)
{
    bool waits;

    pthread_mutex_lock(&i->lock);
    waits = i->waiting.first;
    for (unsigned n = 0; n < ISOLATED_REQUESTS && !waits; n++)
        waits = i->part[n].request;
    pthread_mutex_unlock(&i->lock);
    return waits;
}

static const char *watch_process(struct isolated *i)
{
    bool progress = i->progress;

    i->progress = false;
    return kept_watch_look(&i->watch, progress, !progress && any_waits(i));
}

/* Waits for the process or for a thread of this one, and takes what has come. Returns what is
 * wrong, or NULL. */
static const char *wait_and_take(struct isolated *i, struct pollfd pfd[3])
{
    bool sleeps = kept_index_sleeps(&i->memory->results, i->results.read);
    const char *wrong;

    if (poll(pfd, 3, sleeps ? kept_watch_pause(&i->watch) : 0) < 0)
        return NULL;
    if (pfd[0].revents)
        event_clear(i->wake);
    if (pfd[1].revents)
        event_clear(i->files[KEPT_RESULT_EVENT]);
    wrong = take_results(i);
    if (!wrong)
        wrong = watch_process(i);
    return !wrong && pfd[2].revents ? look_at_link(i) : wrong;
}

static bool is_ending(struct isolated *i)
{
    bool end;

    pthread_mutex_lock(&i->lock);
    end = i->ends;
    pthread_mutex_unlock(&i->lock);
    return end;
}

static void *run(void *opaque)
{
    struct isolated *i = opaque;
    struct pollfd pfd[] = {
        {i->wake, POLLIN, 0}, {i->files[KEPT_RESULT_EVENT], POLLIN, 0}, {i->link, POLLIN, 0}};
    const char *wrong = NULL;

    where_begin(&i->where);
    while (!is_ending(i) && !wrong) {
        wrong = wait_and_take(i, pfd);
        if (wrong)
            fail_all(i, wrong);
    }
    where_end(&i->where);
    return NULL;
}

/* ---- Opening and closing ---- */

static void end_thread(struct isolated *i)
{
    pthread_mutex_lock(&i->lock);
    i->ends = true;
    pthread_mutex_unlock(&i->lock);
    event_signal(&i->sender, i->wake);
    pthread_join(i->thread, NULL);
}

static void isolated_close(struct blk *blk)
{
    struct isolated *i = isolated_of(blk);

    if (i->started)
        end_thread(i);
    kept_memory_drop(ISOLATED_BYTES, i->files, i->memory);
    kept_pages_free(&i->pages);
    kept_watch_end(&i->watch);
    event_sender_close(&i->sender);
    if (i->wake >= 0)
        close(i->wake);
    if (i->link >= 0)
        close(i->link);
    pthread_mutex_destroy(&i->lock);
    free(i->file);
    free(i);
}

static struct where *isolated_where(struct blk *blk, unsigned n)
{
    return n == 0 ? &isolated_of(blk)->where : NULL;
}

static const struct blk_driver isolated_driver = {
    .submit = isolated_submit, .where = isolated_where, .close = isolated_close};

static int make_files(struct isolated *i, struct error *err)
{
    void *memory = NULL;
    int ret;

    i->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (i->wake < 0)
        return error_set(err, errno, "cannot make an event file: %s", strerror(errno));
    if (event_sender_open(&i->sender, err) < 0)
        return -EAGAIN;
    if (kept_pages_init(&i->pages, ISOLATED_PAGES) < 0)
        return error_set(err, ENOMEM, "out of memory");
    ret = kept_memory_make(ISOLATED_BYTES, i->files, &memory, err);
    i->memory = memory;
    return ret;
}

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
    if (kept_link_send_files(i->link, hello->number, i->files, KEPT_FILES) < 0)
        return error_set(err, EPIPE, "its process has ended");
    return 0;
}

static int open_disk(struct isolated *i, struct error *err)
{
    struct kept_hello hello;
    pid_t sender = 0;
    int ret = make_files(i, err);

    if (ret == 0)
        ret = kept_link_await_hello(i->link, FIRST_NS, &hello, &sender, err);
    if (ret == 0) {
        kept_watch_process(&i->watch, sender);
        ret = take_hello(i, &hello, err);
    }
    if (ret == 0)
        ret = thread_start(&i->thread, "disk, isolated", run, i, err);
    i->started = ret == 0;
    return ret;
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
    i->link = link;
    i->wake = -1;
    snprintf(i->name, sizeof(i->name), "disk '%s'", file);
    kept_watch_begin(&i->watch, i->name, host->log, patience(options, host));
    i->sender = EVENT_SENDER_CLOSED;
    for (unsigned n = 0; n < KEPT_FILES; n++)
        i->files[n] = -1;
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
