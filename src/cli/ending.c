/*
 * Bringing machines that run to their end.
 */
#include "cli/ending.h"

#include "base/time.h"
#include "base/util.h"
#include "cli/agent_ask.h"
#include "cli/cli.h"
#include "ctl/doppel.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long the supervisor may take to say anything at all, to pull the plug and end what stands
 * behind the machine, and to be gone then. */
#define ALIVE_MS  3000
#define ANSWER_MS 30000
#define GONE_MS   30000
/* How long agents may take to take the wish to power off, beside the button. */
#define AGENTS_MS 1000

struct ending {
    const char *name;
    int pidfd; /* the supervisor's */
    struct doppel_control *control;
    int number; /* of the answer that is waited for */
    bool done, failed;
};

static void say(struct ending *e, const char *what)
{
    printf("%s: %s\n", e->name, what);
    fflush(stdout);
    e->done = true;
}

static void fail(struct ending *e, const char *text)
{
    complain("%s", text);
    e->done = e->failed = true;
}

/* The machine does not run. */
static void not_running(struct ending *e)
{
    char folder[PATH_MAX];
    struct error err = {0};

    if (registry_folder(e->name, folder, &err) < 0)
        fail(e, err.text);
    else
        say(e, "did not run");
}

static void ask(struct ending *e, unsigned timeout, bool force)
{
    struct doppel_error why = {0};
    struct error err = {0};
    char arguments[64];

    e->pidfd = run_folder_pidfd(e->name, &err);
    if (e->pidfd == -ESRCH) {
        not_running(e);
    } else if (e->pidfd < 0) {
        fail(e, err.text);
    } else if ((e->control = doppel_control_open(e->name, &why))) {
        snprintf(arguments, sizeof(arguments), "{\"timeout\": %u}", timeout);
        e->number = doppel_control_send(e->control, force ? "kill" : "stop",
                                        force ? NULL : arguments, &why);
    }
}

/* Tells what the answer RESULT says was done. */
static void tell(struct ending *e, const char *result, unsigned timeout)
{
    static const struct {
        const char *how, *text;
    } texts[] = {
        {"powered-off", "powered off"}, {"reset", "ended by a reset"},
        {"killed", "killed"},           {"died", "its VM process was killed by a signal"},
        {"crashed", "crashed"},         {"command-ended", "its command ended"},
    };
    json_t *answer = json_loads(result, 0, NULL);
    const char *how = json_string_value(json_object_get(answer, "how"));
    char text[128] = "ended";

    for (unsigned i = 0; how && i < ARRAY_SIZE(texts); i++)
        if (!strcmp(how, texts[i].how))
            snprintf(text, sizeof(text), "%s", texts[i].text);
    if (how && !strcmp(how, "unplugged"))
        snprintf(text, sizeof(text), "unplugged%s",
                 timeout ? ", as it did not power off in time" : "");
    say(e, text);
    json_decref(answer);
}

/* Waits until the supervisor is gone, and its VM process, which ends with it. */
static bool is_gone(const struct ending *e)
{
    struct pollfd pfd = {e->pidfd, POLLIN, 0};
    uint64_t end = time_now_ns() + GONE_MS * NS_PER_MS, now;
    struct lock_holder holder;
    char path[PATH_MAX];
    bool ended = false;

    while ((now = time_now_ns()) < end) {
        if (!ended)
            ended = poll(&pfd, 1, (int)((end - now) / NS_PER_MS) + 1) > 0;
        if (ended && (run_folder_find(e->name, "", path, &holder, NULL) < 0 || !holder.held))
            return true;
        if (ended)
            time_sleep_ns(2 * NS_PER_MS);
    }
    return false;
}

/* What helps if the supervisor does not: its VM process ends with it. */
static void end_by_force(struct ending *e)
{
    char text[160];

    if (syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0) == 0 && is_gone(e)) {
        say(e, "killed, as its supervisor did not answer");
        return;
    }
    snprintf(text, sizeof(text), "'%s' cannot be killed: %s", e->name, strerror(errno));
    fail(e, text);
}

/* Waits for the answer as long as the supervisor says something when it is asked. */
static int wait_for_answer(struct ending *e, unsigned timeout, char **result,
                           struct doppel_error *why)
{
    uint64_t end = time_now_ns() + timeout * NS_PER_S + ANSWER_MS * NS_PER_MS;
    int ret = -ETIMEDOUT;

    if (e->number <= 0)
        return -EPIPE;
    while (ret == -ETIMEDOUT && time_now_ns() < end) {
        ret = doppel_control_answer(e->control, e->number, ALIVE_MS, result, why);
        if (ret == -ETIMEDOUT &&
            doppel_control_call(e->control, "state", NULL, ALIVE_MS, NULL, why) == -ETIMEDOUT)
            break;
    }
    return ret;
}

static void await(struct ending *e, unsigned timeout)
{
    struct doppel_error why = {0};
    char text[160], *result = NULL;
    int ret;

    if (e->done)
        return;
    ret = wait_for_answer(e, timeout, &result, &why);
    if (ret == 0 && is_gone(e)) {
        tell(e, result, timeout);
    } else if (ret == 0) {
        snprintf(text, sizeof(text), "'%s' has ended, but its processes are not gone yet", e->name);
        fail(e, text);
    } else if (ret == -EPIPE && e->number > 0 && is_gone(e)) {
        say(e, "ended");
    } else if (ret == -ETIMEDOUT || ret == -EPIPE) {
        end_by_force(e);
    } else {
        fail(e, why.text);
    }
    free(result);
}

/* Has the agents of guests power them off: not all guests heed the power button. */
static void ask_agents(const char *const *names, unsigned count)
{
    struct agent_question *questions = calloc(count, sizeof(*questions));

    for (unsigned i = 0; questions && i < count; i++)
        questions[i].name = names[i];
    if (questions)
        agent_ask(questions, count, "shutdown", AGENTS_MS);
    free(questions);
}

bool end_machines(const char *const *names, unsigned count, unsigned timeout, bool force)
{
    struct ending *all = calloc(count, sizeof(*all));
    bool ended = all != NULL;

    if (!all)
        complain("out of memory");
    for (unsigned i = 0; all && i < count; i++) {
        all[i] = (struct ending){.name = names[i], .pidfd = -1};
        ask(&all[i], timeout, force);
    }
    if (all && !force && timeout)
        ask_agents(names, count);
    for (unsigned i = 0; all && i < count; i++) {
        await(&all[i], force ? 0 : timeout);
        ended &= !all[i].failed;
        doppel_control_close(all[i].control);
        if (all[i].pidfd >= 0)
            close(all[i].pidfd);
    }
    free(all);
    return ended;
}
