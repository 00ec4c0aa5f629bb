/*
 * Fuzz target: the virtio socket device, with clients of the host's that greet it, send bytes,
 * read, close one direction or go, and a program that listens for the guest.
 */
#include "virtio.h"

#include "../unit/vsock_packet.h"
#include "dev/virtio/vsock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS     4
#define HOST_PORT   7u
#define CID         3u
#define CLIENT_PORT (1u << 30) /* the first that a client gets */
enum { RECEIVE, SEND, EVENT, QUEUES };

static struct {
    char path[64];
    int listener;
    int client[CLIENTS]; /* -1: none */
} world = {.listener = -1};

static int new_socket(const char *path, struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    fuzz_check(fd >= 0);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    strcpy(address->sun_path, path);
    return fd;
}

static void remove_files(void)
{
    char name[80];

    snprintf(name, sizeof(name), "%s_%u", world.path, HOST_PORT);
    unlink(name);
    unlink(world.path);
    *strrchr(world.path, '/') = 0;
    rmdir(world.path);
}

/* A folder of this process's, with a socket that listens for the guest. */
static void make_world(void)
{
    char folder[] = P_tmpdir "/fuzz-vsock-XXXXXX", name[80];
    struct sockaddr_un address;

    fuzz_check(mkdtemp(folder));
    snprintf(world.path, sizeof(world.path), "%s/v", folder);
    snprintf(name, sizeof(name), "%s_%u", world.path, HOST_PORT);
    world.listener = new_socket(name, &address);
    fuzz_check(!bind(world.listener, (struct sockaddr *)&address, sizeof(address)));
    fuzz_check(!listen(world.listener, 2));
    for (unsigned i = 0; i < CLIENTS; i++)
        world.client[i] = -1;
    atexit(remove_files);
}

static void forget(unsigned n)
{
    if (world.client[n] >= 0)
        close(world.client[n]);
    world.client[n] = -1;
}

static void forget_all(void)
{
    int fd;

    for (unsigned i = 0; i < CLIENTS; i++)
        forget(i);
    while ((fd = accept4(world.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    const struct virtio_vsock_config config = {.cid = CID, .path = world.path};

    if (world.listener < 0)
        make_world();
    forget_all();
    return virtio_vsock_create(slot, &config, err);
}

static void greet(unsigned n)
{
    struct sockaddr_un address;

    forget(n);
    world.client[n] = new_socket(world.path, &address);
    if (connect(world.client[n], (struct sockaddr *)&address, sizeof(address)) < 0)
        forget(n);
}

static void say(unsigned n, const char *text, size_t size)
{
    if (world.client[n] >= 0 && send(world.client[n], text, size, MSG_NOSIGNAL) < 0)
        return;
}

/* What the guest may then send: a packet of a connection that there could be. */
static void write_packet(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    const struct packet p = {.src_cid = CID,
                             .dst_cid = 2,
                             .src_port = 1 + n / 32 % 2,
                             .dst_port = level ? CLIENT_PORT + n / 8 % 4 : HOST_PORT,
                             .len = n % 8 == RW ? 64 * (n / 8) : 0,
                             .type = 1,
                             .op = (uint16_t)(n % 8),
                             .flags = n / 8,
                             .buf_alloc = 4096,
                             .fwd_cnt = 16 * n};

    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA + 512 * (n % 4), &p, sizeof(p)));
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    static const char bytes[3000];
    static char got[65536];
    unsigned which = n / 8 % CLIENTS;
    int fd = world.client[which];

    if (n >= 64) {
        write_packet(m, n - 64, level);
        return;
    }
    switch (n % 8) {
    case 0: greet(which); break;
    case 1: say(which, level ? "CONNECT 1\n" : "CONN", level ? 10 : 4); break;
    case 2: say(which, "CONNECT 2\nbytes", 15); break;
    case 3: say(which, bytes, level ? sizeof(bytes) : 10); break;
    case 4:
        if (fd >= 0)
            shutdown(fd, level ? SHUT_WR : SHUT_RDWR);
        break;
    case 5:
        if (fd >= 0 && recv(fd, got, sizeof(got), MSG_DONTWAIT) < 0)
            break;
        break;
    case 6: forget(which); break;
    default:
        fd = accept4(world.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            forget(which);
            world.client[which] = fd;
        }
        break;
    }
}

static void calm(struct fuzz_virtio_machine *m)
{
    forget_all();
}

static void post(struct fuzz_virtio_machine *m, unsigned number, struct packet p)
{
    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA, &p, sizeof(p)));
    fuzz_virtio_descriptor(m, 0, FUZZ_VIRTIO_DATA, sizeof(p) + p.len, 0);
    fuzz_virtio_publish(m, SEND, number, 0);
    fuzz_check(fuzz_virtio_used(m, SEND, NULL) == number + 1);
}

static struct packet take(struct fuzz_virtio_machine *m, unsigned number)
{
    struct packet p;
    uint32_t size = 0;

    fuzz_virtio_descriptor(m, 1, FUZZ_VIRTIO_DATA + 0x1000, 0x1000, 2);
    fuzz_virtio_publish(m, RECEIVE, number, 1);
    fuzz_check(fuzz_virtio_used(m, RECEIVE, &size) == number + 1);
    fuzz_check(!mem_read(m->mem, FUZZ_VIRTIO_DATA + 0x1000, &p, sizeof(p)));
    fuzz_check(size == sizeof(p) + p.len && p.dst_cid == CID);
    return p;
}

/* The guest connects, and both sides hear each other. A state that was taken over has told that
 * the connections are lost. */
static void request(struct fuzz_virtio_machine *m)
{
    struct packet p = {.src_cid = CID,
                       .dst_cid = 2,
                       .src_port = 1,
                       .dst_port = HOST_PORT,
                       .type = 1,
                       .op = REQUEST,
                       .buf_alloc = 4096};
    char bytes[8];
    int fd;

    post(m, 0, p);
    fd = accept4(world.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    fuzz_check(fd >= 0);
    fuzz_check(take(m, 0).op == RESPONSE);
    p.op = RW;
    p.len = 5;
    post(m, 1, p);
    fuzz_check(recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) == 5);
    fuzz_check(send(fd, bytes, 4, MSG_NOSIGNAL) == 4);
    fake_lane_run(m->workers, m->loop);
    p = take(m, 1);
    fuzz_check(p.op == RW && p.len == 4 && p.src_port == HOST_PORT);
    close(fd);
    fake_lane_run(m->workers, m->loop);
    fuzz_check(take(m, 2).op == SHUTDOWN);
    fuzz_check(fuzz_virtio_status(m) == 15);
}

const struct fuzz_virtio fuzz_virtio = {.create = create,
                                        .queues = QUEUES,
                                        .features = 1,
                                        .request = request,
                                        .host = host,
                                        .calm = calm};
