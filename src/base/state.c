/*
 * The save/restore visitor over a memory buffer.
 */
#include "base/state.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct state {
    bool saving;
    int error;
    uint8_t *out; /* saving: owned, grows */
    const uint8_t *in;
    size_t size, capacity, at;
};

struct state *state_create_save(void)
{
    struct state *s = calloc(1, sizeof(*s));

    if (s)
        s->saving = true;
    return s;
}

struct state *state_create_load(const void *data, size_t size)
{
    struct state *s = calloc(1, sizeof(*s));

    if (s) {
        s->in = data;
        s->size = size;
    }
    return s;
}

void state_free(struct state *s)
{
    if (s)
        free(s->out);
    free(s);
}

const void *state_data(const struct state *s, size_t *size)
{
    *size = s->size;
    return s->saving ? s->out : s->in;
}

bool state_saving(const struct state *s)
{
    return s->saving;
}

int state_error(const struct state *s)
{
    return s->error;
}

static void put(struct state *s, const void *data, size_t size)
{
    if (s->size + size > s->capacity) {
        size_t capacity = MAX(s->capacity * 2, s->size + size + 4096);
        uint8_t *grown = realloc(s->out, capacity);

        if (!grown) {
            s->error = -ENOMEM;
            return;
        }
        s->out = grown;
        s->capacity = capacity;
    }
    memcpy(s->out + s->size, data, size);
    s->size += size;
}

/* Takes SIZE bytes off the input, or fails and returns NULL. */
static const void *take(struct state *s, size_t size)
{
    const uint8_t *p = s->in + s->at;

    if (s->size - s->at < size) {
        s->error = -EINVAL;
        return NULL;
    }
    s->at += size;
    return p;
}

void state_bytes(struct state *s, void *data, size_t size)
{
    uint32_t length = (uint32_t)size;
    const void *p;

    if (s->error)
        return;
    if (s->saving) {
        put(s, &length, sizeof(length));
        if (!s->error)
            put(s, data, size);
        return;
    }
    p = take(s, sizeof(length));
    if (p && memcmp(p, &length, sizeof(length)) != 0)
        s->error = -EINVAL;
    p = s->error ? NULL : take(s, size);
    if (p)
        memcpy(data, p, size);
}

void state_bool(struct state *s, bool *value)
{
    uint8_t byte = *value;

    state_bytes(s, &byte, 1);
    *value = byte != 0;
}

uint32_t state_section(struct state *s, const char *name, uint32_t version)
{
    char tag[32] = {0};
    char found[32];
    uint32_t v = version;

    strncpy(tag, name, sizeof(tag) - 1);
    memcpy(found, tag, sizeof(found));
    state_bytes(s, found, sizeof(found));
    state_bytes(s, &v, sizeof(v));
    if (!s->error && (memcmp(found, tag, sizeof(tag)) != 0 || v > version || v == 0))
        s->error = -EINVAL;
    return s->error ? 0 : v;
}
