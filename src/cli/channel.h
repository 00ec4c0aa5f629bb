/*
 * What the VM process and the supervisor behind it (cli/supervisor.h) say to each other.
 *
 *   supervisor                                          VM process
 *       <----- notes: a wish to end, a log line, ... ------  any thread
 *       ------ orders: end, say where you are, ... ------->  the attendant
 *       <----- requests: lend me the terminal, ... --------  the main thread, which waits for
 *       ------ answers ----------------------------------->  the answer
 *
 *       ------ work: pause, resume, ... ------------------->  the thread for orders
 *       <----- done, events ------------------------------
 *
 * Notes and orders are on one pair of sockets, requests and answers on another, work on a third.
 * All are of the kind SOCK_SEQPACKET, so a message arrives whole or not at all. Each side sees the
 * other's end as the end of the file. The supervisor never waits for the VM process: what does not
 * fit is lost.
 */
#ifndef DOPPEL_CLI_CHANNEL_H
#define DOPPEL_CLI_CHANNEL_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum channel_kind {
    /* Notes. */
    NOTE_LISTENS,  /* the attendant listens: orders are heeded from now on */
    NOTE_WISH,     /* the user wants the end: by keys; value: see attendant.h */
    NOTE_SIGNAL,   /* the same by a signal, value, that the VM process got itself */
    NOTE_LOG,      /* a line for the log; value: its level */
    NOTE_WHERE,    /* where a thread is, a line of text, after ORDER_REPORT */
    NOTE_REPORTED, /* that was the last thread */
    NOTE_CRASH,    /* a signal is about to kill the VM process: crash, stack */
    NOTE_STARTED,  /* the guest runs: facts */
    NOTE_ENDED,    /* value: how, an enum doppel_outcome; or ENDED_SESSION */

    /* Orders. */
    ORDER_END,    /* value: the signal that the supervisor got */
    ORDER_SIGNAL, /* SIGWINCH or SIGUSR1 (value) came */
    ORDER_REPORT, /* say where each thread is */
    ORDER_BUTTON, /* press the power button */

    /* Requests; the answer's value is 0 or a negative errno. */
    REQUEST_LEND,   /* the terminal behind standard input: into raw mode */
    REQUEST_RETURN, /* the terminal: back to the user's settings, for good */
    ANSWER,

    /* Work, and what comes of it (cli/orders.h). */
    WORK,  /* value: an enum work; work */
    DONE,  /* value: 0 or a negative errno; done */
    EVENT, /* value: an enum doppel_event_kind; text */
};

/* What may take time, or change how the machine runs. */
enum work { WORK_PAUSE, WORK_RESUME, WORK_STATS, WORK_CONSOLE_SIZE, WORK_NETWORK };

#define ENDED_SESSION (-1) /* what the user had run in the guest has ended */

#define CHANNEL_TEXT  1024
#define CHANNEL_STACK 448

/* What a process that a signal is about to kill can still say of itself. */
struct crash {
    int32_t signal;
    int32_t code;     /* siginfo's si_code: above 0, the kernel sent it because of an instruction */
    int32_t sender;   /* the process that sent it, if code is 0 or less */
    uint32_t words;   /* valid ones of the stack */
    uint64_t address; /* what the instruction accessed, or where it was */
    uint64_t counter; /* the program counter */
};

/* What the VM process runs. */
struct machine_facts {
    uint64_t memory; /* bytes */
    uint32_t cpus;
    char engine[16]; /* its name; channel_receive sees to it that it ends with a byte 0 */
};

struct work_order {
    uint32_t number;      /* the same in what is DONE */
    uint32_t argument[2]; /* WORK_CONSOLE_SIZE: rows and columns; WORK_NETWORK: the card */
    char text[512];       /* WORK_NETWORK: its settings. In what is DONE: why it failed */
};

struct work_done {
    struct work_order order;
    uint64_t instructions, run_ns, elapsed_ns, guest_resident, resident; /* WORK_STATS */
};

struct message {
    uint32_t kind;
    int32_t value;
    union {
        char text[CHANNEL_TEXT]; /* ends with a byte 0 */
        struct machine_facts facts;
        struct work_order work;
        struct work_done done;
        struct {
            struct crash crash;
            uint64_t stack[CHANNEL_STACK]; /* of the thread, from its top on */
        };
    };
};

/* One side's ends. */
struct channel {
    int notes, requests, work; /* sockets; -1: closed */
    pid_t supervisor;          /* its process */
};

/* Makes both sides' ends. Called by what becomes the supervisor. */
int channel_open(struct channel *supervisor, struct channel *vm, struct error *err);
void channel_close(struct channel *channel);

/* Sends on FD; TEXT may be NULL. If the other side is slow, waits for it (WAIT) or returns false.
 * Any thread. */
bool channel_send(int fd, bool wait, enum channel_kind kind, int value, const char *text);
/* The same for SIZE bytes of DATA, which are not more than CHANNEL_TEXT. */
bool channel_send_data(int fd, bool wait, enum channel_kind kind, int value, const void *data,
                       size_t size);

/* Takes the next message from FD, without waiting. False: there is none now; *GONE tells whether
 * the other side has come to its end, too. The text ends with a byte 0 whatever was sent; what a
 * kind does not use is zero. */
bool channel_receive(int fd, struct message *message, bool *gone);

/* ---- For the VM process ---- */

/* Has the kernel end this process together with its supervisor. Calls _exit if that is gone. */
void channel_tie(const struct channel *channel);

/* Sends the request KIND and waits for its answer, on the main thread. Returns 0 or a negative
 * errno; -EPIPE: the supervisor is gone.
 *
 * While the terminal is lent, the kernel does not end this process together with the supervisor:
 * somebody must give the terminal back. The attendant, which sees the end of the file, does both.
 */
int channel_ask(const struct channel *channel, enum channel_kind kind);

/* A log that the supervisor keeps. Lines are lost when it is slow. CHANNEL lives longer. */
struct log channel_log(const struct channel *channel);

#endif
