/*
 * Fuzz target: what an agent in a guest may say to the host. Whatever it is, no more than the
 * windows is kept or sent.
 */
#include "con/agent_client.h"

#include "../../guests/agent_protocol.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"

struct host {
    size_t held[3]; /* output that is not told of as written */
    size_t sent;    /* by the client, since the start */
};

static void on_send(void *opaque, const void *data, size_t size)
{
    struct host *h = opaque;

    h->sent += size;
}

static void on_output(void *opaque, int fd, const uint8_t *data, size_t size)
{
    struct host *h = opaque;

    check(fd == 1 || fd == 2);
    h->held[fd] += size;
    check(h->held[fd] <= AGENT_CLIENT_WINDOW);
}

static const struct agent_client_ops ops = {on_send, on_output};

/* What this side does between two pieces, as a byte of the input says. */
static void act(struct agent_client *client, struct host *h, uint8_t what)
{
    static const uint8_t data[1000];
    size_t room = agent_client_room(client);
    int fd = what & 1 ? 1 : 2;

    check(room <= AGENT_IN_WINDOW);
    if (what & 2)
        agent_client_input(client, data, room < sizeof(data) ? room : sizeof(data));
    if (what & 4) {
        agent_client_written(client, fd, h->held[fd]);
        h->held[fd] = 0;
    }
    if (what & 8)
        agent_client_resize(client, what, 80);
    if (what & 16)
        agent_client_signal(client, what & 31);
    if (what == 255)
        agent_client_input_end(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct agent_client_request request = {.wish = "exec"};
    struct host h = {0};
    struct agent_client *client = agent_client_create(&ops, &h, &request, NULL);

    check(client);
    while (size > 1 && !agent_client_over(client)) {
        size_t piece = data[0] < size - 1 ? data[0] : size - 1;

        agent_client_receive(client, data + 1, piece);
        act(client, &h, data[0]);
        data += 1 + piece;
        size -= 1 + piece;
    }
    if (agent_client_over(client)) {
        const char *failure = agent_client_failure(client);

        check(agent_client_room(client) == 0 && agent_client_status(client) < 256);
        check(strlen(failure) < AGENT_SMALL + 32 && !strpbrk(failure, "\n\r\033"));
    }
    agent_client_destroy(client);
    return 0;
}
