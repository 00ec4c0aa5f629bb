/*
 * The named virtual machines of a user.
 */
#include "ctl/registry.h"

#include "ctl/definition.h"
#include "ctl/lock_file.h"
#include "ctl/replace.h"
#include "ctl/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MACHINES   "machines"
#define AUTOSTART  "autostart"
#define NEW_PREFIX ".new-"
#define OLD_PREFIX ".old-"

/* How long locks are waited for that are held for moments, times 10 ms. */
#define MACHINE_PATIENCE  200
#define MACHINES_PATIENCE 3000

static int join(char path[PATH_MAX], const char *folder, const char *name, struct error *err)
{
    if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the path %s/%s is too long", folder, name);
    return 0;
}

int registry_file(const char *folder, const char *file, char path[PATH_MAX], struct error *err)
{
    return join(path, folder, file, err);
}

/* Sets PATH to the folder of all machines. */
static int machines_folder(char path[PATH_MAX], struct error *err)
{
    return home_folder(HOME_DATA, MACHINES, path, PATH_MAX, err);
}

static bool is_folder(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Sets FOLDER to the machine's, whether it is there or not. */
static int named_folder(const char *name, char folder[PATH_MAX], struct error *err)
{
    char machines[PATH_MAX];
    int ret = home_check_name(name, err);

    if (!ret)
        ret = machines_folder(machines, err);
    return ret ? ret : join(folder, machines, name, err);
}

static int no_such(const char *name, struct error *err)
{
    return error_set(err, ENOENT, "there is no machine '%s' (doppel list shows those there are)",
                     name);
}

int registry_folder(const char *name, char folder[PATH_MAX], struct error *err)
{
    int ret = named_folder(name, folder, err);

    return ret ? ret : is_folder(folder) ? 0 : no_such(name, err);
}

int registry_definition(const char *name, char folder[PATH_MAX], char definition[PATH_MAX],
                        struct error *err)
{
    int ret = registry_folder(name, folder, err);

    return ret ? ret : registry_file(folder, DEFINITION_FILE, definition, err);
}

/* ---- Names ---- */

int registry_names_add(struct registry_names *names, const char *name, struct error *err)
{
    unsigned at = 0;
    void *longer;

    while (at < names->count && strcmp(names->name[at], name) < 0)
        at++;
    if (at < names->count && !strcmp(names->name[at], name))
        return 0;
    longer = reallocarray(names->name, names->count + 1, sizeof(*names->name));
    if (!longer)
        return error_set(err, ENOMEM, "out of memory");
    names->name = longer;
    memmove(names->name + at + 1, names->name + at, (names->count++ - at) * sizeof(*names->name));
    snprintf(names->name[at], sizeof(*names->name), "%.*s", HOME_NAME_MOST, name);
    return 0;
}

int registry_names(struct registry_names *names, struct error *err)
{
    char machines[PATH_MAX], path[PATH_MAX];
    int ret = machines_folder(machines, err);
    DIR *dir = ret ? NULL : opendir(machines);
    struct dirent *entry;

    *names = (struct registry_names){0};
    if (!ret && !dir)
        ret = error_set(err, errno, "cannot read %s: %s", machines, strerror(errno));
    while (!ret && (entry = readdir(dir)))
        if (home_valid_name(entry->d_name) && !join(path, machines, entry->d_name, NULL) &&
            is_folder(path))
            ret = registry_names_add(names, entry->d_name, err);
    if (dir)
        closedir(dir);
    if (ret)
        registry_names_free(names);
    return ret;
}

void registry_names_free(struct registry_names *names)
{
    free(names->name);
    *names = (struct registry_names){0};
}

/* ---- Autostart ---- */

bool registry_autostarts(const char *folder)
{
    char path[PATH_MAX];

    return join(path, folder, AUTOSTART, NULL) == 0 && access(path, F_OK) == 0;
}

int registry_set_autostart(const char *folder, bool on, struct error *err)
{
    char path[PATH_MAX];
    int ret = join(path, folder, AUTOSTART, err), fd;

    if (ret)
        return ret;
    if (!on && unlink(path) < 0 && errno != ENOENT)
        return error_set(err, errno, "cannot remove %s: %s", path, strerror(errno));
    if (!on)
        return 0;
    fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, errno, "cannot make %s: %s", path, strerror(errno));
    close(fd);
    sync_folder(folder);
    return 0;
}

/* ---- Locks ---- */

/* Takes the lock PATH. One that is held for moments is waited for, one of a machine that runs is
 * not. */
static int take_lock(const char *path, const char *use, unsigned patience,
                     struct lock_holder *holder)
{
    int fd = -EBUSY;

    for (unsigned i = 0; i < patience; i++) {
        fd = lock_file_take(path, use);
        if (fd != -EBUSY)
            break;
        lock_file_look(path, holder);
        if (holder->held && !strcmp(holder->use, "runs"))
            break;
        usleep(10000);
    }
    return fd;
}

/* Takes the lock of the folder of all machines. */
static int lock_machines(char machines[PATH_MAX], struct error *err)
{
    struct lock_holder holder = {0};
    char path[PATH_MAX];
    int ret = machines_folder(machines, err);

    if (!ret)
        ret = join(path, machines, ".lock", err);
    if (ret)
        return ret;
    ret = take_lock(path, "changes names", MACHINES_PATIENCE, &holder);
    return ret < 0 ? error_set(err, -ret, "cannot lock %s: %s", path, strerror(-ret)) : ret;
}

int registry_lock_names(struct error *err)
{
    char machines[PATH_MAX];

    return lock_machines(machines, err);
}

static int busy(const char *name, const struct lock_holder *holder, struct error *err)
{
    char process[32] = "another process";

    if (holder->pid)
        snprintf(process, sizeof(process), "process %ld", (long)holder->pid);
    return error_set(err, EBUSY, "'%s' %s (%s)", name, *holder->use ? holder->use : "is in use",
                     process);
}

int registry_take(const char *name, const char *use, struct registry_use *machine,
                  struct error *err)
{
    struct lock_holder holder = {0};
    char path[PATH_MAX];
    int ret = registry_folder(name, machine->folder, err);

    if (!ret)
        ret = join(path, machine->folder, "lock", err);
    if (ret)
        return ret;
    machine->lock = take_lock(path, use, MACHINE_PATIENCE, &holder);
    if (machine->lock == -EBUSY)
        return busy(name, &holder, err);
    if (machine->lock == -ENOENT)
        return no_such(name, err);
    if (machine->lock < 0)
        return error_set(err, -machine->lock, "cannot lock %s: %s", path, strerror(-machine->lock));
    snprintf(machine->name, sizeof(machine->name), "%s", name);
    machine->held = true;
    machine->draft = false;
    return 0;
}

static void unlock(struct registry_use *machine)
{
    if (machine->held)
        close(machine->lock);
    machine->held = false;
}

void registry_give_back(struct registry_use *machine)
{
    if (machine->held && machine->draft)
        tree_remove(machine->folder, NULL);
    unlock(machine);
}

/* ---- Machines come, change and go ---- */

static int exists(const char *name, struct error *err)
{
    return error_set(err, EEXIST, "there is a machine '%s' already (doppel rm %s removes it)", name,
                     name);
}

/* Makes a folder for the draft of a machine, and locks it, with the folder of all MACHINES locked.
 */
static int make_draft(const char *machines, struct registry_use *machine, struct error *err)
{
    char path[PATH_MAX];

    if (snprintf(machine->folder, PATH_MAX, "%s/" NEW_PREFIX "%s-XXXXXX", machines,
                 machine->name) >= PATH_MAX - 8)
        return error_set(err, ENAMETOOLONG, "the path %s is too long", machines);
    if (!mkdtemp(machine->folder))
        return error_set(err, errno, "cannot make a folder in %s: %s", machines, strerror(errno));
    snprintf(path, sizeof(path), "%.*s/lock", PATH_MAX - 8, machine->folder);
    machine->lock = lock_file_take(path, "is being made");
    if (machine->lock < 0) {
        tree_remove(machine->folder, NULL);
        return error_set(err, -machine->lock, "cannot lock %s: %s", path, strerror(-machine->lock));
    }
    machine->held = machine->draft = true;
    return 0;
}

int registry_begin(const char *name, struct registry_use *machine, struct error *err)
{
    char machines[PATH_MAX], folder[PATH_MAX];
    int lock, ret = named_folder(name, folder, err);

    if (!ret && access(folder, F_OK) == 0)
        ret = exists(name, err);
    if (ret)
        return ret;
    lock = lock_machines(machines, err);
    if (lock < 0)
        return lock;
    snprintf(machine->name, sizeof(machine->name), "%s", name);
    ret = make_draft(machines, machine, err);
    close(lock);
    return ret;
}

/* Moves the machine's folder to NAME within the folder of all machines. Nothing is replaced but a
 * folder that is empty, and so no machine's: each has a lock in it. */
static int move(struct registry_use *machine, const char *name, struct error *err)
{
    char machines[PATH_MAX], folder[PATH_MAX];
    int lock = lock_machines(machines, err), ret;

    if (lock < 0)
        return lock;
    ret = join(folder, machines, name, err);
    if (!ret && rename(machine->folder, folder) < 0) {
        ret = -errno;
        if (ret == -ENOTEMPTY || ret == -EEXIST || ret == -ENOTDIR)
            ret = exists(name, err);
        else
            error_set(err, -ret, "cannot rename %s: %s", machine->folder, strerror(-ret));
    }
    close(lock);
    if (!ret) {
        sync_folder(machines);
        snprintf(machine->folder, PATH_MAX, "%s", folder);
    }
    return ret;
}

int registry_commit(struct registry_use *machine, struct error *err)
{
    int ret;

    sync_folder(machine->folder);
    ret = move(machine, machine->name, err);
    if (!ret)
        machine->draft = false;
    return ret;
}

int registry_rename(struct registry_use *machine, const char *name, struct error *err)
{
    int ret = home_check_name(name, err);

    if (!ret && !strcmp(name, machine->name))
        ret = exists(name, err);
    if (!ret)
        ret = move(machine, name, err);
    if (!ret)
        snprintf(machine->name, sizeof(machine->name), "%s", name);
    return ret;
}

int registry_remove(struct registry_use *machine, struct error *err)
{
    char machines[PATH_MAX], path[PATH_MAX];
    int ret = machines_folder(machines, err);

    if (ret)
        return ret;
    if (snprintf(path, sizeof(path), "%s/" OLD_PREFIX "%s-XXXXXX", machines, machine->name) >=
        PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the path %s is too long", machines);
    if (!mkdtemp(path)) /* a name that nothing else has; the machine's folder replaces it */
        return error_set(err, errno, "cannot make a folder in %s: %s", machines, strerror(errno));
    ret = move(machine, strrchr(path, '/') + 1, err);
    if (!ret)
        ret = tree_remove(machine->folder, err);
    else
        rmdir(path);
    unlock(machine);
    return ret;
}

/* ---- What is left behind ---- */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

struct sweep {
    bool dry;
    void (*swept)(void *opaque, const char *path);
    void *opaque;
    struct error *err;
};

static int sweep_path(const struct sweep *sweep, const char *path)
{
    int ret = sweep->dry ? 0 : tree_remove(path, sweep->err);

    if (!ret)
        sweep->swept(sweep->opaque, path);
    return ret;
}

/* Removes the drafts of small files from the folder of a machine that nobody uses. */
static int sweep_machine(const struct sweep *sweep, const char *name)
{
    struct registry_use machine = {0};
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *dir;
    int ret = 0;

    if (registry_take(name, "is being cleaned", &machine, NULL) < 0)
        return 0;
    dir = opendir(machine.folder);
    while (dir && !ret && (entry = readdir(dir)))
        if (begins(entry->d_name, REPLACE_PREFIX) &&
            !join(path, machine.folder, entry->d_name, NULL))
            ret = sweep_path(sweep, path);
    if (dir)
        closedir(dir);
    registry_give_back(&machine);
    return ret;
}

/* Removes the machine at PATH, which is not there yet or any more, unless somebody has locked it.
 */
static int sweep_unfinished(const struct sweep *sweep, const char *path)
{
    struct lock_holder holder;
    char lock[PATH_MAX];
    int ret = join(lock, path, "lock", sweep->err);

    if (ret)
        return ret;
    lock_file_look(lock, &holder);
    return holder.held ? 0 : sweep_path(sweep, path);
}

static int sweep_folder(const struct sweep *sweep, const char *machines)
{
    DIR *dir = opendir(machines);
    struct dirent *entry;
    char path[PATH_MAX];
    int ret = 0;

    if (!dir)
        return error_set(sweep->err, errno, "cannot read %s: %s", machines, strerror(errno));
    while (!ret && (entry = readdir(dir))) {
        if (!begins(entry->d_name, NEW_PREFIX) && !begins(entry->d_name, OLD_PREFIX))
            continue;
        ret = join(path, machines, entry->d_name, sweep->err);
        if (!ret)
            ret = sweep_unfinished(sweep, path);
    }
    closedir(dir);
    return ret;
}

int registry_sweep(bool dry, void (*swept)(void *opaque, const char *path), void *opaque,
                   struct error *err)
{
    struct sweep sweep = {dry, swept, opaque, err};
    struct registry_names names;
    char machines[PATH_MAX];
    int lock = lock_machines(machines, err), ret;

    if (lock < 0)
        return lock;
    ret = sweep_folder(&sweep, machines);
    close(lock);
    if (!ret)
        ret = registry_names(&names, err);
    if (ret)
        return ret;
    for (unsigned i = 0; i < names.count && !ret; i++)
        ret = sweep_machine(&sweep, names.name[i]);
    registry_names_free(&names);
    return ret;
}
