/*
 * The protocol of control sockets (docs/control.md): lines of JSON, each an object. Of what a line
 * says, what is not known is ignored, so that older and newer programs understand each other.
 *
 *      server    {"doppel": "0.1.0", "protocol": 1, "name": "web"}            first, once
 *      client    {"id": 1, "request": "stop", "arguments": {"timeout": 10}}
 *      server    {"id": 1, "result": {...}}
 *                {"id": 1, "error": {"code": "EINVAL", "message": "..."}}
 *                {"event": "paused", ...}                                      at any time
 */
#ifndef DOPPEL_CTL_CONTROL_H
#define DOPPEL_CTL_CONTROL_H

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define CONTROL_PROTOCOL  1
#define CONTROL_LINE_MOST ((size_t)64 * 1024) /* bytes of a line, with its newline */
#define CONTROL_ID_MOST   (INT64_C(1) << 53)  /* what every JSON library keeps whole */

/* A request as it came in. */
struct control_request {
    int64_t id;        /* 0..CONTROL_ID_MOST */
    const char *name;  /* LINE's, as the next one */
    json_t *arguments; /* an object, or NULL */
    json_t *line;      /* NULL: there is none */
};

/* Reads the SIZE bytes of TEXT, a line without its newline. -EINVAL: it is no request. *REQUEST
 * must be freed only if that is 0. */
int control_request_parse(const char *text, size_t size, struct control_request *request,
                          struct error *err);
void control_request_free(struct control_request *request);

/* Sets *VALUE to the argument NAME, which is *VALUE as it is if there is none. -EINVAL: it is
 * something else, or not from LEAST to MOST. */
int control_argument(const struct control_request *request, const char *name, double least,
                     double most, double *value, struct error *err);

/* Return a line, or NULL if there is no memory. RESULT is taken. Texts may hold anything: what is
 * not UTF-8, and control characters, become '?'. */
json_t *control_hello(const char *name);
json_t *control_result(int64_t id, json_t *result);
json_t *control_failure(int64_t id, int code, const char *message);
/* TEXT as a JSON string. */
json_t *control_text(const char *text);

/* Returns LINE as text with a newline, which the caller frees, and frees LINE. NULL: LINE is NULL,
 * there is no memory, or it is longer than CONTROL_LINE_MOST. */
char *control_line(json_t *line);

/* The errno whose name is CODE; EPROTO if there is none. */
int control_errno(const char *code);

#endif
