/*
 * What the network device reads of frames: whether the guest wants one (virtio 1.2, 5.1.6.5), and
 * which flow it belongs to.
 */
#include "dev/virtio/net_private.h"

#include "base/util.h"

#include <string.h>

#define TYPE_IPV4 0x0800u
#define TYPE_VLAN 0x8100u
#define TYPE_IPV6 0x86DDu
#define PROTO_TCP 6
#define PROTO_UDP 17

static unsigned big16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

void card_filter_reset(struct card_filter *f, const uint8_t mac[6])
{
    *f = (struct card_filter){.promiscuous = true};
    memcpy(f->mac, mac, sizeof(f->mac));
}

static bool has(const uint8_t (*table)[6], unsigned count, const uint8_t *address)
{
    for (unsigned i = 0; i < count; i++)
        if (!memcmp(table[i], address, 6))
            return true;
    return false;
}

static bool passes_vlan(const struct card_filter *f, const uint8_t *head, size_t size)
{
    unsigned vlan;

    if (!f->by_vlan || size < ETHERNET_HEADER + 4 || big16(head + 12) != TYPE_VLAN)
        return true;
    vlan = big16(head + 14) % CARD_VLANS;
    return f->vlan[vlan / 32] >> vlan % 32 & 1;
}

static bool passes_multicast(const struct card_filter *f, const uint8_t *head)
{
    static const uint8_t broadcast[6] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

    if (!memcmp(head, broadcast, sizeof(broadcast)))
        return !f->no_broadcast;
    return !f->no_multicast && (f->all_multicast || f->multicasts > CARD_ADDRESSES ||
                                has(f->multicast, f->multicasts, head));
}

static bool passes_unicast(const struct card_filter *f, const uint8_t *head)
{
    return !f->no_unicast && (f->all_unicast || !memcmp(head, f->mac, sizeof(f->mac)) ||
                              f->unicasts > CARD_ADDRESSES || has(f->unicast, f->unicasts, head));
}

bool card_filter_passes(const struct card_filter *f, const uint8_t *head, size_t size)
{
    if (f->promiscuous)
        return true;
    if (size < ETHERNET_HEADER || !passes_vlan(f, head, size))
        return false;
    return head[0] & 1 ? passes_multicast(f, head) : passes_unicast(f, head);
}

void card_filter_state(struct card_filter *f, struct state *s)
{
    state_bool(s, &f->promiscuous);
    state_bool(s, &f->all_multicast);
    state_bool(s, &f->all_unicast);
    state_bool(s, &f->no_multicast);
    state_bool(s, &f->no_unicast);
    state_bool(s, &f->no_broadcast);
    state_field(s, f->mac);
    state_field(s, f->unicasts);
    state_field(s, f->multicasts);
    state_field(s, f->unicast);
    state_field(s, f->multicast);
    state_field(s, f->vlan);
    if (state_saving(s) ||
        (f->unicasts <= CARD_ADDRESSES + 1 && f->multicasts <= CARD_ADDRESSES + 1))
        return;
    state_fail(s, "%u and %u addresses in a table of %u", f->unicasts, f->multicasts,
               CARD_ADDRESSES);
    f->unicasts = f->multicasts = 0;
}

/* The two ends of a connection, mixed so that both directions give the same. */
static uint32_t mix_addresses(const uint8_t *addresses, unsigned size)
{
    uint32_t mixed = 0;

    for (unsigned i = 0; i < 2 * size; i += 2)
        mixed += big16(addresses + i) << (i % size % 4 ? 0 : 16);
    return mixed;
}

unsigned card_flow(const uint8_t *head, size_t size)
{
    unsigned type = size >= ETHERNET_HEADER ? big16(head + 12) : 0, protocol = 0;
    size_t ports = 0;
    uint32_t mixed = 0;

    if (type == TYPE_IPV4 && size >= ETHERNET_HEADER + 20) {
        mixed = mix_addresses(head + ETHERNET_HEADER + 12, 4);
        protocol = head[ETHERNET_HEADER + 9];
        ports = ETHERNET_HEADER + 4 * (head[ETHERNET_HEADER] & 15u);
        if (big16(head + ETHERNET_HEADER + 6) & 0x3FFF) /* a fragment: the others have no ports */
            protocol = 0;
    } else if (type == TYPE_IPV6 && size >= ETHERNET_HEADER + 40) {
        mixed = mix_addresses(head + ETHERNET_HEADER + 8, 16);
        protocol = head[ETHERNET_HEADER + 6];
        ports = ETHERNET_HEADER + 40;
    }
    if ((protocol == PROTO_TCP || protocol == PROTO_UDP) && size >= ports + 4)
        mixed += big16(head + ports) + big16(head + ports + 2);
    return (mixed * 0x9E3779B1u) >> 24;
}
