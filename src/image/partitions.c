/*
 * The partitions of a disk.
 */
#include "image/partitions.h"

#include "base/util.h"
#include "blk/blk.h"

#include <errno.h>
#include <string.h>

#define SECTOR      512u
#define MBR_ENTRIES 446u /* where the table begins */
#define MBR_SIZE    16u
#define TYPE_GPT    0xEEu
#define HEADER_LBA  1u
#define ENTRY_MOST  4096u

/* ext4: the superblock is at 1024, its magic number at 56 in there. */
#define SUPERBLOCK 1024u
#define MAGIC_AT   56u
#define MAGIC      0xEF53u

static uint32_t get32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get64(const uint8_t *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static bool is_ext4(struct blk *blk, uint64_t offset, uint64_t size)
{
    uint8_t super[SECTOR];

    return size >= SUPERBLOCK + SECTOR &&
           !blk_read(blk, offset + SUPERBLOCK, super, sizeof(super)) &&
           (super[MAGIC_AT] | super[MAGIC_AT + 1] << 8) == MAGIC;
}

/* Adds the partition from sector FIRST on, if it lies inside the disk. */
static void add(struct blk *blk, struct partitions *partitions, unsigned number, uint64_t first,
                uint64_t sectors)
{
    uint64_t disk = blk_info(blk).size / SECTOR;

    if (!sectors || first > disk || sectors > disk - first || partitions->count == PARTITIONS_MOST)
        return;
    partitions->partition[partitions->count++] =
        (struct partition){.number = number,
                           .offset = first * SECTOR,
                           .size = sectors * SECTOR,
                           .ext4 = is_ext4(blk, first * SECTOR, sectors * SECTOR)};
}

static int read_gpt(struct blk *blk, const char *name, struct partitions *partitions,
                    struct error *err)
{
    static const uint8_t zero[16];
    uint8_t header[SECTOR], sectors[ENTRY_MOST];
    uint64_t table, disk = blk_info(blk).size;
    uint32_t count, size;

    if (blk_read(blk, HEADER_LBA * SECTOR, header, sizeof(header)) ||
        memcmp(header, "EFI PART", 8) != 0)
        return error_set(err, EINVAL, "%s: the table of its partitions (GPT) cannot be read", name);
    table = get64(header + 72);
    count = MIN(get32(header + 80), PARTITIONS_MOST);
    size = get32(header + 84);
    if (size < 128 || size > ENTRY_MOST || SECTOR % size != 0 ||
        table > (disk - MIN(disk, (uint64_t)count * size)) / SECTOR)
        return error_set(err, EINVAL, "%s: the table of its partitions (GPT) is damaged", name);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = table * SECTOR + (uint64_t)i * size;
        const uint8_t *entry = sectors + at % SECTOR;
        uint64_t first, last;

        if (at % SECTOR == 0 && blk_read(blk, at, sectors, SECTOR))
            return error_set(err, EIO, "%s: the table of its partitions cannot be read", name);
        first = get64(entry + 32);
        last = get64(entry + 40);
        if (memcmp(entry, zero, sizeof(zero)) != 0 && last >= first && last < UINT64_MAX)
            add(blk, partitions, i + 1, first, last - first + 1);
    }
    return 0;
}

int partitions_read(struct blk *blk, const char *name, struct partitions *partitions,
                    struct error *err)
{
    uint64_t size = blk_info(blk).size;
    uint8_t mbr[SECTOR];

    *partitions = (struct partitions){0};
    if (is_ext4(blk, 0, size)) {
        partitions->whole = true;
        partitions->count = 1;
        partitions->partition[0] = (struct partition){.size = size, .ext4 = true};
        return 0;
    }
    if (size < 2 * SECTOR || blk_read(blk, 0, mbr, sizeof(mbr)))
        return error_set(err, EINVAL, "%s: is too short for a disk", name);
    if (mbr[SECTOR - 2] != 0x55 || mbr[SECTOR - 1] != 0xAA)
        return 0;
    for (unsigned i = 0; i < 4; i++)
        if (mbr[MBR_ENTRIES + i * MBR_SIZE + 4] == TYPE_GPT)
            return read_gpt(blk, name, partitions, err);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *entry = mbr + MBR_ENTRIES + i * MBR_SIZE;

        if (entry[4])
            add(blk, partitions, i + 1, get32(entry + 8), get32(entry + 12));
    }
    return 0;
}
