/*
 * What the supervisor answers at the control socket of a machine (docs/control.md).
 *
 *      clients <--- lines of JSON ---> control desk (here) ---- ops ----> supervisor ---> VM
 * process
 *
 * The desk says what it knows of the machine, and asks the supervisor for what is to be done with
 * it. It never waits for the VM process: a machine whose VM process hangs or stands still is told
 * of, stopped and killed like any other.
 */
#ifndef DOPPEL_CLI_CONTROL_DESK_H
#define DOPPEL_CLI_CONTROL_DESK_H

#include "base/error.h"
#include "cli/channel.h"

#include <stdbool.h>
#include <stdint.h>

struct control_desk;

/* What the supervisor does for the desk. None of it waits. */
struct control_desk_ops {
    void (*press_button)(void *opaque); /* the power button, which the guest may heed */
    void (*pull_plug)(void *opaque);    /* ends the VM process, by force if it does not end */
    void (*kill)(void *opaque);         /* ends it by force at once */
    /* Hands work to the VM process. False: that has more to do than it takes. */
    bool (*work)(void *opaque, enum work what, const struct work_order *order);
    void *opaque;
};

/* How a VM process has ended. */
enum machine_end {
    MACHINE_POWERED_OFF,   /* by the guest */
    MACHINE_RESET,         /* by the guest, and resets end the machine */
    MACHINE_DEBUG_EXIT,    /* by the guest */
    MACHINE_CRASHED,       /* the guest: a triple fault */
    MACHINE_FAILED,        /* the host lacked what it needed, or it never ran */
    MACHINE_COMMAND_ENDED, /* what was run in the guest */
    MACHINE_UNPLUGGED,     /* somebody wished the end */
    MACHINE_KILLED,        /* by force, because somebody wished that or it did not end */
    MACHINE_DIED,          /* a signal killed the VM process */
};

/* Whether a machine in the background is started anew when it has ended though nobody wished it. */
enum restart {
    RESTART_NEVER,
    RESTART_ON_FAILURE, /* if it ended badly: not by the guest's own will, or with a status */
    RESTART_ALWAYS,
};

struct control_desk_config {
    const char *folder; /* the machine's run folder, in which the desk listens */
    const char *name;   /* the machine's */
    const char *log;    /* where its log is */
    bool background;    /* it can be started anew */
    enum restart restart;
};

/* CONFIG is copied. */
struct control_desk *control_desk_open(const struct control_desk_config *config, struct error *err);
/* NULL is allowed, in this and in all that follows. */
void control_desk_close(struct control_desk *desk);
/* In a process that was forked: lets go of what is the supervisor's. Only closing it follows. */
void control_desk_forget(struct control_desk *desk);

/* A VM process has been started. OPS is copied. */
void control_desk_begin(struct control_desk *desk, pid_t vm, const struct control_desk_ops *ops);
/* The guest runs. */
void control_desk_started(struct control_desk *desk, const struct machine_facts *facts);
/* The VM process stands still (SIGSTOP), or no longer. */
void control_desk_frozen(struct control_desk *desk, bool frozen);
/* The VM process has done what it was given (value: 0 or a negative errno), or tells what has
 * happened to the machine (KIND: an enum doppel_event_kind). It is not trusted. */
void control_desk_done(struct control_desk *desk, int value, const struct work_done *done);
void control_desk_event(struct control_desk *desk, int kind, const char *text);
/* The VM process is gone. */
void control_desk_ended(struct control_desk *desk, enum machine_end how, int status);
/* When the next VM process is to be started: CLOCK_MONOTONIC; UINT64_MAX: never. Work may change
 * it. */
uint64_t control_desk_next(const struct control_desk *desk);
/* That time has come. If no VM process begins, the machine has failed. */
void control_desk_anew(struct control_desk *desk);
/* There will be no other VM process: who has waited for the end is told, as far as clients take it
 * within a moment. */
void control_desk_over(struct control_desk *desk);

/* A descriptor that poll(2) finds readable when there is work; -1: there is no desk. */
int control_desk_fd(const struct control_desk *desk);
/* When there is work though nothing is readable: CLOCK_MONOTONIC, or UINT64_MAX. */
uint64_t control_desk_deadline(const struct control_desk *desk);
void control_desk_work(struct control_desk *desk);

#endif
