/*
 * Fuzz target: what a client of a control socket sends. Each request is heard of once and gets one
 * answer; who sends what is none is told so and sent away; and another client is served all along.
 */
#include "base/unix_socket.h"
#include "base/util.h"
#include "ctl/control_server.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"

#define INPUT_MOST ((size_t)96 * 1024) /* a socket's buffer takes it */

static struct control_server *server;
static char folder[64], path[96];
static unsigned heard;

static void on_request(void *opaque, uint64_t client, const struct control_request *request)
{
    struct error err = {0};
    double timeout = 10;

    check(request->id >= 0 && request->id <= CONTROL_ID_MOST && request->name);
    check(!request->arguments || json_is_object(request->arguments));
    heard++;
    if (control_argument(request, "timeout", 0, 100, &timeout, &err) < 0) {
        check(err.code > 0 && *err.text);
        control_refuse(server, client, request->id, &err);
        return;
    }
    check(timeout >= 0 && timeout <= 100);
    control_answer(server, client, request->id,
                   json_pack("{s:o}", "name", control_text(request->name)));
}

static void end(void)
{
    control_server_close(server);
    rmdir(folder);
}

static void begin(void)
{
    const struct control_ops ops = {on_request, NULL};

    snprintf(folder, sizeof(folder), "%s/doppel-fuzz-XXXXXX", P_tmpdir);
    check(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/socket", folder);
    server = control_server_open(path, "fuzz", &ops, NULL);
    check(server != NULL);
    atexit(end);
}

/* Takes what is there for a client. Returns how many lines; sets *OVER at the end. */
static unsigned take_lines(int fd, bool *over)
{
    char bytes[4096];
    unsigned lines = 0;
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        for (ssize_t i = 0; i < n; i++)
            lines += bytes[i] == '\n';
    *over |= n == 0;
    return lines;
}

/* Serves until nothing is left to be done for FD. Returns how many lines it got. */
static unsigned serve(int fd, bool *over)
{
    unsigned lines = 0, idle = 0;

    while (idle < 3 && !*over) {
        unsigned before = lines + heard;

        control_server_work(server);
        lines += take_lines(fd, over);
        idle = lines + heard == before ? idle + 1 : 0;
    }
    return lines;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char good[] = "{\"id\": 1, \"request\": \"state\"}\n";
    bool over = false, good_over = false;
    unsigned lines;
    int fd, other;

    if (!server)
        begin();
    fd = unix_socket_connect(path, NULL);
    other = unix_socket_connect(path, NULL);
    check(fd >= 0 && other >= 0);
    check(serve(fd, &over) == 1 && serve(other, &good_over) == 1); /* that it listens */
    heard = 0;
    size = MIN(size, INPUT_MOST);
    check(size == 0 || send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) > 0);
    lines = serve(fd, &over);
    check(lines == heard + over);
    check(send(other, good, strlen(good), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)strlen(good));
    check(serve(other, &good_over) == 1 && !good_over);
    close(fd);
    close(other);
    for (unsigned i = 0; i < 4; i++)
        control_server_work(server);
    return 0;
}
