/*
 * A command in a guest with the standard streams of this process, by the guest's agent.
 */
#ifndef DOPPEL_CLI_EXEC_RELAY_H
#define DOPPEL_CLI_EXEC_RELAY_H

#include "con/agent_client.h"

struct exec_relay_options {
    const char *name; /* the machine's, for messages */
    bool input;       /* standard input is the command's; else it has none */
};

/* Runs REQUEST over the connection LINK, which blocks and stays the caller's. With a terminal in
 * the guest, this process's is in raw mode meanwhile. Signals for this process are the command's;
 * the second one of a kind that ends ends this process's wait, too. Returns the exit status; a
 * message has been printed if the command is not to blame for it. */
int exec_relay(int link, const struct agent_client_request *request,
               const struct exec_relay_options *options);

#endif
