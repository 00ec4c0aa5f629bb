/*
 * The last word of a process that a signal is about to kill: which signal, from whom or at which
 * address, and what the thread was doing.
 */
#ifndef DOPPEL_CLI_CRASH_H
#define DOPPEL_CLI_CRASH_H

#include "cli/channel.h"

#include <stddef.h>

/* Installs handlers for the signals of faults and of abort(3): the supervisor gets NOTE_CRASH, and
 * then happens what would have happened without. Called once, before anybody else installs handlers
 * (who must pass on what is not meant for them), and before there are threads. */
void crash_watch(const struct channel *channel);

/* Writes a line about the NOTE_CRASH of process VM, which executes this program, loaded at the same
 * addresses as here. The note may hold anything. */
void crash_describe(const struct message *note, pid_t vm, char *text, size_t size);

#endif
