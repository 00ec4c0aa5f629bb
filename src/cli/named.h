/*
 * A machine that runs by its name: its definition as options of `doppel run`, and its folders and
 * locks as long as it runs. One that is not kept has a run folder only.
 */
#ifndef DOPPEL_CLI_NAMED_H
#define DOPPEL_CLI_NAMED_H

#include "base/error.h"
#include "ctl/definition.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

/* All zero: there is none. */
struct named {
    char name[HOME_NAME_MOST + 1];
    struct registry_use machine; /* not held: the machine is not kept */
    struct run_folder folder;
    struct definition definition;
    char **options; /* "run", "--memory=2G", ..., up to a NULL */
    unsigned count;
};

/* Takes the machine NAME, so that nobody else runs, changes or removes it, and its run folder, and
 * reads its definition. On failure *NAMED is empty. */
int named_open(const char *name, struct named *named, struct error *err);
/* The same for a machine that is called NAME as long as it runs, of which nothing is kept. -EEXIST:
 * a machine that is kept is called so. */
int named_open_unkept(const char *name, struct named *named, struct error *err);
/* Reads the definition again. */
int named_reload(struct named *named, struct error *err);
bool named_is_open(const struct named *named);
/* Sets PATH to where the machine's log is. */
int named_log(const struct named *named, char path[PATH_MAX], struct error *err);
/* Has the run folder stay when everything is given back, with the log of a machine that is not
 * kept, until the next machine of that name or `doppel gc`. */
void named_leave_log(struct named *named);
/* Gives everything back. What a process that was forked since, the VM process, gives back is still
 * the supervisor's, which outlives it. */
void named_close(struct named *named);

#endif
