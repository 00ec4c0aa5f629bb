/*
 * What machines that run say of themselves, asked all at once: one that does not answer keeps
 * nobody waiting for longer than LIVE_MS.
 */
#ifndef DOPPEL_CLI_LIVE_H
#define DOPPEL_CLI_LIVE_H

#include <jansson.h>

#define LIVE_MS 150

struct live {
    const char *name;
    json_t *state; /* the result of the request `state`; NULL: there was no answer */
};

/* Fills in the states of COUNT machines, of which the names are given. The caller frees them. */
void live_ask(struct live *machines, unsigned count);

#endif
