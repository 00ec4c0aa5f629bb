/*
 * The side that uses what a kept process serves: it makes the memory that both share, and has a
 * thread that takes what the process answers, watches over it, and starts the next one when it has
 * died. What is served, and what the memory holds, is the owner's.
 *
 *      owner's threads ---- requests, kept_user_wake ----> process
 *      thread: ops->take <---- answers, an event ---------
 *              ops->begin <--- the hello of the next one -
 */
#ifndef DOPPEL_BASE_KEPT_USER_H
#define DOPPEL_BASE_KEPT_USER_H

#include "base/event.h"
#include "base/kept_link.h"
#include "base/kept_memory.h"
#include "base/kept_watch.h"
#include "base/where.h"

/* What is the owner's. All are called by the thread, without locks. */
struct kept_user_ops {
    /* Says that the thread goes to sleep, unless there is something to take. */
    bool (*sleeps)(void *opaque);
    /* Takes all that has come, and sets PROGRESS if that is anything. Returns what is wrong for
     * good, or NULL. */
    const char *(*take)(void *opaque);
    /* Whether something is to be done: then the process must answer in time. */
    bool (*waits)(void *opaque);
    /* A new process has said HELLO: gives it, by kept_user_send_files, what the last one has not
     * done. Returns what is wrong for good, or NULL. */
    const char *(*begin)(void *opaque, const struct kept_hello *hello);
    /* It cannot be used any more, as the log says. The thread then ends. */
    void (*fail)(void *opaque);
};

struct kept_user {
    const struct kept_user_ops *ops;
    void *opaque;
    const char *name; /* for messages: "disk 'F'" */
    const struct log *log;
    int link, wake;
    int files[KEPT_FILES];
    struct event_sender sender; /* the process may have the event files block */
    void *memory;
    uint64_t size;
    pthread_t thread;
    bool started;
    _Atomic bool ends;
    struct where where;
    /* The thread's. */
    struct kept_watch watch;
    bool progress; /* something came since the watch was last looked at */
};

/* NAME and LOG must stay; LINK is USER's then. PATIENCE: nanoseconds without an answer until the
 * process is killed. kept_user_end is due in any case. */
void kept_user_init(struct kept_user *user, const struct kept_user_ops *ops, void *opaque,
                    const char *name, const struct log *log, int link, uint64_t patience);
/* Makes SIZE bytes of memory, and waits for the first hello, for NS nanoseconds at most. 0 or a
 * negative errno. */
int kept_user_open(struct kept_user *user, uint64_t size, uint64_t ns, struct kept_hello *hello,
                   struct error *err);
/* Gives the first process the files, and starts the thread, which gets the name TITLE. */
int kept_user_start(struct kept_user *user, const struct kept_hello *hello, const char *title,
                    struct error *err);
/* Ends the thread, and drops everything. */
void kept_user_end(struct kept_user *user);

/* Tells the process of requests. Any thread. */
void kept_user_wake(struct kept_user *user);
/* For ops->begin: gives the process of HELLO the files. 0, or a negative errno: it is gone again,
 * as the log says. */
int kept_user_send_files(struct kept_user *user, const struct kept_hello *hello);

#endif
