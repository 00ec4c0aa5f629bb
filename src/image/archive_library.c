/*
 * libarchive, loaded when it is wanted.
 */
#include "image/archive_library.h"

#include "base/util.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int archive_library_load(struct archive_library *library, struct error *err)
{
    static const char *const names[] = {
#define X(name) "archive_" #name,
        ARCHIVE_FUNCTIONS(X)
#undef X
    };
    /* The names stand in the order of the members. */
    void *functions[ARRAY_SIZE(names)], *handle;

    handle = dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        return error_set(err, ENOENT,
                         "archives are read by libarchive (Debian's package libarchive13, or "
                         "libarchive13t64): %s",
                         dlerror());
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        functions[i] = dlsym(handle, names[i]);
        if (!functions[i])
            return error_set(err, ENOSYS, "libarchive is too old: it has no %s", names[i]);
    }
    _Static_assert(sizeof(functions) == sizeof(*library), "a member for each function");
    memcpy(library, functions, sizeof(*library));
    return 0;
}
