/*
 * A shared folder for fuzz targets, in memory if that can be had:
 *
 *      outside/secret      which must stay as it is
 *      outside/folder/     a, d/a, and l, a symbolic link that leads out
 */
#ifndef DOPPEL_TESTS_FUZZ_FOLDER_H
#define DOPPEL_TESTS_FUZZ_FOLDER_H

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "input.h"

#define FOLDER_SECRET "the secret beside the folder"

struct folder {
    char outside[64], folder[80];
};

static inline int folder_remove_one(const char *path, const struct stat *st, int flag,
                                    struct FTW *ftw)
{
    return remove(path);
}

static inline void folder_write(const char *folder, const char *name, const char *text)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* The folder becomes as it was at first. */
static inline void folder_fill(const struct folder *f)
{
    char path[256];

    nftw(f->folder, folder_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    check(mkdir(f->folder, 0755) == 0);
    folder_write(f->folder, "a", "some text");
    snprintf(path, sizeof(path), "%s/d", f->folder);
    check(mkdir(path, 0755) == 0);
    folder_write(f->folder, "d/a", "more text");
    snprintf(path, sizeof(path), "%s/l", f->folder);
    check(symlink("../secret", path) == 0);
}

/* No request makes a file larger than MOST bytes. */
static inline void folder_make(struct folder *f, rlim_t most)
{
    const struct rlimit size = {most, most};
    bool memory = access("/dev/shm", W_OK) == 0;

    setrlimit(RLIMIT_FSIZE, &size);
    signal(SIGXFSZ, SIG_IGN);
    snprintf(f->outside, sizeof(f->outside), "%s/fuzz-folder.XXXXXX", memory ? "/dev/shm" : "/tmp");
    check(mkdtemp(f->outside));
    snprintf(f->folder, sizeof(f->folder), "%s/folder", f->outside);
    folder_write(f->outside, "secret", FOLDER_SECRET);
    folder_fill(f);
}

/* Checks what lies beside the folder, and removes all. */
static inline void folder_end(const struct folder *f)
{
    char path[256], text[64] = "";
    int fd;

    snprintf(path, sizeof(path), "%s/secret", f->outside);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    check(fd >= 0 && read(fd, text, sizeof(text)) == strlen(FOLDER_SECRET) &&
          !strcmp(text, FOLDER_SECRET));
    close(fd);
    nftw(f->outside, folder_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
