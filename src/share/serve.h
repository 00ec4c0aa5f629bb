/*
 * The process of an isolated folder: serves the requests that it finds in shared memory.
 */
#ifndef DOPPEL_SHARE_SERVE_H
#define DOPPEL_SHARE_SERVE_H

#include "share/options.h"
#include "share/share.h"

/* Opens the folder that OPTIONS name and serves it at LINK (base/kept_link.h), which stays the
 * caller's, until the other end is closed. In a process of its own. Returns 0 then, or a negative
 * errno and ERR: the folder cannot be opened, which the other end has been told, or the other end
 * breaks the rules. */
int share_serve(int link, const struct share_options *options, const struct share_host *host,
                struct error *err);

#endif
