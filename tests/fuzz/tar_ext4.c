/*
 * Fuzz target: a tar archive from anywhere becomes an ext4 file system. The first byte says how:
 *
 * - 0: the rest is the archive.
 * - Else the rest is entries of a well-formed archive: names that meet each other, links in
 * circles, parts of files in odd places.
 *
 * Nothing of that may hurt the process, take forever or reach beyond the file system. One that is
 * completed can be opened, and all of its directories can be read.
 */
#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "image/ext4.h"
#include "image/ext4_edit.h"
#include "image/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK         (64 * MiB)
#define BLOCK        512u
#define ENTRIES_MOST 12u
#define DEPTH_MOST   8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t size;
};

static unsigned take(struct input *in)
{
    if (!in->size)
        return 0;
    in->size--;
    return *in->data++;
}

static void put(int fd, const void *data, size_t size)
{
    if (write(fd, data, size) != (ssize_t)size)
        abort();
}

/* ---- Well-formed archives (POSIX, pax: ustar) ---- */

/* A path of few components, so that paths meet. What ends the work comes rarely. */
static void make_path(struct input *in, char *path, size_t room)
{
    static const char *const parts[] = {"a", "b", "c", "d/e", "f", "g", "link", "h", "\xC3\xBC"};
    static const char *const rare[] = {"..", "lost+found", ".wh.a", ".wh..wh..opq", ".", "\xFF"};
    unsigned count = 1 + take(in) % 4;
    size_t length = 0;

    path[0] = '\0';
    for (unsigned i = 0; i < count && length < room; i++) {
        unsigned which = take(in);
        const char *part = which > 249 ? rare[which - 250] : parts[which % ARRAY_SIZE(parts)];

        length +=
            (size_t)snprintf(path + length, room - length, "%s%s", part, i + 1 < count ? "/" : "");
    }
}

static void put_header(int fd, char type, const char *path, const char *link, unsigned size,
                       unsigned odd)
{
    char header[BLOCK] = {0};
    unsigned sum = 0;

    snprintf(header, 100, "%s", path);
    snprintf(header + 100, 8, "%07o", odd * 37 & 07777);
    snprintf(header + 108, 8, "%07o", odd * 1021);
    snprintf(header + 116, 8, "%07o", odd);
    snprintf(header + 124, 12, "%011o", size);
    snprintf(header + 136, 12, "%011o", odd << 20);
    memset(header + 148, ' ', 8);
    header[156] = type;
    snprintf(header + 157, 100, "%s", link);
    memcpy(header + 257,
           "ustar\0"
           "00",
           8);
    snprintf(header + 329, 8, "%07o", odd);
    snprintf(header + 337, 8, "%07o", odd * 5);
    for (unsigned i = 0; i < BLOCK; i++)
        sum += (unsigned char)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    put(fd, header, sizeof(header));
}

static void put_data(int fd, unsigned size, unsigned odd)
{
    char block[BLOCK];

    memset(block, (int)odd, sizeof(block));
    for (unsigned done = 0; done < size; done += BLOCK)
        put(fd, block, sizeof(block));
}

/* Adds "LENGTH KEY=VALUE\n" to the text; LENGTH, of three digits, counts all of that. */
static unsigned add_record(char text[BLOCK], unsigned used, const char *key, const char *value)
{
    unsigned length = 3 + 1 + (unsigned)(strlen(key) + 1 + strlen(value) + 1);

    return used + (unsigned)snprintf(text + used, BLOCK - used, "%03u %s=%s\n", length, key, value);
}

/* Records in front of a file: an extended attribute, or where its parts lie. */
static void put_pax(int fd, struct input *in, bool file, unsigned *size)
{
    static const char *const keys[] = {"SCHILY.xattr.user.x",
                                       "SCHILY.xattr.user.a",
                                       "SCHILY.xattr.trusted.y",
                                       "SCHILY.xattr.security.capability",
                                       "path",
                                       "linkpath",
                                       "mtime",
                                       "SCHILY.xattr.other",
                                       "hdrcharset"};
    char text[BLOCK] = {0}, value[128];
    unsigned which = take(in), used;

    if (file && which & 128) {
        unsigned a = take(in) * 997, b = take(in) * 13, c = a + b + take(in) * 4001,
                 d = take(in) * 7;

        if (which > 240)
            c = take(in); /* parts that overlap */
        snprintf(value, sizeof(value), "%u,%u,%u,%u", a, b, c, d);
        *size = b + d;
        used = add_record(text, 0, "GNU.sparse.map", value);
        snprintf(value, sizeof(value), "%u", c + d + take(in));
        used = add_record(text, used, "GNU.sparse.size", value);
    } else {
        make_path(in, value, sizeof(value));
        used = add_record(text, 0,
                          which == 127 ? "SCHILY.xattr.system.posix_acl_access"
                                       : keys[which % ARRAY_SIZE(keys)],
                          value);
    }
    put_header(fd, 'x', "pax", "", used, 1);
    put(fd, text, sizeof(text));
}

static void make_archive(int fd, struct input *in)
{
    static const char types[] = "0000000005555234611";
    static const char end[2 * BLOCK];

    for (unsigned i = 0; i < ENTRIES_MOST && in->size; i++) {
        unsigned what = take(in), odd = take(in), size = 0;
        char type = types[what % (sizeof(types) - 1)], path[100], link[100];

        if (type == '0')
            size = odd * odd * 3;
        make_path(in, path, sizeof(path) - 2);
        make_path(in, link, sizeof(link) - 2);
        if (type != '5') { /* seldom where a directory is */
            snprintf(path + strlen(path), 3, "%u", odd % 8);
            snprintf(link + strlen(link), 3, "%u", odd / 8 % 8);
        }
        if (what & 128)
            put_pax(fd, in, type == '0', &size);
        put_header(fd, type, path, link, type == '0' ? size : 0, odd);
        if (type == '0')
            put_data(fd, size, odd);
    }
    put(fd, end, sizeof(end));
}

/* ---- What has become of it ---- */

struct listing {
    struct ext4_edit *edit;
    const char *folder;
    unsigned depth;
};

static void read_folder(struct ext4_edit *edit, const char *path, unsigned depth);

static void read_entry(void *opaque, const char *name)
{
    const struct listing *listing = opaque;
    char path[1024];

    if (!strcmp(name, ".") || !strcmp(name, "..") || listing->depth == DEPTH_MOST)
        return;
    snprintf(path, sizeof(path), "%s/%s", listing->folder, name);
    read_folder(listing->edit, path, listing->depth + 1);
}

static void read_folder(struct ext4_edit *edit, const char *path, unsigned depth)
{
    struct listing listing = {.edit = edit, .folder = path, .depth = depth};
    size_t size;

    if (ext4_edit_list(edit, *path ? path : "/", read_entry, &listing, NULL))
        free(ext4_edit_read(edit, path, 16 * MiB, &size, NULL));
}

static void look(struct blk *blk)
{
    struct ext4_edit *edit = ext4_edit_open(blk, 0, DISK, "it", EXT4_COPY, NULL);

    if (!edit)
        abort();
    read_folder(edit, "", 0);
    ext4_edit_free(edit);
}

static void unpack(int disk, int archive, bool layer)
{
    struct ext4_options what = {.size = DISK, .label = "fuzz", .now = 1, .name = "it"};
    struct tar_options how = {.name = "archive", .layer = layer};
    struct blk_host host = {.lane = BLK_LANE_THREADS};
    struct blk_options options = {0};
    struct error err = {0};
    struct ext4 *ext4;
    struct blk *blk;
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", disk);
    options.file = path;
    blk = blk_open(&options, &host, &err);
    ext4 = blk ? ext4_create(blk, &what, &err) : NULL;
    if (!ext4)
        abort();
    if (!tar_unpack(ext4, archive, &how, &err) && !ext4_finish(ext4, &err))
        look(blk);
    ext4_free(ext4);
    blk_close(blk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.data = data, .size = size};
    int disk = memfd_create("disk", MFD_CLOEXEC), archive = memfd_create("tar", MFD_CLOEXEC);
    unsigned kind = take(&in);

    if (disk < 0 || archive < 0 || ftruncate(disk, DISK) < 0)
        abort();
    if (kind)
        make_archive(archive, &in);
    else
        put(archive, in.data, in.size);
    lseek(archive, 0, SEEK_SET);
    unpack(disk, archive, kind & 1);
    close(disk);
    close(archive);
    return 0;
}
