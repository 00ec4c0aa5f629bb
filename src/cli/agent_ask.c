/*
 * Questions to the agents of several machines at once.
 */
#include "cli/agent_ask.h"

#include "../../guests/agent_protocol.h"
#include "base/time.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "cli/outflow.h"
#include "con/agent_client.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MOST 32 /* bytes of "OK PORT\n" */

/* A question on its way. */
struct asking {
    struct agent_question *question;
    const char *wish;
    int fd;                      /* -1: it is over */
    size_t line_size;            /* of what has come of the line "OK PORT" */
    struct agent_client *client; /* from then on */
    struct outflow link;
};

static void on_send(void *opaque, const void *data, size_t size)
{
    struct asking *a = opaque;

    outflow_put(&a->link, data, size);
}

/* Keeps what fits. */
static void on_output(void *opaque, int fd, const uint8_t *data, size_t size)
{
    struct agent_question *q = ((struct asking *)opaque)->question;

    for (size_t i = 0; fd == 1 && i < size && q->size < AGENT_ANSWER_MOST; i++) {
        bool shown = data[i] == '\n' || (data[i] >= ' ' && data[i] <= '~');

        q->answer[q->size++] = shown ? (char)data[i] : '?';
    }
}

static const struct agent_client_ops ops = {.send = on_send, .output = on_output};

static void end(struct asking *a)
{
    if (a->fd < 0)
        return;
    a->question->answered = a->client && agent_client_state(a->client) == AGENT_CLIENT_EXITED &&
                            agent_client_status(a->client) == 0;
    a->question->answer[a->question->size] = '\0';
    agent_client_destroy(a->client);
    a->client = NULL;
    outflow_end(&a->link);
    close(a->fd);
    a->fd = -1;
}

static void begin(struct asking *a, struct agent_question *question, const char *wish)
{
    struct lock_holder holder;
    char path[PATH_MAX], request[32];
    int length;

    question->answered = false;
    question->size = 0;
    question->answer[0] = '\0';
    *a = (struct asking){.question = question, .wish = wish, .fd = -1};
    if (run_folder_find(question->name, RUN_VSOCK, path, &holder, NULL) || !holder.held)
        return;
    a->fd = unix_socket_connect(path, NULL);
    if (a->fd < 0)
        return;
    outflow_begin(&a->link, a->fd);
    length = snprintf(request, sizeof(request), "CONNECT %u\n", AGENT_PORT);
    outflow_put(&a->link, request, (size_t)length);
}

/* Reads the line that says whether there is a connection, and nothing behind it. */
static void read_line(struct asking *a)
{
    struct agent_client_request request = {.wish = a->wish};
    char byte = 0;
    ssize_t n = recv(a->fd, &byte, 1, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || ++a->line_size > LINE_MOST || (a->line_size == 1 && byte != 'O')) {
        end(a);
    } else if (byte == '\n') {
        a->client = agent_client_create(&ops, a, &request, NULL);
        if (!a->client)
            end(a);
        else
            agent_client_input_end(a->client);
    }
}

static void read_answer(struct asking *a)
{
    uint8_t bytes[4096];
    ssize_t n = recv(a->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        agent_client_receive(a->client, bytes, (size_t)n);
    if (n <= 0 || agent_client_over(a->client))
        end(a);
}

/* Waits for one of the COUNT, up to MS. Returns whether there is more to wait for. */
static bool go_on(struct asking *all, struct pollfd *pfd, unsigned count, int ms)
{
    bool more = false;

    for (unsigned i = 0; i < count; i++) {
        pfd[i] = (struct pollfd){
            all[i].fd, (short)(POLLIN | (all[i].fd >= 0 && all[i].link.size ? POLLOUT : 0)), 0};
        more |= all[i].fd >= 0;
    }
    if (!more || poll(pfd, count, ms) <= 0)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (pfd[i].revents & POLLOUT)
            outflow_go_on(&all[i].link);
        if (!(pfd[i].revents & (POLLIN | POLLHUP | POLLERR)))
            continue;
        if (all[i].client)
            read_answer(&all[i]);
        else
            read_line(&all[i]);
    }
    return true;
}

void agent_ask(struct agent_question *questions, unsigned count, const char *wish, unsigned ms)
{
    struct asking *all = calloc(MAX(count, 1u), sizeof(*all));
    struct pollfd *pfd = calloc(MAX(count, 1u), sizeof(*pfd));
    uint64_t deadline = time_now_ns() + ms * NS_PER_MS, now;

    for (unsigned i = 0; all && pfd && i < count; i++)
        begin(&all[i], &questions[i], wish);
    while (all && pfd && (now = time_now_ns()) < deadline &&
           go_on(all, pfd, count, (int)((deadline - now) / NS_PER_MS) + 1))
        ;
    for (unsigned i = 0; all && pfd && i < count; i++)
        end(&all[i]);
    free(all);
    free(pfd);
}
