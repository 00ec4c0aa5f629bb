/*
 * `doppel image snapshot`: states of a disk that its image keeps.
 */
#include "cli/image.h"
#include "cli/json_text.h"
#include "cli/snapshots.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { OPT_FORMAT, OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FORMAT] = {"format", "FORMAT", "(-f) raw or qcow2; the default is what the name says"},
    [OPT_JSON] = {"json", NULL, "with list: print one JSON object instead of text"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments command = {
    .name = "image snapshot",
    .usage =
        "Usage: doppel image snapshot create FILE NAME\n"
        "       doppel image snapshot apply FILE NAME\n"
        "       doppel image snapshot delete FILE NAME\n"
        "       doppel image snapshot list [--json] FILE\n"
        "Keeps the state of the disk in FILE, a qcow2 image, under a name; gives the disk a state "
        "that\n"
        "was kept, for which what it holds now is lost; forgets one; shows all. NAME may be an "
        "ID.\n",
    .specs = specs,
    .letters = "f  "};

static int list(struct blk *image, bool as_json, struct error *err)
{
    struct qcow2_snapshot *snapshots;
    unsigned count;
    int result = qcow2_snapshots(image, &snapshots, &count, err);

    if (result)
        return result;
    if (as_json) {
        struct json_text json = {stdout, false};

        json_text_open(&json, NULL, '{');
        snapshots_json(&json, snapshots, count);
        json_text_close(&json, '}');
        putchar('\n');
    } else {
        snapshots_print(snapshots, count);
    }
    qcow2_snapshots_free(snapshots, count);
    return 0;
}

static const struct action {
    const char *name;
    int (*change)(struct blk *image, const char *name, struct error *err); /* NULL: list */
} actions[] = {
    {"create", qcow2_snapshot_create},
    {"apply", qcow2_snapshot_apply},
    {"delete", qcow2_snapshot_delete},
    {"list", NULL},
    {NULL, NULL},
};

static const struct action *find_action(const struct argument_words *words, bool json)
{
    const struct action *action = actions;
    bool named = words->count > 2;

    while (action->name && strcmp(action->name, words->word[0]) != 0)
        action++;
    if (!action->name) {
        complain("unknown action '%s' (create, apply, delete, list)", words->word[0]);
        return NULL;
    }
    if (named == !action->change) {
        complain(named ? "unexpected argument '%s'" : "no name of a snapshot (%s FILE NAME)",
                 named ? words->word[2] : action->name);
        return NULL;
    }
    if (json && action->change) {
        complain("--json is for list, and not for %s", action->name);
        return NULL;
    }
    return action;
}

/* Does what WORDS say. Returns the exit status. */
static int act(const struct argument_words *words, const struct blk_options *options, bool json)
{
    const struct action *action = find_action(words, json);
    struct error err = {0};
    struct blk *image;
    int result;

    if (!action)
        return STATUS_ERROR;
    image = image_open_offline(options, !action->change, false, &err);
    if (!image)
        return image_complain(&err);
    result = action->change ? action->change(image, words->word[2], &err) : list(image, json, &err);
    blk_close(image);
    return result ? image_complain(&err) : finish_output(0);
}

int image_snapshot(char **argv)
{
    struct argument_words words = {
        .names = "ACTION FILE [NAME]", .least = 2, .most = 3, .subject = 1};
    bool json = false;
    const char *format = NULL;
    const struct argument_setting settings[] = {
        [OPT_FORMAT] = {.value = &format}, [OPT_JSON] = {.flag = &json}, [OPT_HELP] = {0}};
    struct blk_options image;
    int status = image_arguments_of_one(&command, settings, argv, &words, &format, &image);

    if (status != ARGUMENTS_GO_ON)
        return status;
    status = act(&words, &image, json);
    blk_options_free(&image);
    return status;
}
