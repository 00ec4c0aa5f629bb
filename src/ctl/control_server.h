/*
 * Serves a control socket: its clients, what they send, and what they are sent.
 *
 * Nothing here waits. A client is trusted with nothing: what it sends has a limit, one that sends
 * no request is sent away, one that does not read is not read from, and what it cannot be told is
 * no more kept for it than CONTROL_OWED_MOST bytes: then it is sent away, too. Only processes of
 * this user are let in.
 *
 * One thread uses it.
 */
#ifndef DOPPEL_CTL_CONTROL_SERVER_H
#define DOPPEL_CTL_CONTROL_SERVER_H

#include "ctl/control.h"

#include <stdbool.h>

#define CONTROL_CLIENTS_MOST 64
#define CONTROL_OWED_MOST    ((size_t)256 * 1024)

struct control_server;

struct control_ops {
    /* CLIENT, a number that is used once only, asks for something. It gets one answer, at once or
     * later (control_answer, control_refuse), under the request's id. */
    void (*request)(void *opaque, uint64_t client, const struct control_request *request);
    void *opaque;
};

/* Listens at PATH. NAME is what the server calls itself. OPS is copied. */
struct control_server *control_server_open(const char *path, const char *name,
                                           const struct control_ops *ops, struct error *err);
/* Sends all clients away, and removes PATH. NULL is allowed. */
void control_server_close(struct control_server *server);
/* In a process that was forked: lets go of all descriptors, and frees SERVER. The other process's
 * clients and socket stay. NULL is allowed. */
void control_server_forget(struct control_server *server);

/* A descriptor that poll(2) finds readable when there is something for control_server_work. */
int control_server_fd(const struct control_server *server);
/* Does some of what there is to do, and calls control_ops. */
void control_server_work(struct control_server *server);

/* Whether CLIENT is still there. */
bool control_server_has(const struct control_server *server, uint64_t client);
/* Answer. A client that is gone hears nothing. RESULT is taken; NULL: there was no memory for it.
 */
void control_answer(struct control_server *server, uint64_t client, int64_t id, json_t *result);
void control_refuse(struct control_server *server, uint64_t client, int64_t id,
                    const struct error *err);

/* Whether CLIENT is told of events from now on. */
void control_server_subscribe(struct control_server *server, uint64_t client, bool on);
/* Tells those who want to know. EVENT is taken; NULL: there was no memory for it. */
void control_server_event(struct control_server *server, json_t *event);
/* Whether all that clients are to be told is sent. */
bool control_server_idle(const struct control_server *server);

#endif
