/*
 * A shared folder: opening it, and what becomes of a request.
 */
#include "share/share.h"

#include "base/buffers.h"
#include "base/util.h"
#include "share/lock.h"
#include "share/mirror.h"
#include "share/operation.h"
#include "share/remote.h"
#include "share/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* The folder's threads: operations that may wait for the host's disk, or for a server. */
#define THREADS_MOST 16

#define HEADER_IN  sizeof(struct fuse_in_header)
#define HEADER_OUT sizeof(struct fuse_out_header)

/* ---- Requests ---- */

/* How much of a request is copied: all of it but the data that is written. */
static size_t argument_size(const struct fuse_in_header *header, size_t size)
{
    return header->opcode == FUSE_WRITE ? MIN(size, sizeof(struct fuse_write_in)) : size;
}

/* Copies what stands behind the header. Returns memory that the caller frees. */
static uint8_t *take_argument(struct share_op *op, size_t size)
{
    const struct share_request *r = op->request;
    uint8_t *copy;

    op->size = argument_size(&op->header, size);
    if (op->size > SHARE_ARGUMENT_MOST)
        return NULL;
    copy = malloc(op->size + 1);
    if (copy)
        share_gather(r->in, r->ins, HEADER_IN, copy, op->size);
    op->argument = copy;
    return copy;
}

static void operate(struct share *s, struct share_request *r, const struct fuse_in_header *header,
                    size_t size)
{
    size_t room = buffers_length(r->out, r->outs);
    bool silent = share_has_no_answer(header->opcode);
    struct share_op op = {.share = s, .request = r, .header = *header};
    uint8_t *copy;
    int error;

    if (!silent && room < HEADER_OUT) {
        r->done(r, -EPROTO);
        return;
    }
    op.room = room < HEADER_OUT ? 0 : room - HEADER_OUT;
    op.answer = op.small;
    copy = take_argument(&op, size - HEADER_IN);
    error = copy ? share_operate(&op) : -EINVAL;
    if (silent && (!error || room < HEADER_OUT))
        r->done(r, 0);
    else if (op.cancelled)
        r->done(r, -ECANCELED);
    else if (!op.later)
        share_answer(r, header->unique, error, op.placed ? NULL : op.answer, op.answered);
    if (op.answer != op.small)
        free(op.answer);
    free(copy);
}

/* Reads the header, which must say how long the request is. */
static bool take_header(const struct share_request *r, struct fuse_in_header *header, size_t *size)
{
    if (r->ins > SHARE_IOVS_MOST || r->outs > SHARE_IOVS_MOST)
        return false;
    *size = buffers_length(r->in, r->ins);
    return share_gather(r->in, r->ins, 0, header, sizeof(*header)) && header->len >= HEADER_IN &&
           header->len == *size;
}

static void run(struct pool_job *job)
{
    struct share_request *r = container_of(job, struct share_request, job);
    struct fuse_in_header header;
    size_t size;

    if (take_header(r, &header, &size))
        operate(r->share, r, &header, size);
    else
        r->done(r, -EPROTO);
}

/* Whether it only touches what is in memory. */
static bool is_quick(const struct fuse_in_header *header)
{
    return header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET ||
           header->opcode == FUSE_INTERRUPT;
}

void share_submit(struct share *s, struct share_request *r)
{
    struct fuse_in_header header;
    size_t size;

    if (s->remote) {
        share_remote_submit(s->remote, r);
        return;
    }
    r->share = s;
    r->recalls = share_waits_recalls(s->waits);
    /* What is done here is what this header says: the guest may have another one there by now. */
    if (take_header(r, &header, &size) && is_quick(&header)) {
        operate(s, r, &header, size);
        return;
    }
    r->job = (struct pool_job){.run = run};
    pool_post(s->pool, &r->job);
}

void share_recall(struct share *s)
{
    if (s->remote)
        share_remote_recall(s->remote);
    else
        share_waits_end(s->waits, -ECANCELED);
}

void share_reset(struct share *s)
{
    if (s->remote)
        share_remote_reset(s->remote);
    else
        share_tables_reset(s);
}

void share_state(struct share *s, struct state *state, uint32_t instance)
{
    if (s->remote) {
        share_remote_state(s->remote, state, instance);
        return;
    }
    share_tables_state(s, state, instance);
    if (!state_saving(state) && !state_error(state))
        share_tables_open(s);
}

/* ---- Opening ---- */

static unsigned read_umask(void)
{
    char line[256];
    unsigned mask = 0777; /* unknown: modes are set once more */
    FILE *status = fopen("/proc/self/status", "re");

    while (status && fgets(line, sizeof(line), status))
        if (sscanf(line, "Umask: %o", &mask) == 1)
            break;
    if (status)
        fclose(status);
    return mask & 0777;
}

/* Fills in what the process is, and what folders need of it. */
static int look_at_process(struct share *s, struct error *err)
{
    s->uid = geteuid();
    s->gid = getegid();
    s->umask = read_umask();
    descriptors_init(&s->limit, DESCRIPTORS_FILES, s->options.folder, s->host.log);
    s->descriptors = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (s->descriptors < 0)
        return error_set(err, errno,
                         "shared folder %s: cannot open /proc/self/fd (%s); mount proc on /proc",
                         s->options.folder, strerror(errno));
    return 0;
}

static int check_top(const struct share *s, const struct statx *top, struct error *err)
{
    const char *folder = s->options.folder;
    struct statfs fs;

    if (!(top->stx_mask & STATX_MNT_ID))
        return error_set(err, ENOSYS, "shared folder %s: needs a host with Linux 5.8 or newer",
                         folder);
    if (fstatfs(s->root, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC)
        return error_set(err, EINVAL,
                         "shared folder %s: what the kernel says of processes cannot be shared",
                         folder);
    if (s->options.owner != SHARE_OWNER_XATTR || s->options.readonly)
        return 0;
    if (access(folder, W_OK) < 0)
        return error_set(err, errno,
                         "shared folder %s: cannot be written to (%s); share it with "
                         "readonly",
                         folder, strerror(errno));
    return 0;
}

static int open_top(struct share *s, struct error *err)
{
    const char *folder = s->options.folder;
    struct statx top;

    s->root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (s->root < 0)
        return error_set(err, errno, "shared folder %s: cannot be opened: %s", folder,
                         strerror(errno));
    if (statx(s->root, "", AT_EMPTY_PATH, SHARE_STATX, &top) < 0)
        return error_set(err, errno, "shared folder %s: cannot be looked at: %s", folder,
                         strerror(errno));
    if (check_top(s, &top, err) < 0)
        return -err->code;
    s->mount = top.stx_mnt_id;
    if (share_nodes_init(s, &top) < 0)
        return error_set(err, ENOMEM, "shared folder %s: out of memory", folder);
    return 0;
}

static int copy_options(struct share *s, const struct share_options *options, struct error *err)
{
    s->options = *options;
    s->options.folder = strdup(options->folder);
    s->options.tag = strdup(options->tag);
    if (s->options.folder && s->options.tag)
        return 0;
    return error_set(err, ENOMEM, "shared folder %s: out of memory", options->folder);
}

static int open_all(struct share *s, struct error *err)
{
    int ret = look_at_process(s, err);

    if (ret == 0)
        ret = open_top(s, err);
    if (ret < 0)
        return ret;
    s->waits = share_waits_create();
    if (!s->waits)
        return error_set(err, ENOMEM, "shared folder %s: out of memory", s->options.folder);
    s->pool = pool_create("share", THREADS_MOST, err);
    return s->pool ? 0 : -ENOMEM;
}

/* Has a process of its own open the folder. */
static int open_isolated(struct share *s, struct error *err)
{
    int link =
        s->host.isolate ? s->host.isolate(s->host.isolate_opaque, s->options.folder) : -ENOSYS;

    if (link < 0)
        return error_set(err, -link,
                         "shared folder %s: no supervisor can start a process for it (isolate): %s",
                         s->options.folder, strerror(-link));
    if (share_mirror_init(s) < 0) {
        close(link);
        return error_set(err, ENOMEM, "shared folder %s: out of memory", s->options.folder);
    }
    s->remote = share_remote_open(s, link, err);
    return s->remote ? 0 : -EIO;
}

struct share *share_open(const struct share_options *options, const struct share_host *host,
                         struct error *err)
{
    struct share *s = calloc(1, sizeof(*s));
    struct error own;

    err = err ? err : &own;
    if (!s) {
        error_set(err, ENOMEM, "shared folder %s: out of memory", options->folder);
        return NULL;
    }
    s->root = s->descriptors = -1;
    if (host)
        s->host = *host;
    pthread_mutex_init(&s->lock, NULL);
    slots_init(&s->handles, SHARE_HANDLES_MOST);
    if (copy_options(s, options, err) < 0 ||
        (options->isolate ? open_isolated(s, err) : open_all(s, err)) < 0) {
        share_close(s);
        return NULL;
    }
    return s;
}

void share_close(struct share *s)
{
    if (!s)
        return;
    share_remote_close(s->remote);
    pool_destroy(s->pool);
    if (s->top)
        share_tables_reset(s);
    if (s->waits)
        share_waits_destroy(s->waits);
    slots_free(&s->handles);
    share_nodes_free(s);
    if (s->root >= 0)
        close(s->root);
    if (s->descriptors >= 0)
        close(s->descriptors);
    share_options_free(&s->options);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct where *share_where(struct share *s, unsigned n)
{
    struct where *where;
    unsigned threads = 0;

    if (s->remote)
        return n == 0 ? share_remote_where(s->remote) : NULL;
    while ((where = pool_where(s->pool, threads)) && threads < n)
        threads++;
    return where ? where : n == threads ? share_waits_where(s->waits) : NULL;
}
