/*
 * Checksums and segmentation that one side of a network leaves to the other.
 *
 * Frames may come from a guest or from a peer, and be anything: offload_check says whether what is
 * to be done to a frame can be done within its bytes. The other functions are only for frames that
 * it has found good and that nobody changes meanwhile.
 */
#ifndef DOPPEL_NET_OFFLOAD_H
#define DOPPEL_NET_OFFLOAD_H

#include "net/net.h"

/* The ones' complement sum of SIZE bytes, the first of which is the higher half of a 16-bit
 * word, added to SUM: not folded, not complemented (RFC 1071). */
uint32_t offload_sum(const void *data, size_t size, uint32_t sum);
/* The 16 bits of SUM, complemented: as they are stored in a header, in the host's byte order. */
uint16_t offload_fold(uint32_t sum);

/* Whether OFFLOAD can be done to the frame of SIZE bytes whose first HEAD bytes, all of its headers
 * at least if it has more than one segment, are at DATA. */
bool offload_check(const uint8_t *data, size_t head, size_t size,
                   const struct net_offload *offload);

/* What OFFLOAD leaves undone, as bits of NET_CHECKSUM, NET_TSO4, NET_TSO6. */
unsigned offload_needs(const struct net_offload *offload);

/* Fills the checksum in that OFFLOAD leaves undone, and clears *OFFLOAD. No GSO. */
void offload_checksum(uint8_t *data, size_t size, struct net_offload *offload);

/* Makes of a frame with GSO one complete segment, however large, and clears *OFFLOAD. */
void offload_join(uint8_t *data, size_t size, struct net_offload *offload);

/* Whether the checksums of an unfragmented TCP or UDP packet over IP are there and right. */
bool offload_verify(const uint8_t *data, size_t size);

/* The segments of a frame with GSO. */
struct offload_split {
    const uint8_t *data;
    size_t size;
    struct net_offload offload;
    size_t network, transport, payload; /* where the IP header, the TCP header and the data begin */
    size_t done;                        /* bytes of the data that segments were made of */
    bool ip6;
};

/* Begins with the frame DATA, which stays. False: it is no TCP packet, and cannot be divided. */
bool offload_split_begin(struct offload_split *split, const uint8_t *data, size_t size,
                         const struct net_offload *offload);
/* Writes the next segment, complete, to PIECE, of NET_FRAME_MOST bytes. Returns its size; 0: there
 * is none any more. */
size_t offload_split_next(struct offload_split *split, uint8_t *piece);

#endif
