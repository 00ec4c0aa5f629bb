/*
 * What the supervisor answers at the control socket of a machine.
 */
#include "cli/cli.h"
#include "cli/control_desk_private.h"

#include "base/time.h"
#include "base/util.h"
#include "ctl/doppel.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOAD_NS        (10 * NS_PER_S) /* between two looks at the processor time */
#define FIRST_DELAY_NS NS_PER_S        /* until the machine is started anew, doubled each time */
#define LAST_DELAY_NS  (64 * NS_PER_S)
#define LONG_RUN_NS    (60 * NS_PER_S) /* after so long the delay begins anew */
#define FAREWELL_NS    (200 * NS_PER_MS)

static const char *const ends[] = {
    [MACHINE_POWERED_OFF] = "powered-off",
    [MACHINE_RESET] = "reset",
    [MACHINE_DEBUG_EXIT] = "debug-exit",
    [MACHINE_CRASHED] = "crashed",
    [MACHINE_FAILED] = "failed",
    [MACHINE_COMMAND_ENDED] = "command-ended",
    [MACHINE_UNPLUGGED] = "unplugged",
    [MACHINE_KILLED] = "killed",
    [MACHINE_DIED] = "died",
};

/* ---- For the supervisor ---- */

int control_desk_fd(const struct control_desk *desk)
{
    return desk ? control_server_fd(desk->server) : -1;
}

uint64_t control_desk_deadline(const struct control_desk *desk)
{
    uint64_t at = UINT64_MAX;

    if (desk && desk->plug_at)
        at = desk->plug_at;
    if (desk && desk->started)
        at = MIN(at, desk->look[1].at + LOAD_NS);
    return at;
}

void control_desk_work(struct control_desk *desk)
{
    uint64_t now = time_now_ns();

    if (!desk)
        return;
    control_server_work(desk->server);
    if (desk->started && now >= desk->look[1].at + LOAD_NS)
        control_desk_look(desk, now);
    if (desk->plug_at && now >= desk->plug_at) {
        desk->plug_at = 0;
        desk->ops.pull_plug(desk->ops.opaque);
    }
}

void control_desk_begin(struct control_desk *desk, pid_t vm, const struct control_desk_ops *ops)
{
    if (!desk)
        return;
    desk->ops = *ops;
    desk->vm = vm;
    desk->running = desk->paused = desk->held = desk->frozen = desk->ending = false;
    desk->wished = desk->anew = false;
    desk->started = desk->plug_at = desk->next = 0;
}

/* Tells those who wait for the machine to start that it has. */
static void answer_start(struct control_desk *desk)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < desk->waiting_count; i++) {
        const struct waiting *w = &desk->waiting[i];

        if (w->start)
            control_answer(desk->server, w->client, w->id, json_object());
        else
            desk->waiting[kept++] = *w;
    }
    desk->waiting_count = kept;
}

/* Tells those who wait how the machine has ended. */
static void answer_end(struct control_desk *desk)
{
    struct error err = {0};

    error_set(&err, ESRCH,
              "the machine has ended (%s) and is not started anew: doppel logs tells more",
              ends[desk->how]);
    for (unsigned i = 0; i < desk->waiting_count; i++) {
        const struct waiting *w = &desk->waiting[i];

        if (w->start)
            control_refuse(desk->server, w->client, w->id, &err);
        else
            control_answer(desk->server, w->client, w->id,
                           json_pack("{s:s, s:i}", "how", ends[desk->how], "status", desk->status));
    }
    desk->waiting_count = 0;
}

void control_desk_started(struct control_desk *desk, const struct machine_facts *facts)
{
    if (!desk || desk->started)
        return;
    desk->facts = *facts;
    desk->running = true;
    desk->started = time_now_ns();
    desk->started_real = time_real_ns();
    control_desk_look(desk, desk->started);
    control_desk_look(desk, desk->started);
    desk->ever_started = true;
    control_desk_tell(desk, "started", NULL);
    answer_start(desk);
}

void control_desk_frozen(struct control_desk *desk, bool frozen)
{
    if (!desk || desk->frozen == frozen)
        return;
    desk->frozen = frozen;
    control_desk_tell(desk, frozen ? "frozen" : "thawed", NULL);
}

void control_desk_done(struct control_desk *desk, int value, const struct work_done *done)
{
    struct given *given = NULL;
    struct error err = {0};
    json_t *result;

    for (unsigned i = 0; desk && i < WORKS_MOST && !given; i++)
        if (desk->given[i].number && desk->given[i].number == done->order.number)
            given = &desk->given[i];
    if (!given)
        return;
    given->number = 0;
    if (value < 0) {
        error_set(&err, -MAX(value, -4095), "%s", done->order.text);
        control_refuse(desk->server, given->who.client, given->who.id, &err);
        return;
    }
    result = given->what == WORK_STATS ? json_pack("{s:I, s:f, s:f, s:I, s:I}", "instructions",
                                                   (json_int_t)done->instructions, "run_time",
                                                   control_desk_seconds(done->run_ns), "elapsed",
                                                   control_desk_seconds(done->elapsed_ns),
                                                   "guest_memory", (json_int_t)done->guest_resident,
                                                   "process_memory", (json_int_t)done->resident)
                                       : json_object();
    control_answer(desk->server, given->who.client, given->who.id, result);
}

/* The machine has ended: the VM process does nothing any more. */
static void refuse_given(struct control_desk *desk)
{
    struct error err = {0};

    error_set(&err, ESRCH, "the machine has ended");
    for (unsigned i = 0; i < WORKS_MOST; i++) {
        if (desk->given[i].number)
            control_refuse(desk->server, desk->given[i].who.client, desk->given[i].who.id, &err);
        desk->given[i].number = 0;
    }
}

void control_desk_event(struct control_desk *desk, int kind, const char *text)
{
    static const char *const names[] = {
        [DOPPEL_EVENT_PAUSED] = "paused", [DOPPEL_EVENT_RESUMED] = "resumed",
        [DOPPEL_EVENT_RESET] = "reset",   [DOPPEL_EVENT_HELD] = "held",
        [DOPPEL_EVENT_DISK] = "disk",     [DOPPEL_EVENT_GOES_ON] = "goes-on",
    };

    if (!desk || kind < 0 || kind >= (int)ARRAY_SIZE(names) || !names[kind])
        return;
    switch (kind) {
    case DOPPEL_EVENT_PAUSED: desk->paused = true; break;
    case DOPPEL_EVENT_RESUMED: desk->paused = false; break;
    case DOPPEL_EVENT_HELD: desk->held = true; break;
    case DOPPEL_EVENT_GOES_ON: desk->held = false; break;
    default: break;
    }
    control_desk_tell(desk, names[kind],
                      *text ? json_pack("{s:o}", "text", control_text(text)) : NULL);
}

/* Clients that read get what they are owed. */
static void say_farewell(struct control_desk *desk)
{
    uint64_t end = time_now_ns() + FAREWELL_NS, now;

    while (!control_server_idle(desk->server) && (now = time_now_ns()) < end) {
        struct pollfd pfd = {control_server_fd(desk->server), POLLIN, 0};

        poll(&pfd, 1, (int)((end - now) / NS_PER_MS) + 1);
        control_server_work(desk->server);
    }
}

/* Whether the machine is started anew though nobody has asked for that. */
static bool is_restarted(const struct control_desk *desk)
{
    if (desk->wished || desk->how == MACHINE_UNPLUGGED || !desk->ever_started)
        return false;
    switch (desk->restart) {
    case RESTART_ALWAYS: return true;
    case RESTART_ON_FAILURE: return desk->status != 0;
    default: return false;
    }
}

void control_desk_ended(struct control_desk *desk, enum machine_end how, int status)
{
    uint64_t now = time_now_ns();

    if (!desk)
        return;
    desk->vm = 0;
    desk->plug_at = 0;
    desk->how = how;
    desk->status = status;
    refuse_given(desk);
    control_desk_tell(desk, "ended", json_pack("{s:s, s:i}", "how", ends[how], "status", status));
    if (desk->anew) {
        desk->next = now;
    } else if (is_restarted(desk)) {
        bool lasted = desk->started && now - desk->started > LONG_RUN_NS;

        desk->delay = lasted || !desk->delay ? FIRST_DELAY_NS : MIN(2 * desk->delay, LAST_DELAY_NS);
        desk->next = now + desk->delay;
        control_desk_tell(desk, "restarting",
                          json_pack("{s:f}", "delay", control_desk_seconds(desk->delay)));
    }
    desk->started = 0;
}

uint64_t control_desk_next(const struct control_desk *desk)
{
    return desk && desk->next ? desk->next : UINT64_MAX;
}

void control_desk_anew(struct control_desk *desk)
{
    desk->next = 0;
    desk->how = MACHINE_FAILED;
    desk->status = STATUS_ERROR;
}

void control_desk_over(struct control_desk *desk)
{
    if (!desk)
        return;
    desk->next = 0;
    answer_end(desk);
    say_farewell(desk);
}

/* ---- Making and unmaking ---- */

void control_desk_forget(struct control_desk *desk)
{
    if (!desk)
        return;
    control_server_forget(desk->server);
    desk->server = NULL;
}

void control_desk_close(struct control_desk *desk)
{
    if (!desk)
        return;
    control_server_close(desk->server);
    free(desk->log);
    free(desk);
}

struct control_desk *control_desk_open(const struct control_desk_config *config, struct error *err)
{
    struct control_desk *desk = calloc(1, sizeof(*desk));
    const struct control_ops ops = {control_desk_serve, desk};
    char path[PATH_MAX];

    if (desk)
        desk->log = strdup(config->log);
    if (!desk || !desk->log) {
        error_set(err, ENOMEM, "out of memory");
        control_desk_close(desk);
        return NULL;
    }
    desk->background = config->background;
    desk->restart = config->restart;
    if (snprintf(path, sizeof(path), "%s/%s", config->folder, RUN_CONTROL) >= PATH_MAX)
        error_set(err, ENAMETOOLONG, "the path %s is too long", config->folder);
    else if ((desk->server = control_server_open(path, config->name, &ops, err)))
        return desk;
    control_desk_close(desk);
    return NULL;
}
