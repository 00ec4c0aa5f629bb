/*
 * The PCI host bridge: configuration mechanism #1, bus 0, and the reset control register.
 */
#ifndef DOPPEL_DEV_PCI_HOST_H
#define DOPPEL_DEV_PCI_HOST_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"

#include <stdint.h>

#define PCI_CONFIG_SIZE 256
#define PCI_DEVICES     32
#define PCI_FUNCTIONS   8

/* The windows through which the bus decodes addresses, for the tables that describe it. */
#define PCI_MMIO_START 0xC0000000u
#define PCI_MMIO_END   0xFEC00000u

/* One function of a PCI device: its configuration space, which it embeds and fills in. Reads come
 * from CONFIG; a write changes the bits set in WRITABLE and then calls WRITTEN (if not NULL) with
 * the bytes that were written, board lock held. */
struct pci_function {
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE];
    void (*written)(struct pci_function *function, unsigned offset, unsigned size);
};

/* Fills in the header's identity; CLASS is class, subclass and programming interface. */
void pci_function_init(struct pci_function *function, uint16_t vendor, uint16_t device,
                       uint32_t class, uint8_t revision);
void pci_function_state(struct pci_function *function, struct state *s);

struct pci_host;

/* RESET is the machine's reset line. */
struct pci_host *pci_host_create(struct bus *bus, struct irq_line reset, struct error *err);
struct dev *pci_host_dev(struct pci_host *host);

/* Puts FUNCTION (which stays the caller's) on the bus; -EBUSY when the place is taken. */
int pci_attach(struct pci_host *host, unsigned device, unsigned number,
               struct pci_function *function, struct error *err);
void pci_detach(struct pci_host *host, unsigned device, unsigned number);

#endif
