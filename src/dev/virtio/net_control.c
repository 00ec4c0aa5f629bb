/*
 * The control queue of the network device (virtio 1.2, 5.1.6.5): which frames the guest wants, how
 * many queues it uses, what frames may need of it.
 */
#include "dev/virtio/net_private.h"

#include "base/util.h"

#include <string.h>

/* Commands, with their class in the upper byte. */
enum {
    RX_PROMISCUOUS = 0x000,
    RX_ALL_MULTICAST = 0x001,
    RX_ALL_UNICAST = 0x002,
    RX_NO_MULTICAST = 0x003,
    RX_NO_UNICAST = 0x004,
    RX_NO_BROADCAST = 0x005,
    MAC_TABLE_SET = 0x100,
    MAC_ADDRESS_SET = 0x101,
    VLAN_ADD = 0x200,
    VLAN_REMOVE = 0x201,
    ANNOUNCE_ACK = 0x300,
    PAIRS_SET = 0x400,
    OFFLOADS_SET = 0x500,
};
enum { OK = 0, ERROR = 1 };

#define COMMAND_SIZE 2u

/* Reads what a command says: exactly SIZE bytes. */
static bool read_value(struct virtio_request *r, void *value, size_t size)
{
    return r->chain.readable_bytes == COMMAND_SIZE + size &&
           virtio_read_at(r, COMMAND_SIZE, value, size) == 0;
}

static bool set_receiving(struct card_filter *f, unsigned command, bool on)
{
    switch (command) {
    case RX_PROMISCUOUS: f->promiscuous = on; return true;
    case RX_ALL_MULTICAST: f->all_multicast = on; return true;
    case RX_ALL_UNICAST: f->all_unicast = on; return true;
    case RX_NO_MULTICAST: f->no_multicast = on; return true;
    case RX_NO_UNICAST: f->no_unicast = on; return true;
    case RX_NO_BROADCAST: f->no_broadcast = on; return true;
    default: return false;
    }
}

static bool change_receiving(struct virtio_net *n, struct virtio_request *r, unsigned command)
{
    unsigned feature = command <= RX_ALL_MULTICAST ? CARD_F_CTRL_RX : CARD_F_CTRL_RX_EXTRA;
    uint8_t on;
    bool known;

    if (!virtio_accepted(&n->device, feature) || !read_value(r, &on, sizeof(on)))
        return false;
    pthread_mutex_lock(&n->lock);
    known = set_receiving(&n->filter, command, on);
    pthread_mutex_unlock(&n->lock);
    return known;
}

/* Reads a list of addresses, at OFFSET: how many there are (COUNT, at most one more than fit), and
 * those that fit. Returns where it ends, or 0 if it does not lie in the request. */
static uint64_t read_addresses(struct virtio_request *r, uint64_t offset, uint16_t *count,
                               uint8_t (*table)[6])
{
    uint64_t left;
    uint32_t entries;

    if (virtio_read_at(r, offset, &entries, sizeof(entries)) < 0)
        return 0;
    offset += sizeof(entries);
    left = r->chain.readable_bytes - offset;
    if (entries > left / 6)
        return 0;
    *count = (uint16_t)MIN(entries, CARD_ADDRESSES + 1);
    if (virtio_read_at(r, offset, table, 6 * (uint64_t)MIN(entries, CARD_ADDRESSES)) < 0)
        return 0;
    return offset + 6 * (uint64_t)entries;
}

static bool set_table(struct virtio_net *n, struct virtio_request *r)
{
    struct card_filter *f = &n->filter, new = {0};
    uint64_t at = read_addresses(r, COMMAND_SIZE, &new.unicasts, new.unicast);

    at = at ? read_addresses(r, at, &new.multicasts, new.multicast) : 0;
    if (!at || at != r->chain.readable_bytes || !virtio_accepted(&n->device, CARD_F_CTRL_RX))
        return false;
    pthread_mutex_lock(&n->lock);
    f->unicasts = new.unicasts;
    f->multicasts = new.multicasts;
    memcpy(f->unicast, new.unicast, sizeof(f->unicast));
    memcpy(f->multicast, new.multicast, sizeof(f->multicast));
    pthread_mutex_unlock(&n->lock);
    return true;
}

static bool set_address(struct virtio_net *n, struct virtio_request *r)
{
    uint8_t mac[6];

    if (!virtio_accepted(&n->device, CARD_F_CTRL_MAC_ADDR) || !read_value(r, mac, sizeof(mac)))
        return false;
    pthread_mutex_lock(&n->lock);
    memcpy(n->filter.mac, mac, sizeof(mac));
    pthread_mutex_unlock(&n->lock);
    return true;
}

static bool set_vlan(struct virtio_net *n, struct virtio_request *r, bool on)
{
    uint16_t vlan;
    uint32_t *word;

    if (!virtio_accepted(&n->device, CARD_F_CTRL_VLAN) || !read_value(r, &vlan, sizeof(vlan)) ||
        vlan >= CARD_VLANS)
        return false;
    word = &n->filter.vlan[vlan / 32];
    pthread_mutex_lock(&n->lock);
    *word = (*word & ~(1u << vlan % 32)) | (uint32_t)on << vlan % 32;
    pthread_mutex_unlock(&n->lock);
    return true;
}

static bool acknowledge(struct virtio_net *n, struct virtio_request *r)
{
    if (!virtio_accepted(&n->device, CARD_F_GUEST_ANNOUNCE))
        return false;
    pthread_mutex_lock(&n->lock);
    n->announce = false;
    pthread_mutex_unlock(&n->lock);
    return true;
}

void card_use(struct virtio_net *n, unsigned pairs)
{
    if (atomic_exchange(&n->active, pairs) == pairs)
        return;
    /* A frame that waits may be another pair's from now on. */
    for (unsigned i = 0; i < pairs; i++)
        virtio_wake(&n->device, 2 * i);
}

static bool set_pairs(struct virtio_net *n, struct virtio_request *r)
{
    uint16_t pairs;

    if (!virtio_accepted(&n->device, CARD_F_MQ) || !read_value(r, &pairs, sizeof(pairs)) ||
        !pairs || pairs > n->pairs)
        return false;
    card_use(n, pairs);
    return true;
}

static bool set_offloads(struct virtio_net *n, struct virtio_request *r)
{
    uint64_t offloads;

    if (!virtio_accepted(&n->device, CARD_F_CTRL_GUEST_OFFLOADS) ||
        !read_value(r, &offloads, sizeof(offloads)) ||
        (offloads & ~(n->device.driver_features & CARD_OFFLOADS)))
        return false;
    pthread_mutex_lock(&n->lock);
    n->offloads = offloads;
    pthread_mutex_unlock(&n->lock);
    pthread_mutex_lock(&n->receiving);
    pthread_mutex_lock(&n->sending);
    card_offloads_changed(n);
    pthread_mutex_unlock(&n->sending);
    pthread_mutex_unlock(&n->receiving);
    return true;
}

static bool obey(struct virtio_net *n, struct virtio_request *r, unsigned command)
{
    switch (command) {
    case MAC_TABLE_SET: return set_table(n, r);
    case MAC_ADDRESS_SET: return set_address(n, r);
    case VLAN_ADD: return set_vlan(n, r, true);
    case VLAN_REMOVE: return set_vlan(n, r, false);
    case ANNOUNCE_ACK: return acknowledge(n, r);
    case PAIRS_SET: return set_pairs(n, r);
    case OFFLOADS_SET: return set_offloads(n, r);
    default: return change_receiving(n, r, command);
    }
}

enum virtio_result card_control(struct virtio_net *n, struct virtio_request *r)
{
    uint8_t command[COMMAND_SIZE], answer;

    if (!r->chain.writable_bytes || virtio_read_at(r, 0, command, sizeof(command)) < 0)
        return VIRTIO_BROKEN;
    answer = obey(n, r, (unsigned)command[0] << 8 | command[1]) ? OK : ERROR;
    if (virtio_write_at(r, 0, &answer, sizeof(answer)) < 0)
        return VIRTIO_BROKEN;
    virtio_complete(r, sizeof(answer));
    return VIRTIO_TAKEN;
}
