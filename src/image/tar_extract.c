/*
 * Unpacks a tar archive, of which nothing is trusted, into a folder of the host.
 */
#include "image/tar_extract.h"

#include "image/archive_library.h"
#include "image/archive_locale.h"
#include "image/extract.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (256 * KiB) /* that is read at once */

struct unpacking {
    struct archive_library library;
    const struct tar_extract_options *options;
    struct archive *archive;
    struct extract extract;
    struct tar_extracted *extracted;
};

static int damaged(const struct unpacking *u, struct error *err)
{
    const char *text = u->library.error_string(u->archive);

    return error_set(err, EINVAL, "the archive is damaged or incomplete: %.200s",
                     text ? text : "no reason is given");
}

static int tick(const struct unpacking *u, struct error *err)
{
    if (u->options->tick(u->options->opaque, u->extracted->bytes))
        return error_set(err, EINTR, "interrupted");
    return 0;
}

/* Writes to PATH, of 4096 bytes, where NAME of the archive is to be. */
static int place(const struct unpacking *u, const char *name, char *path, struct error *err)
{
    const struct tar_extract_options *o = u->options;
    char clean[4096];
    size_t from = strlen(o->from), to = strlen(o->to);
    const char *rest = clean;

    if (!name || !extract_clean(name, clean, sizeof(clean)))
        return error_set(err, EINVAL, "'%.200s' in the archive leads elsewhere or is too long",
                         name ? name : "");
    if (from > 0) {
        if (strncmp(clean, o->from, from) != 0 || (clean[from] && clean[from] != '/'))
            return error_set(err, EINVAL, "'%.200s' in the archive is not what was asked for",
                             name);
        rest = clean + from + (clean[from] == '/');
    }
    if (to + 1 + strlen(rest) >= sizeof(clean))
        return error_set(err, ENAMETOOLONG, "'%.200s' is too long", name);
    memcpy(path, o->to, to);
    if (to > 0 && *rest)
        path[to++] = '/';
    memcpy(path + to, rest, strlen(rest) + 1);
    return 0;
}

static int write_at(int fd, const void *data, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)data + done, size - done, offset + (off_t)done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_data(struct unpacking *u, int fd, const char *path, int64_t file_size,
                      struct error *err)
{
    const void *data;
    size_t size;
    la_int64_t offset;
    int got, result = 0;

    while (!result &&
           (got = u->library.read_data_block(u->archive, &data, &size, &offset)) != ARCHIVE_EOF) {
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return damaged(u, err);
        if (offset < 0 || offset > file_size || (int64_t)size > file_size - offset)
            return error_set(err, EINVAL, "'%.200s' has data behind its end", path);
        result = write_at(fd, data, size, offset);
        if (result)
            return error_set(err, -result, "cannot write '%.200s': %s", path, strerror(-result));
        u->extracted->bytes += size;
        result = tick(u, err);
    }
    return result;
}

static int make_file(struct unpacking *u, struct archive_entry *entry, const char *path,
                     struct timespec time, struct error *err)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time};
    int64_t size = u->library.entry_size(entry);
    int fd = size < 0 ? error_set(err, EINVAL, "'%.200s' has no size", path)
                      : extract_file(&u->extract, path, err);
    int result = fd < 0 ? fd : write_data(u, fd, path, size, err);

    if (!result && (ftruncate(fd, size) || fchmod(fd, u->library.entry_perm(entry) & 0777) ||
                    futimens(fd, times)))
        result = error_set(err, errno, "cannot complete '%.200s': %s", path, strerror(errno));
    if (fd >= 0 && close(fd) && !result)
        result = error_set(err, errno, "cannot write '%.200s': %s", path, strerror(errno));
    return result;
}

static int make_link(struct unpacking *u, const char *path, const char *existing, struct error *err)
{
    char other[4096];
    int result = place(u, existing, other, err);

    return result ? result : extract_link(&u->extract, path, other, err);
}

static struct timespec time_of(const struct unpacking *u, struct archive_entry *entry)
{
    long nanoseconds = u->library.entry_mtime_nsec(entry);

    return (struct timespec){.tv_sec = u->library.entry_mtime(entry),
                             .tv_nsec =
                                 nanoseconds >= 0 && nanoseconds < 1000000000 ? nanoseconds : 0};
}

static int make(struct unpacking *u, struct archive_entry *entry, struct error *err)
{
    const char *name = u->library.entry_pathname(entry);
    const char *existing = u->library.entry_hardlink(entry), *target;
    struct timespec time = time_of(u, entry);
    char path[4096];
    int result = place(u, name ? name : u->library.entry_pathname_utf8(entry), path, err);

    if (result)
        return result;
    u->extracted->entries++;
    if (!existing)
        existing = u->library.entry_hardlink_utf8(entry);
    if (existing)
        return make_link(u, path, existing, err);
    switch (u->library.entry_filetype(entry)) {
    case AE_IFREG: return make_file(u, entry, path, time, err);
    case AE_IFDIR:
        return extract_folder(&u->extract, path, u->library.entry_perm(entry), time, err);
    case AE_IFLNK:
        target = u->library.entry_symlink(entry);
        if (!target)
            target = u->library.entry_symlink_utf8(entry);
        if (!target || !*target)
            return error_set(err, EINVAL, "'%.200s' is a link that leads nowhere", path);
        return extract_symlink(&u->extract, path, target, time, err);
    default: u->extracted->special++; return 0;
    }
}

static int unpack(struct unpacking *u, int fd, struct error *err)
{
    struct archive_entry *entry;
    int got, result = 0;

    u->archive = u->library.read_new();
    if (!u->archive)
        return error_set(err, ENOMEM, "out of memory");
    u->library.read_support_format_tar(u->archive);
    if (u->library.read_open_fd(u->archive, fd, PIECE) != ARCHIVE_OK)
        return damaged(u, err);
    while (!result && (got = u->library.read_next_header(u->archive, &entry)) != ARCHIVE_EOF) {
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return damaged(u, err);
        result = make(u, entry, err);
        if (!result)
            result = tick(u, err);
    }
    return result ? result : extract_end(&u->extract, err);
}

int tar_extract(int fd, int folder, const struct tar_extract_options *options,
                struct tar_extracted *extracted, struct error *err)
{
    struct unpacking *u = calloc(1, sizeof(*u));
    struct archive_locale locale;
    int result;

    *extracted = (struct tar_extracted){0};
    if (!u) {
        close(folder);
        return error_set(err, ENOMEM, "out of memory");
    }
    u->options = options;
    u->extracted = extracted;
    extract_begin(&u->extract, folder);
    archive_locale_begin(&locale);
    result = archive_library_load(&u->library, err);
    if (!result)
        result = unpack(u, fd, err);
    archive_locale_end(&locale);
    if (u->archive)
        u->library.read_free(u->archive);
    extract_free(&u->extract);
    free(u);
    return result;
}
