/*
 * Packets of a virtio socket device (virtio 1.2, 5.10.6), as a driver sees them.
 */
#ifndef DOPPEL_TESTS_UNIT_VSOCK_PACKET_H
#define DOPPEL_TESTS_UNIT_VSOCK_PACKET_H

#include <stdint.h>

struct packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct packet) == 44, "5.10.6");

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

#endif
