/*
 * `doppel rename`: gives a machine another name.
 */
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/ssh_setup.h"

#include "ctl/registry.h"

#include <unistd.h>

enum { OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "rename",
    .usage = "Usage: doppel rename OLD NEW\n"
             "Gives the machine OLD, which does not run, the name NEW, which no machine has.\n",
    .specs = specs};

/* What ssh was told of the machine is told of its new name. */
static void renew_ssh_config(const struct registry_use *machine)
{
    char path[PATH_MAX];
    struct error err = {0};

    if (registry_file(machine->folder, SSH_CONFIG, path, NULL) || access(path, F_OK) < 0)
        return;
    /* It is only in the way of a plain ssh -F, and doppel ssh writes it anew. */
    if (ssh_setup_config(machine->name, machine->folder, path, &err) < 0) {
        complain("%s", err.text);
        unlink(path);
    }
}

int cmd_rename(char **argv)
{
    struct argument_words words = {.names = "OLD NEW", .least = 2, .most = 2};
    const struct argument_setting settings[] = {[OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct registry_use machine = {0};
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    ret = home_check_name(words.word[1], &err);
    if (!ret)
        ret = registry_take(words.word[0], "is being renamed", &machine, &err);
    if (!ret)
        ret = registry_rename(&machine, words.word[1], &err);
    if (!ret)
        renew_ssh_config(&machine);
    registry_give_back(&machine);
    if (ret)
        complain("%s", err.text);
    return ret ? STATUS_ERROR : 0;
}
