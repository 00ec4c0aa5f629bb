/*
 * A Unix socket that speaks QEMU's framing: passt, gvproxy, or another process of this kind.
 *
 * The process listens, and the network connects. When the connection has ended, the cable is pulled
 * out, and the network tries to connect again from time to time (retry.h).
 */
#include "net/driver.h"
#include "net/peer.h"
#include "net/retry.h"

#include "base/unix_socket.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stream {
    struct peer peer;
    char path[UNIX_SOCKET_PATH_MAX + 1];
    struct retry retry;
};

static struct stream *stream_of(struct net *net)
{
    return container_of(net, struct stream, peer.net);
}

/* ---- When the other side is gone: on the loop's thread ---- */

static void connect_again(void *opaque)
{
    struct stream *s = opaque;
    struct error err;
    int fd = unix_socket_connect(s->path, NULL);

    if (fd < 0 || peer_connect(&s->peer, fd, &err) < 0) {
        retry_later(&s->retry);
        return;
    }
    retry_connected(&s->retry);
    log_tell(s->peer.net.host->log, LOG_LEVEL_INFO, "network stream=%s: connected again", s->path);
}

static void lost(struct peer *peer)
{
    struct stream *s = container_of(peer, struct stream, peer);

    log_tell(peer->net.host->log, LOG_LEVEL_WARNING,
             "network stream=%s: the other side has closed the connection; connecting again",
             s->path);
    retry_later(&s->retry);
}

/* ---- Making and unmaking ---- */

static void stream_close(struct net *net)
{
    struct stream *s = stream_of(net);

    /* Either may start the other one. The timer goes first: a job that is running ends then, and
     * can only set a timer that nobody watches. */
    retry_stop(&s->retry);
    peer_end(&s->peer);
    retry_close(&s->retry);
    free(s);
}

static const struct net_driver driver = {.send = peer_send,
                                         .flush = peer_flush,
                                         .peek = peer_peek,
                                         .drop = peer_drop,
                                         .close = stream_close};

static int set_path(struct stream *s, const char *path, struct error *err)
{
    if (strlen(path) > UNIX_SOCKET_PATH_MAX)
        return error_set(err, ENAMETOOLONG,
                         "network stream=%s: a socket's path has at most %zu bytes", path,
                         UNIX_SOCKET_PATH_MAX);
    strcpy(s->path, path);
    return 0;
}

/* The first connection, which must be had. */
static int connect_first(struct stream *s, struct error *err)
{
    int fd = unix_socket_connect(s->path, NULL);

    if (fd < 0)
        return error_set(
            err, -fd, "network stream=%s: cannot connect: %s%s", s->path, strerror(-fd),
            fd == -ENOENT || fd == -ECONNREFUSED ? "; start what serves it (passt, ...) first"
                                                 : "");
    retry_connected(&s->retry);
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
    if (set_path(s, options->target, err) < 0 ||
        peer_begin(&s->peer, options, host, &driver, false, lost, err) < 0) {
        free(s);
        return NULL;
    }
    if (retry_open(&s->retry, host->loop, connect_again, s, err) < 0) {
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
