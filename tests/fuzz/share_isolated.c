/*
 * Fuzz target: the memory that the process of a shared folder shares with who uses the folder. In
 * turn either side is our own and the other one writes what the input says: entries and requests
 * that are none, plans of a process that never was, notes of what did not happen, indices that
 * jump. Neither may crash or hang, and what lies beside the folder does not change.
 */
#include "folder.h"

#include "base/kept_link.h"
#include "base/thread.h"
#include "base/util.h"
#include "share/options.h"
#include "share/ring.h"
#include "share/serve.h"
#include "share/share.h"

#include <sys/socket.h>

#define SECRET  "the secret beside the folder"
#define NUMBERS 8u /* of requests that most entries have */

/* ---- The folder ---- */

struct world {
    struct folder folder;
    struct share_options options;
    int link[2]; /* 0: who uses the folder; 1: its process */
};

static void begin(struct world *w, const char *settings)
{
    char text[128];

    folder_make(&w->folder, 96 << 20); /* the shared memory is a file, too */
    snprintf(text, sizeof(text), "%s%s", w->folder.folder, settings);
    check(share_options_parse(text, &w->options, NULL) == 0);
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, w->link) == 0);
}

static void end(struct world *w)
{
    folder_end(&w->folder);
    share_options_free(&w->options);
}

/* ---- The folder's process is ours ---- */

static void *serve(void *opaque)
{
    struct world *w = opaque;

    share_serve(w->link[1], &w->options, NULL, NULL);
    shutdown(w->link[1], SHUT_RDWR);
    return NULL;
}

/* A request in the place of NUMBER, which may mean something. */
static void make_request(struct share_ring *ring, uint32_t number, struct input *in)
{
    static const char names[][16] = {"a", "b", "a\0b", "../secret"};
    struct fuse_in_header header = {.len = sizeof(header), .unique = number, .nodeid = 1};
    uint8_t how = (uint8_t)take(in, 1), *place = ring->small[number % RING_REQUESTS][0];
    size_t size = take(in, 1) % 64;

    header.opcode = how & 1 ? FUSE_INIT : (uint32_t)take(in, 1) % 54;
    header.nodeid = how & 2 ? take(in, 1) : 1;
    memset(place, 0, RING_SMALL);
    place[sizeof(header)] = 7;
    place[sizeof(header) + 4] = 38;
    for (size_t i = 0; i < size && how & 4; i++)
        place[sizeof(header) + i] = (uint8_t)take(in, 1);
    memcpy(place + sizeof(header) + size, names[how >> 3 & 3], 10);
    header.len += (uint32_t)size + 10;
    memcpy(place, &header, sizeof(header));
}

/* Entries, most of which mean something. */
static void make_entries(struct share_ring *ring, struct input *in)
{
    const uint64_t small = offsetof(struct share_ring, small);
    struct kept_side side = {0, 0};

    for (unsigned i = 0; in->left && i < 64; i++) {
        uint8_t how = (uint8_t)take(in, 1);
        uint32_t number = how & 1 ? (uint32_t)take(in, 4) : i;
        uint64_t place = small + 2 * RING_SMALL * (number % RING_REQUESTS);
        struct share_ring_entry e = {.number = number,
                                     .kind = (uint16_t)(how & 2 ? take(in, 1) : RING_REQUEST),
                                     .again = how >> 2 & 1,
                                     .in_size = RING_SMALL,
                                     .out_size = RING_SMALL,
                                     .in = how & 8 ? take(in, 8) : place,
                                     .out = how & 16 ? take(in, 8) : place + RING_SMALL};

        make_request(ring, number, in);
        e.in_size = how & 32 ? (uint32_t)take(in, 4)
                             : ((const struct fuse_in_header *)(const void *)
                                    ring->small[number % RING_REQUESTS][0])
                                   ->len;
        if (how & 64) {
            struct share_intent *intent = &ring->intent[number % RING_REQUESTS];

            intent->plan.size = take(in, 2);
            intent->plan.replaces = intent->plan.last = how >> 7;
            atomic_store(&intent->begun, 1);
        }
        share_ring_send(ring, &side, &e);
    }
    if (in->left)
        atomic_store(&ring->entries.written, (uint32_t)take(in, 4));
}

static void against_server(struct input *in)
{
    int files[KEPT_FILES] = {-1, -1, -1}, ret;
    struct kept_hello hello;
    struct world w;
    pthread_t thread;
    void *memory;
    pid_t sender;

    begin(&w, "");
    check(kept_memory_make(sizeof(struct share_ring), files, &memory, NULL) == 0);
    make_entries(memory, in);
    check(thread_start(&thread, "folder", serve, &w, NULL) == 0);
    while ((ret = kept_link_receive_hello(w.link[0], &hello, &sender)) == 0)
        usleep(10);
    check(ret == 1);
    kept_link_send_files(w.link[0], hello.number, files, KEPT_FILES);
    kept_wake(files[KEPT_REQUEST_EVENT]);
    usleep(200);
    close(w.link[0]);
    pthread_join(thread, NULL);
    close(w.link[1]);
    kept_memory_drop(sizeof(struct share_ring), files, memory);
    end(&w);
}

/* ---- Who uses the folder is ours ---- */

static int give_link(void *opaque, const char *folder)
{
    struct world *w = opaque;

    return dup(w->link[0]);
}

struct request {
    struct share_request share;
    struct iovec in, out;
    struct fuse_in_header header;
    uint8_t answer[600];
};

static _Atomic unsigned pending;

static void done(struct share_request *share, ssize_t result)
{
    check(result <= (ssize_t)sizeof(((struct request *)0)->answer));
    atomic_fetch_sub(&pending, 1);
}

/* Notes, most of which have the right size. */
static void make_notes(struct share_ring *ring, struct input *in)
{
    static const uint32_t sizes[] = {72, 16, 8, 16, 16, 56, 96, 24};
    struct kept_side side = {0, 0};

    for (unsigned i = 0; in->left && i < 64; i++) {
        uint64_t note[16] = {0};
        uint8_t how = (uint8_t)take(in, 1);
        uint32_t size = sizes[how & 7], kind = how >> 3 & 7;

        if (how & 64)
            size = (uint32_t)take(in, 1) & ~7u;
        for (unsigned word = 1; word < ARRAY_SIZE(note); word++)
            note[word] = 8 * word < size ? take(in, how & 128 ? 8 : 1) : 0;
        note[0] = size | (uint64_t)(kind <= NOTE_LOST ? kind : NOTE_RESULT) << 32;
        share_ring_put(ring, &side, note, MIN(MAX(size, 8u), sizeof(note)));
    }
    if (in->left)
        atomic_store(&ring->notes.written, (uint32_t)take(in, 4));
}

static void against_client(struct input *in)
{
    const struct kept_hello hello = kept_link_hello();
    struct share_host host = {.isolate = give_link};
    struct request request[NUMBERS];
    int files[KEPT_FILES];
    struct share *share;
    struct world w;
    void *memory;

    begin(&w, ",isolate");
    host.isolate_opaque = &w;
    kept_link_send_hello(w.link[1], &hello);
    share = share_open(&w.options, &host, NULL);
    check(share != NULL);
    check(kept_link_receive_files(w.link[1], hello.number, files, KEPT_FILES) == 0);
    check(kept_memory_map(files[KEPT_MEMORY], sizeof(struct share_ring), &memory, NULL) == 0);
    atomic_store(&pending, NUMBERS);
    for (unsigned i = 0; i < NUMBERS; i++) {
        struct request *r = &request[i];

        r->header = (struct fuse_in_header){.len = sizeof(r->header),
                                            .opcode = i ? FUSE_READLINK : FUSE_FORGET};
        r->in = (struct iovec){&r->header, sizeof(r->header)};
        r->out = (struct iovec){r->answer, sizeof(r->answer)};
        r->share =
            (struct share_request){.in = &r->in, .ins = 1, .out = &r->out, .outs = 1, .done = done};
        share_submit(share, &r->share);
    }
    make_notes(memory, in);
    kept_wake(files[KEPT_RESULT_EVENT]);
    close(w.link[1]); /* then all that is left fails */
    while (atomic_load(&pending))
        usleep(10);
    share_close(share);
    close(w.link[0]);
    kept_memory_drop(sizeof(struct share_ring), files, memory);
    end(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (take(&in, 1) & 1)
        against_client(&in);
    else
        against_server(&in);
    return 0;
}
