/*
 * A network of the process's own, by libslirp: the guest's connections become the host's sockets.
 */
#include "net/user.h"

#include "base/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* Frames that may have libslirp open a descriptor between two looks whether there are any left: far
 * fewer than are spared. */
#define OPENINGS 8u

static struct user *user_of(const struct net *net)
{
    return container_of((struct net *)net, struct user, net);
}

/* ---- Frames ---- */

/* Whether the frame may go in. Without descriptors, one that might open a socket is lost, as on a
 * network that is overloaded; the guest's connections go on. With the lock. */
static bool may_enter(struct user *user, const uint8_t *frame, size_t size)
{
    if (!user_frame_opens(frame, size))
        return true;
    if (user->openings == 0 && descriptors_left(&user->limit, user->event))
        user->openings = OPENINGS;
    if (user->openings == 0)
        return false;
    user->openings--;
    return true;
}

static bool user_send(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
                      const struct net_offload *offload)
{
    struct user *user = user_of(net);
    uint8_t *frame = iov[0].iov_base;

    slirp_library_enter();
    user_tell_time(user);
    if (may_enter(user, frame, size) && user_order_enter(user->order, frame, &size))
        user->library.input(user->slirp, frame, (int)size);
    user->changed = true;
    slirp_library_leave();
    return true;
}

static void user_flush(struct net *net)
{
    struct user *user = user_of(net);

    slirp_library_enter();
    user_look_again(user);
    slirp_library_leave();
}

static bool user_peek(struct net *net, struct net_frame *frame)
{
    struct user *user = user_of(net);

    if (ring_peek(&user->ring, frame))
        return true;
    atomic_store(&user->hungry, true);
    return ring_peek(&user->ring, frame); /* which may have come before that was seen */
}

static void user_drop(struct net *net)
{
    struct user *user = user_of(net);

    ring_drop(&user->ring);
    if (atomic_load(&user->throttled) && ring_used(&user->ring) < USER_RING_LOW &&
        atomic_exchange(&user->throttled, false))
        eventfd_write(user->event, 1);
}

static unsigned user_forward_port(const struct net *net, unsigned n)
{
    const struct user *user = user_of(net);

    return n < user->forwards ? user->ports[n] : 0;
}

static struct where *user_where(struct net *net, unsigned n)
{
    return n == 0 ? &user_of(net)->where : NULL;
}

/* ---- Making and unmaking ---- */

static void free_user(struct user *user)
{
    if (user->slirp) {
        slirp_library_enter();
        user->library.cleanup(user->slirp);
        slirp_library_leave();
    }
    while (user->timers) {
        struct user_timer *timer = user->timers;

        user->timers = timer->next;
        free(timer);
    }
    if (user->event >= 0)
        close(user->event);
    ring_destroy(&user->ring);
    user_order_free(user->order);
    free(user->wait.fds);
    free(user->fresh.fds);
    net_end_driver(&user->net);
    free(user);
}

static void user_close(struct net *net)
{
    struct user *user = user_of(net);

    user_thread_stop(user);
    free_user(user);
}

static const struct net_driver driver = {.send = user_send,
                                         .flush = user_flush,
                                         .peek = user_peek,
                                         .drop = user_drop,
                                         .forward_port = user_forward_port,
                                         .where = user_where,
                                         .close = user_close};

static struct in_addr address(uint32_t of)
{
    return (struct in_addr){htonl(of)};
}

static int make_slirp(struct user *user, const struct net_options *o, struct error *err)
{
    SlirpConfig config = {
        .version = 4,
        .restricted = o->restricted,
        .in_enabled = true,
        .vnetwork = address(o->network),
        .vnetmask = address(o->mask),
        .vhost = address(o->host),
        .vnameserver = address(o->dns),
        .vdhcp_start = address(o->dhcp),
        .in6_enabled = !o->no_ipv6,
        .vprefix_len = 64,
        .vhostname = o->hostname ? o->hostname : user->net.host->name,
        .tftp_path = o->tftp,
        .bootfile = o->bootfile,
        .if_mtu = user->net.info.mtu,
        .if_mru = user->net.info.mtu,
    };
    struct stat status;

    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    if (o->tftp && (stat(o->tftp, &status) < 0 || !S_ISDIR(status.st_mode)))
        return error_set(err, ENOTDIR, "network user: tftp=%s is no folder", o->tftp);
    slirp_library_enter();
    user->slirp = user->library.new(&config, &user_callbacks, user);
    slirp_library_leave();
    return user->slirp ? 0
                       : error_set(err, EINVAL, "network user: libslirp refuses these settings");
}

static int make_queue(struct user *user, struct error *err)
{
    user->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (user->event < 0)
        return error_set(err, errno, "network: cannot make an event file: %s", strerror(errno));
    return ring_create(&user->ring, USER_RING, err);
}

static int prepare(struct user *user, const struct net_options *options, struct error *err)
{
    int ret = slirp_library_load(&user->library, err);

    if (ret == 0) {
        user->order = user_order_create(err);
        ret = user->order ? 0 : -ENOMEM;
    }
    if (ret == 0)
        ret = make_queue(user, err);
    if (ret == 0)
        ret = make_slirp(user, options, err);
    for (unsigned i = 0; ret == 0 && i < options->forwards; i++)
        ret = user_add_forward(user, options, &options->forward[i], err);
    return ret < 0 ? ret : user_thread_start(user, err);
}

struct net *net_user_open(const struct net_options *options, const struct net_host *host,
                          struct error *err)
{
    struct user *user = calloc(1, sizeof(*user));

    if (!user) {
        error_set(err, ENOMEM, "network: out of memory");
        return NULL;
    }
    net_begin_driver(&user->net, &driver, options, host);
    user->net.takes = NET_TSO4 | NET_TSO6;
    user->net.linear = user->net.trusted = true;
    user->event = -1;
    descriptors_init(&user->limit, DESCRIPTORS_SOCKETS, "network user", host->log);
    if (prepare(user, options, err) < 0) {
        free_user(user);
        return NULL;
    }
    return &user->net;
}
