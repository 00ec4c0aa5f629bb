/*
 * Writes a file or a folder of the host as a tar archive, in GNU's format, which busybox reads,
 * too.
 */
#include "image/tar_create.h"

#include "image/archive_library.h"
#include "image/archive_locale.h"

#include "base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (256 * KiB)
#define DEPTH 256 /* of folders in folders: each is open meanwhile */

struct packing {
    struct archive_library library;
    const struct tar_create_options *options;
    struct archive *archive;
    struct tar_created *created;
    char name[PATH_MAX]; /* of the entry that is written */
    unsigned depth;
    uint8_t *piece;
};

static int cannot(const char *what, const char *name, int code, struct error *err)
{
    return error_set(err, code, "cannot %s '%.200s': %s", what, name, strerror(code));
}

static int not_taken(const struct packing *p, struct error *err)
{
    const char *text = p->library.error_string(p->archive);

    return error_set(err, EPIPE, "the archive is not taken: %.200s", text ? text : "no reason");
}

static int tick(const struct packing *p, struct error *err)
{
    if (p->options->tick(p->options->opaque, p->created->bytes))
        return error_set(err, EINTR, "interrupted");
    return 0;
}

/* Writes the header of an entry. TARGET: of a symbolic link. */
static int put_header(struct packing *p, const struct stat *status, const char *target,
                      struct error *err)
{
    struct archive_entry *entry = p->library.entry_new();
    int got;

    if (!entry)
        return error_set(err, ENOMEM, "out of memory");
    p->library.entry_set_pathname(entry, p->name);
    p->library.entry_set_filetype(entry, status->st_mode & S_IFMT);
    p->library.entry_set_perm(entry, status->st_mode & 0777);
    p->library.entry_set_mtime(entry, status->st_mtim.tv_sec, 0);
    p->library.entry_set_size(entry, S_ISREG(status->st_mode) ? status->st_size : 0);
    if (target)
        p->library.entry_set_symlink(entry, target);
    got = p->library.write_header(p->archive, entry);
    p->library.entry_free(entry);
    p->created->entries++;
    return got == ARCHIVE_OK || got == ARCHIVE_WARN ? tick(p, err) : not_taken(p, err);
}

/* Writes SIZE bytes of a file: zeros behind its end, if it has become shorter. */
static int put_data(struct packing *p, int fd, off_t size, struct error *err)
{
    int result = 0;

    for (off_t done = 0; done < size && !result;) {
        size_t want = (size_t)MIN((off_t)PIECE, size - done);
        ssize_t n = read(fd, p->piece, want);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cannot("read", p->name, errno, err);
        if (n == 0)
            memset(p->piece, 0, want);
        n = n ? n : (ssize_t)want;
        if (p->library.write_data(p->archive, p->piece, (size_t)n) < 0)
            return not_taken(p, err);
        done += n;
        p->created->bytes += (uint64_t)n;
        result = tick(p, err);
    }
    return result;
}

static int add_file(struct packing *p, int at, const char *name, struct error *err)
{
    int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), result = 0;
    struct stat status;

    if (fd < 0)
        return cannot("open", p->name, errno, err);
    if (fstat(fd, &status))
        result = cannot("look at", p->name, errno, err);
    else if (S_ISREG(status.st_mode))
        result = put_header(p, &status, NULL, err);
    else
        p->created->special++; /* it has become something else meanwhile */
    if (!result && S_ISREG(status.st_mode))
        result = put_data(p, fd, status.st_size, err);
    close(fd);
    return result;
}

static int add_symlink(struct packing *p, int at, const char *name, const struct stat *status,
                       struct error *err)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(at, name, target, sizeof(target) - 1);

    if (n < 0)
        return cannot("read the link", p->name, errno, err);
    target[n] = '\0';
    return put_header(p, status, target, err);
}

static int add(struct packing *p, int at, const char *name, struct error *err);

/* Adds what is in the folder FD, which is closed. */
static int add_contents(struct packing *p, int fd, struct error *err)
{
    DIR *folder = fdopendir(fd);
    size_t length = strlen(p->name);
    struct dirent *entry;
    int result = 0;

    if (!folder) {
        result = cannot("read", p->name, errno, err);
        close(fd);
        return result;
    }
    while (!result && (errno = 0, entry = readdir(folder))) {
        const char *name = entry->d_name;

        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        if (length + strlen(name) + 2 > sizeof(p->name))
            result = cannot("add", name, ENAMETOOLONG, err);
        else {
            if (length > 0)
                p->name[length] = '/';
            memcpy(p->name + length + (length > 0), name, strlen(name) + 1);
            result = add(p, dirfd(folder), name, err);
        }
        p->name[length] = '\0';
    }
    if (!result && errno)
        result = cannot("read", p->name, errno, err);
    closedir(folder);
    return result;
}

static int add_folder(struct packing *p, int at, const char *name, const struct stat *status,
                      struct error *err)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), result;

    if (fd < 0)
        return cannot("open", p->name, errno, err);
    if (p->depth == DEPTH) {
        close(fd);
        return error_set(err, ENAMETOOLONG, "'%.200s' has too many folders in folders", p->name);
    }
    result = *p->name ? put_header(p, status, NULL, err) : 0;
    if (result) {
        close(fd);
        return result;
    }
    p->depth++;
    result = add_contents(p, fd, err);
    p->depth--;
    return result;
}

/* Adds the file NAME, which is in the folder AT, as p->name. */
static int add(struct packing *p, int at, const char *name, struct error *err)
{
    struct stat status;

    if (fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW))
        return cannot("find", *p->name ? p->name : name, errno, err);
    switch (status.st_mode & S_IFMT) {
    case S_IFREG: return add_file(p, at, name, err);
    case S_IFDIR: return add_folder(p, at, name, &status, err);
    case S_IFLNK: return add_symlink(p, at, name, &status, err);
    default: p->created->special++; return 0;
    }
}

static int pack(struct packing *p, int fd, struct error *err)
{
    int result;

    p->archive = p->library.write_new();
    p->piece = malloc(PIECE);
    if (!p->archive || !p->piece)
        return error_set(err, ENOMEM, "out of memory");
    if (p->library.write_set_format_gnutar(p->archive) != ARCHIVE_OK ||
        p->library.write_open_fd(p->archive, fd) != ARCHIVE_OK)
        return not_taken(p, err);
    memcpy(p->name, p->options->name, strlen(p->options->name) + 1);
    result = add(p, AT_FDCWD, p->options->path, err);
    if (!result && p->library.write_close(p->archive) != ARCHIVE_OK)
        result = not_taken(p, err);
    return result;
}

int tar_create(int fd, const struct tar_create_options *options, struct tar_created *created,
               struct error *err)
{
    struct packing *p = calloc(1, sizeof(*p));
    struct archive_locale locale;
    int result;

    *created = (struct tar_created){0};
    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    if (strlen(options->name) >= sizeof(p->name)) {
        free(p);
        return error_set(err, ENAMETOOLONG, "'%.200s' is too long", options->name);
    }
    p->options = options;
    p->created = created;
    archive_locale_begin(&locale);
    result = archive_library_load(&p->library, err);
    if (!result)
        result = pack(p, fd, err);
    if (p->archive)
        p->library.write_free(p->archive);
    archive_locale_end(&locale);
    free(p->piece);
    free(p);
    return result;
}
