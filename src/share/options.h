/*
 * What a user says of a shared folder, as text: F[,KEY=VALUE]...
 *
 *      F, folder=F              the folder; or vhost-user=SOCKET, one that another program serves
 *                               (dev/vhost), of which only the tag and queues are said here
 *      tag=T                    the name by which the guest mounts it, up to 36 bytes ("share")
 *      readonly[=on|off]        the guest cannot change anything
 *      owner=UID[:GID]          whose files the guest sees as this user's those are that belong to
 *                               the user who runs doppel (0:0); all others belong to nobody
 *      owner=xattr              owner and mode are what the guest has set, which is kept in an
 *                               extended attribute of each file; without one, as above
 *      owner=host               as on the host
 *      mounts[=on|off]          what is mounted inside of the folder is shared, too
 *      timeout=SECONDS          how long the guest may believe what it has seen (1)
 *      queues=N                 of the device, 1 to 8
 *      isolate[=on|off]         the folder is served by a process of its own
 *
 * In F and T a comma is written as two.
 */
#ifndef DOPPEL_SHARE_OPTIONS_H
#define DOPPEL_SHARE_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SHARE_TAG_MOST    36 /* bytes (virtio 1.2, 5.11.4) */
#define SHARE_QUEUES_MOST 8

enum share_owner { SHARE_OWNER_MAP, SHARE_OWNER_XATTR, SHARE_OWNER_HOST };

struct share_options {
    char *folder, *tag;
    bool vhost_user; /* FOLDER is a socket, which is not opened here */
    bool readonly, mounts, isolate;
    enum share_owner owner;
    uint32_t uid, gid; /* whom the guest sees as owner of our files */
    unsigned timeout_ms;
    unsigned queues; /* 0: not said */
};

/* Reads TEXT. On failure *OPTIONS needs no freeing. */
int share_options_parse(const char *text, struct share_options *options, struct error *err);
/* Frees what *OPTIONS holds, and clears it. */
void share_options_free(struct share_options *options);

#endif
