/*
 * Fuzz target: what machines send to a virtual switch itself (DHCP, DNS, ARP, ICMP), and whose
 * address is whose. The input is a list of records: what happens, at which port, how long it is,
 * and its bytes.
 */
#include "input.h"

#include "base/util.h"
#include "net/bytes.h"
#include "net/switch_hosts.h"
#include "net/switch_table.h"

#include <string.h>

static struct switch_hosts hosts;
static struct switch_table table;
static uint8_t frame[1600], reply[SWITCH_REPLY_MOST];

/* Whatever was said: each address is one machine's, and none has too many. */
static void check_hosts(void)
{
    unsigned leases[SWITCH_PORTS_MOST] = {0};

    for (unsigned i = 0; i < 256; i++) {
        if (!hosts.lease[i].used)
            continue;
        check(i >= 16 && i <= 254 && hosts.lease[i].port < SWITCH_PORTS_MOST);
        check(++leases[hosts.lease[i].port] <= SWITCH_LEASES_MOST);
    }
}

static void check_table(void)
{
    unsigned count[SWITCH_PORTS_MOST] = {0};

    for (unsigned i = 0; i < SWITCH_TABLE_SLOTS; i++) {
        uint8_t mac[6];

        if (!table.slot[i].mac)
            continue;
        put16(mac, (unsigned)(table.slot[i].mac >> 32));
        put32(mac + 2, (uint32_t)table.slot[i].mac);
        check(switch_table_find(&table, mac) == table.slot[i].port);
        count[table.slot[i].port]++;
    }
    for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++)
        check(count[i] == table.count[i] && count[i] <= SWITCH_TABLE_OWN);
}

static void say(unsigned port, size_t size)
{
    size_t answer = switch_hosts_answer(&hosts, port, frame, size, reply);

    check(answer <= SWITCH_REPLY_MOST && (answer == 0 || answer >= 42));
    if (answer)
        check(memcmp(reply + 6, hosts.mac, 6) == 0);
    if (size >= 12 && switch_table_learn(&table, port, frame + 6))
        check(switch_table_find(&table, frame + 6) == port);
}

static void come_and_go(unsigned port, size_t size)
{
    char name[NET_NAME_MOST + 1] = {0};

    memcpy(name, frame, MIN(size, (size_t)NET_NAME_MOST));
    switch_hosts_leave(&hosts, port);
    switch_table_forget(&table, port);
    check(table.count[port] == 0);
    switch_hosts_enter(&hosts, port, name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    memset(&table, 0, sizeof(table));
    switch_hosts_begin(&hosts, "lan");
    switch_hosts_enter(&hosts, 0, "web");
    while (in.left > 3) {
        unsigned what = (unsigned)take(&in, 1), port = what >> 1 & (SWITCH_PORTS_MOST - 1);
        size_t length = MIN(take(&in, 2) % sizeof(frame), in.left);

        memcpy(frame, in.data, length);
        in.data += length;
        in.left -= length;
        if (what & 0x80)
            come_and_go(port, length);
        else
            say(port, length);
    }
    check_hosts();
    check_table();
    return 0;
}
