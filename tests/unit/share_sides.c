/*
 * A shared folder in a process of its own: sides that break the rules of the memory between the
 * two, or do not follow as fast as the other one goes. The test plays the folder's process against
 * who uses it, and the other way round.
 */
#include "test.h"

#include "share_rig.h"

#include "base/kept_link.h"
#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "share/ring.h" /* for the other side, which the test plays */
#include "share/serve.h"

#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>

struct keeper {
    int link[2]; /* 0: who uses the folder; 1: its process */
    struct share_host host;
};

static int give_link(void *opaque, const char *folder)
{
    struct keeper *k = opaque;

    return dup(k->link[0]);
}

/* ---- The test is the folder's process ---- */

struct fake {
    uint64_t hello; /* its number */
    int files[KEPT_FILES];
    struct share_ring *ring;
    struct kept_side requests, notes;
};

struct opening {
    struct share_rig *rig;
    pthread_t thread;
};

static void *open_there(void *opaque)
{
    struct opening *o = opaque;

    o->rig->share = rig_open(o->rig, ",isolate", NULL);
    return NULL;
}

static struct share_rig *make_with_fake(struct keeper *k, struct fake *f, uint64_t patience_ns)
{
    struct share_rig *rig = rig_make_folder();
    const struct kept_hello hello = kept_link_hello();
    struct opening o = {.rig = rig};
    void *memory;

    *f = (struct fake){.hello = hello.number};
    *k = (struct keeper){
        .host = {.isolate = give_link, .isolate_opaque = k, .patience_ns = patience_ns}};
    rig->host = &k->host;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, k->link), 0);
    assert_int_equal(thread_start(&o.thread, "opens", open_there, &o, NULL), 0);
    assert_int_equal(kept_link_send_hello(k->link[1], &hello), 0);
    assert_int_equal(kept_link_receive_files(k->link[1], hello.number, f->files, KEPT_FILES), 0);
    assert_int_equal(
        kept_memory_map(f->files[KEPT_MEMORY], sizeof(struct share_ring), &memory, NULL), 0);
    f->ring = memory;
    pthread_join(o.thread, NULL);
    assert_non_null(rig->share);
    return rig;
}

static void put(struct fake *f, const void *note, size_t size)
{
    if (share_ring_put(f->ring, &f->notes, note, size) > 0)
        kept_wake(f->files[KEPT_RESULT_EVENT]);
}

static void end_fake(struct keeper *k, struct fake *f, struct share_rig *rig)
{
    rig_free(rig);
    kept_memory_drop(sizeof(struct share_ring), f->files, f->ring);
    close(k->link[0]);
    close(k->link[1]);
}

struct bad_note {
    union {
        struct share_note note;
        struct share_note_node node;
        struct share_note_gone gone;
        struct share_note_done done;
        struct {
            struct share_note_result result;
            struct share_change change;
        };
    };
    char more[64];
};

/* Whatever it says, requests end, and nothing else happens. */
static void a_process_that_breaks_the_rules(void **state)
{
    static const struct share_key directory = {.type = S_IFDIR}, file = {.type = S_IFREG};
    const struct bad_note bad[] = {
        {.note = {.size = 0}},
        {.note = {.size = UINT32_MAX, .kind = NOTE_RESET}},
        {.note = {.size = 12, .kind = NOTE_RESET}},
        {.note = {.size = 8, .kind = 77}},
        {.note = {.size = 8, .kind = NOTE_NODE}},
        {.note = {.size = 8, .kind = NOTE_GONE}},
        {.note = {.size = 8, .kind = NOTE_LOST}},
        {.note = {.size = 8, .kind = NOTE_RESULT}},
        {.note = {.size = 8, .kind = NOTE_DONE}},
        {.done = {.note = {.size = 16, .kind = NOTE_DONE}}},
        {.gone = {.note = {.size = 16, .kind = NOTE_GONE}, .number = 1}},
        {.node = {.note = {.size = 72, .kind = NOTE_NODE}, .number = 1, .parent = 1, .length = 1}},
        {.node = {.note = {.size = 72, .kind = NOTE_NODE},
                  .number = 9,
                  .key = directory,
                  .parent = 1,
                  .length = 200}},
        {.node = {.note = {.size = 64, .kind = NOTE_NODE},
                  .number = UINT32_MAX,
                  .key = file,
                  .length = 0}},
        {.result = {.note = {.size = 16, .kind = NOTE_RESULT}, .number = 5}},
        {.result = {.note = {.size = 16, .kind = NOTE_RESULT}, .number = UINT32_MAX}},
        {.result = {.note = {.size = 16, .kind = NOTE_RESULT}, .result = 1 << 20}},
        {.result = {.note = {.size = 16, .kind = NOTE_RESULT}, .result = -EIO}},
        {.result = {.note = {.size = 24, .kind = NOTE_RESULT}}},
        {.result = {.note = {.size = 56, .kind = NOTE_RESULT}}, .change = {.kind = 77}},
        {.result = {.note = {.size = 56, .kind = NOTE_RESULT}},
         .change = {.kind = CHANGE_LOCKS, .count = 100}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct keeper k;
        struct fake f;
        struct share_rig *rig = make_with_fake(&k, &f, 0);
        struct fuse_attr attr;
        struct rig_request r;
        const struct fuse_getattr_in in = {.fh = 0};

        rig_begin(rig, &r, FUSE_GETATTR, 1, &in, sizeof(in), NULL, 0, &attr, sizeof(attr));
        put(&f, &bad[i], ALIGN_UP(MAX(MIN(bad[i].note.size, sizeof(bad[i])), 8), 8));
        assert_int_equal(rig_end(&r), -EIO);
        assert_int_equal(rig_getattr(rig, 1, &attr), -EIO);
        end_fake(&k, &f, rig);
    }
}

/* One that says that there are more notes than there is room for. */
static void an_index_that_jumps(void **state)
{
    struct keeper k;
    struct fake f;
    struct share_rig *rig = make_with_fake(&k, &f, 0);
    struct fuse_attr attr;

    atomic_store(&f.ring->notes.written, 5 * RING_NOTES);
    kept_wake(f.files[KEPT_RESULT_EVENT]);
    assert_int_equal(rig_getattr(rig, 1, &attr), -EIO);
    end_fake(&k, &f, rig);
}

struct teller {
    struct fake *fake;
    _Atomic bool stop;
    pthread_t thread;
};

/* Tells of nodes that come and go as long as it may. */
static void *tell(void *opaque)
{
    struct teller *t = opaque;
    const struct share_note_node node = {
        .note = {.size = sizeof(node), .kind = NOTE_NODE}, .number = 9, .key = {.type = S_IFREG}};
    const struct share_note_gone gone = {.note = {.size = sizeof(gone), .kind = NOTE_GONE},
                                         .number = 9};

    while (!atomic_load(&t->stop)) {
        put(t->fake, &node, sizeof(node));
        put(t->fake, &gone, sizeof(gone));
    }
    return NULL;
}

/* One that tells and tells, and answers nothing, is given up, and keeps nobody from the end. */
static void a_process_that_tells_without_end(void **state)
{
    struct keeper k;
    struct fake f;
    struct share_rig *rig = make_with_fake(&k, &f, 100 * NS_PER_MS);
    struct teller t = {.fake = &f};
    struct fuse_attr attr;

    assert_int_equal(thread_start(&t.thread, "tells", tell, &t, NULL), 0);
    assert_int_equal(rig_getattr(rig, 1, &attr), -EIO);
    atomic_store(&t.stop, true);
    pthread_join(t.thread, NULL);
    end_fake(&k, &f, rig);
    /* And while nobody waits for anything. */
    rig = make_with_fake(&k, &f, 0);
    t.stop = false;
    assert_int_equal(thread_start(&t.thread, "tells", tell, &t, NULL), 0);
    time_sleep_ns(NS_PER_MS);
    share_close(rig->share);
    rig->share = NULL;
    atomic_store(&t.stop, true);
    pthread_join(t.thread, NULL);
    end_fake(&k, &f, rig);
}

/* Takes an entry; waits for one. */
static struct share_ring_entry take_entry(struct fake *f)
{
    struct share_ring_entry entry;

    while (!share_ring_take(f->ring, &f->requests, &entry))
        time_sleep_ns(NS_PER_MS / 10);
    return entry;
}

static void say_done(struct fake *f, uint64_t kind)
{
    const struct share_note_done note = {.note = {.size = sizeof(note), .kind = NOTE_DONE},
                                         .kind = kind};

    put(f, &note, sizeof(note));
}

/* A guest that resets the device faster than the process can follow: the process gets a file for
 * each entry that says so, and requests come behind the last of them. */
static void more_resets_than_there_is_room_for(void **state)
{
    struct keeper k;
    struct fake f;
    struct share_rig *rig = make_with_fake(&k, &f, 0);
    const struct fuse_getattr_in in = {.fh = 0};
    struct share_note_result result = {.note = {.size = sizeof(result), .kind = NOTE_RESULT}};
    struct share_ring_entry entry;
    struct fuse_attr attr;
    struct rig_request r;
    uint16_t before = 0;
    unsigned loads = 0;
    char byte;
    int fd;

    for (unsigned i = 0; i < 2 * RING_CONTROLS_MOST; i++)
        share_reset(rig->share);
    rig_begin(rig, &r, FUSE_GETATTR, 1, &in, sizeof(in), NULL, 0, &attr, sizeof(attr));
    while ((entry = take_entry(&f)).kind != RING_REQUEST) {
        if (entry.kind == RING_LOAD) {
            assert_int_equal(kept_link_receive_files(k.link[1], f.hello, &fd, 1), 0);
            close(fd);
            loads++;
        }
        say_done(&f, entry.kind);
        before = entry.kind == RING_PING ? before : entry.kind;
    }
    assert_true(loads > RING_CONTROLS_MOST / 2 - 3 && loads <= 2 * RING_CONTROLS_MOST);
    assert_int_equal(before, RING_OPEN);
    assert_int_equal(recv(k.link[1], &byte, 1, MSG_DONTWAIT), -1);
    result.number = entry.number;
    result.result = -EPROTO;
    put(&f, &result, sizeof(result));
    assert_int_equal(rig_end(&r), -EPROTO);
    end_fake(&k, &f, rig);
}

/* Nobody has the other end any more. */
static void a_process_that_is_gone(void **state)
{
    struct keeper k;
    struct fake f;
    struct share_rig *rig = make_with_fake(&k, &f, 0);
    struct fuse_attr attr;

    close(k.link[1]);
    k.link[1] = dup(0);
    assert_int_equal(rig_getattr(rig, 1, &attr), -EIO);
    end_fake(&k, &f, rig);
}

/* ---- The test is who uses the folder ---- */

struct server {
    struct keeper k;
    struct share_rig *rig;
    struct share_options options;
    struct fake f; /* what this side knows */
    pthread_t thread;
    int status;
};

static void *serve_here(void *opaque)
{
    struct server *s = opaque;

    s->status = share_serve(s->k.link[1], &s->options, NULL, NULL);
    shutdown(s->k.link[1], SHUT_RDWR);
    return NULL;
}

static struct server *start_server(void)
{
    struct server *s = calloc(1, sizeof(*s));
    struct kept_hello hello;
    struct error err;
    void *memory;
    pid_t sender;

    s->rig = rig_make_folder();
    assert_int_equal(share_options_parse(s->rig->folder, &s->options, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s->k.link), 0);
    assert_int_equal(thread_start(&s->thread, "serves", serve_here, s, NULL), 0);
    assert_int_equal(kept_link_await_hello(s->k.link[0], UINT64_MAX / 2, &hello, &sender, &err), 0);
    s->f.hello = hello.number;
    for (unsigned i = 0; i < KEPT_FILES; i++)
        s->f.files[i] = -1;
    assert_int_equal(kept_memory_make(sizeof(struct share_ring), s->f.files, &memory, NULL), 0);
    s->f.ring = memory;
    assert_int_equal(kept_link_send_files(s->k.link[0], hello.number, s->f.files, KEPT_FILES), 0);
    return s;
}

/* Nobody is there to be served any more. Returns how that ended. */
static int end_server(struct server *s)
{
    int status;

    shutdown(s->k.link[0], SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->k.link[0]);
    close(s->k.link[1]);
    kept_memory_drop(sizeof(struct share_ring), s->f.files, s->f.ring);
    share_options_free(&s->options);
    rig_free(s->rig);
    status = s->status;
    free(s);
    return status;
}

static void send_entry(struct server *s, const struct share_ring_entry *entry)
{
    if (share_ring_send(s->f.ring, &s->f.requests, entry))
        kept_wake(s->f.files[KEPT_REQUEST_EVENT]);
}

static void send_control(struct server *s, enum share_ring_kind kind)
{
    send_entry(s, &(struct share_ring_entry){.kind = (uint16_t)kind});
}

/* Sends request NUMBER: ARGUMENT, and TEXT behind it. */
static void send_request(struct server *s, uint32_t number, uint32_t opcode, uint64_t node,
                         const void *argument, size_t size, const char *text)
{
    uint8_t(*small)[RING_SMALL] = s->f.ring->small[number];
    size_t length = text ? strlen(text) + 1 : 0;
    const struct fuse_in_header header = {.len = (uint32_t)(sizeof(header) + size + length),
                                          .opcode = opcode,
                                          .unique = number,
                                          .nodeid = node};
    const uint64_t in = offsetof(struct share_ring, small) + (uint64_t)number * 2 * RING_SMALL;

    memcpy(small[0], &header, sizeof(header));
    memcpy(small[0] + sizeof(header), argument, size);
    memcpy(small[0] + sizeof(header) + size, text ? text : "", length);
    send_entry(s, &(struct share_ring_entry){.number = number,
                                             .in_size = header.len,
                                             .out_size = RING_SMALL,
                                             .in = in,
                                             .out = in + RING_SMALL});
}

/* Takes notes up to the next result. Returns the answer's error, or what is answered. */
static const void *await_result(struct server *s, int *error)
{
    static _Alignas(8) uint8_t room[NOTE_MOST];
    struct share_note *note = (struct share_note *)room;
    const struct share_note_result *result = (const void *)room;
    const struct fuse_out_header *header;
    int ret;

    do {
        ret = share_ring_note(s->f.ring, &s->f.notes, note);
        assert_true(ret >= 0);
        if (ret == 0)
            time_sleep_ns(NS_PER_MS / 10);
    } while (ret == 0 || note->kind != NOTE_RESULT);
    header = (const void *)s->f.ring->small[result->number][1];
    *error = header->error;
    return header + 1;
}

static const void *call(struct server *s, uint32_t opcode, uint64_t node, const void *argument,
                        size_t size, const char *text)
{
    const void *answer;
    int error;

    send_request(s, 1, opcode, node, argument, size, text);
    answer = await_result(s, &error);
    assert_int_equal(error, 0);
    return answer;
}

static void begin_session(struct server *s)
{
    const struct fuse_init_in init = {.major = 7, .minor = 38};

    call(s, FUSE_INIT, 0, &init, sizeof(init), NULL);
}

/* A request waits for a lock without end, and nobody wants an answer any more: no matter what else
 * is asked for, the process ends. What comes with that is not loaded while requests are under way.
 */
static void what_waits_for_requests_ends(void **state)
{
    for (enum share_ring_kind kind = RING_RECALL; kind < RING_KINDS; kind++) {
        struct server *s = start_server();
        const struct fuse_create_in create = {.flags = O_RDWR, .mode = S_IFREG | 0600};
        struct fuse_lk_in lock = {.lk = {.end = INT64_MAX, .type = F_WRLCK},
                                  .lk_flags = FUSE_LK_FLOCK};
        const struct rig_created *made;
        char path[256];
        int host;

        begin_session(s);
        made = call(s, FUSE_CREATE, 1, &create, sizeof(create), "a");
        lock.fh = made->open.fh;
        host = open(rig_path(s->rig, "a", path), O_RDONLY | O_CLOEXEC);
        assert_int_equal(flock(host, LOCK_EX), 0);
        send_request(s, 2, FUSE_SETLKW, made->entry.nodeid, &lock, sizeof(lock), NULL);
        if (kind == RING_LOAD)
            assert_int_equal(kept_link_send_files(s->k.link[0], s->f.hello, &host, 1), 0);
        send_control(s, kind);
        time_sleep_ns(NS_PER_MS);
        assert_int_equal(end_server(s), 0);
        close(host);
    }
}

/* What the guest is to know comes as something that would be waited for without end. */
static void a_file_that_is_none(void **state)
{
    struct server *s = start_server();
    struct pollfd pfd = {s->k.link[0], POLLIN, 0};
    int ends[2];

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(kept_link_send_files(s->k.link[0], s->f.hello, &ends[0], 1), 0);
    send_control(s, RING_LOAD);
    while (poll(&pfd, 1, -1) < 0)
        ;
    assert_int_equal(end_server(s), -EPROTO);
    close(ends[0]);
    close(ends[1]);
}

/* While one thread waits for room for a note, the other one is told of an entry: that is not lost.
 */
static void an_entry_while_a_note_waits(void **state)
{
    struct server *s = start_server();
    const struct fuse_getattr_in in = {.fh = 0};
    uint64_t room[8];
    struct share_note *note = (struct share_note *)room;

    begin_session(s);
    for (unsigned round = 0; round < 100; round++) {
        /* As if more had been taken than there was: then there is room for nothing. */
        atomic_store(&s->f.ring->notes_taken, s->f.notes.read + 1);
        send_request(s, 2, FUSE_GETATTR, 1, &in, sizeof(in), NULL);
        time_sleep_ns(NS_PER_MS);
        send_control(s, RING_PING);
        time_sleep_ns(NS_PER_MS);
        atomic_store(&s->f.ring->notes_taken, s->f.notes.read);
        for (unsigned notes = 0; notes < 2;) {
            int ret = share_ring_note(s->f.ring, &s->f.notes, note);

            assert_true(ret >= 0);
            notes += (unsigned)ret;
            if (!ret)
                time_sleep_ns(NS_PER_MS / 10);
        }
    }
    assert_int_equal(end_server(s), 0);
}

static void entries_are_checked(void **state)
{
    const uint64_t small = offsetof(struct share_ring, small);
    struct share_ring_entry e = {.in = small, .in_size = 40, .out = small + 512, .out_size = 512};

    assert_true(share_ring_check(&e));
    e.in_size = (uint32_t)RING_PART_MOST;
    assert_true(share_ring_check(&e));
    e.in_size++;
    assert_false(share_ring_check(&e));
    e.in_size = 40;
    e.in = small - 8;
    assert_false(share_ring_check(&e));
    e.in = sizeof(struct share_ring) - 40;
    assert_true(share_ring_check(&e));
    e.in += 8;
    assert_false(share_ring_check(&e));
    e.in = UINT64_MAX - 7;
    assert_false(share_ring_check(&e));
    e.in = small;
    e.out = sizeof(struct share_ring);
    assert_false(share_ring_check(&e));
    e.out_size = 0;
    assert_true(share_ring_check(&e));
    e.number = RING_REQUESTS;
    assert_false(share_ring_check(&e));
    e.kind = RING_PING;
    assert_true(share_ring_check(&e));
    e.kind = RING_KINDS;
    assert_false(share_ring_check(&e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_that_breaks_the_rules),
        cmocka_unit_test(an_index_that_jumps),
        cmocka_unit_test(a_process_that_tells_without_end),
        cmocka_unit_test(more_resets_than_there_is_room_for),
        cmocka_unit_test(a_process_that_is_gone),
        cmocka_unit_test(what_waits_for_requests_ends),
        cmocka_unit_test(a_file_that_is_none),
        cmocka_unit_test(an_entry_while_a_note_waits),
        cmocka_unit_test(entries_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
