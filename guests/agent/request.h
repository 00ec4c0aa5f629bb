/*
 * What a client of the agent wants: the strings of an OPEN frame (agent_protocol.h).
 */
#ifndef DOPPEL_GUESTS_AGENT_REQUEST_H
#define DOPPEL_GUESTS_AGENT_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

enum agent_wish { AGENT_EXEC, AGENT_ADDRESSES, AGENT_SHUTDOWN };

/* Texts are parts of what was parsed. */
struct agent_request {
    enum agent_wish wish;
    char **argv; /* up to a NULL; argv[0] NULL: a shell */
    char **env;  /* NAME=VALUE, up to a NULL */
    size_t argc, envc;
    const char *folder, *user; /* NULL: not said */
    bool terminal;
    unsigned rows, columns;
};

/* Parses the SIZE bytes at TEXT, which must stay. Returns 0, or a negative errno: -EPROTO if it is
 * of another version, -EINVAL if it is none, -ENOMEM. The lists are to be freed. */
int agent_request_parse(char *text, size_t size, struct agent_request *request);
void agent_request_free(struct agent_request *request);

#endif
