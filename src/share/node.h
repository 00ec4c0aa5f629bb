/*
 * The files of a shared folder that a guest knows. The guest counts its look-ups of a node and
 * gives them back (FUSE_FORGET). A node holds no descriptor: it remembers the directory and the
 * name at which the file was last seen, and what tells it from another file there.
 */
#ifndef DOPPEL_SHARE_NODE_H
#define DOPPEL_SHARE_NODE_H

#include "share/share_private.h"

#include <sys/stat.h>

/* What statx is asked for. */
#define SHARE_STATX (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)

/* What tells a file from all others, also from one that has its inode number later. */
struct share_key {
    uint64_t device, inode;
    uint64_t birth; /* in ns; 0: the file system does not say */
    uint32_t type;  /* S_IFMT */
};

struct share_node {
    struct share_key key;
    uint64_t number;              /* the guest's name for it */
    uint64_t lookups;             /* that the guest has not given back */
    unsigned users;               /* operations, handles, and nodes that were seen in it */
    bool hashed;                  /* it is found by its key */
    struct share_node *next;      /* in the table */
    struct share_node *parent;    /* where it was last seen, */
    char *name;                   /* and as what. NULL: nowhere, or it is the folder itself */
    struct share_handle *handles; /* open ones */
    struct share_holder *holders; /* who has locks by fcntl */
    uint64_t seen; /* what its times and size were when the guest opened it last; 0: unknown */
};

struct share_key share_key_of(const struct statx *stx);
bool share_key_is(const struct share_key *key, const struct statx *stx);
bool share_same_key(const struct share_key *a, const struct share_key *b);

int share_nodes_init(struct share *share, const struct statx *top);
/* The guest has given all look-ups back. */
void share_nodes_forget(struct share *share);
void share_nodes_free(struct share *share);

/* The node with this NUMBER, which stays until it is dropped; or NULL. */
struct share_node *share_node_hold(struct share *share, uint64_t number);
void share_node_drop(struct share *share, struct share_node *node);
/* The guest has given COUNT look-ups back. */
void share_node_forget(struct share *share, uint64_t number, uint64_t count);
/* The node of what STX says was seen in PARENT as NAME; makes it if there is none. It counts as
 * looked up once more, and is held. Returns -ENFILE: the guest knows too many, or their names are
 * too long; or -ENOMEM. PARENT NULL: a file without a name.
 */
int share_node_found(struct share *share, struct share_node *parent, const char *name,
                     const struct statx *stx, struct share_node **node);
/* Notes that the file of KEY is now NAME in PARENT, if the guest knows it. */
void share_node_moved(struct share *share, const struct share_key *key, struct share_node *parent,
                      const char *name);
/* Notes that the file of KEY is no longer NAME in PARENT. LAST: that was its last name. */
void share_node_gone(struct share *share, const struct share_key *key, struct share_node *parent,
                     const char *name, bool last);
/* Whether NODE has no name that is known. */
bool share_node_is_nowhere(struct share *share, const struct share_node *node);
/* Notes that the guest opens NODE, whose attributes are STX. Returns whether all that it has read
 * of the file before is still true, as far as times and size tell. */
bool share_node_unchanged(struct share *share, struct share_node *node, const struct statx *stx);
/* Writes the path of NODE, from the folder on, to the end of BUFFER. Returns where it begins. The
 * folder itself is ".". -ESTALE: it is nowhere; -ENAMETOOLONG. */
int share_node_path(struct share *share, const struct share_node *node, char *buffer, size_t size,
                    const char **path);

/* For a mirror (mirror.h), which has no names of the host's to look for, and whose nodes stay until
 * their end is told. Puts a node there, or moves it: into PARENT, or nowhere if that is not known
 * any more. 0; -EINVAL: that cannot be; or as share_node_name. */
int share_node_put(struct share *share, uint64_t number, const struct share_key *key,
                   uint64_t parent, const char *name);
/* Takes a node away, if it is there. -EINVAL: it is in use. */
int share_node_end(struct share *share, uint64_t number);
/* The node was looked up MORE times. */
void share_node_count(struct share *share, uint64_t number, uint64_t more);
/* Takes away what the guest has never heard of. */
void share_nodes_sweep(struct share *share);

/* Inside, for saving and loading (save.c). */
struct share_node *share_node_make(struct share *share, const struct share_key *key);
/* Gives NODE, which has none, a copy of NAME. -ENFILE: all names together are too long; -ENOMEM. */
int share_node_name(struct share *share, struct share_node *node, const char *name);
void share_node_unname(struct share *share, struct share_node *node);
void share_node_hash(struct share *share, struct share_node *node);
/* Whether NODE may be seen in PARENT: it is not above it. With the lock. */
bool share_node_may_be_in(const struct share_node *node, const struct share_node *parent);

#endif
