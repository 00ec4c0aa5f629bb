/*
 * Open Virtualization Archives.
 */
#include "image/ova.h"

#include "base/util.h"
#include "image/archive_library.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define PIECE (256 * KiB)

struct ova {
    struct archive_library library;
    struct archive *archive;
    const char *name;
    int out;
    unsigned disks;
};

static int damaged(const struct ova *ova, struct error *err)
{
    const char *text = ova->library.error_string(ova->archive);

    return error_set(err, EINVAL, "%s: the archive is damaged or incomplete: %.200s", ova->name,
                     text ? text : "no reason is given");
}

static int write_piece(const struct ova *ova, const char *data, size_t size, off_t offset,
                       struct error *err)
{
    while (size) {
        ssize_t n = pwrite(ova->out, data, size, offset);

        if (n < 0 && errno != EINTR)
            return error_set(err, errno, "%s: cannot write its disk: %s", ova->name,
                             strerror(errno));
        n = n > 0 ? n : 0;
        data += n;
        offset += n;
        size -= (size_t)n;
    }
    return 0;
}

static int copy_disk(const struct ova *ova, struct error *err)
{
    const void *data;
    size_t size;
    la_int64_t offset;
    int got, result = 0;

    while (!result) {
        got = ova->library.read_data_block(ova->archive, &data, &size, &offset);
        if (got == ARCHIVE_EOF)
            return 0;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return damaged(ova, err);
        result = write_piece(ova, data, size, offset, err);
    }
    return result;
}

static bool is_disk(const char *path)
{
    size_t length = path ? strlen(path) : 0;

    return length >= 5 && !strcasecmp(path + length - 5, ".vmdk");
}

static int read_entries(struct ova *ova, struct error *err)
{
    struct archive_entry *entry;
    int got, result = 0;

    while (!result) {
        got = ova->library.read_next_header(ova->archive, &entry);
        if (got == ARCHIVE_EOF)
            break;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return damaged(ova, err);
        if (!is_disk(ova->library.entry_pathname(entry)))
            continue;
        if (ova->disks++)
            return error_set(err, EINVAL,
                             "%s: has several disks (unpack it by tar, and import each)",
                             ova->name);
        result = copy_disk(ova, err);
    }
    if (!result && !ova->disks)
        result = error_set(err, ENOENT, "%s: has no disk (a .vmdk file)", ova->name);
    return result;
}

int ova_extract(int fd, const char *name, int out, struct error *err)
{
    struct ova ova = {.name = name, .out = out};
    int result = archive_library_load(&ova.library, err);

    if (result)
        return result;
    ova.archive = ova.library.read_new();
    if (!ova.archive)
        return error_set(err, ENOMEM, "out of memory");
    ova.library.read_support_format_tar(ova.archive);
    result = ova.library.read_open_fd(ova.archive, fd, PIECE) == ARCHIVE_OK
                 ? read_entries(&ova, err)
                 : damaged(&ova, err);
    ova.library.read_free(ova.archive);
    return result;
}
