/*
 * The socket by which a process that is kept running and the process that uses it find each other.
 * It is a pair of the kind SOCK_SEQPACKET that outlives the kept process: the supervisor hands the
 * same end to each one that it starts (cli/kept_process.h).
 *
 *      kept process                                      who uses it
 *          hello: what it serves, or why it cannot ------------->
 *          <------------- files: memory to share (kept_memory.h), and whatever else
 *
 * Each hello has a number by chance, which the files repeat: those for a process that has died
 * meanwhile are not taken by the next one.
 */
#ifndef DOPPEL_BASE_KEPT_LINK_H
#define DOPPEL_BASE_KEPT_LINK_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

#define KEPT_LINK_VERSION    1u
#define KEPT_LINK_FILES_MOST 3u
#define KEPT_LINK_ABOUT_MOST 64u /* bytes */

struct kept_hello {
    uint32_t version;
    int32_t error; /* 0, or a positive errno: it cannot be served, as TEXT says */
    uint64_t number;
    uint8_t about[KEPT_LINK_ABOUT_MOST]; /* what is served, as its kind has it */
    char text[480];                      /* ends with a byte 0 */
};

/* What comes with files. */
struct kept_start {
    uint32_t version, unused;
    uint64_t number;
};

/* A hello with a new number; the rest is zero. */
struct kept_hello kept_link_hello(void);
/* The same, for what cannot be served. */
struct kept_hello kept_link_apology(const struct error *why);
int kept_link_send_hello(int link, const struct kept_hello *hello);
/* Before the first hello is taken: has the kernel name the process that sends one. 0 or a negative
 * errno. */
int kept_link_hear_senders(int link);
/* Takes a hello, if there is one. *SENDER: the process that has sent it, as the kernel says; 0: it
 * is in another PID namespace. 1; 0: there is none now; -EPIPE: the other end is closed;
 * -EPROTO: what came is none. */
int kept_link_receive_hello(int link, struct kept_hello *hello, pid_t *sender);
/* Waits for the first hello, for NS nanoseconds at most. Its text may be shown. 0, or a negative
 * errno and ERR, also if it is an apology. */
int kept_link_await_hello(int link, uint64_t ns, struct kept_hello *hello, pid_t *sender,
                          struct error *err);
/* Sends COUNT files, KEPT_LINK_FILES_MOST at most, without waiting. 0 or a negative errno. */
int kept_link_send_files(int link, uint64_t number, const int *files, unsigned count);
/* Waits for COUNT files with NUMBER, which are the caller's then. 0, -EPIPE or -EPROTO. */
int kept_link_receive_files(int link, uint64_t number, int *files, unsigned count);

#endif
