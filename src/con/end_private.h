/*
 * What the kinds of host ends share (con/end.h).
 */
#ifndef DOPPEL_CON_END_PRIVATE_H
#define DOPPEL_CON_END_PRIVATE_H

#include "con/end.h"

struct con_end_ops {
    void (*close)(struct con_end *end);
    void (*begin)(struct con_end *end); /* may be NULL, as those below */
    bool (*connected)(struct con_end *end);
    size_t (*read)(struct con_end *end, void *data, size_t size);
    size_t (*write)(struct con_end *end, const void *data, size_t size);
    void (*state)(struct con_end *end, struct state *s);
    size_t (*input)(struct con_end *end, const void *data, size_t size);
};

struct con_end {
    const struct con_end_ops *ops;
    struct con_end_events events;
};

struct con_end *con_end_given_open(const struct con_given *given, struct error *err);
struct con_end *con_end_file_open(const char *path, struct error *err);
struct con_end *con_end_socket_open(const char *path, struct loop *loop, struct error *err);

#endif
