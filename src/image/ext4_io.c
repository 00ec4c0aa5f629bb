/*
 * libext2fs's way to a struct blk: an io manager (ext2_io.h) with a cache.
 *
 * libext2fs writes an inode by reading and writing the block around it, each time. The cache keeps
 * such single blocks and writes each once. What is several blocks long goes to the disk directly.
 */
#include "image/ext4_volume.h"

#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS      1024u
#define BLOCK_MOST 65536

struct slot {
    uint64_t block;
    bool valid, dirty;
    uint8_t *data; /* of the channel's block size; NULL: not used yet */
};

struct cache {
    struct ext4_place place;
    uint64_t reads;
    struct slot slots[SLOTS];
};

void ext4_io_name(char name[EXT4_IO_NAME], const struct ext4_place *place)
{
    snprintf(name, EXT4_IO_NAME, "%" PRIxPTR, (uintptr_t)place);
}

/* ---- The disk ---- */

static errcode_t move(struct cache *cache, bool write, uint64_t offset, void *data, uint64_t size)
{
    const struct ext4_place *place = &cache->place;
    int result;

    if (offset > place->size || size > place->size - offset)
        return EXT2_ET_SHORT_READ;
    result = write ? blk_write(place->blk, place->offset + offset, data, size)
                   : blk_read(place->blk, place->offset + offset, data, size);
    return -result;
}

static errcode_t write_slot(io_channel channel, struct slot *slot)
{
    errcode_t code;

    if (!slot->valid || !slot->dirty)
        return 0;
    code = move(channel->private_data, true, slot->block * (unsigned)channel->block_size,
                slot->data, (unsigned)channel->block_size);
    slot->dirty = code != 0;
    return code;
}

/* Writes what the cache holds of COUNT blocks from BLOCK on, and forgets it. */
static errcode_t settle(io_channel channel, uint64_t block, uint64_t count, bool write)
{
    struct cache *cache = channel->private_data;
    errcode_t code = 0, first = 0;

    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &cache->slots[i];

        if (!slot->valid || slot->block < block || slot->block - block >= count)
            continue;
        code = write ? write_slot(channel, slot) : 0;
        first = first ? first : code;
        slot->valid = false;
    }
    return first;
}

/* The slot that holds BLOCK, or will: then it is not valid yet. */
static errcode_t find_slot(io_channel channel, uint64_t block, struct slot **found)
{
    struct cache *cache = channel->private_data;
    struct slot *slot = &cache->slots[block % SLOTS];
    errcode_t code = 0;

    if (slot->valid && slot->block != block) {
        code = write_slot(channel, slot);
        slot->valid = code != 0;
    }
    if (!code && !slot->data)
        slot->data = malloc((unsigned)channel->block_size);
    *found = slot;
    return code ? code : slot->data ? 0 : ENOMEM;
}

static uint64_t channel_blocks(io_channel channel)
{
    const struct cache *cache = channel->private_data;

    return cache->place.size / (unsigned)channel->block_size;
}

/* ---- What libext2fs calls. A count below 0 is of bytes. ---- */

static uint64_t bytes_of(io_channel channel, int count)
{
    return count < 0 ? (uint64_t)(-(int64_t)count)
                     : (uint64_t)count * (unsigned)channel->block_size;
}

static uint64_t blocks_of(io_channel channel, uint64_t bytes)
{
    return (bytes + (unsigned)channel->block_size - 1) / (unsigned)channel->block_size;
}

static errcode_t read_blocks(io_channel channel, unsigned long long block, int count, void *data)
{
    struct cache *cache = channel->private_data;
    uint64_t size = bytes_of(channel, count);
    struct slot *slot;
    errcode_t code;

    if (cache->place.reads_most && cache->reads++ >= cache->place.reads_most)
        return EXT2_ET_SHORT_READ;
    if (size != (unsigned)channel->block_size) {
        code = settle(channel, block, blocks_of(channel, size), true);
        return code ? code
                    : move(channel->private_data, false, block * (unsigned)channel->block_size,
                           data, size);
    }
    code = find_slot(channel, block, &slot);
    if (!code && !slot->valid) {
        code = move(channel->private_data, false, block * size, slot->data, size);
        *slot = (struct slot){.block = block, .valid = !code, .data = slot->data};
    }
    if (!code)
        memcpy(data, slot->data, size);
    return code;
}

static errcode_t write_blocks(io_channel channel, unsigned long long block, int count,
                              const void *data)
{
    uint64_t size = bytes_of(channel, count);
    struct slot *slot;
    errcode_t code;

    if (size != (unsigned)channel->block_size) {
        code = settle(channel, block, blocks_of(channel, size), count < 0);
        return code ? code
                    : move(channel->private_data, true, block * (unsigned)channel->block_size,
                           (void *)(uintptr_t)data, size);
    }
    if (block >= channel_blocks(channel))
        return EXT2_ET_SHORT_WRITE;
    code = find_slot(channel, block, &slot);
    if (code)
        return code;
    memcpy(slot->data, data, size);
    *slot = (struct slot){.block = block, .valid = true, .dirty = true, .data = slot->data};
    return 0;
}

static errcode_t read_blocks32(io_channel channel, unsigned long block, int count, void *data)
{
    return read_blocks(channel, block, count, data);
}

static errcode_t write_blocks32(io_channel channel, unsigned long block, int count,
                                const void *data)
{
    return write_blocks(channel, block, count, data);
}

static errcode_t flush(io_channel channel)
{
    struct cache *cache = channel->private_data;
    errcode_t code, first = 0;

    for (unsigned i = 0; i < SLOTS; i++) {
        code = write_slot(channel, &cache->slots[i]);
        first = first ? first : code;
    }
    return first;
}

static errcode_t zero(io_channel channel, unsigned long long block, unsigned long long count)
{
    struct cache *cache = channel->private_data;
    uint64_t size = (unsigned)channel->block_size, blocks = channel_blocks(channel);

    if (block > blocks || count > blocks - block)
        return EXT2_ET_SHORT_WRITE;
    settle(channel, block, count, false);
    return -blk_zeroes(cache->place.blk, cache->place.offset + block * size, count * size, true);
}

static errcode_t discard(io_channel channel, unsigned long long block, unsigned long long count)
{
    return settle(channel, block, count, false);
}

static void free_slots(struct cache *cache)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        free(cache->slots[i].data);
        cache->slots[i] = (struct slot){0};
    }
}

static errcode_t set_block_size(io_channel channel, int size)
{
    errcode_t code;

    if (size <= 0 || size > BLOCK_MOST)
        return EXT2_ET_UNEXPECTED_BLOCK_SIZE;
    if (size == channel->block_size)
        return 0;
    code = settle(channel, 0, UINT64_MAX, true);
    if (code)
        return code;
    channel->block_size = size;
    free_slots(channel->private_data);
    return 0;
}

static void free_channel(io_channel channel)
{
    struct cache *cache = channel->private_data;

    if (cache)
        free_slots(cache);
    free(cache);
    free(channel->name);
    free(channel);
}

static errcode_t close_channel(io_channel channel)
{
    errcode_t code;

    if (--channel->refcount > 0)
        return 0;
    code = flush(channel);
    free_channel(channel);
    return code;
}

static errcode_t open_channel(const char *name, int flags, io_channel *opened)
{
    io_channel channel = calloc(1, sizeof(*channel));
    struct cache *cache = calloc(1, sizeof(*cache));
    uintptr_t place;

    (void)flags;
    if (channel)
        *channel = (struct struct_io_channel){.magic = EXT2_ET_MAGIC_IO_CHANNEL,
                                              .manager = (io_manager)(uintptr_t)&ext4_io_manager,
                                              .name = strdup(name),
                                              .block_size = 1024,
                                              .refcount = 1,
                                              .private_data = cache};
    if (!channel || !cache || !channel->name || sscanf(name, "%" SCNxPTR, &place) != 1) {
        free(cache);
        if (channel) {
            channel->private_data = NULL;
            free_channel(channel);
        }
        return ENOMEM;
    }
    cache->place = *(const struct ext4_place *)place;
    *opened = channel;
    return 0;
}

const struct struct_io_manager ext4_io_manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "doppel",
    .open = open_channel,
    .close = close_channel,
    .set_blksize = set_block_size,
    .read_blk = read_blocks32,
    .write_blk = write_blocks32,
    .flush = flush,
    .read_blk64 = read_blocks,
    .write_blk64 = write_blocks,
    .discard = discard,
    .zeroout = zero,
};
