/*
 * A virtual Ethernet switch: a process of its own that passes frames between virtual machines.
 *
 *      VM process == socket == port [in] --> switch --> [out, backlog] port == socket == VM process
 *                                              |
 *                                  addresses and names (switch_hosts.h)
 *
 * Frames pass with what they leave undone (net.h, wire.h), up to 64 KiB large, so nobody divides
 * them or sums them up on their way. The switch trusts no machine: one that says nonsense is
 * disconnected, one that reads nothing loses frames and holds nobody up, and one that sends under
 * an address of another's is not heard.
 *
 * A client first says who it is, and is told that it has been let in:
 *
 *      struct switch_hello -->           <-- struct switch_hello, its name empty if another has it
 *
 * If it gets no answer, the switch is about to end, and it tries again. Who says nothing keeps
 * neither a port from a machine nor the switch from its end.
 */
#ifndef DOPPEL_NET_SWITCH_H
#define DOPPEL_NET_SWITCH_H

#include "base/error.h"
#include "base/log.h"
#include "net/switch_hosts.h"

#define SWITCH_MAGIC   0x77735044u
#define SWITCH_VERSION 1u
#define SWITCH_FULL    UINT32_MAX /* the version of an answer: there is no room for this machine */

struct switch_hello {
    uint32_t magic, version;
    char name[NET_NAME_MOST + 1]; /* of the machine: a hostname; else it has none */
};

/* Serves the switch NAME at LISTENER, a Unix socket that listens, until the last machine has gone,
 * or none has come within PATIENCE_NS. ENDING (may be NULL) is called before clients that have not
 * been let in are turned away: whoever comes later must find another switch. 0, or a negative
 * errno. */
int switch_serve(const char *name, int listener, uint64_t patience_ns, void (*ending)(void *opaque),
                 void *opaque, const struct log *log, struct error *err);

/* Connects FD, a connection to a switch, as the machine NAME (may be NULL). Waits for at most
 * PATIENCE_NS. 0; -EAGAIN: the switch is about to end; or another negative errno, as ERR says. */
int switch_greet(int fd, const char *name, uint64_t patience_ns, struct error *err);

#endif
