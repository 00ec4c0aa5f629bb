/*
 * What comes to a port of the host's and goes to the guest's: forwards of a user network.
 */
#include "net/user.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Connections that wait to be accepted at a forwarded port: libslirp lets one. */
#define BACKLOG 128

union address {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
};

static socklen_t size_of(const union address *at)
{
    return at->any.sa_family == AF_INET6 ? sizeof(at->in6) : sizeof(at->in4);
}

/* What libslirp listens at for the forward that was made last: the socket of WAIT that is none of
 * OLD. -1: there is none. */
static int new_socket(const struct user_wait *wait, const struct user_wait *old)
{
    for (unsigned i = 1; i < wait->count; i++) {
        bool known = false;

        for (unsigned j = 1; j < old->count; j++)
            known |= old->fds[j].fd == wait->fds[i].fd;
        if (!known)
            return wait->fds[i].fd;
    }
    return -1;
}

static unsigned port_of(int fd)
{
    union address at = {.any.sa_family = AF_UNSPEC};
    socklen_t size = sizeof(at);

    if (fd < 0 || getsockname(fd, &at.any, &size) < 0)
        return 0;
    switch (at.any.sa_family) {
    case AF_INET: return ntohs(at.in4.sin_port);
    case AF_INET6: return ntohs(at.in6.sin6_port);
    default: return 0;
    }
}

static int refuse(const struct net_forward *f, int code, struct error *err)
{
    struct in_addr in = {htonl(f->address)};
    char host[INET6_ADDRSTRLEN];
    const char *advice = "";

    inet_ntop(f->ipv6 ? AF_INET6 : AF_INET, f->ipv6 ? (const void *)f->address6 : &in, host,
              sizeof(host));
    if (code == EADDRINUSE)
        advice = ": another program has it; choose another one, or 0 for any that is free";
    if (code == EACCES)
        advice = ": only root may have ports below net.ipv4.ip_unprivileged_port_start";
    if (code == EADDRNOTAVAIL || code == EAFNOSUPPORT)
        advice = ": it is no address of this host";
    return error_set(err, code, "network user: cannot listen at %s port %u of %s: %s%s",
                     f->udp ? "UDP" : "TCP", f->port, host, strerror(code), advice);
}

/* Where F listens, and where it leads to. The guest's address of IPv6 is left open: libslirp takes
 * the one by which the guest has last been seen. */
static void addresses_of(const struct net_options *o, const struct net_forward *f,
                         union address *from, union address *to)
{
    if (f->ipv6) {
        *from = (union address){.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(f->port)}};
        memcpy(&from->in6.sin6_addr, f->address6, sizeof(f->address6));
        *to = (union address){.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(f->guest_port)}};
        return;
    }
    *from = (union address){.in4 = {.sin_family = AF_INET,
                                    .sin_port = htons(f->port),
                                    .sin_addr = {htonl(f->address)}}};
    *to = (union address){.in4 = {.sin_family = AF_INET,
                                  .sin_port = htons(f->guest_port),
                                  .sin_addr = {htonl(o->dhcp)}}};
}

int user_add_forward(struct user *user, const struct net_options *o, const struct net_forward *f,
                     struct error *err)
{
    /* Of UDP over IPv6 there is none: libslirp 4.7 passes a pointer that is NULL to
     * icmp6_send_error when the guest's address is not known (sorecvfrom). */
    int flags = (f->udp ? SLIRP_HOSTFWD_UDP : 0) | (f->ipv6 ? SLIRP_HOSTFWD_V6ONLY : 0);
    union address from, to;
    int ret, code, fd;

    addresses_of(o, f, &from, &to);
    slirp_library_enter();
    user_collect(user, &user->fresh);
    ret = user->library.add_hostxfwd(user->slirp, &from.any, size_of(&from), &to.any, size_of(&to),
                                     flags);
    code = errno;
    user_collect(user, &user->wait);
    fd = new_socket(&user->wait, &user->fresh);
    slirp_library_leave();
    if (ret < 0)
        return refuse(f, code, err);
    if (!f->udp && fd >= 0) {
        listen(fd, BACKLOG);
        user->listener[user->listeners++] = fd;
    }
    user->ports[user->forwards++] = port_of(fd);
    return 0;
}
