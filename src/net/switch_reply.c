/*
 * What a virtual switch itself says on its network: frames, ARP (RFC 826), ICMP echo (RFC 792) and
 * datagrams.
 */
#include "net/bytes.h"
#include "net/offload.h"
#include "net/switch_answer.h"

#include <stdbool.h>
#include <string.h>

#define TYPE_IP     0x0800u
#define TYPE_ARP    0x0806u
#define ICMP        1u
#define UDP         17u
#define PORT_DNS    53u
#define PORT_DHCP   67u
#define PORT_CLIENT 68u
#define ETHERNET    14u
#define IP          20u

static void put_ethernet(const struct switch_hosts *hosts, uint8_t *reply, const uint8_t *to,
                         unsigned type)
{
    memcpy(reply, to, 6);
    memcpy(reply + 6, hosts->mac, 6);
    put16(reply + 12, type);
}

static size_t answer_arp(const struct switch_hosts *hosts, const uint8_t *frame, size_t size,
                         uint8_t *reply)
{
    static const uint8_t request[] = {0, 1, 8, 0, 6, 4, 0, 1}; /* Ethernet, IPv4 */
    const uint8_t *arp = frame + ETHERNET;
    uint8_t *own = reply + ETHERNET;

    if (size < ETHERNET + 28 || memcmp(arp, request, sizeof(request)) != 0 ||
        get32(arp + 24) != switch_own(hosts))
        return 0;
    put_ethernet(hosts, reply, arp + 8, TYPE_ARP);
    memcpy(own, request, sizeof(request));
    own[7] = 2;
    memcpy(own + 8, hosts->mac, 6);
    put32(own + 14, switch_own(hosts));
    memcpy(own + 18, arp + 8, 10);
    return ETHERNET + 28;
}

/* Completes a frame whose IP packet has SIZE bytes of payload, already in its place. */
static size_t put_ip(const struct switch_hosts *hosts, uint8_t *reply, const uint8_t *to_mac,
                     uint32_t to, unsigned protocol, size_t size)
{
    uint8_t *ip = reply + ETHERNET;

    put_ethernet(hosts, reply, to_mac, TYPE_IP);
    memset(ip, 0, IP);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)(IP + size));
    ip[8] = 64;
    ip[9] = (uint8_t)protocol;
    put32(ip + 12, switch_own(hosts));
    put32(ip + 16, to);
    put16(ip + 10, offload_fold(offload_sum(ip, IP, 0)));
    return ETHERNET + IP + size;
}

static size_t answer_echo(const struct switch_hosts *hosts, const uint8_t *frame,
                          const struct switch_packet *p, uint8_t *reply)
{
    uint8_t *icmp = reply + ETHERNET + IP;

    if (p->size < 8 || p->data[0] != 8 || p->data[1] != 0 ||
        p->size > SWITCH_REPLY_MOST - ETHERNET - IP)
        return 0;
    memcpy(icmp, p->data, p->size);
    icmp[0] = 0;
    put16(icmp + 2, 0);
    put16(icmp + 2, offload_fold(offload_sum(icmp, p->size, 0)));
    return put_ip(hosts, reply, frame + 6, p->from, ICMP, p->size);
}

static size_t answer_udp(struct switch_hosts *hosts, unsigned port, const uint8_t *frame,
                         const struct switch_packet *p, uint8_t *reply)
{
    const size_t most = SWITCH_REPLY_MOST - ETHERNET - IP - 8;
    struct switch_packet datagram = *p;
    struct switch_destination to = {.mac = frame + 6, .address = p->from};
    uint8_t *udp = reply + ETHERNET + IP;
    size_t size = 0;
    unsigned from, answers;

    if (p->size < 8 || get16(p->data + 4) < 8 || get16(p->data + 4) > p->size)
        return 0;
    from = get16(p->data);
    answers = get16(p->data + 2);
    datagram.data += 8;
    datagram.size = get16(p->data + 4) - 8u;
    if (answers == PORT_DHCP && from == PORT_CLIENT)
        size = switch_dhcp_answer(hosts, port, &datagram, &to, udp + 8, most);
    else if (answers == PORT_DNS && p->to == switch_own(hosts))
        size = switch_dns_answer(hosts, &datagram, udp + 8, most);
    if (size == 0)
        return 0;
    put16(udp, answers);
    put16(udp + 2, from);
    put16(udp + 4, (unsigned)size + 8);
    put16(udp + 6, 0); /* no checksum (RFC 768) */
    return put_ip(hosts, reply, to.mac, to.address, UDP, size + 8);
}

/* Finds the packet of IPv4 in a frame. False: there is none, or a fragment. */
static bool find_packet(const uint8_t *frame, size_t size, struct switch_packet *p)
{
    const uint8_t *ip = frame + ETHERNET;
    size_t head, whole;

    if (size < ETHERNET + IP || ip[0] >> 4 != 4)
        return false;
    head = (size_t)(ip[0] & 15) * 4;
    whole = get16(ip + 2);
    if (head < IP || whole < head || ETHERNET + whole > size || (get16(ip + 6) & 0x3fff) != 0)
        return false;
    *p = (struct switch_packet){.from = get32(ip + 12),
                                .to = get32(ip + 16),
                                .protocol = ip[9],
                                .data = ip + head,
                                .size = whole - head};
    return true;
}

size_t switch_hosts_answer(struct switch_hosts *hosts, unsigned port, const uint8_t *frame,
                           size_t size, uint8_t *reply)
{
    struct switch_packet p;

    if (size < ETHERNET)
        return 0;
    if (get16(frame + 12) == TYPE_ARP)
        return answer_arp(hosts, frame, size, reply);
    if (get16(frame + 12) != TYPE_IP || !find_packet(frame, size, &p))
        return 0;
    if (p.protocol == UDP)
        return answer_udp(hosts, port, frame, &p, reply);
    if (p.protocol == ICMP && p.to == switch_own(hosts))
        return answer_echo(hosts, frame, &p, reply);
    return 0;
}
