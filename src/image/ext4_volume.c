/*
 * Opens and closes ext4 file systems, and says what a file is in its inode.
 */
#include "image/ext4_volume.h"

#include "image/ext4.h"

#include <errno.h>
#include <string.h>

/* libext2fs's own codes begin here (com_err); below are the host's. */
#define HOST_CODES 4096

int ext4_fail(const struct ext4_volume *volume, struct error *err, errcode_t code, const char *what)
{
    int number = code > 0 && code < HOST_CODES ? (int)code
                 : code == EXT2_ET_BLOCK_ALLOC_FAIL || code == EXT2_ET_INODE_ALLOC_FAIL ||
                         code == EXT2_ET_TOOSMALL
                     ? ENOSPC
                 : code == EXT2_ET_FILE_NOT_FOUND ? ENOENT
                 : code == EXT2_ET_NO_MEMORY      ? ENOMEM
                                                  : EIO;

    if (number == ENOSPC && code >= HOST_CODES)
        return error_set(err, ENOSPC, "%s: %s: the file system is too small (--size)", volume->name,
                         what);
    return error_set(err, number, "%s: %s: %s", volume->name, what,
                     code < HOST_CODES ? strerror((int)code) : volume->library.error_message(code));
}

int ext4_volume_open(struct ext4_volume *volume, const struct ext4_place *place, const char *name,
                     bool readonly, struct error *err)
{
    char text[EXT4_IO_NAME];
    errcode_t code;
    int result;

    *volume = (struct ext4_volume){.place = *place, .name = name};
    result = ext2_library_load(&volume->library, err);
    if (result)
        return result;
    ext4_io_name(text, place);
    code = volume->library.open(text, EXT2_FLAG_64BITS | (readonly ? 0 : EXT2_FLAG_RW), 0, 0,
                                (io_manager)(uintptr_t)&ext4_io_manager, &volume->fs);
    if (code) {
        volume->fs = NULL;
        return ext4_fail(volume, err, code, "no ext4 file system that can be opened");
    }
    if (!readonly)
        code = volume->library.read_bitmaps(volume->fs);
    if (code) {
        ext4_volume_abandon(volume);
        return ext4_fail(volume, err, code, "cannot read the file system");
    }
    return 0;
}

int ext4_volume_finish(struct ext4_volume *volume, struct error *err)
{
    errcode_t code = volume->library.close_free(&volume->fs);

    /* After a failure it is still open. */
    ext4_volume_abandon(volume);
    return code ? ext4_fail(volume, err, code, "cannot write the file system") : 0;
}

void ext4_volume_abandon(struct ext4_volume *volume)
{
    if (!volume->fs)
        return;
    volume->library.free(volume->fs);
    volume->fs = NULL;
}

void ext4_describe(struct ext2_inode *inode, unsigned type,
                   const struct ext4_attributes *attributes)
{
    inode->i_mode = (uint16_t)(type | (attributes->mode & 07777));
    inode->i_uid = (uint16_t)attributes->uid;
    inode->osd2.linux2.l_i_uid_high = (uint16_t)(attributes->uid >> 16);
    inode->i_gid = (uint16_t)attributes->gid;
    inode->osd2.linux2.l_i_gid_high = (uint16_t)(attributes->gid >> 16);
}
