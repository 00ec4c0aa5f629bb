/*
 * Whom a file belongs to in the guest's eyes.
 */
#include "share/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NOBODY    65534u
#define TEXT_MOST 48 /* of the attribute */

/* Only these can have attributes that a user sets. */
static bool has_attributes(const struct statx *stx)
{
    return S_ISREG(stx->stx_mode) || S_ISDIR(stx->stx_mode);
}

static void map(const struct share *s, const struct statx *stx, struct share_owner_of *owner)
{
    const struct share_options *o = &s->options;

    *owner = (struct share_owner_of){
        .uid = stx->stx_uid, .gid = stx->stx_gid, .mode = stx->stx_mode & 07777u};
    if (o->owner == SHARE_OWNER_HOST)
        return;
    owner->uid = stx->stx_uid == s->uid ? o->uid : NOBODY;
    owner->gid = stx->stx_gid == s->gid ? o->gid : NOBODY;
}

/* Reads all of TEXT. */
static bool parse(const char *text, struct share_owner_of *owner)
{
    unsigned uid, gid, mode;
    int end = 0;

    if (sscanf(text, "%10u:%10u:%4o%n", &uid, &gid, &mode, &end) != 3 || text[end])
        return false;
    *owner = (struct share_owner_of){.uid = uid, .gid = gid, .mode = mode & 07777u};
    return true;
}

static void read_attribute(const char *path, const char *name, struct share_owner_of *owner)
{
    char whole[SHARE_LINK_SIZE + NAME_MAX + 2], text[TEXT_MOST + 1];
    ssize_t size;

    if (name) {
        snprintf(whole, sizeof(whole), "%s/%s", path, name);
        size = lgetxattr(whole, SHARE_OWNER_XATTR_NAME, text, TEXT_MOST);
    } else {
        size = getxattr(path, SHARE_OWNER_XATTR_NAME, text, TEXT_MOST);
    }
    if (size <= 0)
        return;
    text[size] = '\0';
    parse(text, owner);
}

void share_owner_get(const struct share *s, const char *path, const char *name,
                     const struct statx *stx, struct share_owner_of *owner)
{
    map(s, stx, owner);
    if (s->options.owner == SHARE_OWNER_XATTR && has_attributes(stx))
        read_attribute(path, name, owner);
}

static int write_attribute(const char *path, const struct share_owner_of *owner)
{
    char text[TEXT_MOST];
    int size = snprintf(text, sizeof(text), "%u:%u:%o", owner->uid, owner->gid, owner->mode);

    return setxattr(path, SHARE_OWNER_XATTR_NAME, text, (size_t)size, 0) < 0 ? -errno : 0;
}

mode_t share_owner_mode(const struct share *s, uint32_t mode)
{
    bool folder = S_ISDIR(mode);

    switch (s->options.owner) {
    case SHARE_OWNER_HOST: return mode & 07777;
    /* The guest's root, whom modes do not bind, must reach what it has made. */
    case SHARE_OWNER_XATTR: return (mode & 0777) | (folder ? 0700 : 0600);
    case SHARE_OWNER_MAP: break;
    }
    /* Else a guest could have others on the host run its programs with this user's rights. */
    return mode & (folder ? 03777 : 01777);
}

static int change_mode(const struct share *s, const char *path, const struct statx *stx,
                       uint32_t mode)
{
    mode_t host = share_owner_mode(s, mode | (stx->stx_mode & S_IFMT));

    if (S_ISLNK(stx->stx_mode))
        return -EOPNOTSUPP;
    return chmod(path, host) < 0 ? -errno : 0;
}

/* owner=map: nobody can be given a file but who has it. */
static int check_same(const struct share_owner_of *owner, int64_t uid, int64_t gid)
{
    return (uid >= 0 && uid != owner->uid) || (gid >= 0 && gid != owner->gid) ? -EPERM : 0;
}

static int change_owner(const char *path, int64_t uid, int64_t gid)
{
    return chown(path, (uid_t)uid, (gid_t)gid) < 0 ? -errno : 0;
}

int share_owner_set(const struct share *s, const char *path, const struct statx *stx, int64_t mode,
                    int64_t uid, int64_t gid)
{
    bool owns = uid >= 0 || gid >= 0;
    struct share_owner_of owner;
    int ret = 0;

    share_owner_get(s, path, NULL, stx, &owner);
    if (owns && s->options.owner == SHARE_OWNER_HOST)
        ret = change_owner(path, uid, gid);
    else if (owns && (s->options.owner == SHARE_OWNER_MAP || !has_attributes(stx)))
        ret = check_same(&owner, uid, gid);
    if (ret == 0 && mode >= 0)
        ret = change_mode(s, path, stx, (uint32_t)mode);
    if (ret < 0 || s->options.owner != SHARE_OWNER_XATTR || !has_attributes(stx))
        return ret;
    owner.uid = uid >= 0 ? (uint32_t)uid : owner.uid;
    owner.gid = gid >= 0 ? (uint32_t)gid : owner.gid;
    owner.mode = mode >= 0 ? (uint32_t)mode & 07777 : owner.mode;
    return write_attribute(path, &owner);
}

int share_owner_new(const struct share *s, const char *path, const struct statx *stx, uint32_t mode,
                    uint32_t uid, uint32_t gid)
{
    const struct share_owner_of owner = {.uid = uid, .gid = gid, .mode = mode & 07777};
    mode_t host = share_owner_mode(s, mode | (stx->stx_mode & S_IFMT));

    if (S_ISLNK(stx->stx_mode))
        return 0;
    if ((host & s->umask) && chmod(path, host) < 0)
        return -errno;
    if (s->options.owner == SHARE_OWNER_XATTR && has_attributes(stx))
        return write_attribute(path, &owner);
    return 0;
}

int share_owner_kill(const struct share *s, const char *path, const struct statx *stx)
{
    struct share_owner_of owner;
    uint32_t kill = S_ISUID;

    share_owner_get(s, path, NULL, stx, &owner);
    if (owner.mode & S_IXGRP)
        kill |= S_ISGID;
    if (!S_ISREG(stx->stx_mode) || !(owner.mode & kill))
        return 0;
    return share_owner_set(s, path, stx, owner.mode & ~kill, -1, -1);
}
