/*
 * `doppel backend`: serves a device of ours to virtual machines of other programs, by vhost-user.
 */
#include "cli/cli.h"

#include "base/log.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"
#include "dev/vhost/backend.h"
#include "dev/virtio/block.h"
#include "vm/board.h"
#include "vm/disk.h"
#include "vm/nic.h"
#include "vm/share.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUES_DEFAULT 4u
#define WAITING        8 /* front ends that wait for their turn */

enum { OPT_SOCKET, OPT_DISK, OPT_NET, OPT_SHARE, OPT_VERBOSE, OPT_HELP };

/* What can be served, and the option that says of what kind it is. */
static const struct {
    const char *name;
    int option;
} kinds[] = {{"blk", OPT_DISK}, {"net", OPT_NET}, {"fs", OPT_SHARE}};

static const struct option_spec specs[] = {
    [OPT_SOCKET] = {"socket", "PATH", "where front ends connect; a socket is made there"},
    [OPT_DISK] = {"disk", "FILE[,...]", "blk: the disk that is served, as in doppel run"},
    [OPT_NET] = {"net", "KIND[,...]", "net: the network"},
    [OPT_SHARE] = {"share", "FOLDER[,...]",
                   "fs: the folder; its settings are those of --device share"},
    [OPT_VERBOSE] = {"verbose", NULL, "tell of each front end that comes and goes"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int help(void)
{
    puts("Usage: doppel backend blk --socket PATH --disk FILE[,...]\n"
         "       doppel backend net --socket PATH --net KIND[,...]\n"
         "       doppel backend fs --socket PATH --share FOLDER[,...]\n"
         "Serves a disk, a network or a folder to a virtual machine of another program, such as "
         "QEMU,\n"
         "by vhost-user. One machine at a time; ends with SIGTERM or SIGINT.\n");
    options_help(specs);
    return finish_output(0);
}

struct request {
    unsigned kind; /* in `kinds` */
    const char *socket, *what;
    bool verbose;
};

/* The kind that WORD names; their number if it names none. */
static unsigned find_kind(const char *word)
{
    unsigned kind = 0;

    while (kind < ARRAY_SIZE(kinds) && (!word || strcmp(word, kinds[kind].name) != 0))
        kind++;
    return kind;
}

/* True when there is something to serve; else STATUS is what to exit with. */
static bool parse(struct request *request, char **argv, int *status)
{
    struct options options = {.command = "backend", .specs = specs, .argv = argv + 1};
    const char *value = NULL;
    bool twice = false, known, other = false;
    int option;

    *status = STATUS_ERROR;
    request->kind = find_kind(argv[1]);
    known = request->kind < ARRAY_SIZE(kinds);
    if (known)
        options.argv++;
    while ((option = options_next(&options, &value)) >= 0) {
        switch (option) {
        case OPT_SOCKET:
            twice |= request->socket != NULL;
            request->socket = value;
            break;
        case OPT_DISK:
        case OPT_NET:
        case OPT_SHARE:
            twice |= request->what != NULL;
            other |= known && option != kinds[request->kind].option;
            request->what = value;
            break;
        case OPT_VERBOSE: request->verbose = true; break;
        default: *status = help(); return false;
        }
    }
    if (option == OPTIONS_FAIL)
        return false;
    if (!known)
        complain("backend: it must be said what to serve: doppel backend blk, net or fs");
    else if (*options.argv)
        complain("backend: unexpected argument '%s'", *options.argv);
    else if (twice)
        complain("backend: it serves one device at one socket: an option is there twice");
    else if (other || !request->socket || !request->what)
        complain("backend: --%s is missing (doppel backend --help)",
                 !request->socket ? "socket" : specs[kinds[request->kind].option].name);
    else
        return true;
    return false;
}

/* ---- The socket ---- */

static int listen_at(const char *path)
{
    struct error err = {0};
    int fd = unix_socket_listen(path, WAITING, &err);

    if (fd < 0)
        complain("backend: %s", err.text);
    return fd;
}

/* ---- Serving ---- */

/* Signals that end this command, as a file to wait for. Called before there are threads. */
static int signals_to_fd(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void print_line(void *opaque, enum log_level level, const char *text)
{
    complain("%s", text);
}

/* Serves front ends in turn, until a signal comes. */
static void serve(struct vhost_backend *backend, int listener, int signals)
{
    struct pollfd pfd[] = {{signals, POLLIN, 0}, {listener, POLLIN, 0}};

    for (;;) {
        int fd;

        if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
            continue;
        if (pfd[0].revents)
            return;
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            vhost_backend_serve(backend, fd, signals);
    }
}

/* Opens the disk and makes the device that is served. */
static bool plug_in_disk(struct vhost_backend *backend, const char *text,
                         const struct blk_host *host, struct error *err)
{
    const struct virtio_slot slot = vhost_backend_slot(backend);
    struct virtio_block_config config;
    struct blk_options options;
    struct virtio_block *block = NULL;
    struct blk *blk = NULL;

    if (blk_options_parse(text, &options, err) < 0)
        return false;
    if (options.source == BLK_VHOST_USER)
        error_set(err, EINVAL, "disk %s: is served by vhost-user already", text);
    else if (options.isolate)
        error_set(err, EINVAL,
                  "disk %s: isolate is not for doppel backend, which is a process of "
                  "its own",
                  text);
    else
        blk = blk_open(&options, host, err);
    config = disk_device(&options, blk, QUEUES_DEFAULT);
    if (blk)
        block = virtio_block_create(&slot, &config, err);
    if (!block)
        blk_close(blk);
    blk_options_free(&options);
    return block != NULL;
}

/* The same for a network or a folder, which the board's description DEVICE,KEY=TEXT names. */
static bool plug_in_described(struct vhost_backend *backend, int option, const char *text,
                              struct net_host *host, struct error *err)
{
    const struct virtio_slot slot = vhost_backend_slot(backend);
    const struct board_config config = {.log = host->log};
    struct shared_folder folder;
    struct virtio_net *nic;
    struct dev *dev;
    char *description;

    host->loop = slot.loop;
    if (asprintf(&description, "%s=%s", option == OPT_NET ? "net,to" : "share,folder", text) < 0)
        return error_set(err, ENOMEM, "out of memory") == 0;
    dev = option == OPT_NET ? nic_create(&slot, description, host, &nic, err)
                            : share_create(&slot, description, &config, &folder, err);
    free(description);
    return dev != NULL;
}

static bool plug_in(struct vhost_backend *backend, const struct request *request,
                    const struct log *log, struct net_host *net, struct error *err)
{
    const struct blk_host blk = {.log = log};
    int option = kinds[request->kind].option;

    return option == OPT_DISK ? plug_in_disk(backend, request->what, &blk, err)
                              : plug_in_described(backend, option, request->what, net, err);
}

/* Listens when all is ready, and serves. */
static int listen_and_serve(struct vhost_backend *backend, const char *path, int signals)
{
    int listener = listen_at(path);

    if (listener < 0)
        return STATUS_ERROR;
    serve(backend, listener, signals);
    unlink(path);
    close(listener);
    return 0;
}

static int run(const struct request *request, int signals)
{
    const struct log log = {.most = request->verbose ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
                            .line = print_line};
    struct net_host net = {.log = &log}; /* lives as long as the network */
    struct error err = {0};
    struct vhost_backend *backend = vhost_backend_create(&log, &err);
    int status = STATUS_ERROR;

    if (backend && plug_in(backend, request, &log, &net, &err))
        status = listen_and_serve(backend, request->socket, signals);
    else
        complain("backend: %s", err.text);
    vhost_backend_destroy(backend);
    return status;
}

int cmd_backend(char **argv)
{
    struct request request = {.verbose = false};
    int status, signals;

    if (!parse(&request, argv, &status))
        return status;
    signals = signals_to_fd();
    status = run(&request, signals);
    close(signals);
    return status;
}
