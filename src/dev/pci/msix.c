/*
 * MSI-X (PCI Local Bus Specification 3.0, 6.8.2).
 */
#include "dev/pci/msix.h"

#include <errno.h>
#include <string.h>

/* The capability (6.8.2.3 to 6.8.2.5). */
#define CAPABILITY_SIZE 12
#define CONTROL         2 /* offset of message control */
#define TABLE           4
#define PENDING         8
#define CONTROL_ENABLE  0x8000u
#define CONTROL_MASK    0x4000u

/* A table entry (6.8.2.6 to 6.8.2.9). */
enum { ENTRY_ADDRESS = 0, ENTRY_ADDRESS_HIGH = 4, ENTRY_DATA = 8, ENTRY_CONTROL = 12 };
#define ENTRY_MASKED 1u

int pci_msix_init(struct pci_msix *m, struct pci_function *f, unsigned count, unsigned bar,
                  uint32_t table, uint32_t pending, struct msi_sink sink, struct error *err)
{
    unsigned at;

    if (count < 1 || count > PCI_MSIX_MAX)
        return error_set(err, EINVAL, "MSI-X with %u vectors: must be 1 to %d", count,
                         PCI_MSIX_MAX);
    at = pci_function_add_capability(f, PCI_CAPABILITY_MSIX, CAPABILITY_SIZE);
    if (!at)
        return error_set(err, ENOSPC, "no room for the MSI-X capability");
    *m = (struct pci_msix){.function = f, .capability = at, .count = count, .sink = sink};
    pthread_mutex_init(&m->lock, NULL);
    pci_config_set(f, at + CONTROL, 2, count - 1);
    pci_config_set(f, at + TABLE, 4, table | bar);
    pci_config_set(f, at + PENDING, 4, pending | bar);
    f->writable[at + CONTROL + 1] = (CONTROL_ENABLE | CONTROL_MASK) >> 8;
    pci_msix_reset(m);
    return 0;
}

void pci_msix_free(struct pci_msix *m)
{
    pthread_mutex_destroy(&m->lock);
}

static uint32_t control(const struct pci_msix *m)
{
    return pci_config_get(m->function, m->capability + CONTROL, 2);
}

/* Sends what is pending and may be sent. Lock held. */
static void send_pending(struct pci_msix *m)
{
    if (!m->enabled || m->all_masked || !m->master)
        return;
    for (unsigned i = 0; m->pending && i < m->count; i++) {
        const struct pci_msix_entry *entry = &m->entry[i];

        if (!(m->pending >> i & 1) || entry->masked)
            continue;
        m->pending &= ~(UINT64_C(1) << i);
        m->sink.send(m->sink.opaque, entry->address, entry->data);
    }
}

/* Takes over what configuration space says. Lock held. */
static void look_at_config(struct pci_msix *m)
{
    m->enabled = control(m) & CONTROL_ENABLE;
    m->all_masked = control(m) & CONTROL_MASK;
    m->master = pci_bus_master(m->function);
    if (!m->enabled)
        m->pending = 0;
}

void pci_msix_configure(struct pci_msix *m)
{
    pthread_mutex_lock(&m->lock);
    look_at_config(m);
    send_pending(m);
    pthread_mutex_unlock(&m->lock);
}

void pci_msix_reset(struct pci_msix *m)
{
    pthread_mutex_lock(&m->lock);
    memset(m->entry, 0, sizeof(m->entry));
    for (unsigned i = 0; i < m->count; i++)
        m->entry[i].masked = true;
    m->pending = 0;
    look_at_config(m);
    pthread_mutex_unlock(&m->lock);
}

void pci_msix_state(struct pci_msix *m, struct state *s)
{
    uint64_t vectors = UINT64_MAX >> (64 - m->count);

    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->count; i++) {
        state_field(s, m->entry[i].address);
        state_field(s, m->entry[i].data);
        state_bool(s, &m->entry[i].masked);
        m->entry[i].address &= ~UINT64_C(3);
    }
    state_field(s, m->pending);
    m->pending &= vectors;
    if (!state_saving(s))
        look_at_config(m);
    pthread_mutex_unlock(&m->lock);
}

bool pci_msix_send(struct pci_msix *m, unsigned vector)
{
    bool enabled;

    pthread_mutex_lock(&m->lock);
    enabled = m->enabled;
    if (enabled && vector < m->count) {
        m->pending |= UINT64_C(1) << vector;
        send_pending(m);
    }
    pthread_mutex_unlock(&m->lock);
    return enabled;
}

bool pci_msix_enabled(struct pci_msix *m)
{
    bool enabled;

    pthread_mutex_lock(&m->lock);
    enabled = m->enabled;
    pthread_mutex_unlock(&m->lock);
    return enabled;
}

/* ---- Registers ---- */

uint32_t pci_msix_table_read(struct pci_msix *m, uint64_t offset, unsigned size)
{
    const struct pci_msix_entry *entry;
    uint32_t value = 0;

    if (size != 4 || offset % 4 || offset / PCI_MSIX_ENTRY_SIZE >= m->count)
        return 0;
    entry = &m->entry[offset / PCI_MSIX_ENTRY_SIZE];
    pthread_mutex_lock(&m->lock);
    switch (offset % PCI_MSIX_ENTRY_SIZE) {
    case ENTRY_ADDRESS: value = (uint32_t)entry->address; break;
    case ENTRY_ADDRESS_HIGH: value = (uint32_t)(entry->address >> 32); break;
    case ENTRY_DATA: value = entry->data; break;
    case ENTRY_CONTROL: value = entry->masked ? ENTRY_MASKED : 0; break;
    }
    pthread_mutex_unlock(&m->lock);
    return value;
}

void pci_msix_table_write(struct pci_msix *m, uint64_t offset, unsigned size, uint32_t value)
{
    struct pci_msix_entry *entry;

    if (size != 4 || offset % 4 || offset / PCI_MSIX_ENTRY_SIZE >= m->count)
        return;
    entry = &m->entry[offset / PCI_MSIX_ENTRY_SIZE];
    pthread_mutex_lock(&m->lock);
    switch (offset % PCI_MSIX_ENTRY_SIZE) {
    case ENTRY_ADDRESS: entry->address = (entry->address >> 32 << 32) | (value & ~3u); break;
    case ENTRY_ADDRESS_HIGH:
        entry->address = (uint32_t)entry->address | (uint64_t)value << 32;
        break;
    case ENTRY_DATA: entry->data = value; break;
    case ENTRY_CONTROL: entry->masked = value & ENTRY_MASKED; break;
    }
    send_pending(m);
    pthread_mutex_unlock(&m->lock);
}

uint32_t pci_msix_pending_read(struct pci_msix *m, uint64_t offset, unsigned size)
{
    uint64_t pending;

    if (size != 4 || offset % 4 || offset >= PCI_MSIX_PENDING_SIZE)
        return 0;
    pthread_mutex_lock(&m->lock);
    pending = m->pending;
    pthread_mutex_unlock(&m->lock);
    return (uint32_t)(pending >> 8 * offset);
}
