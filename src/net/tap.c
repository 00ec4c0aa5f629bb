/*
 * A TAP interface of the host (Linux, Documentation/networking/tuntap.rst), which somebody has made
 * for this user: `ip tuntap add IF mode tap user USER`. Frames pass with what they leave undone:
 * the interface's header is the one of virtio.
 */
#include "net/driver.h"

#include "base/buffers.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct tap {
    struct net net;
    int fd;
    struct loop_watch *watch;
    pthread_mutex_t lock; /* guards WANTED; only the loop's is taken with it held */
    uint32_t wanted;      /* EPOLLIN: receiving found nothing; EPOLLOUT: sending found no room */
    struct net_offload head;
    uint8_t *buffer; /* of NET_FRAME_MOST bytes: the frame that was read */
    size_t size;     /* 0: there is none */
};

_Static_assert(sizeof(struct net_offload) == 10, "struct virtio_net_hdr");

static struct tap *tap_of(struct net *net)
{
    return container_of(net, struct tap, net);
}

/* Has the loop watch for EVENTS, too. */
static void want(struct tap *tap, uint32_t events)
{
    pthread_mutex_lock(&tap->lock);
    tap->wanted |= events;
    loop_modify(tap->watch, tap->wanted);
    pthread_mutex_unlock(&tap->lock);
}

static void on_event(void *opaque, uint32_t events)
{
    struct tap *tap = opaque;

    pthread_mutex_lock(&tap->lock);
    /* An interface that was removed is an error for ever, which nothing more is to be seen of. */
    tap->wanted = events & EPOLLERR ? 0 : tap->wanted & ~events;
    loop_modify(tap->watch, tap->wanted);
    pthread_mutex_unlock(&tap->lock);
    if (events & EPOLLERR && net_up(&tap->net)) {
        log_tell(tap->net.host->log, LOG_LEVEL_WARNING, "network tap: the interface is gone");
        net_set_up(&tap->net, false);
    }
    net_ready(&tap->net);
}

/* ---- Frames ---- */

static bool tap_send(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
                     const struct net_offload *offload)
{
    struct tap *tap = tap_of(net);
    struct iovec all[64] = {{(void *)offload, sizeof(*offload)}};
    uint8_t *copy = NULL;
    ssize_t n;

    if (iovs < ARRAY_SIZE(all)) {
        memcpy(&all[1], iov, iovs * sizeof(iov[0]));
    } else { /* so many pieces are rare */
        copy = malloc(size);
        if (!copy)
            return true;
        buffers_gather(iov, 0, copy, size);
        all[1] = (struct iovec){copy, size};
        iovs = 1;
    }
    n = writev(tap->fd, all, (int)iovs + 1);
    free(copy);
    if (n >= 0 || errno != EAGAIN)
        return true; /* what an interface that is down refuses is lost */
    want(tap, EPOLLOUT);
    return false;
}

static bool tap_peek(struct net *net, struct net_frame *frame)
{
    struct tap *tap = tap_of(net);
    struct iovec iov[2] = {{&tap->head, sizeof(tap->head)}, {tap->buffer, NET_FRAME_MOST}};

    if (tap->size == 0) {
        ssize_t n = readv(tap->fd, iov, 2);

        if (n <= (ssize_t)sizeof(tap->head)) {
            if (net_up(net))
                want(tap, EPOLLIN);
            return false;
        }
        tap->size = (size_t)n - sizeof(tap->head);
    }
    *frame = (struct net_frame){.data = tap->buffer, .size = tap->size, .offload = tap->head};
    return true;
}

static void tap_drop(struct net *net)
{
    tap_of(net)->size = 0;
}

static void tap_accepts(struct net *net, unsigned accepts)
{
    unsigned long flags = (accepts & NET_CHECKSUM ? TUN_F_CSUM : 0u) |
                          (accepts & NET_TSO4 ? TUN_F_TSO4 : 0u) |
                          (accepts & NET_TSO6 ? TUN_F_TSO6 : 0u);

    /* Where it fails, frames come as before, and are finished here. */
    ioctl(tap_of(net)->fd, TUNSETOFFLOAD, flags);
}

/* ---- Making and unmaking ---- */

static void free_tap(struct tap *tap)
{
    loop_remove(tap->watch);
    if (tap->fd >= 0)
        close(tap->fd);
    pthread_mutex_destroy(&tap->lock);
    free(tap->buffer);
    net_end_driver(&tap->net);
    free(tap);
}

static void tap_close(struct net *net)
{
    free_tap(tap_of(net));
}

static const struct net_driver driver = {.send = tap_send,
                                         .peek = tap_peek,
                                         .drop = tap_drop,
                                         .accepts = tap_accepts,
                                         .close = tap_close};

static int refuse(const char *name, int code, struct error *err)
{
    const char *advice = "";

    if (code == EPERM || code == EACCES)
        advice = "; root lets this user have it by: ip tuntap add IF mode tap user USER";
    if (code == EBUSY)
        advice = "; another program has it";
    if (code == EINVAL)
        advice = "; that is no TAP interface, or one with several queues (multi_queue)";
    if (code == ENOENT || code == ENODEV || code == ENXIO)
        advice = "; this host has no TUN/TAP (/dev/net/tun)";
    return error_set(err, code, "network tap=%s: cannot have the interface: %s%s", name,
                     strerror(code), advice);
}

static unsigned mtu_of(const struct ifreq *request)
{
    struct ifreq asked = *request;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned mtu = 0;

    if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &asked) == 0 && asked.ifr_mtu >= 68 &&
        asked.ifr_mtu <= 65535)
        mtu = (unsigned)asked.ifr_mtu;
    if (fd >= 0)
        close(fd);
    return mtu;
}

static int open_tap(struct tap *tap, const char *name, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int head = sizeof(tap->head);

    if (strlen(name) >= sizeof(request.ifr_name))
        return error_set(err, EINVAL, "network tap=%s: an interface's name has at most %zu bytes",
                         name, sizeof(request.ifr_name) - 1);
    strcpy(request.ifr_name, name);
    tap->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap->fd < 0 || ioctl(tap->fd, TUNSETIFF, &request) < 0 ||
        ioctl(tap->fd, TUNSETVNETHDRSZ, &head) < 0)
        return refuse(name, errno, err);
    if (!tap->net.info.mtu)
        tap->net.info.mtu = mtu_of(&request);
    tap->buffer = malloc(NET_FRAME_MOST);
    if (!tap->buffer)
        return error_set(err, ENOMEM, "network: out of memory");
    tap->watch = loop_add(tap->net.host->loop, tap->fd, 0, on_event, tap, err);
    return tap->watch ? 0 : -ENOMEM;
}

struct net *net_tap_open(const struct net_options *options, const struct net_host *host,
                         struct error *err)
{
    struct tap *tap = calloc(1, sizeof(*tap));

    if (!tap) {
        error_set(err, ENOMEM, "network: out of memory");
        return NULL;
    }
    net_begin_driver(&tap->net, &driver, options, host);
    tap->net.takes = NET_CHECKSUM | NET_TSO4 | NET_TSO6;
    tap->fd = -1;
    pthread_mutex_init(&tap->lock, NULL);
    if (open_tap(tap, options->target, err) < 0) {
        free_tap(tap);
        return NULL;
    }
    return &tap->net;
}
