/*
 * Makes an empty ext4 file system, as mke2fs does with its defaults for ext4 (Linux,
 * Documentation/filesystems/ext4): extents, checksums of metadata, 64-bit block numbers, a journal,
 * and room for group descriptors so that it can grow while it is mounted.
 */
#include "image/ext4_volume.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>

#define BLOCK           4096u
#define BYTES_PER_INODE 16384u
#define INODE_SIZE      256
#define EXTRA_SIZE      32 /* of an inode: up to i_projid */

/* What there is to ext2fs_initialize. */
static struct ext2_super_block describe(uint64_t size)
{
    struct ext2_super_block super = {
        .s_log_block_size = 2, /* 1024 << 2 */
        .s_log_cluster_size = 2,
        .s_rev_level = EXT2_DYNAMIC_REV,
        .s_inode_size = INODE_SIZE,
        .s_desc_size = EXT2_MIN_DESC_SIZE_64BIT,
        .s_log_groups_per_flex = 4,
        .s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX |
                            EXT2_FEATURE_COMPAT_RESIZE_INODE,
        .s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                              EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG,
        .s_feature_ro_compat =
            EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
            EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
            EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM,
    };
    uint64_t blocks = size / BLOCK;

    super.s_blocks_count = (uint32_t)blocks;
    super.s_blocks_count_hi = (uint32_t)(blocks >> 32);
    super.s_inodes_count = (uint32_t)MIN(size / BYTES_PER_INODE, 1ULL << 31);
    return super;
}

/* The hash of directories is salted with what the UUID gives, so that two images of the same
 * contents are the same. */
static void fill_super(ext2_filsys fs, const struct ext4_make *make)
{
    struct ext2_super_block *super = fs->super;

    memcpy(super->s_uuid, make->uuid, sizeof(super->s_uuid));
    memcpy(super->s_hash_seed, make->uuid, sizeof(super->s_hash_seed));
    super->s_checksum_type = EXT2_CRC32C_CHKSUM;
    super->s_def_hash_version = EXT2_HASH_HALF_MD4;
    super->s_flags |= EXT2_FLAGS_SIGNED_HASH;
    super->s_min_extra_isize = super->s_want_extra_isize = EXTRA_SIZE;
    super->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
    super->s_max_mnt_count = -1;
    super->s_checkinterval = 0;
    super->s_mkfs_time = super->s_wtime = super->s_lastcheck = (uint32_t)make->now;
    if (make->label)
        memcpy(super->s_volume_name, make->label,
               strnlen(make->label, sizeof(super->s_volume_name)));
    fs->now = (time_t)make->now;
}

/* Inodes up to the first that files have, but for the root directory's. */
static errcode_t reserve_inodes(struct ext4_volume *volume)
{
    ext2_filsys fs = volume->fs;

    for (ext2_ino_t ino = 1; ino < EXT2_FIRST_INODE(fs->super); ino++)
        if (ino != EXT2_ROOT_INO)
            volume->library.inode_alloc_stats2(fs, ino, 1, 0);
    return volume->library.update_bb_inode(fs, NULL);
}

/* The disk reads as zeros, and so do its tables of inodes: no kernel needs to clear them. */
static void mark_zeroed(struct ext4_volume *volume)
{
    for (dgrp_t group = 0; group < volume->fs->group_desc_count; group++) {
        volume->library.bg_flags_set(volume->fs, group, EXT2_BG_INODE_ZEROED);
        volume->library.group_desc_csum_set(volume->fs, group);
    }
}

static errcode_t fill(struct ext4_volume *volume, uint64_t size)
{
    const struct ext2_library *library = &volume->library;
    errcode_t code = library->allocate_tables(volume->fs);
    int journal = library->default_journal_size(size / BLOCK);

    if (code)
        return code;
    mark_zeroed(volume);
    code = reserve_inodes(volume);
    if (!code)
        code = library->create_resize_inode(volume->fs);
    if (!code && journal > 0)
        code = library->add_journal_inode2(volume->fs, (blk_t)journal, ~0ULL, 0);
    return code;
}

int ext4_volume_make(struct ext4_volume *volume, const struct ext4_place *place, const char *name,
                     const struct ext4_make *make, struct error *err)
{
    struct ext2_super_block super = describe(place->size);
    char text[EXT4_IO_NAME];
    errcode_t code;
    int result;

    *volume = (struct ext4_volume){.place = *place, .name = name};
    if (place->size < EXT4_LEAST || place->size > EXT4_MOST)
        return error_set(err, EINVAL, "%s: a file system has 64M to 16T", name);
    result = ext2_library_load(&volume->library, err);
    if (result)
        return result;
    ext4_io_name(text, &volume->place);
    code = volume->library.initialize(text, EXT2_FLAG_64BITS | EXT2_FLAG_EXCLUSIVE, &super,
                                      (io_manager)(uintptr_t)&ext4_io_manager, &volume->fs);
    if (code) {
        volume->fs = NULL;
        return ext4_fail(volume, err, code, "cannot begin a file system");
    }
    fill_super(volume->fs, make);
    volume->library.init_csum_seed(volume->fs);
    code = fill(volume, place->size);
    if (!code)
        return 0;
    ext4_volume_abandon(volume);
    return ext4_fail(volume, err, code, "cannot make the file system");
}
