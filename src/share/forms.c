/*
 * The operations of the FUSE protocol, and the form of their arguments.
 */
#include "share/operation.h"

#include "base/util.h"

#include <errno.h>

#define OPCODE_STATX 52 /* version 7.39; the header may be older */

enum {
    NODE = 1,    /* the header names a node */
    CHANGES = 2, /* something on the host: not if the folder is shared to be read only */
    SILENT = 4,  /* has no answer */
    EARLY = 8,   /* also before FUSE_INIT */
};

struct form {
    int (*run)(struct share_op *op);
    uint16_t least; /* bytes of the argument */
    uint8_t flags;
};

#define SIZE(type) sizeof(struct type)

/* Before version 7.29 a setxattr had 8 bytes, and still has unless FUSE_SETXATTR_EXT is agreed. */
static const struct form forms[] = {
    [FUSE_LOOKUP] = {share_op_lookup, 2, NODE},
    [FUSE_FORGET] = {share_op_forget, SIZE(fuse_forget_in), SILENT},
    [FUSE_GETATTR] = {share_op_getattr, SIZE(fuse_getattr_in), NODE},
    [FUSE_SETATTR] = {share_op_setattr, SIZE(fuse_setattr_in), NODE | CHANGES},
    [FUSE_READLINK] = {share_op_readlink, 0, NODE},
    [FUSE_SYMLINK] = {share_op_symlink, 4, NODE | CHANGES},
    [FUSE_MKNOD] = {share_op_mknod, SIZE(fuse_mknod_in) + 2, NODE | CHANGES},
    [FUSE_MKDIR] = {share_op_mkdir, SIZE(fuse_mkdir_in) + 2, NODE | CHANGES},
    [FUSE_UNLINK] = {share_op_unlink, 2, NODE | CHANGES},
    [FUSE_RMDIR] = {share_op_rmdir, 2, NODE | CHANGES},
    [FUSE_RENAME] = {share_op_rename, SIZE(fuse_rename_in) + 4, NODE | CHANGES},
    [FUSE_LINK] = {share_op_link, SIZE(fuse_link_in) + 2, NODE | CHANGES},
    [FUSE_OPEN] = {share_op_open, SIZE(fuse_open_in), NODE},
    [FUSE_READ] = {share_op_read, SIZE(fuse_read_in), NODE},
    [FUSE_WRITE] = {share_op_write, SIZE(fuse_write_in), NODE | CHANGES},
    [FUSE_STATFS] = {share_op_statfs, 0, NODE},
    [FUSE_RELEASE] = {share_op_release, SIZE(fuse_release_in), NODE},
    [FUSE_FSYNC] = {share_op_fsync, SIZE(fuse_fsync_in), NODE},
    [FUSE_SETXATTR] = {share_op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE + 2, NODE | CHANGES},
    [FUSE_GETXATTR] = {share_op_getxattr, SIZE(fuse_getxattr_in) + 2, NODE},
    [FUSE_LISTXATTR] = {share_op_listxattr, SIZE(fuse_getxattr_in), NODE},
    [FUSE_REMOVEXATTR] = {share_op_removexattr, 2, NODE | CHANGES},
    [FUSE_FLUSH] = {share_op_flush, SIZE(fuse_flush_in), NODE},
    [FUSE_INIT] = {share_op_init, 16, EARLY},
    [FUSE_OPENDIR] = {share_op_opendir, SIZE(fuse_open_in), NODE},
    [FUSE_READDIR] = {share_op_readdir, SIZE(fuse_read_in), NODE},
    [FUSE_RELEASEDIR] = {share_op_release, SIZE(fuse_release_in), NODE},
    [FUSE_FSYNCDIR] = {share_op_fsync, SIZE(fuse_fsync_in), NODE},
    [FUSE_GETLK] = {share_op_getlk, SIZE(fuse_lk_in), NODE},
    [FUSE_SETLK] = {share_op_setlk, SIZE(fuse_lk_in), NODE},
    [FUSE_SETLKW] = {share_op_setlk, SIZE(fuse_lk_in), NODE},
    [FUSE_CREATE] = {share_op_create, SIZE(fuse_create_in) + 2, NODE | CHANGES},
    [FUSE_INTERRUPT] = {share_op_interrupt, SIZE(fuse_interrupt_in), SILENT},
    [FUSE_DESTROY] = {share_op_destroy, 0, EARLY},
    [FUSE_BATCH_FORGET] = {share_op_forget_batch, SIZE(fuse_batch_forget_in), SILENT},
    [FUSE_FALLOCATE] = {share_op_fallocate, SIZE(fuse_fallocate_in), NODE | CHANGES},
    [FUSE_READDIRPLUS] = {share_op_readdir, SIZE(fuse_read_in), NODE},
    [FUSE_RENAME2] = {share_op_rename2, SIZE(fuse_rename2_in) + 4, NODE | CHANGES},
    [FUSE_LSEEK] = {share_op_lseek, SIZE(fuse_lseek_in), NODE},
    [FUSE_COPY_FILE_RANGE] = {share_op_copy, SIZE(fuse_copy_file_range_in), NODE | CHANGES},
    [FUSE_SYNCFS] = {share_op_syncfs, 0, NODE},
    [FUSE_TMPFILE] = {share_op_tmpfile, SIZE(fuse_create_in), NODE | CHANGES},
    [OPCODE_STATX] = {share_op_statx, 24, NODE},
};

static const struct form *form_of(uint32_t opcode)
{
    return opcode < ARRAY_SIZE(forms) && forms[opcode].run ? &forms[opcode] : NULL;
}

bool share_has_no_answer(uint32_t opcode)
{
    const struct form *form = form_of(opcode);

    return form && form->flags & SILENT;
}

int share_operate(struct share_op *op)
{
    const struct form *form = form_of(op->header.opcode);
    struct share *s = op->share;
    int ret;

    if (!form)
        return -ENOSYS;
    if (op->size < form->least)
        return -EINVAL;
    if (!atomic_load(&s->ready) && !(form->flags & EARLY))
        return -EIO;
    if (s->options.readonly && form->flags & CHANGES)
        return -EROFS;
    if (!(form->flags & NODE))
        return form->run(op);
    op->node = share_node_hold(s, op->header.nodeid);
    if (!op->node)
        return -ESTALE;
    ret = form->run(op);
    share_node_drop(s, op->node);
    return ret;
}
