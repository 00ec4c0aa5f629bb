/*
 * `doppel events`: what happens to machines that run.
 */
#include "cli/cli.h"

#include "base/util.h"
#include "ctl/doppel.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ASK_MS       5000
#define WATCHED_MOST 256

enum { OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_JSON] = {"json", NULL, "each event as a line of JSON"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

struct watched {
    const char *name;
    struct doppel_control *control; /* NULL: the machine has ended */
};

static int help(void)
{
    puts("Usage: doppel events [--json] [NAME...]\n"
         "Shows what happens to machines, or to all that run now, until they have ended: started, "
         "paused,\n"
         "resumed, reset, held and goes-on (the host lacks something), disk, frozen and thawed "
         "(SIGSTOP),\n"
         "stopping, ended.\n");
    options_help(specs);
    return finish_output(0);
}

static void print_line(const struct watched *w, json_t *event)
{
    double time = json_number_value(json_object_get(event, "time"));
    const char *what = json_string_value(json_object_get(event, "event"));
    const char *how = json_string_value(json_object_get(event, "how"));
    const char *text = json_string_value(json_object_get(event, "text"));
    time_t seconds = time > 0 && time < 1e12 ? (time_t)time : 0;
    char stamp[32] = "";
    struct tm tm;

    if (localtime_r(&seconds, &tm))
        strftime(stamp, sizeof(stamp), "%F %T", &tm);
    printf("%s  %-24s %s%s%s%s%s\n", stamp, w->name, what ? what : "?", how ? ": " : "",
           how ? how : "", text ? ": " : "", text ? text : "");
}

static void print_json(const struct watched *w, json_t *event)
{
    char *text;

    json_object_set_new(event, "name", json_string(w->name));
    text = json_dumps(event, JSON_COMPACT);
    if (text)
        puts(text);
    free(text);
}

/* Prints what has come. */
static void take_events(struct watched *w, bool as_json)
{
    struct doppel_error err = {0};
    char *text;
    int ret;

    while ((ret = doppel_control_event(w->control, 0, &text, &err)) == 0) {
        json_t *event = json_loads(text, 0, NULL);

        if (event && as_json)
            print_json(w, event);
        else if (event)
            print_line(w, event);
        json_decref(event);
        free(text);
    }
    fflush(stdout);
    if (ret == -ETIMEDOUT)
        return;
    doppel_control_close(w->control);
    w->control = NULL;
}

static bool begin(struct watched *w)
{
    struct doppel_error err = {0};

    w->control = doppel_control_open(w->name, &err);
    if (w->control && doppel_control_call(w->control, "events", NULL, ASK_MS, NULL, &err) == 0)
        return true;
    doppel_control_close(w->control);
    w->control = NULL;
    complain("%s", err.text);
    return false;
}

/* Watches those whose names are given until they have ended. */
static int watch(struct watched *all, unsigned count, bool as_json)
{
    struct pollfd pfd[WATCHED_MOST];
    unsigned alive = count;
    int status = 0;

    for (unsigned i = 0; i < count; i++)
        if (!begin(&all[i]))
            status = STATUS_ERROR;
    while (alive > 0 && !ferror(stdout)) {
        alive = 0;
        for (unsigned i = 0; i < count; i++) {
            if (all[i].control) /* events may have come with an answer */
                take_events(&all[i], as_json);
            pfd[i] =
                (struct pollfd){all[i].control ? doppel_control_fd(all[i].control) : -1, POLLIN, 0};
            alive += all[i].control != NULL;
        }
        if (alive > 0)
            poll(pfd, count, -1);
    }
    return status;
}

static int watch_all(bool as_json, struct error *err)
{
    struct registry_names names = {0};
    struct watched all[WATCHED_MOST] = {{0}};
    int status = run_folder_names(&names, err);

    if (status < 0)
        return status;
    for (unsigned i = 0; i < MIN(names.count, (unsigned)WATCHED_MOST); i++)
        all[i].name = names.name[i];
    status = watch(all, MIN(names.count, (unsigned)WATCHED_MOST), as_json);
    registry_names_free(&names);
    return status;
}

int cmd_events(char **argv)
{
    struct options options = {.command = "events", .specs = specs, .argv = argv + 1, .words = true};
    struct watched all[WATCHED_MOST] = {{0}};
    const char *value = NULL;
    unsigned count = 0;
    bool as_json = false;
    struct error err = {0};
    int option, status;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return STATUS_ERROR;
        if (option == OPT_HELP)
            return help();
        if (option == OPT_JSON)
            as_json = true;
        else if (count < WATCHED_MOST)
            all[count++].name = value;
    }
    status = count > 0 ? watch(all, count, as_json) : watch_all(as_json, &err);
    if (status < 0) {
        complain("%s", err.text);
        return STATUS_ERROR;
    }
    return finish_output(status);
}
