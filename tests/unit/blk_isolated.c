/*
 * A disk in a process of its own: here that process is a thread that ends and is started anew, or
 * the test itself, which breaks the rules.
 */
#include "test.h"

#include "base/event.h"
#include "base/kept_link.h"
#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "blk/blk.h"
#include "blk/isolated/isolated.h"
#include "blk/isolated/ring.h"
#include "blk/options.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK (8 * MiB)

struct rig {
    char path[64];
    int link[2]; /* 0: who uses the disk; 1: its process */
    struct blk_options options;
    pthread_t thread;
    uint64_t patience; /* 0: as long as usual */
    int served;        /* what isolated_serve has returned */
    struct error error;
};

static int give_link(void *opaque, const char *file)
{
    struct rig *r = opaque;

    assert_string_equal(file, r->path);
    return dup(r->link[0]);
}

static void *serve(void *opaque)
{
    struct rig *r = opaque;

    r->served = isolated_serve(r->link[1], &r->options, NULL, &r->error);
    return NULL;
}

static void start(struct rig *r)
{
    assert_int_equal(thread_start(&r->thread, "disk", serve, r, NULL), 0);
}

static struct rig *begin(const char *settings)
{
    struct rig *r = calloc(1, sizeof(*r));
    char text[128];
    int fd;

    snprintf(r->path, sizeof(r->path), P_tmpdir "/doppel-isolated-XXXXXX");
    fd = mkstemp(r->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK), 0);
    close(fd);
    snprintf(text, sizeof(text), "%s,isolate%s", r->path, settings);
    assert_int_equal(blk_options_parse(text, &r->options, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, r->link), 0);
    return r;
}

static struct blk *open_disk(struct rig *r, struct error *err)
{
    const struct blk_host host = {
        .isolate = give_link, .isolate_opaque = r, .patience_ns = r->patience};
    static struct blk_host kept;

    kept = host;
    return blk_open(&r->options, &kept, err);
}

static void end(struct rig *r)
{
    close(r->link[0]);
    close(r->link[1]);
    unlink(r->path);
    blk_options_free(&r->options);
    free(r);
}

/* ---- The other end is our own ---- */

static void reads_and_writes(void **state)
{
    struct rig *r = begin(",serial=x");
    uint8_t *data = malloc(3 * MiB), *back = malloc(3 * MiB);
    struct blk_info info;
    struct blk *blk;

    start(r);
    blk = open_disk(r, NULL);
    assert_non_null(blk);
    info = blk_info(blk);
    assert_int_equal(info.size, DISK);
    assert_string_equal(info.format, "raw");
    for (unsigned i = 0; i < 3 * MiB; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 12));
    for (unsigned round = 0; round < 20; round++) {
        uint64_t size = (round * 160 * KiB) + 512, offset = round * 512;

        assert_int_equal(blk_write(blk, offset, data, size), 0);
        assert_int_equal(blk_read(blk, offset, back, size), 0);
        assert_memory_equal(data, back, size);
    }
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_zeroes(blk, 0, 4096, true), 0);
    assert_int_equal(blk_discard(blk, 4096, 4096), 0);
    assert_int_equal(blk_read(blk, 0, back, 4096), 0);
    memset(data, 0, 4096);
    assert_memory_equal(data, back, 4096);
    assert_int_equal(blk_read(blk, DISK, back, 512), -EIO);
    blk_close(blk);
    close(r->link[0]);
    pthread_join(r->thread, NULL);
    assert_int_equal(r->served, 0);
    r->link[0] = dup(0);
    free(data);
    free(back);
    end(r);
}

/* What is wrong with the disk its user hears, in one line. */
static void cannot_be_opened(void **state)
{
    struct rig *r = begin("");
    struct error err = {0};

    unlink(r->path);
    start(r);
    assert_null(open_disk(r, &err));
    pthread_join(r->thread, NULL);
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.text, r->path));
    assert_int_equal(r->served, -ENOENT);
    /* Nobody starts a process. */
    assert_null(blk_open(&r->options, NULL, &err));
    assert_non_null(strstr(err.text, "no supervisor can start a process"));
    end(r);

    r = begin(",snapshot");
    assert_null(open_disk(r, &err));
    assert_non_null(strstr(err.text, "snapshot"));
    end(r);
}

/* ---- The test is the other end ---- */

/* A process that does what the test says. */
struct fake {
    int files[KEPT_FILES];
    struct isolated_memory *memory;
    struct kept_side requests, results;
};

static struct kept_hello hello_of(uint64_t number, uint64_t size)
{
    const struct isolated_about about = {.size = size, .block = 512, .optimal = 4096};
    struct kept_hello hello = {.version = KEPT_LINK_VERSION, .number = number};

    memcpy(hello.about, &about, sizeof(about));
    return hello;
}

static struct kept_hello hello(uint64_t number)
{
    return hello_of(number, DISK);
}

struct opening {
    struct rig *rig;
    struct blk *blk;
    pthread_t thread;
};

static void *open_there(void *opaque)
{
    struct opening *o = opaque;

    o->blk = open_disk(o->rig, NULL);
    return NULL;
}

static void connect_fake(struct rig *r, struct fake *f, uint64_t number)
{
    *f = (struct fake){.memory = NULL};
    assert_int_equal(kept_link_receive_files(r->link[1], number, f->files, KEPT_FILES), 0);
    f->memory =
        mmap(NULL, ISOLATED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->files[KEPT_MEMORY], 0);
    assert_ptr_not_equal(f->memory, MAP_FAILED);
    /* The memory stays as long as it is. */
    assert_int_equal(ftruncate(f->files[KEPT_MEMORY], 4096), -1);
}

static void drop_fake(struct fake *f)
{
    munmap(f->memory, ISOLATED_BYTES);
    for (unsigned i = 0; i < KEPT_FILES; i++)
        close(f->files[i]);
}

static struct blk *open_with_fake(struct rig *r, struct fake *f)
{
    const struct kept_hello first = hello(1);
    struct opening o = {.rig = r};

    assert_int_equal(thread_start(&o.thread, "opens", open_there, &o, NULL), 0);
    assert_int_equal(kept_link_send_hello(r->link[1], &first), 0);
    connect_fake(r, f, 1);
    pthread_join(o.thread, NULL);
    assert_non_null(o.blk);
    return o.blk;
}

static struct isolated_request next(struct fake *f)
{
    uint64_t until = time_now_ns() + 60 * NS_PER_S;
    struct isolated_request request = {.number = UINT32_MAX};

    while (!isolated_take(f->memory, &f->requests, &request)) {
        assert_true(time_now_ns() < until);
        time_sleep_ns(NS_PER_MS / 4);
    }
    assert_true(isolated_check(&request));
    return request;
}

static bool is_idle(struct fake *f)
{
    struct isolated_request request;

    time_sleep_ns(2 * NS_PER_MS);
    return !isolated_take(f->memory, &f->requests, &request);
}

static void give(struct fake *f, uint32_t number, int result)
{
    const struct isolated_result entry = {.number = number, .result = result};
    uint64_t one = 1;

    if (isolated_answer(f->memory, &f->results, &entry))
        assert_int_equal(write(f->files[KEPT_RESULT_EVENT], &one, sizeof(one)), sizeof(one));
}

struct user_request {
    struct blk_request request;
    struct iovec iov;
    uint8_t data[8192];
    _Atomic int result; /* 1: not done yet */
};

static void done(struct blk_request *request, int result)
{
    atomic_store(&container_of(request, struct user_request, request)->result, result);
}

static struct user_request *submit(struct blk *blk, enum blk_kind kind, uint64_t offset,
                                   uint64_t size, uint8_t fill)
{
    struct user_request *u = calloc(1, sizeof(*u));

    memset(u->data, fill, sizeof(u->data));
    u->iov = (struct iovec){u->data, size};
    u->request = (struct blk_request){
        .kind = kind, .offset = offset, .size = size, .iov = &u->iov, .iovs = 1, .done = done};
    atomic_store(&u->result, 1);
    blk_submit(blk, &u->request);
    blk_kick(blk);
    return u;
}

static int result_of(struct user_request *u)
{
    uint64_t until = time_now_ns() + 60 * NS_PER_S;
    int result;

    while ((result = atomic_load(&u->result)) == 1) {
        assert_true(time_now_ns() < until);
        time_sleep_ns(NS_PER_MS / 4);
    }
    free(u);
    return result;
}

/* Changes that overlap are one after the other, whatever comes between. */
static void overlapping_changes(void **state)
{
    struct rig *r = begin("");
    struct fake f;
    struct blk *blk = open_with_fake(r, &f);
    struct user_request *a = submit(blk, BLK_WRITE, 0, 8192, 1);
    struct user_request *b = submit(blk, BLK_WRITE, 4096, 512, 2);
    struct isolated_request first = next(&f), second;

    assert_int_equal(*(uint8_t *)isolated_data(f.memory, first.page), 1);
    assert_true(is_idle(&f));
    give(&f, first.number, 0);
    assert_int_equal(result_of(a), 0);
    second = next(&f);
    assert_int_equal(*(uint8_t *)isolated_data(f.memory, second.page), 2);
    give(&f, second.number, -ENOSPC);
    assert_int_equal(result_of(b), -ENOSPC);
    blk_close(blk);
    drop_fake(&f);
    end(r);
}

/* The process dies with a write, a read and a flush in flight, of which one is answered. */
static void dies(void **state)
{
    struct rig *r = begin("");
    struct fake f;
    struct blk *blk = open_with_fake(r, &f);
    struct user_request *w = submit(blk, BLK_WRITE, 0, 4096, 3);
    struct user_request *rd = submit(blk, BLK_READ, 8192, 4096, 0);
    struct user_request *fl = submit(blk, BLK_FLUSH, 0, 0, 0), *late;
    struct kept_hello again = hello(2);
    unsigned seen = 0;

    for (unsigned i = 0; i < 3; i++) {
        struct isolated_request q = next(&f);

        if (q.kind == BLK_READ)
            give(&f, q.number, 0);
    }
    assert_int_equal(result_of(rd), 0);
    drop_fake(&f);
    late = submit(blk, BLK_WRITE, 16384, 512, 4);
    assert_int_equal(kept_link_send_hello(r->link[1], &again), 0);
    connect_fake(r, &f, 2);
    for (unsigned i = 0; i < 3; i++) {
        struct isolated_request q = next(&f);

        seen |= 1u << (q.kind == BLK_FLUSH ? 0 : q.offset ? 2 : 1);
        if (q.kind == BLK_WRITE)
            assert_int_equal(*(uint8_t *)isolated_data(f.memory, q.page), q.offset ? 4 : 3);
        give(&f, q.number, 0);
    }
    assert_int_equal(seen, 7);
    assert_true(is_idle(&f));
    assert_int_equal(result_of(w), 0);
    assert_int_equal(result_of(fl), 0);
    assert_int_equal(result_of(late), 0);
    drop_fake(&f);

    /* Another disk is not taken for this one. */
    w = submit(blk, BLK_WRITE, 0, 4096, 3);
    again = hello_of(3, 2 * DISK);
    assert_int_equal(kept_link_send_hello(r->link[1], &again), 0);
    assert_int_equal(result_of(w), -EIO);
    assert_int_equal(blk_flush(blk), -EIO);
    blk_close(blk);
    end(r);
}

/* A process that answers what it was not asked. */
static void breaks_the_rules(void **state)
{
    static const uint32_t numbers[] = {5, ISOLATED_REQUESTS, UINT32_MAX};

    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct rig *r = begin("");
        struct fake f;
        struct blk *blk = open_with_fake(r, &f);
        struct user_request *w = submit(blk, BLK_WRITE, 0, 4096, 3);

        next(&f);
        give(&f, numbers[i], 0);
        assert_int_equal(result_of(w), -EIO);
        assert_int_equal(blk_flush(blk), -EIO);
        blk_close(blk);
        drop_fake(&f);
        end(r);
    }
}

/* The process has the event files block, of which one is full: no thread waits for it. */
static void events_block(void **state)
{
    struct rig *r = begin("");
    struct fake f;
    struct blk *blk = open_with_fake(r, &f);
    const uint64_t full = UINT64_MAX - 1;

    for (unsigned i = 0; i < 3; i++) {
        struct user_request *w;

        event_clear(f.files[KEPT_REQUEST_EVENT]);
        assert_int_equal(fcntl(f.files[KEPT_REQUEST_EVENT], F_SETFL, 0), 0);
        assert_int_equal(fcntl(f.files[KEPT_RESULT_EVENT], F_SETFL, 0), 0);
        assert_int_equal(write(f.files[KEPT_REQUEST_EVENT], &full, sizeof(full)), sizeof(full));
        assert_true(kept_index_sleeps(&f.memory->requests, f.requests.read));
        w = submit(blk, BLK_WRITE, 0, 4096, 3);
        give(&f, next(&f).number, 0);
        assert_int_equal(result_of(w), 0);
    }
    blk_close(blk);
    drop_fake(&f);
    end(r);
}

/* Nobody has the other end any more. */
static void is_gone(void **state)
{
    struct rig *r = begin("");
    struct fake f;
    struct blk *blk = open_with_fake(r, &f);
    struct user_request *w = submit(blk, BLK_WRITE, 0, 4096, 3);

    next(&f);
    close(r->link[1]);
    assert_int_equal(result_of(w), -EIO);
    blk_close(blk);
    drop_fake(&f);
    r->link[1] = dup(0);
    end(r);
}

/* More than the memory has room for, by many requests at once. */
static void crowd(void **state)
{
    struct rig *r = begin("");
    struct user_request *u[600];
    struct blk *blk;

    start(r);
    blk = open_disk(r, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
        u[i] = submit(blk, i % 3 ? BLK_READ : BLK_WRITE, i % 100 * 8192, 8192, (uint8_t)i);
    for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
        assert_int_equal(result_of(u[i]), 0);
    blk_close(blk);
    close(r->link[0]);
    pthread_join(r->thread, NULL);
    r->link[0] = dup(0);
    end(r);
}

static void checks(void **state)
{
    struct isolated_request q = {.kind = BLK_WRITE, .size = ISOLATED_DATA_MOST};

    assert_true(isolated_check(&q));
    q.page = ISOLATED_PAGES - ISOLATED_DATA_MOST / ISOLATED_PAGE;
    assert_true(isolated_check(&q));
    q.page++;
    assert_false(isolated_check(&q));
    q.page = UINT32_MAX;
    assert_false(isolated_check(&q));
    q.page = 0;
    q.size++;
    assert_false(isolated_check(&q));
    q.size = UINT64_MAX;
    assert_false(isolated_check(&q));
    q.kind = BLK_ZEROES; /* its range is the disk's business */
    assert_true(isolated_check(&q));
    q.kind = BLK_ZEROES + 1;
    assert_false(isolated_check(&q));
    q.kind = BLK_FLUSH;
    q.number = ISOLATED_REQUESTS;
    assert_false(isolated_check(&q));
}

/* A process that answers one request and then stops. */
static void answer_and_stop(struct rig *r)
{
    const struct kept_hello first = hello(1);
    struct isolated_request request;
    struct fake f = {.memory = NULL};

    if (kept_link_send_hello(r->link[1], &first) < 0 ||
        kept_link_receive_files(r->link[1], 1, f.files, KEPT_FILES) < 0)
        _exit(1);
    f.memory =
        mmap(NULL, ISOLATED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f.files[KEPT_MEMORY], 0);
    while (!isolated_take(f.memory, &f.requests, &request))
        time_sleep_ns(NS_PER_MS);
    give(&f, request.number, 0);
    raise(SIGSTOP);
    _exit(0);
}

/* A process that lives and does not answer is killed, and the next one does what it has not. */
static void stops(void **state)
{
    struct rig *r = begin("");
    struct kept_hello again = hello(2);
    struct user_request *w;
    struct fake f;
    struct blk *blk;
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        answer_and_stop(r);
    r->patience = 3 * NS_PER_S;
    blk = open_disk(r, NULL);
    assert_non_null(blk);
    assert_int_equal(result_of(submit(blk, BLK_WRITE, 0, 4096, 1)), 0);
    w = submit(blk, BLK_WRITE, 0, 4096, 2);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(kept_link_send_hello(r->link[1], &again), 0);
    connect_fake(r, &f, 2);
    give(&f, next(&f).number, 0);
    assert_int_equal(result_of(w), 0);
    blk_close(blk);
    drop_fake(&f);
    end(r);
}

/* Nobody can kill it, and there is no other one: its requests fail. */
static void never_answers(void **state)
{
    struct rig *r = begin("");
    struct user_request *w;
    struct fake f;
    struct blk *blk;

    r->patience = NS_PER_S / 4;
    blk = open_with_fake(r, &f);
    w = submit(blk, BLK_WRITE, 0, 4096, 1);
    assert_int_equal(result_of(w), -EIO);
    assert_int_equal(blk_flush(blk), -EIO);
    blk_close(blk);
    drop_fake(&f);
    end(r);
}

/* ---- The socket ---- */

static void send_files(int link, uint64_t number, const int *files, unsigned count)
{
    struct kept_start start = {.version = KEPT_LINK_VERSION, .number = number};
    struct iovec iov = {&start, sizeof(start)};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * 8)];
    } control = {.space = {0}};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), files, sizeof(int) * count);
    assert_int_equal(sendmsg(link, &msg, 0), sizeof(start));
}

/* A start with the wrong number of files is dropped, and its files are closed. */
static void too_many_files(void **state)
{
    int link[2], ends[2], sent[8], got[8];
    char byte;

    for (unsigned count = KEPT_FILES - 1; count <= ARRAY_SIZE(sent); count++) {
        if (count == KEPT_FILES)
            continue;
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link), 0);
        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        for (unsigned i = 0; i < ARRAY_SIZE(sent); i++) {
            sent[i] = ends[1];
            got[i] = -1;
        }
        send_files(link[0], 1, sent, count);
        close(ends[1]);
        for (unsigned i = 0; i < ARRAY_SIZE(sent); i++)
            sent[i] = ends[0];
        send_files(link[0], 1, sent, KEPT_FILES);
        assert_int_equal(kept_link_receive_files(link[1], 1, got, KEPT_FILES), 0);
        for (unsigned i = KEPT_FILES; i < ARRAY_SIZE(got); i++)
            assert_int_equal(got[i], -1);
        assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody has the end to write to */
        for (unsigned i = 0; i < KEPT_FILES; i++)
            close(got[i]);
        close(ends[0]);
        close(link[0]);
        close(link[1]);
    }
}

/* What a limit holds back is on the user's side, and can be taken back. */
static void limited(void **state)
{
    struct rig *r = begin(",bps=1");
    struct user_request *u;
    struct blk *blk;

    start(r);
    blk = open_disk(r, NULL);
    assert_non_null(blk);
    assert_int_equal(result_of(submit(blk, BLK_READ, 0, 512, 0)), 0);
    u = submit(blk, BLK_READ, 0, 512, 0);
    blk_recall(blk);
    assert_int_equal(result_of(u), -ECANCELED);
    blk_close(blk);
    close(r->link[0]);
    pthread_join(r->thread, NULL);
    r->link[0] = dup(0);
    end(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_writes),
        cmocka_unit_test(cannot_be_opened),
        cmocka_unit_test(overlapping_changes),
        cmocka_unit_test(dies),
        cmocka_unit_test(breaks_the_rules),
        cmocka_unit_test(events_block),
        cmocka_unit_test(is_gone),
        cmocka_unit_test(crowd),
        cmocka_unit_test(limited),
        cmocka_unit_test(checks),
        cmocka_unit_test(too_many_files),
        cmocka_unit_test(stops),
        cmocka_unit_test(never_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
