/*
 * The other side of control sockets.
 */
#include "control_rig.h"

#include "base/unix_socket.h"
#include "ctl/control_server.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char home[] = P_tmpdir "/doppel-control-XXXXXX";
static struct run_folder folder;
static char path[PATH_MAX];

const char *rig_take_folder(void)
{
    struct lock_holder holder;

    if (!mkdtemp(home) || setenv("XDG_RUNTIME_DIR", home, 1) < 0 ||
        run_folder_take("web", &folder, NULL) < 0 ||
        run_folder_find("web", RUN_CONTROL, path, &holder, NULL) < 0)
        return NULL;
    return path;
}

bool rig_leave_folder(void)
{
    char name[sizeof(home) + 16];

    run_folder_remove(&folder);
    snprintf(name, sizeof(name), "%s/doppel", home);
    return rmdir(name) == 0 && rmdir(home) == 0;
}

int rig_listen(void)
{
    return unix_socket_listen(path, 1, NULL);
}

struct rig {
    struct control_server *server;
    pthread_t thread;
    _Atomic bool stop;
};

static void on_request(void *opaque, uint64_t client, const struct control_request *request)
{
    struct rig *rig = opaque;
    struct error err = {0};

    if (!strcmp(request->name, "echo")) {
        control_answer(rig->server, client, request->id, json_deep_copy(request->arguments));
    } else if (!strcmp(request->name, "events")) {
        control_server_subscribe(rig->server, client, true);
        control_answer(rig->server, client, request->id, json_object());
        for (int i = 0; i < 100; i++)
            control_server_event(rig->server, json_pack("{s:s, s:i}", "event", "tick", "n", i));
    } else if (strcmp(request->name, "silence") != 0) {
        error_set(&err, EBUSY, "no \033[31m%s\n", request->name);
        control_refuse(rig->server, client, request->id, &err);
    }
}

static void *serve(void *opaque)
{
    struct rig *rig = opaque;

    while (!atomic_load(&rig->stop)) {
        struct pollfd pfd = {control_server_fd(rig->server), POLLIN, 0};

        poll(&pfd, 1, 5);
        control_server_work(rig->server);
    }
    return NULL;
}

struct rig *rig_begin(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    const struct control_ops ops = {on_request, rig};

    if (rig)
        rig->server = control_server_open(path, "web", &ops, NULL);
    if (rig && rig->server && pthread_create(&rig->thread, NULL, serve, rig) == 0)
        return rig;
    abort();
}

void rig_end(struct rig *rig)
{
    atomic_store(&rig->stop, true);
    pthread_join(rig->thread, NULL);
    control_server_close(rig->server);
    free(rig);
}
