/*
 * The socket between a disk's process and the process that uses the disk, by which they find each
 * other. It is a pair of the kind SOCK_SEQPACKET that outlives the disk's process: the supervisor
 * hands the same end to each process that it starts.
 *
 *      the disk's process                                VM process
 *          hello: what the disk is, or why it cannot be opened ---->
 *          <----------- start: the memory (blk/isolated/ring.h) and two event files
 *
 * Each hello has a number by chance, which the start repeats: a start for a process that has died
 * meanwhile is not taken by the next one.
 */
#ifndef DOPPEL_BLK_ISOLATED_LINK_H
#define DOPPEL_BLK_ISOLATED_LINK_H

#include "blk/blk.h"
#include "blk/options.h"

#include <sys/types.h>

#define ISOLATED_VERSION 1u

struct isolated_hello {
    uint32_t version;
    int32_t error; /* 0, or a positive errno: the disk cannot be opened, as TEXT says */
    uint64_t number;
    uint64_t size;
    uint32_t block, optimal;
    uint8_t format; /* enum blk_format */
    uint8_t readonly, discards, zeroes;
    uint8_t unused[4];
    char text[480]; /* ends with a byte 0 */
};

enum { ISOLATED_MEMORY, ISOLATED_REQUEST_EVENT, ISOLATED_RESULT_EVENT, ISOLATED_FILES };

struct isolated_start {
    uint32_t version, unused;
    uint64_t number;
};

int isolated_send_hello(int link, const struct isolated_hello *hello);
/* Before the first hello is taken: has the kernel name the process that sends one. 0 or a negative
 * errno. */
int isolated_hear_senders(int link);
/* Takes a hello, if there is one. *SENDER: the process that has sent it, as the kernel says; 0: it
 * is in another PID namespace. 1; 0: there is none now; -EPIPE: the other end is closed;
 * -EPROTO: what came is none. */
int isolated_receive_hello(int link, struct isolated_hello *hello, pid_t *sender);
int isolated_send_start(int link, uint64_t number, const int files[ISOLATED_FILES]);
/* Waits for the start with NUMBER; FILES are the caller's then. 0, -EPIPE or -EPROTO. */
int isolated_receive_start(int link, uint64_t number, int files[ISOLATED_FILES]);

#endif
