/*
 * Folders with all that is in them.
 */
#include "ctl/tree.h"

#include <errno.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WALK (FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV)

/* Removes what the walk has come to. Returns 0 or an errno. */
static int remove_entry(const FTSENT *entry)
{
    switch (entry->fts_info) {
    case FTS_D: /* before what is in it, which could not be removed from a read-only folder */
        if ((entry->fts_statp->st_mode & S_IRWXU) != S_IRWXU)
            chmod(entry->fts_accpath, S_IRWXU);
        return 0;
    case FTS_DP: return rmdir(entry->fts_accpath) < 0 ? errno : 0;
    case FTS_DNR:
    case FTS_ERR: return entry->fts_errno;
    default: return unlink(entry->fts_accpath) < 0 ? errno : 0;
    }
}

int tree_remove(const char *path, struct error *err)
{
    char name[PATH_MAX];
    char *paths[] = {name, NULL};
    FTS *walk;
    FTSENT *entry;
    int ret = 0;

    if (snprintf(name, sizeof(name), "%s", path) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the path %s is too long", path);
    walk = fts_open(paths, WALK, NULL);
    if (!walk)
        return error_set(err, errno, "cannot remove %s: %s", path, strerror(errno));
    while ((entry = fts_read(walk))) {
        int code = remove_entry(entry);

        if (code && code != ENOENT && !ret)
            ret = error_set(err, code, "cannot remove %s: %s", entry->fts_path, strerror(code));
    }
    fts_close(walk);
    return ret;
}

uint64_t tree_size(const char *path)
{
    char name[PATH_MAX];
    char *paths[] = {name, NULL};
    uint64_t size = 0;
    FTS *walk;
    FTSENT *entry;

    if (snprintf(name, sizeof(name), "%s", path) >= PATH_MAX)
        return 0;
    walk = fts_open(paths, WALK, NULL);
    if (!walk)
        return 0;
    while ((entry = fts_read(walk)))
        if (entry->fts_info == FTS_F || entry->fts_info == FTS_D)
            size += (uint64_t)entry->fts_statp->st_blocks * 512;
    fts_close(walk);
    return size;
}
