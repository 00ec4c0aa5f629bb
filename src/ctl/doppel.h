/*
 * libdoppel: virtual machines as a library. The command `doppel` is its first client.
 *
 * Errors. Functions that can fail return 0 or a negative errno (or NULL) and fill ERR, which may be
 * NULL.
 *
 * Threads. Every function may be called from any thread at any time from doppel_create on, until
 * doppel_destroy is called, which must be the last call on its VM. doppel_start, doppel_pause,
 * doppel_resume and doppel_switch_engine on one VM are serialized: each waits until the one before
 * it has returned, and so sees its effect. No other call waits for them or for each other;
 * doppel_stop, doppel_wait and doppel_where work while one of them hangs. The library's own threads
 * block all signals but those of faults and SIGSTKFLT.
 *
 * Callbacks (in struct doppel_config). Some run on a thread of the VM's, and the VM stands still
 * meanwhile: they must not wait, and may call back into the VM only where it says so.
 *
 * Signals. While a VM exists, the process has handlers for SIGSEGV, SIGBUS, SIGFPE and SIGILL, by
 * which the library hears of the faults of guest code and of guest memory that the host cannot
 * provide. While a VM has threads (from doppel_start on, or from doppel_create on if one of its
 * devices has a thread), there is one for SIGSTKFLT, by which doppel_where asks them. The handlers
 * pass on what is not theirs to those that the program had installed before. With the last VM they
 * are removed.
 * A handler that the program installs later must pass on what is not its own, too. A thread that
 * calls doppel_create must not block the first four.
 *
 * Growth. Structures may grow at their end in later versions. Functions that take one are told how
 * large the caller's is (the ..._sized functions, of which this header makes the others), so a
 * program goes on working with a library that is newer than what it was compiled with. struct
 * doppel_error and struct doppel_serial do not grow.
 */
#ifndef DOPPEL_H
#define DOPPEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define DOPPEL_VERSION "0.1.0"

struct doppel_vm;
struct doppel_events;

struct doppel_error {
    int code;       /* positive errno */
    char text[480]; /* one line: what failed, on what, what to do about it */
};

enum doppel_engine {
    DOPPEL_ENGINE_AUTO,
    DOPPEL_ENGINE_INTERP,
    DOPPEL_ENGINE_BT,
    DOPPEL_ENGINE_KVM
};

/* The most that one vCPU sends after the host side of its port has become full. */
#define DOPPEL_OUTPUT_EXCESS 8192

/* Serial ports COM1 to COM4. */
#define DOPPEL_SERIAL_PORTS 4

/* The host side of a serial port. Called on a thread of the VM's that has the devices locked: must
 * not wait for anything and not call back into the VM except for doppel_serial_input and
 * doppel_stop. */
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

enum doppel_log_level {
    DOPPEL_LOG_ERROR,   /* something does not work any more */
    DOPPEL_LOG_WARNING, /* something works less well than it should */
    DOPPEL_LOG_INFO,    /* what one wants to know afterwards: the VM was started, reset, ... */
    DOPPEL_LOG_DEBUG,   /* for the library's developers */
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
     *      balloon[,slot=N][,inflate=N]   a virtio balloon: memory that the guest reports as free
     *                       goes back to the host, and N MiB that it is asked for
     *      console[,slot=N][,NAME=WHERE...]   a virtio console with a port for each NAME: hvc0,
     *                       hvc1 and so on are consoles, others are /dev/virtio-ports/NAME in a
     *                       Linux guest. WHERE is file:PATH, to which output is appended;
     *                       unix:PATH, a socket that listens; or tty, which is CONSOLE below. By
     *                       default there is hvc0=tty
     *      test-device      what test kernels for QEMU's pc-testdev expect
     *      debug-exit       port 0xf4: a byte V written ends the VM with status (V << 1) | 1
     *      debug-console    port 0xe9: bytes go to debug_output
     *      disk,file=F[,slot=N][,SETTING...]   a virtio block device in front of F: a file, a block
     *                       device, or an NBD server's URI. The settings are those of `doppel run
     *                       --disk` (doppel.1); a comma in F is written as two. Files are opened
     *                       by doppel_create and closed by doppel_destroy
     *      net,to=KIND[,slot=N][,SETTING...]   a virtio network card, of which a cable leads to a
     *                       network of the host: KIND and the settings are those of `doppel run
     *                       --net` (doppel.1)
     *      rng[,slot=N]     a virtio entropy device; SLOT is its PCI device number (0 to 31), by
     *                       default the first that is free
     *      vsock,socket=PATH[,cid=N][,slot=N]   a virtio socket device, at whose address N (3) the
     *                       guest is. A program of the host that connects to the Unix socket PATH
     *                       and sends "CONNECT PORT\n" is connected to the guest's program that
     *                       listens at PORT, and reads "OK HOSTPORT\n" first. Where the guest
     *                       connects to port P of the host (CID 2), it gets to the Unix socket
     *                       PATH_P. PATH listens from doppel_create to doppel_destroy
     *      share,folder=F[,slot=N][,SETTING...]   a virtio file system device: the host's folder
     *                       F, which a Linux guest mounts as type virtiofs by its tag. The settings
     *                       are those of docs/folders.md; a comma in F is written as two */
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
    /* Takes a line of the VM's log, without a newline and without control characters, if its level
     * is at most LOG_LEVEL. On any thread, also with devices locked: must not wait for anything and
     * not call back into the VM. May be NULL: event queues have the lines, too. */
    void (*log)(void *opaque, enum doppel_log_level level, const char *text);
    void *log_opaque;
    enum doppel_log_level log_level;
    /* What stands behind a port of a virtio console that is `tty`. Unlike a serial port's, its
     * functions are called without devices locked, on a thread that serves no other port. */
    struct doppel_serial console;
    /* For disks and shared folders with the setting isolate: returns a socket, doppel's from then
     * on, at whose other end another process serves the disk or folder FILE (as named in the
     * description) by doppel_serve_disk or doppel_serve_folder; or a negative errno. The pair is of
     * the kind SOCK_SEQPACKET. Whoever has started that process starts it anew, with the same end,
     * when it has died. NULL: such disks and folders are refused. */
    int (*isolate)(void *opaque, const char *file);
    void *isolate_opaque;
    /* What others on a virtual switch know the VM by; NULL: it has no name. Copied. */
    const char *name;
    /* For network cards on a switch, and on a user network with the setting isolate: returns a
     * socket, doppel's from then on, over which connections come to the process that serves the
     * switch NAME, or (NAME is NULL; called in the order of such cards) that network; or a negative
     * errno. NULL: such cards are refused. */
    int (*remote)(void *opaque, const char *name);
    void *remote_opaque;
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
    DOPPEL_FAILED,     /* the host lacks the memory, or a reset could not be done; doppel_end.report
                          has one line that says what */
};

struct doppel_end {
    enum doppel_outcome outcome;
    int status;         /* DOPPEL_DEBUG_EXIT */
    char report[16384]; /* DOPPEL_CRASHED: lines of text: registers, the last instructions */
};

enum doppel_state {
    DOPPEL_STATE_NEW,
    DOPPEL_STATE_RUNNING,
    DOPPEL_STATE_PAUSED,
    DOPPEL_STATE_ENDED,
    DOPPEL_STATE_HELD, /* it stands still because the host lacks something: DOPPEL_EVENT_HELD */
};

enum doppel_event_kind {
    DOPPEL_EVENT_STARTED,
    DOPPEL_EVENT_PAUSED,
    DOPPEL_EVENT_RESUMED,
    DOPPEL_EVENT_RESET, /* the guest has reset itself and begins anew */
    DOPPEL_EVENT_ENDED, /* the last event of a VM: doppel_wait returns at once from now on */
    DOPPEL_EVENT_LOG,   /* a line of the log: LEVEL and TEXT */
    /* The host lacks what a device needs, such as room for a disk's image, as TEXT says. The VM
     * stands still; it tries again each second, and at doppel_resume. */
    DOPPEL_EVENT_HELD,
    DOPPEL_EVENT_GOES_ON, /* that device goes on, and the VM if there is no other such device */
    /* What is behind a disk works no more, or works again, as TEXT says: a server or a back end
     * that is gone or back, an image found corrupt. The log has the same line. */
    DOPPEL_EVENT_DISK,
};

struct doppel_event {
    enum doppel_event_kind kind;
    uint64_t ns;   /* CLOCK_MONOTONIC when it happened */
    unsigned lost; /* how many events before this one were dropped, because nobody took them */
    enum doppel_log_level level;
    char text[512];
};

struct doppel_count {
    const char *name;
    uint64_t count, ns; /* all that it took, if measured */
};

struct doppel_stats {
    const char *engine;      /* the present one; the numbers are of all that the VM has had */
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

/* ---- Life ---- */

/* Fills in the defaults: one vCPU, 512 MiB, engine auto, log level info. */
void doppel_config_init_sized(struct doppel_config *config, size_t size);

/* Checks CONFIG, reads the files, builds the machine. Copies what it needs from CONFIG. */
struct doppel_vm *doppel_create_sized(const struct doppel_config *config, size_t size,
                                      struct doppel_error *err);
/* Once. A VM that was paused before starts paused. */
int doppel_start(struct doppel_vm *vm, struct doppel_error *err);
/* Returns when no vCPU runs, no device works and the guest's time stands still. A VM that is paused
 * already stays so. -ESHUTDOWN: it has ended. */
int doppel_pause(struct doppel_vm *vm, struct doppel_error *err);
/* Has a paused VM go on. One pause is enough for any number of resumes, and the other way round. A
 * VM that is held by a device tries again at once. */
int doppel_resume(struct doppel_vm *vm, struct doppel_error *err);
/* Has VM go on under ENGINE, in this process and where it stands; the guest does not notice. The VM
 * is paused meanwhile, for some milliseconds, and stays paused if it was. If it fails, the VM goes
 * on under the engine that it has. -ENOTSUP: the host cannot run ENGINE; -ESHUTDOWN: VM has ended.
 */
int doppel_switch_engine(struct doppel_vm *vm, enum doppel_engine engine, struct doppel_error *err);
enum doppel_state doppel_state(struct doppel_vm *vm);
/* Waits for the end of VM, at most TIMEOUT_MS (-1: for ever). -ETIMEDOUT while it runs. END may be
 * NULL. Any number of threads may wait. -ENOMEM: there is no memory to copy END, and nothing was
 * waited for. */
int doppel_wait_sized(struct doppel_vm *vm, int timeout_ms, struct doppel_end *end, size_t size);
/* Ends VM at once, as pulling the plug does. */
void doppel_stop(struct doppel_vm *vm);
/* Presses the power button (ACPI), which a guest may heed. */
void doppel_power_button(struct doppel_vm *vm);
/* Says what each of VM's threads does at this moment, a line of text each: for a VM that does not
 * come to its end. Takes no lock of theirs, and so works whatever they hold; uses the signal
 * SIGSTKFLT. Calls on one VM take their turns, so LINE must not call it. */
void doppel_where(struct doppel_vm *vm, void (*line)(void *opaque, const char *text), void *opaque);
void doppel_stats_sized(struct doppel_vm *vm, struct doppel_stats *stats, size_t size);
/* Whether config.trace is told of steps from now on; not at first. Also from config.trace itself.
 */
void doppel_trace(struct doppel_vm *vm, bool on);
/* Stops VM if it still runs and frees it. All its event queues are closed. */
void doppel_destroy(struct doppel_vm *vm);

/* ---- Events ---- */

/* A queue of what happens to VM from now on; for a VM that has ended, its end. Any number of queues
 * may be open, and any number of threads may take from one. A queue that nobody empties drops its
 * oldest events. */
struct doppel_events *doppel_events_open(struct doppel_vm *vm, struct doppel_error *err);
/* A descriptor that poll(2) finds readable while an event waits. It is the queue's: not to be read
 * or closed. */
int doppel_events_fd(const struct doppel_events *events);
/* Takes the oldest event; waits for one at most TIMEOUT_MS (-1: for ever). -ETIMEDOUT: there is
 * none. -ESHUTDOWN: DOPPEL_EVENT_ENDED has been taken. */
int doppel_events_next_sized(struct doppel_events *events, int timeout_ms,
                             struct doppel_event *event, size_t size);
/* Nobody waits for events of it. */
void doppel_events_close(struct doppel_events *events);

/* ---- Serial ports ---- */

/* A serial port, the debug console or a virtio console that was full has room again. Takes no lock
 * of a device. */
void doppel_output_room(struct doppel_vm *vm);

/* Types SIZE bytes into serial port PORT (0..3). Returns how many its queue took. */
size_t doppel_serial_input(struct doppel_vm *vm, unsigned port, const void *data, size_t size);

/* The same for the port of a virtio console that is `tty`; 0 if there is none. */
size_t doppel_console_input(struct doppel_vm *vm, const void *data, size_t size);
/* Tells the guest how large the terminal behind it is. */
void doppel_console_resize(struct doppel_vm *vm, unsigned rows, unsigned columns);

/* ---- Disks ---- */

/* Makes a disk SIZE bytes long, which must be more than it has, and tells the guest. DISK: which of
 * those in doppel_config.devices, from 0 on. Waits for the host's file system. */
int doppel_resize_disk(struct doppel_vm *vm, unsigned disk, uint64_t size,
                       struct doppel_error *err);

/* In a process of its own: opens the disk that DESCRIPTION, one of doppel_config.devices, is about,
 * and serves it to the process that has the other end of SOCKET (doppel_config.isolate), until that
 * has closed it. Returns 0 then. An error was told the other end, too. */
int doppel_serve_disk(const char *description, int socket, struct doppel_error *err);

/* ---- Shared folders ---- */

/* As doppel_serve_disk, for a folder. */
int doppel_serve_folder(const char *description, int socket, struct doppel_error *err);

/* ---- Networks ---- */

/* Changes how a network card's cable is: SETTINGS is delay=, jitter=, loss=, rate= and capture=, as
 * in its description, with commas between them; what is not named stays as it is, and if it fails,
 * all does. NIC: which of the cards in doppel_config.devices, from 0 on. Calls on one VM take their
 * turns. */
int doppel_change_network(struct doppel_vm *vm, unsigned nic, const char *settings,
                          struct doppel_error *err);
/* The host's port of the forward with number FORWARD, from 0 on, in that card's description: the
 * one that the host has chosen if port 0 was asked for. 0: there is no such forward. */
unsigned doppel_forward_port(struct doppel_vm *vm, unsigned nic, unsigned forward);

/* ---- Machines that run elsewhere ---- */

/* A connection to the process behind a machine of this user's that runs under a name, in whatever
 * program: its control socket, whose requests, results and events docs/control.md lists. They are
 * given and returned as the text of JSON objects; the caller frees what is returned. One thread
 * uses a connection at a time. */
struct doppel_control;

/* -ESRCH: no machine called NAME runs. */
struct doppel_control *doppel_control_open(const char *name, struct doppel_error *err);
/* Sends REQUEST, with the JSON object ARGUMENTS or none (NULL). Returns the number of the answer,
 * which is positive. Several may be under way. */
int doppel_control_send(struct doppel_control *control, const char *request, const char *arguments,
                        struct doppel_error *err);
/* Waits at most TIMEOUT_MS (-1: for ever) for answer NUMBER, and sets *RESULT, which may be NULL.
 * -ETIMEDOUT: there is none yet; -EPIPE: the process is gone; else what the answer says. */
int doppel_control_answer(struct doppel_control *control, int number, int timeout_ms, char **result,
                          struct doppel_error *err);
/* Both. */
int doppel_control_call(struct doppel_control *control, const char *request, const char *arguments,
                        int timeout_ms, char **result, struct doppel_error *err);
/* Waits for the next event, once the request `events` has asked for them. Returns as above. The
 * oldest events are dropped if more than 64 came while answers were waited for. */
int doppel_control_event(struct doppel_control *control, int timeout_ms, char **event,
                         struct doppel_error *err);
/* A descriptor that poll(2) finds readable when something may have come. */
int doppel_control_fd(const struct doppel_control *control);
/* NULL is allowed. */
void doppel_control_close(struct doppel_control *control);

/* ---- The host ---- */

/* What this host offers and which engine `auto` means here, for `doppel doctor`. */
struct doppel_host {
    char cpu[64];         /* brand string */
    bool kvm_present;     /* /dev/kvm can be opened */
    char kvm_detail[160]; /* why it is or is not worth using, in one line */
    unsigned cpus;
    uint64_t memory, memory_available;
    bool x86_64_v3;    /* the host executes every instruction of the default CPU model */
    char missing[160]; /* features of the default model that this host lacks */
    enum doppel_engine chosen;
    char reason[200]; /* why, in one line */
    /* What was measured of KVM, in a virtual machine that was thrown away; 0: it could not be. A
     * measurement takes 20 ms, and is kept until the host starts anew. */
    uint64_t kvm_kernel_ips, kvm_user_ips; /* instructions per second, in the guest's kernel and in
                                              its programs */
    uint64_t kvm_fault_ns;                 /* a page fault of a program */
    uint64_t kvm_cpuid_ns; /* an instruction for which the processor leaves the guest */
    uint64_t kvm_exit_ns;  /* an exit to the monitor */
    char kvm_missing[160]; /* what KVM lacks of what an engine can use (KVM_CAP_...) */
    bool kvm_native;       /* by these figures, hardware executes the guest's kernel */
};
void doppel_probe_sized(struct doppel_host *host, size_t size);

const char *doppel_engine_name(enum doppel_engine engine);
const char *doppel_version(void);

/* ---- The structures as this header has them ---- */

static inline void doppel_config_init(struct doppel_config *config)
{
    doppel_config_init_sized(config, sizeof(*config));
}

static inline struct doppel_vm *doppel_create(const struct doppel_config *config,
                                              struct doppel_error *err)
{
    return doppel_create_sized(config, sizeof(*config), err);
}

static inline int doppel_wait(struct doppel_vm *vm, int timeout_ms, struct doppel_end *end)
{
    return doppel_wait_sized(vm, timeout_ms, end, sizeof(*end));
}

static inline void doppel_stats(struct doppel_vm *vm, struct doppel_stats *stats)
{
    doppel_stats_sized(vm, stats, sizeof(*stats));
}

static inline int doppel_events_next(struct doppel_events *events, int timeout_ms,
                                     struct doppel_event *event)
{
    return doppel_events_next_sized(events, timeout_ms, event, sizeof(*event));
}

static inline void doppel_probe(struct doppel_host *host)
{
    doppel_probe_sized(host, sizeof(*host));
}

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
