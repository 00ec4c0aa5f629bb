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

static void remove_oldest(struct switch_table *table, unsigned port)
{
    unsigned oldest = SWITCH_NOWHERE;

    for (unsigned i = 0; i < SWITCH_TABLE_SLOTS; i++) {
        const struct switch_entry *entry = &table->slot[i];

        if (entry->mac && entry->port == port &&
            (oldest == SWITCH_NOWHERE || (int32_t)(entry->age - table->slot[oldest].age) < 0))
            oldest = i;
    }
    remove_at(table, oldest);
}

bool switch_table_learn(struct switch_table *table, unsigned port, const uint8_t *mac)
{
    uint64_t number = number_of(mac);
    unsigned at = locate(table, number);

    if (mac[0] & 1 || number == 0)
        return false;
    if (table->slot[at].mac)
        return table->slot[at].port == port;
    if (table->count[port] == SWITCH_TABLE_OWN) {
        remove_oldest(table, port);
        at = locate(table, number);
    }
    table->slot[at] = (struct switch_entry){.mac = number, .port = port, .age = table->clock++};
    table->count[port]++;
    return true;
}

unsigned switch_table_find(const struct switch_table *table, const uint8_t *mac)
{
    unsigned at = locate(table, number_of(mac));

    return table->slot[at].mac ? table->slot[at].port : SWITCH_NOWHERE;
}

void switch_table_forget(struct switch_table *table, unsigned port)
{
    for (unsigned i = 0; i < SWITCH_TABLE_SLOTS && table->count[port];) {
        if (table->slot[i].mac && table->slot[i].port == port)
            remove_at(table, i); /* and another one may stand there now */
        else
            i++;
    }
    /* What has moved from the table's end to its start was there before. */
    for (unsigned i = 0; i < SWITCH_TABLE_SLOTS && table->count[port]; i++)
        while (table->slot[i].mac && table->slot[i].port == port)
            remove_at(table, i);
}
