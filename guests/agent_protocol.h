/*
 * How `doppel exec` and the agent in a guest talk: over a connection to vsock port AGENT_PORT, one
 * for each command.
 *
 * A frame is a header of 8 bytes (type, three bytes 0, and how many bytes of payload follow) and
 * its payload. Numbers are little-endian.
 *
 *   guest to host                              host to guest
 *   HELLO   version[4]                         OPEN    strings: what is wanted, see below
 *   OUT     bytes of standard output           IN      bytes of standard input
 *   ERR     bytes of standard error            IN_END  (empty) end of standard input
 *   CREDIT  0, count[4]: of IN used up         CREDIT  stream, count[4]: of OUT or ERR written
 *   EXIT    status[1]: it has ended            SIZE    rows[2], columns[2] of the terminal
 *   FAIL    status[1], text: it never began    SIGNAL  number[1], for the command
 *
 * Either side speaks first. HELLO comes before anything else of the guest's, OPEN before anything
 * else of the host's, and both come once. The connection ends with EXIT or FAIL. If the host ends
 * it before that, the command's session is hung up (SIGHUP).
 *
 * Of each stream at most its window of bytes may be under way for which there was no CREDIT yet, so
 * that neither side has to keep more than that, and a stream that nobody reads holds up no other.
 *
 * OPEN has NUL-terminated strings, first "doppel-agent 1", then
 *   request=exec | addresses | shutdown     first of these
 *   arg=STRING            the command, from argument 0 on; none: the user's shell, as at a login
 *   env=NAME=VALUE        additions to its environment
 *   folder=PATH           its working directory; else the user's home
 *   user=NAME | UID[:GID] who it runs as; else the agent's own user, root
 *   terminal=ROWS,COLUMNS it gets a terminal of that size; its output is OUT alone
 * The answer to a request is what a command's would be: lines of OUT, and EXIT.
 */
#ifndef DOPPEL_GUESTS_AGENT_PROTOCOL_H
#define DOPPEL_GUESTS_AGENT_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Below 1024: only root of the guest can listen there. */
#define AGENT_PORT    716u
#define AGENT_VERSION 1u
#define AGENT_MAGIC   "doppel-agent 1"

#define AGENT_HEADER  8u
#define AGENT_PAYLOAD (65536u - AGENT_HEADER) /* of a frame; of OPEN more: */
#define AGENT_OPEN    (2u * 1024 * 1024)
#define AGENT_SMALL   256u /* of a frame that carries no stream, but for OPEN */
/* Bytes of a stream without credit. */
#define AGENT_IN_WINDOW  (128u * 1024)
#define AGENT_OUT_WINDOW (512u * 1024)

enum agent_type {
    AGENT_HELLO_FRAME = 'H',
    AGENT_OPEN_FRAME = 'S',
    AGENT_IN_FRAME = 'I',
    AGENT_IN_END_FRAME = 'Z',
    AGENT_OUT_FRAME = 'O',
    AGENT_ERR_FRAME = 'E',
    AGENT_CREDIT_FRAME = 'C',
    AGENT_SIZE_FRAME = 'W',
    AGENT_SIGNAL_FRAME = 'K',
    AGENT_EXIT_FRAME = 'X',
    AGENT_FAIL_FRAME = 'F',
};

/* The streams, as CREDIT names them: the numbers of their file descriptors. */
enum agent_stream { AGENT_STREAM_IN, AGENT_STREAM_OUT, AGENT_STREAM_ERR };

static inline uint16_t agent_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void agent_put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline uint32_t agent_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void agent_put32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

/* Writes the header of a frame with SIZE bytes of payload. */
static inline void agent_put_header(uint8_t header[AGENT_HEADER], enum agent_type type, size_t size)
{
    memset(header, 0, AGENT_HEADER);
    header[0] = (uint8_t)type;
    agent_put32(header + 4, (uint32_t)size);
}

/* Takes frames out of the bytes of a connection, however those are cut. All zero at first. */
struct agent_reader {
    uint8_t header[AGENT_HEADER];
    unsigned header_size; /* bytes of it that have come */
    uint32_t left;        /* bytes of the payload that have not */
    bool bad;             /* what came was no frame: nothing more is taken */
    uint8_t small[AGENT_SMALL];
    uint32_t small_size;
};

/* A frame, or a part of one that may be large. */
struct agent_piece {
    enum agent_type type;
    const uint8_t *data;
    size_t size;
    bool last; /* the frame is complete with it */
};

/* Whether frames of TYPE come in parts, as they arrive. */
static inline bool agent_is_large(uint8_t type)
{
    return type == AGENT_IN_FRAME || type == AGENT_OUT_FRAME || type == AGENT_ERR_FRAME ||
           type == AGENT_OPEN_FRAME;
}

static inline uint32_t agent_most(uint8_t type)
{
    return type == AGENT_OPEN_FRAME ? AGENT_OPEN
           : agent_is_large(type)   ? AGENT_PAYLOAD
                                    : AGENT_SMALL;
}

static inline size_t agent_read_header(struct agent_reader *r, const uint8_t *data, size_t size)
{
    size_t n = AGENT_HEADER - r->header_size;

    n = n < size ? n : size;
    memcpy(r->header + r->header_size, data, n);
    r->header_size += (unsigned)n;
    if (r->header_size == AGENT_HEADER) {
        r->left = agent_get32(r->header + 4);
        r->small_size = 0;
        r->bad = r->header[1] || r->header[2] || r->header[3] || r->left > agent_most(r->header[0]);
    }
    return n;
}

/* Takes bytes from the SIZE at DATA, at most up to the end of a frame, and returns how many; 0 if
 * there is nothing to be taken, or r->bad. PIECE is what they make; its size is 0 and LAST false if
 * that is nothing yet. */
static inline size_t agent_read(struct agent_reader *r, const uint8_t *data, size_t size,
                                struct agent_piece *piece)
{
    size_t taken = 0, n;

    *piece = (struct agent_piece){0};
    if (r->bad)
        return 0;
    if (r->header_size < AGENT_HEADER)
        taken = agent_read_header(r, data, size);
    if (r->bad || r->header_size < AGENT_HEADER)
        return taken;
    n = size - taken < r->left ? size - taken : r->left;
    piece->type = (enum agent_type)r->header[0];
    r->left -= (uint32_t)n;
    piece->last = r->left == 0;
    if (agent_is_large(r->header[0])) {
        piece->data = data + taken;
        piece->size = n;
    } else {
        memcpy(r->small + r->small_size, data + taken, n);
        r->small_size += (uint32_t)n;
        piece->data = r->small;
        piece->size = piece->last ? r->small_size : 0;
    }
    if (piece->last)
        r->header_size = 0;
    return taken + n;
}

#endif
