/*
 * DHCP of a virtual switch: RFC 2131 (the protocol), RFC 2132 (the options), RFC 3397 (the search
 * list).
 */
#include "net/bytes.h"
#include "net/switch_answer.h"

#include <stdbool.h>
#include <string.h>

/* Where the fields of a message are (RFC 2131, figure 1). */
enum {
    OP = 0,
    XID = 4,
    FLAGS = 10,
    CIADDR = 12,
    YIADDR = 16,
    SIADDR = 20,
    CHADDR = 28,
    COOKIE = 236,
    OPTIONS = 240,
};

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACKNOWLEDGE = 5, REFUSE = 6, INFORM = 8 };

enum {
    OPTION_PAD = 0,
    OPTION_MASK = 1,
    OPTION_DNS = 6,
    OPTION_HOSTNAME = 12,
    OPTION_DOMAIN = 15,
    OPTION_WANTED = 50,
    OPTION_TIME = 51,
    OPTION_KIND = 53,
    OPTION_SERVER = 54,
    OPTION_SEARCH = 119,
    OPTION_END = 255,
};

#define LEASE_SECONDS 86400u
/* Older clients want no shorter message (RFC 1542, 2.1). */
#define LEAST 300u

static const uint8_t cookie[] = {99, 130, 83, 99};

struct request {
    unsigned kind;
    uint32_t wanted; /* the address that the client asks for; 0: none */
    uint32_t server; /* that it asks; 0: any */
};

static void read_option(struct request *r, unsigned code, const uint8_t *value, unsigned length)
{
    if (code == OPTION_KIND && length == 1)
        r->kind = value[0];
    else if (code == OPTION_WANTED && length == 4)
        r->wanted = get32(value);
    else if (code == OPTION_SERVER && length == 4)
        r->server = get32(value);
}

/* False: it is no request of DHCP over Ethernet. */
static bool read_request(const struct switch_packet *p, struct request *r)
{
    const uint8_t *m = p->data;

    *r = (struct request){.kind = 0};
    if (p->size < OPTIONS || m[OP] != 1 || m[1] != 1 || m[2] != 6 ||
        memcmp(m + COOKIE, cookie, sizeof(cookie)) != 0)
        return false;
    for (size_t at = OPTIONS; at < p->size && m[at] != OPTION_END;) {
        if (m[at] == OPTION_PAD) {
            at++;
            continue;
        }
        if (at + 2 > p->size || at + 2 + m[at + 1] > p->size)
            return false;
        read_option(r, m[at], m + at + 2, m[at + 1]);
        at += 2u + m[at + 1];
    }
    if (!r->wanted)
        r->wanted = get32(m + CIADDR);
    return true;
}

static uint8_t *put_option(uint8_t *at, unsigned code, const void *value, size_t length)
{
    at[0] = (uint8_t)code;
    at[1] = (uint8_t)length;
    memcpy(at + 2, value, length);
    return at + 2 + length;
}

static uint8_t *put_address(uint8_t *at, unsigned code, uint32_t address)
{
    uint8_t value[4];

    put32(value, address);
    return put_option(at, code, value, sizeof(value));
}

/* The options of an answer that gives an address, or says what goes with one. There is no router:
 * the network leads nowhere. */
static uint8_t *put_settings(const struct switch_hosts *hosts, unsigned port, unsigned asked,
                             uint8_t *at)
{
    static const uint8_t search[] = "\6doppel\10internal";
    const char *name = hosts->name[port];

    if (asked != INFORM)
        at = put_address(at, OPTION_TIME, LEASE_SECONDS);
    at = put_address(at, OPTION_MASK, 0xffffff00);
    at = put_address(at, OPTION_DNS, switch_own(hosts));
    at = put_option(at, OPTION_DOMAIN, SWITCH_DOMAIN, strlen(SWITCH_DOMAIN));
    at = put_option(at, OPTION_SEARCH, search, sizeof(search));
    if (*name)
        at = put_option(at, OPTION_HOSTNAME, name, strlen(name));
    return at;
}

/* What is answered to a request, if the client is to have ADDRESS. 0: nothing. */
static unsigned choose(const struct switch_hosts *hosts, const struct request *r, uint32_t address)
{
    if (r->server && r->server != switch_own(hosts))
        return 0; /* it has chosen another server */
    switch (r->kind) {
    case DISCOVER: return address ? OFFER : 0;
    case REQUEST: return address && r->wanted == address ? ACKNOWLEDGE : REFUSE;
    case INFORM: return ACKNOWLEDGE;
    default: return 0;
    }
}

size_t switch_dhcp_answer(struct switch_hosts *hosts, unsigned port, const struct switch_packet *p,
                          struct switch_destination *to, uint8_t *reply, size_t most)
{
    struct request r;
    uint32_t address = 0;
    uint8_t *at = reply + OPTIONS;
    unsigned kind;
    uint8_t byte;

    if (!read_request(p, &r))
        return 0;
    if (r.kind == DISCOVER || r.kind == REQUEST)
        address = switch_lease(hosts, port, p->data + CHADDR);
    kind = choose(hosts, &r, address);
    if (!kind)
        return 0;
    memset(reply, 0, most);
    memcpy(reply, p->data, 4);
    reply[OP] = 2;
    memcpy(reply + XID, p->data + XID, 4);
    memcpy(reply + FLAGS, p->data + FLAGS, 2);
    memcpy(reply + CHADDR, p->data + CHADDR, 16);
    memcpy(reply + COOKIE, cookie, sizeof(cookie));
    if (kind != REFUSE && r.kind != INFORM)
        put32(reply + YIADDR, address);
    if (r.kind == INFORM)
        memcpy(reply + CIADDR, p->data + CIADDR, 4);
    byte = (uint8_t)kind;
    at = put_option(at, OPTION_KIND, &byte, 1);
    at = put_address(at, OPTION_SERVER, switch_own(hosts));
    if (kind != REFUSE)
        at = put_settings(hosts, port, r.kind, at);
    *at++ = OPTION_END;
    /* A client without an address hears what is sent to everybody on its card. */
    *to = (struct switch_destination){.mac = p->data + CHADDR, .address = get32(p->data + CIADDR)};
    if (!to->address || kind == REFUSE)
        to->address = UINT32_MAX;
    return (size_t)(at - reply) > LEAST ? (size_t)(at - reply) : LEAST;
}
