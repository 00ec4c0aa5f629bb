/*
 * The process of an isolated folder.
 */
#include "share/serve.h"

#include "base/kept_server.h"
#include "base/time.h"
#include "base/util.h"
#include "share/ring.h"
#include "share/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct flight {
    struct share_request request;
    struct share_changes changes;
    struct iovec in, out;
    struct server *server;
    _Atomic bool busy;
};

struct server {
    int link;
    uint64_t number; /* of the hello */
    struct share *share;
    int files[KEPT_FILES];
    struct share_ring *ring;
    struct kept_side requests;
    pthread_mutex_t lock; /* a leaf: guards NOTES_SIDE and the notes in the memory */
    struct kept_side notes_side;
    struct share_notes notes;
    struct flight flight[RING_REQUESTS];
    _Atomic unsigned pending; /* requests that are being carried out or answered */
    _Atomic bool over;        /* nobody takes notes any more, or one is lost */
};

/* ---- Notes ---- */

/* Leaves the event of requests to the thread that waits for it. */
static bool is_closed(const struct server *s)
{
    return !kept_wait(s->link, -1, false);
}

/* Puts a note there when there is room for it. */
static void put(struct share_notes *notes, const void *note, size_t size)
{
    struct server *s = container_of(notes, struct server, notes);
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->over) &&
           (ret = share_ring_put(s->ring, &s->notes_side, note, size)) == -EAGAIN) {
        time_sleep_ns(NS_PER_MS);
        if (is_closed(s))
            atomic_store(&s->over, true);
    }
    pthread_mutex_unlock(&s->lock);
    if (ret > 0)
        kept_wake(s->files[KEPT_RESULT_EVENT]);
}

static void say_done(struct server *s, enum share_ring_kind kind)
{
    const struct share_note_done note = {.note = {.size = sizeof(note), .kind = NOTE_DONE},
                                         .kind = kind};

    put(&s->notes, &note, sizeof(note));
}

/* ---- Requests ---- */

/* Tells the result of F together with its changes, of which nobody else knows. */
static void tell_result(struct server *s, struct flight *f, int32_t result)
{
    size_t size = sizeof(struct share_note_result) + f->changes.size;
    struct share_note_result *note = f->changes.lost ? NULL : malloc(size);

    if (!note) { /* the next process does it again */
        atomic_store(&s->over, true);
        kept_wake(s->files[KEPT_REQUEST_EVENT]);
        return;
    }
    *note = (struct share_note_result){.note = {.size = (uint32_t)size, .kind = NOTE_RESULT},
                                       .number = (uint32_t)(f - s->flight),
                                       .result = result};
    memcpy(note + 1, share_changes_bytes(&f->changes), f->changes.size);
    share_changes_free(&f->changes);
    atomic_store(&f->busy, false); /* the other side may use its number again from the note on */
    put(&s->notes, note, size);
    free(note);
}

static void request_done(struct share_request *request, ssize_t result)
{
    struct flight *f = container_of(request, struct flight, request);
    struct server *s = f->server;

    tell_result(s, f, (int32_t)result);
    atomic_fetch_sub(&s->pending, 1); /* the last use of S here */
}

static bool begin_request(struct server *s, const struct share_ring_entry *entry)
{
    struct flight *f = &s->flight[entry->number];

    if (atomic_exchange(&f->busy, true))
        return false;
    f->server = s;
    f->changes = (struct share_changes){.size = 0};
    f->in = (struct iovec){(uint8_t *)s->ring + entry->in, entry->in_size};
    f->out = (struct iovec){(uint8_t *)s->ring + entry->out, entry->out_size};
    f->request = (struct share_request){.in = &f->in,
                                        .ins = 1,
                                        .out = &f->out,
                                        .outs = 1,
                                        .done = request_done,
                                        .changes = &f->changes,
                                        .intent = &s->ring->intent[entry->number],
                                        .again = entry->again != 0};
    atomic_fetch_add(&s->pending, 1);
    share_submit(s->share, &f->request);
    return true;
}

/* ---- What the guest knows ---- */

static ssize_t read_all(void *opaque, void *data, size_t size, struct error *err)
{
    const int *fd = opaque;
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(*fd, (uint8_t *)data + done, size - done);

        if (n < 0 && errno != EINTR)
            return error_set(err, errno, "%s", strerror(errno));
        if (n == 0)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)done;
}

static void set_notes(struct share *share, struct share_notes *notes)
{
    pthread_mutex_lock(&share->lock);
    share->notes = notes;
    pthread_mutex_unlock(&share->lock);
}

/* Takes over what the file FD says. The other side knows that already. */
static bool load_from(struct server *s, int fd)
{
    const struct state_reader reader = {.read = read_all, .opaque = &fd};
    struct state *state = state_create_load(&reader, NULL);
    bool good = false;

    set_notes(s->share, NULL);
    if (state) {
        share_tables_state(s->share, state, 0);
        good = state_finish(state) == 0;
    }
    set_notes(s->share, &s->notes);
    state_free(state);
    return good;
}

/* Takes over what a file says that comes by the link. It may be something that would be waited for
 * without end: then it is not read. */
static bool load(struct server *s)
{
    int fd = -1;
    struct stat st;
    bool good;

    if (kept_link_receive_files(s->link, s->number, &fd, 1) < 0)
        return false;
    good = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_SET) == 0 &&
           load_from(s, fd);
    close(fd);
    return good;
}

/* ---- The ring ---- */

/* Waits until all requests have ended that came before. Then nobody but this thread is at what the
 * guest knows. False: the other end is closed; one of them may wait for a lock without end. */
static bool await_quiet(struct server *s)
{
    while (atomic_load(&s->pending)) {
        if (is_closed(s))
            return false;
        time_sleep_ns(NS_PER_MS / 4);
    }
    return true;
}

/* Returns false if the other side is not what it should be, or gone. */
static bool carry_out(struct server *s, const struct share_ring_entry *entry)
{
    if (!share_ring_check(entry))
        return false;
    switch ((enum share_ring_kind)entry->kind) {
    case RING_REQUEST: return begin_request(s, entry);
    case RING_RECALL: share_recall(s->share); break;
    case RING_LOAD:
        if (!await_quiet(s) || !load(s))
            return false;
        break;
    case RING_OPEN:
        if (!await_quiet(s))
            return false;
        share_tables_open(s->share);
        break;
    case RING_PING:
    case RING_KINDS: break;
    }
    say_done(s, (enum share_ring_kind)entry->kind);
    return true;
}

static int serve(struct server *s, struct error *err)
{
    struct share_ring_entry entry;
    bool sleeps;

    do {
        while (!atomic_load(&s->over) && share_ring_take(s->ring, &s->requests, &entry))
            if (!carry_out(s, &entry))
                return is_closed(s)
                           ? 0
                           : error_set(err, EPROTO, "the other side breaks the rules of requests");
        sleeps = kept_index_sleeps(&s->ring->entries, s->requests.read);
    } while (kept_wait(s->link, s->files[KEPT_REQUEST_EVENT], sleeps) && !atomic_load(&s->over));
    return is_closed(s) ? 0 : error_set(err, ENOMEM, "out of memory");
}

/* What waits for a lock is given up; other requests are carried out to their ends. */
static void end_requests(struct server *s)
{
    atomic_store(&s->over, true);
    while (atomic_load(&s->pending)) {
        share_recall(s->share);
        time_sleep_ns(NS_PER_MS);
    }
}

static int start_and_serve(struct server *s, struct error *err)
{
    struct kept_hello hello = kept_link_hello();
    void *memory = NULL;
    int ret = kept_server_begin(s->link, &hello, sizeof(struct share_ring), s->files, &memory, err);

    if (ret < 0)
        return ret == -EPIPE ? 0 : ret;
    s->number = hello.number;
    s->ring = memory;
    /* Later than what any process before has told. */
    s->share->lock_order = time_now_ns();
    /* Numbers that the one before has given out and ended mean nothing else. */
    s->share->nodes.serial = s->share->handles.serial = (uint32_t)hello.number;
    s->share->lent = &s->ring->lent;
    share_tables_mend(s->share);
    set_notes(s->share, &s->notes);
    ret = serve(s, err);
    end_requests(s);
    set_notes(s->share, NULL);
    s->share->lent = NULL;
    kept_memory_drop(sizeof(struct share_ring), s->files, memory);
    return ret;
}

static int open_and_serve(struct server *s, const struct share_options *options,
                          const struct share_host *host, struct error *err)
{
    struct share_options own = *options;
    struct error why = {0};
    int ret;

    own.isolate = false;
    s->share = share_open(&own, host, &why);
    ret = s->share ? start_and_serve(s, err) : kept_server_apologize(s->link, &why, err);
    share_close(s->share);
    return ret;
}

int share_serve(int link, const struct share_options *options, const struct share_host *host,
                struct error *err)
{
    struct server *s = calloc(1, sizeof(*s));
    int ret;

    if (!s)
        return error_set(err, ENOMEM, "no memory to serve a folder");
    s->link = link;
    s->notes.put = put;
    pthread_mutex_init(&s->lock, NULL);
    ret = open_and_serve(s, options, host, err);
    for (unsigned i = 0; i < RING_REQUESTS; i++)
        share_changes_free(&s->flight[i].changes);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return ret;
}
