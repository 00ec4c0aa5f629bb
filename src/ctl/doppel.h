/*
 * libdoppel: virtual machines as a library. The command `doppel` is its first client.
 *
 * Every function may be called from any thread; calls on one VM are serialized. Functions that can
 * fail return 0 or a negative errno (or NULL) and fill ERR, which may be NULL.
 */
#ifndef DOPPEL_H
#define DOPPEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DOPPEL_VERSION "0.1.0"

struct doppel_vm;

struct doppel_error {
    int code;       /* positive errno */
    char text[480]; /* one line: what failed, on what, what to do about it */
};

enum doppel_engine { DOPPEL_ENGINE_AUTO, DOPPEL_ENGINE_INTERP, DOPPEL_ENGINE_BT };

/* The most that one vCPU sends after the host side of its port has become full. */
#define DOPPEL_OUTPUT_EXCESS 8192

/* Serial ports COM1 to COM4. */
#define DOPPEL_SERIAL_PORTS 4

/* The host side of a serial port. Called on a thread of the VM's that has the devices locked: must
 * not wait for anything and not call back into the VM except for doppel_serial_input. */
struct doppel_serial {
    /* Takes all of it. */
    void (*output)(void *opaque, const void *data, size_t size);
    /* Whether there is no room for more: then a vCPU that has sent something stands still until
     * doppel_output_room is called. What comes meanwhile is at most DOPPEL_OUTPUT_EXCESS for each
     * vCPU. NULL: there is always room. */
    bool (*full)(void *opaque);
    /* Room has come free in the receive queue after doppel_serial_input took less than it was
     * given; may be NULL. */
    void (*input_ready)(void *opaque);
    void *opaque;
};

/* A step of a guest's, or of the monitor for it: for doppel_trace. */
enum doppel_actor { DOPPEL_PROCESS, DOPPEL_KERNEL, DOPPEL_MONITOR };
struct doppel_step {
    uint64_t ns; /* since the trace began */
    unsigned cpu;
    enum doppel_actor actor;
    const char *text; /* one line */
};

struct doppel_config {
    enum doppel_engine engine;
    unsigned cpus;            /* 1..DOPPEL_MAX_CPUS */
    uint64_t memory;          /* bytes of RAM, a multiple of 4096, 1 MiB to DOPPEL_MAX_MEMORY */
    const char *kernel;       /* path: bzImage, ELF with PVH note, or Multiboot 1 */
    const char *initrd;       /* path or NULL */
    const void *initrd_extra; /* appended to the initrd (a cpio archive), or NULL */
    size_t initrd_extra_size;
    const char *command_line; /* NULL: none */
    bool no_kaslr;            /* load the kernel where it was linked */
    bool no_host_decompress;
    struct doppel_serial serial[DOPPEL_SERIAL_PORTS]; /* output NULL: nothing is plugged in */
    /* Descriptions of devices to add, NAME[,KEY=VALUE...] each, up to a NULL; NULL: none.
     *      test-device      what test kernels for QEMU's pc-testdev expect
     *      debug-exit       port 0xf4: a byte V written ends the VM with status (V << 1) | 1
     *      debug-console    port 0xe9: bytes go to debug_output */
    const char *const *devices;
    void (*debug_output)(void *opaque, const void *data, size_t size); /* as a serial port's */
    bool (*debug_full)(void *opaque);
    void *debug_opaque;
    bool no_reboot; /* a guest reset ends the VM */
    bool measure;   /* for doppel_stats: count instructions and time; the guest runs slower then */
    /* Given what the guest and the monitor do while doppel_trace wants it, step by step, on the
     * vCPU's thread; NULL: no trace is possible. A VM that can be traced is a little slower. */
    void (*trace)(void *opaque, const struct doppel_step *step);
    void *trace_opaque;
    void (*progress)(void *opaque, const char *what, int percent); /* while creating; may be NULL */
    void *progress_opaque;
};
#define DOPPEL_MAX_CPUS   64
#define DOPPEL_MAX_MEMORY (1ULL << 40)

/* How a VM ended. */
enum doppel_outcome {
    DOPPEL_RUNNING,
    DOPPEL_POWEROFF,   /* the guest powered itself off */
    DOPPEL_RESET,      /* the guest reset itself and no_reboot was set */
    DOPPEL_DEBUG_EXIT, /* through port 0xf4; status in doppel_end.status */
    DOPPEL_CRASHED,    /* triple fault; doppel_end.report has the registers */
    DOPPEL_STOPPED,    /* doppel_stop */
};

struct doppel_end {
    enum doppel_outcome outcome;
    int status;         /* DOPPEL_DEBUG_EXIT */
    char report[16384]; /* DOPPEL_CRASHED: lines of text: registers, the last instructions */
};

struct doppel_count {
    const char *name;
    uint64_t count, ns; /* all that it took, if measured */
};

struct doppel_stats {
    const char *engine;
    uint64_t instructions;   /* executed by all vCPUs; 0 if bt was not asked to count them */
    uint64_t run_ns;         /* vCPU time executing, halted time excluded, summed over vCPUs */
    uint64_t elapsed_ns;     /* since doppel_start */
    uint64_t guest_resident; /* bytes of guest RAM resident on the host */
    uint64_t resident;       /* bytes of the whole process */
    bool measured;
    uint64_t guest_ns;   /* of run_ns, in the guest's code; if measured */
    double tlb_hit_rate; /* of translated code's searches of the software TLB; 0: not known */
    struct doppel_count exits[32]; /* by cause; halted time is not in run_ns */
    unsigned exit_causes;
    struct doppel_count forgotten[16]; /* why decoded or translated code was forgotten */
    unsigned forget_causes;
    struct doppel_count work[16]; /* what the engine did besides: decoding, translating, ... */
    unsigned work_kinds;
    /* If measured: what translated code left to the interpreter most often. */
    struct doppel_count interpreted[10];
    unsigned interpreted_kinds;
};

/* Fills in the defaults: one vCPU, 512 MiB, engine auto. */
void doppel_config_init(struct doppel_config *config);

/* Checks CONFIG, reads the files, builds the machine. Copies what it needs from CONFIG. */
struct doppel_vm *doppel_create(const struct doppel_config *config, struct doppel_error *err);
int doppel_start(struct doppel_vm *vm, struct doppel_error *err);
/* Waits for the end of VM, at most TIMEOUT_MS (-1: for ever). -ETIMEDOUT while it runs. */
int doppel_wait(struct doppel_vm *vm, int timeout_ms, struct doppel_end *end);
/* Ends VM at once, as pulling the plug does. */
void doppel_stop(struct doppel_vm *vm);
/* Presses the power button (ACPI), which a guest may heed. */
void doppel_power_button(struct doppel_vm *vm);
/* Says what each of VM's threads does at this moment, a line of text each: for a VM that does not
 * come to its end. Takes no lock, and so works whatever they hold; uses the signal SIGSTKFLT. */
void doppel_where(struct doppel_vm *vm, void (*line)(void *opaque, const char *text), void *opaque);
void doppel_stats(struct doppel_vm *vm, struct doppel_stats *stats);
/* Whether config.trace is told of steps from now on; not at first. Also from config.trace itself.
 */
void doppel_trace(struct doppel_vm *vm, bool on);
/* Stops VM if it still runs and frees it. */
void doppel_destroy(struct doppel_vm *vm);

/* A serial port or the debug console that was full has room again. Takes no lock of a device. */
void doppel_output_room(struct doppel_vm *vm);

/* Types SIZE bytes into serial port PORT (0..3). Returns how many its queue took. */
size_t doppel_serial_input(struct doppel_vm *vm, unsigned port, const void *data, size_t size);

/* What this host offers and which engine `auto` means here, for `doppel doctor`. */
struct doppel_host {
    char cpu[64];         /* brand string */
    bool kvm_present;     /* /dev/kvm can be opened */
    char kvm_detail[160]; /* why it is or is not usable */
    unsigned cpus;
    uint64_t memory, memory_available;
    bool x86_64_v3;    /* the host executes every instruction of the default CPU model */
    char missing[160]; /* features of the default model that this host lacks */
    enum doppel_engine chosen;
    char reason[200];
};
void doppel_probe(struct doppel_host *host);

const char *doppel_engine_name(enum doppel_engine engine);
const char *doppel_version(void);

#ifdef __cplusplus
}
#endif

#endif
