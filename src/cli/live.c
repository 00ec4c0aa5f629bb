/*
 * What machines that run say of themselves.
 */
#include "cli/live.h"

#include "base/time.h"
#include "ctl/doppel.h"

#include <stdlib.h>

static json_t *take_answer(struct doppel_control *control, int number, uint64_t end)
{
    uint64_t now = time_now_ns();
    int left = now < end ? (int)((end - now) / NS_PER_MS) : 0;
    char *result = NULL;
    json_t *state;

    if (doppel_control_answer(control, number, left, &result, NULL) < 0)
        return NULL;
    state = json_loads(result, 0, NULL);
    free(result);
    return state;
}

void live_ask(struct live *machines, unsigned count)
{
    struct asked {
        struct doppel_control *control;
        int number;
    } *asked = calloc(count ? count : 1, sizeof(*asked));
    uint64_t end = time_now_ns() + LIVE_MS * NS_PER_MS;

    for (unsigned i = 0; asked && i < count; i++) {
        asked[i].control = doppel_control_open(machines[i].name, NULL);
        if (asked[i].control)
            asked[i].number = doppel_control_send(asked[i].control, "state", NULL, NULL);
    }
    for (unsigned i = 0; i < count; i++) {
        machines[i].state = asked && asked[i].number > 0
                                ? take_answer(asked[i].control, asked[i].number, end)
                                : NULL;
        if (asked)
            doppel_control_close(asked[i].control);
    }
    free(asked);
}
