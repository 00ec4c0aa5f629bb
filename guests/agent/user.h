/*
 * Users and groups of a guest, as the files passwd(5) and group(5) have them. The agent is linked
 * statically, so it cannot ask services that know of more users.
 */
#ifndef DOPPEL_GUESTS_AGENT_USER_H
#define DOPPEL_GUESTS_AGENT_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define AGENT_GROUPS_MOST 256

struct agent_user {
    uid_t uid;
    gid_t gid;
    char name[64], home[256], shell[256];
    gid_t groups[AGENT_GROUPS_MOST]; /* the first is GID */
    unsigned group_count;
};

/* Looks NAME up in PASSWD and GROUP, the text of the files, each SIZE bytes. NAME is a user's name,
 * or UID or UID:GID, which need not be known. False: there is no such user. */
bool agent_user_find(const char *name, const char *passwd, size_t passwd_size, const char *group,
                     size_t group_size, struct agent_user *user);

/* The same, in the files of this system. */
bool agent_user_look_up(const char *name, struct agent_user *user);

#endif
