/*
 * Builds an ext4 file system file by file.
 */
#include "image/ext4_private.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_MOST  16384u /* bytes of a path, and of one whose links have been followed */
#define LINKS_MOST 40     /* symbolic links that are followed in one path */
#define NAME_MOST  255u
#define HARD_MOST  65000u                    /* names of one file */
#define TIME_MOST  ((3LL << 32) + INT32_MAX) /* seconds that an inode has room for */

static const struct ext4_attributes plain = {.mode = 0755};

/* ---- Inodes ---- */

static int new_inode(struct ext4 *ext4, bool folder, ext2_ino_t *ino, struct error *err)
{
    const struct ext2_library *library = &ext4->volume.library;
    errcode_t code =
        library->new_inode(ext4->volume.fs, ext4->last_ino, folder ? S_IFDIR : S_IFREG, NULL, ino);

    if (code)
        return ext4_fail(&ext4->volume, err, code, "no room for more files");
    library->inode_alloc_stats2(ext4->volume.fs, *ino, 1, folder);
    ext4->last_ino = *ino;
    return 0;
}

/* The fields that say when: 32 bits of seconds as before, and two more beside the nanoseconds. */
static void set_times(struct ext2_inode_large *inode, const struct ext4_attributes *attributes)
{
    int64_t seconds = MAX(INT32_MIN, MIN(attributes->seconds, TIME_MOST));
    uint32_t low = (uint32_t)seconds;
    uint32_t extra = (uint32_t)((seconds - (int32_t)low) >> 32 & 3) |
                     MIN(attributes->nanoseconds, 999999999) << 2;

    inode->i_atime = inode->i_ctime = inode->i_mtime = inode->i_crtime = low;
    inode->i_atime_extra = inode->i_ctime_extra = inode->i_mtime_extra = inode->i_crtime_extra =
        extra;
}

static void describe(struct ext2_inode_large *inode, unsigned type,
                     const struct ext4_attributes *attributes)
{
    ext4_describe((struct ext2_inode *)inode, type, attributes);
    set_times(inode, attributes);
}

/* What Linux can store. Extended attributes of other systems mean nothing to it. */
static bool is_known(const char *name)
{
    static const char *const prefixes[] = {"user.", "trusted.", "security."};

    for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++)
        if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
            return name[strlen(prefixes[i])] && strlen(name) <= NAME_MOST;
    return !strcmp(name, "system.posix_acl_access") || !strcmp(name, "system.posix_acl_default");
}

/* Whether an access control list has the form in which system calls give it (Linux,
 * posix_acl_xattr.h): version 2, and entries of eight bytes. libext2fs does not look. */
static bool is_good(const struct ext4_xattr *xattr)
{
    static const uint8_t version[4] = {2};

    return strncmp(xattr->name, "system.posix_acl_", 17) != 0 ||
           (xattr->size >= sizeof(version) && !memcmp(xattr->value, version, sizeof(version)) &&
            (xattr->size - sizeof(version)) % 8 == 0);
}

static errcode_t set_xattrs(struct ext4 *ext4, ext2_ino_t ino,
                            const struct ext4_attributes *attributes)
{
    const struct ext2_library *library = &ext4->volume.library;
    struct ext2_xattr_handle *handle;
    errcode_t code = library->xattrs_open(ext4->volume.fs, ino, &handle);
    unsigned set = 0;

    if (code)
        return code;
    for (unsigned i = 0; i < attributes->xattr_count && !code; i++) {
        const struct ext4_xattr *xattr = &attributes->xattrs[i];

        if (!is_known(xattr->name))
            continue;
        code = is_good(xattr) ? library->xattr_set(handle, xattr->name, xattr->value, xattr->size)
                              : EINVAL;
        set++;
    }
    if (!code && set)
        code = library->xattrs_write(handle);
    library->xattrs_close(&handle);
    return code;
}

static int write_inode(struct ext4 *ext4, ext2_ino_t ino, struct ext2_inode_large *inode,
                       const struct ext4_attributes *attributes, struct error *err)
{
    errcode_t code = ext4->volume.library.write_inode_full(
        ext4->volume.fs, ino, (struct ext2_inode *)inode, sizeof(*inode));

    if (!code && attributes->xattr_count)
        code = set_xattrs(ext4, ino, attributes);
    return code ? ext4_fail(&ext4->volume, err, code, "cannot store a file's attributes") : 0;
}

/* Writes the inode of something new. */
static int make_inode(struct ext4 *ext4, ext2_ino_t ino, unsigned type, const uint32_t block[15],
                      uint64_t size, const struct ext4_attributes *attributes, struct error *err)
{
    struct ext2_inode_large inode = {.i_links_count = 1,
                                     .i_size = (uint32_t)size,
                                     .i_extra_isize = ext4->volume.fs->super->s_want_extra_isize};

    describe(&inode, type, attributes);
    if (block)
        memcpy(inode.i_block, block, sizeof(inode.i_block));
    else
        inode.i_flags = EXT4_EXTENTS_FL;
    return write_inode(ext4, ino, &inode, attributes, err);
}

/* One name less for INO; without names it is gone. */
static int drop_inode(struct ext4 *ext4, ext2_ino_t ino, bool folder, struct error *err)
{
    const struct ext2_library *library = &ext4->volume.library;
    struct ext2_inode_large inode = {0};
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    errcode_t code = library->read_inode_full(ext4->volume.fs, ino, small, sizeof(inode));

    if (!code && !folder && inode.i_links_count > 1) {
        inode.i_links_count--;
    } else if (!code) {
        code = library->free_ext_attr(ext4->volume.fs, ino, &inode);
        if (!code && inode.i_flags & EXT4_EXTENTS_FL)
            code = library->punch(ext4->volume.fs, ino, small, NULL, 0, ~0ULL);
        library->inode_alloc_stats2(ext4->volume.fs, ino, -1, folder);
        memset(&inode, 0, sizeof(inode));
    }
    if (!code)
        code = library->write_inode_full(ext4->volume.fs, ino, small, sizeof(inode));
    return code ? ext4_fail(&ext4->volume, err, code, "cannot remove a file") : 0;
}

/* ---- Paths ---- */

/* A directory and a name in it. */
struct spot {
    struct node *folder;
    const char *name; /* not ended; a copy of the path's end */
    size_t length;
    struct node *node;    /* what is there; or NULL */
    char text[PATH_MOST]; /* what is left of the path */
};

static int bad_path(const char *path, const char *what, struct error *err)
{
    return error_set(err, EINVAL, "'%.200s': %s", path, what);
}

/* Puts TARGET in front of what is left of the path. */
static int follow(struct spot *spot, const char *target, const char *rest, const char *path,
                  struct error *err)
{
    size_t length = strlen(target), tail = strlen(rest);

    if (length + 1 + tail + 1 > sizeof(spot->text))
        return bad_path(path, "links make the path too long", err);
    memmove(spot->text + length + 1, rest, tail + 1);
    memcpy(spot->text, target, length);
    spot->text[length] = '/';
    return 0;
}

static struct node *add_node(struct ext4 *ext4, struct node *folder, const char *name,
                             size_t length, uint8_t type, ext2_ino_t ino, const char *target,
                             struct error *err)
{
    struct node *node = names_add(ext4->names, folder, name, length, type, ino, target);

    if (!node)
        error_set(err, ENOMEM, "no memory for so many names");
    return node;
}

/* Makes a directory of which nothing has been said. */
static int imply(struct ext4 *ext4, struct spot *spot, struct error *err)
{
    ext2_ino_t ino;
    int result = new_inode(ext4, true, &ino, err);

    if (!result)
        result = make_inode(ext4, ino, S_IFDIR, NULL, 0, &plain, err);
    if (result)
        return result;
    spot->node =
        add_node(ext4, spot->folder, spot->name, spot->length, EXT2_FT_DIR, ino, NULL, err);
    return spot->node ? 0 : -ENOMEM;
}

/* A walk along a path: from the root directory, component by component. */
struct walk {
    const char *path; /* for messages */
    unsigned links;   /* that have been followed */
    bool last;        /* a link at the end is followed, too */
    bool make;        /* directories that are missing are made */
    const char *at;
};

/* Sets the spot to the next component; false: there is none. */
static bool next_component(struct spot *spot, struct walk *walk)
{
    walk->at += strspn(walk->at, "/");
    spot->name = walk->at;
    spot->length = strcspn(walk->at, "/");
    walk->at += spot->length;
    return spot->length;
}

/* Whether only slashes and dots follow. */
static bool at_end(const char *rest)
{
    while (*rest == '/' || (*rest == '.' && (rest[1] == '/' || !rest[1]) && rest[-1] == '/'))
        rest++;
    return !*rest;
}

/* Goes on from what the spot says, where more follows: into a directory or along a link. */
static int enter(struct ext4 *ext4, struct spot *spot, struct walk *walk, struct error *err)
{
    int result = 0;

    if (!spot->node && !walk->make)
        return error_set(err, ENOENT, "'%.200s': a directory is missing", walk->path);
    if (!spot->node)
        result = imply(ext4, spot, err);
    if (result)
        return result;
    if (spot->node->type == EXT2_FT_SYMLINK) {
        if (walk->links++ == LINKS_MOST)
            return bad_path(walk->path, "too many symbolic links", err);
        result = follow(spot, spot->node->target, walk->at, walk->path, err);
        if (spot->node->target[0] == '/')
            spot->folder = names_root(ext4->names);
        walk->at = spot->text;
        return result;
    }
    if (spot->node->type != EXT2_FT_DIR)
        return bad_path(walk->path, "what the path leads through is no directory", err);
    spot->folder = spot->node;
    return 0;
}

/* Whether the path itself, before links, leads upwards. */
static bool has_parent(const char *path)
{
    while (*path) {
        path += strspn(path, "/");
        if (!strncmp(path, "..", 2) && (path[2] == '/' || !path[2]))
            return true;
        path += strcspn(path, "/");
    }
    return false;
}

/* Walks from the root directory. At the end SPOT says which directory, name and node the path
 * means; the root directory is the node in itself, with a name of no length. */
static int walk_path(struct ext4 *ext4, struct spot *spot, struct walk *walk, struct error *err)
{
    if (has_parent(walk->path))
        return bad_path(walk->path, "the path leads out of its directory ('..')", err);
    if (strlen(walk->path) >= sizeof(spot->text))
        return error_set(err, ENAMETOOLONG, "'%.200s...': the path is too long", walk->path);
    strcpy(spot->text, walk->path);
    walk->at = spot->text;
    spot->folder = spot->node = names_root(ext4->names);
    while (next_component(spot, walk)) {
        bool end = at_end(walk->at);
        int result;

        if (spot->length == 1 && spot->name[0] == '.')
            continue;
        if (spot->length == 2 && !memcmp(spot->name, "..", 2)) { /* out of a link */
            spot->folder = spot->folder->parent;
            continue;
        }
        if (spot->length > NAME_MOST)
            return error_set(err, ENAMETOOLONG, "'%.200s': a name is too long", walk->path);
        spot->node = names_find(ext4->names, spot->folder, spot->name, spot->length);
        if (end && !(walk->last && spot->node && spot->node->type == EXT2_FT_SYMLINK))
            return 0;
        result = enter(ext4, spot, walk, err);
        if (result)
            return result;
    }
    spot->node = spot->folder;
    spot->length = 0;
    return 0;
}

/* ---- Removing ---- */

static int remove_node(struct ext4 *ext4, struct node *node, struct error *err)
{
    int result = drop_inode(ext4, node->ino, node->type == EXT2_FT_DIR, err);

    if (!result)
        names_remove(ext4->names, node);
    return result;
}

/* From the leaves upwards. */
static int remove_inside(struct ext4 *ext4, struct node *top, struct error *err)
{
    int result = 0;

    for (struct node *node = top; !result && (node != top || top->first);) {
        struct node *parent = node->parent;

        if (node->first) {
            node = node->first;
            continue;
        }
        if (node->ino == EXT4_LOST_FOUND)
            return error_set(err, EINVAL, "lost+found cannot be removed");
        result = remove_node(ext4, node, err);
        node = parent;
    }
    return result;
}

int ext4_remove_contents(struct ext4 *ext4, const char *path, struct error *err)
{
    struct spot *spot = malloc(sizeof(*spot));
    struct walk walk = {.path = path, .last = true};
    int result = spot ? walk_path(ext4, spot, &walk, err) : error_set(err, ENOMEM, "out of memory");

    if (!result && spot->node && spot->node->type == EXT2_FT_DIR)
        result = remove_inside(ext4, spot->node, err);
    free(spot);
    return result == -ENOENT ? 0 : result;
}

int ext4_remove(struct ext4 *ext4, const char *path, struct error *err)
{
    struct spot *spot = malloc(sizeof(*spot));
    struct walk walk = {.path = path};
    int result = spot ? walk_path(ext4, spot, &walk, err) : error_set(err, ENOMEM, "out of memory");

    if (!result && spot->node && spot->length && spot->node->ino != EXT4_LOST_FOUND) {
        result = spot->node->type == EXT2_FT_DIR ? remove_inside(ext4, spot->node, err) : 0;
        if (!result)
            result = remove_node(ext4, spot->node, err);
    }
    free(spot);
    return result == -ENOENT ? 0 : result;
}

/* ---- Adding ---- */

/* Finds where something new goes, and removes what has its name. */
static int clear_spot(struct ext4 *ext4, struct spot *spot, const char *path, struct error *err)
{
    struct walk walk = {.path = path, .make = true};
    int result;

    if (ext4->stream.open)
        return error_set(err, EINVAL, "a file has not been ended");
    result = walk_path(ext4, spot, &walk, err);
    if (result)
        return result;
    if (!spot->length)
        return bad_path(path, "is the root directory, and only a directory can be there", err);
    if (!spot->node)
        return 0;
    if (spot->node->type == EXT2_FT_DIR &&
        (spot->node->first || spot->node->ino == EXT4_LOST_FOUND))
        return bad_path(path, "is a directory that is not empty, and would be replaced", err);
    return remove_node(ext4, spot->node, err);
}

/* Adds what is no directory. */
static int add(struct ext4 *ext4, const char *path, unsigned type, uint8_t file_type,
               const uint32_t block[15], uint64_t size, const char *target,
               const struct ext4_attributes *attributes, ext2_ino_t *made, struct error *err)
{
    struct spot *spot = malloc(sizeof(*spot));
    int result = spot ? clear_spot(ext4, spot, path, err) : error_set(err, ENOMEM, "out of memory");

    if (!result)
        result = new_inode(ext4, false, made, err);
    if (!result)
        result = make_inode(ext4, *made, type, block, size, attributes, err);
    if (!result &&
        !add_node(ext4, spot->folder, spot->name, spot->length, file_type, *made, target, err))
        result = -ENOMEM;
    free(spot);
    return result;
}

/* Gives a directory that is there other attributes. */
static int change(struct ext4 *ext4, const struct node *node,
                  const struct ext4_attributes *attributes, struct error *err)
{
    struct ext2_inode_large inode = {0};
    errcode_t code = ext4->volume.library.read_inode_full(
        ext4->volume.fs, node->ino, (struct ext2_inode *)&inode, sizeof(inode));

    if (code)
        return ext4_fail(&ext4->volume, err, code, "cannot read a directory's attributes");
    describe(&inode, S_IFDIR, attributes);
    return write_inode(ext4, node->ino, &inode, attributes, err);
}

int ext4_directory(struct ext4 *ext4, const char *path, const struct ext4_attributes *attributes,
                   struct error *err)
{
    struct spot *spot = malloc(sizeof(*spot));
    struct walk walk = {.path = path, .make = true, .last = true};
    int result = spot ? walk_path(ext4, spot, &walk, err) : error_set(err, ENOMEM, "out of memory");

    if (!result && ext4->stream.open)
        result = error_set(err, EINVAL, "a file has not been ended");
    if (!result && spot->node && spot->node->type != EXT2_FT_DIR) {
        if (walk.links)
            result = bad_path(path, "a link there leads to no directory, but should", err);
        if (!result)
            result = remove_node(ext4, spot->node, err);
        spot->node = NULL;
    }
    if (!result && !spot->node)
        result = imply(ext4, spot, err);
    if (!result)
        result = change(ext4, spot->node, attributes, err);
    free(spot);
    return result;
}

int ext4_symlink(struct ext4 *ext4, const char *path, const char *target,
                 const struct ext4_attributes *attributes, struct error *err)
{
    size_t length = strlen(target);
    uint32_t block[15] = {0};
    bool inside = length < sizeof(block); /* the inode has room for it */
    ext2_ino_t ino;
    int result;

    if (!length || length >= ext4->volume.fs->blocksize)
        return bad_path(path, "a symbolic link leads nowhere, or is too long", err);
    if (inside)
        memcpy(block, target, length);
    result = add(ext4, path, S_IFLNK, EXT2_FT_SYMLINK, inside ? block : NULL, length, target,
                 attributes, &ino, err);
    if (result || inside)
        return result;
    result = stream_begin(ext4, ino, err);
    if (!result)
        result = stream_write(ext4, 0, target, length, err);
    if (!result)
        result = stream_end(ext4, length, err);
    return result;
}

int ext4_special(struct ext4 *ext4, const char *path, unsigned type, unsigned major, unsigned minor,
                 const struct ext4_attributes *attributes, struct error *err)
{
    uint8_t file_type = type == S_IFCHR   ? EXT2_FT_CHRDEV
                        : type == S_IFBLK ? EXT2_FT_BLKDEV
                        : type == S_IFIFO ? EXT2_FT_FIFO
                                          : EXT2_FT_SOCK;
    bool device = type == S_IFCHR || type == S_IFBLK;
    uint32_t block[15] = {0};
    ext2_ino_t ino;

    if (device && (major > 0xFFF || minor > 0xFFFFF))
        return bad_path(path, "the number of the device is too large", err);
    if (device && major < 256 && minor < 256)
        block[0] = major << 8 | minor;
    else if (device)
        block[1] = (minor & 0xFF) | major << 8 | (minor & ~0xFFu) << 12;
    return add(ext4, path, type, file_type, block, 0, NULL, attributes, &ino, err);
}

static int add_link(struct ext4 *ext4, const struct node *old, struct spot *spot, const char *path,
                    struct error *err)
{
    struct ext2_inode_large inode = {0};
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    const struct ext2_library *library = &ext4->volume.library;
    ext2_ino_t ino = old->ino;
    uint8_t type = old->type;
    errcode_t code;
    int result = clear_spot(ext4, spot, path, err);

    if (result)
        return result;
    code = library->read_inode_full(ext4->volume.fs, ino, small, sizeof(inode));
    if (!code && inode.i_links_count >= HARD_MOST)
        return bad_path(path, "the file has too many names", err);
    inode.i_links_count++;
    if (!code)
        code = library->write_inode_full(ext4->volume.fs, ino, small, sizeof(inode));
    if (code)
        return ext4_fail(&ext4->volume, err, code, "cannot store a file's attributes");
    return add_node(ext4, spot->folder, spot->name, spot->length, type, ino, old->target, err)
               ? 0
               : -ENOMEM;
}

int ext4_link(struct ext4 *ext4, const char *path, const char *existing, struct error *err)
{
    struct spot *from = malloc(sizeof(*from)), *to = malloc(sizeof(*to));
    struct walk walk = {.path = existing}, other = {.path = path, .make = true};
    int result = from && to ? 0 : error_set(err, ENOMEM, "out of memory");

    if (!result)
        result = walk_path(ext4, from, &walk, err);
    if (!result && (!from->node || from->node->type == EXT2_FT_DIR))
        result = error_set(err, EINVAL, "'%.200s' is a link to '%.200s', which is no file there",
                           path, existing);
    if (!result)
        result = walk_path(ext4, to, &other, err);
    /* The same file under the same name is there already. */
    if (!result && to->node != from->node)
        result = add_link(ext4, from->node, to, path, err);
    free(from);
    free(to);
    return result;
}

int ext4_file_begin(struct ext4 *ext4, const char *path, const struct ext4_attributes *attributes,
                    struct error *err)
{
    ext2_ino_t ino;
    int result = add(ext4, path, S_IFREG, EXT2_FT_REG_FILE, NULL, 0, NULL, attributes, &ino, err);

    return result ? result : stream_begin(ext4, ino, err);
}

int ext4_file_write(struct ext4 *ext4, uint64_t offset, const void *data, size_t size,
                    struct error *err)
{
    return stream_write(ext4, offset, data, size, err);
}

int ext4_file_end(struct ext4 *ext4, uint64_t size, struct error *err)
{
    return stream_end(ext4, size, err);
}

/* ---- The whole ---- */

/* The two directories that each file system has. */
static int begin_names(struct ext4 *ext4, int64_t now, struct error *err)
{
    static const char lost[] = "lost+found";
    struct ext4_attributes root = {.mode = 0755, .seconds = now},
                           private = {.mode = 0700, .seconds = now};
    ext2_ino_t ino;
    int result;

    ext4->names = names_create(EXT2_ROOT_INO);
    if (!ext4->names)
        return error_set(err, ENOMEM, "out of memory");
    ext4->volume.library.inode_alloc_stats2(ext4->volume.fs, EXT2_ROOT_INO, 1, 1);
    result = make_inode(ext4, EXT2_ROOT_INO, S_IFDIR, NULL, 0, &root, err);
    if (!result)
        result = new_inode(ext4, true, &ino, err);
    if (!result && ino != EXT4_LOST_FOUND)
        result = error_set(err, EIO, "the first inode is not lost+found's");
    if (!result)
        result = make_inode(ext4, ino, S_IFDIR, NULL, 0, &private, err);
    if (!result &&
        !add_node(ext4, names_root(ext4->names), lost, strlen(lost), EXT2_FT_DIR, ino, NULL, err))
        result = -ENOMEM;
    return result;
}

struct ext4 *ext4_create(struct blk *blk, const struct ext4_options *options, struct error *err)
{
    struct ext4 *ext4 = calloc(1, sizeof(*ext4));
    struct ext4_place place = {.blk = blk, .size = options->size};
    struct ext4_make make = {.label = options->label, .now = options->now};
    int result;

    if (!ext4) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    memcpy(make.uuid, options->uuid, sizeof(make.uuid));
    result = ext4_volume_make(&ext4->volume, &place, options->name, &make, err);
    if (!result)
        result = begin_names(ext4, options->now, err);
    if (!result)
        return ext4;
    ext4_free(ext4);
    return NULL;
}

int ext4_finish(struct ext4 *ext4, struct error *err)
{
    int result = 0;

    if (ext4->stream.open)
        return error_set(err, EINVAL, "a file has not been ended");
    for (struct node *node = names_next_folder(ext4->names, NULL); node && !result;
         node = names_next_folder(ext4->names, node))
        result = write_folder(ext4, node, err);
    return result ? result : ext4_volume_finish(&ext4->volume, err);
}

void ext4_free(struct ext4 *ext4)
{
    if (!ext4)
        return;
    stream_abandon(ext4);
    free(ext4->stream.buffer);
    ext4_volume_abandon(&ext4->volume);
    names_free(ext4->names);
    free(ext4);
}

uint64_t ext4_count(const struct ext4 *ext4)
{
    return names_count(ext4->names);
}
