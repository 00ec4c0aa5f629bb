/*
 * Starting a thread.
 */
#include "base/thread.h"

#include "base/util.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

int thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *opaque,
                 struct error *err)
{
    static const int raised[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t blocked, before;
    char kept[16];
    int code;

    sigfillset(&blocked);
    for (unsigned i = 0; i < ARRAY_SIZE(raised); i++)
        sigdelset(&blocked, raised[i]);
    /* A new thread inherits the mask, so no signal can come in between. */
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    code = pthread_create(thread, NULL, run, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code)
        return error_set(err, code, "cannot start the thread '%s': %s", name, strerror(code));
    snprintf(kept, sizeof(kept), "%s", name);
    pthread_setname_np(*thread, kept);
    return 0;
}

void thread_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
}
