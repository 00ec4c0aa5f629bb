/*
 * The host end that whoever made the machine stands behind: callbacks for output, and a queue for
 * input.
 */
#include "base/util.h"
#include "con/end_private.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct given {
    struct con_end end;
    struct con_given given;
    pthread_mutex_t lock; /* guards the rest; a leaf */
    uint8_t input[CON_END_INPUT];
    size_t count;
    bool refused; /* some input found no room */
};

static struct given *given_of(struct con_end *end)
{
    return container_of(end, struct given, end);
}

static size_t given_read(struct con_end *end, void *data, size_t size)
{
    struct given *g = given_of(end);
    bool room;

    pthread_mutex_lock(&g->lock);
    size = MIN(size, g->count);
    memcpy(data, g->input, size);
    g->count -= size;
    memmove(g->input, g->input + size, g->count);
    room = size && g->refused;
    g->refused &= !room;
    pthread_mutex_unlock(&g->lock);
    if (room && g->given.input_ready)
        g->given.input_ready(g->given.opaque);
    return size;
}

static size_t given_write(struct con_end *end, const void *data, size_t size)
{
    struct con_given *given = &given_of(end)->given;

    if (given->full && given->full(given->opaque))
        return 0;
    if (given->output)
        given->output(given->opaque, data, size);
    return size;
}

static size_t given_input(struct con_end *end, const void *data, size_t size)
{
    struct given *g = given_of(end);
    size_t taken;

    pthread_mutex_lock(&g->lock);
    taken = MIN(size, sizeof(g->input) - g->count);
    if (taken)
        memcpy(g->input + g->count, data, taken);
    g->count += taken;
    g->refused |= taken < size;
    pthread_mutex_unlock(&g->lock);
    if (taken)
        end->events.ready(end->events.opaque);
    return taken;
}

static void given_state(struct con_end *end, struct state *s)
{
    struct given *g = given_of(end);
    uint16_t count;

    pthread_mutex_lock(&g->lock);
    count = (uint16_t)g->count;
    state_field(s, count);
    if (count > sizeof(g->input)) {
        state_fail(s, "input of %u bytes", count);
        count = 0;
    }
    if (count)
        state_bytes(s, g->input, count);
    g->count = count;
    pthread_mutex_unlock(&g->lock);
}

static void given_close(struct con_end *end)
{
    struct given *g = given_of(end);

    pthread_mutex_destroy(&g->lock);
    free(g);
}

static const struct con_end_ops ops = {.close = given_close,
                                       .read = given_read,
                                       .write = given_write,
                                       .state = given_state,
                                       .input = given_input};

struct con_end *con_end_given_open(const struct con_given *given, struct error *err)
{
    struct given *g = calloc(1, sizeof(*g));

    if (!g) {
        error_set(err, ENOMEM, "no memory for a port");
        return NULL;
    }
    g->end.ops = &ops;
    g->given = given ? *given : (struct con_given){.output = NULL};
    pthread_mutex_init(&g->lock, NULL);
    return &g->end;
}
