/*
 * Host exceptions in thunks: the signal that the host's kernel makes of one is turned into the
 * thunk's result.
 *
 * Signal dispositions belong to the process, and so does what is in this file: the one place in the
 * library with state outside of a struct vm. Handlers that were there before get every signal that
 * is not a thunk's.
 */
#include "cpu/interp/thunk_impl.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

/* The memories with thunks. A node is never freed, since a handler may be looking at it; one whose
 * memory is gone is used again. A handler may follow MEMORY only when the fault lies between START
 * and END: then the thunk that it interrupts keeps it alive. */
struct watch {
    _Atomic uintptr_t start, end; /* both 0: not in use */
    const struct thunk_memory *memory;
    struct watch *next;
};

static struct watch *_Atomic watches;
static pthread_mutex_t watches_lock = PTHREAD_MUTEX_INITIALIZER; /* for adding and removing */

static const int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
static struct sigaction previous[ARRAY_SIZE(signals)];

/* Only what an instruction can raise by itself. A page fault means that the memory operand was not
 * what it should be: a bug, and not the guest's business. */
static bool is_guest_exception(unsigned vector)
{
    switch (vector) {
    case X86_DE:
    case X86_UD:
    case X86_GP:
    case X86_MF:
    case X86_AC:
    case X86_XM: return true;
    default: return false;
    }
}

static bool handle(ucontext_t *context)
{
    greg_t *gregs = context->uc_mcontext.gregs;

    if (!is_guest_exception(gregs[REG_TRAPNO]))
        return false;
    for (struct watch *w = atomic_load(&watches); w; w = w->next) {
        uintptr_t rip = gregs[REG_RIP], landing;

        if (rip < atomic_load(&w->start) || rip >= atomic_load(&w->end))
            continue;
        landing = thunk_memory_landing(w->memory, rip);
        if (!landing)
            return false;
        gregs[REG_RIP] = landing;
        gregs[REG_RAX] = 1 + gregs[REG_TRAPNO];
        return true;
    }
    return false;
}

static void chain(int number, siginfo_t *info, void *context)
{
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) {
        if (signals[i] != number)
            continue;
        if (previous[i].sa_flags & SA_SIGINFO) {
            previous[i].sa_sigaction(number, info, context);
        } else if (previous[i].sa_handler != SIG_DFL && previous[i].sa_handler != SIG_IGN) {
            previous[i].sa_handler(number);
        } else if (previous[i].sa_handler != SIG_IGN || info->si_code > 0) {
            /* Back to the default, which the same fault meets again when this returns; a signal
             * that another process sent does not come again by itself. */
            signal(number, SIG_DFL);
            if (info->si_code <= 0)
                raise(number);
        }
    }
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;

    /* Codes above 0 come from the kernel: nobody can send them. */
    if (info->si_code <= 0 || !handle(context))
        chain(number, info, context);
    errno = saved_errno;
}

static int install_error;

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        if (sigaction(signals[i], &action, &previous[i]) != 0)
            install_error = errno;
}

int thunk_fault_watch(const struct thunk_memory *memory, struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct watch *w;

    pthread_once(&once, install);
    if (install_error)
        return error_set(err, install_error, "cannot install signal handlers: %s",
                         strerror(install_error));
    pthread_mutex_lock(&watches_lock);
    for (w = atomic_load(&watches); w && atomic_load(&w->end); w = w->next)
        ;
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (w) {
            w->next = atomic_load(&watches);
            atomic_store(&watches, w);
        }
    }
    if (w) {
        uintptr_t start, end;

        thunk_memory_range(memory, &start, &end);
        w->memory = memory;
        atomic_store(&w->start, start);
        atomic_store(&w->end, end);
    }
    pthread_mutex_unlock(&watches_lock);
    return w ? 0 : error_set(err, ENOMEM, "out of memory");
}

void thunk_fault_unwatch(const struct thunk_memory *memory)
{
    pthread_mutex_lock(&watches_lock);
    for (struct watch *w = atomic_load(&watches); w; w = w->next) {
        if (w->memory == memory) {
            atomic_store(&w->end, 0);
            atomic_store(&w->start, 0);
            w->memory = NULL;
        }
    }
    pthread_mutex_unlock(&watches_lock);
}
