/*
 * Using a kept process.
 */
#include "base/kept_user.h"

#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void kept_user_wake(struct kept_user *u)
{
    int ret = event_signal(&u->sender, u->files[KEPT_REQUEST_EVENT]);

    if (ret < 0)
        log_line(u->log, LOG_LEVEL_WARNING, "%s: cannot tell its process of requests: %s", u->name,
                 strerror(-ret));
}

int kept_user_send_files(struct kept_user *u, const struct kept_hello *hello)
{
    int ret = kept_link_send_files(u->link, hello->number, u->files, KEPT_FILES);

    if (ret < 0)
        log_line(u->log, LOG_LEVEL_WARNING, "%s: its process is gone again", u->name);
    return ret;
}

/* ---- The thread ---- */

/* A new process is there. Returns what is wrong, or NULL. */
static const char *begin_anew(struct kept_user *u, const struct kept_hello *hello, pid_t sender)
{
    const char *wrong = u->ops->take(u->opaque); /* of the last one */

    if (wrong)
        return wrong;
    kept_watch_process(&u->watch, sender);
    return u->ops->begin(u->opaque, hello);
}

/* Looks whether a process has come. Returns what is wrong, or NULL. */
static const char *look_at_link(struct kept_user *u)
{
    struct kept_hello hello;
    pid_t sender = 0;
    int ret = kept_link_receive_hello(u->link, &hello, &sender);

    if (ret == 0)
        return NULL;
    if (ret < 0)
        return ret == -EPIPE ? "its process is gone for good" : "its process breaks the rules";
    if (!hello.error)
        return begin_anew(u, &hello, sender);
    log_clean(hello.text);
    log_line(u->log, LOG_LEVEL_WARNING, "%s: its process was started anew, but: %s", u->name,
             hello.text);
    return NULL;
}

static const char *watch_process(struct kept_user *u)
{
    bool progress = u->progress;

    u->progress = false;
    return kept_watch_look(&u->watch, progress, !progress && u->ops->waits(u->opaque));
}

/* Waits for the process or for a thread of this one, and takes what has come. Returns what is
 * wrong, or NULL. */
static const char *wait_and_take(struct kept_user *u, struct pollfd pfd[3])
{
    bool sleeps = u->ops->sleeps(u->opaque);
    const char *wrong;

    if (poll(pfd, 3, sleeps ? kept_watch_pause(&u->watch) : 0) < 0)
        return NULL;
    if (pfd[0].revents)
        event_clear(u->wake);
    if (pfd[1].revents)
        event_clear(u->files[KEPT_RESULT_EVENT]);
    wrong = u->ops->take(u->opaque);
    if (!wrong)
        wrong = watch_process(u);
    return !wrong && pfd[2].revents ? look_at_link(u) : wrong;
}

static void *run(void *opaque)
{
    struct kept_user *u = opaque;
    struct pollfd pfd[] = {
        {u->wake, POLLIN, 0}, {u->files[KEPT_RESULT_EVENT], POLLIN, 0}, {u->link, POLLIN, 0}};
    const char *wrong = NULL;

    where_begin(&u->where);
    while (!atomic_load(&u->ends) && !wrong) {
        wrong = wait_and_take(u, pfd);
        if (wrong) {
            log_tell(u->log, LOG_LEVEL_ERROR, "%s: %s; it cannot be used any more", u->name, wrong);
            u->ops->fail(u->opaque);
        }
    }
    where_end(&u->where);
    return NULL;
}

/* ---- Beginning and end ---- */

void kept_user_init(struct kept_user *u, const struct kept_user_ops *ops, void *opaque,
                    const char *name, const struct log *log, int link, uint64_t patience)
{
    *u = (struct kept_user){.ops = ops,
                            .opaque = opaque,
                            .name = name,
                            .log = log,
                            .link = link,
                            .wake = -1,
                            .sender = EVENT_SENDER_CLOSED};
    for (unsigned i = 0; i < KEPT_FILES; i++)
        u->files[i] = -1;
    kept_watch_begin(&u->watch, name, log, patience);
}

static int make_files(struct kept_user *u, uint64_t size, struct error *err)
{
    u->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->wake < 0)
        return error_set(err, errno, "cannot make an event file: %s", strerror(errno));
    if (event_sender_open(&u->sender, err) < 0)
        return -EAGAIN;
    u->size = size;
    return kept_memory_make(size, u->files, &u->memory, err);
}

int kept_user_open(struct kept_user *u, uint64_t size, uint64_t ns, struct kept_hello *hello,
                   struct error *err)
{
    pid_t sender = 0;
    int ret = make_files(u, size, err);

    if (ret == 0)
        ret = kept_link_await_hello(u->link, ns, hello, &sender, err);
    if (ret == 0)
        kept_watch_process(&u->watch, sender);
    return ret;
}

int kept_user_start(struct kept_user *u, const struct kept_hello *hello, const char *title,
                    struct error *err)
{
    int ret;

    if (kept_link_send_files(u->link, hello->number, u->files, KEPT_FILES) < 0)
        return error_set(err, EPIPE, "its process has ended");
    ret = thread_start(&u->thread, title, run, u, err);
    u->started = ret == 0;
    return ret;
}

void kept_user_end(struct kept_user *u)
{
    if (u->started) {
        atomic_store(&u->ends, true);
        event_signal(&u->sender, u->wake);
        pthread_join(u->thread, NULL);
    }
    kept_memory_drop(u->size, u->files, u->memory);
    kept_watch_end(&u->watch);
    event_sender_close(&u->sender);
    if (u->wake >= 0)
        close(u->wake);
    if (u->link >= 0)
        close(u->link);
}
