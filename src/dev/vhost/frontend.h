/*
 * The front end of vhost-user: a connection to a back end in another process, which maps guest
 * memory and serves rings.
 *
 *      vhost_connect     the socket; what the back end offers
 *      vhost_start       features, memory table, rings: the back end serves
 *      vhost_stop        rings end; then perhaps vhost_start again
 *      vhost_disconnect
 *
 * Each question to the back end waits for its answer for at most VHOST_PATIENCE_MS; a call asks
 * several, and waits for at most VHOST_CALL_MS in all, since a machine that is to pause may wait
 * for it. A caller that ends has a file descriptor become readable, and then the call fails with
 * -ECANCELED at once. When a call has failed, the connection is of no use and must be closed. One
 * thread at a time.
 */
#ifndef DOPPEL_DEV_VHOST_FRONTEND_H
#define DOPPEL_DEV_VHOST_FRONTEND_H

#include "base/error.h"
#include "dev/vhost/message.h"
#include "dev/vhost/ring.h"
#include "mem/foreign.h"

#include <stdbool.h>
#include <stdint.h>

#define VHOST_PATIENCE_MS 5000
#define VHOST_CALL_MS     10000

/* Where the back end has the first of the rings. Nothing of a guest's is there: RAM ends below. */
#define VHOST_RINGS_GPA (UINT64_C(1) << 46)

/* The parts of RAM of which a memory table has room beside the rings. */
#define VHOST_PARTS_MAX (VHOST_REGIONS_MAX - 1)

struct vhost_connection {
    int socket;        /* -1: there is none */
    int backend;       /* where the back end sends its own requests; -1: nowhere */
    int stop;          /* readable: no call waits any more; -1: that never is */
    uint64_t end;      /* of the call that is under way; nanoseconds */
    uint64_t features; /* what it offers */
    uint64_t protocol; /* protocol features that both have */
    unsigned queues;   /* how many it can serve */
    struct vhost_reader reply, request;
};

/* A ring and the two event files by which both ends tell each other of its progress. */
struct vhost_queue_files {
    int kick, call;
};

/* Connects to the socket PATH and asks what the back end offers. On failure there is no connection.
 * STOP stays the caller's and is open as long as the connection; -1: there is none. */
int vhost_connect(struct vhost_connection *c, const char *path, int stop, struct error *err);
void vhost_disconnect(struct vhost_connection *c);

/* Reads the first SIZE bytes of the device's configuration. */
int vhost_get_config(struct vhost_connection *c, void *config, uint32_t size, struct error *err);

/* What is to be served. */
struct vhost_service {
    uint64_t features; /* of those that the back end offers */
    const struct mem_export *parts;
    unsigned part_count; /* at most VHOST_PARTS_MAX */
    /* QUEUES rings, one behind the other in the file RINGS, each of VHOST_RING_BYTES. */
    int rings;
    unsigned queues;
    unsigned enabled; /* the first so many are served; the rest is ready to be, by vhost_enable */
    const struct vhost_queue_files *files;
};

/* Has the back end serve. The rings are empty. */
int vhost_start(struct vhost_connection *c, const struct vhost_service *service, struct error *err);
/* Has the queues from FIRST up to END, and not with it, served or not. */
int vhost_enable(struct vhost_connection *c, unsigned first, unsigned end, bool on,
                 struct error *err);
/* Ends that: afterwards the back end looks at no ring. */
int vhost_stop(struct vhost_connection *c, unsigned queues, struct error *err);

/* Looks at what the back end has sent of its own accord, when one of its sockets is readable. Sets
 * *CONFIG_CHANGED if the configuration is another. A negative errno: the back end is gone, or broke
 * the protocol. */
int vhost_look(struct vhost_connection *c, bool *config_changed);

#endif
