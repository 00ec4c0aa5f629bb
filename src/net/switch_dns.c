/*
 * DNS of a virtual switch: RFC 1035 (messages), RFC 6761 (names for private use).
 *
 * It knows NAME.doppel.internal, NAME alone, and the names of addresses of the network. What is
 * outside it refuses, so that a resolver asks the next server.
 */
#include "net/bytes.h"
#include "net/switch_answer.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define HEADER 12u

enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_AAAA = 28, TYPE_ANY = 255, CLASS_IN = 1 };
enum { NO_ERROR = 0, FORMAT = 1, NO_NAME = 3, NOT_IMPLEMENTED = 4, REFUSED = 5 };

#define RESPONSE      0x8000u
#define AUTHORITATIVE 0x0400u
#define DESIRED       0x0100u /* recursion; copied */
#define OPCODE        0x7800u

struct question {
    char name[256]; /* with points between the labels, and none at the end */
    unsigned type;
    size_t end; /* where the question ends in the message */
};

/* Reads the one question of a message. Names in questions are not compressed. */
static bool read_question(const struct switch_packet *p, struct question *q)
{
    size_t at = HEADER, length = 0;

    while (at < p->size && p->data[at] != 0) {
        unsigned label = p->data[at++];

        if (label > 63 || at + label >= p->size || length + label + 2 > sizeof(q->name))
            return false;
        if (length)
            q->name[length++] = '.';
        for (unsigned i = 0; i < label; i++) {
            unsigned char c = p->data[at + i];

            /* No name that is known has others; a point would make two labels of one. */
            q->name[length++] = isalnum(c) || c == '-' ? (char)c : '?';
        }
        at += label;
    }
    q->name[length] = '\0';
    if (at + 5 > p->size)
        return false;
    q->type = get16(p->data + at + 1);
    q->end = at + 5;
    return get16(p->data + at + 3) == CLASS_IN;
}

/* What stands before SUFFIX at the end of NAME, cut off in place; or NULL. */
static char *before(char *name, const char *suffix)
{
    size_t length = strlen(name), tail = strlen(suffix);

    if (length <= tail || strcasecmp(name + length - tail, suffix) != 0)
        return NULL;
    name[length - tail] = '\0';
    return name;
}

/* The address in D.C.B.A of a reverse name; 0: it is none. */
static uint32_t reverse_address(const char *name)
{
    unsigned byte[4];
    int end = 0;

    if (strlen(name) > 15 ||
        sscanf(name, "%3u.%3u.%3u.%3u%n", &byte[0], &byte[1], &byte[2], &byte[3], &end) != 4 ||
        name[end] || (byte[0] | byte[1] | byte[2] | byte[3]) > 255)
        return 0;
    return byte[3] << 24 | byte[2] << 16 | byte[1] << 8 | byte[0];
}

/* Writes NAME.doppel.internal as labels. Returns its size. */
static size_t put_name(uint8_t *at, const char *name)
{
    static const uint8_t domain[] = "\6doppel\10internal";
    size_t length = strlen(name);

    at[0] = (uint8_t)length;
    for (size_t i = 0; i < length; i++)
        at[1 + i] = (uint8_t)name[i];
    memcpy(at + 1 + length, domain, sizeof(domain));
    return 1 + length + sizeof(domain);
}

/* Appends a record for the name in question. Returns its size. */
static size_t put_record(uint8_t *at, unsigned type, const void *data, size_t size)
{
    put16(at, 0xc000u | HEADER); /* the name: see there */
    put16(at + 2, type);
    put16(at + 4, CLASS_IN);
    put32(at + 6, 0); /* it is not kept: machines come and go */
    put16(at + 10, (unsigned)size);
    memcpy(at + 12, data, size);
    return 12 + size;
}

/* Answers for an address. Returns the result, and *SIZE of the record at AT. */
static unsigned answer_reverse(const struct switch_hosts *hosts, const char *name, unsigned type,
                               uint8_t *at, size_t *size)
{
    uint32_t address = reverse_address(name);
    const char *host = switch_find_address(hosts, address);
    uint8_t data[NET_NAME_MOST + 32];

    if ((address & ~255u) != hosts->network)
        return REFUSED;
    if (address == switch_own(hosts))
        host = "switch";
    if (!host)
        return NO_NAME;
    if (type == TYPE_PTR || type == TYPE_ANY)
        *size = put_record(at, TYPE_PTR, data, put_name(data, host));
    return NO_ERROR;
}

static unsigned answer_name(const struct switch_hosts *hosts, char *name, unsigned type,
                            uint8_t *at, size_t *size)
{
    const char *host = before(name, "." SWITCH_DOMAIN);
    uint32_t address;
    uint8_t data[4];

    if (strcasecmp(name, SWITCH_DOMAIN) == 0)
        return NO_ERROR; /* the domain itself: it is there, and has no address */
    if (!host && strchr(name, '.'))
        return REFUSED;
    address = switch_find_name(hosts, name);
    if (!address && strcasecmp(name, "switch") == 0)
        address = switch_own(hosts);
    if (!address)
        return host ? NO_NAME : REFUSED;
    put32(data, address);
    if (type == TYPE_A || type == TYPE_ANY)
        *size = put_record(at, TYPE_A, data, sizeof(data));
    return NO_ERROR;
}

size_t switch_dns_answer(const struct switch_hosts *hosts, const struct switch_packet *p,
                         uint8_t *reply, size_t most)
{
    struct question q;
    unsigned flags, result;
    size_t size = 0;
    char *reverse;

    if (p->size < HEADER || get16(p->data + 2) & RESPONSE)
        return 0;
    flags = get16(p->data + 2);
    memset(reply, 0, HEADER);
    memcpy(reply, p->data, 2);
    put16(reply + 2, RESPONSE | AUTHORITATIVE | (flags & (OPCODE | DESIRED)) |
                         (flags & OPCODE ? NOT_IMPLEMENTED : FORMAT));
    if (flags & OPCODE || get16(p->data + 4) != 1 || !read_question(p, &q) ||
        q.end + 12 + NET_NAME_MOST + 32 > most)
        return HEADER;
    memcpy(reply + HEADER, p->data + HEADER, q.end - HEADER);
    reverse = before(q.name, ".in-addr.arpa");
    result = reverse ? answer_reverse(hosts, reverse, q.type, reply + q.end, &size)
                     : answer_name(hosts, q.name, q.type, reply + q.end, &size);
    put16(reply + 2, RESPONSE | AUTHORITATIVE | (flags & DESIRED) | result);
    put16(reply + 4, 1);
    put16(reply + 6, size > 0);
    return q.end + size;
}
