/*
 * An isolated folder, for who uses it.
 */
#include "share/remote_private.h"

#include "base/buffers.h"
#include "base/time.h"
#include "base/util.h"
#include "base/write_all.h"
#include "share/mirror.h"
#include "share/tables.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST_NS    (30 * NS_PER_S) /* for the process to open the folder */
#define PATIENCE_NS (60 * NS_PER_S) /* for it to answer */

/* ---- Requests: any thread ---- */

static void complete_all(struct fifo *all, bool cancelled)
{
    struct fifo_link *link;

    while ((link = all->first)) {
        struct share_request *request = container_of(link, struct share_request, job.link);

        fifo_remove(all, link);
        if (cancelled)
            request->done(request, -ECANCELED);
        else
            remote_fail(request);
    }
}

void share_remote_submit(struct share_remote *r, struct share_request *request)
{
    bool broken, wake = false;

    if (buffers_length(request->in, request->ins) > RING_PART_MOST) {
        request->done(request, -EPROTO);
        return;
    }
    request->job = (struct pool_job){.run = NULL};
    pthread_mutex_lock(&r->lock);
    broken = r->broken;
    if (!broken) {
        fifo_put(&r->waiting, &request->job.link);
        wake = remote_pump(r);
    }
    pthread_mutex_unlock(&r->lock);
    if (broken)
        remote_fail(request);
    if (wake)
        kept_user_wake(&r->user);
}

/* Asks for what waits to be ended; later, if too much is asked for already. With LOCK. */
static bool send_recall(struct share_remote *r)
{
    r->recall_again = r->controls >= RING_CONTROLS_MOST / 2;
    return !r->recall_again && remote_control(r, RING_RECALL);
}

void share_remote_recall(struct share_remote *r)
{
    struct fifo waiting;
    bool wake;

    pthread_mutex_lock(&r->lock);
    waiting = r->waiting;
    r->waiting = (struct fifo){.first = NULL};
    for (uint32_t i = 0; i < RING_REQUESTS; i++)
        r->slot[i].recalled = r->slot[i].request != NULL;
    wake = send_recall(r);
    pthread_mutex_unlock(&r->lock);
    if (wake)
        kept_user_wake(&r->user);
    complete_all(&waiting, true);
}

/* ---- What the guest knows ---- */

static int write_state(void *opaque, const void *data, size_t size, struct error *err)
{
    const int *fd = opaque;
    int ret = write_all(*fd, data, size);

    return ret < 0 ? error_set(err, -ret, "%s", strerror(-ret)) : 0;
}

/* Writes what the mirror holds to a new file. Returns a descriptor. With TABLES. */
static int write_tables(struct share_remote *r, struct error *err)
{
    int fd = memfd_create("folder", MFD_CLOEXEC);
    const struct state_writer writer = {.write = write_state, .opaque = &fd};
    struct state *s = fd < 0 ? NULL : state_create_save(&writer, "doppel", err);

    if (fd < 0)
        return error_set(err, errno, "cannot make a memory file: %s", strerror(errno));
    if (s) {
        share_tables_state(r->share, s, 0);
        if (state_finish(s) < 0)
            error_set(err, -state_error(s), "%s", state_failure(s)->text);
    }
    if (s && state_error(s) == 0) {
        state_free(s);
        return fd;
    }
    state_free(s);
    close(fd);
    return -err->code;
}

/* Gives the process a file with what the mirror holds. False: it has not got it. With TABLES. */
static bool send_tables(struct share_remote *r)
{
    struct error err = {0};
    int fd = write_tables(r, &err), ret;

    if (fd < 0) {
        log_line(r->share->host.log, LOG_LEVEL_ERROR, "%s: cannot say what the guest knows: %s",
                 r->name, err.text);
        return false;
    }
    ret = kept_link_send_files(r->user.link, r->number, &fd, 1);
    close(fd);
    return ret == 0;
}

/* Whether there is room for the two entries that belong to such a file. */
static bool may_load(struct share_remote *r)
{
    bool may;

    pthread_mutex_lock(&r->lock);
    may = r->controls < RING_CONTROLS_MOST - 2;
    pthread_mutex_unlock(&r->lock);
    return may;
}

/* Has the process know what the mirror holds; later, if that cannot be now. With TABLES, so that
 * files and their entries are in the same order. */
static void load_tables(struct share_remote *r)
{
    bool sent = may_load(r) && send_tables(r), wake = false;

    pthread_mutex_lock(&r->lock);
    r->load_again = !sent;
    if (sent) {
        wake = remote_control(r, RING_LOAD);
        wake |= remote_control(r, RING_OPEN);
        wake |= remote_pump(r);
    }
    pthread_mutex_unlock(&r->lock);
    if (wake)
        kept_user_wake(&r->user);
}

void share_remote_reset(struct share_remote *r)
{
    pthread_mutex_lock(&r->tables);
    share_tables_reset(r->share);
    load_tables(r);
    pthread_mutex_unlock(&r->tables);
}

void share_remote_state(struct share_remote *r, struct state *s, uint32_t instance)
{
    pthread_mutex_lock(&r->tables);
    share_tables_state(r->share, s, instance);
    if (!state_saving(s) && !state_error(s))
        load_tables(r);
    pthread_mutex_unlock(&r->tables);
}

/* ---- Notes: the thread ---- */

static void fail_all(void *opaque)
{
    struct share_remote *r = opaque;
    struct fifo failed;

    pthread_mutex_lock(&r->lock);
    r->broken = true;
    remote_forget_all(r, &failed);
    pthread_mutex_unlock(&r->lock);
    complete_all(&failed, false);
}

/* Takes a result, and what the guest has got to know by it. Returns the request, or NULL if it
 * cannot be. */
static struct share_request *take_result(struct share_remote *r,
                                         const struct share_note_result *note, bool *wake)
{
    struct share_request *request;

    if (note->note.size < sizeof(*note) ||
        share_mirror_change(r->share, (const uint8_t *)(note + 1),
                            note->note.size - sizeof(*note)) < 0)
        return NULL;
    pthread_mutex_lock(&r->lock);
    request = remote_end(r, note->number, note->result);
    *wake = request && remote_pump(r);
    pthread_mutex_unlock(&r->lock);
    return request;
}

static bool take_done(struct share_remote *r, const struct share_note_done *note, bool *wake)
{
    bool good, loads;

    if (note->note.size < sizeof(*note))
        return false;
    pthread_mutex_lock(&r->lock);
    good = r->controls > 0;
    r->controls -= good;
    if (note->kind == RING_PING)
        r->pinged = false;
    if (good && r->recall_again)
        *wake = send_recall(r);
    loads = good && r->load_again;
    pthread_mutex_unlock(&r->lock);
    if (loads)
        load_tables(r);
    return good;
}

/* Takes the next note. 1; 0: there is none; negative: it cannot be. *ENDED: the request that has
 * ended with it, or NULL. With TABLES. */
static int take_note(struct share_remote *r, struct share_request **ended, bool *wake)
{
    const void *note = r->note;
    int ret = share_ring_note(r->ring, &r->notes, r->note);

    if (ret <= 0)
        return ret;
    if (r->note->kind == NOTE_RESULT) {
        *ended = take_result(r, note, wake);
        r->user.progress |= *ended != NULL;
        return *ended ? 1 : -EPROTO;
    }
    if (r->note->kind == NOTE_DONE) {
        r->user.progress = true;
        return take_done(r, note, wake) ? 1 : -EPROTO;
    }
    ret = share_mirror_note(r->share, r->note);
    return ret < 0 ? ret : 1;
}

/* Takes all notes that there can be at once: a process that tells without end shall not keep the
 * thread from looking at the clock and at its own end. Returns what is wrong, or NULL. */
static const char *take_notes(void *opaque)
{
    struct share_remote *r = opaque;
    uint32_t first = r->notes.read;
    int ret;

    do {
        struct share_request *ended = NULL;
        int32_t result = 0;
        bool wake = false;

        pthread_mutex_lock(&r->tables);
        ret = take_note(r, &ended, &wake);
        pthread_mutex_unlock(&r->tables);
        if (ended)
            result = ((const struct share_note_result *)(const void *)r->note)->result;
        if (wake)
            kept_user_wake(&r->user);
        if (ended)
            ended->done(ended, result);
    } while (ret > 0 && r->notes.read - first < RING_NOTES && !atomic_load(&r->user.ends));
    return ret >= 0 ? NULL : ret == -ENOMEM ? "out of memory" : "its process breaks the rules";
}

/* ---- Processes: the thread ---- */

/* Gives the next process all that the last one has not done. With TABLES. */
static void send_again(struct share_remote *r)
{
    share_nodes_sweep(r->share);
    pthread_mutex_lock(&r->lock);
    memset(&r->ring->entries, 0, sizeof(r->ring->entries));
    memset(&r->ring->notes, 0, sizeof(r->ring->notes));
    atomic_store(&r->ring->notes_taken, 0);
    r->requests = r->notes = (struct kept_side){0, 0};
    r->controls = 0;
    r->pinged = r->recall_again = r->load_again = false;
    remote_send_all(r);
    pthread_mutex_unlock(&r->lock);
}

/* A new process is there: starts it. Returns what is wrong, or NULL. */
static const char *start_anew(void *opaque, const struct kept_hello *hello)
{
    struct share_remote *r = opaque;

    log_line(r->share->host.log, LOG_LEVEL_WARNING, "%s: its process has been started anew",
             r->name);
    pthread_mutex_lock(&r->tables);
    r->number = hello->number;
    send_again(r);
    event_clear(r->user.files[KEPT_REQUEST_EVENT]);
    /* A process that does not get them waits, and is killed for that. */
    if (kept_user_send_files(&r->user, hello) == 0)
        send_tables(r);
    pthread_mutex_unlock(&r->tables);
    return NULL;
}

/* Whether something is to be done. A lock may be waited for without end, so that the process must
 * answer a ping meanwhile. */
static bool any_waits(void *opaque)
{
    struct share_remote *r = opaque;
    bool waits, wake = false;

    pthread_mutex_lock(&r->lock);
    waits = r->used > 0 || r->waiting.first || r->controls > 0 || r->load_again;
    if (waits && !r->pinged && r->controls < RING_CONTROLS_MOST - 1) {
        r->pinged = true;
        wake = remote_control(r, RING_PING);
    }
    pthread_mutex_unlock(&r->lock);
    if (wake)
        kept_user_wake(&r->user);
    return waits;
}

static bool sleeps(void *opaque)
{
    struct share_remote *r = opaque;

    return kept_index_sleeps(&r->ring->notes, r->notes.read);
}

static const struct kept_user_ops user_ops = {.sleeps = sleeps,
                                              .take = take_notes,
                                              .waits = any_waits,
                                              .begin = start_anew,
                                              .fail = fail_all};

/* ---- Opening and closing ---- */

void share_remote_close(struct share_remote *r)
{
    if (!r)
        return;
    kept_user_end(&r->user);
    kept_pages_free(&r->pages);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->tables);
    free(r->note);
    free(r);
}

static struct share_remote *make(struct share *share, int link)
{
    uint64_t patience = share->host.patience_ns ? share->host.patience_ns : PATIENCE_NS;
    struct share_remote *r = calloc(1, sizeof(*r));

    if (!r) {
        close(link);
        return NULL;
    }
    r->share = share;
    snprintf(r->name, sizeof(r->name), "shared folder %s", share->options.folder);
    kept_user_init(&r->user, &user_ops, r, r->name, share->host.log, link, patience);
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->tables, NULL);
    remote_slots_init(r);
    return r;
}

static int start(struct share_remote *r, struct error *err)
{
    struct kept_hello hello;
    int ret;

    r->note = malloc(NOTE_MOST);
    if (!r->note || kept_pages_init(&r->pages, RING_PAGES) < 0)
        return error_set(err, ENOMEM, "out of memory");
    ret = kept_user_open(&r->user, sizeof(struct share_ring), FIRST_NS, &hello, err);
    r->ring = r->user.memory;
    if (ret < 0)
        return ret;
    r->number = hello.number;
    return kept_user_start(&r->user, &hello, "share, isolated", err);
}

struct share_remote *share_remote_open(struct share *share, int link, struct error *err)
{
    struct share_remote *r = make(share, link);
    struct error why = {.code = ENOMEM, .text = "out of memory"};

    if (r && start(r, &why) == 0)
        return r;
    if (strstr(why.text, share->options.folder))
        error_set(err, why.code, "%s", why.text);
    else
        error_set(err, why.code, "shared folder %s: %s", share->options.folder, why.text);
    share_remote_close(r);
    return NULL;
}

struct where *share_remote_where(struct share_remote *r)
{
    return &r->user.where;
}
