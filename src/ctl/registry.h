/*
 * The named virtual machines of a user, each a folder:
 *
 *      DATA/machines/          (ctl/home.h)
 *          .lock               held for moments: names change
 *          NAME/
 *              machine.yaml    the definition (ctl/definition.h)
 *              lock            held by the process that runs, changes or removes the machine
 *              autostart       is there if `doppel start --all` starts the machine
 *              ...             disks, kernel, what ssh needs: all goes when the machine is removed
 *          .new-NAME-XXXXXX/   a machine that is being made
 *          .old-NAME-XXXXXX/   a machine that is being removed
 *
 * A machine appears and goes by one rename(2), so whoever is killed leaves at most one of the last
 * two, which registry_sweep removes because nobody has locked it. Commands that only read a
 * definition lock nothing.
 */
#ifndef DOPPEL_CTL_REGISTRY_H
#define DOPPEL_CTL_REGISTRY_H

#include "base/error.h"
#include "ctl/home.h"

#include <limits.h>
#include <stdbool.h>

/* The names of all machines, sorted. */
struct registry_names {
    char (*name)[HOME_NAME_MOST + 1];
    unsigned count;
};
int registry_names(struct registry_names *names, struct error *err);
/* Adds NAME, a valid one, if it is not there yet. */
int registry_names_add(struct registry_names *names, const char *name, struct error *err);
void registry_names_free(struct registry_names *names);

/* Keeps machines from coming, going and being renamed until the descriptor that it returns is
 * closed, soon. */
int registry_lock_names(struct error *err);

/* Sets FOLDER to the machine's. -ENOENT: there is no such machine; -EINVAL: NAME is not a name. */
int registry_folder(const char *name, char folder[PATH_MAX], struct error *err);
/* The same, and sets DEFINITION to the path of its definition. */
int registry_definition(const char *name, char folder[PATH_MAX], char definition[PATH_MAX],
                        struct error *err);
/* Sets PATH to FILE in the machine's folder, whether it is there or not. */
int registry_file(const char *folder, const char *file, char path[PATH_MAX], struct error *err);

/* Whether the machine in FOLDER is one that `doppel start --all` starts, and making it so. */
bool registry_autostarts(const char *folder);
int registry_set_autostart(const char *folder, bool on, struct error *err);

/* A machine that this process, and those that it forks, have for themselves. All zero: none. */
struct registry_use {
    bool held;
    int lock;
    char name[HOME_NAME_MOST + 1];
    char folder[PATH_MAX];
    bool draft; /* it is not there yet */
};

/* Takes the machine NAME to do what USE says, "runs" or "is being renamed": letters and blanks.
 * -ENOENT as above; -EBUSY: another process has it, which the message names. */
int registry_take(const char *name, const char *use, struct registry_use *machine,
                  struct error *err);

/* Begins a new machine, in an empty folder (but for its lock) that nobody else looks at.
 * -EEXIST: there is one of that name. */
int registry_begin(const char *name, struct registry_use *machine, struct error *err);
/* Gives it its name: from now on it is there, and still this process's. -EEXIST as above. */
int registry_commit(struct registry_use *machine, struct error *err);

/* Renames a machine that was taken. -EEXIST: there is one called NAME; -EINVAL: it is no name. */
int registry_rename(struct registry_use *machine, const char *name, struct error *err);
/* Removes a machine that was taken, with its folder. If that fails later than its first step, the
 * machine is gone, and what is left of its folder is for registry_sweep. */
int registry_remove(struct registry_use *machine, struct error *err);

/* Gives the machine back. A new one that was not committed is removed. Nothing is done if *MACHINE
 * was never taken. */
void registry_give_back(struct registry_use *machine);

/* Removes what killed processes have left among the machines, and tells SWEPT of each path. With
 * DRY it only tells. */
int registry_sweep(bool dry, void (*swept)(void *opaque, const char *path), void *opaque,
                   struct error *err);

#endif
