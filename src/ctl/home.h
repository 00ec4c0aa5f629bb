/*
 * The user's folders, as the XDG Base Directory Specification has them, and the names of virtual
 * machines.
 *
 *   HOME_DATA     $XDG_DATA_HOME/doppel    (~/.local/share)  machines, base images, the ssh key
 *   HOME_CONFIG   $XDG_CONFIG_HOME/doppel  (~/.config)       what the user says of this host
 *   HOME_CACHE    $XDG_CACHE_HOME/doppel   (~/.cache)        downloads: may be deleted at any time
 *   HOME_RUNTIME  $XDG_RUNTIME_DIR/doppel  (/tmp: below)     sockets and locks of running machines
 *
 * A variable that is not set, or is no absolute path, counts for nothing. Without XDG_RUNTIME_DIR
 * the last one is doppel-UID in the folder for temporary files. A folder is made with mode 0700
 * when it is first asked for. It must belong to the user, and nobody else may write to it; the last
 * one is no link, and nobody else may read it.
 *
 * Any thread.
 */
#ifndef DOPPEL_CTL_HOME_H
#define DOPPEL_CTL_HOME_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum home { HOME_DATA, HOME_CONFIG, HOME_CACHE, HOME_RUNTIME };

/* Sets PATH, of SIZE bytes, to REST in FOLDER, which it makes and checks. REST may be NULL: the
 * folder itself. Nothing is made or looked at within the folder. */
int home_path(enum home folder, const char *rest, char *path, size_t size, struct error *err);

/* The same, and makes REST a folder as well, with the folders that lead to it. */
int home_folder(enum home folder, const char *rest, char *path, size_t size, struct error *err);

/* Virtual machines, base images and switches have names of this form: [a-z0-9][a-z0-9-]*. Each
 * machine that runs has a folder of its name in HOME_RUNTIME, so what else is there begins with a
 * dot. */
#define HOME_NAME_MOST 40 /* bytes: a socket's path has 107 */
bool home_valid_name(const char *name);
/* Fails with -EINVAL if NAME is none. */
int home_check_name(const char *name, struct error *err);

#endif
