/*
 * Fuzz target: what the agent in a guest reads: frames of a client, its request, and the files of
 * users and groups.
 */
#include "../../guests/agent/request.h"
#include "../../guests/agent/user.h"
#include "../../guests/agent_protocol.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"

/* Reads all frames, in pieces of STEP bytes. What is between two frames is nothing. */
static void read_frames(const uint8_t *data, size_t size, size_t step)
{
    struct agent_reader reader = {0};
    struct agent_piece piece;

    while (size > 0) {
        size_t some = step < size ? step : size;
        size_t taken = agent_read(&reader, data, some, &piece);

        check(taken <= some);
        if (taken == 0) {
            check(reader.bad);
            return;
        }
        check(!reader.bad || !piece.last);
        if (piece.size > 0) {
            uint8_t sum = 0;

            for (size_t i = 0; i < piece.size; i++)
                sum ^= piece.data[i];
            check(piece.size <= (agent_is_large((uint8_t)piece.type) ? some : AGENT_SMALL));
            (void)sum;
        }
        data += taken;
        size -= taken;
    }
}

static void parse(const uint8_t *data, size_t size)
{
    struct agent_request request;
    char *text = malloc(size + 1);
    size_t prefix = sizeof(AGENT_MAGIC "\0request=exec");

    check(text);
    memcpy(text, data, size);
    if (size >= prefix) /* as far as that, all are alike */
        memcpy(text, AGENT_MAGIC "\0request=exec", prefix);
    if (agent_request_parse(text, size, &request) == 0) {
        check(!request.argv[request.argc] && !request.env[request.envc]);
        for (size_t i = 0; i < request.argc; i++)
            check(request.argv[i] > text && request.argv[i] < text + size);
        for (size_t i = 0; i < request.envc; i++)
            check(strchr(request.env[i], '=') > request.env[i]);
        agent_request_free(&request);
    }
    free(text);
}

static void look_up(const uint8_t *data, size_t size)
{
    struct agent_user user;
    size_t half = size / 2;
    static const char *const names[] = {"me", "0", "1000:5", ":", "4294967295", ""};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (agent_user_find(names[i], (const char *)data, half, (const char *)data + half,
                            size - half, &user)) {
            check(user.uid != UINT32_MAX && user.gid != UINT32_MAX && *user.home && *user.shell);
            check(user.group_count > 0 && user.group_count <= AGENT_GROUPS_MOST);
            check(user.groups[0] == user.gid);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    read_frames(data + 1, size - 1, 1 + data[0]);
    parse(data + 1, size - 1);
    look_up(data + 1, size - 1);
    return 0;
}
