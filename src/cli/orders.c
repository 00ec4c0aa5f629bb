/*
 * What the supervisor has the VM process do to its machine.
 */
#include "cli/orders.h"

#include "base/thread.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct orders {
    struct doppel_vm *vm;
    int socket;
    int stop_fd; /* an eventfd: readable when the thread shall leave */
    struct doppel_events *events;
    pthread_t thread;
};

/* Waits until the supervisor takes a message. False: the thread shall leave first. */
static bool wait_for_room(const struct orders *o)
{
    struct pollfd pfd[] = {{o->socket, POLLOUT, 0}, {o->stop_fd, POLLIN, 0}};

    while (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
        ;
    return !pfd[1].revents;
}

static void send_back(const struct orders *o, enum channel_kind kind, int value, const void *data,
                      size_t size)
{
    while (!channel_send_data(o->socket, false, kind, value, data, size) && errno == EAGAIN)
        if (!wait_for_room(o))
            return;
}

/* ---- Work ---- */

static void put_stats(const struct orders *o, struct work_done *done)
{
    struct doppel_stats stats = {0};

    doppel_stats(o->vm, &stats);
    done->instructions = stats.instructions;
    done->run_ns = stats.run_ns;
    done->elapsed_ns = stats.elapsed_ns;
    done->guest_resident = stats.guest_resident;
    done->resident = stats.resident;
}

static void do_work(const struct orders *o, int what, const struct work_order *order)
{
    struct work_done done = {.order.number = order->number};
    struct doppel_error err = {0};
    int ret = 0;

    switch (what) {
    case WORK_PAUSE: ret = doppel_pause(o->vm, &err); break;
    case WORK_RESUME: ret = doppel_resume(o->vm, &err); break;
    case WORK_STATS: put_stats(o, &done); break;
    case WORK_CONSOLE_SIZE:
        doppel_console_resize(o->vm, order->argument[0], order->argument[1]);
        break;
    case WORK_NETWORK:
        ret = doppel_change_network(o->vm, order->argument[0], order->text, &err);
        break;
    default:
        ret = -ENOSYS;
        snprintf(err.text, sizeof(err.text), "the VM process does not know this work");
        break;
    }
    snprintf(done.order.text, sizeof(done.order.text), "%s", err.text);
    send_back(o, DONE, ret, &done, sizeof(done));
}

/* ---- The thread ---- */

static void tell_events(const struct orders *o)
{
    struct doppel_event event;

    while (doppel_events_next(o->events, 0, &event) == 0)
        if (event.kind != DOPPEL_EVENT_LOG) /* these the supervisor has already */
            send_back(o, EVENT, event.kind, event.text, strnlen(event.text, sizeof(event.text)));
}

static void *serve(void *opaque)
{
    struct orders *o = opaque;
    bool gone = false;

    while (!gone) {
        struct pollfd pfd[] = {{o->socket, POLLIN, 0},
                               {doppel_events_fd(o->events), POLLIN, 0},
                               {o->stop_fd, POLLIN, 0}};
        struct message message;

        if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
            continue;
        if (pfd[1].revents)
            tell_events(o);
        if (pfd[2].revents)
            return NULL;
        if (pfd[0].revents && channel_receive(o->socket, &message, &gone) && message.kind == WORK)
            do_work(o, message.value, &message.work);
    }
    return NULL;
}

static void free_orders(struct orders *o)
{
    if (o->events)
        doppel_events_close(o->events);
    if (o->stop_fd >= 0)
        close(o->stop_fd);
    free(o);
}

void orders_end(struct orders *o)
{
    if (!o)
        return;
    eventfd_write(o->stop_fd, 1);
    pthread_join(o->thread, NULL);
    free_orders(o);
}

struct orders *orders_begin(struct doppel_vm *vm, const struct channel *channel, struct error *err)
{
    struct orders *o = calloc(1, sizeof(*o));
    struct doppel_error why = {0};

    if (!o) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    o->vm = vm;
    o->socket = channel->work;
    o->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (o->stop_fd < 0)
        error_set(err, errno, "cannot make an event file: %s", strerror(errno));
    else if (!(o->events = doppel_events_open(vm, &why)))
        error_set(err, why.code, "%s", why.text);
    else if (thread_start(&o->thread, "doppel-orders", serve, o, err) == 0)
        return o;
    free_orders(o);
    return NULL;
}
