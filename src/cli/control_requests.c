/*
 * What clients of the control desk ask for.
 */
#include "cli/control_desk_private.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STOP_SECONDS      10 /* that a guest has to heed the power button, by default */
#define STOP_SECONDS_MOST 86400

struct asked {
    struct control_desk *desk;
    uint64_t client;
    const struct control_request *request;
};

static int give_state(const struct asked *a, struct error *err)
{
    (void)err;
    control_answer(a->desk->server, a->client, a->request->id, control_desk_describe(a->desk));
    return 0;
}

static int give_events(const struct asked *a, struct error *err)
{
    const json_t *on = json_object_get(a->request->arguments, "on");

    if (on && !json_is_boolean(on))
        return error_set(err, EINVAL, "the argument 'on' is neither true nor false");
    control_server_subscribe(a->desk->server, a->client, !on || json_is_true(on));
    control_answer(a->desk->server, a->client, a->request->id, json_object());
    return 0;
}

/* Keeps the request until the end, or until the next start. */
static int keep_waiting(const struct asked *a, bool start, struct error *err)
{
    struct control_desk *desk = a->desk;
    unsigned kept = 0;

    if (!desk->vm && !desk->next)
        return error_set(err, ESRCH, "the machine has ended");
    for (unsigned i = 0; i < desk->waiting_count; i++)
        if (control_server_has(desk->server, desk->waiting[i].client))
            desk->waiting[kept++] = desk->waiting[i];
    desk->waiting_count = kept;
    if (kept == WAITING_MOST)
        return error_set(err, EBUSY, "%d requests wait for the end already", WAITING_MOST);
    desk->waiting[desk->waiting_count++] = (struct waiting){a->client, a->request->id, start};
    return 0;
}

static int wait_for_end(const struct asked *a, struct error *err)
{
    return keep_waiting(a, false, err);
}

/* Has the VM process do WHAT for WHO, which is told when it is done. */
static int give_work(struct control_desk *desk, enum work what, struct work_order *order,
                     struct waiting who, struct error *err)
{
    struct given *given = NULL;

    if (!desk->started || !desk->vm)
        return error_set(err, ESRCH, "the machine %s", desk->vm ? "does not run yet" : "has ended");
    if (desk->frozen)
        return error_set(err, EAGAIN,
                         "the machine's VM process (%d) was stopped by a signal or a "
                         "debugger (kill -CONT %d continues it)",
                         (int)desk->vm, (int)desk->vm);
    for (unsigned i = 0; i < WORKS_MOST && !given; i++)
        if (!desk->given[i].number)
            given = &desk->given[i];
    order->number = desk->last_work + 1 ? desk->last_work + 1 : 1;
    if (!given || !desk->ops.work(desk->ops.opaque, what, order))
        return error_set(err, EBUSY, "the machine's VM process has too much to do");
    desk->last_work = order->number;
    *given = (struct given){order->number, what, who};
    return 0;
}

static int pause_machine(const struct asked *a, struct error *err)
{
    struct work_order order = {0};

    return give_work(a->desk, WORK_PAUSE, &order,
                     (struct waiting){.client = a->client, .id = a->request->id}, err);
}

static int resume(const struct asked *a, struct error *err)
{
    struct work_order order = {0};

    return give_work(a->desk, WORK_RESUME, &order,
                     (struct waiting){.client = a->client, .id = a->request->id}, err);
}

static int give_stats(const struct asked *a, struct error *err)
{
    struct work_order order = {0};

    return give_work(a->desk, WORK_STATS, &order,
                     (struct waiting){.client = a->client, .id = a->request->id}, err);
}

static int set_console_size(const struct asked *a, struct error *err)
{
    double rows = 0, columns = 0;
    int ret = control_argument(a->request, "rows", 0, UINT16_MAX, &rows, err);
    struct work_order order = {0};

    if (!ret)
        ret = control_argument(a->request, "columns", 0, UINT16_MAX, &columns, err);
    if (ret)
        return ret;
    order.argument[0] = (uint32_t)rows;
    order.argument[1] = (uint32_t)columns;
    return give_work(a->desk, WORK_CONSOLE_SIZE, &order,
                     (struct waiting){.client = a->client, .id = a->request->id}, err);
}

/* Changes a card's cable, as doppel_change_network. */
static int set_network(const struct asked *a, struct error *err)
{
    const char *settings = json_string_value(json_object_get(a->request->arguments, "settings"));
    struct work_order order = {0};
    double card = 0;
    int ret = control_argument(a->request, "card", 0, UINT8_MAX, &card, err);

    if (ret)
        return ret;
    if (!settings || strlen(settings) >= sizeof(order.text))
        return error_set(err, EINVAL, "the argument 'settings' is no text of less than %zu bytes",
                         sizeof(order.text));
    order.argument[0] = (uint32_t)card;
    snprintf(order.text, sizeof(order.text), "%s", settings);
    return give_work(a->desk, WORK_NETWORK, &order,
                     (struct waiting){.client = a->client, .id = a->request->id}, err);
}

static void begin_end(struct control_desk *desk)
{
    if (!desk->ending)
        control_desk_tell(desk, "stopping", NULL);
    desk->ending = true;
}

/* A guest that stands still would not see it. */
static void press_button(struct control_desk *desk)
{
    struct work_order order = {0};

    if (desk->paused)
        give_work(desk, WORK_RESUME, &order, (struct waiting){0}, NULL);
    desk->ops.press_button(desk->ops.opaque);
}

/* Has the machine end, by the button and the plug. */
static int end_machine(const struct asked *a, bool start, struct error *err)
{
    struct control_desk *desk = a->desk;
    double timeout = STOP_SECONDS;
    uint64_t at;
    int ret = control_argument(a->request, "timeout", 0, STOP_SECONDS_MOST, &timeout, err);

    if (!ret)
        ret = keep_waiting(a, start, err);
    if (ret)
        return ret;
    desk->wished = !start;
    desk->anew = start;
    if (!desk->vm) { /* it waits for the next start */
        desk->next = start ? time_now_ns() : 0;
        return 0;
    }
    at = time_now_ns() + (uint64_t)(timeout * 1e9);
    desk->plug_at = desk->plug_at ? MIN(desk->plug_at, at) : at;
    begin_end(desk);
    if (timeout > 0)
        press_button(desk);
    return 0;
}

static int stop(const struct asked *a, struct error *err)
{
    return end_machine(a, false, err);
}

static int restart(const struct asked *a, struct error *err)
{
    if (!a->desk->background)
        return error_set(err, ENOTSUP,
                         "the machine runs on the terminal of process %d, which ends with it",
                         (int)getpid());
    return end_machine(a, true, err);
}

static int kill_machine(const struct asked *a, struct error *err)
{
    int ret = keep_waiting(a, false, err);

    if (ret)
        return ret;
    a->desk->wished = true;
    a->desk->anew = false;
    a->desk->next = 0;
    if (!a->desk->vm)
        return 0;
    begin_end(a->desk);
    a->desk->plug_at = 0;
    a->desk->ops.kill(a->desk->ops.opaque);
    return 0;
}

static const struct {
    const char *name;
    int (*serve)(const struct asked *asked, struct error *err); /* answers, or fails */
} requests[] = {
    {"state", give_state},      {"events", give_events},
    {"wait", wait_for_end},     {"stop", stop},
    {"kill", kill_machine},     {"restart", restart},
    {"pause", pause_machine},   {"resume", resume},
    {"statistics", give_stats}, {"console-size", set_console_size},
    {"network", set_network},
};

void control_desk_serve(void *opaque, uint64_t client, const struct control_request *request)
{
    struct control_desk *desk = opaque;
    const struct asked asked = {desk, client, request};
    struct error err = {0};
    int ret = -ENOSYS;

    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
        if (!strcmp(requests[i].name, request->name))
            ret = requests[i].serve(&asked, &err);
    if (ret == -ENOSYS)
        error_set(&err, ENOSYS, "this version of doppel does not know the request '%s'",
                  request->name);
    if (ret < 0)
        control_refuse(desk->server, client, request->id, &err);
}
