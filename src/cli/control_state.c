/*
 * What the control desk knows of its machine.
 */
#include "cli/control_desk_private.h"

#include "base/time.h"
#include "ctl/doppel.h"

#include <unistd.h>

/* ---- Events ---- */

double control_desk_seconds(uint64_t ns)
{
    const uint64_t ms = ns / NS_PER_MS;

    return (double)ms / 1e3;
}

void control_desk_tell(struct control_desk *desk, const char *event, json_t *more)
{
    json_t *line =
        json_pack("{s:s, s:f}", "event", event, "time", control_desk_seconds(time_real_ns()));

    if (line && more)
        json_object_update(line, more);
    json_decref(more);
    control_server_event(desk->server, line);
}

/* ---- What is known ---- */

static const char *state(const struct control_desk *desk)
{
    if (!desk->vm)
        return desk->next ? "restarting" : "ended";
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

void control_desk_look(struct control_desk *desk, uint64_t now)
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

json_t *control_desk_describe(const struct control_desk *desk)
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
                        control_desk_seconds(desk->started_real), "uptime",
                        control_desk_seconds(now - desk->started), "load", load(desk, now, used))
            : NULL;

    if (run)
        json_object_update(result, run);
    json_decref(run);
    if (desk->vm) {
        json_object_set_new(result, "vm_process", json_integer(desk->vm));
        json_object_set_new(result, "processor_time", json_real(control_desk_seconds(used)));
    }
    return result;
}
