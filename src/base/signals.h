/*
 * The signal handlers of the process: the one thing that two virtual machines in one process share.
 *
 * A handler is installed when its first user comes and removed when the last one has gone. Then the
 * signal has the disposition that the program had given it before. While it is installed, it passes
 * on every signal that is not the library's to the handler that the program had. A program that
 * installs a handler of its own later must pass on what is not its own, too; the library's handler
 * then stays behind the program's, also for users who come later.
 *
 *   signal                         users                          what it means
 *   SIGSEGV SIGBUS SIGFPE SIGILL   thunks (cpu/), guest memory    the fault of an instruction
 *   SIGSTKFLT                      threads of virtual machines    where.h asks where a thread is
 *
 * Threads that execute guest code or touch guest memory must not block the first four.
 *
 * What runs in a handler here runs on any thread at any instruction, also in translated code, where
 * FS leads to no thread-local storage and RSP to no stack. It is marked SIGNALS_SAFE and calls
 * nothing else: not the C library, whose errno is thread-local, but raw_syscall.h.
 */
#ifndef DOPPEL_BASE_SIGNALS_H
#define DOPPEL_BASE_SIGNALS_H

#include "base/error.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#define SIGNALS_SAFE                                                                               \
    __attribute__((no_stack_protector, no_sanitize("address", "undefined", "thread")))

/* ---- Faults ---- */

/* An instruction's fault, as the kernel reports it. Changing REGISTERS changes where and with what
 * the thread goes on. */
struct signals_fault {
    int number;        /* SIGSEGV, SIGBUS, SIGFPE or SIGILL */
    int code;          /* siginfo's, above 0 */
    uintptr_t address; /* what was accessed, where the kernel knows */
    greg_t *registers; /* by REG_RIP and so on */
};

/* By what a fault is recognized. */
enum signals_by {
    SIGNALS_BY_CODE,   /* the instruction lies in the range */
    SIGNALS_BY_ADDRESS /* what it accessed lies in the range */
};

struct signals_watch;

/* Has FAULT called for faults from START up to END, on the thread that met them; true: the thread
 * goes on with fault->registers, false: the fault is not meant. Whatever OPAQUE leads to must live
 * as long as any thread executes code, or touches memory, in the range. Any thread. */
struct signals_watch *signals_watch(enum signals_by by, uintptr_t start, uintptr_t end,
                                    bool (*fault)(void *opaque, const struct signals_fault *fault),
                                    void *opaque, struct error *err);
void signals_unwatch(struct signals_watch *watch); /* may be NULL */

/* ---- Questions ---- */

/* Has HANDLER called for SIGSTKFLT; false: the signal is not meant. On the calling thread it gets
 * OPAQUE, and NULL on a thread that has not called this: what a signal carries can be made up by
 * any process of the same user. All users name the same handler. All other signals are blocked
 * while it runs. A thread calls this once. */
int signals_add_question(bool (*handler)(void *opaque, const siginfo_t *info,
                                         const ucontext_t *context),
                         void *opaque, struct error *err);
/* Undoes that, on the same thread, which blocks SIGSTKFLT by now. */
void signals_remove_question(void);

#endif
