/*
 * Host ends of a guest's ports: which kind WHERE means.
 */
#include "con/end.h"

#include "con/end_private.h"

#include <errno.h>
#include <string.h>

/* The text behind PREFIX, or NULL. */
static const char *behind(const char *where, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(where, prefix, length) == 0 && where[length] ? where + length : NULL;
}

struct con_end *con_end_open(const char *where, const struct con_given *given, struct loop *loop,
                             struct error *err)
{
    const char *path;

    if (strcmp(where, "tty") == 0)
        return con_end_given_open(given, err);
    if ((path = behind(where, "file:")))
        return con_end_file_open(path, err);
    if ((path = behind(where, "unix:")))
        return con_end_socket_open(path, loop, err);
    error_set(err, EINVAL, "'%s': must be tty, file:PATH or unix:PATH", where);
    return NULL;
}

void con_end_close(struct con_end *end)
{
    if (end)
        end->ops->close(end);
}

void con_end_begin(struct con_end *end, const struct con_end_events *events)
{
    end->events = *events;
    if (end->ops->begin)
        end->ops->begin(end);
}

bool con_end_connected(struct con_end *end)
{
    return !end->ops->connected || end->ops->connected(end);
}

size_t con_end_read(struct con_end *end, void *data, size_t size)
{
    return end->ops->read ? end->ops->read(end, data, size) : 0;
}

size_t con_end_write(struct con_end *end, const void *data, size_t size)
{
    return end->ops->write(end, data, size);
}

void con_end_state(struct con_end *end, struct state *s)
{
    if (end->ops->state)
        end->ops->state(end, s);
}

size_t con_end_input(struct con_end *end, const void *data, size_t size)
{
    return end->ops->input ? end->ops->input(end, data, size) : 0;
}

void con_end_room(struct con_end *end)
{
    end->events.ready(end->events.opaque);
}
