/*
 * A network that another process serves: a switch, or a user network with isolate.
 *
 * Connections come over a link (remote_link.h). When one has ended, since the process was killed,
 * the cable is pulled out, and another one is asked for; whoever makes it starts the process again.
 *
 * The process of a user network parses what the guest sends, so it is not trusted: a connection
 * that was not asked for is closed, and one that ends soon is followed by the next one later
 * (retry.h).
 */
#include "net/driver.h"
#include "net/peer.h"
#include "net/remote_link.h"
#include "net/retry.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* For the first connection to come. */
#define PATIENCE_NS (30 * NS_PER_S)

struct remote {
    struct peer peer;
    int link;
    struct loop_watch *watch;
    struct retry retry;
    bool asked;    /* for a connection, which has not come */
    bool told;     /* that none can be had */
    char name[80]; /* for messages */
};

static struct remote *remote_of(struct net *net)
{
    return container_of(net, struct remote, peer.net);
}

/* ---- On the loop's thread ---- */

/* There was an answer without a connection. One that was asked for may be had later: a port of the
 * host's is another program's now, or a machine on the switch has this one's name. */
static void refused(struct remote *r, bool later, const struct error *err)
{
    if (!r->told || !later)
        log_tell(r->peer.net.host->log, LOG_LEVEL_ERROR, "network %s: %s%s", r->name, err->text,
                 later ? "; trying again" : "");
    r->told = true;
    if (later)
        retry_later(&r->retry);
    else
        loop_modify(r->watch, 0); /* the cable stays pulled out */
}

static void on_link(void *opaque, uint32_t events)
{
    struct remote *r = opaque;
    bool asked = r->asked;
    struct error err;
    int fd, ret = remote_link_take(r->link, &fd, &err);

    if (ret > 0 && !asked) {
        close(fd);
        return;
    }
    if (ret == 0)
        return;
    r->asked = false;
    if (ret > 0)
        ret = peer_connect(&r->peer, fd, &err);
    if (ret < 0) {
        refused(r, asked && !remote_link_closed(r->link), &err);
        return;
    }
    r->told = false;
    retry_connected(&r->retry);
    log_tell(r->peer.net.host->log, LOG_LEVEL_INFO, "network %s: connected again", r->name);
}

static void ask_again(void *opaque)
{
    struct remote *r = opaque;

    r->asked = true;
    remote_link_ask(r->link); /* if nobody is there, on_link sees that, too */
}

static void lost(struct peer *peer)
{
    struct remote *r = container_of(peer, struct remote, peer);

    log_tell(peer->net.host->log, LOG_LEVEL_WARNING,
             "network %s: the process behind it has ended; it is started again", r->name);
    retry_later(&r->retry);
}

/* ---- Making and unmaking ---- */

static void remote_close(struct net *net)
{
    struct remote *r = remote_of(net);

    /* These two may start what is ended below; the other way round, nothing is started. */
    loop_remove(r->watch);
    retry_stop(&r->retry);
    peer_end(&r->peer);
    retry_close(&r->retry);
    close(r->link);
    free(r);
}

static const struct net_driver driver = {.send = peer_send,
                                         .flush = peer_flush,
                                         .peek = peer_peek,
                                         .drop = peer_drop,
                                         .close = remote_close};

/* Waits for the first connection. */
static int connect_first(struct remote *r, struct error *err)
{
    uint64_t end = time_now_ns() + PATIENCE_NS, now;
    int fd, ret = remote_link_ask(r->link);

    if (ret < 0)
        return error_set(err, -ret, "network %s: nobody makes connections", r->name);
    while ((ret = remote_link_take(r->link, &fd, err)) == 0) {
        struct pollfd pfd = {r->link, POLLIN, 0};

        now = time_now_ns();
        if (now >= end)
            return error_set(err, ETIMEDOUT, "network %s: no connection comes", r->name);
        poll(&pfd, 1, (int)((end - now) / NS_PER_MS) + 1);
    }
    retry_connected(&r->retry);
    return ret < 0 ? ret : peer_connect(&r->peer, fd, err);
}

static int begin(struct remote *r, const struct net_options *options, const struct net_host *host,
                 struct error *err)
{
    if (peer_begin(&r->peer, options, host, &driver, true, lost, err) < 0)
        return -ENOMEM;
    if (retry_open(&r->retry, host->loop, ask_again, r, err) < 0) {
        peer_end(&r->peer);
        return -EIO;
    }
    if (connect_first(r, err) == 0)
        r->watch = loop_add(host->loop, r->link, EPOLLIN, on_link, r, err);
    if (r->watch)
        return 0;
    retry_stop(&r->retry);
    peer_end(&r->peer);
    retry_close(&r->retry);
    return -EIO;
}

struct net *net_remote_open(const struct net_options *options, const struct net_host *host,
                            struct error *err)
{
    const char *name = options->kind == NET_SWITCH ? options->target : NULL;
    struct remote *r = calloc(1, sizeof(*r));

    if (!r) {
        error_set(err, ENOMEM, "network: out of memory");
        return NULL;
    }
    snprintf(r->name, sizeof(r->name), "%s%s%s", net_kind_name(options->kind), name ? "=" : "",
             name ? name : "");
    r->link = host->remote ? host->remote(host->remote_opaque, name) : -ENOSYS;
    if (r->link < 0) {
        error_set(err, -r->link, "network %s: there is nobody to start the process behind it",
                  r->name);
        free(r);
        return NULL;
    }
    if (begin(r, options, host, err) < 0) {
        close(r->link);
        free(r);
        return NULL;
    }
    return &r->peer.net;
}
