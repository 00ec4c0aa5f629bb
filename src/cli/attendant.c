/*
 * The attendant: a thread that always hears the user.
 *
 * Two threads, in truth. What the report does (name threads, write to standard error) may hang as
 * well, so it has a thread of its own, which is there from the beginning, as making one takes
 * locks.
 */
#include "cli/attendant.h"

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

/* For the rest to come to its end, after the first wish and after the second; and for the report.
 * The last two together are below 3 s. */
#define FIRST_GRACE_MS  10000
#define SECOND_GRACE_MS 1500
#define REPORT_MS       1000
/* Threads that are asked where they are answer at once, or not at all. */
#define ANSWER_MS 300

#define KEYS_SIZE (16 * 1024)

struct attendant {
    struct tty *tty;
    int wake_fd, signal_fd;
    int stop_fd, late_fd, reported_fd; /* eventfds: leave; report; the report is written */
    pthread_t listener, reporter;
    bool listens, reports; /* the threads are there */
    struct where console;
    _Atomic(struct doppel_vm *) vm;

    pthread_mutex_t reading; /* while a key is read: held by nobody that waits */
    struct keys keys;
    struct outbox *typed;
    _Atomic bool terminal; /* the keys are the guest's */
    _Atomic bool help;
    _Atomic int wish, last_wish;
    int64_t deadline; /* when the process is ended by force; 0: never */
};

static int64_t now_ms(void)
{
    return (int64_t)(time_now_ns() / NS_PER_MS);
}

/* ---- The last resort ---- */

/* Not by way of stdio, whose locks a stuck thread may hold. */
static void say(void *opaque, const char *text)
{
    char line[1024];
    int size = snprintf(line, sizeof(line), "doppel:   %s\n", text);

    (void)opaque;
    if (write(STDERR_FILENO, line, MIN((size_t)size, sizeof(line))) < 0)
        errno = 0; /* there is nobody to tell */
}

static void say_console(struct attendant *a)
{
    char where[800], text[900];

    if (!where_ask(&a->console))
        return;
    for (int64_t end = now_ms() + ANSWER_MS; now_ms() < end && !atomic_load(&a->console.answered);)
        poll(NULL, 0, 1);
    if (atomic_load(&a->console.answered))
        where_describe(&a->console, where, sizeof(where));
    else
        snprintf(where, sizeof(where), "does not answer");
    snprintf(text, sizeof(text), "console: %s", where);
    say(NULL, text);
}

static void *report(void *opaque)
{
    static const char title[] =
        "doppel: ended by force; its threads were here (innermost first):\n";
    struct attendant *a = opaque;
    struct doppel_vm *vm;
    eventfd_t count;

    eventfd_read(a->late_fd, &count);
    if (!a->deadline) /* nothing is late: the process comes to its end */
        return NULL;
    if (a->tty && atomic_load(&a->terminal))
        tty_cooked(a->tty);
    if (write(STDERR_FILENO, title, sizeof(title) - 1) < 0)
        errno = 0;
    vm = atomic_load(&a->vm);
    if (vm)
        doppel_where(vm, say, NULL);
    say_console(a);
    eventfd_write(a->reported_fd, 1);
    return NULL;
}

__attribute__((noreturn)) static void end_by_force(struct attendant *a)
{
    struct pollfd pfd = {a->reported_fd, POLLIN, 0};
    int wish = atomic_load(&a->last_wish);

    eventfd_write(a->late_fd, 1);
    poll(&pfd, 1, REPORT_MS);
    _exit(wish > 0 ? STATUS_SIGNAL + wish : STATUS_ERROR);
}

/* ---- Listening ---- */

static void wake(const struct attendant *a)
{
    eventfd_write(a->wake_fd, 1);
}

static void want_end(struct attendant *a, int wish)
{
    int none = 0;

    atomic_store(&a->last_wish, wish);
    if (atomic_compare_exchange_strong(&a->wish, &none, wish))
        a->deadline = now_ms() + FIRST_GRACE_MS;
    else
        a->deadline = MIN(a->deadline, now_ms() + SECOND_GRACE_MS);
    wake(a);
}

static void take_signals(struct attendant *a)
{
    struct signalfd_siginfo info;

    while (read(a->signal_fd, &info, sizeof(info)) == sizeof(info))
        want_end(a, (int)info.ssi_signo);
}

/* A key that the guest has no room for is lost, as on a real keyboard; the escape keys are not. */
static void take_keys(struct attendant *a, short events)
{
    uint8_t bytes[256];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    if ((n == 0 && events & (POLLHUP | POLLERR)) || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        atomic_store(&a->terminal, false);
        if (!atomic_load(&a->wish))
            want_end(a, ATTENDANT_QUIT);
    }
    for (ssize_t i = 0; i < n; i++) {
        size_t size = 1;

        switch (keys_filter(&a->keys, &bytes[i], &size)) {
        case KEYS_QUIT: want_end(a, ATTENDANT_QUIT); break;
        case KEYS_HELP: atomic_store(&a->help, true); break;
        case KEYS_NONE: outbox_put(a->typed, &bytes[i], size); break;
        }
    }
    if (n > 0)
        wake(a);
}

static void *listen_to_user(void *opaque)
{
    struct attendant *a = opaque;

    for (;;) {
        struct pollfd pfd[] = {{a->stop_fd, POLLIN, 0},
                               {a->signal_fd, POLLIN, 0},
                               {atomic_load(&a->terminal) ? STDIN_FILENO : -1, POLLIN, 0}};
        int64_t left = a->deadline - now_ms();

        if (a->deadline && left <= 0)
            end_by_force(a);
        if (poll(pfd, ARRAY_SIZE(pfd), a->deadline ? (int)left : -1) < 0)
            continue;
        if (pfd[0].revents) {
            eventfd_t count;

            eventfd_read(a->stop_fd, &count);
            if (count > 1)
                return NULL;
        }
        if (pfd[1].revents)
            take_signals(a);
        pthread_mutex_lock(&a->reading);
        if (pfd[2].revents && atomic_load(&a->terminal))
            take_keys(a, pfd[2].revents);
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
    atomic_store(&a->vm, vm);
}

/* ---- Making and unmaking ---- */

static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* A hangup that is ignored from the start stays so, as nohup(1) wants. Blocked, it would be read
 * from the file all the same. */
static int signals_to_fd(void)
{
    static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t set;

    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(ending); i++)
        if (ending[i] != SIGHUP || !is_ignored(SIGHUP))
            sigaddset(&set, ending[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Starts a thread that no signal interrupts: the listener reads them from a file. SIGTTIN alone is
 * not blocked. It stops a process that reads the terminal in the background; with it blocked the
 * read would fail instead, as it does when the terminal is gone. */
static bool start_thread(pthread_t *thread, void *(*run)(void *), struct attendant *a)
{
    sigset_t all, before;
    bool started;

    sigfillset(&all);
    sigdelset(&all, SIGTTIN);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(thread, NULL, run, a) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static bool open_files(struct attendant *a)
{
    a->signal_fd = signals_to_fd();
    a->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    a->late_fd = eventfd(0, EFD_CLOEXEC);
    a->reported_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return a->signal_fd >= 0 && a->stop_fd >= 0 && a->late_fd >= 0 && a->reported_fd >= 0;
}

struct attendant *attendant_create(struct tty *tty, int wake_fd, struct error *err)
{
    struct attendant *a = calloc(1, sizeof(*a));

    if (!a) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&a->reading, NULL);
    a->tty = tty;
    a->wake_fd = wake_fd;
    atomic_store(&a->terminal, tty != NULL);
    a->signal_fd = a->stop_fd = a->late_fd = a->reported_fd = -1;
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
    a->reports = start_thread(&a->reporter, report, a);
    a->listens = a->reports && start_thread(&a->listener, listen_to_user, a);
    if (!a->listens) {
        error_set(err, EAGAIN, "cannot start a thread");
        attendant_destroy(a);
        return NULL;
    }
    return a;
}

void attendant_destroy(struct attendant *a)
{
    const int files[] = {a ? a->signal_fd : -1, a ? a->stop_fd : -1, a ? a->late_fd : -1,
                         a ? a->reported_fd : -1};

    if (!a)
        return;
    if (a->listens) {
        eventfd_write(a->stop_fd, 2);
        pthread_join(a->listener, NULL);
    }
    if (a->reports) {
        a->deadline = 0;
        eventfd_write(a->late_fd, 1);
        pthread_join(a->reporter, NULL);
    }
    where_end(&a->console);
    for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
        if (files[i] >= 0)
            close(files[i]);
    outbox_destroy(a->typed);
    pthread_mutex_destroy(&a->reading);
    free(a);
}
