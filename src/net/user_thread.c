/*
 * The thread of a user network, which waits for its sockets.
 */
#include "net/user.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Sockets are not read from while this much waits for the guest. */
#define RING_HIGH (1 * MiB)
/* libslirp's clock is set if nothing else has set it for so long. */
#define CLOCK_NS (20 * NS_PER_MS)

/* ---- Being woken ---- */

void user_look_again(struct user *user)
{
    user_collect(user, &user->fresh);
    user->changed = true;
    if (user->waiting && !user_covers(&user->wait, &user->fresh))
        eventfd_write(user->event, 1);
}

void user_tell_time(struct user *user)
{
    uint64_t now = time_now_ns();

    if (now - user->looked < CLOCK_NS)
        return;
    user->looked = now;
    user->library.pollfds_poll(user->slirp, 1, user_get_revents, &user->fresh);
}

/* ---- The thread ---- */

static int timeout_ms(uint64_t until)
{
    uint64_t now = time_now_ns();

    if (until == UINT64_MAX)
        return -1;
    return now >= until ? 0 : (int)MIN((until - now) / NS_PER_MS + 1, UINT64_C(60000));
}

static void run_timers(struct user *user)
{
    uint64_t now = time_now_ns();

    for (struct user_timer *timer = user->timers, *next; timer; timer = next) {
        next = timer->next;
        if (timer->at > now)
            continue;
        timer->at = UINT64_MAX;
        timer->call(timer->opaque);
    }
}

/* Decides whether sockets are read from. */
static void throttle(struct user *user)
{
    atomic_store(&user->throttled, ring_used(&user->ring) > RING_HIGH);
    /* If the guest has taken the last frames before that was to be seen, it wakes nobody. */
    if (ring_used(&user->ring) < USER_RING_LOW)
        atomic_store(&user->throttled, false);
}

/* Waits once, and does what there is to be done. With the lock, which is released meanwhile. */
static void turn(struct user *user)
{
    eventfd_t count;
    int n;

    user->changed = false;
    throttle(user);
    user_collect(user, &user->wait);
    user->waiting = true;
    slirp_library_leave();
    n = poll(user->wait.fds, user->wait.count, timeout_ms(user->wait.until));
    slirp_library_enter();
    user->waiting = false;
    if (n > 0 && user->wait.fds[0].revents)
        eventfd_read(user->event, &count);
    if (user->changed) { /* libslirp's numbers of sockets are those of `fresh` now */
        user_collect(user, &user->wait);
        n = poll(user->wait.fds, user->wait.count, 0);
    }
    user->looked = time_now_ns();
    user_hold_accepts(user, &user->wait);
    user->library.pollfds_poll(user->slirp, n < 0, user_get_revents, &user->wait);
    run_timers(user);
}

static void *serve(void *opaque)
{
    struct user *user = opaque;

    where_begin(&user->where);
    slirp_library_enter();
    while (!user->ending)
        turn(user);
    slirp_library_leave();
    where_end(&user->where);
    return NULL;
}

int user_thread_start(struct user *user, struct error *err)
{
    return thread_start(&user->thread, "net user", serve, user, err);
}

void user_thread_stop(struct user *user)
{
    slirp_library_enter();
    user->ending = true;
    slirp_library_leave();
    eventfd_write(user->event, 1);
    pthread_join(user->thread, NULL);
}

/* ---- What libslirp calls: with its lock ---- */

static ssize_t send_packet(const void *data, size_t size, void *opaque)
{
    static const struct net_offload complete;
    struct user *user = opaque;

    user_order_answer(user->order, data, size);
    if (size > NET_FRAME_MOST || !ring_put(&user->ring, data, size, &complete)) {
        user->dropped++;
        return (ssize_t)size;
    }
    if (atomic_exchange(&user->hungry, false))
        net_ready(&user->net);
    return (ssize_t)size;
}

static void guest_error(const char *message, void *opaque)
{
    struct user *user = opaque;

    log_line(user->net.host->log, LOG_LEVEL_DEBUG, "network user: the guest: %s", message);
}

static int64_t clock_get_ns(void *opaque)
{
    return (int64_t)time_now_ns();
}

static void *timer_new(SlirpTimerCb call, void *call_opaque, void *opaque)
{
    struct user *user = opaque;
    struct user_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        abort(); /* as GLib does, which libslirp allocates with */
    *timer = (struct user_timer){
        .next = user->timers, .call = call, .opaque = call_opaque, .at = UINT64_MAX};
    user->timers = timer;
    return timer;
}

static void timer_free(void *of, void *opaque)
{
    struct user *user = opaque;
    struct user_timer **link = &user->timers;

    while (*link && *link != of)
        link = &(*link)->next;
    if (*link)
        *link = (*link)->next;
    free(of);
}

static void timer_mod(void *of, int64_t expire_ms, void *opaque)
{
    struct user_timer *timer = of;

    timer->at = (uint64_t)MAX(expire_ms, INT64_C(0)) * NS_PER_MS;
}

static void nothing_fd(int fd, void *opaque)
{
}

static void notify(void *opaque)
{
    struct user *user = opaque;

    user->changed = true;
}

const SlirpCb user_callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = nothing_fd,
    .unregister_poll_fd = nothing_fd,
    .notify = notify,
};
