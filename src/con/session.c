/*
 * The host's end of a session with the default guest.
 */
#include "con/session.h"

#include "../../guests/protocol.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct session {
    const struct session_ops *ops;
    void *opaque;
    struct proto_reader reader;
    enum session_state state;
    uint32_t nonce;
    size_t in_flight; /* bytes of input without credit */
    size_t owed;      /* bytes of output to give credit for */
    bool input_ended;
    /* What is to be sent when the line is ready. */
    bool start_due, size_due, end_due;
    size_t credit_due;
    unsigned rows, columns, status;
    char failure[PROTO_PAYLOAD];
};

struct session *session_create(const struct session_ops *ops, void *opaque, struct error *err)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    s->ops = ops;
    s->opaque = opaque;
    return s;
}

void session_destroy(struct session *s)
{
    free(s);
}

enum session_state session_state(const struct session *s)
{
    return s->state;
}

unsigned session_status(const struct session *s)
{
    return s->status;
}

const char *session_failure(const struct session *s)
{
    return s->failure;
}

static void send_frame(struct session *s, enum proto_type type, const void *payload, size_t size)
{
    uint8_t line[PROTO_ENCODED(PROTO_PAYLOAD)];

    s->ops->send(s->opaque, line, proto_encode(line, type, payload, size));
}

static bool ready(const struct session *s)
{
    return s->state == SESSION_RUNNING && (!s->ops->ready || s->ops->ready(s->opaque));
}

static void send_start(struct session *s)
{
    uint8_t start[8];

    proto_put32(start, s->nonce);
    proto_put16(start + 4, (uint16_t)s->rows);
    proto_put16(start + 6, (uint16_t)s->columns);
    s->start_due = s->size_due = false;
    send_frame(s, PROTO_START, start, sizeof(start));
}

static void send_credit(struct session *s)
{
    uint8_t credit[4];

    proto_put32(credit, (uint32_t)s->credit_due);
    s->credit_due = 0;
    send_frame(s, PROTO_CREDIT, credit, sizeof(credit));
}

static void send_size(struct session *s)
{
    uint8_t size[4];

    proto_put16(size, (uint16_t)s->rows);
    proto_put16(size + 2, (uint16_t)s->columns);
    s->size_due = false;
    send_frame(s, PROTO_SIZE, size, sizeof(size));
}

void session_flush(struct session *s)
{
    if (s->start_due && ready(s))
        send_start(s);
    if (s->start_due)
        return; /* the guest heeds nothing before it */
    if (s->credit_due && ready(s))
        send_credit(s);
    if (s->size_due && ready(s))
        send_size(s);
    if (s->end_due && ready(s)) {
        s->end_due = false;
        send_frame(s, PROTO_IN_END, NULL, 0);
    }
}

/* A guest has come up, for the first time or after a reboot. It says so until it is answered, so
 * the same nonce may come twice. */
static void handle_hello(struct session *s, const uint8_t *payload, size_t size)
{
    if (size != 5)
        return;
    if (payload[0] != PROTO_VERSION) {
        s->state = SESSION_MISMATCH;
        return;
    }
    if (s->state == SESSION_RUNNING && s->nonce == proto_get32(payload + 1))
        return;
    s->nonce = proto_get32(payload + 1);
    s->state = SESSION_RUNNING;
    s->in_flight = s->credit_due = 0;
    s->start_due = true;
    s->end_due = s->input_ended;
    session_flush(s);
}

static void handle_frame(struct session *s)
{
    const uint8_t *payload = s->reader.frame + 1;
    size_t size = s->reader.size - 1;
    uint8_t type = s->reader.frame[0];

    if (type == PROTO_HELLO)
        handle_hello(s, payload, size);
    if (s->state != SESSION_RUNNING)
        return;
    switch (type) {
    case PROTO_OUT:
    case PROTO_ERR:
        /* What came before a reboot may still be owed; more than that, the guest cannot have. */
        if (s->owed + size > 4 * PROTO_WINDOW) {
            s->state = SESSION_MISMATCH;
            break;
        }
        s->owed += size;
        s->ops->output(s->opaque, type == PROTO_OUT ? 1 : 2, payload, size);
        break;
    case PROTO_CREDIT:
        if (size == 4)
            s->in_flight -= MIN(s->in_flight, proto_get32(payload));
        break;
    case PROTO_EXIT:
    case PROTO_FAIL:
        if (size == 0)
            break;
        s->status = payload[0];
        s->state = type == PROTO_EXIT ? SESSION_EXITED : SESSION_FAILED;
        memcpy(s->failure, payload + 1, size - 1);
        break;
    default: break;
    }
}

void session_receive(struct session *s, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (proto_decode(&s->reader, data[i])) {
            handle_frame(s);
            proto_next(&s->reader);
        }
    }
}

size_t session_room(const struct session *s)
{
    return ready(s) && !s->start_due && !s->input_ended ? PROTO_WINDOW - s->in_flight : 0;
}

void session_input(struct session *s, const uint8_t *data, size_t size)
{
    while (size > 0) {
        size_t n = MIN(size, PROTO_PAYLOAD);

        send_frame(s, PROTO_IN, data, n);
        s->in_flight += n;
        data += n;
        size -= n;
    }
}

void session_input_end(struct session *s)
{
    if (s->input_ended)
        return;
    s->input_ended = true;
    s->end_due = s->state == SESSION_RUNNING;
    session_flush(s);
}

void session_written(struct session *s, size_t size)
{
    size = MIN(size, s->owed);
    s->owed -= size;
    if (s->state != SESSION_RUNNING)
        return;
    /* A guest that keeps to its window cannot be owed more. */
    s->credit_due = MIN(s->credit_due + size, 4 * PROTO_WINDOW);
    session_flush(s);
}

void session_resize(struct session *s, unsigned rows, unsigned columns)
{
    s->rows = rows;
    s->columns = columns;
    s->size_due = s->state == SESSION_RUNNING;
    session_flush(s);
}

/* One member of a cpio archive in the "newc" format (cpio(5)); header, name and content are each
 * padded to four bytes. */
static void archive_member(FILE *to, const char *name, unsigned mode, const char *content,
                           size_t size)
{
    static const char padding[4];
    size_t name_size = strlen(name) + 1;

    fprintf(to, "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X", 0u, mode, 0u, 0u,
            1u, 0u, size, 0u, 0u, 0u, 0u, name_size, 0u);
    fwrite(name, 1, name_size, to);
    fwrite(padding, 1, -(110 + name_size) & 3, to);
    fwrite(content, 1, size, to);
    fwrite(padding, 1, -size & 3, to);
}

static void write_field(FILE *to, const char *name, const char *value)
{
    fprintf(to, "%s=%s", name, value);
    fputc(0, to);
}

void *session_archive(const struct session_command *command, size_t *size)
{
    static const char *const modes[] = {"pipe", "tty", "typed"};
    char *text = NULL, *archive = NULL;
    size_t text_size = 0;
    FILE *to = open_memstream(&text, &text_size);
    bool whole;

    if (!to)
        return NULL;
    fwrite(PROTO_SESSION_MAGIC, 1, sizeof(PROTO_SESSION_MAGIC), to);
    write_field(to, "mode", modes[command->mode]);
    write_field(to, "newline", command->crlf ? "crlf" : "lf");
    write_field(to, "path", command->path);
    for (unsigned i = 0; command->argv[i]; i++)
        write_field(to, "arg", command->argv[i]);
    for (unsigned i = 0; command->env[i]; i++)
        write_field(to, "env", command->env[i]);
    for (unsigned i = 0; command->mounts && command->mounts[i]; i++)
        write_field(to, "mount", command->mounts[i]);
    whole = !ferror(to);
    whole &= fclose(to) == 0;
    to = whole ? open_memstream(&archive, size) : NULL;
    if (to) {
        archive_member(to, &PROTO_SESSION[1], 0100600, text, text_size);
        archive_member(to, "TRAILER!!!", 0, "", 0);
        whole = !ferror(to);
        whole &= fclose(to) == 0;
    }
    free(text);
    if (!to || !whole) {
        free(archive);
        return NULL;
    }
    return archive;
}
