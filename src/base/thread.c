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
