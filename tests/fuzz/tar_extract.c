/*
 * Fuzz target: a tar archive of a hostile guest is unpacked into a folder of the host. Whatever is
 * in it, and whatever links are in the folder already, what lies beside the folder stays as it is.
 */
#include "image/tar_extract.h"

#include "base/util.h"

#include <dirent.h>
#include <sys/mman.h>

#include "folder.h"

#define BLOCK        512
#define ENTRIES_MOST 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A path of few parts, so that paths meet. It begins with what is asked for, as a rule. */
static void make_path(struct input *in, char path[100])
{
    static const char *const parts[] = {"a", "b", "d", "l", "secret", ".", "", ".."};
    unsigned count = (unsigned)take(in, 1) % 4;
    size_t length = (size_t)snprintf(path, 100, "%s", (unsigned)take(in, 1) < 250 ? "x" : "..");

    for (unsigned i = 0; i < count; i++) {
        unsigned which = (unsigned)take(in, 1);

        /* What ends the work comes rarely. */
        which = which > 250 ? 5 + which % 3 : which % 5;
        length += (size_t)snprintf(path + length, 100 - length, "/%s", parts[which]);
    }
}

static void put_header(int fd, char type, const char *path, const char *link, unsigned size,
                       unsigned mode)
{
    char header[BLOCK] = {0};
    unsigned sum = 0;

    snprintf(header, 100, "%s", path);
    snprintf(header + 100, 8, "%07o", mode);
    snprintf(header + 108, 8, "%07o", 0u);
    snprintf(header + 116, 8, "%07o", 0u);
    snprintf(header + 124, 12, "%011o", size);
    snprintf(header + 136, 12, "%011o", mode);
    header[156] = type;
    snprintf(header + 157, 100, "%s", link);
    memcpy(header + 257,
           "ustar\0"
           "00",
           8);
    memset(header + 148, ' ', 8);
    for (unsigned i = 0; i < BLOCK; i++)
        sum += (unsigned char)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    check(write(fd, header, BLOCK) == BLOCK);
}

/* An entry: a file with up to a block of data, a link of either kind, a folder, or a pipe. */
static void put_entry(int fd, struct input *in)
{
    static const char types[] = "02215552";
    /* Of symbolic links: most lead out of the folder. */
    static const char *const targets[] = {"../..", "..", "../../secret", "a", "../l"};
    static const char block[BLOCK] = "data";
    char type = types[(unsigned)take(in, 1) % 8], path[100], link[104] = "";
    unsigned mode = (unsigned)take(in, 1) * 16u + 0700;

    make_path(in, path);
    if (type == '1')
        make_path(in, link);
    if (type == '2')
        snprintf(link, sizeof(link), "%s", targets[(unsigned)take(in, 1) % ARRAY_SIZE(targets)]);
    put_header(fd, type, path, link, type == '0' ? 100 : 0, mode);
    if (type == '0')
        check(write(fd, block, BLOCK) == BLOCK);
}

static bool tick(void *opaque, uint64_t bytes)
{
    return bytes > 1 << 20;
}

static unsigned count_names(const char *path)
{
    DIR *folder = opendir(path);
    unsigned count = 0;

    check(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* Beside the folder is only the secret, which has one name, and in it what was there: all that is
 * made is made in "d". */
static void check_outside(const struct folder *folder)
{
    char path[256];
    struct stat status;

    snprintf(path, sizeof(path), "%s/secret", folder->outside);
    check(stat(path, &status) == 0 && status.st_nlink == 1 && (status.st_mode & 07777) == 0644);
    check(count_names(folder->outside) == 4 && count_names(folder->folder) == 5);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tar_extract_options options = {.from = "x", .to = "d", .tick = tick};
    int fd = memfd_create("archive", MFD_CLOEXEC), target;
    struct tar_extracted extracted;
    static const char end[2 * BLOCK];
    struct input in = {data, size};
    struct folder folder;

    check(fd >= 0);
    if (take(&in, 1) == 0)
        check(write(fd, in.data, in.left) == (ssize_t)in.left); /* an archive as it is */
    else
        for (unsigned i = 0; i < ENTRIES_MOST && in.left > 0; i++)
            put_entry(fd, &in);
    check(write(fd, end, sizeof(end)) == sizeof(end) && lseek(fd, 0, SEEK_SET) == 0);
    folder_make(&folder, 4 << 20);
    target = open(folder.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(target >= 0);
    tar_extract(fd, target, &options, &extracted, NULL);
    check_outside(&folder);
    close(fd);
    folder_end(&folder);
    return 0;
}
