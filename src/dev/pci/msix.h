/*
 * MSI-X (PCI Local Bus Specification 3.0, 6.8.2): a function's table of messages, of which each
 * vector sends one, and the bits of those that could not be sent yet.
 *
 * A vector may be sent from any thread, with or without the board lock. The table has a lock of its
 * own, taken after the board lock; it is held while the message is sent, so that no message comes
 * after the guest's access that masks its vector has returned.
 */
#ifndef DOPPEL_DEV_PCI_MSIX_H
#define DOPPEL_DEV_PCI_MSIX_H

#include "base/error.h"
#include "bus/irq.h"
#include "dev/pci/function.h"

#include <pthread.h>

#define PCI_MSIX_MAX 64 /* vectors of one function: their pending bits are one word */

#define PCI_MSIX_ENTRY_SIZE   16
#define PCI_MSIX_PENDING_SIZE 8

struct pci_msix_entry {
    uint64_t address;
    uint32_t data;
    bool masked;
};

struct pci_msix {
    struct pci_function *function;
    unsigned capability; /* its offset */
    unsigned count;
    struct msi_sink sink;

    pthread_mutex_t lock; /* guards the rest */
    struct pci_msix_entry entry[PCI_MSIX_MAX];
    uint64_t pending;
    bool enabled, all_masked; /* as the capability says */
    bool master;              /* the function may send messages */
};

/* Gives FUNCTION the capability with COUNT vectors. The device has the registers of table and
 * pending bits in BAR number BAR at the offsets given (multiples of 8) and calls the functions
 * below for accesses there. */
int pci_msix_init(struct pci_msix *msix, struct pci_function *function, unsigned count,
                  unsigned bar, uint32_t table, uint32_t pending, struct msi_sink sink,
                  struct error *err);
void pci_msix_free(struct pci_msix *msix);
void pci_msix_reset(struct pci_msix *msix);
void pci_msix_state(struct pci_msix *msix, struct state *s); /* after pci_function_state */

/* Sends VECTOR's message, or notes it while it is masked or the function is not a bus master. A
 * vector that does not exist is ignored. Returns false if MSI-X is not enabled: then the function
 * signals by its interrupt line. Any thread. */
bool pci_msix_send(struct pci_msix *msix, unsigned vector);

/* Whether the function signals by messages. Any thread. */
bool pci_msix_enabled(struct pci_msix *msix);

/* After a write to configuration space: looks whether it enabled or masked anything. */
void pci_msix_configure(struct pci_msix *msix);

/* Accesses of 4 aligned bytes; all other accesses read as 0 and change nothing. */
uint32_t pci_msix_table_read(struct pci_msix *msix, uint64_t offset, unsigned size);
void pci_msix_table_write(struct pci_msix *msix, uint64_t offset, unsigned size, uint32_t value);
uint32_t pci_msix_pending_read(struct pci_msix *msix, uint64_t offset, unsigned size);

#endif
