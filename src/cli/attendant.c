/*
 * The attendant: a thread that always hears the user and the supervisor.
 */
#include "cli/attendant.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "base/where.h"
#include "cli/cli.h"
#include "con/keys.h"
#include "con/outbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Threads that are asked where they are answer at once, or not at all. */
#define ANSWER_NS (300 * NS_PER_MS)

#define KEYS_SIZE (16 * 1024)

struct attendant {
    const struct channel *channel;
    struct tty *tty;
    int wake_fd, signal_fd;
    int stop_fd; /* an eventfd: look again; leave */
    pthread_t listener;
    bool listens; /* the thread is there */
    struct where console;
    pthread_mutex_t watching; /* VM stays while this is held */
    struct doppel_vm *vm;

    pthread_mutex_t reading; /* while a key is read: held by nobody that waits */
    struct keys keys;
    struct outbox *typed;
    _Atomic bool terminal; /* the keys are the guest's */
    _Atomic bool help, resized, asked;
    _Atomic int wish;
};

/* ---- Where the threads are ---- */

static void tell_where(void *opaque, const char *text)
{
    const struct attendant *a = opaque;

    channel_send(a->channel->notes, false, NOTE_WHERE, 0, text);
}

static void tell_console(struct attendant *a)
{
    char where[800], text[900];

    if (!where_ask(&a->console))
        return;
    for (uint64_t end = time_now_ns() + ANSWER_NS;
         time_now_ns() < end && !where_has_answered(&a->console);)
        time_sleep_ns(NS_PER_MS);
    if (where_has_answered(&a->console))
        where_describe(&a->console, where, sizeof(where));
    else
        snprintf(where, sizeof(where), "does not answer");
    snprintf(text, sizeof(text), "console: %s", where);
    tell_where(a, text);
}

static void report(struct attendant *a)
{
    pthread_mutex_lock(&a->watching);
    if (a->vm)
        doppel_where(a->vm, tell_where, a);
    pthread_mutex_unlock(&a->watching);
    tell_console(a);
    channel_send(a->channel->notes, false, NOTE_REPORTED, 0, NULL);
}

/* ---- Listening ---- */

static void wake(const struct attendant *a)
{
    eventfd_write(a->wake_fd, 1);
}

static void want_end(struct attendant *a, int wish)
{
    int none = 0;

    atomic_compare_exchange_strong(&a->wish, &none, wish);
    wake(a);
}

static void press_button(struct attendant *a)
{
    pthread_mutex_lock(&a->watching);
    if (a->vm)
        doppel_power_button(a->vm);
    pthread_mutex_unlock(&a->watching);
}

/* The process that has the terminal's settings, and that would see to the end, is gone. */
__attribute__((noreturn)) static void end_alone(struct attendant *a)
{
    if (a->tty)
        tty_cooked(a->tty);
    _exit(STATUS_ERROR);
}

static void take_orders(struct attendant *a)
{
    struct message order;
    bool gone;

    while (channel_receive(a->channel->notes, &order, &gone)) {
        switch (order.kind) {
        case ORDER_END: want_end(a, order.value); break;
        case ORDER_SIGNAL:
            atomic_store(order.value == SIGWINCH ? &a->resized : &a->asked, true);
            wake(a);
            break;
        case ORDER_REPORT: report(a); break;
        case ORDER_BUTTON: press_button(a); break;
        default: break;
        }
    }
    if (gone)
        end_alone(a);
}

/* Those that this process got itself. What was sent to the whole process group, the supervisor has
 * got, too. */
static void take_signals(struct attendant *a)
{
    struct signalfd_siginfo info;

    while (read(a->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        want_end(a, (int)info.ssi_signo);
        channel_send(a->channel->notes, true, NOTE_SIGNAL, (int)info.ssi_signo, NULL);
    }
}

static void quit(struct attendant *a)
{
    want_end(a, ATTENDANT_QUIT);
    channel_send(a->channel->notes, true, NOTE_WISH, ATTENDANT_QUIT, NULL);
}

/* A key that the guest has no room for is lost, as on a real keyboard; the escape keys are not. */
static void take_keys(struct attendant *a, short events)
{
    uint8_t bytes[256];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    if ((n == 0 && events & (POLLHUP | POLLERR)) || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        atomic_store(&a->terminal, false);
        want_end(a, ATTENDANT_QUIT);
        channel_send(a->channel->notes, true, NOTE_SIGNAL, SIGHUP, NULL);
    }
    for (ssize_t i = 0; i < n; i++) {
        size_t size = 1;

        switch (keys_filter(&a->keys, &bytes[i], &size)) {
        case KEYS_QUIT: quit(a); break;
        case KEYS_HELP: atomic_store(&a->help, true); break;
        case KEYS_DETACH: break; /* the machine is this terminal's */
        case KEYS_NONE: outbox_put(a->typed, &bytes[i], size); break;
        }
    }
    if (n > 0)
        wake(a);
}

/* SIGTTIN stops a process that reads the terminal in the background; with it blocked the read would
 * fail instead, as it does when the terminal is gone. */
static void let_stop(void)
{
    sigset_t input;

    sigemptyset(&input);
    sigaddset(&input, SIGTTIN);
    pthread_sigmask(SIG_UNBLOCK, &input, NULL);
}

static void *listen_to_user(void *opaque)
{
    struct attendant *a = opaque;

    let_stop();
    for (;;) {
        struct pollfd pfd[] = {{a->stop_fd, POLLIN, 0},
                               {a->channel->notes, POLLIN, 0},
                               {a->signal_fd, POLLIN, 0},
                               {atomic_load(&a->terminal) ? STDIN_FILENO : -1, POLLIN, 0}};

        if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
            continue;
        if (pfd[0].revents) {
            eventfd_t count;

            eventfd_read(a->stop_fd, &count);
            if (count > 1)
                return NULL;
        }
        if (pfd[1].revents)
            take_orders(a);
        if (pfd[2].revents)
            take_signals(a);
        pthread_mutex_lock(&a->reading);
        if (pfd[3].revents && atomic_load(&a->terminal))
            take_keys(a, pfd[3].revents);
        pthread_mutex_unlock(&a->reading);
    }
}

/* ---- For the console ---- */

int attendant_wish(const struct attendant *a)
{
    return atomic_load(&a->wish);
}

bool attendant_help(struct attendant *a)
{
    return atomic_exchange(&a->help, false);
}

bool attendant_resized(struct attendant *a)
{
    return atomic_exchange(&a->resized, false);
}

bool attendant_asked(struct attendant *a)
{
    return atomic_exchange(&a->asked, false);
}

size_t attendant_keys(struct attendant *a, void *keys, size_t size)
{
    bool room;

    return outbox_take(a->typed, keys, size, &room);
}

void attendant_leave_terminal(struct attendant *a)
{
    pthread_mutex_lock(&a->reading);
    if (atomic_exchange(&a->terminal, false))
        eventfd_write(a->stop_fd, 1); /* it looks again what it listens to */
    pthread_mutex_unlock(&a->reading);
}

void attendant_watch(struct attendant *a, struct doppel_vm *vm)
{
    pthread_mutex_lock(&a->watching);
    a->vm = vm;
    pthread_mutex_unlock(&a->watching);
}

/* ---- Making and unmaking ---- */

/* The signals that end a process, of those that the supervisor takes: it has left them blocked. */
static int signals_to_fd(void)
{
    static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t set, blocked;

    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(ending); i++)
        if (sigismember(&blocked, ending[i]))
            sigaddset(&set, ending[i]);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool open_files(struct attendant *a)
{
    a->signal_fd = signals_to_fd();
    a->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return a->signal_fd >= 0 && a->stop_fd >= 0;
}

struct attendant *attendant_create(const struct channel *channel, struct tty *tty, int wake_fd,
                                   struct error *err)
{
    struct attendant *a = calloc(1, sizeof(*a));

    if (!a) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&a->reading, NULL);
    pthread_mutex_init(&a->watching, NULL);
    a->channel = channel;
    a->tty = tty;
    a->wake_fd = wake_fd;
    atomic_store(&a->terminal, tty != NULL);
    a->signal_fd = a->stop_fd = -1;
    a->typed = outbox_create(KEYS_SIZE, 0, wake_fd, err);
    if (!a->typed) {
        attendant_destroy(a);
        return NULL;
    }
    if (!open_files(a)) {
        error_set(err, errno, "cannot make an event file: %s", strerror(errno));
        attendant_destroy(a);
        return NULL;
    }
    where_begin(&a->console);
    /* What is ordered before the thread runs waits for it. */
    channel_send(channel->notes, true, NOTE_LISTENS, 0, NULL);
    a->listens = thread_start(&a->listener, "doppel-user", listen_to_user, a, err) == 0;
    if (!a->listens) {
        attendant_destroy(a);
        return NULL;
    }
    return a;
}

void attendant_destroy(struct attendant *a)
{
    if (!a)
        return;
    if (a->listens) {
        eventfd_write(a->stop_fd, 2);
        pthread_join(a->listener, NULL);
    }
    where_end(&a->console);
    if (a->signal_fd >= 0)
        close(a->signal_fd);
    if (a->stop_fd >= 0)
        close(a->stop_fd);
    outbox_destroy(a->typed);
    pthread_mutex_destroy(&a->reading);
    pthread_mutex_destroy(&a->watching);
    free(a);
}
