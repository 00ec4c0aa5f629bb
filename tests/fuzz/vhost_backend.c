/*
 * Fuzz target: a session of vhost-user with the back end of a disk: messages in any order with any
 * content, and queues in memory that hold anything. The back end must survive, leave no descriptor
 * open, and serve the next front end.
 */
#include "input.h"

#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "dev/vhost/backend.h"
#include "dev/vhost/message.h"
#include "dev/virtio/block.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define USER   0x10000000u
#define MEMORY (256 * KiB)
#define DISK   (256 * KiB)

static struct machine {
    struct vhost_backend *backend;
    int memory, kick, stop, socket;
    uint8_t *bytes;
} m;

static struct blk *open_disk(void)
{
    char path[64];
    int fd = memfd_create("disk", 0);
    struct blk_options options;
    struct blk *blk;

    check(ftruncate(fd, DISK) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    check(blk_options_parse(path, &options, NULL) == 0);
    blk = blk_open(&options, NULL, NULL);
    check(blk != NULL);
    blk_options_free(&options);
    return blk;
}

static void set_up(void)
{
    struct virtio_block_config config = {.queues = 2, .discard = true};
    struct virtio_slot slot;

    m.backend = vhost_backend_create(NULL, NULL);
    check(m.backend != NULL);
    slot = vhost_backend_slot(m.backend);
    config.blk = open_disk();
    check(virtio_block_create(&slot, &config, NULL) != NULL);
    m.memory = memfd_create("memory", MFD_CLOEXEC);
    check(ftruncate(m.memory, MEMORY) == 0);
    m.bytes = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, m.memory, 0);
    check(m.bytes != MAP_FAILED);
    m.kick = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    m.stop = eventfd(0, EFD_CLOEXEC);
}

static void send_to(const struct vhost_message *message)
{
    vhost_send(m.socket, message, 0, -1);
}

static struct vhost_message message(uint32_t request, uint32_t size)
{
    return (struct vhost_message){.request = request, .flags = VHOST_VERSION, .size = size};
}

static void send_u64(uint32_t request, uint64_t value, int fd)
{
    struct vhost_message v = message(request, 8);

    v.u64 = value;
    v.fds[0] = fd;
    v.fd_count = fd >= 0;
    send_to(&v);
}

static void send_state(uint32_t request, uint32_t queue, uint32_t value)
{
    struct vhost_message v = message(request, 8);

    v.state = (struct vhost_state){queue, value};
    send_to(&v);
}

/* By the rules, up to a queue that is served. */
static void begin_well(struct input *in)
{
    struct vhost_message memory = message(VHOST_SET_MEM_TABLE, 40),
                         a = message(VHOST_SET_VRING_ADDR, 40);
    uint8_t how = (uint8_t)take(in, 1);

    send_u64(VHOST_SET_PROTOCOL_FEATURES, 0x1009, -1);
    send_u64(VHOST_SET_FEATURES, 1ull << 32 | 1ull << 30 | (how & 3ull) << 28 | 1u << 9 | 3u << 13,
             -1);
    memory.memory.count = memory.fd_count = 1;
    memory.memory.region[0] = (struct vhost_region){.gpa = 0, .size = MEMORY, .user = USER};
    memory.fds[0] = m.memory;
    send_to(&memory);
    if (how & 4) {
        struct vhost_message inflight = message(VHOST_SET_INFLIGHT_FD, 24);

        inflight.inflight =
            (struct vhost_inflight){.size = 8192, .offset = 0x8000, .queues = 2, .queue_size = 16};
        inflight.fds[0] = m.memory;
        inflight.fd_count = 1;
        send_to(&inflight);
    }
    send_state(VHOST_SET_VRING_NUM, 0, 16);
    send_state(VHOST_SET_VRING_BASE, 0, how >> 4);
    a.addresses = (struct vhost_addresses){
        .descriptors = USER, .available = USER + 0x1000, .used = USER + 0x2000};
    send_to(&a);
    send_u64(VHOST_SET_VRING_KICK, 0, m.kick);
    send_state(VHOST_SET_VRING_ENABLE, 0, 1);
}

/* A message of the kind that the input says, with its bytes. */
static void send_any(struct input *in)
{
    struct vhost_message v = message((uint32_t)take(in, 1), (uint32_t)take(in, 1));
    uint8_t how = (uint8_t)take(in, 1);

    v.flags = VHOST_VERSION | (how & 1 ? VHOST_NEED_REPLY : 0);
    v.size = MIN(v.size, (uint32_t)sizeof(v.memory));
    for (uint32_t i = 0; i < v.size; i++)
        ((uint8_t *)&v.u64)[i] = (uint8_t)take(in, 1);
    v.fd_count = how >> 4 & 3;
    for (unsigned i = 0; i < v.fd_count; i++)
        v.fds[i] = how & 2 ? m.kick : m.memory;
    send_to(&v);
}

/* A descriptor, or an entry of the available ring. */
static void put(struct input *in)
{
    uint8_t what = (uint8_t)take(in, 1), n = what & 15;
    uint64_t gpa = what & 64 ? take(in, 8) : 0x10000 + 0x400 * take(in, 1);
    uint32_t size = what & 128 ? (uint32_t)take(in, 4) : (uint32_t)take(in, 1) * 16 + 1;

    memcpy(m.bytes + 16 * n, &gpa, 8);
    memcpy(m.bytes + 16 * n + 8, &size, 4);
    m.bytes[16 * n + 12] = (uint8_t)take(in, 1) & 7;
    m.bytes[16 * n + 14] = (uint8_t)take(in, 1) & 15;
    m.bytes[0x1004 + 2 * n] = what >> 4 & 3 ? n : (uint8_t)take(in, 1);
    m.bytes[0x1002] = (uint8_t)take(in, 1);
}

static void put_bytes(struct input *in)
{
    uint32_t at = (uint32_t)take(in, 3) % (MEMORY - 16);

    for (unsigned i = 0; i < 16; i++)
        m.bytes[at + i] = (uint8_t)take(in, 1);
}

/* Whether the back end still answers. */
static void ask(void)
{
    struct vhost_reader reader = {.have = 0};
    int pair[2];

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    m.socket = pair[0];
    send_to(&(struct vhost_message){.request = VHOST_GET_QUEUE_NUM, .flags = VHOST_VERSION});
    shutdown(pair[0], SHUT_WR);
    vhost_backend_serve(m.backend, pair[1], m.stop);
    check(vhost_receive(&reader, pair[0]) == 1 && reader.message.u64 == 2);
    vhost_reader_drop(&reader);
    close(pair[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    int pair[2], before;

    if (!m.backend)
        set_up();
    before = dup(0);
    close(before);
    memset(m.bytes, 0, MEMORY);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    m.socket = pair[0];
    for (unsigned i = 0; in.left && i < 100; i++) {
        switch (take(&in, 1) % 4) {
        case 0: begin_well(&in); break;
        case 1: send_any(&in); break;
        case 2: put(&in); break;
        default: put_bytes(&in); break;
        }
    }
    shutdown(pair[0], SHUT_WR);
    vhost_backend_serve(m.backend, pair[1], m.stop);
    close(pair[0]);
    check(dup(0) == before);
    close(before);
    ask();
    return 0;
}
