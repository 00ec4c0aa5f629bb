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

bool switch_hosts_enter(struct switch_hosts *hosts, unsigned port, const char *name)
{
    hosts->name[port][0] = '\0';
    for (unsigned i = 0; *name && i < SWITCH_PORTS_MOST; i++)
        if (strcasecmp(hosts->name[i], name) == 0)
            return false;
    strncpy(hosts->name[port], name, NET_NAME_MOST);
    hosts->name[port][NET_NAME_MOST] = '\0';
    return true;
}

void switch_hosts_leave(struct switch_hosts *hosts, unsigned port)
{
    hosts->name[port][0] = '\0';
    for (unsigned i = FIRST; i <= LAST; i++)
        if (hosts->lease[i].port == port)
            hosts->lease[i].used = false;
}

/* The address that the card MAC at PORT has already; 0: none. */
static unsigned find_lease(const struct switch_hosts *hosts, unsigned port, const uint8_t *mac,
                           unsigned *leases)
{
    for (unsigned i = FIRST; i <= LAST; i++) {
        const struct switch_lease *lease = &hosts->lease[i];

        if (!lease->used || lease->port != port)
            continue;
        if (memcmp(lease->mac, mac, sizeof(lease->mac)) == 0)
            return i;
        ++*leases;
    }
    return 0;
}

uint32_t switch_lease(struct switch_hosts *hosts, unsigned port, const uint8_t *mac)
{
    const char *name = hosts->name[port];
    unsigned leases = 0, at = find_lease(hosts, port, mac, &leases), count = LAST - FIRST + 1;
    uint32_t sum;

    if (at)
        return hosts->network + at;
    if (leases >= SWITCH_LEASES_MOST)
        return 0;
    /* The machine's first address goes by its name, those of more cards by theirs. */
    sum = *name && leases == 0 ? hash(name, strlen(name)) : hash(mac, 6);
    for (unsigned i = 0; i < count; i++) {
        struct switch_lease *lease = &hosts->lease[FIRST + (sum + i) % count];

        if (lease->used)
            continue;
        *lease = (struct switch_lease){.used = true, .port = port};
        memcpy(lease->mac, mac, sizeof(lease->mac));
        return hosts->network + FIRST + (sum + i) % count;
    }
    return 0;
}

uint32_t switch_own(const struct switch_hosts *hosts)
{
    return hosts->network + OWN;
}

uint32_t switch_find_name(const struct switch_hosts *hosts, const char *name)
{
    uint32_t first = 0;

    if (!*name)
        return 0;
    for (unsigned i = LAST; i >= FIRST; i--) {
        const struct switch_lease *lease = &hosts->lease[i];

        if (lease->used && strcasecmp(hosts->name[lease->port], name) == 0) {
            const char *own = hosts->name[lease->port];

            first = hosts->network + i;
            /* Of several, the one that goes by the name. */
            if (i == FIRST + hash(own, strlen(own)) % (LAST - FIRST + 1))
                break;
        }
    }
    return first;
}

const char *switch_find_address(const struct switch_hosts *hosts, uint32_t address)
{
    const struct switch_lease *lease = &hosts->lease[address & 255];

    if ((address & ~255u) != hosts->network || !lease->used || !hosts->name[lease->port][0])
        return NULL;
    return hosts->name[lease->port];
}
