/*
 * Configuration space of a PCI function (PCI Local Bus Specification 3.0, chapter 6).
 */
#include "dev/pci/function.h"

#include "base/util.h"

#include <string.h>

#define STATUS_CAPABILITIES 0x0010u
#define FIRST_CAPABILITY    0x40

/* The low bits of a base address register (6.2.5.1), which say what it is. */
#define BAR_PORTS        0x1u
#define BAR_WIDE         0x4u
#define BAR_PREFETCHABLE 0x8u
#define BAR_PORTS_BITS   0x3u
#define BAR_MEMORY_BITS  0xFu

uint32_t pci_config_get(const struct pci_function *f, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    memcpy(&value, f->config + offset, size);
    return value;
}

void pci_config_set(struct pci_function *f, unsigned offset, unsigned size, uint32_t value)
{
    memcpy(f->config + offset, &value, size);
}

void pci_function_init(struct pci_function *f, uint16_t vendor, uint16_t device, uint32_t class,
                       uint8_t revision)
{
    memset(f, 0, sizeof(*f));
    pci_config_set(f, PCI_VENDOR, 2, vendor);
    pci_config_set(f, PCI_DEVICE, 2, device);
    pci_config_set(f, PCI_REVISION, 4, class << 8 | revision);
    f->used = FIRST_CAPABILITY;
    for (unsigned i = 0; i < PCI_BARS; i++)
        f->bar[i].base = PCI_NOT_DECODED;
}

static unsigned bar_offset(unsigned n)
{
    return PCI_BAR0 + 4 * n;
}

void pci_function_add_bar(struct pci_function *f, unsigned n, const struct pci_bar *bar)
{
    uint32_t kind = bar->ports
                        ? BAR_PORTS
                        : (bar->wide ? BAR_WIDE : 0) | (bar->prefetchable ? BAR_PREFETCHABLE : 0);
    uint64_t address = ~(bar->size - 1);
    uint16_t command = bar->ports ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

    f->bar[n] = *bar;
    f->bar[n].base = PCI_NOT_DECODED;
    pci_config_set(f, bar_offset(n), 4, kind);
    memcpy(f->writable + bar_offset(n), &address, bar->wide ? 8 : 4);
    f->writable[PCI_COMMAND] |= (uint8_t)(command | PCI_COMMAND_MASTER);
    f->writable[PCI_INTERRUPT_LINE] = 0xFF;
}

unsigned pci_function_add_capability(struct pci_function *f, uint8_t id, unsigned size)
{
    unsigned at = f->used, link = f->last_capability ? f->last_capability + 1 : PCI_CAPABILITIES;

    if (size > PCI_CONFIG_SIZE - at)
        return 0;
    f->config[at] = id;
    f->config[link] = (uint8_t)at;
    f->config[PCI_STATUS] |= STATUS_CAPABILITIES;
    f->last_capability = at;
    f->used = (unsigned)ALIGN_UP(at + size, 4);
    return at;
}

/* ---- The interrupt pin (6.2.4; PCI 2.3 has its bits in command and status) ---- */

void pci_function_add_pin(struct pci_function *f)
{
    f->config[PCI_INTERRUPT_PIN] = 1;
    f->writable[PCI_COMMAND + 1] |= PCI_COMMAND_NO_INT >> 8;
    f->writable[PCI_INTERRUPT_LINE] = 0xFF;
}

/* Drives the line as command and status say. */
static void drive_line(struct pci_function *f)
{
    bool level = (f->config[PCI_STATUS] & PCI_STATUS_INT) &&
                 !(pci_config_get(f, PCI_COMMAND, 2) & PCI_COMMAND_NO_INT);

    if (level == f->driven)
        return;
    f->driven = level;
    irq_set(&f->line, level);
}

void pci_function_interrupt(struct pci_function *f, bool level)
{
    f->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INT;
    f->config[PCI_STATUS] |= level ? PCI_STATUS_INT : 0;
    drive_line(f);
}

/* ---- Configuration space as a whole ---- */

void pci_function_reset(struct pci_function *f)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        f->config[i] &= (uint8_t)~f->writable[i];
    pci_function_interrupt(f, false);
}

void pci_function_state(struct pci_function *f, struct state *s)
{
    uint8_t config[PCI_CONFIG_SIZE];

    memcpy(config, f->config, sizeof(config));
    state_bytes(s, config, sizeof(config));
    /* Only what a guest could have changed: the rest is what this machine is. */
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        f->config[i] ^= (f->config[i] ^ config[i]) & f->writable[i];
    if (!state_saving(s))
        drive_line(f);
}

uint32_t pci_function_read(struct pci_function *f, unsigned offset, unsigned size)
{
    if (f->reading)
        f->reading(f, offset, size);
    return pci_config_get(f, offset, size);
}

void pci_function_write(struct pci_function *f, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t writable = f->writable[offset + i], byte = (uint8_t)(value >> 8 * i);

        f->config[offset + i] = (uint8_t)((f->config[offset + i] & ~writable) | (byte & writable));
    }
    if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND)
        drive_line(f);
    if (f->written)
        f->written(f, offset, size);
}

uint64_t pci_bar_address(const struct pci_function *f, unsigned n)
{
    const struct pci_bar *bar = &f->bar[n];
    uint32_t command = pci_config_get(f, PCI_COMMAND, 2);
    uint64_t address;

    if (!bar->size || !(command & (bar->ports ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return PCI_NOT_DECODED;
    address =
        pci_config_get(f, bar_offset(n), 4) & ~(bar->ports ? BAR_PORTS_BITS : BAR_MEMORY_BITS);
    if (bar->wide)
        address |= (uint64_t)pci_config_get(f, bar_offset(n + 1), 4) << 32;
    return address ? address : PCI_NOT_DECODED;
}

bool pci_config_moves_bars(unsigned offset, unsigned size)
{
    return (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND) ||
           (offset < bar_offset(PCI_BARS) && offset + size > PCI_BAR0);
}

bool pci_bus_master(const struct pci_function *f)
{
    return pci_config_get(f, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
}
