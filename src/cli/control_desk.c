/*
 * What the supervisor answers at the control socket of a machine.
 */
#include "cli/control_desk.h"

#include "base/time.h"
#include "base/util.h"
#include "ctl/control_server.h"
#include "ctl/doppel.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STOP_SECONDS      10 /* that a guest has to heed the power button, by default */
#define STOP_SECONDS_MOST 86400
#define WAITING_MOST      128             /* requests that wait for the end */
#define WORKS_MOST        64              /* that the VM process has been given */
#define LOAD_NS           (10 * NS_PER_S) /* between two looks at the processor time */
#define FAREWELL_NS       (200 * NS_PER_MS)

struct waiting {
    uint64_t client;
    int64_t id;
};

/* What the VM process has been given to do, and for whom. */
struct given {
    uint32_t number; /* 0: nothing */
    enum work what;
    struct waiting who;
};

struct control_desk {
    struct control_server *server;
    struct control_desk_ops ops;
    char *log;

    pid_t vm; /* 0: there is none */
    bool running, paused, held, frozen, ending;
    struct machine_facts facts;
    uint64_t started, started_real; /* when the guest began to run; 0: it has not */

    /* Processor time of the VM process at two moments: the load is what was used since the first.
     */
    struct {
        uint64_t at, used;
    } look[2];

    uint64_t plug_at; /* when the plug is pulled; 0: never */
    struct waiting waiting[WAITING_MOST];
    unsigned waiting_count;
    struct given given[WORKS_MOST];
    uint32_t last_work; /* the last number */
};

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

/* ---- Events ---- */

static double seconds(uint64_t ns)
{
    return (double)(ns / NS_PER_MS) / 1e3;
}

/* Tells of EVENT, which has the members of MORE, too. MORE is taken; it may be NULL. */
static void tell(struct control_desk *desk, const char *event, json_t *more)
{
    json_t *line = json_pack("{s:s, s:f}", "event", event, "time", seconds(time_real_ns()));

    if (line && more)
        json_object_update(line, more);
    json_decref(more);
    control_server_event(desk->server, line);
}

/* ---- What is known ---- */

static const char *state(const struct control_desk *desk)
{
    if (!desk->vm)
        return "ended";
    if (desk->frozen)
        return "frozen";
    if (desk->ending)
        return "stopping";
    if (desk->paused)
        return "paused";
    if (desk->held)
        return "held";
    return desk->running ? "running" : "starting";
}

/* The processor time of the VM process, or 0. */
static uint64_t processor_ns(const struct control_desk *desk)
{
    struct timespec used;
    clockid_t clock;

    if (!desk->vm || clock_getcpuclockid(desk->vm, &clock) != 0 || clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

static void look_at_load(struct control_desk *desk, uint64_t now)
{
    desk->look[0] = desk->look[1];
    desk->look[1].at = now;
    desk->look[1].used = processor_ns(desk);
}

/* How many processors the machine has used, over the last 10 to 20 s. */
static double load(const struct control_desk *desk, uint64_t now, uint64_t used)
{
    uint64_t passed = now - desk->look[0].at;

    return passed && used > desk->look[0].used
               ? (double)(used - desk->look[0].used) / (double)passed
               : 0;
}

static json_t *describe(const struct control_desk *desk)
{
    uint64_t now = time_now_ns(), used = processor_ns(desk);
    json_t *result =
        json_pack("{s:s, s:s, s:i, s:o}", "state", state(desk), "version", doppel_version(),
                  "process", (int)getpid(), "log", control_text(desk->log));
    json_t *run =
        desk->started
            ? json_pack("{s:o, s:I, s:I, s:f, s:f, s:f}", "engine",
                        control_text(desk->facts.engine), "cpus", (json_int_t)desk->facts.cpus,
                        "memory", (json_int_t)desk->facts.memory, "started",
                        seconds(desk->started_real), "uptime", seconds(now - desk->started), "load",
                        load(desk, now, used))
            : NULL;

    if (run)
        json_object_update(result, run);
    json_decref(run);
    if (desk->vm) {
        json_object_set_new(result, "vm_process", json_integer(desk->vm));
        json_object_set_new(result, "processor_time", json_real(seconds(used)));
    }
    return result;
}

/* ---- Requests ---- */

struct asked {
    struct control_desk *desk;
    uint64_t client;
    const struct control_request *request;
};

static int give_state(const struct asked *a, struct error *err)
{
    (void)err;
    control_answer(a->desk->server, a->client, a->request->id, describe(a->desk));
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

/* Keeps the request until the end. */
static int wait_for_end(const struct asked *a, struct error *err)
{
    struct control_desk *desk = a->desk;
    unsigned kept = 0;

    if (!desk->vm)
        return error_set(err, ESRCH, "the machine has ended");
    for (unsigned i = 0; i < desk->waiting_count; i++)
        if (control_server_has(desk->server, desk->waiting[i].client))
            desk->waiting[kept++] = desk->waiting[i];
    desk->waiting_count = kept;
    if (kept == WAITING_MOST)
        return error_set(err, EBUSY, "%d requests wait for the end already", WAITING_MOST);
    desk->waiting[desk->waiting_count++] = (struct waiting){a->client, a->request->id};
    return 0;
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

    return give_work(a->desk, WORK_PAUSE, &order, (struct waiting){a->client, a->request->id}, err);
}

static int resume(const struct asked *a, struct error *err)
{
    struct work_order order = {0};

    return give_work(a->desk, WORK_RESUME, &order, (struct waiting){a->client, a->request->id},
                     err);
}

static int give_stats(const struct asked *a, struct error *err)
{
    struct work_order order = {0};

    return give_work(a->desk, WORK_STATS, &order, (struct waiting){a->client, a->request->id}, err);
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
                     (struct waiting){a->client, a->request->id}, err);
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
    return give_work(a->desk, WORK_NETWORK, &order, (struct waiting){a->client, a->request->id},
                     err);
}

static void begin_end(struct control_desk *desk)
{
    if (!desk->ending)
        tell(desk, "stopping", NULL);
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

static int stop(const struct asked *a, struct error *err)
{
    struct control_desk *desk = a->desk;
    double timeout = STOP_SECONDS;
    uint64_t at;
    int ret = control_argument(a->request, "timeout", 0, STOP_SECONDS_MOST, &timeout, err);

    if (!ret)
        ret = wait_for_end(a, err);
    if (ret)
        return ret;
    at = time_now_ns() + (uint64_t)(timeout * 1e9);
    desk->plug_at = desk->plug_at ? MIN(desk->plug_at, at) : at;
    begin_end(desk);
    if (timeout > 0)
        press_button(desk);
    return 0;
}

static int kill_machine(const struct asked *a, struct error *err)
{
    int ret = wait_for_end(a, err);

    if (ret)
        return ret;
    begin_end(a->desk);
    a->desk->plug_at = 0;
    a->desk->ops.kill(a->desk->ops.opaque);
    return 0;
}

static const struct {
    const char *name;
    int (*serve)(const struct asked *asked, struct error *err); /* answers, or fails */
} requests[] = {
    {"state", give_state},    {"events", give_events},    {"wait", wait_for_end},
    {"stop", stop},           {"kill", kill_machine},     {"pause", pause_machine},
    {"resume", resume},       {"statistics", give_stats}, {"console-size", set_console_size},
    {"network", set_network},
};

static void on_request(void *opaque, uint64_t client, const struct control_request *request)
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
        look_at_load(desk, now);
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
    desk->started = desk->plug_at = 0;
}

void control_desk_started(struct control_desk *desk, const struct machine_facts *facts)
{
    if (!desk || desk->started)
        return;
    desk->facts = *facts;
    desk->running = true;
    desk->started = time_now_ns();
    desk->started_real = time_real_ns();
    look_at_load(desk, desk->started);
    look_at_load(desk, desk->started);
    tell(desk, "started", NULL);
}

void control_desk_frozen(struct control_desk *desk, bool frozen)
{
    if (!desk || desk->frozen == frozen)
        return;
    desk->frozen = frozen;
    tell(desk, frozen ? "frozen" : "thawed", NULL);
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
    result =
        given->what == WORK_STATS
            ? json_pack("{s:I, s:f, s:f, s:I, s:I}", "instructions", (json_int_t)done->instructions,
                        "run_time", seconds(done->run_ns), "elapsed", seconds(done->elapsed_ns),
                        "guest_memory", (json_int_t)done->guest_resident, "process_memory",
                        (json_int_t)done->resident)
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
    tell(desk, names[kind], *text ? json_pack("{s:o}", "text", control_text(text)) : NULL);
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

void control_desk_ended(struct control_desk *desk, enum machine_end how, int status)
{
    if (!desk)
        return;
    desk->vm = 0;
    desk->plug_at = 0;
    for (unsigned i = 0; i < desk->waiting_count; i++)
        control_answer(desk->server, desk->waiting[i].client, desk->waiting[i].id,
                       json_pack("{s:s, s:i}", "how", ends[how], "status", status));
    desk->waiting_count = 0;
    refuse_given(desk);
    tell(desk, "ended", json_pack("{s:s, s:i}", "how", ends[how], "status", status));
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

struct control_desk *control_desk_open(const char *folder, const char *name, const char *log,
                                       struct error *err)
{
    struct control_desk *desk = calloc(1, sizeof(*desk));
    const struct control_ops ops = {on_request, desk};
    char path[PATH_MAX];

    if (desk)
        desk->log = strdup(log);
    if (!desk || !desk->log)
        error_set(err, ENOMEM, "out of memory");
    else if (snprintf(path, sizeof(path), "%s/%s", folder, RUN_CONTROL) >= PATH_MAX)
        error_set(err, ENAMETOOLONG, "the path %s is too long", folder);
    else if ((desk->server = control_server_open(path, name, &ops, err)))
        return desk;
    control_desk_close(desk);
    return NULL;
}
