/*
 * The run folders of virtual machines.
 */
#include "ctl/run_folder.h"

#include "ctl/home.h"
#include "ctl/registry.h"
#include "ctl/tree.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK  "lock"
#define TRIES 100 /* times that another process removes the folder while it is being taken */

static int join(char path[PATH_MAX], const char *folder, const char *name, struct error *err)
{
    if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the path %s/%s is too long", folder, name);
    return 0;
}

/* Removes all that is in FOLDER but for its lock. */
static int empty(const char *folder, struct error *err)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[PATH_MAX];
    int ret = 0;

    if (!dir)
        return error_set(err, errno, "cannot read %s: %s", folder, strerror(errno));
    while (!ret && (entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            !strcmp(entry->d_name, LOCK))
            continue;
        ret = join(path, folder, entry->d_name, err);
        if (!ret)
            ret = tree_remove(path, err);
    }
    closedir(dir);
    return ret;
}

/* Removes FOLDER, whose lock this process has as FD. The lock goes first, so that whoever waits for
 * it sees that it is no longer what it stands for. */
static int remove_locked(const char *folder, int fd, struct error *err)
{
    char path[PATH_MAX];
    int ret = empty(folder, err);

    if (!ret)
        ret = join(path, folder, LOCK, err);
    if (!ret && (unlink(path) < 0 || rmdir(folder) < 0))
        ret = errno == ENOTEMPTY
                  ? 0 /* it has been taken anew */
                  : error_set(err, errno, "cannot remove %s: %s", folder, strerror(errno));
    close(fd);
    return ret;
}

static int busy(const char *name, const char *lock, struct error *err)
{
    struct lock_holder holder;
    char process[32] = "another process";

    lock_file_look(lock, &holder);
    if (holder.pid)
        snprintf(process, sizeof(process), "process %ld", (long)holder.pid);
    return error_set(err, EBUSY, "'%s' runs already (%s)", name, process);
}

int run_folder_take(const char *name, struct run_folder *folder, struct error *err)
{
    char path[PATH_MAX];
    int ret = home_check_name(name, err);

    folder->held = false;
    folder->lock = -ENOENT;
    for (unsigned i = 0; i < TRIES && !ret && folder->lock == -ENOENT; i++) {
        ret = home_folder(HOME_RUNTIME, name, folder->path, PATH_MAX, err);
        if (!ret)
            ret = join(path, folder->path, LOCK, err);
        if (!ret)
            folder->lock = lock_file_take(path, "runs");
    }
    if (ret)
        return ret;
    if (folder->lock == -EBUSY)
        return busy(name, path, err);
    if (folder->lock < 0)
        return error_set(err, -folder->lock, "cannot lock %s: %s", path, strerror(-folder->lock));
    ret = empty(folder->path, err);
    if (ret)
        close(folder->lock);
    folder->held = !ret;
    folder->owner = getpid();
    return ret;
}

void run_folder_remove(struct run_folder *folder)
{
    if (folder->held && folder->owner == getpid())
        remove_locked(folder->path, folder->lock, NULL);
    else if (folder->held)
        close(folder->lock);
    folder->held = false;
}

void run_folder_leave(struct run_folder *folder)
{
    if (folder->held)
        close(folder->lock);
    folder->held = false;
}

int run_folder_find(const char *name, const char *file, char path[PATH_MAX],
                    struct lock_holder *holder, struct error *err)
{
    char runtime[PATH_MAX], folder[PATH_MAX];
    int ret = home_check_name(name, err);

    *holder = (struct lock_holder){0};
    if (!ret)
        ret = home_path(HOME_RUNTIME, NULL, runtime, sizeof(runtime), err);
    if (!ret)
        ret = join(folder, runtime, name, err);
    if (!ret)
        ret = join(path, folder, LOCK, err);
    if (ret)
        return ret;
    lock_file_look(path, holder);
    return join(path, folder, file, err);
}

int run_folder_names(struct registry_names *names, struct error *err)
{
    char runtime[PATH_MAX], path[PATH_MAX];
    int ret = home_path(HOME_RUNTIME, NULL, runtime, sizeof(runtime), err);
    DIR *dir = ret ? NULL : opendir(runtime);
    struct dirent *entry;

    if (!ret && !dir)
        ret = error_set(err, errno, "cannot read %s: %s", runtime, strerror(errno));
    while (!ret && (entry = readdir(dir))) {
        struct lock_holder holder;

        if (!home_valid_name(entry->d_name))
            continue;
        ret = run_folder_find(entry->d_name, LOCK, path, &holder, err);
        if (!ret && holder.held)
            ret = registry_names_add(names, entry->d_name, err);
    }
    if (dir)
        closedir(dir);
    return ret;
}

int run_folder_not_running(const char *name, struct error *err)
{
    return error_set(err, ESRCH, "'%s' does not run (doppel start %s starts it)", name, name);
}

int run_folder_pidfd(const char *name, struct error *err)
{
    char path[PATH_MAX];
    struct lock_holder holder;
    int ret = run_folder_find(name, LOCK, path, &holder, err);

    if (ret)
        return ret;
    ret = lock_file_pidfd(path, &holder);
    if (ret == -ESRCH)
        return run_folder_not_running(name, err);
    return ret < 0
               ? error_set(err, -ret, "cannot watch the process of '%s': %s", name, strerror(-ret))
               : ret;
}

/* Removes the run folder of NAME in RUNTIME if it is stale. */
static int sweep(const char *runtime, const char *name, bool dry, bool *swept, struct error *err)
{
    char folder[PATH_MAX], lock[PATH_MAX];
    struct stat st;
    int fd, ret = join(folder, runtime, name, err);

    if (!ret)
        ret = join(lock, folder, LOCK, err);
    if (ret)
        return ret;
    if (lstat(lock, &st) < 0 || !S_ISREG(st.st_mode))
        return 0; /* no machine's */
    if (dry) {
        struct lock_holder holder;

        lock_file_look(lock, &holder);
        *swept = !holder.held;
        return 0;
    }
    fd = lock_file_take(lock, "is being removed");
    if (fd < 0)
        return 0;
    *swept = true;
    return remove_locked(folder, fd, err);
}

int run_folder_sweep(bool dry, void (*swept)(void *opaque, const char *path), void *opaque,
                     struct error *err)
{
    char runtime[PATH_MAX], path[PATH_MAX];
    int ret = home_path(HOME_RUNTIME, NULL, runtime, sizeof(runtime), err);
    DIR *dir = ret ? NULL : opendir(runtime);
    struct dirent *entry;

    if (!ret && !dir)
        ret = error_set(err, errno, "cannot read %s: %s", runtime, strerror(errno));
    while (!ret && (entry = readdir(dir))) {
        bool removed = false;

        if (!home_valid_name(entry->d_name))
            continue;
        ret = sweep(runtime, entry->d_name, dry, &removed, err);
        if (!ret && removed && !join(path, runtime, entry->d_name, NULL))
            swept(opaque, path);
    }
    if (dir)
        closedir(dir);
    return ret;
}
