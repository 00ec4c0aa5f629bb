/*
 * Puts what a tar archive holds into an ext4 file system, by libarchive.
 *
 * An archive may come from anywhere. Paths are read by ext4.h, which keeps all of them inside the
 * file system; how much there can be is limited by the file system's size.
 */
#include "image/tar.h"

#include "base/util.h"
#include "image/archive_library.h"
#include "image/archive_locale.h"
#include "image/ext4.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE       (256 * KiB) /* that is read at once */
#define XATTRS_MOST 64u
#define RECORD      512 /* bytes of a header, and of an archive's end at least (POSIX, pax) */

#define WHITEOUT                                                                                   \
    "."                                                                                            \
    "wh."
#define OPAQUE                                                                                     \
    WHITEOUT WHITEOUT "."                                                                          \
                      "opq" /* ".wh..wh..opq" */

struct tar {
    struct archive_library library;
    const struct tar_options *options;
    struct archive *archive;
    struct ext4 *ext4;
    bool removing; /* the first pass over a layer: only what is removed */
};

/* An entry as it is added. */
struct item {
    struct archive_entry *entry;
    const char *path;
    struct ext4_attributes attributes;
    struct ext4_xattr xattrs[XATTRS_MOST];
};

static int damaged(const struct tar *tar, struct error *err)
{
    const char *text = tar->library.error_string(tar->archive);

    return error_set(err, EINVAL, "%s: the archive is damaged or incomplete: %.200s",
                     tar->options->name, text ? text : "no reason is given");
}

static bool interrupted(const struct tar *tar)
{
    return tar->options->tick &&
           tar->options->tick(tar->options->opaque,
                              (uint64_t)tar->library.filter_bytes(tar->archive, -1));
}

static int stop(const struct tar *tar, struct error *err)
{
    return error_set(err, EINTR, "%s: interrupted", tar->options->name);
}

/* ---- An entry's attributes ---- */

static int read_xattrs(const struct tar *tar, struct item *item, struct error *err)
{
    struct ext4_xattr xattr;
    unsigned count = 0;

    tar->library.entry_xattr_reset(item->entry);
    while (tar->library.entry_xattr_next(item->entry, &xattr.name, &xattr.value, &xattr.size) ==
           ARCHIVE_OK) {
        if (!xattr.name || count == XATTRS_MOST)
            return error_set(err, EINVAL, "%s: '%.200s' has more than %u extended attributes",
                             tar->options->name, item->path, XATTRS_MOST);
        item->xattrs[count++] = xattr;
    }
    item->attributes.xattrs = item->xattrs;
    item->attributes.xattr_count = count;
    return 0;
}

static int read_attributes(const struct tar *tar, struct item *item, struct error *err)
{
    int64_t uid = tar->library.entry_uid(item->entry), gid = tar->library.entry_gid(item->entry);

    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return error_set(err, EINVAL, "%s: '%.200s' has no owner that Linux knows",
                         tar->options->name, item->path);
    item->attributes = (struct ext4_attributes){
        .mode = tar->library.entry_perm(item->entry),
        .uid = (uint32_t)uid,
        .gid = (uint32_t)gid,
        .seconds = tar->library.entry_mtime(item->entry),
        .nanoseconds = (uint32_t)tar->library.entry_mtime_nsec(item->entry)};
    return read_xattrs(tar, item, err);
}

/* ---- Entries ---- */

static int add_file(const struct tar *tar, const struct item *item, struct error *err)
{
    int64_t size = tar->library.entry_size(item->entry);
    const void *data;
    size_t length;
    la_int64_t offset;
    int got, result;

    if (size < 0)
        return error_set(err, EINVAL, "%s: '%.200s' has no size", tar->options->name, item->path);
    result = ext4_file_begin(tar->ext4, item->path, &item->attributes, err);
    while (!result) {
        got = tar->library.read_data_block(tar->archive, &data, &length, &offset);
        if (got == ARCHIVE_EOF)
            break;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            result = damaged(tar, err);
        else if (interrupted(tar))
            result = stop(tar, err);
        else if (offset < 0)
            result = error_set(err, EINVAL, "%s: '%.200s' has data in no place", tar->options->name,
                               item->path);
        else
            result = ext4_file_write(tar->ext4, (uint64_t)offset, data, length, err);
    }
    return result ? result : ext4_file_end(tar->ext4, (uint64_t)size, err);
}

/* Whether the entry is one of a layer's that only remove; if so, it is done in the first pass. */
static bool is_whiteout(const struct tar *tar, const struct item *item, int *result,
                        struct error *err)
{
    const char *slash = strrchr(item->path, '/');
    const char *name = slash ? slash + 1 : item->path;
    size_t folder = (size_t)(name - item->path), rest;
    char path[4096];

    *result = 0;
    if (!tar->options->layer || strncmp(name, WHITEOUT, strlen(WHITEOUT)) != 0)
        return false;
    if (!tar->removing)
        return true;
    rest = strlen(name + strlen(WHITEOUT));
    if (folder + rest >= sizeof(path)) {
        *result = error_set(err, ENAMETOOLONG, "%s: a path is too long", tar->options->name);
        return true;
    }
    memcpy(path, item->path, folder);
    path[folder] = '\0';
    if (!strcmp(name, OPAQUE)) {
        *result = ext4_remove_contents(tar->ext4, path, err);
        return true;
    }
    memcpy(path + folder, name + strlen(WHITEOUT), rest + 1);
    if (rest)
        *result = ext4_remove(tar->ext4, path, err);
    return true;
}

static int add_link(const struct tar *tar, const struct item *item, const char *existing,
                    struct error *err)
{
    return ext4_link(tar->ext4, item->path, existing, err);
}

static int add_symlink(const struct tar *tar, const struct item *item, struct error *err)
{
    const char *target = tar->library.entry_symlink(item->entry);

    if (!target)
        target = tar->library.entry_symlink_utf8(item->entry);
    if (!target)
        return error_set(err, EINVAL, "%s: '%.200s' is a link that leads nowhere",
                         tar->options->name, item->path);
    return ext4_symlink(tar->ext4, item->path, target, &item->attributes, err);
}

static int add_item(const struct tar *tar, struct item *item, struct error *err)
{
    const char *existing = tar->library.entry_hardlink(item->entry);
    unsigned type = tar->library.entry_filetype(item->entry);
    int result = read_attributes(tar, item, err);

    if (result)
        return result;
    if (!existing)
        existing = tar->library.entry_hardlink_utf8(item->entry);
    if (existing)
        return add_link(tar, item, existing, err);
    switch (type) {
    case AE_IFREG: return add_file(tar, item, err);
    case AE_IFDIR: return ext4_directory(tar->ext4, item->path, &item->attributes, err);
    case AE_IFLNK: return add_symlink(tar, item, err);
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
    case AE_IFSOCK:
        return ext4_special(
            tar->ext4, item->path, type, (unsigned)tar->library.entry_rdevmajor(item->entry),
            (unsigned)tar->library.entry_rdevminor(item->entry), &item->attributes, err);
    default:
        return error_set(err, EINVAL, "%s: '%.200s' is of an unknown kind", tar->options->name,
                         item->path);
    }
}

static int add_entry(const struct tar *tar, struct archive_entry *entry, struct error *err)
{
    struct item item = {.entry = entry, .path = tar->library.entry_pathname(entry)};
    struct error inner = {0};
    int result;

    if (!item.path)
        item.path = tar->library.entry_pathname_utf8(entry);
    if (!item.path || !*item.path)
        return error_set(err, EINVAL, "%s: an entry has no name", tar->options->name);
    if (is_whiteout(tar, &item, &result, &inner) || tar->removing)
        ;
    else
        result = add_item(tar, &item, &inner);
    if (!result)
        return 0;
    /* What is wrong with a path is said of the archive. */
    if (inner.code == EINVAL &&
        strncmp(inner.text, tar->options->name, strlen(tar->options->name)) != 0)
        return error_set(err, EINVAL, "%s: %.400s", tar->options->name, inner.text);
    *err = inner;
    return result;
}

/* ---- The archive ---- */

/* Reads what an entry has that was not wanted: here the work can be stopped, while libarchive reads
 * over it in one go. */
static int pass_over(const struct tar *tar, struct error *err)
{
    const void *data;
    size_t length;
    la_int64_t offset;
    int got;

    for (;;) {
        got = tar->library.read_data_block(tar->archive, &data, &length, &offset);
        if (got == ARCHIVE_EOF)
            return 0;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return damaged(tar, err);
        if (interrupted(tar))
            return stop(tar, err);
    }
}

static int read_entries(struct tar *tar, struct error *err)
{
    struct archive_entry *entry;
    int64_t before;
    int got, result = 0;

    do {
        before = tar->library.filter_bytes(tar->archive, 0);
        got = tar->library.read_next_header(tar->archive, &entry);
        if (got == ARCHIVE_EOF)
            break;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return damaged(tar, err);
        result = interrupted(tar) ? stop(tar, err) : add_entry(tar, entry, err);
        if (!result)
            result = pass_over(tar, err);
    } while (!result);
    /* What libarchive takes for the end may be where the archive was cut off. */
    if (!result && tar->library.filter_bytes(tar->archive, 0) - before < RECORD)
        return error_set(err, EINVAL, "%s: the archive is incomplete: its end is missing",
                         tar->options->name);
    return result;
}

static int open_archive(struct tar *tar, int fd, struct error *err)
{
    struct archive *archive = tar->archive = tar->library.read_new();

    if (!archive)
        return error_set(err, ENOMEM, "out of memory");
    tar->library.read_support_format_tar(archive);
    tar->library.read_support_filter_gzip(archive);
    tar->library.read_support_filter_bzip2(archive);
    tar->library.read_support_filter_xz(archive);
    tar->library.read_support_filter_zstd(archive);
    tar->library.read_support_filter_lz4(archive);
    if (tar->library.read_open_fd(archive, fd, PIECE) != ARCHIVE_OK)
        return damaged(tar, err);
    /* One of them is the file itself. Packed again and again, a few bytes make up an archive of any
     * size. */
    if (tar->library.filter_count(archive) > 2)
        return error_set(err, EINVAL, "%s: the archive is packed twice (unpack it once)",
                         tar->options->name);
    return 0;
}

static int pass(struct tar *tar, int fd, bool removing, struct error *err)
{
    int result = open_archive(tar, fd, err);

    tar->removing = removing;
    if (!result)
        result = read_entries(tar, err);
    if (tar->archive)
        tar->library.read_free(tar->archive);
    tar->archive = NULL;
    return result;
}

static int unpack(struct tar *tar, int fd, struct error *err)
{
    off_t start;
    int result;

    if (!tar->options->layer)
        return pass(tar, fd, false, err);
    start = lseek(fd, 0, SEEK_CUR);
    result = pass(tar, fd, true, err);
    if (!result && (start < 0 || lseek(fd, start, SEEK_SET) < 0))
        result = error_set(err, errno, "%s: cannot read it twice: %s", tar->options->name,
                           strerror(errno));
    return result ? result : pass(tar, fd, false, err);
}

int tar_unpack(struct ext4 *ext4, int fd, const struct tar_options *options, struct error *err)
{
    struct tar tar = {.options = options, .ext4 = ext4};
    struct archive_locale locale;
    int result = archive_library_load(&tar.library, err);

    archive_locale_begin(&locale);
    if (!result)
        result = unpack(&tar, fd, err);
    archive_locale_end(&locale);
    return result;
}
