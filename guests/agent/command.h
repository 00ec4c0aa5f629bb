/*
 * A command that the agent runs for a client: a session of its own, with pipes or a terminal.
 */
#ifndef DOPPEL_GUESTS_AGENT_COMMAND_H
#define DOPPEL_GUESTS_AGENT_COMMAND_H

#include "request.h"

#include <stdint.h>
#include <sys/types.h>

/* The descriptors do not block, and are -1 when they are closed. With a terminal IN and OUT are the
 * same one, and ERR is -1. */
struct agent_command {
    pid_t pid; /* of the session, its process group and its first process */
    int in, out, err;
    bool terminal;
};

/* Why a command could not be started. */
struct agent_failure {
    uint8_t status; /* 127: there is no such program; 126: it cannot be run, or not so */
    char text[200];
};

/* Starts it. False: FAILURE says why not. */
bool agent_command_start(const struct agent_request *request, struct agent_command *command,
                         struct agent_failure *failure);

void agent_command_resize(const struct agent_command *command, unsigned rows, unsigned columns);
/* Sends it a signal: to the processes in front on its terminal, or to its process group. */
void agent_command_signal(const struct agent_command *command, int number);
/* Nobody is left who listens to it: closes its streams, and hangs up all processes of its session.
 */
void agent_command_hang_up(struct agent_command *command);
void agent_command_close(int *fd);

#endif
