/*
 * Reads and changes single files of an ext4 file system.
 */
#include "image/ext4_edit.h"

#include "base/util.h"
#include "base/write_all.h"
#include "image/ext4_volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE     (256u * 1024)
#define PATH_MOST 1024

struct ext4_edit {
    struct ext4_volume volume;
};

struct ext4_edit *ext4_edit_open(struct blk *blk, uint64_t offset, uint64_t size, const char *name,
                                 enum ext4_use use, struct error *err)
{
    static const uint64_t reads[] = {
        [EXT4_CHANGE] = 0, [EXT4_LOOK] = 64 * 1024, [EXT4_COPY] = 8 * 1024 * 1024};
    struct ext4_edit *edit = calloc(1, sizeof(*edit));
    struct ext4_place place = {
        .blk = blk, .offset = offset, .size = size, .reads_most = reads[use]};

    if (!edit)
        error_set(err, ENOMEM, "out of memory");
    if (edit && !ext4_volume_open(&edit->volume, &place, name, use != EXT4_CHANGE, err))
        return edit;
    free(edit);
    return NULL;
}

int ext4_edit_finish(struct ext4_edit *edit, struct error *err)
{
    return ext4_volume_finish(&edit->volume, err);
}

void ext4_edit_free(struct ext4_edit *edit)
{
    if (!edit)
        return;
    ext4_volume_abandon(&edit->volume);
    free(edit);
}

static int fail(const struct ext4_edit *edit, const char *path, errcode_t code, struct error *err)
{
    return ext4_fail(&edit->volume, err, code, path);
}

static errcode_t find(struct ext4_edit *edit, const char *path, ext2_ino_t *ino)
{
    return edit->volume.library.namei_follow(edit->volume.fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path,
                                             ino);
}

bool ext4_edit_exists(struct ext4_edit *edit, const char *path)
{
    ext2_ino_t ino;

    return !find(edit, path, &ino);
}

/* ---- Reading ---- */

/* Opens the regular file PATH. */
static int open_file(struct ext4_edit *edit, const char *path, ext2_file_t *file, uint64_t *size,
                     struct error *err)
{
    const struct ext2_library *library = &edit->volume.library;
    struct ext2_inode inode;
    __u64 length;
    ext2_ino_t ino;
    errcode_t code = find(edit, path, &ino);

    if (!code)
        code = library->read_inode(edit->volume.fs, ino, &inode);
    if (!code && !S_ISREG(inode.i_mode))
        return error_set(err, EINVAL, "%s: %s is not a regular file", edit->volume.name, path);
    if (!code)
        code = library->file_open(edit->volume.fs, ino, 0, file);
    if (code)
        return fail(edit, path, code, err);
    code = library->file_get_lsize(*file, &length);
    *size = length;
    if (code)
        library->file_close(*file);
    return code ? fail(edit, path, code, err) : 0;
}

char *ext4_edit_read(struct ext4_edit *edit, const char *path, size_t most, size_t *size,
                     struct error *err)
{
    const struct ext2_library *library = &edit->volume.library;
    ext2_file_t file;
    uint64_t length;
    unsigned got = 0;
    errcode_t code;
    char *data;

    if (open_file(edit, path, &file, &length, err))
        return NULL;
    data = length <= most && length < UINT32_MAX ? malloc(length + 1) : NULL;
    if (!data) {
        error_set(err, length > most ? EFBIG : ENOMEM, "%s: %s is too large", edit->volume.name,
                  path);
        library->file_close(file);
        return NULL;
    }
    code = library->file_read(file, data, (unsigned)length, &got);
    library->file_close(file);
    if (code) {
        free(data);
        fail(edit, path, code, err);
        return NULL;
    }
    data[got] = '\0';
    *size = got;
    return data;
}

int ext4_edit_copy(struct ext4_edit *edit, const char *path, int fd, uint64_t most,
                   struct error *err)
{
    const struct ext2_library *library = &edit->volume.library;
    ext2_file_t file;
    uint64_t left;
    unsigned got;
    char *piece;
    int result = open_file(edit, path, &file, &left, err);

    if (result)
        return result;
    piece = malloc(PIECE);
    if (left > most || !piece)
        result = error_set(err, left > most ? EFBIG : ENOMEM, "%s: %s is too large",
                           edit->volume.name, path);
    while (!result && left) {
        errcode_t code = library->file_read(file, piece, (unsigned)MIN(left, PIECE), &got);

        if (code || !got)
            result = fail(edit, path, code ? code : EXT2_ET_SHORT_READ, err);
        else if ((result = write_all(fd, piece, got)) < 0)
            error_set(err, -result, "cannot write: %s", strerror(-result));
        left -= got;
    }
    free(piece);
    library->file_close(file);
    return result;
}

struct listing {
    void (*name)(void *opaque, const char *name);
    void *opaque;
};

static int list_entry(struct ext2_dir_entry *entry, int offset, int block_size, char *buffer,
                      void *opaque)
{
    const struct listing *listing = opaque;
    char name[EXT2_NAME_LEN + 1];
    size_t length = entry->name_len & 0xFF;

    memcpy(name, entry->name, length);
    name[length] = '\0';
    listing->name(listing->opaque, name);
    return 0;
}

int ext4_edit_list(struct ext4_edit *edit, const char *path,
                   void (*name)(void *opaque, const char *name), void *opaque, struct error *err)
{
    struct listing listing = {.name = name, .opaque = opaque};
    ext2_ino_t ino;
    errcode_t code = find(edit, path, &ino);

    if (!code)
        code =
            edit->volume.library.dir_iterate(edit->volume.fs, ino, 0, NULL, list_entry, &listing);
    return code ? fail(edit, path, code, err) : 0;
}

/* ---- Changing ---- */

/* Finds the directory that PATH lies in, and the name in it. */
static errcode_t find_parent(struct ext4_edit *edit, const char *path, ext2_ino_t *parent,
                             const char **name)
{
    const char *slash = strrchr(path, '/');
    char folder[PATH_MOST];

    *name = slash ? slash + 1 : path;
    *parent = EXT2_ROOT_INO;
    if (!slash || slash == path)
        return 0;
    if ((size_t)(slash - path) >= sizeof(folder))
        return ENAMETOOLONG;
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    return find(edit, folder, parent);
}

/* Gives INO a name. A directory that is full is made longer. */
static errcode_t add_name(struct ext4_edit *edit, ext2_ino_t folder, const char *name,
                          ext2_ino_t ino)
{
    const struct ext2_library *library = &edit->volume.library;
    errcode_t code = library->link(edit->volume.fs, folder, name, ino, EXT2_FT_REG_FILE);

    if (code != EXT2_ET_DIR_NO_SPACE)
        return code;
    code = library->expand_dir(edit->volume.fs, folder);
    return code ? code : library->link(edit->volume.fs, folder, name, ino, EXT2_FT_REG_FILE);
}

static void describe(struct ext2_inode *inode, unsigned type,
                     const struct ext4_attributes *attributes)
{
    ext4_describe(inode, type, attributes);
    inode->i_atime = inode->i_ctime = inode->i_mtime = (uint32_t)attributes->seconds;
}

static errcode_t make_file(struct ext4_edit *edit, const char *path,
                           const struct ext4_attributes *attributes, ext2_ino_t *ino)
{
    const struct ext2_library *library = &edit->volume.library;
    ext2_filsys fs = edit->volume.fs;
    struct ext2_inode_large inode = {.i_links_count = 1,
                                     .i_extra_isize = fs->super->s_want_extra_isize};
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    ext2_extent_handle_t handle;
    ext2_ino_t parent;
    const char *name;
    errcode_t code = find_parent(edit, path, &parent, &name);

    if (!code)
        code = library->new_inode(fs, parent, S_IFREG, NULL, ino);
    if (code)
        return code;
    describe(small, S_IFREG, attributes);
    library->inode_alloc_stats2(fs, *ino, 1, 0);
    /* Begins an empty map of extents. */
    code = library->write_inode_full(fs, *ino, small, sizeof(inode));
    if (!code && fs->super->s_feature_incompat & EXT3_FEATURE_INCOMPAT_EXTENTS) {
        inode.i_flags |= EXT4_EXTENTS_FL;
        code = library->extent_open2(fs, *ino, small, &handle);
        if (!code)
            library->extent_free(handle);
    }
    if (!code)
        code = library->write_inode_full(fs, *ino, small, sizeof(inode));
    return code ? code : add_name(edit, parent, name, *ino);
}

static errcode_t fill_file(struct ext4_edit *edit, ext2_ino_t ino, const char *data, size_t size)
{
    const struct ext2_library *library = &edit->volume.library;
    ext2_file_t file;
    unsigned written;
    errcode_t end, code = library->file_open(edit->volume.fs, ino, EXT2_FILE_WRITE, &file);

    if (code)
        return code;
    code = library->file_set_size2(file, 0);
    while (!code && size) {
        code = library->file_write(file, data, (unsigned)MIN(size, PIECE), &written);
        if (!code && !written)
            code = ENOSPC;
        data += written;
        size -= written;
    }
    end = library->file_close(file);
    return code ? code : end;
}

int ext4_edit_write(struct ext4_edit *edit, const char *path, const void *data, size_t size,
                    const struct ext4_attributes *attributes, struct error *err)
{
    struct ext2_inode inode;
    ext2_ino_t ino;
    errcode_t code = find(edit, path, &ino);

    if (code == EXT2_ET_FILE_NOT_FOUND)
        code = make_file(edit, path, attributes, &ino);
    if (!code)
        code = edit->volume.library.read_inode(edit->volume.fs, ino, &inode);
    if (!code && !S_ISREG(inode.i_mode))
        return error_set(err, EINVAL, "%s: %s is not a regular file", edit->volume.name, path);
    if (!code)
        code = fill_file(edit, ino, data, size);
    return code ? fail(edit, path, code, err) : 0;
}

static errcode_t make_directory(struct ext4_edit *edit, ext2_ino_t parent, const char *name)
{
    const struct ext2_library *library = &edit->volume.library;
    errcode_t code = library->mkdir(edit->volume.fs, parent, 0, name);

    if (code != EXT2_ET_DIR_NO_SPACE)
        return code;
    code = library->expand_dir(edit->volume.fs, parent);
    return code ? code : library->mkdir(edit->volume.fs, parent, 0, name);
}

int ext4_edit_directory(struct ext4_edit *edit, const char *path,
                        const struct ext4_attributes *attributes, struct error *err)
{
    const struct ext2_library *library = &edit->volume.library;
    struct ext2_inode inode;
    ext2_ino_t parent, ino;
    const char *name;
    errcode_t code = find(edit, path, &ino);

    if (code != EXT2_ET_FILE_NOT_FOUND)
        return code ? fail(edit, path, code, err) : 0;
    code = find_parent(edit, path, &parent, &name);
    if (!code)
        code = make_directory(edit, parent, name);
    if (!code)
        code = find(edit, path, &ino);
    if (!code)
        code = library->read_inode(edit->volume.fs, ino, &inode);
    if (!code) {
        describe(&inode, S_IFDIR, attributes);
        code = library->write_inode(edit->volume.fs, ino, &inode);
    }
    return code ? fail(edit, path, code, err) : 0;
}
