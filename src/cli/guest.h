/*
 * Where the default guest's files are, and what kind of kernel a file holds.
 */
#ifndef DOPPEL_CLI_GUEST_H
#define DOPPEL_CLI_GUEST_H

#include <limits.h>
#include <stdbool.h>

struct guest_files {
    char folder[PATH_MAX];
    char kernel[PATH_MAX + 32], initrd[PATH_MAX + 32], initrd32[PATH_MAX + 32];
    bool complete;              /* kernel and initrd exist */
    char remedy[PATH_MAX + 32]; /* the command that makes them */
};

/* The default guest, of whichever Debian release guests/make made it: in $DOPPEL_GUESTS, else
 * guests/cache beside the build folder this program is in, else
 * ${XDG_CACHE_HOME:-~/.cache}/doppel. */
void guest_find(struct guest_files *guest);

/* Sets PATH to the script NAME, which stands beside guests/make. */
void guest_script(const char *name, char path[PATH_MAX + 32]);

/* Sets PATH to the agent, a program for guests with systemd. */
void guest_agent(char path[PATH_MAX + 32]);

struct guest_kernel {
    bool linux_image;  /* a Linux bzImage */
    bool bits64;       /* with a 64-bit kernel inside */
    char release[128]; /* "6.1.0-50-cloud-amd64", or empty */
};

/* A file that cannot be read is of no kind; reporting that is left to who opens it in earnest. */
void guest_inspect(const char *path, struct guest_kernel *kernel);

#endif
