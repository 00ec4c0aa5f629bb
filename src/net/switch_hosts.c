/*
 * What a virtual switch itself says on its network: the network, and who is in it.
 */
#include "net/switch_hosts.h"

#include "net/bytes.h"
#include "net/switch_answer.h"

#include <string.h>
#include <strings.h>

#define OWN   1u
#define FIRST 16u
#define LAST  254u
#define COUNT (LAST - FIRST + 1)

/* FNV-1a: the same wherever it is reckoned. */
static uint32_t hash(const void *data, size_t size)
{
    const uint8_t *at = data;
    uint32_t sum = 2166136261u;

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ at[i]) * 16777619u;
    return sum;
}

void switch_hosts_begin(struct switch_hosts *hosts, const char *name)
{
    uint32_t sum = hash(name, strlen(name));

    *hosts =
        (struct switch_hosts){.network = 10u << 24 | 99u << 16 | (sum >> 24 ^ (sum & 255)) << 8};
    /* Locally administered, like libslirp's. */
    hosts->mac[0] = 0x52;
    hosts->mac[1] = 0x55;
    put32(hosts->mac + 2, hosts->network + OWN);
}

void switch_hosts_leave(struct switch_hosts *hosts, unsigned port)
{
    hosts->name[port][0] = '\0';
    for (unsigned i = FIRST; i <= LAST; i++)
        if (hosts->lease[i].port == port)
            hosts->lease[i].used = false;
}

/* The address that the card MAC at PORT has already, or that waits for it; 0: none. */
static unsigned find_lease(const struct switch_hosts *hosts, unsigned port, const uint8_t *mac,
                           unsigned *leases)
{
    unsigned waits = 0;

    for (unsigned i = FIRST; i <= LAST; i++) {
        const struct switch_lease *lease = &hosts->lease[i];

        if (!lease->used || lease->port != port)
            continue;
        if (lease->bound && memcmp(lease->mac, mac, sizeof(lease->mac)) == 0)
            return i;
        if (!lease->bound)
            waits = i;
        ++*leases;
    }
    return waits;
}

/* Takes the first free address from the one on that SUM stands for. Returns its last byte; 0: there
 * is none. */
static unsigned take_address(struct switch_hosts *hosts, unsigned port, uint32_t sum)
{
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned at = FIRST + (sum + i) % COUNT;

        if (hosts->lease[at].used)
            continue;
        hosts->lease[at] = (struct switch_lease){.used = true, .port = port};
        return at;
    }
    return 0;
}

uint32_t switch_lease(struct switch_hosts *hosts, unsigned port, const uint8_t *mac)
{
    unsigned leases = 0, at = find_lease(hosts, port, mac, &leases);

    if (!at && leases < SWITCH_LEASES_MOST)
        at = take_address(hosts, port, hash(mac, 6));
    if (!at)
        return 0;
    hosts->lease[at].bound = true;
    memcpy(hosts->lease[at].mac, mac, sizeof(hosts->lease[at].mac));
    return hosts->network + at;
}

bool switch_hosts_enter(struct switch_hosts *hosts, unsigned port, const char *name)
{
    hosts->name[port][0] = '\0';
    for (unsigned i = 0; *name && i < SWITCH_PORTS_MOST; i++)
        if (strcasecmp(hosts->name[i], name) == 0)
            return false;
    strncpy(hosts->name[port], name, NET_NAME_MOST);
    hosts->name[port][NET_NAME_MOST] = '\0';
    if (*name)
        take_address(hosts, port, hash(name, strlen(name)));
    return true;
}

uint32_t switch_own(const struct switch_hosts *hosts)
{
    return hosts->network + OWN;
}

/* Whether the address AT is the one that the machine's name stands for. */
static bool goes_by_name(const struct switch_hosts *hosts, unsigned at)
{
    const char *name = hosts->name[hosts->lease[at].port];

    return at == FIRST + hash(name, strlen(name)) % COUNT;
}

uint32_t switch_find_name(const struct switch_hosts *hosts, const char *name)
{
    unsigned found = 0;

    for (unsigned i = FIRST; *name && i <= LAST; i++) {
        const struct switch_lease *lease = &hosts->lease[i];

        if (lease->used && strcasecmp(hosts->name[lease->port], name) == 0 &&
            (!found || goes_by_name(hosts, i)))
            found = i;
    }
    return found ? hosts->network + found : 0;
}

const char *switch_find_address(const struct switch_hosts *hosts, uint32_t address)
{
    const struct switch_lease *lease = &hosts->lease[address & 255];

    if ((address & ~255u) != hosts->network || !lease->used || !hosts->name[lease->port][0])
        return NULL;
    return hosts->name[lease->port];
}
