/*
 * The processes of networks that the VM process does not serve itself.
 */
#include "cli/net_process.h"

#include "base/util.h"
#include "cli/cli.h"
#include "cli/switch_process.h"
#include "net/remote_link.h"
#include "net/serve.h"
#include "vm/description.h"
#include "vm/nic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ISOLATED_NAME "user"

static void free_options(void *opaque)
{
    net_options_free(opaque);
    free(opaque);
}

/* ---- Switches ---- */

static int connect_switch(void *opaque, const char *name, int link)
{
    const struct net_options *options = opaque;

    while (remote_link_await(link)) {
        struct error err = {0};
        int fd = switch_process_connect(name, options->hostname, &err);

        remote_link_answer(link, fd, &err);
        if (fd >= 0)
            close(fd);
        remote_link_done(link);
    }
    return 0;
}

static const struct kept_kind switches = {
    .title = "doppel-net", .what = "switch", .run = connect_switch, .free = free_options};

/* ---- User networks with isolate ---- */

/* Memory that the process may take: this, and so much for each descriptor that it may open. A
 * connection has two buffers of 128 KiB. */
#define MEMORY_OWN  (512 * MiB)
#define MEMORY_EACH (384 * KiB)
#define MEMORY_MOST (4 * GiB)

/* libslirp keeps as many fragments as a guest sends, and may keep more than is known, so a guest
 * could fill the host's memory. With this limit it only ends the process, whose place the next one
 * takes. Where the limit cannot be set, there is none. */
static void limit_memory(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    struct rlimit files, data;
    unsigned long long pages;
    bool known = file && fscanf(file, "%*u %*u %*u %*u %*u %llu", &pages) == 1;

    if (file)
        fclose(file);
    if (!known || getrlimit(RLIMIT_NOFILE, &files) < 0 || getrlimit(RLIMIT_DATA, &data) < 0)
        return;
    data.rlim_cur = pages * (unsigned long long)sysconf(_SC_PAGESIZE) + MEMORY_OWN +
                    MIN(files.rlim_cur, MEMORY_MOST / MEMORY_EACH) * MEMORY_EACH;
    data.rlim_cur = MIN(data.rlim_cur, data.rlim_max);
    setrlimit(RLIMIT_DATA, &data);
}

/* Serves one connection of the VM process's, as far as that can be: a process that has come to its
 * end is started anew for the next one. */
static int serve_user(void *opaque, const char *name, int link)
{
    const struct net_host host = {.log = &kept_process_log};
    struct error err = {0};
    struct net *net;
    int ends[2];

    if (!remote_link_await(link))
        return 0;
    limit_memory();
    net = net_open(opaque, &host, &err);
    if (net && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        error_set(&err, errno, "cannot make a pair of sockets: %s", strerror(errno));
        net_close(net);
        net = NULL;
    }
    remote_link_answer(link, net ? ends[0] : -1, &err);
    remote_link_done(link);
    if (!net)
        return STATUS_ERROR;
    close(ends[0]);
    net_serve(net, ends[1]);
    net_close(net);
    close(ends[1]);
    return remote_link_closed(link) ? 0 : STATUS_ERROR;
}

static const struct kept_kind users = {
    .title = "doppel-net", .what = "network", .run = serve_user, .free = free_options};

/* ---- Which there are ---- */

/* The settings that the VM process follows are not for the other one. */
static void leave_shaping(struct net_options *options)
{
    options->shape = (struct net_shape){.delay = 0};
    free(options->capture);
    options->capture = NULL;
    options->isolate = false;
}

static int add(struct kept_processes *kept, struct net_options *options, struct error *err)
{
    if (options->kind == NET_SWITCH)
        return kept_processes_add(kept, &switches, options->target, options, err);
    leave_shaping(options);
    return kept_processes_add(kept, &users, ISOLATED_NAME, options, err);
}

int net_processes_add(struct kept_processes *kept, const char *const *devices, struct error *err)
{
    int ret = 0;

    for (; devices && *devices && ret == 0; devices++) {
        struct net_options *options = malloc(sizeof(*options));

        if (!options)
            return error_set(err, ENOMEM, "out of memory");
        if (!description_is(*devices, "net") || nic_options(*devices, options, NULL) < 0)
            free(options);
        else if (options->kind != NET_SWITCH && !options->isolate)
            free_options(options);
        else
            ret = add(kept, options, err);
    }
    return ret;
}

int net_processes_link(void *opaque, const char *name)
{
    return name ? kept_processes_link(opaque, &switches, name)
                : kept_processes_link(opaque, &users, ISOLATED_NAME);
}
