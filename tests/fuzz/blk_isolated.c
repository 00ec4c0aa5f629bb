/*
 * Fuzz target: the memory that a disk's process shares with who uses the disk. In turn either side
 * is our own and the other one writes what the input says: requests that are none, results of
 * requests that were not made, indices that jump. Neither may crash or hang.
 */
#include "input.h"

#include "base/kept_link.h"
#include "base/thread.h"
#include "base/util.h"
#include "blk/blk.h"
#include "blk/isolated/isolated.h"
#include "blk/isolated/ring.h"
#include "blk/options.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISK (256 * KiB)

static void send_event(int fd)
{
    uint64_t one = 1;

    check(write(fd, &one, sizeof(one)) == sizeof(one));
}

/* ---- The disk's process is ours ---- */

struct served {
    struct blk_options options;
    int link;
    pthread_t thread;
};

static void *serve(void *opaque)
{
    struct served *s = opaque;

    isolated_serve(s->link, &s->options, NULL, NULL);
    shutdown(s->link, SHUT_RDWR);
    return NULL;
}

static struct isolated_memory *make_memory(int files[KEPT_FILES])
{
    void *memory;

    files[KEPT_MEMORY] = memfd_create("memory", MFD_CLOEXEC);
    files[KEPT_REQUEST_EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    files[KEPT_RESULT_EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(ftruncate(files[KEPT_MEMORY], (off_t)ISOLATED_BYTES) == 0);
    memory = mmap(NULL, ISOLATED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, files[KEPT_MEMORY], 0);
    check(memory != MAP_FAILED);
    return memory;
}

static void drop_memory(struct isolated_memory *memory, int files[KEPT_FILES])
{
    munmap(memory, ISOLATED_BYTES);
    for (unsigned i = 0; i < KEPT_FILES; i++)
        close(files[i]);
}

/* Requests, most of which mean something. */
static void make_requests(struct isolated_memory *memory, struct input *in)
{
    struct kept_side side = {0, 0};

    for (unsigned i = 0; in->left && i < 64; i++) {
        uint8_t how = (uint8_t)take(in, 1);
        struct isolated_request r = {.number = how & 1 ? (uint32_t)take(in, 4) : i,
                                     .kind = (uint16_t)(how & 2 ? take(in, 2) : how >> 5),
                                     .unmap = how >> 4 & 1,
                                     .offset = how & 4 ? take(in, 8) : 512 * take(in, 1),
                                     .size = how & 8 ? take(in, 8) : 512 * take(in, 1),
                                     .page = (uint32_t)take(in, 1 + 3u * (how >> 4 & 1))};

        isolated_publish(memory, &side, &r);
    }
    if (in->left)
        atomic_store(&memory->requests.written, (uint32_t)take(in, 4));
}

static void against_server(struct input *in)
{
    struct served s = {.link = -1};
    struct isolated_about about;
    struct kept_hello hello;
    struct isolated_memory *memory;
    int files[KEPT_FILES], link[2], disk = memfd_create("disk", MFD_CLOEXEC), ret;
    char text[64];
    pid_t sender;

    check(ftruncate(disk, DISK) == 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d,isolate", disk);
    check(blk_options_parse(text, &s.options, NULL) == 0);
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) == 0);
    s.link = link[1];
    memory = make_memory(files);
    make_requests(memory, in);
    check(thread_start(&s.thread, "disk", serve, &s, NULL) == 0);
    while ((ret = kept_link_receive_hello(link[0], &hello, &sender)) == 0)
        usleep(10);
    memcpy(&about, hello.about, sizeof(about));
    check(ret == 1 && about.size == DISK);
    kept_link_send_files(link[0], hello.number, files, KEPT_FILES);
    send_event(files[KEPT_REQUEST_EVENT]);
    close(link[0]);
    pthread_join(s.thread, NULL);
    close(link[1]);
    drop_memory(memory, files);
    blk_options_free(&s.options);
    close(disk);
}

/* ---- Who uses the disk is ours ---- */

static int give_link(void *opaque, const char *file)
{
    return dup(*(int *)opaque);
}

static _Atomic int pending;

static void done(struct blk_request *request, int result)
{
    check(result <= 0);
    pending--;
}

static void against_client(struct input *in)
{
    const struct isolated_about about = {.size = DISK, .block = 512, .optimal = 4096};
    struct kept_hello hello = {.version = KEPT_LINK_VERSION, .number = 1};
    struct blk_host host = {.isolate = give_link};
    struct blk_options options;
    static uint8_t data[3 * 65536];
    struct blk_request request[8];
    struct iovec iov = {data, sizeof(data)};
    struct isolated_memory *memory;
    struct kept_side side = {0, 0};
    int files[KEPT_FILES], link[2];
    struct blk *blk;

    check(blk_options_parse("disk,isolate", &options, NULL) == 0);
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) == 0);
    host.isolate_opaque = &link[0];
    memcpy(hello.about, &about, sizeof(about));
    kept_link_send_hello(link[1], &hello);
    blk = blk_open(&options, &host, NULL);
    check(blk != NULL);
    check(kept_link_receive_files(link[1], 1, files, KEPT_FILES) == 0);
    memory = mmap(NULL, ISOLATED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, files[KEPT_MEMORY], 0);
    check(memory != MAP_FAILED);
    pending = ARRAY_SIZE(request);
    for (unsigned i = 0; i < ARRAY_SIZE(request); i++) {
        request[i] = (struct blk_request){.kind = (enum blk_kind)(i % 5),
                                          .offset = i * 4096,
                                          .size = sizeof(data),
                                          .iov = &iov,
                                          .iovs = 1,
                                          .done = done};
        request[i].offset = i % 3 * 16384;
        blk_submit(blk, &request[i]);
    }
    for (unsigned i = 0; in->left && i < 64; i++) {
        uint8_t how = (uint8_t)take(in, 1);
        struct isolated_result r = {.number = how & 1 ? (uint32_t)take(in, 4) : how >> 2 & 7,
                                    .result = how & 2 ? (int32_t)take(in, 4) : 0};

        isolated_answer(memory, &side, &r);
        if (how & 128)
            send_event(files[KEPT_RESULT_EVENT]);
    }
    send_event(files[KEPT_RESULT_EVENT]);
    close(link[1]); /* then all that is left fails */
    while (pending)
        usleep(10);
    blk_close(blk);
    close(link[0]);
    drop_memory(memory, files);
    blk_options_free(&options);
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
