/*
 * libnbd, loaded when it is wanted.
 */
#include "blk/nbd/library.h"

#include "base/util.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int nbd_library_load(struct nbd_library *library, struct error *err)
{
    static const char *const names[] = {
#define X(name) "nbd_" #name,
        NBD_FUNCTIONS(X)
#undef X
    };
    /* The names stand in the order of the members. */
    void *functions[ARRAY_SIZE(names)], *handle;

    /* It stays for good: another disk may want it, and TLS keeps things of the process. */
    handle = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        return error_set(err, ENOENT, "an NBD disk needs libnbd (Debian's package libnbd0): %s",
                         dlerror());
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        functions[i] = dlsym(handle, names[i]);
        if (!functions[i])
            return error_set(err, ENOSYS, "libnbd is too old for an NBD disk: it has no %s",
                             names[i]);
    }
    _Static_assert(sizeof(functions) == sizeof(*library), "a member for each function");
    memcpy(library, functions, sizeof(*library));
    return 0;
}
