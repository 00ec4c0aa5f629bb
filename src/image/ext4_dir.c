/*
 * Writes directories. One that fits into a block is a list of entries; a longer one is a hash tree,
 * in whose leaves the entries lie in the order of their names' hashes (Linux,
 * Documentation/filesystems/ext4/directory.rst):
 *
 *      block 0   ".", "..", and of each leaf the least hash and the number of its block
 *                (or of the nodes between, where a block cannot name all leaves)
 *      nodes     the same of some of the leaves
 *      leaves    entries
 */
#include "image/ext4_private.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TAIL      ((unsigned)sizeof(struct ext2_dir_entry_tail))
#define DOT       12u /* bytes of the entry "." */
#define INFO      8u  /* bytes of struct ext2_dx_root_info */
#define LINK_MOST 65000u
#define SLACK     8u /* a leaf keeps one part of so many free, for names to come */

struct entry {
    const struct node *node;
    uint32_t hash, minor;
};

struct leaf {
    uint32_t hash; /* the least one in it; bit 0: the leaf before has the same one, too */
    size_t first, count;
};

struct folder {
    struct ext4 *ext4;
    const struct node *node;
    unsigned block; /* bytes of a block */
    struct entry *entries;
    size_t entry_count;
    struct leaf *leaves;
    size_t leaf_count;
    uint8_t *buffer;
    uint64_t next; /* number of the next block of the directory */
};

/* What an entry takes. */
static unsigned entry_size(size_t length)
{
    return (unsigned)ALIGN_UP(8 + length, 4);
}

static struct ext2_dir_entry_2 *put(uint8_t *at, uint32_t ino, unsigned size, uint8_t type,
                                    const char *name, size_t length)
{
    struct ext2_dir_entry_2 *entry = (struct ext2_dir_entry_2 *)at;

    /* Not the whole structure, which is as long as the longest entry. */
    entry->inode = ino;
    entry->rec_len = (uint16_t)size;
    entry->name_len = (uint8_t)length;
    entry->file_type = type;
    memcpy(at + 8, name, length);
    return entry;
}

/* ---- Blocks ---- */

/* Writes the buffer as the directory's next block. Blocks of one directory lie in one piece as far
 * as the disk has one. */
static int write_block(struct folder *folder, struct error *err)
{
    struct ext4 *ext4 = folder->ext4;
    const struct ext2_library *library = &ext4->volume.library;
    struct stream *stream = &ext4->stream;
    blk64_t block;
    uint64_t count;
    errcode_t code;
    int result = take_blocks(ext4, 1, &block, &count, err);

    if (!result)
        result = stream_add_block(ext4, folder->next, block, err);
    if (result)
        return result;
    code = library->write_dir_block4(ext4->volume.fs, block, folder->buffer, 0, stream->ino);
    if (code)
        return ext4_fail(&ext4->volume, err, code, "cannot write a directory");
    folder->next++;
    return 0;
}

/* Ends a block of entries of which USED bytes are used; LAST is the last one. */
static int write_entries(struct folder *folder, struct ext2_dir_entry_2 *last, unsigned used,
                         struct error *err)
{
    struct ext4 *ext4 = folder->ext4;
    unsigned room = folder->block - TAIL;

    if (last)
        last->rec_len = (uint16_t)(last->rec_len + room - used);
    else
        put(folder->buffer, 0, room, 0, "", 0);
    ext4->volume.library.initialize_dirent_tail(ext4->volume.fs,
                                                EXT2_DIRENT_TAIL(folder->buffer, folder->block));
    return write_block(folder, err);
}

static struct ext2_dir_entry_2 *put_node(struct folder *folder, unsigned *used,
                                         const struct node *node)
{
    unsigned size = entry_size(node->length);
    struct ext2_dir_entry_2 *entry =
        put(folder->buffer + *used, node->ino, size, node->type, node->name, node->length);

    *used += size;
    return entry;
}

/* ---- A list ---- */

static bool fits_list(const struct folder *folder)
{
    uint64_t used = 2 * DOT;

    for (const struct node *node = folder->node->first; node; node = node->next)
        used += entry_size(node->length);
    return used <= folder->block - TAIL;
}

static int write_list(struct folder *folder, struct error *err)
{
    const struct node *node = folder->node;
    unsigned used = 2 * DOT;
    struct ext2_dir_entry_2 *last;

    memset(folder->buffer, 0, folder->block);
    put(folder->buffer, node->ino, DOT, EXT2_FT_DIR, ".", 1);
    last = put(folder->buffer + DOT, node->parent->ino, DOT, EXT2_FT_DIR, "..", 2);
    for (const struct node *child = node->first; child; child = child->next)
        last = put_node(folder, &used, child);
    return write_entries(folder, last, used, err);
}

/* ---- A hash tree ---- */

static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->minor != y->minor)
        return x->minor < y->minor ? -1 : 1;
    return 0;
}

static int sort(struct folder *folder, struct error *err)
{
    struct ext2_super_block *super = folder->ext4->volume.fs->super;
    int version = super->s_def_hash_version;
    size_t i = 0;

    folder->entry_count = folder->node->children;
    folder->entries = malloc(folder->entry_count * sizeof(*folder->entries));
    folder->leaves = malloc(folder->entry_count * sizeof(*folder->leaves));
    if (!folder->entries || !folder->leaves)
        return error_set(err, ENOMEM, "out of memory");
    for (const struct node *node = folder->node->first; node; node = node->next, i++) {
        struct entry *entry = &folder->entries[i];

        entry->node = node;
        if (folder->ext4->volume.library.dirhash(version, node->name, node->length,
                                                 super->s_hash_seed, &entry->hash, &entry->minor))
            return error_set(err, EINVAL, "unknown hash of names");
    }
    qsort(folder->entries, folder->entry_count, sizeof(*folder->entries), compare);
    return 0;
}

/* Says which entries go to which leaf. */
static void divide(struct folder *folder)
{
    unsigned room = folder->block - TAIL, used = room;
    struct leaf *leaf = NULL;

    for (size_t i = 0; i < folder->entry_count; i++) {
        const struct entry *entry = &folder->entries[i];
        unsigned size = entry_size(entry->node->length);

        if (used + size > room - room / SLACK) {
            bool shared = i > 0 && (entry[-1].hash & ~1u) == (entry->hash & ~1u);

            leaf = &folder->leaves[folder->leaf_count++];
            *leaf = (struct leaf){.hash = (entry->hash & ~1u) | shared, .first = i};
            used = 0;
        }
        leaf->count++;
        used += size;
    }
}

static int write_leaf(struct folder *folder, const struct leaf *leaf, struct error *err)
{
    struct ext2_dir_entry_2 *last = NULL;
    unsigned used = 0;

    memset(folder->buffer, 0, folder->block);
    for (size_t i = 0; i < leaf->count; i++)
        last = put_node(folder, &used, folder->entries[leaf->first + i].node);
    return write_entries(folder, last, used, err);
}

/* How many entries an index has room for that begins at START of its block. */
static unsigned index_room(const struct folder *folder, unsigned start)
{
    return (folder->block - start - (unsigned)sizeof(struct ext2_dx_tail)) /
           (unsigned)sizeof(struct ext2_dx_entry);
}

/* Writes an index of COUNT leaves, or of nodes that each have SPAN leaves, from FIRST on; the first
 * of them is block BLOCK of the directory. */
static void put_index(struct folder *folder, unsigned start, size_t first, size_t count,
                      size_t span, uint64_t block)
{
    struct ext2_dx_entry *index = (struct ext2_dx_entry *)(folder->buffer + start);
    struct ext2_dx_countlimit *limit = (struct ext2_dx_countlimit *)index;

    for (size_t i = 0; i < count; i++)
        index[i] = (struct ext2_dx_entry){.hash = folder->leaves[first + i * span].hash,
                                          .block = (uint32_t)(block + i)};
    /* The first one needs no hash: it is of all that are less than the second one's. */
    *limit = (struct ext2_dx_countlimit){.limit = (uint16_t)index_room(folder, start),
                                         .count = (uint16_t)count};
}

static void put_root(struct folder *folder, unsigned levels)
{
    const struct node *node = folder->node;
    struct ext2_dx_root_info info = {.hash_version =
                                         folder->ext4->volume.fs->super->s_def_hash_version,
                                     .info_length = INFO,
                                     .indirect_levels = (uint8_t)levels};

    memset(folder->buffer, 0, folder->block);
    put(folder->buffer, node->ino, DOT, EXT2_FT_DIR, ".", 1);
    put(folder->buffer + DOT, node->parent->ino, folder->block - DOT, EXT2_FT_DIR, "..", 2);
    memcpy(folder->buffer + 2 * DOT, &info, sizeof(info));
}

static int write_nodes(struct folder *folder, size_t nodes, size_t span, struct error *err)
{
    int result = 0;

    for (size_t i = 0; i < nodes && !result; i++) {
        size_t first = i * span;

        memset(folder->buffer, 0, folder->block);
        put(folder->buffer, 0, folder->block, 0, "", 0);
        put_index(folder, 8, first, MIN(span, folder->leaf_count - first), 1, 1 + nodes + first);
        result = write_block(folder, err);
    }
    return result;
}

static int write_tree(struct folder *folder, struct error *err)
{
    size_t at_root, span = index_room(folder, 8), nodes = 0;
    int result = sort(folder, err);

    if (result)
        return result;
    divide(folder);
    at_root = index_room(folder, 2 * DOT + INFO);
    if (folder->leaf_count > at_root) {
        nodes = (folder->leaf_count + span - 1) / span;
        if (nodes > at_root)
            return error_set(err, EFBIG, "a directory has too many names");
    }
    put_root(folder, nodes ? 1 : 0);
    put_index(folder, 2 * DOT + INFO, 0, nodes ? nodes : folder->leaf_count, nodes ? span : 1, 1);
    result = write_block(folder, err);
    if (!result)
        result = write_nodes(folder, nodes, span, err);
    for (size_t i = 0; i < folder->leaf_count && !result; i++)
        result = write_leaf(folder, &folder->leaves[i], err);
    return result;
}

/* ---- Both ---- */

int write_folder(struct ext4 *ext4, const struct node *node, struct error *err)
{
    struct folder folder = {.ext4 = ext4, .node = node, .block = ext4->volume.fs->blocksize};
    struct ext2_inode_large *inode = &ext4->stream.inode;
    int result = stream_begin(ext4, node->ino, err);

    folder.buffer = malloc(folder.block);
    if (!result && !folder.buffer)
        result = error_set(err, ENOMEM, "out of memory");
    if (!result && fits_list(&folder)) {
        result = write_list(&folder, err);
    } else if (!result) {
        inode->i_flags |= EXT2_INDEX_FL;
        result = write_tree(&folder, err);
    }
    /* One link says: more than the field can count. */
    inode->i_links_count = node->folders + 2 > LINK_MOST ? 1 : (uint16_t)(node->folders + 2);
    if (!result)
        result = stream_end(ext4, folder.next * folder.block, err);
    stream_abandon(ext4);
    free(folder.buffer);
    free(folder.entries);
    free(folder.leaves);
    return result;
}
