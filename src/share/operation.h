/*
 * One operation of the FUSE protocol: what the guest asks for, checked as far as its form goes, and
 * what it is answered.
 */
#ifndef DOPPEL_SHARE_OPERATION_H
#define DOPPEL_SHARE_OPERATION_H

#include "share/handle.h"
#include "share/intent.h"
#include "share/notes.h"
#include "share/owner.h"
#include "share/reach.h"

#include <stddef.h>

/* The most bytes of a request without the data that is written, and of an answer without the data
 * that is read: an extended attribute of 64 KiB and what stands around it. */
#define SHARE_ARGUMENT_MOST (72u << 10)
#define SHARE_ANSWER_MOST   (64u << 10)
#define SHARE_ANSWER_SMALL  512u

struct share_op {
    struct share *share;
    struct share_request *request;
    struct fuse_in_header header;
    const uint8_t *argument; /* behind the header: a copy, which the guest cannot change */
    size_t size;             /* of it */
    struct share_node *node; /* the header's, held; or NULL */
    size_t room;             /* for the answer, behind its header */

    uint8_t *answer; /* behind its header */
    size_t answered; /* bytes of it */
    bool placed;     /* they are in the request's buffers already */
    bool cancelled;  /* it was recalled before it began */
    bool later;      /* the operation goes on; whoever does it completes the request */
    uint8_t small[SHARE_ANSWER_SMALL];
};

/* forms.c: executes OP->header.opcode. Returns 0 or a negative errno, which is the guest's answer.
 */
int share_operate(struct share_op *op);
/* Whether the protocol has no answer to it. */
bool share_has_no_answer(uint32_t opcode);

/* buffers.c: ends REQUEST with the answer to what has UNIQUE. ERROR: 0 or a negative errno; without
 * one, SIZE bytes of DATA, or, with DATA NULL, which are in place. */
void share_answer(struct share_request *request, uint64_t unique, int error, const void *data,
                  size_t size);

/* ---- For op_*.c ---- */

/* The argument's structure at its beginning, whose size the table has checked. */
#define SHARE_ARGUMENT(op, type) ((const struct type *)(const void *)(op)->argument)

/* The string at OFFSET of the argument; *NEXT is what follows it. NULL: it does not end. */
const char *share_op_text(const struct share_op *op, size_t offset, size_t *next);
/* The same, checked to be a name that a file can have. -EINVAL, -ENAMETOOLONG. */
int share_op_name(const struct share_op *op, size_t offset, const char **name, size_t *next);
/* Answers with SIZE bytes at DATA: at most SHARE_ANSWER_SMALL. */
int share_op_answer(struct share_op *op, const void *data, size_t size);
/* Tells of a change to what the guest knows, which comes with the answer. */
void share_op_change(struct share_op *op, enum share_change_kind kind, uint32_t count, uint64_t a,
                     uint64_t b);
/* Memory for an answer of SIZE bytes, at most SHARE_ANSWER_MOST, in OP->answer. */
int share_op_reserve(struct share_op *op, size_t size);

/* attributes.c */
void share_fill_attributes(const struct share *share, const char *path, const char *name,
                           const struct statx *stx, struct fuse_attr *attr);
void share_fill_entry(const struct share *share, const struct share_node *node, const char *path,
                      const char *name, const struct statx *stx, bool submount,
                      struct fuse_entry_out *entry);
/* How long what the guest sees may be believed, as the protocol's pairs have it. */
void share_fill_timeout(const struct share *share, uint64_t *seconds, uint32_t *nanoseconds);

/* The same as share_node_found, and tells of it. */
int share_op_found(struct share_op *op, struct share_node *parent, const char *name,
                   const struct statx *stx, struct share_node **node);
/* Finds the node of NAME in the directory that was reached, which is PARENT's, and answers for it.
 * *FOUND is held, and counts as looked up; the caller gives that up on failure. */
int share_find(struct share_op *op, struct share_node *parent, const struct share_place *place,
               const char *name, struct fuse_entry_out *entry, struct share_node **found);
/* Gives up a node that share_find or share_op_found has returned, and that the guest will not hear
 * of. */
void share_unfind(struct share_op *op, struct share_node *node);

/* op_*.c */
int share_op_init(struct share_op *op);
int share_op_destroy(struct share_op *op);
int share_op_forget(struct share_op *op);
int share_op_forget_batch(struct share_op *op);
int share_op_interrupt(struct share_op *op);
int share_op_lookup(struct share_op *op);
int share_op_getattr(struct share_op *op);
int share_op_setattr(struct share_op *op);
int share_op_statx(struct share_op *op);
int share_op_statfs(struct share_op *op);
int share_op_syncfs(struct share_op *op);
int share_op_readlink(struct share_op *op);
int share_op_symlink(struct share_op *op);
int share_op_mknod(struct share_op *op);
int share_op_mkdir(struct share_op *op);
int share_op_unlink(struct share_op *op);
int share_op_rmdir(struct share_op *op);
int share_op_rename(struct share_op *op);
int share_op_rename2(struct share_op *op);
int share_op_link(struct share_op *op);
int share_op_open(struct share_op *op);
int share_op_create(struct share_op *op);
int share_op_tmpfile(struct share_op *op);
int share_op_opendir(struct share_op *op);
int share_op_release(struct share_op *op);
int share_op_read(struct share_op *op);
int share_op_write(struct share_op *op);
int share_op_flush(struct share_op *op);
int share_op_fsync(struct share_op *op);
int share_op_fallocate(struct share_op *op);
int share_op_lseek(struct share_op *op);
int share_op_copy(struct share_op *op);
int share_op_readdir(struct share_op *op);
int share_op_getxattr(struct share_op *op);
int share_op_setxattr(struct share_op *op);
int share_op_listxattr(struct share_op *op);
int share_op_removexattr(struct share_op *op);
int share_op_getlk(struct share_op *op);
int share_op_setlk(struct share_op *op);

/* The buffers of a request (base/buffers.h). Return false, and nothing is copied, if there are
 * fewer than OFFSET + SIZE bytes. */
bool share_gather(const struct iovec *iov, unsigned iovs, size_t offset, void *data, size_t size);
bool share_scatter(const struct iovec *iov, unsigned iovs, size_t offset, const void *data,
                   size_t size);
/* Stores in PART, of IOVS elements, what there is of SIZE bytes from OFFSET on, and returns how
 * many these are. */
unsigned share_slice(const struct iovec *iov, unsigned iovs, size_t offset, size_t size,
                     struct iovec *part);

#endif
