/*
 * OpenSSH's client in place of this process: a login to a machine that runs, or a command in it.
 */
#ifndef DOPPEL_CLI_SSH_LOGIN_H
#define DOPPEL_CLI_SSH_LOGIN_H

#include "base/error.h"

#include <stdbool.h>

enum ssh_login_terminal {
    SSH_LOGIN_DEFAULT,  /* as ssh does it: for a shell, not for a command */
    SSH_LOGIN_TERMINAL, /* if standard input is one */
    SSH_LOGIN_FORCED,
    SSH_LOGIN_NONE,
};

struct ssh_login {
    const char *name;           /* the machine's */
    unsigned wait;              /* seconds that it may take until it answers */
    const char *user;           /* NULL: as its definition says */
    const char *const *command; /* up to a NULL, each word as it is; NULL: a shell */
    const char *const *env;     /* NAME=VALUE for the command, up to a NULL; or NULL */
    const char *folder;         /* where the command is to run; or NULL */
    enum ssh_login_terminal terminal;
    bool no_input; /* its input is empty */
};

/* Becomes ssh, for the machine whose folder is FOLDER. Returns only on failure. */
int ssh_login(const struct ssh_login *login, const char *folder, struct error *err);

#endif
