/*
 * A virtio device as a PCI function (virtio 1.2, 4.1): what the driver finds in configuration space
 * and in the one BAR, and MSI-X.
 *
 *      BAR 0, 64-bit, a page each:
 *      0000h common configuration   1000h ISR status      2000h device configuration
 *      3000h notifications          4000h MSI-X table     5000h MSI-X pending bits
 *
 * The function signals by MSI-X, or by its pin (INTA) as long as the driver has not enabled that.
 */
#ifndef DOPPEL_DEV_VIRTIO_PCI_H
#define DOPPEL_DEV_VIRTIO_PCI_H

#include "base/error.h"
#include "bus/dev.h"
#include "bus/irq.h"
#include "dev/pci/host.h"
#include "dev/virtio/device.h"

/* Where a device is plugged in, and what of the machine it uses. */
struct virtio_slot {
    struct pci_host *pci;
    unsigned number; /* PCI device number */
    struct bus *bus;
    struct mem *mem;
    struct loop *loop;
    struct workers *workers;
    struct msi_sink msi;
    /* Another transport than PCI, which is then called in place of virtio_pci_create; or NULL. */
    struct dev *(*plug_in)(void *transport, const struct virtio_ops *ops,
                           struct virtio_device *device, struct error *err);
    void *transport;
};

/* Plugs in DEVICE, whose kind OPS says; OPS stays the caller's. The device then belongs to what is
 * returned and is freed with it, by ops->free. On failure it stays the caller's. */
struct dev *virtio_pci_create(const struct virtio_slot *slot, const struct virtio_ops *ops,
                              struct virtio_device *device, struct error *err);
/* The device that is plugged in as DEV, which virtio_pci_create has returned. */
struct virtio_device *virtio_pci_device(struct dev *dev);

#endif
