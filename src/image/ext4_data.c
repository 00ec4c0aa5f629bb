/*
 * The contents of files: where they lie on the disk, and the extents that say so.
 */
#include "image/ext4_private.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER      (1u << 20)
#define EXTENT_MOST 32768u /* blocks of one extent (Linux: EXT_INIT_MAX_LEN) */
#define BLOCKS_MOST UINT32_MAX

int take_blocks(struct ext4 *ext4, uint64_t count, blk64_t *first, uint64_t *taken,
                struct error *err)
{
    const struct ext2_library *library = &ext4->volume.library;
    blk64_t length = 0;
    errcode_t code =
        library->new_range(ext4->volume.fs, 0, ext4->goal, count, NULL, first, &length);

    if (code || !length)
        return ext4_fail(&ext4->volume, err, code ? code : EXT2_ET_BLOCK_ALLOC_FAIL,
                         "no room for more data");
    *taken = MIN(length, count);
    library->block_alloc_stats_range(ext4->volume.fs, *first, (blk_t)*taken, 1);
    ext4->goal = *first + *taken;
    return 0;
}

static struct ext2_inode *inode_of(struct stream *stream)
{
    return (struct ext2_inode *)&stream->inode;
}

static int insert_pending(struct ext4 *ext4, struct error *err)
{
    const struct ext2_library *library = &ext4->volume.library;
    struct stream *stream = &ext4->stream;
    errcode_t code;

    if (!stream->pending.e_len)
        return 0;
    code = library->extent_insert(stream->handle, EXT2_EXTENT_INSERT_AFTER, &stream->pending);
    if (!code)
        code = library->extent_fix_parents(stream->handle);
    stream->pending.e_len = 0;
    return code ? ext4_fail(&ext4->volume, err, code, "cannot place a file") : 0;
}

/* Blocks from LOGICAL on lie at FIRST. */
static int add_extent(struct ext4 *ext4, uint64_t logical, blk64_t first, uint64_t count,
                      struct error *err)
{
    struct ext2fs_extent *pending = &ext4->stream.pending;
    int result;

    if (pending->e_len && pending->e_lblk + pending->e_len == logical &&
        pending->e_pblk + pending->e_len == first && pending->e_len + count <= EXTENT_MOST) {
        pending->e_len += (uint32_t)count;
        return 0;
    }
    result = insert_pending(ext4, err);
    *pending = (struct ext2fs_extent){.e_lblk = logical, .e_pblk = first, .e_len = (uint32_t)count};
    return result;
}

int stream_add_block(struct ext4 *ext4, uint64_t logical, blk64_t block, struct error *err)
{
    int result = add_extent(ext4, logical, block, 1, err);

    if (!result)
        ext4->volume.library.iblk_add_blocks(ext4->volume.fs, inode_of(&ext4->stream), 1);
    return result;
}

/* Gives what is in the buffer its place, and writes it. */
static int flush(struct ext4 *ext4, struct error *err)
{
    struct stream *stream = &ext4->stream;
    uint64_t block = ext4->volume.fs->blocksize;
    uint64_t logical = stream->start / block, blocks = (stream->filled + block - 1) / block;
    const uint8_t *data = stream->buffer;
    blk64_t first;
    uint64_t count;
    errcode_t code;

    memset(stream->buffer + stream->filled, 0, blocks * block - stream->filled);
    while (blocks) {
        int result = take_blocks(ext4, blocks, &first, &count, err);

        if (!result)
            result = add_extent(ext4, logical, first, count, err);
        if (result)
            return result;
        ext4->volume.library.iblk_add_blocks(ext4->volume.fs, inode_of(stream), count);
        code = ext4_io_manager.write_blk64(ext4->volume.fs->io, first, (int)count, data);
        if (code)
            return ext4_fail(&ext4->volume, err, code, "cannot write");
        logical += count;
        data += count * block;
        blocks -= count;
    }
    stream->start += stream->filled;
    stream->filled = 0;
    return 0;
}

int stream_begin(struct ext4 *ext4, ext2_ino_t ino, struct error *err)
{
    const struct ext2_library *library = &ext4->volume.library;
    struct stream *stream = &ext4->stream;
    uint8_t *buffer = stream->buffer ? stream->buffer : malloc(BUFFER);
    errcode_t code;

    *stream = (struct stream){.open = true, .ino = ino, .buffer = buffer};
    if (!buffer)
        return error_set(err, ENOMEM, "out of memory");
    code = library->read_inode_full(ext4->volume.fs, ino, inode_of(stream), sizeof(stream->inode));
    if (!code)
        code = library->extent_open2(ext4->volume.fs, ino, inode_of(stream), &stream->handle);
    return code ? ext4_fail(&ext4->volume, err, code, "cannot begin a file") : 0;
}

/* Makes the buffer end at OFFSET: with zeros, or by beginning anew behind a hole. */
static int advance(struct ext4 *ext4, uint64_t offset, struct error *err)
{
    struct stream *stream = &ext4->stream;
    uint64_t block = ext4->volume.fs->blocksize, end = stream->start + stream->filled;

    if (offset >= stream->start + BUFFER || ALIGN_DOWN(offset, block) > ALIGN_UP(end, block)) {
        int result = flush(ext4, err);

        if (result)
            return result;
        stream->start = ALIGN_DOWN(offset, block);
    }
    memset(stream->buffer + stream->filled, 0, offset - stream->start - stream->filled);
    stream->filled = offset - stream->start;
    return 0;
}

int stream_write(struct ext4 *ext4, uint64_t offset, const void *data, size_t size,
                 struct error *err)
{
    struct stream *stream = &ext4->stream;
    uint64_t most = (uint64_t)BLOCKS_MOST * ext4->volume.fs->blocksize;
    const uint8_t *from = data;

    if (offset < stream->end)
        return error_set(err, EINVAL, "the parts of a file do not follow each other");
    if (offset > most || size > most - offset)
        return error_set(err, EFBIG, "a file is larger than 16 TiB");
    while (size) {
        size_t part;
        int result = advance(ext4, offset, err);

        if (result)
            return result;
        part = MIN(size, BUFFER - stream->filled);
        memcpy(stream->buffer + stream->filled, from, part);
        stream->filled += part;
        from += part;
        offset += part;
        size -= part;
        if (stream->filled == BUFFER && (result = flush(ext4, err)))
            return result;
    }
    stream->end = offset;
    return 0;
}

int stream_end(struct ext4 *ext4, uint64_t size, struct error *err)
{
    const struct ext2_library *library = &ext4->volume.library;
    struct stream *stream = &ext4->stream;
    int result = 0;
    errcode_t code;

    if (size < stream->end || size > (uint64_t)BLOCKS_MOST * ext4->volume.fs->blocksize)
        result = error_set(err, EINVAL, "a file is longer than its size");
    if (!result)
        result = flush(ext4, err);
    if (!result)
        result = insert_pending(ext4, err);
    if (!result) {
        stream->inode.i_size = (uint32_t)size;
        stream->inode.i_size_high = (uint32_t)(size >> 32);
        code = library->write_inode_full(ext4->volume.fs, stream->ino, inode_of(stream),
                                         sizeof(stream->inode));
        if (code)
            result = ext4_fail(&ext4->volume, err, code, "cannot write a file");
    }
    stream_abandon(ext4);
    return result;
}

void stream_abandon(struct ext4 *ext4)
{
    struct stream *stream = &ext4->stream;

    if (stream->handle)
        ext4->volume.library.extent_free(stream->handle);
    stream->handle = NULL;
    stream->open = false;
}
