/*
 * Where the default guest's files are, and what kind of kernel a file holds.
 */
#include "cli/guest.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef DOPPEL_DATADIR
#error "the build defines where guests/make is installed"
#endif

/* The source tree this program was built in, in ROOT; false when it was installed. */
static bool source_tree(char root[PATH_MAX])
{
    char self[PATH_MAX], probe[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n <= 0)
        return false;
    self[n] = 0;
    for (unsigned up = 0; up < 2; up++) { /* the program, its build folder */
        char *slash = strrchr(self, '/');

        if (!slash)
            return false;
        *slash = 0;
    }
    snprintf(root, PATH_MAX, "%s", self);
    snprintf(probe, sizeof(probe), "%s/guests/make", self);
    return access(probe, X_OK) == 0;
}

void guest_find(struct guest_files *guest)
{
    const char *given = getenv("DOPPEL_GUESTS");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char root[PATH_MAX];
    bool in_tree = source_tree(root);

    if (given && *given)
        snprintf(guest->folder, sizeof(guest->folder), "%s", given);
    else if (in_tree)
        snprintf(guest->folder, sizeof(guest->folder), "%.*s/guests/cache", PATH_MAX - 16, root);
    else if (cache && *cache)
        snprintf(guest->folder, sizeof(guest->folder), "%s/doppel", cache);
    else
        snprintf(guest->folder, sizeof(guest->folder), "%s/.cache/doppel", home ? home : "");
    snprintf(guest->kernel, sizeof(guest->kernel), "%s/vmlinuz", guest->folder);
    snprintf(guest->initrd, sizeof(guest->initrd), "%s/initrd.img", guest->folder);
    snprintf(guest->initrd32, sizeof(guest->initrd32), "%s/initrd-i386.img", guest->folder);
    guest->complete = access(guest->kernel, R_OK) == 0 && access(guest->initrd, R_OK) == 0;
    snprintf(guest->remedy, sizeof(guest->remedy), "%s/guests/make",
             in_tree ? root : DOPPEL_DATADIR);
}

void guest_script(const char *name, char path[PATH_MAX + 32])
{
    char root[PATH_MAX];

    if (source_tree(root))
        snprintf(path, PATH_MAX + 32, "%.*s/guests/%s", PATH_MAX - 16, root, name);
    else
        snprintf(path, PATH_MAX + 32, "%s/guests/%s", DOPPEL_DATADIR, name);
}

void guest_agent(char path[PATH_MAX + 32])
{
    char self[PATH_MAX] = "", root[PATH_MAX], *slash;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    self[n > 0 ? n : 0] = 0;
    slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    snprintf(path, PATH_MAX + 32, "%s/doppel-agent",
             source_tree(root) ? self : DOPPEL_DATADIR "/guests");
}

/* The header's fields: Linux, Documentation/x86/boot.rst. */
void guest_inspect(const char *path, struct guest_kernel *kernel)
{
    uint8_t head[0x238];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    unsigned version;

    memset(kernel, 0, sizeof(*kernel));
    if (fd < 0)
        return;
    if (pread(fd, head, sizeof(head), 0) == sizeof(head) && !memcmp(head + 0x202, "HdrS", 4)) {
        kernel->bits64 = head[0x236] & 1; /* xloadflags: XLF_KERNEL_64 */
        version = (unsigned)(head[0x20E] | head[0x20F] << 8);
        n = version ? pread(fd, kernel->release, sizeof(kernel->release) - 1, version + 0x200) : 0;
        kernel->release[n > 0 ? n : 0] = 0;
        kernel->release[strcspn(kernel->release, " ")] = 0;
        for (char *p = kernel->release; *p; p++)
            if (*p < ' ' || *p > '~')
                *p = '?';
        /* Others have this header too; only Linux gives nothing but its version. */
        kernel->linux_image = kernel->release[0] >= '0' && kernel->release[0] <= '9';
    }
    close(fd);
}
