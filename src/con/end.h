/*
 * The host end of a port of a guest's: where its bytes go and come from.
 *
 *      tty          whoever made the machine: it takes output by a callback and gives input
 *      file:PATH    what the guest sends is appended to a regular file; there is no input
 *      unix:PATH    a socket that listens, mode 0600, for one client at a time. A file that is a
 *                   socket of nobody's is replaced, and what was made is removed at the end
 *
 * Reading and writing never wait. Who reads or writes less than it wanted is told when to try
 * again. A device has the end: one thread reads at a time, and one writes.
 */
#ifndef DOPPEL_CON_END_H
#define DOPPEL_CON_END_H

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"

#include <stdbool.h>
#include <stddef.h>

struct con_end;

/* What stands behind `tty`. All of it may be NULL. On a worker, without locks; must not wait. */
struct con_given {
    void (*output)(void *opaque, const void *data, size_t size); /* takes all of it */
    bool (*full)(void *opaque); /* there is no room for more, until con_end_room */
    void (*input_ready)(
        void *opaque); /* con_end_input, which took less than it was given, has room */
    void *opaque;
};

struct con_end_events {
    /* Something may be read, or written, that could not be before. Any thread; only posts. */
    void (*ready)(void *opaque);
    /* Somebody has connected or gone. On the loop's thread, without locks. */
    void (*connected)(void *opaque, bool connected);
    void *opaque;
};

/* Opens what WHERE says. GIVEN is copied. LOOP must exist as long as the end does. */
struct con_end *con_end_open(const char *where, const struct con_given *given, struct loop *loop,
                             struct error *err);
/* No lock held. Nobody reads or writes any more. NULL is allowed. */
void con_end_close(struct con_end *end);
/* From now on there are events; once, before anything that follows. */
void con_end_begin(struct con_end *end, const struct con_end_events *events);

/* Whether somebody is there. Always so for a file, and for `tty`. */
bool con_end_connected(struct con_end *end);
/* Reads at most SIZE bytes. Returns how many; after 0, `ready` is called when there are some. */
size_t con_end_read(struct con_end *end, void *data, size_t size);
/* Writes SIZE bytes. Returns how many; after fewer, `ready` is called when there is room. What
 * nobody is there to read, and what a file does not take, is dropped and counts as written. */
size_t con_end_write(struct con_end *end, const void *data, size_t size);
/* Visits the bytes that were given and not read; part of an open section. */
void con_end_state(struct con_end *end, struct state *s);

/* For `tty`; nothing happens with another end. Any thread, with any lock held. */
#define CON_END_INPUT 4096
/* Gives SIZE bytes to be read; returns how many were taken: CON_END_INPUT are kept. */
size_t con_end_input(struct con_end *end, const void *data, size_t size);
void con_end_room(struct con_end *end); /* OUTPUT's side is no longer full */

#endif
