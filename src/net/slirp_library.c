/*
 * libslirp, loaded when it is wanted; and the lock that the process has for it.
 */
#include "net/slirp_library.h"

#include "base/util.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int slirp_library_load(struct slirp_library *library, struct error *err)
{
    static const char *const names[] = {
#define X(name) "slirp_" #name,
        SLIRP_FUNCTIONS(X)
#undef X
    };
    /* The names stand in the order of the members. */
    void *functions[ARRAY_SIZE(names)], *handle;

    /* It stays for good: GLib cannot be unloaded. */
    handle = dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        return error_set(err, ENOENT,
                         "a user network needs libslirp (Debian's package libslirp0): %s",
                         dlerror());
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        functions[i] = dlsym(handle, names[i]);
        if (!functions[i])
            return error_set(err, ENOSYS, "libslirp is too old for a user network: it has no %s",
                             names[i]);
    }
    _Static_assert(sizeof(functions) == sizeof(*library), "a member for each function");
    memcpy(library, functions, sizeof(*library));
    return 0;
}

void slirp_library_enter(void)
{
    pthread_mutex_lock(&lock);
}

void slirp_library_leave(void)
{
    pthread_mutex_unlock(&lock);
}
