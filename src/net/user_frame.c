/*
 * What is known of a guest's frame before libslirp has it.
 */
#include "net/user.h"

#include "net/bytes.h"

enum { TYPE_IP4 = 0x0800, TYPE_IP6 = 0x86DD };
enum { PROTOCOL_TCP = 6 };
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10, URG = 0x20 };

#define ETHERNET     14u
#define IP4_HEADER   20u
#define IP6_HEADER   40u
#define FLAGS_OFFSET 13u /* in the header of TCP */

/* Whether the segment of TCP at OFFSET begins a connection: libslirp resets any other one that it
 * knows nothing of. */
static bool begins(const uint8_t *frame, size_t size, size_t offset)
{
    if (offset + FLAGS_OFFSET >= size)
        return true; /* perhaps */
    return (frame[offset + FLAGS_OFFSET] & (FIN | SYN | RST | ACK | URG)) == SYN;
}

static bool opens_ip4(const uint8_t *frame, size_t size)
{
    const uint8_t *ip = frame + ETHERNET;

    if (size < ETHERNET + IP4_HEADER || ip[9] != PROTOCOL_TCP)
        return true;
    if (get16(ip + 6) & 0x3FFF) /* a fragment, which may be the last one of a segment */
        return true;
    return begins(frame, size, ETHERNET + (size_t)4 * (ip[0] & 15));
}

static bool opens_ip6(const uint8_t *frame, size_t size)
{
    const uint8_t *ip = frame + ETHERNET;

    if (size < ETHERNET + IP6_HEADER || ip[6] != PROTOCOL_TCP)
        return true;
    return begins(frame, size, ETHERNET + IP6_HEADER);
}

bool user_frame_opens(const uint8_t *frame, size_t size)
{
    switch (get16(frame + 12)) {
    case TYPE_IP4: return opens_ip4(frame, size);
    case TYPE_IP6: return opens_ip6(frame, size);
    default: return false;
    }
}
