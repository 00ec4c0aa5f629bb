/*
 * How `doppel run` and the init of the default guest talk over COM2 (ttyS1 in the guest).
 *
 * A frame is one type byte and up to PROTO_PAYLOAD bytes, enclosed in END bytes, with END and ESC
 * inside it escaped as in SLIP (RFC 1055). END comes before and after every frame, so that a
 * reader that starts, or restarts, in the middle of something is in step again at the next one.
 * Numbers are little-endian.
 *
 *   guest to host                              host to guest
 *   HELLO   version, nonce[4]                  START   nonce[4], rows[2], columns[2]
 *   OUT     bytes of standard output           IN      bytes of standard input
 *   ERR     bytes of standard error            IN_END  (empty) end of standard input
 *   CREDIT  count[4]: bytes of IN used up      CREDIT  count[4]: bytes of OUT and ERR written
 *   EXIT    status[1]: the command ended       SIZE    rows[2], columns[2]
 *   FAIL    status[1], text: it never began
 *
 * The guest says HELLO until START repeats its nonce; each side ignores everything before. A guest
 * that reboots says HELLO again, and both start anew. Each side may have at most PROTO_WINDOW bytes
 * of data under way that the other has not given credit for: the serial line has no flow control
 * of its own that both operating systems heed.
 *
 * What to run is in the file PROTO_SESSION of the initramfs: NUL-terminated strings, first
 * "doppel-session 1", then in any order and number
 *   mode=pipe | tty | typed   standard streams of their own; a terminal; a terminal on which input
 *                             is typed line by line as somebody reads, and then ends
 *   newline=lf | crlf         what a terminal makes of a newline on output
 *   path=FILE                 the program, looked up in PATH when it has no slash
 *   arg=STRING                its arguments, from argument 0 on
 *   env=NAME=VALUE            additions to its environment
 *   mount=rw:TAG:PATH         the shared folder TAG is mounted on PATH before that (ro: to be read)
 * Without that file, init runs a shell on the console.
 */
#ifndef DOPPEL_GUESTS_PROTOCOL_H
#define DOPPEL_GUESTS_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PROTO_VERSION       1
#define PROTO_SESSION       "/doppel/session"
#define PROTO_SESSION_MAGIC "doppel-session 1"
#define PROTO_PAYLOAD       1024u
#define PROTO_WINDOW        (16u * 1024)

enum proto_type {
    PROTO_HELLO = 'H',
    PROTO_START = 'S',
    PROTO_OUT = 'O',
    PROTO_ERR = 'E',
    PROTO_IN = 'I',
    PROTO_IN_END = 'Z',
    PROTO_CREDIT = 'C',
    PROTO_SIZE = 'W',
    PROTO_EXIT = 'X',
    PROTO_FAIL = 'F',
};

#define PROTO_END     0xC0u
#define PROTO_ESC     0xDBu
#define PROTO_ESC_END 0xDCu
#define PROTO_ESC_ESC 0xDDu

/* The most that a frame with SIZE bytes of payload takes on the line. */
#define PROTO_ENCODED(size) (2 * ((size_t)(size) + 1) + 2)

/* Writes a frame to OUT, which has room for PROTO_ENCODED(SIZE). Returns its length. */
static inline size_t proto_encode(uint8_t *out, enum proto_type type, const void *payload,
                                  size_t size)
{
    const uint8_t *from = payload;
    uint8_t *to = out;
    uint8_t byte = (uint8_t)type;
    size_t i = 0;

    *to++ = PROTO_END;
    for (;;) {
        if (byte == PROTO_END || byte == PROTO_ESC) {
            *to++ = PROTO_ESC;
            *to++ = byte == PROTO_END ? PROTO_ESC_END : PROTO_ESC_ESC;
        } else {
            *to++ = byte;
        }
        if (i == size)
            break;
        byte = from[i++];
    }
    *to++ = PROTO_END;
    return (size_t)(to - out);
}

struct proto_reader {
    uint8_t frame[1 + PROTO_PAYLOAD];
    size_t size;
    bool started; /* an END has been seen */
    bool escape;
    bool bad; /* too long or wrongly escaped: dropped at the next END */
};

/* Takes one byte off the line. True when it completes a frame: frame[0] is its type, and SIZE - 1
 * bytes of payload follow. */
static inline bool proto_decode(struct proto_reader *r, uint8_t byte)
{
    if (byte == PROTO_END) {
        bool whole = r->started && r->size > 0 && !r->bad && !r->escape;

        r->started = true;
        if (!whole)
            r->size = 0;
        r->bad = r->escape = false;
        return whole;
    }
    if (!r->started || r->bad)
        return false;
    if (r->escape) {
        r->escape = false;
        r->bad = byte != PROTO_ESC_END && byte != PROTO_ESC_ESC;
        byte = byte == PROTO_ESC_END ? PROTO_END : PROTO_ESC;
    } else if (byte == PROTO_ESC) {
        r->escape = true;
        return false;
    }
    if (r->size == sizeof(r->frame))
        r->bad = true;
    if (!r->bad)
        r->frame[r->size++] = byte;
    return false;
}

/* Makes room for the next frame, once the one that proto_decode reported has been looked at. */
static inline void proto_next(struct proto_reader *r)
{
    r->size = 0;
}

static inline uint32_t proto_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void proto_put32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static inline uint16_t proto_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void proto_put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

#endif
