/*
 * A file that is there in whole or not at all.
 */
#include "cli/image_target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 100 /* names that other files may have */

static void ending_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGQUIT);
}

/* The folder of PATH, with a '/' at its end. "" is the working directory. */
static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');

    snprintf(folder, PATH_MAX, "%.*s", slash ? (int)(slash + 1 - path) : 0, path);
}

/* Finds the file that PATH leads to, which must be one that can be replaced. */
static int resolve(struct target *target, const char *path, bool replace, struct stat *old,
                   struct error *err)
{
    struct stat st;
    char *real;

    if (!*path)
        return error_set(err, ENOENT, "an empty file name");
    if (lstat(path, &st) < 0 && errno == ENOENT) {
        if (snprintf(target->path, PATH_MAX, "%s", path) >= PATH_MAX)
            return error_set(err, ENAMETOOLONG, "cannot create %s: its name is too long", path);
        return 0;
    }
    if (!replace)
        return error_set(err, EEXIST,
                         S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)
                             ? "%s exists already (remove it first)"
                             : "%s exists already and is not a file that can be made",
                         path);
    real = realpath(path, NULL);
    if (!real || stat(real, &st) < 0) {
        int code = errno;

        free(real);
        if (code == ENOENT)
            return error_set(err, code, "%s is a link that leads to no file (remove it first)",
                             path);
        return error_set(err, code, "cannot open %s: %s", path, strerror(code));
    }
    snprintf(target->path, PATH_MAX, "%s", real);
    free(real);
    if (S_ISBLK(st.st_mode))
        return error_set(err, EINVAL, "%s is a block device (--in-place writes over what is on it)",
                         path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s is not a regular file, so it cannot be replaced", path);
    if (access(path, W_OK) < 0)
        return error_set(err, errno, "cannot write %s: %s", path, strerror(errno));
    *old = st;
    return 0;
}

/* Gives the new file the owner and group, as far as this user may, and the mode of the OLD one. A
 * group that is not the old one gets no rights. */
static void keep_owner(int fd, const struct stat *old)
{
    mode_t mode = old->st_mode & 0777;
    struct stat now;

    if (fchown(fd, old->st_uid, old->st_gid) < 0)
        (void)!fchown(fd, (uid_t)-1, old->st_gid);
    if (fstat(fd, &now) < 0 || now.st_gid != old->st_gid)
        mode &= ~(mode_t)070;
    fchmod(fd, mode);
}

/* Makes a name in FOLDER that no file may have yet; try number N. */
static int temporary_name(char name[PATH_MAX], const char *folder, unsigned n)
{
    return snprintf(name, PATH_MAX, "%s.doppel-%ld-%u", folder, (long)getpid(), n) < PATH_MAX
               ? 0
               : -ENAMETOOLONG;
}

static int open_named(struct target *target, const char *folder)
{
    for (unsigned n = 0; n < TRIES; n++) {
        if (temporary_name(target->named, folder, n) < 0)
            return -ENAMETOOLONG;
        target->fd = open(target->named, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (target->fd >= 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    target->named[0] = '\0';
    return -errno;
}

int target_begin(struct target *target, const char *path, bool replace, struct error *err)
{
    char folder[PATH_MAX];
    struct stat old = {0};
    sigset_t set;
    int result;

    *target = (struct target){.fd = -1};
    result = resolve(target, path, replace, &old, err);
    if (result)
        return result;
    ending_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, &target->signals);
    folder_of(target->path, folder);
    target->fd = open(*folder ? folder : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (target->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        result = open_named(target, folder);
    else if (target->fd < 0)
        result = -errno;
    if (result) {
        pthread_sigmask(SIG_SETMASK, &target->signals, NULL);
        return error_set(err, -result, "cannot create %s: %s", path, strerror(-result));
    }
    if (old.st_mode)
        keep_owner(target->fd, &old);
    snprintf(target->file, sizeof(target->file), "/proc/self/fd/%d", target->fd);
    return 0;
}

bool target_interrupted(const struct target *target)
{
    sigset_t pending, set;

    ending_signals(&set);
    if (sigpending(&pending) < 0)
        return false;
    for (int i = 1; i < NSIG; i++)
        if (sigismember(&set, i) == 1 && sigismember(&pending, i) == 1 &&
            sigismember(&target->signals, i) != 1)
            return true;
    return false;
}

/* Gives the file, which has no name, one that no other file has. */
static int name_it(struct target *target, const char *folder)
{
    for (unsigned n = 0; n < TRIES; n++) {
        if (temporary_name(target->named, folder, n) < 0)
            return -ENAMETOOLONG;
        if (linkat(AT_FDCWD, target->file, AT_FDCWD, target->named, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    target->named[0] = '\0';
    return -errno;
}

static void sync_folder(const char *folder)
{
    int fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

int target_commit(struct target *target, bool replace, struct error *err)
{
    char folder[PATH_MAX];
    int result = 0;

    folder_of(target->path, folder);
    if (fsync(target->fd) < 0)
        return error_set(err, errno, "cannot write %s: %s", target->path, strerror(errno));
    if (!replace) {
        if (linkat(AT_FDCWD, target->file, AT_FDCWD, target->path, AT_SYMLINK_FOLLOW) < 0)
            result = -errno;
    } else {
        if (!target->named[0])
            result = name_it(target, folder);
        if (!result && rename(target->named, target->path) < 0)
            result = -errno;
        if (!result)
            target->named[0] = '\0';
    }
    if (result)
        return error_set(err, -result, "cannot create %s: %s", target->path, strerror(-result));
    sync_folder(folder);
    return 0;
}

void target_end(struct target *target)
{
    if (!target->file[0])
        return;
    if (target->named[0])
        unlink(target->named);
    close(target->fd);
    target->file[0] = '\0';
    pthread_sigmask(SIG_SETMASK, &target->signals, NULL);
}
