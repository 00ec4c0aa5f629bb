/*
 * The board: the set of devices of one machine, a PC.
 */
#ifndef DOPPEL_VM_BOARD_H
#define DOPPEL_VM_BOARD_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/state.h"
#include "base/workers.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/cpu_port.h"
#include "bus/local_apic.h"
#include "con/end.h"
#include "dev/pc/uart.h"
#include "mem/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOARD_LAPIC_ADDRESS 0xFEE00000u
#define BOARD_IOAPIC_ID     0
#define BOARD_TIMER_GSI     2  /* the I/O APIC's pin for ISA interrupt 0 */
#define BOARD_PIRQ_GSI      16 /* its pin for PIRQA; the others follow */
#define BOARD_SERIAL_PORTS  4
#define BOARD_PCI_SLOTS     30 /* for devices: two are the chipset's */
#define BOARD_MAX_DEVICES   64 /* more than there are slots, ports and parts of the chipset */

/* COM1 to COM4. Each has a line of its own, unlike on the first PCs. */
struct board_serial {
    uint16_t port;
    uint8_t irq;
};
extern const struct board_serial board_serial[BOARD_SERIAL_PORTS];

/* What devices ask of the machine around them. On any thread, board lock held: the calls must not
 * wait for vCPUs. */
struct board_events {
    void (*reset)(void *opaque);
    void (*poweroff)(void *opaque);
    void (*debug_exit)(void *opaque, int status);
    /* A device cannot go on because the host lacks something, as WHY says in one line, and holds
     * the machine until it calls release: WHY is then another line, or NULL if it was paused, reset
     * or freed meanwhile. On any thread without locks, unlike the rest. */
    void (*hold)(void *opaque, const char *why);
    void (*release)(void *opaque, const char *why);
    void *opaque;
};

/* What is plugged in, beside the chips that every PC has. It comes from the library's user
 * unchanged. */
struct board_devices {
    /* Descriptions of devices, up to a NULL: NAME[,KEY=VALUE...]. NULL: none.
     *      balloon[,slot=N][,inflate=N]   a virtio balloon; the guest is asked for N MiB at first
     *      console[,slot=N][,NAME=WHERE...]   a virtio console; see vm/console_ports.h. What stands
     * behind WHERE `tty` is CONSOLE test-device      what test kernels for QEMU's pc-testdev expect
     *      debug-exit       port F4h: a byte written ends the machine (board_events.debug_exit)
     *      debug-console    port E9h: bytes go to debug_output
     *      disk,file=F[,slot=N][,...]     a virtio block device; see blk/options.h for the rest
     *      net,to=KIND[,slot=N][,...]     a virtio network card; see net/options.h for the rest
     *      rng[,slot=N]     a virtio entropy device; SLOT is its PCI device number (0 to 31), by
     *                       default the first that is free
     *      vsock,socket=PATH[,cid=N][,slot=N]   a virtio socket device; see dev/virtio/vsock.h
     *      share,folder=F[,slot=N][,...]   a virtio file system; see share/options.h for the rest
     */
    const char *const *list;
    struct uart_backend serial[BOARD_SERIAL_PORTS]; /* the host sides of COM1 to COM4 */
    struct burst_backend debug_output;
    /* For disks and folders with isolate: see struct blk_host and struct share_host. */
    int (*isolate)(void *opaque, const char *file);
    void *isolate_opaque;
    struct con_given console;
    /* For network cards: see struct net_host. */
    const char *name;
    int (*remote)(void *opaque, const char *name);
    void *remote_opaque;
};

struct board_config {
    unsigned cpus;
    unsigned physical_bits;        /* MAXPHYADDR */
    struct cpu_port *const *ports; /* one for each processor */
    struct loop *loop;             /* for jobs of devices */
    struct workers *workers;       /* for what devices do outside of the board lock */
    const struct log *log;         /* for disks; or NULL */
    struct board_events events;
    const struct board_devices *devices; /* only while the board is created */
};

struct board;

/* The processors have local APICs of the board's, unless board_set_local_apics says otherwise. */
struct board *board_create(struct bus *bus, struct clock *clock, struct mem *mem,
                           const struct board_config *config, struct error *err);
void board_destroy(struct board *board);

/* Puts the board's own local APICs into the ports of the processors, or takes them out, for an
 * engine that has local APICs itself. While no vCPU runs. */
void board_plug_local_apics(struct board *board, bool own);
/* What such local APICs ask of the board. */
struct lapic_board board_of_local_apics(struct board *board);
/* Has what leads to the processors lead to APICS, which are copied, or to the board's own (NULL),
 * and hands them the state of those before, if they have given out any. While no vCPU runs and the
 * devices are paused. */
void board_set_local_apics(struct board *board, const struct local_apics *apics);

/* Power-on state of every device, and what firmware does to some of them. No vCPU runs. */
void board_reset(struct board *board);
void board_state(struct board *board, struct state *s); /* no vCPU runs */
/* See struct dev_ops: no device does anything with guest memory between the two. Board lock not
 * held; does not nest. */
void board_pause(struct board *board);
void board_resume(struct board *board);
/* Devices that hold the machine try again. Any thread, without locks. */
void board_retry(struct board *board);
/* Makes the disk that was described as number DISK, from 0 on, SIZE bytes long, which must be more
 * than it has. Board lock not held; waits for the host. */
int board_resize_disk(struct board *board, unsigned disk, uint64_t size, struct error *err);
/* For asking where the threads of disks are (base/where.h): thread N of the one that was described
 * as number DISK, or NULL if there are no more. Any thread. */
struct where *board_disk_where(struct board *board, unsigned disk, unsigned n);
/* The same of shared folders. */
struct where *board_share_where(struct board *board, unsigned share, unsigned n);
/* Changes settings of the network behind the card that was described as number NIC, from 0 on, as
 * net_change does. One thread at a time. */
int board_change_network(struct board *board, unsigned nic, const char *settings,
                         struct error *err);
/* See net_forward_port. */
unsigned board_forward_port(struct board *board, unsigned nic, unsigned n);
/* As board_disk_where, for the threads of a network. */
struct where *board_network_where(struct board *board, unsigned nic, unsigned n);
void board_flush(struct board *board); /* buffered output goes out */
/* Whether the backend of a serial port or of the debug console has no room for more output. Any
 * thread, without locks. */
bool board_output_full(const struct board *board);
/* Any thread, with or without locks: it is pressed on the clock's thread. */
void board_power_button(struct board *board);
/* See uart_input. */
size_t board_serial_input(struct board *board, unsigned port, const void *data, size_t size);
/* The console port that is `tty`; without one nothing happens. See con_end_input, con_end_room and
 * virtio_console_resize. */
size_t board_console_input(struct board *board, const void *data, size_t size);
void board_console_room(struct board *board);
void board_console_resize(struct board *board, unsigned rows, unsigned columns);

#endif
