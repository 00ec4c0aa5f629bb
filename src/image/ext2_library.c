/*
 * libext2fs, loaded when it is wanted.
 */
#include "image/ext2_library.h"

#include "base/util.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define PACKAGE "Debian's package libext2fs2, or libext2fs2t64"

int ext2_library_load(struct ext2_library *library, struct error *err)
{
    static const char *const names[] = {
#define X(name) "ext2fs_" #name,
        EXT2_FUNCTIONS(X)
#undef X
    };
    /* The names stand in the order of the members. */
    void *functions[ARRAY_SIZE(names)], *handle, *message;
    void (*initialize)(void);

    handle = dlopen("libext2fs.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        return error_set(err, ENOENT, "a file system is made by libext2fs (" PACKAGE "): %s",
                         dlerror());
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        functions[i] = dlsym(handle, names[i]);
        if (!functions[i])
            return error_set(err, ENOSYS, "libext2fs is too old: it has no %s", names[i]);
    }
    _Static_assert(sizeof(functions) == offsetof(struct ext2_library, error_message),
                   "a member for each function");
    memcpy(library, functions, sizeof(functions));
    /* libext2fs stands on libcom_err, so that one is there as well. */
    message = dlsym(handle, "error_message");
    if (!message)
        return error_set(err, ENOSYS, "libext2fs is too old: it does not use libcom_err");
    memcpy(&library->error_message, &message, sizeof(message));
    message = dlsym(handle, "initialize_ext2_error_table");
    if (message) {
        memcpy(&initialize, &message, sizeof(message));
        initialize();
    }
    return 0;
}
