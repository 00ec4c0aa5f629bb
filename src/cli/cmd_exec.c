/*
 * `doppel exec`: a command in a machine that runs.
 */
#include "cli/agent_port.h"
#include "cli/cli.h"
#include "cli/exec_relay.h"
#include "cli/ssh_login.h"

#include "con/tty.h"
#include "ctl/registry.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPT_ENV,
    OPT_WORKDIR,
    OPT_USER,
    OPT_TERMINAL,
    OPT_NO_TERMINAL,
    OPT_INPUT,
    OPT_NO_INPUT,
    OPT_WAIT,
    OPT_HELP
};

static const struct option_spec specs[] = {
    [OPT_ENV] = {"env", "NAME=VALUE", "-e: add to the command's environment; NAME alone: as here"},
    [OPT_WORKDIR] = {"workdir", "FOLDER", "-w: where it runs (the user's home)"},
    [OPT_USER] = {"user", "USER", "-u: who runs it, a name or UID[:GID] (root)"},
    [OPT_TERMINAL] = {"terminal", NULL, "-t: on a terminal, whatever the standard streams are"},
    [OPT_NO_TERMINAL] = {"no-terminal", NULL, "-T: on none"},
    [OPT_INPUT] = {"input", NULL, "-i: with this standard input, as it has anyway"},
    [OPT_NO_INPUT] = {"no-input", NULL, "-n: with an empty standard input"},
    [OPT_WAIT] = {"wait", "SECONDS", "how long the guest may take until it answers (120)"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};
static const char letters[] = "ewutTin  ";

static const char usage[] =
    "Usage: doppel exec [OPTION...] NAME [-- COMMAND [ARGUMENT...]]\n"
    "Runs COMMAND in the machine NAME, which runs, each word as it is given here; without one,\n"
    "the user's shell. The exit status is the command's, as for one of this host's.\n";

struct request {
    const char *name;
    struct agent_client_request what;
    const char **env;
    size_t env_count;
    bool terminal, no_terminal, no_input;
    unsigned wait;
};

/* ---- The command line ---- */

/* Adds NAME=VALUE, or NAME with the value that it has here; nothing if it has none. */
static bool add_env(struct request *request, const char *text)
{
    const char **longer = reallocarray(request->env, request->env_count + 2, sizeof(*longer));
    const char *value = strchr(text, '=') ? NULL : getenv(text);
    char *made = NULL;

    if (longer)
        request->env = longer;
    if (!longer || (value && asprintf(&made, "%s=%s", text, value) < 0)) {
        complain("out of memory");
        return false;
    }
    if (*text == '=' || !*text) {
        complain("--env: '%s' has no name (there is to be: NAME=VALUE)", text);
        return false;
    }
    if (value || strchr(text, '='))
        longer[request->env_count++] = value ? made : text;
    longer[request->env_count] = NULL;
    return true;
}

static bool take_option(struct request *request, int option, const char *value)
{
    switch (option) {
    case OPT_ENV: return add_env(request, value);
    case OPT_WORKDIR: request->what.folder = value; return true;
    case OPT_USER: request->what.user = value; return true;
    case OPT_TERMINAL:
    case OPT_NO_TERMINAL:
        request->terminal = option == OPT_TERMINAL;
        request->no_terminal = !request->terminal;
        return true;
    case OPT_INPUT:
    case OPT_NO_INPUT: request->no_input = option == OPT_NO_INPUT; return true;
    case OPT_WAIT: return parse_wait(value, &request->wait);
    case OPTIONS_WORD:
        if (request->name)
            complain("unexpected argument '%s' (a command for the guest goes after --)", value);
        else
            request->name = value;
        return request->name == value;
    default: return false;
    }
}

static int help(void)
{
    puts(usage);
    options_help(specs);
    return finish_output(0);
}

/* Returns -1, or the exit status if there is nothing more to do. */
static int read_arguments(char **argv, struct request *request)
{
    struct options options = {.command = "exec",
                              .specs = specs,
                              .argv = argv + 1,
                              .letters = letters,
                              .words = true,
                              .takes_command = true};
    const char *value = NULL;
    int option;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPT_HELP)
            return help();
        if (option == OPTIONS_FAIL || !take_option(request, option, value))
            return STATUS_ERROR;
    }
    if (*options.argv)
        request->what.argv = (const char *const *)options.argv;
    if (!request->name)
        complain("too few arguments (there is to be: NAME, and a command for the guest after --)");
    else if (!request->what.argv && !strcmp(options.argv[-1], "--"))
        complain("no command after --");
    else
        return -1;
    return STATUS_ERROR;
}

/* ---- The command ---- */

/* A command gets a terminal if standard input and output are one, or as the options say. */
static bool choose_terminal(struct request *request)
{
    const char *term = getenv("TERM");
    char *text = NULL;

    request->what.terminal = request->terminal || (!request->no_terminal && !request->no_input &&
                                                   isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
    if (!request->what.terminal)
        return true;
    tty_size(isatty(STDIN_FILENO) ? STDIN_FILENO : STDOUT_FILENO, &request->what.rows,
             &request->what.columns);
    for (size_t i = 0; i < request->env_count; i++)
        if (!strncmp(request->env[i], "TERM=", 5))
            return true;
    return asprintf(&text, "TERM=%s", term && *term ? term : "vt100") >= 0 &&
           add_env(request, text);
}

/* Without an agent, ssh does it. Returns only on failure. */
static int become_ssh(const struct request *request, struct error *err)
{
    struct ssh_login login = {.name = request->name,
                              .wait = request->wait,
                              .user = request->what.user,
                              .command = request->what.argv,
                              .env = request->env_count ? request->env : NULL,
                              .folder = request->what.folder,
                              .terminal = request->terminal        ? SSH_LOGIN_FORCED
                                          : request->what.terminal ? SSH_LOGIN_TERMINAL
                                                                   : SSH_LOGIN_NONE,
                              .no_input = request->no_input};
    char folder[PATH_MAX];
    int ret = registry_folder(request->name, folder, err);

    if (ret)
        return ret;
    complain("no agent answers in '%s': ssh is used instead", request->name);
    return ssh_login(&login, folder, err);
}

static int run(struct request *request)
{
    const struct exec_relay_options options = {.name = request->name, .input = !request->no_input};
    struct error err = {0};
    char folder[PATH_MAX];
    bool ssh;
    int link = agent_port_connect(request->name, request->wait, &ssh, &err), status;

    if (link >= 0) {
        request->what.wish = "exec";
        request->what.env = request->env;
        status = exec_relay(link, &request->what, &options);
        close(link);
        return status;
    }
    if (ssh)
        become_ssh(request, &err);
    else if (link == -ENOENT)
        registry_folder(request->name, folder, &err); /* whether there is such a machine at all */
    complain("%s", err.text);
    return STATUS_ERROR;
}

int cmd_exec(char **argv)
{
    struct request request = {.wait = AGENT_PATIENCE};
    int status = read_arguments(argv, &request);

    if (status < 0 && !choose_terminal(&request))
        status = STATUS_ERROR;
    if (status < 0)
        status = run(&request);
    free(request.env);
    return status;
}
