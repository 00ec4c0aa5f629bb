/*
 * The PCI host bridge: configuration mechanism #1, bus 0, what its functions decode, where their
 * interrupt pins lead, and the reset control register.
 *
 *      pin of a function --> PIRQA to PIRQD --+--> the I/O APIC, a pin for each
 *      (device + pin) mod 4                   '--> an ISA interrupt of the 8259s, if the routing
 *                                                  registers of the ISA bridge say so
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

#define PCI_PINS 4 /* of a device: INTA to INTD */
/* Interrupts of the bus, PIRQA to PIRQD. */
#define PCI_PIRQS 4
/* The one that pin PIN (0: INTA) of a DEVICE leads to. */
#define PCI_PIRQ(DEVICE, PIN) (((DEVICE) + (PIN)) % PCI_PIRQS)
/* The ISA interrupt that firmware routes PIRQ number N to, for kernels without an I/O APIC. */
#define PCI_FIRMWARE_ISA(N) ((N) % 2 ? 7u : 5u)

/* A range of addresses above 4 GiB; empty if START is END. */
struct pci_window {
    uint64_t start, end;
};
/* The window above RAM, which ends at RAM_END, in PHYSICAL_BITS bits of address: the last quarter
 * of the addresses, or as much of it as RAM leaves. */
struct pci_window pci_high_window(uint64_t ram_end, unsigned physical_bits);

struct pci_host_config {
    struct irq_line reset; /* the machine's */
    /* Where interrupts lead; N counts from that of the line: PIRQA to PIRQD, and ISA interrupts 0
     * to
     * 15. Called for changes only. */
    struct irq_line pirq, isa;
    struct pci_window high;
};

struct pci_host;

struct pci_host *pci_host_create(struct bus *bus, const struct pci_host_config *config,
                                 struct error *err);
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
 * a guest programs may overlap. Then the function with the lower number has the addresses that both
 * decode, and a device that is not on the PCI bus has them before any of its functions; the other
 * BAR has the rest of its own. So what is decoded depends on the registers alone. */
void pci_host_remap(struct pci_host *host);

/* What firmware leaves behind, for after each reset: each BAR for memory has an address of its own
 * in the windows and is decoded (above 4 GiB only what has no room below), and interrupts are
 * routed to PCI_FIRMWARE_ISA. */
void pci_host_firmware_setup(struct pci_host *host);

#endif
