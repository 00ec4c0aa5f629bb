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
#include "vm/disk.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUES_DEFAULT 4u
#define WAITING        8 /* front ends that wait for their turn */

enum { OPT_SOCKET, OPT_DISK, OPT_VERBOSE, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_SOCKET] = {"socket", "PATH", "where front ends connect; a socket is made there"},
    [OPT_DISK] = {"disk", "FILE[,...]", "what is served, as in doppel run"},
    [OPT_VERBOSE] = {"verbose", NULL, "tell of each front end that comes and goes"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int help(void)
{
    puts("Usage: doppel backend blk --socket PATH --disk FILE[,...]\n"
         "Serves a disk to a virtual machine of another program, such as QEMU, by vhost-user. One\n"
         "machine at a time; ends with SIGTERM or SIGINT.\n");
    options_help(specs);
    return finish_output(0);
}

struct request {
    const char *socket, *disk;
    bool verbose;
};

/* True when there is something to serve; else STATUS is what to exit with. */
static bool parse(struct request *request, char **argv, int *status)
{
    struct options options = {.command = "backend", .specs = specs, .argv = argv + 1};
    const char *value = NULL;
    bool twice = false;
    int option;

    *status = STATUS_ERROR;
    if (argv[1] && !strcmp(argv[1], "blk"))
        options.argv++;
    while ((option = options_next(&options, &value)) >= 0) {
        switch (option) {
        case OPT_SOCKET:
            twice |= request->socket != NULL;
            request->socket = value;
            break;
        case OPT_DISK:
            twice |= request->disk != NULL;
            request->disk = value;
            break;
        case OPT_VERBOSE: request->verbose = true; break;
        default: *status = help(); return false;
        }
    }
    if (option == OPTIONS_FAIL)
        return false;
    if (!argv[1] || strcmp(argv[1], "blk") != 0)
        complain("backend: it must be said what to serve: doppel backend blk --socket PATH --disk "
                 "FILE");
    else if (*options.argv)
        complain("backend: unexpected argument '%s'", *options.argv);
    else if (twice)
        complain("backend: it serves one disk at one socket: --disk or --socket is there twice");
    else if (!request->socket || !request->disk)
        complain("backend: --%s is missing (doppel backend --help)",
                 request->socket ? "disk" : "socket");
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
static bool plug_in(struct vhost_backend *backend, const char *text, const struct blk_host *host,
                    struct error *err)
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
    const struct blk_host host = {.log = &log};
    struct error err = {0};
    struct vhost_backend *backend = vhost_backend_create(&log, &err);
    int status = STATUS_ERROR;

    if (backend && plug_in(backend, request->disk, &host, &err))
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
