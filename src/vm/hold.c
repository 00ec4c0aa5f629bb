/*
 * A device that cannot go on because the host lacks something, such as room for a disk's image,
 * holds the machine: vCPUs stand still and so does guest time, but devices go on, so that what
 * could not be done is tried again until it can be. Unlike a pause, this is begun and ended from
 * any thread and waits for nothing.
 *
 *      device: vm_hold ----> vCPUs park, time stops
 *                            every second: board_retry ---> device tries again
 *      device: vm_release -> vCPUs and time go on  <-------- it could
 */
#include "vm/vm_private.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define RETRY_SECONDS 1

static void set_timer(struct vm *vm, bool on)
{
    const struct timespec period = {.tv_sec = on ? RETRY_SECONDS : 0};
    const struct itimerspec times = {.it_interval = period, .it_value = period};

    timerfd_settime(vm->retry_fd, 0, &times, NULL);
}

void vm_hold(struct vm *vm, const char *why)
{
    bool first;

    pthread_mutex_lock(&vm->lock);
    first = vm->holds++ == 0;
    if (first) {
        vm->pauses++;
        vm_stop_time(vm);
        set_timer(vm, true);
    }
    pthread_mutex_unlock(&vm->lock);
    if (first)
        vm_kick_all(vm);
    log_line(vm->log, LOG_LEVEL_WARNING, "%s", why);
    if (vm->events.held)
        vm->events.held(vm->events.opaque, why);
}

void vm_release(struct vm *vm, const char *why)
{
    pthread_mutex_lock(&vm->lock);
    if (--vm->holds == 0) {
        vm->pauses--;
        vm_start_time(vm);
        set_timer(vm, false);
        pthread_cond_broadcast(&vm->changed);
    }
    pthread_mutex_unlock(&vm->lock);
    if (!why)
        return;
    log_line(vm->log, LOG_LEVEL_INFO, "%s", why);
    if (vm->events.released)
        vm->events.released(vm->events.opaque, why);
}

bool vm_held(struct vm *vm)
{
    bool held;

    pthread_mutex_lock(&vm->lock);
    held = vm->holds;
    pthread_mutex_unlock(&vm->lock);
    return held;
}

void vm_retry(struct vm *vm)
{
    board_retry(vm->board);
}

/* On the event loop's thread. */
static void on_timer(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    uint64_t periods;

    if (read(vm->retry_fd, &periods, sizeof(periods)) > 0)
        board_retry(vm->board);
}

int vm_hold_init(struct vm *vm, struct error *err)
{
    vm->retry_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (vm->retry_fd < 0)
        return error_set(err, errno, "cannot create a timer: %s", strerror(errno));
    vm->retry_watch = loop_add(vm->loop, vm->retry_fd, EPOLLIN, on_timer, vm, err);
    return vm->retry_watch ? 0 : -ENOMEM;
}

void vm_hold_free(struct vm *vm)
{
    loop_remove(vm->retry_watch);
    if (vm->retry_fd >= 0)
        close(vm->retry_fd);
}
