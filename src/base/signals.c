/*
 * The signal handlers of the process. Nothing else in the library changes a signal's disposition,
 * and nothing else in it has state outside of a struct vm.
 */
#include "base/signals.h"

#include "base/raw_syscall.h"
#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- Faults: who watches for them ---- */

/* A watch is never freed, because a handler on another thread may be looking at it; one that is not
 * in use is used again. TURN tells the handler whether what it has read belongs together: it is odd
 * while the rest changes. A watch whose memory or code the handler's own thread is using does not
 * change meanwhile. */
struct signals_watch {
    _Atomic unsigned turn;
    _Atomic uintptr_t start, end; /* both 0: not in use */
    _Atomic int by;
    bool (*_Atomic fault)(void *opaque, const struct signals_fault *fault);
    void *_Atomic opaque;
    struct signals_watch *next;
};

static struct signals_watch *_Atomic watches;

/* Guards what follows, and changes of watches and dispositions. Handlers do not take it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

SIGNALS_SAFE static bool ask_watch(struct signals_watch *w, const struct signals_fault *fault)
{
    unsigned turn = atomic_load(&w->turn);
    uintptr_t start = atomic_load(&w->start), end = atomic_load(&w->end), at;
    bool (*answer)(void *opaque, const struct signals_fault *fault) = atomic_load(&w->fault);
    void *opaque = atomic_load(&w->opaque);

    at = atomic_load(&w->by) == SIGNALS_BY_CODE ? (uintptr_t)fault->registers[REG_RIP]
                                                : fault->address;
    if (turn % 2 || at < start || at >= end || atomic_load(&w->turn) != turn)
        return false;
    return answer(opaque, fault);
}

SIGNALS_SAFE static bool on_fault(const siginfo_t *info, const ucontext_t *context)
{
    struct signals_fault fault = {
        .number = info->si_signo,
        .code = info->si_code,
        .address = (uintptr_t)info->si_addr,
        .registers = (greg_t *)(uintptr_t)context->uc_mcontext.gregs,
    };

    /* Codes above 0 come from the kernel: no process can send them. */
    if (info->si_code <= 0)
        return false;
    for (struct signals_watch *w = atomic_load(&watches); w; w = w->next)
        if (ask_watch(w, &fault))
            return true;
    return false;
}

static void set_watch(struct signals_watch *w, enum signals_by by, uintptr_t start, uintptr_t end,
                      bool (*fault)(void *opaque, const struct signals_fault *fault), void *opaque)
{
    atomic_fetch_add(&w->turn, 1);
    atomic_store(&w->by, by);
    atomic_store(&w->start, start);
    atomic_store(&w->end, end);
    atomic_store(&w->fault, fault);
    atomic_store(&w->opaque, opaque);
    atomic_fetch_add(&w->turn, 1);
}

/* ---- Questions: which threads can be asked ---- */

/* A thread that answers. Like a watch it is never freed, and is used again. Only the thread itself
 * changes what its own handler reads. */
struct question {
    _Atomic int thread; /* its number in the kernel; 0: not in use */
    void *_Atomic opaque;
    struct question *next;
};

static struct question *_Atomic questions;
static bool (*_Atomic question_handler)(void *opaque, const siginfo_t *info,
                                        const ucontext_t *context);

SIGNALS_SAFE static struct question *question_of(int thread)
{
    struct question *q = atomic_load(&questions);

    while (q && atomic_load(&q->thread) != thread)
        q = q->next;
    return q;
}

SIGNALS_SAFE static int this_thread(void)
{
    return (int)raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

SIGNALS_SAFE static bool on_question(const siginfo_t *info, const ucontext_t *context)
{
    const struct question *q = question_of(this_thread());

    return atomic_load(&question_handler)(q ? atomic_load(&q->opaque) : NULL, info, context);
}

/* ---- Dispositions ---- */

struct disposition {
    int number;
    bool alone; /* all other signals are blocked while the handler runs */
    bool (*handler)(const siginfo_t *info, const ucontext_t *context);
    unsigned users;
    bool installed; /* also while a later handler of the program's stands in front of it */
    struct sigaction previous;
};

static struct disposition dispositions[] = {
    {.number = SIGFPE, .handler = on_fault},
    {.number = SIGILL, .handler = on_fault},
    {.number = SIGSEGV, .handler = on_fault},
    {.number = SIGBUS, .handler = on_fault},
    {.number = SIGSTKFLT, .alone = true, .handler = on_question},
};

SIGNALS_SAFE static struct disposition *disposition_of(int number)
{
    struct disposition *d = dispositions;

    while (d->number != number)
        if (++d == dispositions + ARRAY_SIZE(dispositions))
            __builtin_trap(); /* a number without a row */
    return d;
}

/* Does what would have happened without the library. */
static void pass_on(const struct disposition *d, siginfo_t *info, void *context)
{
    if (d->previous.sa_flags & SA_SIGINFO) {
        d->previous.sa_sigaction(d->number, info, context);
    } else if (d->previous.sa_handler != SIG_DFL && d->previous.sa_handler != SIG_IGN) {
        d->previous.sa_handler(d->number);
    } else if (d->previous.sa_handler == SIG_DFL || info->si_code > 0) {
        /* Back to the default, which the same fault meets again when this returns (also where the
         * program ignores it: a fault cannot be ignored). A signal that a process has sent does not
         * come again by itself, nor does the report of bad memory that nobody has touched yet. */
        signal(d->number, SIG_DFL);
        if (info->si_code <= 0 || (d->number == SIGBUS && info->si_code == BUS_MCEERR_AO))
            raise(d->number);
    }
}

SIGNALS_SAFE static void on_signal(int number, siginfo_t *info, void *context)
{
    struct disposition *d = disposition_of(number);

    if (!d->handler(info, context))
        pass_on(d, info, context);
}

static bool is_ours(const struct sigaction *action)
{
    return action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_signal;
}

/* Whether signals with the disposition CURRENT reach the library's handler: it is the library's, or
 * one that the program has put in front of it. */
static bool is_reached(const struct disposition *d, const struct sigaction *current)
{
    if (is_ours(current))
        return true;
    return d->installed && (current->sa_flags & SA_SIGINFO ||
                            (current->sa_handler != SIG_DFL && current->sa_handler != SIG_IGN));
}

/* One user more; the lock is held. */
static int add_user(struct disposition *d, struct error *err)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction current;
    int ret = sigaction(d->number, NULL, &current);

    if (ret == 0 && !is_reached(d, &current)) {
        d->previous = current; /* before the handler may need it */
        sigemptyset(&action.sa_mask);
        if (d->alone) {
            sigfillset(&action.sa_mask);
            action.sa_flags |= SA_RESTART;
        }
        ret = sigaction(d->number, &action, NULL);
        d->installed = ret == 0;
    }
    if (ret < 0)
        return error_set(err, errno, "cannot install a handler for signal %d: %s", d->number,
                         strerror(errno));
    d->users++;
    return 0;
}

/* One user less; the lock is held. A handler of the program's that was installed meanwhile may lead
 * here: then the library's stays. */
static void remove_user(struct disposition *d)
{
    struct sigaction current;

    if (--d->users || sigaction(d->number, NULL, &current) < 0 || !is_ours(&current))
        return;
    sigaction(d->number, &d->previous, NULL);
    d->installed = false;
}

/* ---- Users ---- */

static const int fault_signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};

/* One user of the first COUNT less. */
static void remove_faults(unsigned count)
{
    while (count--)
        remove_user(disposition_of(fault_signals[count]));
}

static int add_faults(struct error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fault_signals); i++) {
        int ret = add_user(disposition_of(fault_signals[i]), err);

        if (ret < 0) {
            remove_faults(i);
            return ret;
        }
    }
    return 0;
}

/* A watch that is not in use. */
static struct signals_watch *free_watch(void)
{
    struct signals_watch *w = atomic_load(&watches);

    while (w && atomic_load(&w->end))
        w = w->next;
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (w) {
            w->next = atomic_load(&watches);
            atomic_store(&watches, w);
        }
    }
    return w;
}

struct signals_watch *signals_watch(enum signals_by by, uintptr_t start, uintptr_t end,
                                    bool (*fault)(void *opaque, const struct signals_fault *fault),
                                    void *opaque, struct error *err)
{
    struct signals_watch *w = NULL;

    pthread_mutex_lock(&lock);
    if (add_faults(err) == 0) {
        w = free_watch();
        if (w) {
            set_watch(w, by, start, end, fault, opaque);
        } else {
            remove_faults(ARRAY_SIZE(fault_signals));
            error_set(err, ENOMEM, "no memory to watch for faults");
        }
    }
    pthread_mutex_unlock(&lock);
    return w;
}

void signals_unwatch(struct signals_watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&lock);
    set_watch(w, SIGNALS_BY_CODE, 0, 0, NULL, NULL);
    remove_faults(ARRAY_SIZE(fault_signals));
    pthread_mutex_unlock(&lock);
}

/* A question that is not in use; the lock is held. */
static struct question *free_question(void)
{
    struct question *q = question_of(0);

    if (!q) {
        q = calloc(1, sizeof(*q));
        if (q) {
            q->next = atomic_load(&questions);
            atomic_store(&questions, q);
        }
    }
    return q;
}

int signals_add_question(bool (*handler)(void *opaque, const siginfo_t *info,
                                         const ucontext_t *context),
                         void *opaque, struct error *err)
{
    struct question *q;
    int ret;

    pthread_mutex_lock(&lock);
    q = free_question();
    ret = q ? 0 : error_set(err, ENOMEM, "no memory for a thread that can be asked");
    atomic_store(&question_handler, handler);
    if (ret == 0)
        ret = add_user(disposition_of(SIGSTKFLT), err);
    if (ret == 0) {
        atomic_store(&q->opaque, opaque);
        atomic_store(&q->thread, this_thread());
    }
    pthread_mutex_unlock(&lock);
    return ret;
}

void signals_remove_question(void)
{
    struct question *q;

    pthread_mutex_lock(&lock);
    q = question_of(this_thread());
    if (q)
        atomic_store(&q->thread, 0);
    if (q)
        remove_user(disposition_of(SIGSTKFLT));
    pthread_mutex_unlock(&lock);
}
