/*
 * The PCI host bridge: configuration mechanism #1, bus 0, what its functions decode, and the reset
 * control register.
 */
#ifndef DOPPEL_DEV_PCI_HOST_H
#define DOPPEL_DEV_PCI_HOST_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"
#include "dev/pci/function.h"

#include <stdint.h>

#define PCI_DEVICES   32
#define PCI_FUNCTIONS 8

/* The windows through which the bus decodes addresses, for the tables that describe it. */
#define PCI_MMIO_START 0xC0000000u
#define PCI_MMIO_END   0xFEC00000u

struct pci_host;

/* RESET is the machine's reset line. */
struct pci_host *pci_host_create(struct bus *bus, struct irq_line reset, struct error *err);
struct dev *pci_host_dev(struct pci_host *host);

/* The lowest device number that is free, or PCI_DEVICES when none is. */
unsigned pci_host_free_device(const struct pci_host *host);
/* Whether a function can be attached there: DEVICE is below PCI_DEVICES, and has none. */
bool pci_host_is_free(const struct pci_host *host, unsigned device);
/* Puts FUNCTION (which stays the caller's) on the bus; -EBUSY when the place is taken. */
int pci_attach(struct pci_host *host, unsigned device, unsigned number,
               struct pci_function *function, struct error *err);
/* Takes it off the bus, and with it all that its BARs decode. */
void pci_detach(struct pci_host *host, unsigned device, unsigned number);

/* Claims on the bus what the functions decode as their registers stand, and releases the rest. What
 * a guest programs may overlap. Then the function with the lower number has the addresses, and a
 * device that is not on the PCI bus has them before any of its functions: the other BAR is not
 * decoded at all until it is moved. So what is decoded depends on the registers alone. */
void pci_host_remap(struct pci_host *host);

/* What firmware leaves behind, for after each reset: each BAR for memory has an address of its own
 * in the window above and is decoded. */
void pci_host_firmware_setup(struct pci_host *host);

#endif
