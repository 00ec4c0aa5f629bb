/*
 * From a node to its file. The kernel resolves the node's path beneath the folder for each
 * operation (openat2(2)): through no symbolic link, no "..", and no mount unless the user has
 * allowed that. What is found must be the file that the guest means, or the node is stale.
 *
 * A file that has no name any more is reached as long as the guest has it open. So is one that was
 * moved out of the folder, but the guest gets no more access to it than it has.
 */
#ifndef DOPPEL_SHARE_REACH_H
#define DOPPEL_SHARE_REACH_H

#include "share/node.h"

/* Room for "/proc/self/fd/N". */
#define SHARE_LINK_SIZE 32

/* A file that was reached. */
struct share_place {
    int fd;                      /* O_PATH, or HANDLE's */
    bool owned;                  /* closed at the end */
    struct share_handle *handle; /* NULL, or what has lent it */
    struct statx stx;
};

/* Reaches the file of NODE, which the caller holds. -ESTALE: it is not there any more; or another
 * errno. Waits for the folder. A file that is reached by a handle may lie outside of the folder by
 * now: see share_may_access. */
int share_reach(struct share *share, struct share_node *node, struct share_place *place);
/* The same, but not by a handle: the file must be where it was seen. */
int share_reach_named(struct share *share, struct share_node *node, struct share_place *place);
void share_leave(struct share *share, struct share_place *place);
/* Whether the guest may have the access FLAGS (open(2)) to the file of NODE that was reached: it is
 * in the folder, or has no name anywhere, or the handle by which it was reached has that access. 0;
 * or -ESTALE: it was moved out. Waits for the folder. */
int share_may_access(struct share *share, struct share_node *node, const struct share_place *place,
                     int flags);

/* Looks at what is NAME, one component, in the directory PLACE. */
int share_look(const struct share *share, const struct share_place *place, const char *name,
               struct statx *stx);
/* Opens the file or directory that was reached, for reading or writing. -EPERM: it is something
 * else. */
int share_reopen(const struct share *share, const struct share_place *place, int flags);
/* Opens NAME in the directory PLACE, with MODE if it is made. */
int share_open_in(const struct share *share, const struct share_place *place, const char *name,
                  int flags, mode_t mode);
/* 0 if FD is beneath the folder at this moment, or -ESTALE. A directory on the way may have been
 * moved out while the kernel was in it. */
int share_within(const struct share *share, int fd);
/* Writes a path by which calls that do not take O_PATH descriptors reach FD. */
void share_link(int fd, char path[SHARE_LINK_SIZE]);

#endif
