/*
 * Which users an image may have at once.
 */
#include "blk/file/lock.h"

#include "base/time.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DOES    100 /* + N: the user who has locked it does what permission N is for */
#define FORBIDS 200 /* + N: the user who has locked it forbids that to all other users */
#define READS   0
#define WRITES  1
#define RESIZES 3
#define RANGES  (INT64_C(1) << 62)

static struct flock lock_of(short type, int64_t start, int64_t length)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

static int take(int fd, short type, int64_t start, int64_t length)
{
    struct flock lock = lock_of(type, start, length);

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Returns 1 if another open file has a lock on BYTE, 0 if none has, or a negative errno. */
static int is_held(int fd, int64_t byte)
{
    struct flock lock = lock_of(F_WRLCK, byte, 1);

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    return lock.l_type != F_UNLCK;
}

/* Locks the bytes OWN, then looks at the bytes AVOID; both lists end with 0. Returns -EBUSY if
 * another user has locked one of AVOID. */
static int take_and_look(int fd, const int *own, const int *avoid)
{
    int ret = 0;

    for (; *own && ret == 0; own++)
        ret = take(fd, F_RDLCK, *own, 1);
    for (; *avoid && ret == 0; avoid++)
        ret = is_held(fd, *avoid) == 1 ? -EBUSY : 0;
    return ret;
}

static int lock_whole(int fd, bool writes)
{
    static const int writer[] = {DOES + READS,     DOES + WRITES,     DOES + RESIZES,
                                 FORBIDS + WRITES, FORBIDS + RESIZES, 0},
                     reader[] = {DOES + READS, FORBIDS + WRITES, FORBIDS + RESIZES, 0},
                     no_writer[] = {FORBIDS + READS, FORBIDS + WRITES, FORBIDS + RESIZES,
                                    DOES + WRITES,   DOES + RESIZES,   0},
                     no_reader[] = {FORBIDS + READS, DOES + WRITES, DOES + RESIZES, 0};

    return take_and_look(fd, writes ? writer : reader, writes ? no_writer : no_reader);
}

static int lock_part(int fd, const struct lock_use *use)
{
    static const int writer[] = {DOES + WRITES, 0}, reader[] = {FORBIDS + WRITES, 0},
                     no_user[] = {DOES + READS, 0}, nothing[] = {0};
    int ret = take(fd, use->writes ? F_WRLCK : F_RDLCK, RANGES + (int64_t)use->offset,
                   (int64_t)use->size);

    if (ret < 0)
        return ret;
    if (use->writes)
        return take_and_look(fd, writer, no_user);
    ret = take_and_look(fd, reader, nothing);
    /* Only a writer of the whole file has locked both. */
    if (ret == 0 && is_held(fd, DOES + READS) == 1 && is_held(fd, DOES + WRITES) == 1)
        ret = -EBUSY;
    return ret;
}

void unlock_image(int fd)
{
    take(fd, F_UNLCK, 0, 0);
}

static int lock_once(int fd, const struct lock_use *use)
{
    int ret = use->size ? lock_part(fd, use) : lock_whole(fd, use->writes);

    /* Until the next try its locks must not keep other users away. */
    if (ret == -EBUSY)
        unlock_image(fd);
    return ret;
}

/* Whether this process has the file of FD open by another descriptor, too. False if /proc does not
 * tell. */
static bool is_open_twice(int fd)
{
    DIR *folder = opendir("/proc/self/fd");
    struct stat file, other;
    struct dirent *entry;
    bool found = false;

    if (!folder)
        return false;
    while (fstat(fd, &file) == 0 && !found && (entry = readdir(folder)))
        found = entry->d_name[0] != '.' && atoi(entry->d_name) != fd &&
                fstatat(dirfd(folder), entry->d_name, &other, 0) == 0 &&
                other.st_dev == file.st_dev && other.st_ino == file.st_ino;
    closedir(folder);
    return found;
}

static int complain_of_use(int fd, const char *name, const struct lock_use *use, struct error *err)
{
    if (is_open_twice(fd))
        return error_set(err, EBUSY,
                         "disk '%s' is in use already: it is named twice, or its parts overlap",
                         name);
    return error_set(err, EBUSY, "disk '%s' is in use by another process%s", name,
                     use->writes ? "" : ", which writes to it");
}

int lock_image(int fd, const char *name, const struct lock_use *use, uint64_t wait_ns,
               const struct log *log, struct error *err)
{
    uint64_t begun = time_now_ns();
    int ret = lock_once(fd, use);

    while (ret == -EBUSY && time_now_ns() - begun < wait_ns) {
        time_sleep_ns(5 * NS_PER_MS);
        ret = lock_once(fd, use);
    }
    if (ret == -EBUSY)
        return complain_of_use(fd, name, use, err);
    if (ret < 0)
        log_line(log, LOG_LEVEL_WARNING,
                 "disk '%s': its file system cannot lock it (%s): see that nobody else uses it",
                 name, strerror(-ret));
    return 0;
}
