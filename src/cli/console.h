/*
 * Connects a VM's serial ports with this process's standard streams: the terminal in raw mode with
 * its escape keys, input that is typed, a session with the default guest. One loop on the calling
 * thread does all of it, but for what the attendant hears even when this thread is stuck
 * (cli/attendant.h): keys, and the supervisor's orders.
 */
#ifndef DOPPEL_CLI_CONSOLE_H
#define DOPPEL_CLI_CONSOLE_H

#include "cli/channel.h"
#include "cli/progress.h"
#include "ctl/doppel.h"

#include <stdbool.h>

struct console;

struct console_config {
    const struct channel *channel; /* to the supervisor, which has the terminal's settings */
    bool session;                  /* COM2 carries a session; else COM1 is what the user talks to */
    bool session_input; /* COM1's text goes with the session's output (a shell), not aside */
    bool verbose;       /* COM1's text goes to standard error instead of aside */
    bool crlf;          /* in a session lines end in CR LF, for a terminal in raw mode */
    bool raw;           /* standard input is a terminal to be lent to the guest */
    const char *line;   /* in the background: where its console's socket is (console_line.h) */
    int debug_fd;       /* where the debug console's bytes go, or -1: there is none */
    struct progress *progress;
    /* The session begins: its command is told to start when this returns. May be NULL. */
    void (*on_session)(void *opaque, struct doppel_vm *vm);
    void (*on_usr1)(void *opaque, struct doppel_vm *vm); /* SIGUSR1 came; may be NULL */
    void *opaque;
};

/* How console_run came to an end. */
enum console_end {
    CONSOLE_VM_ENDED, /* console_vm_end tells more */
    CONSOLE_QUIT,     /* the user asked for it */
    CONSOLE_SIGNAL,   /* console_signal */
    CONSOLE_SESSION,  /* the session's command ended, or never began: console_session */
    CONSOLE_PANIC,    /* the default guest's kernel gave up */
    CONSOLE_UNHEEDED, /* input ended, and the guest heeded neither that nor its power button */
    CONSOLE_OUTPUT,   /* standard output cannot be written: a message has been printed */
};

struct session;

/* Messages are printed. */
struct console *console_create(const struct console_config *config);
/* Gives the terminal back, after console_run at the latest. */
void console_restore(struct console *console);
void console_destroy(struct console *console);

/* Sets the serial ports and the debug console in CONFIG. */
void console_plug(struct console *console, struct doppel_config *config);
/* Talks until the end of the VM, of the session or of the user's patience. VM runs; when this
 * returns it has ended or been stopped, and everything it wrote is written. */
enum console_end console_run(struct console *console, struct doppel_vm *vm);
/* VM has been destroyed. Until then, its threads are looked at if the end takes too long. */
void console_forget(struct console *console);

const struct doppel_end *console_vm_end(const struct console *console);
/* Why the debug console's file could not be written: an errno, or 0. */
int console_debug_error(const struct console *console);
int console_signal(const struct console *console);
const struct session *console_session(const struct console *console);
/* From console_run until the session began, in ms; negative: never. */
long long console_boot_ms(const struct console *console);
/* The last lines that the guest's kernel said, for when something went wrong. */
const char *console_last_lines(const struct console *console);
/* Whether it panicked, and if so why, in REASON. */
bool console_panic(const struct console *console, char *reason, size_t size);

#endif
