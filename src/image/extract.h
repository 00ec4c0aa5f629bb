/*
 * Makes files in a folder of the host whose names somebody hostile has chosen. Every step of a path
 * is taken by itself (openat(2)) and through no symbolic link, so nothing is made outside of the
 * folder, whatever links are in it and whatever another process does to it meanwhile.
 *
 * Paths are relative to the folder, without ".", ".." and empty parts ("a/b"); "" is the folder
 * itself. A file that is there is removed first, never written to; a folder that is there stays,
 * with its mode and times, and gets more in it. Of modes, the bits of rwx count. Folders get modes
 * and times when something outside of them is made, or at the end.
 *
 * Errors: negative errno, and ERR is filled. One thread.
 */
#ifndef DOPPEL_IMAGE_EXTRACT_H
#define DOPPEL_IMAGE_EXTRACT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#define EXTRACT_DEPTH 256 /* of folders in folders: each is open meanwhile */

struct extract_level {
    int fd;
    size_t length; /* of the path that leads to it */
    bool made;     /* by this: then it gets */
    mode_t mode;
    struct timespec time;
};

struct extract {
    struct extract_level level[EXTRACT_DEPTH];
    unsigned depth;  /* levels that are open; the first is the folder itself */
    char path[4096]; /* of the last level */
};

/* FOLDER, a descriptor, becomes this one's. */
void extract_begin(struct extract *x, int folder);
int extract_end(struct extract *x, struct error *err);
void extract_free(struct extract *x);

int extract_folder(struct extract *x, const char *path, mode_t mode, struct timespec time,
                   struct error *err);
/* Returns the descriptor of a new file, for the caller to write to and close. */
int extract_file(struct extract *x, const char *path, struct error *err);
int extract_symlink(struct extract *x, const char *path, const char *target, struct timespec time,
                    struct error *err);
/* PATH is the file EXISTING by another name. */
int extract_link(struct extract *x, const char *path, const char *existing, struct error *err);

/* Writes NAME of an archive to PATH as a path of this kind. False: it leads elsewhere, or is too
 * long. */
bool extract_clean(const char *name, char *path, size_t room);

#endif
