/*
 * Switches that only tests change, to send everything through the translator's rare paths.
 */
#ifndef DOPPEL_CPU_BT_SWITCHES_H
#define DOPPEL_CPU_BT_SWITCHES_H

#include <stdbool.h>
#include <stdint.h>

struct bt_switches {
    unsigned heat;         /* executions by the interpreter before a block is translated */
    unsigned region_max;   /* instructions that are translated together, up to REGION_MAX */
    unsigned inline_after; /* exits at a point before its handler is inlined; 0: at once */
    uint32_t code_size;    /* bytes of translations; at least 128 KiB */
    uint64_t scratch_seed; /* not 0: any registers at all are traded for the scratch registers */
    bool single_checks;    /* no check serves several accesses */
    bool forgetful;        /* the software TLB holds no more than what was filled in last */
    bool refills;          /* its first level is empty whenever translated code is entered */
    unsigned second;       /* not 0: places that are used in each array of its second level */
};

extern const struct bt_switches bt_usual; /* to start from */
extern const struct bt_switches bt_eager; /* code is translated when it first runs */

#endif
