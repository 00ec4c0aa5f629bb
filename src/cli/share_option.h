/*
 * The value of `--share`: FOLDER[:PATH][:ro|:rw][,SETTING...], where PATH is where the default
 * guest mounts it, and the rest what share/options.h says.
 */
#ifndef DOPPEL_CLI_SHARE_OPTION_H
#define DOPPEL_CLI_SHARE_OPTION_H

#include "base/error.h"

/* Makes of TEXT a description for the board and, if there is a PATH, what our init is told
 * (con/session.h); else *MOUNT is NULL. The caller frees both. Without a tag it is called shareN.
 */
int share_option_parse(const char *text, unsigned n, char **description, char **mount,
                       struct error *err);

#endif
