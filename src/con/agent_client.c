/*
 * The host's end of a conversation with the agent in a guest.
 */
#include "con/agent_client.h"

#include "../../guests/agent_protocol.h"
#include "base/log.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Credit is given for a quarter of the window at once, so that there are few such frames. */
#define CREDIT_LEAST (AGENT_OUT_WINDOW / 4)

_Static_assert(AGENT_CLIENT_WINDOW == AGENT_OUT_WINDOW, "the header says how much there can be");

/* One of the command's output streams. */
struct output {
    size_t held; /* bytes that have come and for which there was no credit */
    size_t due;  /* of those, the bytes that have been written */
};

struct agent_client {
    const struct agent_client_ops *ops;
    void *opaque;
    struct agent_reader reader;
    enum agent_client_state state;
    size_t in_flight; /* bytes of input without credit */
    bool input_ended;
    struct output output[3]; /* by file descriptor */
    unsigned status;
    char failure[AGENT_SMALL + 32];
};

static void break_off(struct agent_client *c, const char *why)
{
    c->state = AGENT_CLIENT_BROKEN;
    snprintf(c->failure, sizeof(c->failure), "%s", why);
}

bool agent_client_over(const struct agent_client *c)
{
    return c->state >= AGENT_CLIENT_EXITED;
}

/* ---- To the guest ---- */

static void send_frame(struct agent_client *c, enum agent_type type, const void *payload,
                       size_t size)
{
    uint8_t header[AGENT_HEADER];

    agent_put_header(header, type, size);
    c->ops->send(c->opaque, header, sizeof(header));
    if (size > 0)
        c->ops->send(c->opaque, payload, size);
}

static void put(FILE *to, const char *key, const char *value)
{
    if (value)
        fprintf(to, "%s=%s%c", key, value, 0);
}

static void put_all(FILE *to, const char *key, const char *const *values)
{
    for (; values && *values; values++)
        put(to, key, *values);
}

static int send_request(struct agent_client *c, const struct agent_client_request *request,
                        struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    int result = 0;

    if (!to)
        return error_set(err, ENOMEM, "out of memory");
    fwrite(AGENT_MAGIC, 1, sizeof(AGENT_MAGIC), to);
    put(to, "request", request->wish);
    put_all(to, "arg", request->argv);
    put_all(to, "env", request->env);
    put(to, "folder", request->folder);
    put(to, "user", request->user);
    if (request->terminal)
        fprintf(to, "terminal=%u,%u%c", MIN(request->rows, UINT16_MAX),
                MIN(request->columns, UINT16_MAX), 0);
    if (fclose(to) != 0)
        result = error_set(err, ENOMEM, "out of memory");
    else if (size > AGENT_OPEN)
        result = error_set(err, E2BIG, "the command is too long: %zu bytes (at most %u)", size,
                           AGENT_OPEN);
    else
        send_frame(c, AGENT_OPEN_FRAME, text, size);
    free(text);
    return result;
}

size_t agent_client_room(const struct agent_client *c)
{
    return agent_client_over(c) || c->input_ended ? 0 : AGENT_IN_WINDOW - c->in_flight;
}

void agent_client_input(struct agent_client *c, const void *data, size_t size)
{
    const uint8_t *from = data;

    for (size_t piece; size > 0; size -= piece, from += piece) {
        piece = MIN(size, AGENT_PAYLOAD);
        c->in_flight += piece;
        send_frame(c, AGENT_IN_FRAME, from, piece);
    }
}

void agent_client_input_end(struct agent_client *c)
{
    if (!agent_client_over(c) && !c->input_ended)
        send_frame(c, AGENT_IN_END_FRAME, NULL, 0);
    c->input_ended = true;
}

void agent_client_written(struct agent_client *c, int fd, size_t size)
{
    struct output *output = &c->output[fd];
    uint8_t credit[5] = {(uint8_t)fd};

    output->due += size;
    if (output->due < CREDIT_LEAST || agent_client_over(c))
        return;
    agent_put32(credit + 1, (uint32_t)output->due);
    output->held -= output->due;
    output->due = 0;
    send_frame(c, AGENT_CREDIT_FRAME, credit, sizeof(credit));
}

void agent_client_resize(struct agent_client *c, unsigned rows, unsigned columns)
{
    uint8_t size[4];

    agent_put16(size, (uint16_t)MIN(rows, UINT16_MAX));
    agent_put16(size + 2, (uint16_t)MIN(columns, UINT16_MAX));
    if (!agent_client_over(c))
        send_frame(c, AGENT_SIZE_FRAME, size, sizeof(size));
}

void agent_client_signal(struct agent_client *c, int number)
{
    uint8_t byte = (uint8_t)number;

    if (!agent_client_over(c))
        send_frame(c, AGENT_SIGNAL_FRAME, &byte, 1);
}

/* ---- From the guest ---- */

static void take_hello(struct agent_client *c, const struct agent_piece *piece)
{
    if (piece->type != AGENT_HELLO_FRAME || piece->size != 4)
        break_off(c, "what answers in the guest is not doppel's agent");
    else if (agent_get32(piece->data) != AGENT_VERSION)
        break_off(c, "the agent in the guest is of another version");
    else
        c->state = AGENT_CLIENT_RUNNING;
}

static void take_output(struct agent_client *c, const struct agent_piece *piece)
{
    int fd = piece->type == AGENT_OUT_FRAME ? 1 : 2;

    if (piece->size > AGENT_OUT_WINDOW - c->output[fd].held) {
        break_off(c, "the agent in the guest sends more than it may");
        return;
    }
    c->output[fd].held += piece->size;
    if (piece->size > 0)
        c->ops->output(c->opaque, fd, piece->data, piece->size);
}

/* False: it is none. */
static bool take_credit(struct agent_client *c, const struct agent_piece *piece)
{
    uint32_t count = piece->size == 5 ? agent_get32(piece->data + 1) : UINT32_MAX;

    if (piece->data[0] != AGENT_STREAM_IN || count > c->in_flight)
        return false;
    c->in_flight -= count;
    return true;
}

/* The command has ended, or has never begun. False: it is said wrongly. */
static bool take_end(struct agent_client *c, const struct agent_piece *piece)
{
    bool failed = piece->type == AGENT_FAIL_FRAME;

    if (piece->size < 1 || (!failed && piece->size > 1))
        return false;
    c->status = piece->data[0];
    c->state = failed ? AGENT_CLIENT_FAILED : AGENT_CLIENT_EXITED;
    snprintf(c->failure, sizeof(c->failure), "%.*s", (int)(piece->size - 1), piece->data + 1);
    log_clean(c->failure);
    return true;
}

static void handle(struct agent_client *c, const struct agent_piece *piece)
{
    bool right = false;

    if (c->state == AGENT_CLIENT_WAITING) {
        take_hello(c, piece);
        return;
    }
    if (piece->type == AGENT_OUT_FRAME || piece->type == AGENT_ERR_FRAME) {
        take_output(c, piece);
        return;
    }
    if (piece->type == AGENT_CREDIT_FRAME)
        right = take_credit(c, piece);
    else if (piece->type == AGENT_EXIT_FRAME || piece->type == AGENT_FAIL_FRAME)
        right = take_end(c, piece);
    if (!right)
        break_off(c, "the agent in the guest says what it may not");
}

void agent_client_receive(struct agent_client *c, const uint8_t *data, size_t size)
{
    struct agent_piece piece;

    for (size_t done = 0; done < size && !agent_client_over(c);) {
        done += agent_read(&c->reader, data + done, size - done, &piece);
        if (c->reader.bad)
            break_off(c, "what answers in the guest is not doppel's agent");
        else if (piece.size || piece.last)
            handle(c, &piece);
    }
}

/* ---- The whole ---- */

struct agent_client *agent_client_create(const struct agent_client_ops *ops, void *opaque,
                                         const struct agent_client_request *request,
                                         struct error *err)
{
    struct agent_client *c = calloc(1, sizeof(*c));

    if (!c) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    c->ops = ops;
    c->opaque = opaque;
    if (send_request(c, request, err)) {
        free(c);
        return NULL;
    }
    return c;
}

void agent_client_destroy(struct agent_client *c)
{
    free(c);
}

enum agent_client_state agent_client_state(const struct agent_client *c)
{
    return c->state;
}

unsigned agent_client_status(const struct agent_client *c)
{
    return c->status;
}

const char *agent_client_failure(const struct agent_client *c)
{
    return c->failure;
}
