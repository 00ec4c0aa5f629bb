/*
 * What ssh needs to reach machines: a key of doppel's own, and for each machine a configuration
 * file.
 *
 *      DATA/ssh/               (ctl/home.h)
 *          id_ed25519, .pub    the key, which new machines let in
 *          config              includes those of all machines
 *      DATA/machines/NAME/
 *          ssh.config          for ssh -F: how to reach the machine, and as whom
 *          known_hosts         the machine's own key, learnt when it is first reached
 */
#ifndef DOPPEL_CLI_SSH_SETUP_H
#define DOPPEL_CLI_SSH_SETUP_H

#include "base/error.h"

#include <limits.h>

#define SSH_CONFIG    "ssh.config"
#define SSH_PATIENCE  120 /* seconds for a machine to answer, by default */
#define SSH_PORT_WORD "ssh"

/* Makes the key if there is none, by ssh-keygen. Sets PATH to the private one; the public one has
 * ".pub" behind it. */
int ssh_setup_key(char path[PATH_MAX], struct error *err);

/* Writes the configuration of the machine NAME, whose folder is FOLDER, if it is not that already,
 * from its definition. Sets PATH to it. */
int ssh_setup_config(const char *name, const char *folder, char path[PATH_MAX], struct error *err);

/* The words by which ssh reaches the machine NAME, waiting up to PATIENCE seconds: a command for
 * the shell that ssh starts, in which ssh replaces what stands behind '%'. The caller frees it;
 * NULL: no memory. */
char *ssh_setup_proxy(const char *name, unsigned patience);

#endif
