/*
 * Fuzz target: the kernel is looked for on a disk from anywhere. The first byte says how:
 *
 * - even: the rest is the beginning of the disk, with its table of partitions;
 * - odd: the disk is an ext4 file system with a kernel of which a few bytes are changed, and the
 *   rest says which. It has no checksums, which whoever changes it would have put right.
 *
 * Nothing of that may hurt the process or take forever. Partitions lie inside the disk.
 */
#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "image/ext4.h"
#include "image/kernel.h"
#include "image/partitions.h"

#include "input.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK         (64 * MiB)
#define BLOCK        4096u
#define BLOCKS       (DISK / BLOCK)
#define CHANGES_MOST 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ext4_attributes usual = {.mode = 0755};

/* What is the same for all inputs. */
struct disk {
    int fd;
    struct blk *blk;
    unsigned used[BLOCKS]; /* blocks in which there is something */
    unsigned count;
};

static struct blk *open_disk(int fd)
{
    struct blk_host host = {.lane = BLK_LANE_THREADS};
    char path[64];
    struct blk_options options = {.file = path};
    struct blk *blk;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    blk = blk_open(&options, &host, NULL);
    check(blk);
    return blk;
}

static void add_file(struct ext4 *ext4, const char *path, size_t size)
{
    static const char data[64 * 1024] = "a kernel";

    check(!ext4_file_begin(ext4, path, &usual, NULL));
    for (size_t at = 0; at < size; at += 3 * sizeof(data)) /* with holes, so in several pieces */
        check(!ext4_file_write(ext4, at, data, sizeof(data), NULL));
    check(!ext4_file_end(ext4, size + sizeof(data), NULL));
}

static void fill(struct ext4 *ext4)
{
    char path[64];

    add_file(ext4, "/boot/vmlinuz-6.1", 1 << 20);
    add_file(ext4, "/boot/initrd.img-6.1", 1 << 20);
    add_file(ext4, "/etc/os-release", 0);
    check(!ext4_symlink(ext4, "/boot/vmlinuz-6.2", "/deep/link", &usual, NULL));
    check(!ext4_symlink(ext4, "/deep/link", "../boot/vmlinuz-6.1", &usual, NULL));
    for (unsigned i = 0; i < 400; i++) {
        snprintf(path, sizeof(path), "/boot/some-file-with-a-name-%u", i);
        check(!ext4_symlink(ext4, path, "x", &usual, NULL));
    }
}

/* Leaves out the checksums of metadata (Linux, Documentation/filesystems/ext4/super.rst: the
 * features are at 0x64 of the superblock). */
static void without_checksums(int fd)
{
    uint32_t features;

    check(pread(fd, &features, 4, 1024 + 0x64) == 4);
    features &= ~0x400u;
    check(pwrite(fd, &features, 4, 1024 + 0x64) == 4);
}

static void make_disk(struct disk *disk)
{
    struct ext4_options what = {.size = DISK, .now = 1, .name = "it"};
    static const char zero[BLOCK];
    struct ext4 *ext4;
    char block[BLOCK];

    disk->fd = memfd_create("disk", MFD_CLOEXEC);
    check(disk->fd >= 0 && !ftruncate(disk->fd, DISK));
    disk->blk = open_disk(disk->fd);
    ext4 = ext4_create(disk->blk, &what, NULL);
    check(ext4);
    fill(ext4);
    check(!ext4_finish(ext4, NULL));
    ext4_free(ext4);
    without_checksums(disk->fd);
    for (unsigned i = 0; i < BLOCKS; i++) {
        check(pread(disk->fd, block, BLOCK, (off_t)i * BLOCK) == BLOCK);
        if (memcmp(block, zero, BLOCK) != 0)
            disk->used[disk->count++] = i;
    }
}

static void look_for_kernel(struct blk *blk)
{
    struct kernel_found found;
    struct error err = {0};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (kernel_find(blk, "it", &found, &err))
        check(err.code > 0 && *err.text);
    else
        kernel_copy(blk, "it", &found, null, null, &err);
    close(null);
}

/* Changes the disk, and puts it right afterwards. */
static void change(struct disk *disk, struct input *in)
{
    struct {
        off_t at;
        uint8_t before[4];
        unsigned size;
    } changes[CHANGES_MOST];
    unsigned count = 1 + (unsigned)take(in, 1) % CHANGES_MOST;

    for (unsigned i = 0; i < count; i++) {
        /* The first blocks say what all the others are. */
        unsigned where = (unsigned)take(in, 2),
                 block = where & 1 ? where / 2 % MIN(disk->count, 3) : where / 2 % disk->count;
        uint64_t what = take(in, 1);
        uint32_t value = what & 1 ? (uint32_t)take(in, 4) : (uint32_t)-1 >> (what >> 3);

        changes[i].size = 1u << (what >> 1 & 3) % 3;
        changes[i].at = (off_t)disk->used[block] * BLOCK +
                        (off_t)(take(in, 2) % BLOCK & ~(uint64_t)(changes[i].size - 1));
        check(pread(disk->fd, changes[i].before, 4, changes[i].at) == 4);
        check(pwrite(disk->fd, &value, changes[i].size, changes[i].at) == changes[i].size);
    }
    look_for_kernel(disk->blk);
    while (count-- > 0)
        check(pwrite(disk->fd, changes[count].before, changes[count].size, changes[count].at) ==
              changes[count].size);
}

static void read_partitions(const struct input *in)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    struct partitions partitions;
    struct error err = {0};
    struct blk *blk;
    uint8_t end[2] = {0x55, 0xAA};

    check(fd >= 0 && !ftruncate(fd, MiB) && write(fd, in->data, in->left) == (ssize_t)in->left);
    if (in->left % 2) /* mostly they are good otherwise */
        check(pwrite(fd, end, 2, 510) == 2 && pwrite(fd, "EFI PART", 8, 512) == 8);
    blk = open_disk(fd);
    if (partitions_read(blk, "it", &partitions, &err))
        check(err.code > 0 && *err.text);
    for (unsigned i = 0; !err.code && i < partitions.count; i++)
        check(partitions.partition[i].offset <= MiB &&
              partitions.partition[i].size <= MiB - partitions.partition[i].offset);
    look_for_kernel(blk);
    blk_close(blk);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct disk disk;
    struct input in = {data, size};

    if (!disk.blk)
        make_disk(&disk);
    if (take(&in, 1) & 1)
        change(&disk, &in);
    else
        read_partitions(&in);
    return 0;
}
