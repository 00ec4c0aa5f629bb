/*
 * A Unix socket that speaks QEMU's framing: passt, gvproxy, or another process of this kind.
 *
 * The process listens, and the network connects. When the connection has ended, the cable is pulled
 * out, and the network tries to connect again
 * from time to time.
 */
#include "net/driver.h"
#include "net/peer.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

/* It is tried again after the first time, and then less and less often. */
#define AGAIN_NS  (100 * NS_PER_MS)
#define SELDOM_NS (1600 * NS_PER_MS)

struct stream {
    struct peer peer;
    struct sockaddr_un address;
    int timer;
    struct loop_watch *timer_watch;
    uint64_t delay; /* before the next attempt */
};

static struct stream *stream_of(struct net *net)
{
    return container_of(net, struct stream, peer.net);
}

/* A connection to the socket, or -errno. Does not wait. */
static int dial(const struct stream *s)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), code;

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&s->address, sizeof(s->address)) == 0)
        return fd;
    code = errno;
    close(fd);
    return -code;
}

/* ---- When the other side is gone: on the loop's thread ---- */

static void try_later(struct stream *s)
{
    struct itimerspec in = {.it_value = time_spec(s->delay)};

    s->delay = MIN(2 * s->delay, SELDOM_NS);
    timerfd_settime(s->timer, 0, &in, NULL);
}

static void on_timer(void *opaque, uint32_t events)
{
    struct stream *s = opaque;
    struct error err;
    uint64_t count;
    int fd;

    if (read(s->timer, &count, sizeof(count)) < 0)
        return;
    fd = dial(s);
    if (fd < 0 || peer_connect(&s->peer, fd, &err) < 0)
        try_later(s);
    else
        log_tell(s->peer.net.host->log, LOG_LEVEL_INFO, "network stream=%s: connected again",
                 s->address.sun_path);
}

static void lost(struct peer *peer)
{
    struct stream *s = container_of(peer, struct stream, peer);

    log_tell(peer->net.host->log, LOG_LEVEL_WARNING,
             "network stream=%s: the other side has closed the connection; connecting again",
             s->address.sun_path);
    s->delay = AGAIN_NS;
    try_later(s);
}

/* ---- Making and unmaking ---- */

static void stream_close(struct net *net)
{
    struct stream *s = stream_of(net);

    /* Either may start the other one. The timer goes first: a job that is running ends then. */
    loop_remove(s->timer_watch);
    peer_end(&s->peer);
    close(s->timer);
    free(s);
}

static const struct net_driver driver = {.send = peer_send,
                                         .flush = peer_flush,
                                         .peek = peer_peek,
                                         .drop = peer_drop,
                                         .close = stream_close};

static int open_timer(struct stream *s, struct loop *loop, struct error *err)
{
    s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (s->timer < 0)
        return error_set(err, errno, "network: cannot make a timer: %s", strerror(errno));
    s->timer_watch = loop_add(loop, s->timer, EPOLLIN, on_timer, s, err);
    if (!s->timer_watch) {
        close(s->timer);
        return -ENOMEM;
    }
    return 0;
}

static int set_address(struct stream *s, const char *path, struct error *err)
{
    s->address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(s->address.sun_path))
        return error_set(err, ENAMETOOLONG,
                         "network stream=%s: a socket's path has at most %zu bytes", path,
                         sizeof(s->address.sun_path) - 1);
    strcpy(s->address.sun_path, path);
    return 0;
}

/* The first connection, which must be had. */
static int connect_first(struct stream *s, struct error *err)
{
    int fd = dial(s);

    if (fd < 0)
        return error_set(
            err, -fd, "network stream=%s: cannot connect: %s%s", s->address.sun_path, strerror(-fd),
            fd == -ENOENT || fd == -ECONNREFUSED ? "; start what serves it (passt, ...) first"
                                                 : "");
    return peer_connect(&s->peer, fd, err);
}

struct net *net_stream_open(const struct net_options *options, const struct net_host *host,
                            struct error *err)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (!s) {
        error_set(err, ENOMEM, "network: out of memory");
        return NULL;
    }
    if (set_address(s, options->target, err) < 0 ||
        peer_begin(&s->peer, options, host, &driver, false, lost, err) < 0) {
        free(s);
        return NULL;
    }
    if (open_timer(s, host->loop, err) < 0) {
        peer_end(&s->peer);
        free(s);
        return NULL;
    }
    if (connect_first(s, err) < 0) {
        stream_close(&s->peer.net);
        return NULL;
    }
    return &s->peer.net;
}
