/*
 * A small NBD server for one client at a time, with a disk in memory, that can be told to
 * misbehave. It speaks the fixed newstyle handshake with NBD_OPT_GO, and simple replies.
 */
#ifndef DOPPEL_TESTS_UNIT_NBD_SERVER_H
#define DOPPEL_TESTS_UNIT_NBD_SERVER_H

#include <endian.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    NBD_HAS_FLAGS = 1,
    NBD_READ_ONLY = 2,
    NBD_FLUSHES = 4,
    NBD_TRIMS = 32,
    NBD_ZEROES = 64,
    NBD_ALL = NBD_HAS_FLAGS | NBD_FLUSHES | NBD_TRIMS | NBD_ZEROES,
};

/* After so many requests. 0: never. */
struct nbd_manners {
    unsigned leaves;     /* closes the connection instead of answering */
    unsigned falls_mute; /* takes requests and answers no more */
    unsigned trickles;   /* sends each byte of its answers a second after the last one */
    unsigned crawls;     /* waits for 200 ms before each answer */
    unsigned errs;       /* answers that one with ERROR */
    uint32_t error;
    bool rude;      /* closes the connection instead of shaking hands */
    bool deaf;      /* takes the connection and says nothing */
    uint32_t block; /* its blocks, in bytes; 0: it says nothing of them */
};

struct nbd_server {
    char path[64];
    struct nbd_manners manners;
    uint16_t flags;
    uint64_t size;
    uint8_t *disk;
    unsigned counts[8]; /* of requests, by their type */
    unsigned requests;
    int listener;
    pthread_t thread;
};

static inline bool nbd_get(int fd, void *buffer, size_t size)
{
    return size == 0 || recv(fd, buffer, size, MSG_WAITALL) == (ssize_t)size;
}

static inline bool nbd_put(int fd, const void *buffer, size_t size)
{
    for (const char *at = buffer; size > 0;) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static inline bool nbd_option_reply(int fd, uint32_t option, uint32_t type, const void *data,
                                    uint32_t size)
{
    struct {
        uint64_t magic;
        uint32_t option, type, size;
    } __attribute__((packed)) head = {htobe64(0x3e889045565a9), htobe32(option), htobe32(type),
                                      htobe32(size)};

    return nbd_put(fd, &head, sizeof(head)) && nbd_put(fd, data, size);
}

/* Returns whether the client has chosen the disk. */
static inline bool nbd_handshake(const struct nbd_server *s, int fd)
{
    struct {
        uint64_t magic, version;
        uint16_t flags;
    } __attribute__((packed)) hello = {htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054),
                                       htobe16(1 | 2)};
    struct {
        uint64_t version;
        uint32_t option, size;
    } __attribute__((packed)) want;
    struct {
        uint16_t type;
        uint64_t size;
        uint16_t flags;
    } __attribute__((packed)) export = {htobe16(0), htobe64(s->size), htobe16(s->flags)};
    struct {
        uint16_t type;
        uint32_t least, best, most;
    } __attribute__((packed)) blocks = {htobe16(3), htobe32(s->manners.block),
                                        htobe32(s->manners.block), htobe32(32 << 20)};
    uint32_t client;
    char data[4096];

    if (!nbd_put(fd, &hello, sizeof(hello)) || !nbd_get(fd, &client, sizeof(client)))
        return false;
    while (nbd_get(fd, &want, sizeof(want)) && be32toh(want.size) <= sizeof(data) &&
           nbd_get(fd, data, be32toh(want.size))) {
        uint32_t option = be32toh(want.option);

        if (option == 7) /* go */
            return nbd_option_reply(fd, option, 3, &export, sizeof(export)) &&
                   (!s->manners.block ||
                    nbd_option_reply(fd, option, 3, &blocks, sizeof(blocks))) &&
                   nbd_option_reply(fd, option, 1, NULL, 0);
        if (!nbd_option_reply(fd, option, 0x80000001, NULL, 0))
            return false;
    }
    return false;
}

static inline bool nbd_trickle(int fd, const void *buffer, size_t size)
{
    for (const char *at = buffer; size > 0; at++, size--) {
        if (!nbd_put(fd, at, 1))
            return false;
        sleep(1);
    }
    return true;
}

/* Serves one request. Returns whether the connection goes on. */
static inline bool nbd_serve_one(struct nbd_server *s, int fd)
{
    struct {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t handle, offset;
        uint32_t size;
    } __attribute__((packed)) request;
    struct {
        uint32_t magic, error;
        uint64_t handle;
    } __attribute__((packed)) reply = {.magic = htobe32(0x67446698)};
    uint64_t offset, size;
    unsigned type;

    if (!nbd_get(fd, &request, sizeof(request)))
        return false;
    type = be16toh(request.type);
    offset = be64toh(request.offset);
    size = be32toh(request.size);
    if (type == 2 || type > 7 || offset > s->size || size > s->size - offset)
        return false;
    if (type == 1 && !nbd_get(fd, s->disk + offset, size))
        return false;
    s->counts[type]++;
    s->requests++;
    if (s->requests == s->manners.leaves)
        return false;
    if (s->manners.falls_mute && s->requests >= s->manners.falls_mute)
        return true;
    if (s->requests == s->manners.errs)
        reply.error = htobe32(s->manners.error);
    else if (type == 4 || type == 6)
        memset(s->disk + offset, 0, size);
    reply.handle = request.handle;
    if (s->manners.crawls && s->requests >= s->manners.crawls)
        usleep(200000);
    if (s->manners.trickles && s->requests >= s->manners.trickles)
        return nbd_trickle(fd, &reply, sizeof(reply));
    return nbd_put(fd, &reply, sizeof(reply)) &&
           (type != 0 || reply.error || nbd_put(fd, s->disk + offset, size));
}

static inline void *nbd_serve(void *opaque)
{
    struct nbd_server *s = opaque;
    int fd = accept(s->listener, NULL, NULL);
    char byte;

    if (s->manners.deaf)
        while (recv(fd, &byte, 1, 0) > 0)
            ;
    else if (!s->manners.rude && nbd_handshake(s, fd))
        while (nbd_serve_one(s, fd))
            ;
    close(fd);
    return NULL;
}

/* Starts a server of a disk of SIZE bytes. */
static inline void nbd_server_start(struct nbd_server *s, uint64_t size, uint16_t flags,
                                    struct nbd_manners manners)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(s, 0, sizeof(*s));
    s->size = size;
    s->flags = flags;
    s->manners = manners;
    s->disk = calloc(1, size);
    snprintf(s->path, sizeof(s->path), "unit-blk-nbd-%d", (int)getpid());
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", s->path);
    unlink(s->path);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(s->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(s->listener, 1) < 0 || pthread_create(&s->thread, NULL, nbd_serve, s))
        abort();
}

/* Waits for the client to be gone. */
static inline void nbd_server_end(struct nbd_server *s)
{
    pthread_join(s->thread, NULL);
    close(s->listener);
    unlink(s->path);
    free(s->disk);
}

#endif
