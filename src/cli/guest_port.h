/*
 * Connections to the guests of machines that run: by vsock, through the socket in the machine's run
 * folder (CONNECT PORT, as Firecracker has it), or through a TCP port of this host.
 */
#ifndef DOPPEL_CLI_GUEST_PORT_H
#define DOPPEL_CLI_GUEST_PORT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct guest_port {
    const char *name;  /* the machine's */
    unsigned vsock;    /* the guest's port; or 0, and */
    unsigned tcp;      /* the port on 127.0.0.1 */
    bool speaks_first; /* only one that says something counts as connected; it can still be read */
};

/* Fills in *PORT with the port of the machine NAME that WORD means: a number, of vsock, or "ssh",
 * as the machine's definition says. */
int guest_port_choose(const char *name, const char *word, struct guest_port *port,
                      struct error *err);

/* Connects. Tries again for PATIENCE seconds, as long as the machine runs: a guest that boots does
 * not listen yet. Tells on standard error, if that is a terminal, that it waits. Returns a
 * descriptor; -ENOENT: the machine does not run; another negative errno: it does not answer. */
int guest_port_connect(const struct guest_port *port, unsigned patience, struct error *err);

#endif
