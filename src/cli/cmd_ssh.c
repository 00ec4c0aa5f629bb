/*
 * `doppel ssh`: logs in to a machine that runs.
 */
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/ssh_login.h"
#include "cli/ssh_setup.h"

#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <unistd.h>

enum { OPT_WAIT, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_WAIT] = {"wait", "SECONDS", "how long the machine may take until it answers (120)"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "ssh",
    .usage = "Usage: doppel ssh [OPTION...] NAME [-- COMMAND [ARGUMENT...]]\n"
             "Logs in to the machine NAME, which runs, or runs COMMAND in it: each word as it is\n"
             "given here. The exit status is ssh's: that of the command, or 255.\n",
    .specs = specs,
    .takes_command = true};

int cmd_ssh(char **argv)
{
    struct argument_words words = {
        .names = "NAME, and a command for the guest after --", .least = 1, .most = 1};
    const char *wait = NULL;
    const struct argument_setting settings[] = {[OPT_WAIT] = {.value = &wait}, [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct ssh_login login = {.wait = SSH_PATIENCE};
    struct lock_holder holder = {0};
    struct error err = {0};
    char folder[PATH_MAX], path[PATH_MAX];

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (wait && !parse_wait(wait, &login.wait))
        return STATUS_ERROR;
    login.name = words.word[0];
    login.command = (const char *const *)words.command;
    login.terminal = words.command && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)
                         ? SSH_LOGIN_TERMINAL
                         : SSH_LOGIN_DEFAULT;
    ret = registry_folder(login.name, folder, &err);
    if (!ret)
        ret = run_folder_find(login.name, RUN_VSOCK, path, &holder, &err);
    if (!ret && !holder.held)
        ret = error_set(&err, ENOENT, "'%s' does not run (doppel run %s)", login.name, login.name);
    if (!ret)
        ssh_login(&login, folder, &err);
    complain("%s", err.text);
    return STATUS_ERROR;
}
