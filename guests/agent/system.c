/*
 * What the agent knows of its system, and does with it.
 */
#include "system.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MOST 16384

/* systemd(1): starts poweroff.target. */
#define SYSTEMD_POWEROFF (SIGRTMIN + 4)

static unsigned count_bits(const void *mask, size_t size)
{
    const uint8_t *bytes = mask;
    unsigned bits = 0;

    for (size_t i = 0; i < size; i++)
        bits += (unsigned)__builtin_popcount(bytes[i]);
    return bits;
}

/* Writes the line of an address to LINE. False if it is none that is told. */
static bool describe(const struct ifaddrs *each, char *line, size_t room)
{
    char text[INET6_ADDRSTRLEN];
    const void *address, *mask;
    size_t size;
    int family;

    if (!each->ifa_addr || !each->ifa_netmask || (each->ifa_flags & IFF_LOOPBACK) ||
        !(each->ifa_flags & IFF_UP))
        return false;
    family = each->ifa_addr->sa_family;
    if (family == AF_INET) {
        address = &((const struct sockaddr_in *)(const void *)each->ifa_addr)->sin_addr;
        mask = &((const struct sockaddr_in *)(const void *)each->ifa_netmask)->sin_addr;
        size = sizeof(struct in_addr);
    } else if (family == AF_INET6) {
        address = &((const struct sockaddr_in6 *)(const void *)each->ifa_addr)->sin6_addr;
        mask = &((const struct sockaddr_in6 *)(const void *)each->ifa_netmask)->sin6_addr;
        size = sizeof(struct in6_addr);
    } else {
        return false;
    }
    if (!inet_ntop(family, address, text, sizeof(text)))
        return false;
    snprintf(line, room, "%.16s %s/%u\n", each->ifa_name, text, count_bits(mask, size));
    return true;
}

const char *agent_system_addresses(void)
{
    static char text[TEXT_MOST];
    struct ifaddrs *all = NULL;
    size_t size = 0;
    char line[80];

    if (getifaddrs(&all))
        return "";
    for (const struct ifaddrs *each = all; each; each = each->ifa_next)
        if (describe(each, line, sizeof(line)) && size + strlen(line) < sizeof(text)) {
            memcpy(text + size, line, strlen(line) + 1);
            size += strlen(line);
        }
    freeifaddrs(all);
    return text;
}

bool agent_system_shut_down(void)
{
    bool systemd = access("/run/systemd/system", F_OK) == 0;

    return kill(1, systemd ? SYSTEMD_POWEROFF : SIGUSR2) == 0;
}
