/*
 * The host's end of a conversation with the agent in a guest: a command in the guest, its standard
 * streams and its exit status, or a question, over a connection (guests/agent_protocol.h). It knows
 * neither the VM nor the host's files: bytes go in, and callbacks get what comes of them. Nothing
 * that the guest says is trusted.
 *
 * One thread; no locks.
 */
#ifndef DOPPEL_CON_AGENT_CLIENT_H
#define DOPPEL_CON_AGENT_CLIENT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct agent_client;

struct agent_client_ops {
    /* Bytes for the connection. There are never more that the guest has not taken than the window
     * of input, the request, and a few frames for each call of agent_client_resize and _signal. */
    void (*send)(void *opaque, const void *data, size_t size);
    /* What the command wrote to its file descriptor FD, 1 or 2. Until agent_client_written says so
     * there are at most AGENT_CLIENT_WINDOW bytes of each. */
    void (*output)(void *opaque, int fd, const uint8_t *data, size_t size);
};

#define AGENT_CLIENT_WINDOW ((size_t)512 * 1024)

enum agent_client_state {
    AGENT_CLIENT_WAITING, /* the agent has not said anything yet */
    AGENT_CLIENT_RUNNING,
    AGENT_CLIENT_EXITED, /* agent_client_status is the command's */
    AGENT_CLIENT_FAILED, /* it could not be started: agent_client_status and _failure */
    AGENT_CLIENT_BROKEN, /* the agent speaks another version, or not as agreed: _failure */
};

/* What is wanted. */
struct agent_client_request {
    const char *wish;        /* "exec", "addresses" or "shutdown" */
    const char *const *argv; /* of exec, up to a NULL; NULL: the user's shell */
    const char *const *env;  /* NAME=VALUE, up to a NULL; NULL: none */
    const char *folder;      /* NULL: the user's home */
    const char *user;        /* NULL: root */
    bool terminal;
    unsigned rows, columns; /* of the terminal */
};

/* Begins: sends REQUEST. -E2BIG: it is too long. */
struct agent_client *agent_client_create(const struct agent_client_ops *ops, void *opaque,
                                         const struct agent_client_request *request,
                                         struct error *err);
void agent_client_destroy(struct agent_client *client); /* may be NULL */

enum agent_client_state agent_client_state(const struct agent_client *client);
bool agent_client_over(const struct agent_client *client); /* exited, failed or broken */
unsigned agent_client_status(const struct agent_client *client);
/* Why, in printable characters. */
const char *agent_client_failure(const struct agent_client *client);

/* Bytes from the connection. Those after the end are ignored. */
void agent_client_receive(struct agent_client *client, const uint8_t *data, size_t size);

/* How many bytes of standard input may be given now, and giving them. */
size_t agent_client_room(const struct agent_client *client);
void agent_client_input(struct agent_client *client, const void *data, size_t size);
void agent_client_input_end(struct agent_client *client);

/* SIZE bytes of what went to ops.output for FD have been written down. */
void agent_client_written(struct agent_client *client, int fd, size_t size);
void agent_client_resize(struct agent_client *client, unsigned rows, unsigned columns);
void agent_client_signal(struct agent_client *client, int number);

#endif
