/*
 * The virtio socket device: connections from both sides, bytes and credit, half closes and resets,
 * many connections, what is saved, and drivers and clients that break rules. The test is the
 * guest's driver and the host's programs; workers and the loop run when it says so.
 */
#include "test.h"

#include "dev/virtio/vsock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "descriptors.h"
#include "virtio_queues.h"
#include "vsock_packet.h"

#define RECEIVED  0x100000u /* what the device writes */
#define SENT      0x180000u /* what it reads: less than 512 KiB */
#define VRIG_CONF 0x2000
#define CID       77u
#define FEATURES  (VRIG_FEATURES | 1)

enum { RECEIVE, SEND, EVENT, QUEUES };
enum { NO_RECEIVE = 1, NO_SEND = 2, NEITHER = 3 };

struct fixture {
    struct qrig q;
    uint8_t payload[0x20000]; /* of the packet that was taken last */
    uint32_t room;            /* of the chains that are given to receive, with the header */
};

static char folder[] = P_tmpdir "/virtio-vsock-XXXXXX";
static char path[64];
static _Atomic unsigned told; /* how often the log was, of too few descriptors */

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    static struct log log;
    const struct virtio_vsock_config config = {.cid = CID, .path = path, .log = &log};

    log = descriptors_log(&told);
    return virtio_vsock_create(slot, &config, err);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->q.queues = QUEUES;
    f->q.v = vrig_create(create, NULL, 1);
    f->room = 44 + 4096;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    vrig_destroy(f->q.v);
    assert_int_equal(access(path, F_OK), -1);
    free(f);
    return 0;
}

/* ---- The driver ---- */

static void run(struct fixture *f)
{
    qrig_run(&f->q);
}

static void start(struct fixture *f)
{
    qrig_start(&f->q, FEATURES);
}

/* The driver has one chain for packets in the queue at all times. */
static void give_room(struct fixture *f)
{
    qrig_give(&f->q, RECEIVE, RECEIVED, f->room, RIG_WRITE);
}

/* Takes the packet that the device has written. False: there is none. */
static bool take(struct fixture *f, struct packet *p)
{
    uint32_t head, size;

    run(f);
    if (f->q.queue[RECEIVE].available == f->q.queue[RECEIVE].used)
        give_room(f);
    if (!rig_reap(&f->q.queue[RECEIVE], &head, &size))
        return false;
    assert_int_equal(mem_read(f->q.v->mem, RECEIVED, p, sizeof(*p)), 0);
    assert_int_equal(size, sizeof(*p) + p->len);
    assert_int_equal(mem_read(f->q.v->mem, RECEIVED + sizeof(*p), f->payload, p->len), 0);
    assert_true(p->len == 0 || p->op == RW);
    assert_int_equal(p->dst_cid, CID);
    return true;
}

static void assert_silent(struct fixture *f)
{
    struct packet p;

    assert_false(take(f, &p));
}

static struct packet expect(struct fixture *f, uint16_t op)
{
    struct packet p;

    assert_true(take(f, &p));
    assert_int_equal(p.op, op);
    return p;
}

/* Puts a packet of LEN bytes into the queue; DATA are the first SIZE of them. */
static bool post(struct fixture *f, struct packet p, const void *data, uint32_t size)
{
    uint32_t head, written;

    assert_int_equal(mem_write(f->q.v->mem, SENT, &p, sizeof(p)), 0);
    assert_int_equal(mem_write(f->q.v->mem, SENT + sizeof(p), data, size), 0);
    qrig_give(&f->q, SEND, SENT, sizeof(p) + size, 0);
    return rig_reap(&f->q.queue[SEND], &head, &written) && written == 0;
}

/* A connection as the guest sees it. */
struct end {
    uint32_t guest, host;      /* ports */
    uint32_t window, received; /* the guest's: RECEIVED bytes have been taken by its program */
};

static struct packet packet(const struct end *e, uint16_t op)
{
    return (struct packet){.src_cid = CID,
                           .dst_cid = 2,
                           .src_port = e->guest,
                           .dst_port = e->host,
                           .type = 1,
                           .op = op,
                           .buf_alloc = e->window,
                           .fwd_cnt = e->received};
}

static void say(struct fixture *f, const struct end *e, uint16_t op)
{
    assert_true(post(f, packet(e, op), "", 0));
}

static void say_shutdown(struct fixture *f, const struct end *e, uint32_t flags)
{
    struct packet p = packet(e, SHUTDOWN);

    p.flags = flags;
    assert_true(post(f, p, "", 0));
}

static void send_bytes(struct fixture *f, const struct end *e, const void *data, uint32_t size)
{
    struct packet p = packet(e, RW);

    p.len = size;
    assert_true(post(f, p, data, size));
}

/* ---- The host's programs ---- */

static int socket_at(const char *where, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, where);
    if (listens) {
        unlink(where);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 5), 0);
    } else {
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    }
    return fd;
}

static int listen_for(uint32_t port)
{
    char where[96];

    snprintf(where, sizeof(where), "%s_%u", path, port);
    return socket_at(where, true);
}

static void forget_listener(int fd, uint32_t port)
{
    char where[96];

    snprintf(where, sizeof(where), "%s_%u", path, port);
    unlink(where);
    close(fd);
}

static void write_all(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Whether the socket's other end is closed, and nothing more is to be read. */
static bool at_end(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN);
}

static void assert_reads(int fd, const char *text)
{
    char bytes[256];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    assert_int_equal(n, strlen(text));
    assert_memory_equal(bytes, text, (size_t)n);
}

/* A client that is connected to the guest's PORT. */
static int client(struct fixture *f, uint32_t port, struct end *e)
{
    char line[32];
    int fd = socket_at(path, false);
    struct packet p;

    snprintf(line, sizeof(line), "CONNECT %u\n", port);
    write_all(fd, line);
    p = expect(f, REQUEST);
    assert_int_equal(p.src_cid, 2);
    assert_int_equal(p.dst_port, port);
    assert_int_equal(p.type, 1);
    assert_true(p.buf_alloc >= 65536);
    *e = (struct end){.guest = port, .host = p.src_port, .window = 0x10000};
    say(f, e, RESPONSE);
    snprintf(line, sizeof(line), "OK %u\n", p.src_port);
    assert_reads(fd, line);
    return fd;
}

/* A connection of the guest's to the host's PORT. */
static int guest_connects(struct fixture *f, uint32_t port, struct end *e)
{
    int listener = listen_for(port), fd;

    *e = (struct end){.guest = 0xC0000000 + port, .host = port, .window = 0x10000};
    say(f, e, REQUEST);
    expect(f, RESPONSE);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    forget_listener(listener, port);
    return fd;
}

/* ---- Tests ---- */

static void test_configuration(void **state)
{
    struct fixture *f = *state;
    struct stat status;

    assert_int_equal(vrig_config(f->q.v, 0, 4), 0x10531AF4);
    assert_int_equal(vrig_config(f->q.v, PCI_REVISION, 4) >> 8, 0x078000);
    vrig_enable(f->q.v);
    assert_int_equal(vrig_read(f->q.v, VRIG_CONF, 4), CID);
    assert_int_equal(vrig_read(f->q.v, VRIG_CONF + 4, 4), 0);
    assert_int_equal(vrig_read(f->q.v, VRIG_QUEUES, 2), QUEUES);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_from_host(void **state)
{
    struct fixture *f = *state;
    struct end e;
    struct packet p;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    assert_silent(f);
    write_all(fd, "hello");
    p = expect(f, RW);
    assert_int_equal(p.src_port, e.host);
    assert_int_equal(p.dst_port, 22);
    assert_int_equal(p.len, 5);
    assert_memory_equal(f->payload, "hello", 5);
    send_bytes(f, &e, "welcome", 7);
    assert_reads(fd, "welcome");
    close(fd);
    p = expect(f, SHUTDOWN);
    assert_int_equal(p.flags, NEITHER);
    say(f, &e, RST); /* as a driver answers that */
    assert_silent(f);
}

static void test_from_guest(void **state)
{
    struct fixture *f = *state;
    struct end e;
    struct packet p;
    int fd;

    start(f);
    fd = guest_connects(f, 5000, &e);
    send_bytes(f, &e, "to the host", 11);
    assert_reads(fd, "to the host");
    write_all(fd, "to the guest");
    p = expect(f, RW);
    assert_int_equal(p.src_port, 5000);
    assert_memory_equal(f->payload, "to the guest", 12);
    say_shutdown(f, &e, NEITHER);
    assert_true(at_end(fd));
    expect(f, RST);
    assert_silent(f);
    close(fd);
}

/* Nobody listens at the host's port, or there cannot be any. */
static void test_refused_by_host(void **state)
{
    struct fixture *f = *state;
    struct end e = {.guest = 1, .host = 6000};
    struct packet p;

    start(f);
    say(f, &e, REQUEST);
    p = expect(f, RST);
    assert_int_equal(p.src_port, 6000);
    assert_int_equal(p.dst_port, 1);
    p = packet(&e, REQUEST);
    p.dst_cid = 9; /* another machine: there is no way */
    assert_true(post(f, p, "", 0));
    p = expect(f, RST);
    assert_int_equal(p.src_cid, 9);
    p = packet(&e, REQUEST);
    p.type = 2; /* a kind of socket that was not negotiated */
    assert_true(post(f, p, "", 0));
    p = expect(f, RST);
    assert_int_equal(p.type, 2);
    p = packet(&e, REQUEST);
    p.src_cid = CID + 1; /* not the guest's own */
    assert_true(post(f, p, "", 0));
    assert_silent(f);
}

static void test_refused_by_guest(void **state)
{
    struct fixture *f = *state;
    struct end e = {.guest = 99};
    int fd = socket_at(path, false);

    start(f);
    write_all(fd, "CONNECT 99\n");
    e.host = expect(f, REQUEST).src_port;
    assert_false(at_end(fd));
    say(f, &e, RST);
    assert_true(at_end(fd));
    assert_silent(f);
    close(fd);
}

/* A client that comes before the guest's driver waits for it; one that is not patient may go. */
static void test_before_driver(void **state)
{
    struct fixture *f = *state;
    int fd = socket_at(path, false), gone = socket_at(path, false);

    write_all(fd, "CONNECT 22\nearly");
    write_all(gone, "CONNECT 23\n");
    run(f);
    close(gone);
    run(f);
    start(f);
    assert_int_equal(expect(f, REQUEST).dst_port, 22);
    assert_silent(f);
    /* Another driver does not know of the first one's connections. */
    start(f);
    assert_silent(f);
    assert_true(at_end(fd));
    close(fd);
}

static void test_greetings(void **state)
{
    struct fixture *f = *state;
    static const char *const wrong[] = {
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT 1 2\n",
        "CONNECT -1\n",
        "CONNECT 4294967295\n",
        "CONNECT 99999999999999999999\n",
        "connect 1\n",
        "GET / HTTP/1.1\r\n",
        "\n",
        "CONNECT 1\r\n",
        "CONNECT  1\n",
        "CONNECT 0000000000000000000000001",
        "CONNECT 18446744073709551617\n",
    };
    struct end e;
    int fd;

    start(f);
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        fd = socket_at(path, false);
        write_all(fd, wrong[i]);
        assert_silent(f);
        assert_true(at_end(fd));
        close(fd);
    }
    /* In pieces; and what follows the line at once is for the guest. */
    fd = socket_at(path, false);
    write_all(fd, "CONN");
    assert_silent(f);
    write_all(fd, "ECT 4294967294");
    assert_silent(f);
    write_all(fd, "\nfirst");
    e = (struct end){.guest = 4294967294, .host = expect(f, REQUEST).src_port, .window = 100};
    say(f, &e, RESPONSE);
    assert_int_equal(expect(f, RW).len, 5);
    assert_memory_equal(f->payload, "first", 5);
    close(fd);
}

/* The oldest of too many clients that say nothing makes room. */
static void test_silent_clients(void **state)
{
    struct fixture *f = *state;
    struct end e;
    int fds[70], fd;

    start(f);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = socket_at(path, false);
        run(f);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
        assert_int_equal(at_end(fds[i]), i < 6);
    fd = client(f, 22, &e);
    assert_true(at_end(fds[6]));
    assert_false(at_end(fds[7]));
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
        close(fds[i]);
    close(fd);
}

/* The client sends no more, and still reads; then the guest ends. */
static void test_half_close_by_host(void **state)
{
    struct fixture *f = *state;
    struct end e;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    write_all(fd, "last words");
    shutdown(fd, SHUT_WR);
    assert_int_equal(expect(f, RW).len, 10);
    assert_int_equal(expect(f, SHUTDOWN).flags, NO_SEND);
    assert_silent(f);
    send_bytes(f, &e, "answer", 6);
    assert_reads(fd, "answer");
    assert_false(at_end(fd));
    say_shutdown(f, &e, NO_SEND);
    assert_true(at_end(fd));
    assert_int_equal(expect(f, SHUTDOWN).flags, NEITHER);
    say(f, &e, RST);
    assert_silent(f);
    close(fd);
}

static void test_half_close_by_guest(void **state)
{
    struct fixture *f = *state;
    struct end e;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    send_bytes(f, &e, "bye", 3);
    say_shutdown(f, &e, NO_SEND);
    assert_reads(fd, "bye");
    assert_true(at_end(fd));
    write_all(fd, "still here");
    assert_int_equal(expect(f, RW).len, 10);
    send_bytes(f, &e, "?", 1); /* after it has said that it would not */
    expect(f, RST);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    close(fd);
    /* A guest that does not receive any more. */
    fd = client(f, 22, &e);
    say_shutdown(f, &e, NO_RECEIVE);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    send_bytes(f, &e, "one-way", 7);
    assert_reads(fd, "one-way");
    assert_silent(f);
    close(fd);
    assert_int_equal(expect(f, SHUTDOWN).flags, NEITHER);
}

/* What the guest has no room for stays in the client's socket. */
static void test_credit_of_guest(void **state)
{
    struct fixture *f = *state;
    static char bytes[10000];
    struct end e = {.guest = 22, .window = 6000};
    int fd = socket_at(path, false);

    start(f);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 7);
    write_all(fd, "CONNECT 22\n");
    e.host = expect(f, REQUEST).src_port;
    say(f, &e, RESPONSE);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    assert_int_equal(expect(f, RW).len, 4096);
    assert_memory_equal(f->payload, bytes, 4096);
    assert_int_equal(expect(f, RW).len, 6000 - 4096);
    expect(f, CREDIT_REQUEST);
    assert_silent(f); /* it has asked once */
    e.received = 1000;
    say(f, &e, CREDIT_UPDATE);
    assert_int_equal(expect(f, RW).len, 1000);
    assert_memory_equal(f->payload, bytes + 6000, 1000);
    expect(f, CREDIT_REQUEST);
    e.received = 7000;
    say(f, &e, CREDIT_UPDATE);
    assert_int_equal(expect(f, RW).len, 3000);
    assert_memory_equal(f->payload, bytes + 7000, 3000);
    /* Nonsense: more was taken than was sent; a window of 4 GiB. */
    e.received = 0x80000000;
    e.window = 0xFFFFFFFF;
    say(f, &e, CREDIT_UPDATE);
    write_all(fd, "more");
    run(f);
    assert_int_equal(vrig_status(f->q.v), 15);
    close(fd);
}

/* A client that does not read: the guest is told of room when there is some, and sends no more than
 * that. Nothing is lost, and it comes in order. */
static void test_credit_of_host(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[0x10000], got[0x10000];
    uint32_t window, sent = 0, forwarded, size = 0;
    struct end e;
    struct packet p;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    say(f, &e, CREDIT_REQUEST);
    p = expect(f, CREDIT_UPDATE);
    window = p.buf_alloc;
    forwarded = p.fwd_cnt;
    assert_int_equal(forwarded, 0);
    for (bool full = false; !full; sent += size) {
        while (take(f, &p)) {
            assert_int_equal(p.op, CREDIT_UPDATE);
            forwarded = p.fwd_cnt;
        }
        size = MIN(window - (sent - forwarded), (uint32_t)sizeof(bytes));
        for (unsigned i = 0; i < size; i++)
            bytes[i] = (uint8_t)((sent + i) * 31 >> 3);
        full = size == 0;
        if (size)
            send_bytes(f, &e, bytes, size);
        assert_true(sent < 64 * MiB);
    }
    assert_true(sent > window); /* the socket has some, too */
    say_shutdown(f, &e, NEITHER);
    assert_silent(f);
    for (uint32_t done = 0; done < sent;) {
        ssize_t n = recv(fd, got, sizeof(got), MSG_DONTWAIT);

        assert_true(n > 0);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(got[i], (uint8_t)((done + i) * 31 >> 3));
        done += (uint32_t)n;
        run(f);
    }
    assert_true(at_end(fd));
    while (take(f, &p) && p.op != RST)
        assert_int_equal(p.op, CREDIT_UPDATE);
    assert_int_equal(p.op, RST);
    close(fd);
}

/* The guest's kernel gives up waiting for a client that reads slowly; what it has sent is not lost.
 */
static void test_drains(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[0x10000];
    uint32_t sent = 0, got = 0;
    struct end e;
    struct packet p;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    do {
        send_bytes(f, &e, bytes, sizeof(bytes));
        sent += sizeof(bytes);
    } while (take(f, &p) ? p.fwd_cnt == sent : sent < 4 * sizeof(bytes));
    say_shutdown(f, &e, NEITHER);
    say(f, &e, RST);
    assert_silent(f);
    start(f); /* and does not come back */
    for (ssize_t n = 1; n > 0; got += (uint32_t)n) {
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        assert_true(n >= 0);
        run(f);
    }
    assert_int_equal(got, sent);
    close(fd);
}

/* A packet with more bytes than any window has ends its connection; one whose bytes are not there
 * is a mistake of the driver's. */
static void test_too_much(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[0x50000];
    struct end e;
    struct packet p;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    send_bytes(f, &e, bytes, sizeof(bytes));
    expect(f, RST);
    assert_true(at_end(fd));
    assert_int_equal(vrig_status(f->q.v), 15);
    close(fd);
    fd = client(f, 22, &e);
    p = packet(&e, RW);
    p.len = 2;
    assert_false(post(f, p, bytes, 1));
    assert_int_equal(vrig_status(f->q.v), 0x4F);
    close(fd);
}

/* A client that goes without reading what was sent to it, or before the guest has answered. */
static void test_client_goes(void **state)
{
    struct fixture *f = *state;
    struct end e;
    int fd;

    start(f);
    fd = client(f, 22, &e);
    write_all(fd, "last");
    send_bytes(f, &e, "unread", 6);
    close(fd);
    assert_int_equal(expect(f, RW).len, 4);
    expect(f, RST);
    assert_silent(f);
    fd = socket_at(path, false);
    write_all(fd, "CONNECT 22\n");
    e.host = expect(f, REQUEST).src_port;
    close(fd);
    expect(f, RST);
    say(f, &e, RESPONSE);
    expect(f, RST);
    assert_silent(f);
    assert_int_equal(vrig_status(f->q.v), 15);
}

/* What makes no sense for a connection ends it; what has none is refused, but for an RST. */
static void test_nonsense(void **state)
{
    struct fixture *f = *state;
    struct end e, none = {.guest = 4, .host = 5};
    int fd;

    start(f);
    for (uint16_t op = 0; op < 12; op++) {
        say(f, &none, op);
        if (op == RST)
            assert_silent(f);
        else
            expect(f, RST);
        if (op == RST || op == SHUTDOWN || op == RW || op == CREDIT_UPDATE || op == CREDIT_REQUEST)
            continue;
        fd = client(f, 22, &e);
        say(f, &e, op);
        expect(f, RST);
        assert_true(at_end(fd));
        close(fd);
    }
    assert_silent(f);
    fd = client(f, 22, &e);
    say_shutdown(f, &e, 0xFFFFFFFC); /* no flag that means anything */
    send_bytes(f, &e, "", 0);
    assert_silent(f);
    assert_int_equal(vrig_status(f->q.v), 15);
    close(fd);
    qrig_give(&f->q, SEND, SENT, 43, 0);
    assert_int_equal(vrig_status(f->q.v), 0x4F);
    start(f);
    f->room = 43;
    give_room(f);
    assert_int_equal(vrig_status(f->q.v), 0x4F);
    start(f);
    f->room = 44; /* a header, and no byte of data */
    give_room(f);
    assert_int_equal(vrig_status(f->q.v), 0x4F);
}

/* A guest that does not look at refusals: its packets wait, the device keeps no more than it must.
 */
static void test_refusals_wait(void **state)
{
    struct fixture *f = *state;
    struct end e = {.guest = 1, .host = 6000};
    struct packet p;
    uint32_t head, size;
    unsigned refused = 0;

    start(f);
    for (; post(f, packet(&e, RW), "", 0); e.guest++)
        assert_true(e.guest < 10000);
    assert_true(e.guest > 8);
    assert_int_equal(vrig_status(f->q.v), 15);
    while (take(f, &p)) {
        assert_int_equal(p.op, RST);
        assert_int_equal(p.dst_port, ++refused);
    }
    assert_int_equal(refused, e.guest);
    assert_true(rig_reap(&f->q.queue[SEND], &head, &size));
}

/* As many connections as there can be, each with bytes on the way; one more is refused, until one
 * ends. */
static void test_many(void **state)
{
    enum { MANY = 1024 };
    struct fixture *f = *state;
    struct rlimit files;
    static struct end e[MANY];
    static int fds[MANY];
    uint64_t windows = 0;
    int fd;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = MIN(files.rlim_max, 4096);
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < 2 * MANY + 100)
        skip();
    start(f);
    for (unsigned i = 0; i < MANY; i++) {
        fds[i] = client(f, 22, &e[i]);
        say(f, &e[i], CREDIT_REQUEST);
        windows += expect(f, CREDIT_UPDATE).buf_alloc;
    }
    assert_true(windows <= 128 * MiB);
    fd = socket_at(path, false);
    assert_silent(f);
    assert_true(at_end(fd));
    close(fd);
    for (unsigned i = 0; i < MANY; i++)
        write_all(fds[i], "ping");
    for (unsigned i = 0; i < MANY; i++) {
        struct packet p = expect(f, RW);

        for (unsigned n = 0; n < MANY; n++)
            if (e[n].host == p.src_port)
                send_bytes(f, &e[n], "pong", 4);
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_reads(fds[i], "pong");
    close(fds[0]);
    assert_int_equal(expect(f, SHUTDOWN).src_port, e[0].host);
    say(f, &e[0], RST);
    fds[0] = client(f, 22, &e[0]);
    for (unsigned i = 0; i < MANY; i++)
        close(fds[i]);
}

/* Without a descriptor for it, a client is sent away, and nothing spins. */
static void test_no_descriptor(void **state)
{
    struct fixture *f = *state;
    struct rlimit files, few;
    struct end e;
    int fd, probe;

    start(f);
    fd = socket_at(path, false);
    probe = dup(0);
    close(probe);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    few = files;
    few.rlim_cur = (rlim_t)probe;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    run(f);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_true(at_end(fd));
    close(fd);
    fd = client(f, 22, &e);
    close(fd);
}

/* A guest that connects ever more often is refused in the end, and what it has goes on. */
static void test_few_descriptors(void **state)
{
    struct fixture *f = *state;
    struct end first, e = {.host = 6001, .window = 0x10000};
    int fd, listener, end, room, opened = 0;
    struct rlimit before;
    struct packet p;

    told = 0;
    start(f);
    fd = guest_connects(f, 5000, &first);
    listener = listen_for(6001);
    assert_int_equal(listen(listener, 100), 0);
    room = descriptors_lowest();
    end = descriptors_leave(30, &before);
    room = end - room;
    for (e.guest = 1; e.guest <= 50; e.guest++) {
        say(f, &e, REQUEST);
        assert_true(take(f, &p));
        assert_int_equal(p.op, opened < room ? RESPONSE : RST);
        opened += p.op == RESPONSE;
    }
    assert_int_equal(opened, room);
    assert_int_equal(descriptors_lowest(), end);
    assert_int_equal(told, 1);
    send_bytes(f, &first, "still", 5);
    assert_reads(fd, "still");
    e.guest = 1;
    say_shutdown(f, &e, NEITHER);
    expect(f, RST);
    say(f, &e, REQUEST);
    expect(f, RESPONSE);
    setrlimit(RLIMIT_NOFILE, &before);
    forget_listener(listener, 6001);
    close(fd);
}

/* Who goes on from a state has no connection any more, and the guest is told so first. */
static void test_save_restore(void **state)
{
    struct fixture *f = *state, other;
    struct end e, refused = {.guest = 7, .host = 6000}, waits = {.guest = 8, .host = 5001};
    int fd, listener;
    uint32_t event = 99, head, size;
    struct packet p;
    char before[64];

    start(f);
    fd = client(f, 22, &e);
    say(f, &refused, REQUEST);
    give_room(f); /* a chain that is held while there is nothing is saved, too */
    expect(f, RST);
    say(f, &refused, REQUEST);
    listener = listen_for(5001);
    say(f, &waits, REQUEST);
    strcpy(before, path);
    path[strlen(path) - 1]++;
    other = *f;
    qrig_move(&f->q, &other.q, create);
    assert_silent(&other); /* before the guest has heard of it */
    qrig_give(&other.q, EVENT, RECEIVED + 0x8000, 4, RIG_WRITE);
    assert_true(rig_reap(&other.q.queue[EVENT], &head, &size));
    assert_int_equal(size, 4);
    assert_int_equal(mem_read(f->q.v->mem, RECEIVED + 0x8000, &event, 4), 0);
    assert_int_equal(event, 0);
    assert_true(take(&other, &p));
    assert_true(p.op == RST && p.dst_port == 7);
    assert_true(take(&other, &p));
    assert_true(p.op == RST && p.dst_port == 8);
    assert_silent(&other);
    qrig_give(&other.q, EVENT, RECEIVED + 0x8000, 4, RIG_WRITE);
    assert_false(rig_reap(&other.q.queue[EVENT], &head, &size)); /* once */
    vrig_destroy(other.q.v);
    strcpy(path, before);
    /* The saved machine may go on as well. */
    f->q.v->dev->ops->resume(f->q.v->dev);
    assert_false(at_end(fd));
    forget_listener(listener, 5001);
    close(fd);
}

static void test_refusals_of_path(void **state)
{
    struct fixture *f = *state;
    struct virtio_slot slot = {.pci = f->q.v->pci,
                               .number = VRIG_SLOT + 1,
                               .bus = f->q.v->rig->bus,
                               .mem = f->q.v->mem,
                               .loop = f->q.v->loop,
                               .workers = f->q.v->workers};
    struct virtio_vsock_config config = {.cid = CID, .path = path};
    char name[128];
    struct error err = {0};

    assert_null(virtio_vsock_create(&slot, &config, &err));
    assert_non_null(strstr(err.text, "somebody listens there"));
    memset(name, 'x', sizeof(name));
    name[97] = 0;
    config.path = name;
    assert_null(virtio_vsock_create(&slot, &config, &err));
    assert_int_equal(err.code, ENAMETOOLONG);
    slot.number = VRIG_SLOT; /* which is taken: what was made is removed */
    snprintf(name, sizeof(name), "%s.other", path);
    assert_null(virtio_vsock_create(&slot, &config, &err));
    assert_int_equal(err.code, EBUSY);
    assert_int_equal(access(name, F_OK), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_configuration),
        TEST(test_from_host),
        TEST(test_from_guest),
        TEST(test_refused_by_host),
        TEST(test_refused_by_guest),
        TEST(test_before_driver),
        TEST(test_greetings),
        TEST(test_silent_clients),
        TEST(test_half_close_by_host),
        TEST(test_half_close_by_guest),
        TEST(test_credit_of_guest),
        TEST(test_credit_of_host),
        TEST(test_drains),
        TEST(test_too_much),
        TEST(test_client_goes),
        TEST(test_nonsense),
        TEST(test_refusals_wait),
        TEST(test_many),
        TEST(test_no_descriptor),
        TEST(test_few_descriptors),
        TEST(test_save_restore),
        TEST(test_refusals_of_path),
    };
    int failed;

    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof(path), "%s/vsock", folder);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
