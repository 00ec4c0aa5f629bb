/*
 * What a user network waits for.
 */
#include "net/user.h"

#include "base/time.h"

#include <stdlib.h>

/* How long nothing is accepted when there are too few descriptors. */
#define ACCEPT_AGAIN_NS (100 * NS_PER_MS)

static bool make_room(struct user_wait *wait)
{
    unsigned room = MAX(2 * wait->room, 16u);
    struct pollfd *grown;

    if (wait->count < wait->room)
        return true;
    grown = reallocarray(wait->fds, room, sizeof(*grown));
    if (!grown)
        return false;
    wait->fds = grown;
    wait->room = room;
    return true;
}

static void add(struct user_wait *wait, int fd, short events)
{
    if (make_room(wait))
        wait->fds[wait->count++] = (struct pollfd){.fd = fd, .events = events};
}

static int add_poll(int fd, int events, void *opaque)
{
    static const short bits[][2] = {{SLIRP_POLL_IN, POLLIN},
                                    {SLIRP_POLL_OUT, POLLOUT},
                                    {SLIRP_POLL_PRI, POLLPRI},
                                    {SLIRP_POLL_ERR, POLLERR},
                                    {SLIRP_POLL_HUP, POLLHUP}};
    struct user_wait *wait = opaque;
    short wanted = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
        if (events & bits[i][0])
            wanted |= bits[i][1];
    if (!make_room(wait))
        return -1; /* and is looked at when there is memory */
    add(wait, fd, wanted);
    return (int)wait->count - 1;
}

int user_get_revents(int index, void *opaque)
{
    const struct user_wait *wait = opaque;
    short got = index >= 0 && (unsigned)index < wait->count ? wait->fds[index].revents : 0;

    return (got & POLLIN ? SLIRP_POLL_IN : 0) | (got & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (got & POLLPRI ? SLIRP_POLL_PRI : 0) | (got & POLLERR ? SLIRP_POLL_ERR : 0) |
           (got & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* ---- Accepting ---- */

static bool is_listener(const struct user *user, int fd)
{
    for (unsigned i = 0; i < user->listeners; i++)
        if (user->listener[i] == fd)
            return true;
    return false;
}

/* Has WAIT wait without the forwarded ports as long as nothing is to be accepted. */
static void leave_out_listeners(struct user *user, struct user_wait *wait)
{
    if (!user->accept_at)
        return;
    if (time_now_ns() >= user->accept_at) {
        user->accept_at = 0;
        return;
    }
    for (unsigned i = 1; i < wait->count; i++)
        if (is_listener(user, wait->fds[i].fd))
            wait->fds[i].fd = -1;
    wait->until = MIN(wait->until, user->accept_at);
}

void user_hold_accepts(struct user *user, struct user_wait *wait)
{
    for (unsigned i = 1; i < wait->count; i++) {
        struct pollfd *p = &wait->fds[i];

        if (p->revents && is_listener(user, p->fd) &&
            !descriptors_left(&user->limit, user->event)) {
            p->revents = 0;
            user->accept_at = time_now_ns() + ACCEPT_AGAIN_NS;
        }
    }
}

/* ---- All of it ---- */

void user_collect(struct user *user, struct user_wait *wait)
{
    uint32_t timeout = UINT32_MAX;

    wait->count = 0;
    add(wait, user->event, POLLIN);
    user->library.pollfds_fill(user->slirp, &timeout, add_poll, wait);
    if (atomic_load(&user->throttled))
        wait->count = MIN(wait->count, 1u);
    wait->until = timeout == UINT32_MAX ? UINT64_MAX : time_now_ns() + timeout * NS_PER_MS;
    for (struct user_timer *timer = user->timers; timer; timer = timer->next)
        wait->until = MIN(wait->until, timer->at);
    leave_out_listeners(user, wait);
}

bool user_covers(const struct user_wait *old, const struct user_wait *new)
{
    if (old->count != new->count || new->until < old->until)
        return false;
    for (unsigned i = 0; i < old->count; i++)
        if (old->fds[i].fd != new->fds[i].fd || old->fds[i].events != new->fds[i].events)
            return false;
    return true;
}
