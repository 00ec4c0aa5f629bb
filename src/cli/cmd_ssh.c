/*
 * `doppel ssh`: logs in to a machine that runs.
 */
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/program.h"
#include "cli/ssh_setup.h"

#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MOST 16 /* of ssh's command line */

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

struct request {
    const char *name;
    unsigned wait;
    char **command; /* NULL: a shell */
};

/* The words of COMMAND as one text, from which the guest's shell makes the same words again. The
 * caller frees it; NULL: no memory. */
static char *quote(char **command)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    for (; *command; command++) {
        quote_for_shell(to, *command);
        if (command[1])
            fputc(' ', to);
    }
    if (fclose(to) == 0)
        return text;
    free(text);
    return NULL;
}

/* Becomes ssh. Returns only on failure. */
static int become_ssh(const struct request *request, const char *config, struct error *err)
{
    char *command = request->command ? quote(request->command) : NULL, *option = NULL;
    char *proxy = ssh_setup_proxy(request->name, request->wait);
    bool terminal = command && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    const char *argv[WORDS_MOST];
    unsigned count = 0;
    int ret;

    if ((request->command && !command) || !proxy || asprintf(&option, "ProxyCommand=%s", proxy) < 0)
        return error_set(err, ENOMEM, "out of memory");
    argv[count++] = "ssh";
    argv[count++] = "-F";
    argv[count++] = config;
    argv[count++] = "-o";
    argv[count++] = option;
    if (terminal)
        argv[count++] = "-t"; /* as doppel run gives a command one */
    argv[count++] = "--";
    argv[count++] = request->name;
    if (command)
        argv[count++] = command;
    argv[count] = NULL;
    ret = program_become(argv, "openssh-client", err);
    free(command);
    free(option);
    free(proxy);
    return ret;
}

int cmd_ssh(char **argv)
{
    struct argument_words words = {
        .names = "NAME, and a command for the guest after --", .least = 1, .most = 1};
    const char *wait = NULL;
    const struct argument_setting settings[] = {[OPT_WAIT] = {.value = &wait}, [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct request request = {.wait = SSH_PATIENCE};
    struct lock_holder holder = {0};
    struct error err = {0};
    char folder[PATH_MAX], config[PATH_MAX], path[PATH_MAX];

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (wait && !parse_wait(wait, &request.wait))
        return STATUS_ERROR;
    request.name = words.word[0];
    request.command = words.command;
    ret = registry_folder(request.name, folder, &err);
    if (!ret)
        ret = run_folder_find(request.name, RUN_VSOCK, path, &holder, &err);
    if (!ret && !holder.held)
        ret = error_set(&err, ENOENT, "'%s' does not run (doppel run %s)", request.name,
                        request.name);
    if (!ret)
        ret = ssh_setup_config(request.name, folder, config, &err);
    if (!ret)
        become_ssh(&request, config, &err);
    complain("%s", err.text);
    return STATUS_ERROR;
}
