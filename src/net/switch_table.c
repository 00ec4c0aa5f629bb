/*
 * Which address of a card is behind which port of a switch: a hash table with open addressing, in
 * which what follows a slot that becomes free moves up.
 */
#include "net/switch_table.h"

#include "net/bytes.h"

static uint64_t number_of(const uint8_t *mac)
{
    return (uint64_t)get16(mac) << 32 | get32(mac + 2);
}

static unsigned home_of(uint64_t mac)
{
    return (unsigned)(mac * 0x9E3779B97F4A7C15 >> 51); /* 13 bits */
}

_Static_assert(SWITCH_TABLE_SLOTS == 1u << 13, "what home_of gives");
_Static_assert(SWITCH_TABLE_SLOTS >= 2 * SWITCH_TABLE_OWN * SWITCH_PORTS_MOST, "it is never full");

/* The slot of MAC, or the free one where it would be. */
static unsigned locate(const struct switch_table *table, uint64_t mac)
{
    unsigned at = home_of(mac);

    while (table->slot[at].mac && table->slot[at].mac != mac)
        at = (at + 1) % SWITCH_TABLE_SLOTS;
    return at;
}

/* Frees the slot AT. */
static void remove_at(struct switch_table *table, unsigned at)
{
    unsigned next = at;

    table->count[table->slot[at].port]--;
    for (;;) {
        unsigned home;

        next = (next + 1) % SWITCH_TABLE_SLOTS;
        if (!table->slot[next].mac)
            break;
        home = home_of(table->slot[next].mac);
        /* It may move up unless its home lies behind the free slot. */
        if ((next - home) % SWITCH_TABLE_SLOTS >= (next - at) % SWITCH_TABLE_SLOTS) {
            table->slot[at] = table->slot[next];
            at = next;
        }
    }
    table->slot[at].mac = 0;
}

bool switch_table_learn(struct switch_table *table, unsigned port, const uint8_t *mac)
{
    uint64_t number = number_of(mac), *own;
    unsigned at = locate(table, number);

    if (mac[0] & 1 || number == 0)
        return false;
    if (table->slot[at].mac)
        return table->slot[at].port == port;
    own = &table->own[port][table->next[port]];
    if (table->count[port] == SWITCH_TABLE_OWN) {
        remove_at(table, locate(table, *own));
        at = locate(table, number);
    }
    table->slot[at] = (struct switch_entry){.mac = number, .port = port};
    table->count[port]++;
    table->next[port] = (table->next[port] + 1) % SWITCH_TABLE_OWN;
    *own = number;
    return true;
}

unsigned switch_table_find(const struct switch_table *table, const uint8_t *mac)
{
    unsigned at = locate(table, number_of(mac));

    return table->slot[at].mac ? table->slot[at].port : SWITCH_NOWHERE;
}

void switch_table_forget(struct switch_table *table, unsigned port)
{
    /* They are the first ones of OWN: it begins anew with each machine. */
    for (unsigned i = 0; table->count[port]; i++)
        remove_at(table, locate(table, table->own[port][i]));
    table->next[port] = 0;
}
