/*
 * A PC: which devices there are, at which addresses, and what their interrupt lines lead to.
 */
#include "vm/board.h"

#include "base/util.h"
#include "bus/dev.h"
#include "bus/irq.h"
#include "dev/pc/debug_console.h"
#include "dev/pc/debug_exit.h"
#include "dev/pc/i8042.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/lapic.h"
#include "dev/pc/pic.h"
#include "dev/pc/pit.h"
#include "dev/pc/pm.h"
#include "dev/pc/port92.h"
#include "dev/pc/rtc.h"
#include "dev/pc/test_device.h"
#include "dev/pci/host.h"
#include "dev/vhost/block.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/rng.h"
#include "vm/console_ports.h"
#include "vm/description.h"
#include "vm/disk.h"
#include "vm/nic.h"
#include "vm/vsock.h"
#include "vm/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIC_ELCR_PORT 0x4D0

_Static_assert(LAPIC_BOARD_PINS == IOAPIC_PINS, "local APICs are told of each");

#define BOARD_ISA_LINES 16

const struct board_serial board_serial[BOARD_SERIAL_PORTS] = {
    {0x3F8, 4}, {0x2F8, 3}, {0x3E8, 10}, {0x2E8, 11}};

struct board {
    struct bus *bus;
    struct board_events events;

    /* In the order of creation, which is the order of reset and of state, too. */
    struct dev *devices[BOARD_MAX_DEVICES];
    unsigned count;

    struct mem *mem;
    unsigned cpus;
    struct lapic_set *lapics; /* the board's own, which an engine's may stand in for */
    struct local_apics apics; /* those of the processors; changes with the board lock held */
    struct pic *pic;
    struct ioapic *ioapic;
    struct pm *pm;
    struct pci_host *pci;
    uint16_t isa_levels, pci_levels; /* of the ISA interrupts: their own, and what PCI adds */
    struct uart *uarts[BOARD_SERIAL_PORTS];
    struct dev *debug_console;
    struct con_end *tty; /* the port of CONSOLE that the machine's maker stands behind */
    struct dev *console;
    struct blk_host blk_host;
    struct virtio_block *disks[PCI_DEVICES]; /* NULL: one that another process serves, which is */
    struct dev *foreign_disks[PCI_DEVICES];  /* here */
    unsigned disk_count;
    struct shared_folder shares[PCI_DEVICES];
    unsigned share_count;
    struct net_host net_host;
    char *name;                           /* the VM's, or NULL */
    struct virtio_net *nics[PCI_DEVICES]; /* as for disks */
    struct dev *foreign_nics[PCI_DEVICES];
    unsigned nic_count;
    struct timer *button; /* somebody has pressed the power button */
};

/* ---- What the lines lead to ---- */

/* An input of the 8259s is active if its ISA interrupt is, or one of the PCI bus that leads there.
 */
static void drive_pic(struct board *b, unsigned n)
{
    struct irq_line pic = pic_pin(b->pic, n);

    irq_set(&pic, (b->isa_levels | b->pci_levels) >> n & 1);
}

static void set_level(uint16_t *levels, unsigned n, bool level)
{
    *levels = (uint16_t)((*levels & ~(1u << n)) | (unsigned)level << n);
}

/* An ISA interrupt reaches both the 8259s and the I/O APIC; the guest masks one of them. */
static void isa_irq(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;
    struct irq_line ioapic = ioapic_pin(b->ioapic, n == 0 ? BOARD_TIMER_GSI : n);

    set_level(&b->isa_levels, n, level);
    drive_pic(b, n);
    irq_set(&ioapic, level);
}

/* PIRQA to PIRQD have pins of their own at the I/O APIC, and lead to the 8259s by ISA interrupts.
 */
static void pirq(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;
    struct irq_line ioapic = ioapic_pin(b->ioapic, BOARD_PIRQ_GSI + n);

    irq_set(&ioapic, level);
}

static void pirq_isa(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    set_level(&b->pci_levels, n, level);
    drive_pic(b, n);
}

/* Line N of the board: the ISA interrupts, then the I/O APIC's other pins. */
static void board_irq(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;
    struct irq_line pin = ioapic_pin(b->ioapic, n);

    if (n < BOARD_ISA_LINES)
        isa_irq(b, n, level);
    else
        irq_set(&pin, level);
}

static struct irq_line isa_line(struct board *b, unsigned n)
{
    return (struct irq_line){.set = isa_irq, .opaque = b, .n = n};
}

static void reset_asserted(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    if (level)
        b->events.reset(b->events.opaque);
}

static void poweroff_asserted(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    if (level)
        b->events.poweroff(b->events.opaque);
}

static void rtc_alarm(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    if (level)
        pm_rtc_alarm(b->pm);
}

static void lapic_eoi(void *opaque, unsigned vector)
{
    struct board *b = opaque;

    bus_lock(b->bus);
    ioapic_eoi(b->ioapic, vector);
    bus_unlock(b->bus);
}

static unsigned lapic_acknowledge(void *opaque)
{
    struct board *b = opaque;
    unsigned vector;

    bus_lock(b->bus);
    vector = pic_acknowledge(b->pic);
    bus_unlock(b->bus);
    return vector;
}

struct lapic_board board_of_local_apics(struct board *b)
{
    return (struct lapic_board){.eoi = lapic_eoi, .acknowledge = lapic_acknowledge, .opaque = b};
}

/* What leads to the processors goes to the local APICs that they have at the moment. */

static void send_message(void *opaque, uint64_t address, uint32_t data)
{
    const struct board *b = opaque;

    b->apics.msi.send(b->apics.msi.opaque, address, data);
}

static struct msi_sink local_apics_msi(struct board *b)
{
    return (struct msi_sink){.send = send_message, .opaque = b};
}

static void drive_lint(void *opaque, unsigned n, bool level)
{
    const struct board *b = opaque;

    irq_set(&b->apics.lint, level);
}

/* On the clock's thread. */
static void button_pressed(void *opaque)
{
    struct board *b = opaque;

    pm_power_button(b->pm);
}

/* ---- Assembly ---- */

/* Takes a device into the board. False: it could not be created (DEV is NULL, and ERR says why), or
 * the board is full. */
static bool add(struct board *b, struct dev *dev, struct error *err)
{
    if (!dev)
        return false;
    if (b->count == BOARD_MAX_DEVICES) {
        dev->ops->free(dev);
        error_set(err, ENOSPC, "too many devices: a board takes %d", BOARD_MAX_DEVICES);
        return false;
    }
    b->devices[b->count++] = dev;
    return true;
}

/* The devices that can be described, and their settings. */
enum kind {
    TEST_DEVICE,
    BALLOON,
    CONSOLE,
    DEBUG_EXIT,
    DEBUG_CONSOLE,
    DISK,

    NET,
    RNG,
    VSOCK,
    SHARE,

    KINDS
};
static const struct {
    const char *name;
    const char *keys[4];
} kinds[KINDS] = {
    [TEST_DEVICE] = {"test-device", {NULL}},
    [BALLOON] = {"balloon", {"slot", "inflate", NULL}},
    [CONSOLE] = {"console", {NULL}}, /* console_ports_create looks at its settings */
    [DEBUG_EXIT] = {"debug-exit", {NULL}},
    [DEBUG_CONSOLE] = {"debug-console", {NULL}},
    [DISK] = {"disk", {NULL}}, /* disk_create looks at its settings */
    [NET] = {"net", {NULL}},   /* and nic_create */
    [RNG] = {"rng", {"slot", NULL}},
    [VSOCK] = {"vsock", {"slot", "socket", "cid", NULL}},
    [SHARE] = {"share", {NULL}}, /* share_create looks at its settings */
};
#define KNOWN                                                                                      \
    "balloon, console, debug-console, debug-exit, disk, net, rng, share, test-device, vsock"

/* Says that TEXT asks for SLOT, which is taken, and which slots are free, as in "2-8 10-31". */
static int refuse_slot(const struct pci_host *pci, const char *text, unsigned slot,
                       struct error *err)
{
    char free[128] = "";
    size_t length = 0;

    for (unsigned first = 0; first < PCI_DEVICES; first++) {
        unsigned last = first;

        if (!pci_host_is_free(pci, first))
            continue;
        while (pci_host_is_free(pci, last + 1))
            last++;
        length += (size_t)snprintf(free + length, sizeof(free) - length, " %u", first);
        if (last > first)
            length += (size_t)snprintf(free + length, sizeof(free) - length, "-%u", last);
        first = last;
    }
    return error_set(err, EBUSY, "device %s: PCI slot %u is taken (free:%s)", text, slot, free);
}

/* Finds where TEXT, which may say so itself, wants to be plugged into the PCI bus. */
static int find_slot(struct board *b, const struct board_config *c, const char *text,
                     struct virtio_slot *slot, struct error *err)
{
    *slot = (struct virtio_slot){
        .pci = b->pci,
        .number = pci_host_free_device(b->pci),
        .bus = b->bus,
        .mem = b->mem,
        .loop = c->loop,
        .workers = c->workers,
        .msi = local_apics_msi(b),
    };
    if (slot->number == PCI_DEVICES)
        return error_set(err, ENOSPC, "device %s: all %d PCI slots are taken", text,
                         BOARD_PCI_SLOTS);
    if (description_number(text, "slot", 0, PCI_DEVICES - 1, &slot->number, err) < 0)
        return -err->code;
    if (!pci_host_is_free(b->pci, slot->number))
        return refuse_slot(b->pci, text, slot->number, err);
    return 0;
}

static struct dev *create_rng(struct board *b, const struct board_config *c, const char *text,
                              struct error *err)
{
    struct virtio_slot slot;

    return find_slot(b, c, text, &slot, err) < 0 ? NULL : virtio_rng_create(&slot, err);
}

static struct dev *create_vsock(struct board *b, const struct board_config *c, const char *text,
                                struct error *err)
{
    struct virtio_slot slot;

    return find_slot(b, c, text, &slot, err) < 0 ? NULL
                                                 : vsock_create(&slot, text, b->net_host.log, err);
}

static struct dev *create_disk(struct board *b, const struct board_config *c, const char *text,
                               struct error *err)
{
    struct virtio_slot slot;
    struct virtio_block *disk;
    struct dev *dev;

    if (find_slot(b, c, text, &slot, err) < 0)
        return NULL;
    dev = disk_create(&slot, text, c, &b->blk_host, &disk, err);
    if (dev) {
        b->foreign_disks[b->disk_count] = disk ? NULL : dev;
        b->disks[b->disk_count++] = disk;
    }
    return dev;
}

static struct dev *create_share(struct board *b, const struct board_config *c, const char *text,
                                struct error *err)
{
    struct shared_folder *folder = &b->shares[b->share_count];
    struct virtio_slot slot;

    if (find_slot(b, c, text, &slot, err) < 0 || !share_create(&slot, text, c, folder, err))
        return NULL;
    for (unsigned i = 0; i < b->share_count; i++) {
        if (strcmp(b->shares[i].tag, folder->tag) != 0)
            continue;
        error_set(err, EEXIST, "device %s: there is a shared folder with the tag '%s' already",
                  text, folder->tag);
        folder->dev->ops->free(folder->dev);
        return NULL;
    }
    b->share_count++;
    return folder->dev;
}

static struct dev *create_nic(struct board *b, const struct board_config *c, const char *text,
                              struct error *err)
{
    struct virtio_slot slot;
    struct virtio_net *nic;
    struct dev *dev;

    if (find_slot(b, c, text, &slot, err) < 0)
        return NULL;
    dev = nic_create(&slot, text, &b->net_host, &nic, err);
    if (dev) {
        b->foreign_nics[b->nic_count] = nic ? NULL : dev;
        b->nics[b->nic_count++] = nic;
    }
    return dev;
}

static struct dev *create_balloon(struct board *b, const struct board_config *c, const char *text,
                                  struct error *err)
{
    struct virtio_balloon_config config = {.post = mem_change_post};
    unsigned most = (unsigned)(mem_ram_size(b->mem) / MiB), mib = 0;
    struct virtio_slot slot;

    if (find_slot(b, c, text, &slot, err) < 0 ||
        description_number(text, "inflate", 0, most, &mib, err) < 0)
        return NULL;
    config.target = mib * MiB;
    return virtio_balloon_create(&slot, &config, err);
}

static struct dev *create_console(struct board *b, const struct board_config *c, const char *text,
                                  struct error *err)
{
    const struct con_end *before = b->tty;
    struct virtio_slot slot;
    struct dev *dev;

    if (find_slot(b, c, text, &slot, err) < 0)
        return NULL;
    dev = console_ports_create(&slot, text, &c->devices->console, &b->tty, err);
    if (b->tty != before)
        b->console = dev;
    return dev;
}

/* Creates the device that TEXT describes. */
static struct dev *create_described(struct board *b, struct clock *clock,
                                    const struct board_config *c, const char *text,
                                    struct error *err)
{
    unsigned kind = 0;

    while (kind < KINDS && !description_is(text, kinds[kind].name))
        kind++;
    if (kind == KINDS)
        error_set(err, EINVAL, "unknown device '%s' (known: " KNOWN ")", text);
    if (kind == KINDS || (kind != DISK && kind != NET && kind != CONSOLE && kind != SHARE &&
                          description_check(text, kinds[kind].keys, err) < 0))
        return NULL;
    switch ((enum kind)kind) {
    case TEST_DEVICE: return test_device_create(b->bus, board_irq, b, err);
    case BALLOON: return create_balloon(b, c, text, err);
    case CONSOLE: return create_console(b, c, text, err);
    case DEBUG_EXIT: return debug_exit_create(b->bus, c->events.debug_exit, c->events.opaque, err);
    case DEBUG_CONSOLE:
        b->debug_console = debug_console_create(b->bus, clock, &c->devices->debug_output, err);
        return b->debug_console;
    case DISK: return create_disk(b, c, text, err);
    case NET: return create_nic(b, c, text, err);
    case RNG: return create_rng(b, c, text, err);
    case VSOCK: return create_vsock(b, c, text, err);
    case SHARE: return create_share(b, c, text, err);
    case KINDS: break;
    }
    return NULL;
}

static bool add_lapics(struct board *b, struct clock *clock, const struct board_config *c,
                       struct error *err)
{
    const struct lapic_board outside = board_of_local_apics(b);

    b->lapics = lapic_set_create(clock, c->ports, c->cpus, c->physical_bits, &outside, err);
    if (!b->lapics || !add(b, lapic_set_dev(b->lapics), err))
        return false;
    b->apics = lapic_set_apics(b->lapics);
    return true;
}

/* All devices, in order: the chips of a PC, and then what is described. */
static bool assemble(struct board *b, struct clock *clock, struct mem *mem,
                     const struct board_config *c, struct error *err)
{
    struct bus *bus = b->bus;
    struct irq_line reset = {.set = reset_asserted, .opaque = b};
    struct irq_line poweroff = {.set = poweroff_asserted, .opaque = b};
    struct irq_line alarm = {.set = rtc_alarm, .opaque = b};
    const struct pci_host_config pci = {.reset = reset,
                                        .pirq = {.set = pirq, .opaque = b},
                                        .isa = {.set = pirq_isa, .opaque = b},
                                        .high =
                                            pci_high_window(mem_high_end(mem), c->physical_bits)};

    /* Interrupt controllers, from the processors outwards. */
    if (!add_lapics(b, clock, c, err))
        return false;
    b->ioapic = ioapic_create(bus, IOAPIC_BASE, BOARD_IOAPIC_ID, local_apics_msi(b), err);
    if (!b->ioapic || !add(b, ioapic_dev(b->ioapic), err))
        return false;
    b->pic = pic_create(bus, (struct irq_line){.set = drive_lint, .opaque = b}, err);
    if (!b->pic || !add(b, pic_dev(b->pic), err))
        return false;

    /* Time. The RTC comes before power management, so that what is restored of PM1 status is not
     * changed by an alarm that the restored RTC signals again. */
    if (!add(b, pit_create(bus, clock, isa_line(b, 0), err), err) ||
        !add(b,
             rtc_create(bus, clock, isa_line(b, 8), alarm, mem_low_end(mem),
                        mem_high_end(mem) - MEM_HOLE_END, err),
             err))
        return false;

    /* Power and reset. */
    b->pm = pm_create(bus, clock, isa_line(b, PM_SCI), poweroff, err);
    if (!b->pm || !add(b, pm_dev(b->pm), err))
        return false;
    if (!add(b, port92_create(bus, reset, err), err) ||
        !add(b, i8042_create(bus, isa_line(b, 1), isa_line(b, 12), reset, err), err))
        return false;

    b->pci = pci_host_create(bus, &pci, err);
    if (!b->pci || !add(b, pci_host_dev(b->pci), err))
        return false;

    for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++) {
        const struct board_serial *com = &board_serial[i];

        b->uarts[i] =
            uart_create(bus, clock, com->port, isa_line(b, com->irq), &c->devices->serial[i], err);
        if (!b->uarts[i] || !add(b, uart_dev(b->uarts[i]), err))
            return false;
    }

    for (const char *const *text = c->devices->list; text && *text; text++)
        if (!add(b, create_described(b, clock, c, *text, err), err))
            return false;
    return true;
}

struct board *board_create(struct bus *bus, struct clock *clock, struct mem *mem,
                           const struct board_config *config, struct error *err)
{
    struct board *b = calloc(1, sizeof(*b));

    if (!b) {
        error_set(err, ENOMEM, "no memory for the board");
        return NULL;
    }
    b->bus = bus;
    b->mem = mem;
    b->cpus = config->cpus;
    b->events = config->events;
    b->blk_host = (struct blk_host){.log = config->log,
                                    .isolate = config->devices->isolate,
                                    .isolate_opaque = config->devices->isolate_opaque};
    b->name = config->devices->name ? strdup(config->devices->name) : NULL;
    b->net_host = (struct net_host){.loop = config->loop,
                                    .log = config->log,
                                    .name = b->name,
                                    .remote = config->devices->remote,
                                    .remote_opaque = config->devices->remote_opaque};
    b->button = timer_create_on(clock, button_pressed, b);
    if (!b->button || (config->devices->name && !b->name)) {
        error_set(err, ENOMEM, "no memory for the board");
        board_destroy(b);
        return NULL;
    }
    if (!assemble(b, clock, mem, config, err)) {
        board_destroy(b);
        return NULL;
    }
    return b;
}

void board_destroy(struct board *b)
{
    if (!b)
        return;
    timer_free(b->button);
    while (b->count-- > 0)
        b->devices[b->count]->ops->free(b->devices[b->count]);
    free(b->name);
    free(b);
}

/* The ISA interrupts that are level-triggered: the SCI, and those that firmware gives to PCI. */
static uint16_t level_triggered(void)
{
    uint16_t irqs = 1u << PM_SCI;

    for (unsigned n = 0; n < PCI_PIRQS; n++)
        irqs |= (uint16_t)(1u << PCI_FIRMWARE_ISA(n));
    return irqs;
}

void board_reset(struct board *b)
{
    bus_lock(b->bus);
    for (unsigned i = 0; i < b->count; i++)
        b->devices[i]->ops->reset(b->devices[i]);
    pci_host_firmware_setup(b->pci);
    bus_unlock(b->bus);
    b->apics.firmware_setup(b->apics.opaque);
    /* At the 8259s, too. */
    for (unsigned i = 0; i < 2; i++)
        bus_write(b->bus, BUS_PORT, PIC_ELCR_PORT + i, 1, level_triggered() >> 8 * i & 0xFF);
}

void board_state(struct board *b, struct state *s)
{
    bool pressed = timer_deadline(b->button) != UINT64_MAX;

    uint32_t version = state_section(s, "board", 0, 2);

    state_bool(s, &pressed);
    if (version >= 2)
        state_field(s, b->isa_levels);
    if (!state_saving(s) && pressed)
        timer_arm(b->button, 0);
    bus_lock(b->bus);
    for (unsigned i = 0; i < b->count && !state_error(s); i++) {
        if (b->devices[i] == lapic_set_dev(b->lapics))
            local_apics_state(&b->apics, b->cpus, s);
        else
            b->devices[i]->ops->state(b->devices[i], s);
    }
    bus_unlock(b->bus);
}

void board_plug_local_apics(struct board *b, bool own)
{
    lapic_set_plug(b->lapics, own);
}

void board_set_local_apics(struct board *b, const struct local_apics *apics)
{
    const struct local_apics next = apics ? *apics : lapic_set_apics(b->lapics);
    struct lapic_state state;

    bus_lock(b->bus);
    for (unsigned i = 0; i < b->cpus; i++) {
        b->apics.state_out(b->apics.opaque, i, &state);
        next.state_in(next.opaque, i, &state);
    }
    b->apics = next;
    ioapic_watch(b->ioapic, next.expect, next.opaque);
    if (apics) /* the board's own have nothing to do any more */
        lapic_set_dev(b->lapics)->ops->reset(lapic_set_dev(b->lapics));
    bus_unlock(b->bus);
}

void board_pause(struct board *b)
{
    for (unsigned i = 0; i < b->count; i++)
        if (b->devices[i]->ops->pause)
            b->devices[i]->ops->pause(b->devices[i]);
}

void board_resume(struct board *b)
{
    for (unsigned i = 0; i < b->count; i++)
        if (b->devices[i]->ops->resume)
            b->devices[i]->ops->resume(b->devices[i]);
}

void board_retry(struct board *b)
{
    for (unsigned i = 0; i < b->disk_count; i++)
        if (b->disks[i])
            virtio_block_retry(b->disks[i]);
}

int board_resize_disk(struct board *b, unsigned disk, uint64_t size, struct error *err)
{
    if (disk >= b->disk_count)
        return error_set(err, ENODEV, "there is no disk %u: the machine has %u", disk,
                         b->disk_count);
    if (!b->disks[disk])
        return error_set(err, ENOTSUP, "disk %u: only the process that serves it can resize it",
                         disk);
    return virtio_block_resize(b->disks[disk], size, err);
}

struct where *board_disk_where(struct board *b, unsigned disk, unsigned n)
{
    if (disk >= b->disk_count)
        return NULL;
    if (b->disks[disk])
        return virtio_block_where(b->disks[disk], n);
    return n == 0 ? vhost_device_where(b->foreign_disks[disk]) : NULL;
}

struct where *board_share_where(struct board *b, unsigned share, unsigned n)
{
    const struct shared_folder *folder = &b->shares[share];

    if (share >= b->share_count)
        return NULL;
    if (folder->fs)
        return virtio_fs_where(folder->fs, n);
    return n == 0 ? vhost_device_where(folder->dev) : NULL;
}

/* The network behind card NIC; NULL: there is no such card, or another process serves it. */
static struct net *network(struct board *b, unsigned nic)
{
    return nic < b->nic_count && b->nics[nic] ? virtio_net_backend(b->nics[nic]) : NULL;
}

int board_change_network(struct board *b, unsigned nic, const char *settings, struct error *err)
{
    struct net *net = network(b, nic);

    if (!net && nic < b->nic_count)
        return error_set(err, ENOTSUP,
                         "network card %u: only the process that serves it can change it", nic);
    return net ? net_change(net, settings, err)
               : error_set(err, ENODEV, "there is no network card %u: the machine has %u", nic,
                           b->nic_count);
}

unsigned board_forward_port(struct board *b, unsigned nic, unsigned n)
{
    struct net *net = network(b, nic);

    return net ? net_forward_port(net, n) : 0;
}

struct where *board_network_where(struct board *b, unsigned nic, unsigned n)
{
    struct net *net = network(b, nic);

    if (net)
        return net_where(net, n);
    return nic < b->nic_count && n == 0 ? vhost_device_where(b->foreign_nics[nic]) : NULL;
}

void board_flush(struct board *b)
{
    bus_lock(b->bus);
    for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
        uart_flush(b->uarts[i]);
    if (b->debug_console)
        debug_console_flush(b->debug_console);
    bus_unlock(b->bus);
}

bool board_output_full(const struct board *b)
{
    for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
        if (uart_full(b->uarts[i]))
            return true;
    return b->debug_console && debug_console_full(b->debug_console);
}

void board_power_button(struct board *b)
{
    /* Who presses it may be the one who drains what a device has sent: it waits for no device. */
    timer_arm(b->button, 0);
}

size_t board_serial_input(struct board *b, unsigned port, const void *data, size_t size)
{
    return port < BOARD_SERIAL_PORTS ? uart_input(b->uarts[port], data, size) : 0;
}

size_t board_console_input(struct board *b, const void *data, size_t size)
{
    return b->tty ? con_end_input(b->tty, data, size) : 0;
}

void board_console_room(struct board *b)
{
    if (b->tty)
        con_end_room(b->tty);
}

void board_console_resize(struct board *b, unsigned rows, unsigned columns)
{
    if (b->console)
        virtio_console_resize(b->console, rows, columns);
}
