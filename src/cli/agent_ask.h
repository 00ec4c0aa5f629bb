/*
 * Questions to the agents of several machines at once (guests/agent_protocol.h): one that does not
 * answer keeps nobody waiting for longer than the others.
 */
#ifndef DOPPEL_CLI_AGENT_ASK_H
#define DOPPEL_CLI_AGENT_ASK_H

#include <stdbool.h>
#include <stddef.h>

#define AGENT_ANSWER_MOST 2048 /* bytes that are kept of an answer */

struct agent_question {
    const char *name; /* the machine's */
    bool answered;    /* it has done what was asked for */
    /* Lines of printable characters, as they come from the guest: not to be trusted. */
    char answer[AGENT_ANSWER_MOST + 1];
    size_t size;
};

/* Asks all COUNT machines for WISH ("addresses", "shutdown"), and waits up to MS milliseconds. */
void agent_ask(struct agent_question *questions, unsigned count, const char *wish, unsigned ms);

#endif
