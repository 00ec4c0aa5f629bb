/*
 * Engines that take turns. A turn that fails leaves the machine with the engine that it has; the
 * next one is tried when its time has come.
 */
#include "cli/engine_turns.h"

#include "cli/cli.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_MS 3600000

struct engine_turns {
    struct engine_turns_plan plan;
    struct doppel_vm *vm;
    const struct log *log;
    pthread_t thread;
    pthread_mutex_t lock; /* guards ENDING */
    pthread_cond_t changed;
    bool ending;
    /* The thread's own. */
    unsigned done, failed;
    struct doppel_error first; /* of those that have failed */
};

bool engine_named(const char *option, const char *name, enum doppel_engine *engine)
{
    static const struct {
        const char *name;
        enum doppel_engine engine;
    } engines[] = {{"auto", DOPPEL_ENGINE_AUTO},
                   {"bt", DOPPEL_ENGINE_BT},
                   {"interp", DOPPEL_ENGINE_INTERP},
                   {"kvm", DOPPEL_ENGINE_KVM}};

    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++) {
        if (!strcmp(name, engines[i].name)) {
            *engine = engines[i].engine;
            return true;
        }
    }
    complain("%s: unknown engine '%s' (known: auto, bt, interp, kvm)", option, name);
    return false;
}

/* ---- What the option says ---- */

/* "5s" or "200ms". */
static bool parse_time(const char *text, unsigned *ms)
{
    unsigned long long value;
    char *unit;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    value = strtoull(text, &unit, 10);
    if (errno || value > LONGEST_MS)
        return false;
    if (!strcmp(unit, "s"))
        value *= 1000;
    else if (strcmp(unit, "ms") != 0)
        return false;
    *ms = (unsigned)MIN(value, LONGEST_MS + 1);
    return value >= 1 && value <= LONGEST_MS;
}

/* Reads NAMES, which are changed, with commas in between. */
static bool parse_engines(char *names, struct engine_turns_plan *plan)
{
    char *name;

    while ((name = strsep(&names, ","))) {
        if (plan->count == ENGINE_TURNS_MOST) {
            complain("--switch-engine: more than %d engines", ENGINE_TURNS_MOST);
            return false;
        }
        if (!engine_named("--switch-engine", name, &plan->engine[plan->count++]))
            return false;
    }
    return true;
}

bool engine_turns_parse(const char *text, struct engine_turns_plan *plan)
{
    const char *at = strchr(text, '@');
    char *names;
    bool good;

    *plan = (struct engine_turns_plan){0};
    if (!at || at == text || !parse_time(at + 1, &plan->ms)) {
        complain("--switch-engine: '%s' is not NAME,NAME...@TIME, with 1ms to 3600s", text);
        return false;
    }
    names = strndup(text, (size_t)(at - text));
    if (!names)
        complain("out of memory");
    good = names && parse_engines(names, plan);
    free(names);
    return good;
}

enum doppel_engine engine_turns_maker(const struct engine_turns_plan *plan)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->engine[i] == DOPPEL_ENGINE_KVM)
            return DOPPEL_ENGINE_KVM;
    return plan->engine[0];
}

/* ---- Taking turns ---- */

/* Waits for the end of a turn. False: there is to be no other. */
static bool await_turn(struct engine_turns *turns)
{
    struct timespec until = time_spec(time_now_ns() + (uint64_t)turns->plan.ms * NS_PER_MS);
    bool ending;
    int ret = 0;

    pthread_mutex_lock(&turns->lock);
    while (!turns->ending && ret == 0)
        ret = pthread_cond_timedwait(&turns->changed, &turns->lock, &until);
    ending = turns->ending;
    pthread_mutex_unlock(&turns->lock);
    return !ending;
}

static void *take_turns(void *opaque)
{
    struct engine_turns *turns = opaque;
    unsigned next = 0;

    while (await_turn(turns)) {
        struct doppel_error err = {0};
        int ret;

        next = (next + 1) % turns->plan.count;
        ret = doppel_switch_engine(turns->vm, turns->plan.engine[next], &err);
        if (ret == -ESHUTDOWN)
            break;
        if (ret == 0) {
            turns->done++;
            continue;
        }
        if (!turns->failed++)
            turns->first = err;
        log_line(turns->log, LOG_LEVEL_WARNING, "cannot switch the engine: %s", err.text);
    }
    return NULL;
}

struct engine_turns *engine_turns_begin(const struct engine_turns_plan *plan, struct doppel_vm *vm,
                                        const struct log *log)
{
    struct engine_turns *turns = calloc(1, sizeof(*turns));
    struct error err;

    if (!turns) {
        complain("out of memory");
        return NULL;
    }
    *turns = (struct engine_turns){.plan = *plan, .vm = vm, .log = log};
    pthread_mutex_init(&turns->lock, NULL);
    thread_cond_init(&turns->changed);
    if (thread_start(&turns->thread, "engine turns", take_turns, turns, &err) == 0)
        return turns;
    complain("--switch-engine: %s", err.text);
    pthread_cond_destroy(&turns->changed);
    pthread_mutex_destroy(&turns->lock);
    free(turns);
    return NULL;
}

void engine_turns_end(struct engine_turns *turns)
{
    if (!turns)
        return;
    pthread_mutex_lock(&turns->lock);
    turns->ending = true;
    pthread_cond_signal(&turns->changed);
    pthread_mutex_unlock(&turns->lock);
    pthread_join(turns->thread, NULL);
    log_line(turns->log, LOG_LEVEL_INFO, "the engine was switched %u times", turns->done);
    if (turns->failed)
        complain("--switch-engine: failed %u times: %s", turns->failed, turns->first.text);
    pthread_cond_destroy(&turns->changed);
    pthread_mutex_destroy(&turns->lock);
    free(turns);
}
