/*
 * Save and restore as one visitor: a device walks its fields once, and the same walk writes them
 * or reads them back, so the two cannot drift apart.
 *
 * A saved state is a stream: a header, then sections. A section is the state of one thing (a
 * device, a vCPU, some pages of RAM): its name, an instance (which of several), a version, and the
 * fields that the visitor walked. Each section is complete in memory before it is written, and its
 * checksum is checked before the visitor sees its first field. So a saved state needs memory for
 * one section only, and the other end may be a pipe. docs/state.md has the format.
 *
 * A failure sticks: from then on sections have version 0, fields stay as they are, and
 * state_failure says what failed, with section and field. A visitor need not look at it before its
 * end, but must then change nothing that it cannot leave: after a failed load the machine is good
 * for nothing but to be freed.
 *
 * One thread at a time. No locks.
 */
#ifndef DOPPEL_BASE_STATE_H
#define DOPPEL_BASE_STATE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STATE_FORMAT      1
#define STATE_SECTION_MAX (2u << 20) /* bytes of a section's fields */

struct state;

/* Where a saved state goes. */
struct state_writer {
    /* Takes all SIZE bytes and returns 0; or returns a negative errno and fills ERR. */
    int (*write)(void *opaque, const void *data, size_t size, struct error *err);
    void *opaque;
};

/* Where a saved state comes from. */
struct state_reader {
    /* Reads SIZE bytes and returns how many there were: fewer only at the end. Or returns a
     * negative errno and fills ERR. */
    ssize_t (*read)(void *opaque, void *data, size_t size, struct error *err);
    void *opaque;
};

/* Begins a saved state: writes the header. MAKER says who made it ("doppel 0.1.0"; 39 characters
 * are kept). The writer and the reader are copied. NULL on failure. */
struct state *state_create_save(const struct state_writer *writer, const char *maker,
                                struct error *err);
/* Reads the header and checks it. */
struct state *state_create_load(const struct state_reader *reader, struct error *err);
void state_free(struct state *s);

/* Ends a saved state: closes the last section and writes, or expects, the one that says that the
 * state is complete. A reader is not read beyond that. 0 or a negative errno; see state_failure. */
int state_finish(struct state *s);

bool state_saving(const struct state *s);
int state_error(const struct state *s); /* 0 or a negative errno */
/* The first failure, or NULL. */
const struct error *state_failure(const struct state *s);
/* Who made the state that is loaded; only printable characters. */
const char *state_maker(const struct state *s);

/* For a visitor that finds a value which cannot be: the text, which names the field, is put behind
 * "section NAME INSTANCE: ". Returns a negative errno. An earlier failure stays. */
int state_fail(struct state *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Opens a section, and closes the one before, of which every byte must have been read. NAME: at
 * most 23 of a-z, 0-9, _ and -. INSTANCE: which of several, as the thing itself knows it (a vCPU's
 * number, an I/O port). Returns the section's version: VERSION when saving, what was saved when
 * loading (1 to VERSION), 0 after a failure. */
uint32_t state_section(struct state *s, const char *name, uint32_t instance, uint32_t version);

/* Visits a field of SIZE bytes; NAME is for messages. The macros make it of the C expression. */
void state_value(struct state *s, const char *name, void *data, size_t size);
void state_flag(struct state *s, const char *name, bool *value);

#define state_bytes(s, data, size) state_value((s), #data, (data), (size))
/* Any integer or array of integers. Structures have padding: visit their members. */
#define state_field(s, lvalue) state_value((s), #lvalue, &(lvalue), sizeof(lvalue))
/* Restores as exactly 0 or 1. */
#define state_bool(s, value) state_flag((s), #value, (value))

#endif
