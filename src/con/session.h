/*
 * The host's end of a session with the default guest: a command in the guest, its standard streams
 * and its exit status, over a serial line (guests/protocol.h). It knows neither the VM nor the
 * host's files: bytes go in, and callbacks get what comes of them.
 */
#ifndef DOPPEL_CON_SESSION_H
#define DOPPEL_CON_SESSION_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;

struct session_ops {
    /* Bytes for the serial line. */
    void (*send)(void *opaque, const uint8_t *data, size_t size);
    /* Whether the line takes more now. Until it does, the session keeps what it has to say, in a
     * few words whatever the guest sends. NULL: always. */
    bool (*ready)(void *opaque);
    /* What the command wrote to its file descriptor FD, 1 or 2. */
    void (*output)(void *opaque, int fd, const uint8_t *data, size_t size);
};

enum session_state {
    SESSION_WAITING, /* the guest has not answered yet */
    SESSION_RUNNING,
    SESSION_EXITED,   /* session_status is the command's */
    SESSION_FAILED,   /* it could not be started: session_status and session_failure */
    SESSION_MISMATCH, /* the guest speaks another version, or not as agreed */
};

struct session *session_create(const struct session_ops *ops, void *opaque, struct error *err);
void session_destroy(struct session *s);

enum session_state session_state(const struct session *s);
unsigned session_status(const struct session *s);
const char *session_failure(const struct session *s);

/* The line has become ready: sends what is due. */
void session_flush(struct session *s);

/* Bytes from the serial line. */
void session_receive(struct session *s, const uint8_t *data, size_t size);

/* How many bytes of standard input may be given now, and giving them. */
size_t session_room(const struct session *s);
void session_input(struct session *s, const uint8_t *data, size_t size);
void session_input_end(struct session *s);

/* SIZE bytes of what went to ops.output have been written down: the guest may send as many more.
 * Bytes that did not come from the guest may be counted in; they are not given credit for. */
void session_written(struct session *s, size_t size);
/* The size of the terminal, at any time. */
void session_resize(struct session *s, unsigned rows, unsigned columns);

/* What the initramfs must hold for the session. */
struct session_command {
    enum { SESSION_PIPE, SESSION_TTY, SESSION_TYPED } mode;
    bool crlf;               /* a terminal's newlines become CR LF */
    const char *path;        /* looked up in the guest's PATH when it has no slash */
    const char *const *argv; /* up to a NULL */
    const char *const *env;  /* NAME=VALUE up to a NULL */
    /* Shared folders to mount before, up to a NULL: rw:TAG:PATH, or ro:TAG:PATH. NULL: none. */
    const char *const *mounts;
};

/* A cpio archive (newc) with the session file; to be freed. NULL: out of memory. */
void *session_archive(const struct session_command *command, size_t *size);

#endif
