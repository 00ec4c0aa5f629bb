/*
 * A function on the PCI bus: its configuration space, its base address registers, its capabilities.
 *
 * A device embeds struct pci_function, describes itself with the calls below and plugs it into the
 * host bridge (dev/pci/host.h), which carries out what the guest reads and writes:
 *
 *      guest --CF8h, CFCh--> host bridge --> function.config
 *                                  |
 *                                  '-- command or a BAR has changed: pci_host_remap
 *                                      claims on the bus what all functions now decode
 *
 *      guest --memory, ports--> bus --> function.bar[n].ops
 *
 * All of it needs the board lock, or a machine that does not run.
 */
#ifndef DOPPEL_DEV_PCI_FUNCTION_H
#define DOPPEL_DEV_PCI_FUNCTION_H

#include "base/state.h"
#include "bus/bus.h"
#include "bus/irq.h"

#include <stdbool.h>
#include <stdint.h>

#define PCI_CONFIG_SIZE 256
#define PCI_BARS        6

/* Offsets in the header (PCI Local Bus Specification 3.0, 6.1). */
#define PCI_VENDOR           0x00
#define PCI_DEVICE           0x02
#define PCI_COMMAND          0x04
#define PCI_STATUS           0x06
#define PCI_REVISION         0x08
#define PCI_CLASS            0x09
#define PCI_HEADER_TYPE      0x0E
#define PCI_BAR0             0x10
#define PCI_SUBSYSTEM_VENDOR 0x2C
#define PCI_SUBSYSTEM        0x2E
#define PCI_CAPABILITIES     0x34
#define PCI_INTERRUPT_LINE   0x3C
#define PCI_INTERRUPT_PIN    0x3D

#define PCI_COMMAND_IO     0x0001u
#define PCI_COMMAND_MEMORY 0x0002u
#define PCI_COMMAND_MASTER 0x0004u
#define PCI_COMMAND_NO_INT 0x0400u /* the interrupt pin is not driven */
#define PCI_STATUS_INT     0x0008u /* the device asks for an interrupt by its pin */

#define PCI_CAPABILITY_VENDOR 0x09
#define PCI_CAPABILITY_MSIX   0x11

#define PCI_NOT_DECODED UINT64_MAX

/* A range of addresses that the guest places. The device fills in SIZE to RING before it is plugged
 * in; a BAR of size 0 does not exist. */
struct pci_bar {
    uint64_t size; /* a power of two: at least 16 for memory, 4 to 256 for ports */
    bool ports;    /* I/O space, else memory */
    bool wide;     /* a 64-bit address: the next BAR is its upper half and stays empty */
    bool prefetchable;
    const char *name;
    const struct bus_ops *ops; /* of the whole range */
    void *dev;
    /* Part of the range that is a doorbell (bus_claim_doorbell); RING NULL: there is none. */
    uint64_t doorbell, doorbell_size;
    bus_ring *ring;

    /* The host bridge's. */
    uint64_t base; /* where it is claimed on the bus, or PCI_NOT_DECODED */
    bool rings;    /* the doorbell is claimed, too */
};

/* CONFIG is what the guest reads; a write changes the bits that are set in WRITABLE. */
struct pci_function {
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE];
    struct pci_bar bar[PCI_BARS];
    /* Both may be NULL. READING is called before SIZE bytes at OFFSET are read, for bytes that are
     * not kept in CONFIG; WRITTEN after they have been written. */
    void (*reading)(struct pci_function *function, unsigned offset, unsigned size);
    void (*written)(struct pci_function *function, unsigned offset, unsigned size);
    unsigned last_capability; /* its offset; 0: none yet */
    unsigned used;            /* where the next one can be */
    /* The host bridge's: what the interrupt pin leads to, once the function is plugged in. It is
     * called for changes only. */
    struct irq_line line;
    bool driven; /* the level of LINE */
};

/* Fills in the header's identity; CLASS is class, subclass and programming interface. */
void pci_function_init(struct pci_function *function, uint16_t vendor, uint16_t device,
                       uint32_t class, uint8_t revision);
/* Makes BAR number N of what BAR says. The guest may then enable its decoding and bus mastering. */
void pci_function_add_bar(struct pci_function *function, unsigned n, const struct pci_bar *bar);
/* Adds a capability of SIZE bytes, whose first two (identifier and link) are filled in here.
 * Returns its offset, or 0 if configuration space is full. */
unsigned pci_function_add_capability(struct pci_function *function, uint8_t id, unsigned size);

/* Gives the function an interrupt pin, INTA. Before it is plugged in. */
void pci_function_add_pin(struct pci_function *function);
/* Whether the device asks for an interrupt by its pin: a level, as on the wire. */
void pci_function_interrupt(struct pci_function *function, bool level);

/* To the state after power-on: what the guest can write is 0. The host bridge must be told
 * (pci_host_remap) after this and after pci_function_state. */
void pci_function_reset(struct pci_function *function);
void pci_function_state(struct pci_function *function, struct state *s);

/* What the guest's accesses do. OFFSET + SIZE lies in configuration space; SIZE is 1, 2 or 4. */
uint32_t pci_function_read(struct pci_function *function, unsigned offset, unsigned size);
void pci_function_write(struct pci_function *function, unsigned offset, unsigned size,
                        uint32_t value);

/* Little-endian fields of configuration space, without what a guest's access does beyond. */
uint32_t pci_config_get(const struct pci_function *function, unsigned offset, unsigned size);
void pci_config_set(struct pci_function *function, unsigned offset, unsigned size, uint32_t value);

/* Where BAR N would be decoded as the registers stand, or PCI_NOT_DECODED: the BAR does not exist,
 * its kind of decoding is not enabled, or it holds 0, which no operating system assigns. */
uint64_t pci_bar_address(const struct pci_function *function, unsigned n);
/* Whether a write of SIZE bytes at OFFSET can change that. */
bool pci_config_moves_bars(unsigned offset, unsigned size);
/* Whether the function may read and write memory, and so send messages. */
bool pci_bus_master(const struct pci_function *function);

#endif
