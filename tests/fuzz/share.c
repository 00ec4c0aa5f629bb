/*
 * Fuzz target: requests of a hostile guest to a shared folder. Whatever they say, each ends once
 * and answers by the protocol, and nothing comes out of what lies beside the folder.
 */
#include "share/options.h"
#include "share/share.h"

#include "base/util.h"

#include <errno.h>
#include <linux/fuse.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "folder.h"

#define KNOWN 8
#define ROOM  8192u
#define MOST  48 /* requests of an input */

/* What one request is made of, and what comes of it. */
struct request {
    struct share_request share;
    struct iovec in[2], out[2];
    struct fuse_in_header header;
    uint8_t argument[512], answer[ROOM];
    sem_t done;
    ssize_t result;
};

struct guest {
    struct share *share;
    struct folder folder;
    uint64_t node[KNOWN], handle[KNOWN];
    unsigned nodes, handles;
    uint64_t unique;
};

static void open_share(struct guest *g)
{
    struct share_options options;
    char text[128];

    snprintf(text, sizeof(text), "%s,owner=xattr", g->folder.folder);
    check(share_options_parse(text, &options, NULL) == 0);
    g->share = share_open(&options, NULL, NULL);
    check(g->share);
    share_options_free(&options);
}

static void begin(struct guest *g)
{
    folder_make(&g->folder, 1 << 20);
    open_share(g);
}

static void end(struct guest *g)
{
    share_close(g->share);
    folder_end(&g->folder);
}

/* ---- Requests ---- */

static void done(struct share_request *share, ssize_t result)
{
    struct request *r = container_of(share, struct request, share);

    r->result = result;
    sem_post(&r->done);
}

/* Locks that somebody has must not be waited for for ever. */
static void await(struct guest *g, struct request *r)
{
    while (sem_trywait(&r->done) < 0) {
        if (r->header.opcode == FUSE_SETLKW)
            share_recall(g->share);
        usleep(r->header.opcode == FUSE_SETLKW ? 10 : 0);
    }
}

static void check_answer(const struct request *r)
{
    const struct fuse_out_header *header = (const void *)r->answer;

    if (r->result <= 0) {
        check(r->result == 0 || r->result == -ECANCELED || r->result == -EPROTO);
        return;
    }
    check((size_t)r->result >= sizeof(*header) && r->result <= (ssize_t)sizeof(r->answer));
    check(header->len == (size_t)r->result && header->unique == r->header.unique);
    check(header->error <= 0 && header->error > -512);
    check(!memmem(r->answer, (size_t)r->result, FOLDER_SECRET, strlen(FOLDER_SECRET)));
}

/* Notes what a good guest would note. */
static void learn(struct guest *g, const struct request *r)
{
    const struct fuse_out_header *header = (const void *)r->answer;
    const struct fuse_entry_out *entry = (const void *)(header + 1);
    const struct fuse_open_out *opened = (const void *)(header + 1);
    size_t size = r->result > 0 ? (size_t)r->result - sizeof(*header) : 0;

    if (r->result <= 0 || header->error)
        return;
    switch (r->header.opcode) {
    case FUSE_CREATE:
    case FUSE_TMPFILE:
        if (size >= sizeof(*entry) + sizeof(*opened))
            g->handle[g->handles++ % KNOWN] =
                ((const struct fuse_open_out *)(const void *)(entry + 1))->fh;
        __attribute__((fallthrough));
    case FUSE_LOOKUP:
    case FUSE_MKDIR:
    case FUSE_MKNOD:
    case FUSE_SYMLINK:
    case FUSE_LINK:
        if (size >= sizeof(*entry))
            g->node[g->nodes++ % KNOWN] = entry->nodeid;
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        if (size >= sizeof(*opened))
            g->handle[g->handles++ % KNOWN] = opened->fh;
        break;
    default: break;
    }
}

/* Appends names that mean something here, each with its end. */
static size_t add_names(uint8_t *to, uint8_t how)
{
    static const char *const names[] = {"a",   "d",  "l",      "b",         "..",
                                        "a/b", "c.", "user.x", "../secret", "user.doppel.owner"};
    size_t size = 0;

    for (unsigned i = 0; i < (how & 3); i++) {
        const char *name = names[(how >> 2) % ARRAY_SIZE(names)];

        memcpy(to + size, name, strlen(name) + 1);
        size += strlen(name) + 1;
        how = (uint8_t)(how * 5 + 3);
    }
    return size;
}

/* Makes a request of the input: opcode, node, argument, names, and room for the answer. */
static void ask(struct guest *g, struct input *in)
{
    static struct request r;
    uint8_t which = (uint8_t)take(in, 1), how = (uint8_t)take(in, 1);
    size_t size = take(in, 1) % 136;
    uint64_t value;

    memset(&r.argument, 0, sizeof(r.argument));
    r.header = (struct fuse_in_header){.opcode = which % 54, .unique = ++g->unique};
    value = how & 8 ? take(in, 8) : g->node[how & 7];
    r.header.nodeid = value ? value : 1;
    for (size_t at = 0; at < size && in->left; at += 1 + (how >> 6))
        r.argument[at] = (uint8_t)take(in, 1);
    if (how & 16 && size >= 8) /* most arguments begin with a handle or a node */
        memcpy(r.argument, which & 128 ? &g->node[how & 7] : &g->handle[how & 7], 8);
    size += add_names(r.argument + size, (uint8_t)take(in, 1));
    r.header.len = (uint32_t)(sizeof(r.header) + size) + (how & 32 && !in->left);
    r.in[0] = (struct iovec){&r.header, sizeof(r.header)};
    r.in[1] = (struct iovec){r.argument, size};
    r.out[0] = (struct iovec){r.answer, which & 64 ? take(in, 1) : ROOM};
    r.share = (struct share_request){.in = r.in, .ins = 2, .out = r.out, .outs = 1, .done = done};
    sem_init(&r.done, 0, 0);
    share_submit(g->share, &r.share);
    await(g, &r);
    check_answer(&r);
    learn(g, &r);
    sem_destroy(&r.done);
}

static void say_init(struct guest *g)
{
    static const uint8_t init[] = {FUSE_INIT, 0, 20, 7, 0, 0,   0,   38,  0,  0,
                                   0,         0, 0,  0, 0, 255, 255, 255, 127};
    struct input in = {init, sizeof(init)};

    ask(g, &in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct guest g = {.unique = 0};

    begin(&g);
    say_init(&g);
    for (unsigned i = 0; i < MOST && in.left; i++)
        ask(&g, &in);
    end(&g);
    return 0;
}
