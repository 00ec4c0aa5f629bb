/*
 * The virtio socket device between threads: programs of the host, the loop, workers, and a guest
 * that sends back what it gets, while the machine is paused again and again. Every byte comes back,
 * in order, on every connection. ThreadSanitizer looks at it, too.
 */
#include "test.h"

#include "dev/virtio/vsock.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio_rig.h"
#include "vsock_packet.h"

#define SIZE     8u
#define RINGS(Q) (0x10000u + 0x1000 * (Q))
#define DATA(Q)  (0x100000u + 0x20000 * (Q)) /* a page for each chain */
#define PAGE     4096u
#define CID      3u
#define PROGRAMS 4u
#define ROUNDS   25u
#define BYTES    100000u
#define WINDOW   8192u

enum { RECEIVE, SEND, EVENT, QUEUES };

/* A connection, as the guest has it. */
struct end {
    struct end *next;
    uint32_t port; /* the host's */
    uint32_t got;  /* bytes */
};

struct lane {
    struct vrig *v;
    struct rig_queue queue[QUEUES];
    struct end *ends;
    _Atomic bool stop;
};

static char folder[] = P_tmpdir "/doppel-vsock-XXXXXX", path[64];

/* ---- The guest: its own thread ---- */

static void send_packet(struct lane *l, struct packet p, const uint8_t *payload)
{
    struct rig_queue *q = &l->queue[SEND];
    uint32_t head, written;

    assert_int_equal(mem_write(l->v->mem, DATA(SEND), &p, sizeof(p)), 0);
    assert_int_equal(mem_write(l->v->mem, DATA(SEND) + sizeof(p), payload, p.len), 0);
    rig_descriptor(q, 0, DATA(SEND), (uint32_t)sizeof(p) + p.len, 0, 0);
    rig_publish_shared(q, 0);
    vrig_write(l->v, VRIG_NOTIFY + 4 * SEND, 2, 0);
    while (!rig_reap(q, &head, &written))
        sched_yield();
}

static void give_room(struct lane *l, unsigned n)
{
    rig_descriptor(&l->queue[RECEIVE], n, DATA(RECEIVE) + PAGE * n, PAGE, RIG_WRITE, 0);
    rig_publish_shared(&l->queue[RECEIVE], (uint16_t)n);
    vrig_write(l->v, VRIG_NOTIFY + 4 * RECEIVE, 2, 0);
}

static struct end **find(struct lane *l, uint32_t port)
{
    struct end **at = &l->ends;

    while (*at && (*at)->port != port)
        at = &(*at)->next;
    return at;
}

static void forget(struct end **at)
{
    struct end *e = *at;

    *at = e->next;
    free(e);
}

/* Bytes go back as they come; an end is answered by an end. */
static void answer(struct lane *l, const struct packet *p, const uint8_t *payload)
{
    struct end **at = find(l, p->src_port), *e = *at;
    struct packet reply = {.src_cid = CID,
                           .dst_cid = 2,
                           .src_port = p->dst_port,
                           .dst_port = p->src_port,
                           .type = 1,
                           .buf_alloc = WINDOW};

    if (p->op == REQUEST) {
        assert_null(e);
        e = calloc(1, sizeof(*e));
        *e = (struct end){.next = l->ends, .port = p->src_port};
        l->ends = e;
        reply.op = RESPONSE;
    } else if (p->op == RST) {
        forget(at);
        return;
    } else if (p->op == SHUTDOWN) {
        reply.op = SHUTDOWN;
        reply.flags = 3;
    } else if (p->op == RW) {
        e->got += p->len;
        reply.op = RW;
        reply.len = p->len;
    } else if (p->op == CREDIT_REQUEST) {
        reply.op = CREDIT_UPDATE;
    } else {
        return;
    }
    reply.fwd_cnt = e->got;
    send_packet(l, reply, payload);
}

static void *guest(void *opaque)
{
    static uint8_t payload[PAGE];
    struct lane *l = opaque;

    for (unsigned n = 0; n < SIZE; n++)
        give_room(l, n);
    while (!atomic_load(&l->stop) || l->ends) {
        uint32_t head, size;
        struct packet p;

        if (!rig_reap(&l->queue[RECEIVE], &head, &size)) {
            sched_yield();
            continue;
        }
        assert_int_equal(mem_read(l->v->mem, DATA(RECEIVE) + PAGE * head, &p, sizeof(p)), 0);
        assert_int_equal(
            mem_read(l->v->mem, DATA(RECEIVE) + PAGE * head + sizeof(p), payload, p.len), 0);
        give_room(l, head);
        answer(l, &p, payload);
    }
    return NULL;
}

/* ---- Programs of the host: a thread each, and one for what each reads ---- */

static int greet(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char byte = 0;

    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(write(fd, "CONNECT 7\n", 10), 10);
    while (byte != '\n')
        assert_int_equal(read(fd, &byte, 1), 1);
    return fd;
}

static uint8_t pattern(unsigned seed, unsigned n)
{
    return (uint8_t)(n * 7 + n / 256 + seed);
}

struct reader {
    int fd;
    unsigned seed;
};

static void *read_back(void *opaque)
{
    struct reader *r = opaque;
    uint8_t bytes[10000];
    unsigned done = 0;
    ssize_t n;

    while ((n = read(r->fd, bytes, sizeof(bytes))) > 0)
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(bytes[i], pattern(r->seed, done++));
    assert_int_equal(done, BYTES);
    return NULL;
}

static void *program(void *opaque)
{
    unsigned seed = *(unsigned *)opaque;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct reader r = {greet(), seed + round};
        uint8_t bytes[BYTES];
        pthread_t thread;

        for (unsigned n = 0; n < BYTES; n++)
            bytes[n] = pattern(r.seed, n);
        pthread_create(&thread, NULL, read_back, &r);
        for (size_t done = 0; done < BYTES;) {
            ssize_t n = write(r.fd, bytes + done, BYTES - done);

            assert_true(n > 0);
            done += (size_t)n;
        }
        shutdown(r.fd, SHUT_WR);
        pthread_join(thread, NULL);
        close(r.fd);
    }
    return NULL;
}

/* ---- The test ---- */

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    return virtio_vsock_create(slot, &(struct virtio_vsock_config){.cid = CID, .path = path}, err);
}

static void start(struct lane *l)
{
    vrig_enable(l->v);
    assert_true(vrig_negotiate(l->v, VRIG_FEATURES));
    for (unsigned i = 0; i < QUEUES; i++) {
        vrig_set_queue_number(l->v, i, rig_layout(RINGS(i), SIZE));
        l->queue[i] = l->v->queue;
    }
    vrig_write(l->v, VRIG_STATUS, 1, 15);
}

static void *pause_often(void *opaque)
{
    struct lane *l = opaque;

    while (!atomic_load(&l->stop)) {
        l->v->dev->ops->pause(l->v->dev);
        sched_yield();
        l->v->dev->ops->resume(l->v->dev);
        usleep(1000);
    }
    return NULL;
}

static void test_echo(void **state)
{
    struct lane l = {.v = vrig_create(create, NULL, 4)};
    pthread_t programs[PROGRAMS], others[2];
    unsigned seeds[PROGRAMS];

    assert_int_equal(loop_start(l.v->loop, NULL), 0);
    start(&l);
    pthread_create(&others[0], NULL, guest, &l);
    pthread_create(&others[1], NULL, pause_often, &l);
    for (unsigned i = 0; i < PROGRAMS; i++) {
        seeds[i] = 50 * i;
        pthread_create(&programs[i], NULL, program, &seeds[i]);
    }
    for (unsigned i = 0; i < PROGRAMS; i++)
        pthread_join(programs[i], NULL);
    atomic_store(&l.stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(others[i], NULL);
    assert_int_equal(vrig_status(l.v), 15);
    vrig_destroy(l.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_echo)};
    int failed;

    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof(path), "%s/vsock", folder);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
