/*
 * Whom a file belongs to in the guest's eyes, and with which mode. doppel runs without root, so on
 * the host all that a guest makes belongs to the user who runs it. See options.h for the ways.
 */
#ifndef DOPPEL_SHARE_OWNER_H
#define DOPPEL_SHARE_OWNER_H

#include "share/reach.h"

/* What owner=xattr keeps: "UID:GID:MODE", numbers in decimal but for the mode. No guest sees or
 * changes it as an attribute. */
#define SHARE_OWNER_XATTR_NAME "user.doppel.owner"

/* As a guest sees them. Mode: without the type. */
struct share_owner_of {
    uint32_t uid, gid, mode;
};

/* PATH leads to the file that STX is of: to itself by share_link, or (NAME not NULL) to the
 * directory in which it is NAME. */
void share_owner_get(const struct share *share, const char *path, const char *name,
                     const struct statx *stx, struct share_owner_of *owner);
/* Changes what is not -1 (mode, and owner). PATH: by share_link. */
int share_owner_set(const struct share *share, const char *path, const struct statx *stx,
                    int64_t mode, int64_t uid, int64_t gid);
/* What was made belongs to UID and GID, and has MODE, whatever this process's umask is. */
int share_owner_new(const struct share *share, const char *path, const struct statx *stx,
                    uint32_t mode, uint32_t uid, uint32_t gid);
/* Clears the bits that give rights to whoever executes the file, as a write does. */
int share_owner_kill(const struct share *share, const char *path, const struct statx *stx);
/* The mode with which the host makes a file that the guest makes with MODE, type included. */
mode_t share_owner_mode(const struct share *share, uint32_t mode);

#endif
