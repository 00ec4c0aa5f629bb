/*
 * OpenSSH's client in place of this process.
 */
#include "cli/ssh_login.h"

#include "cli/cli.h"
#include "cli/program.h"
#include "cli/ssh_setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WORDS_MOST 16 /* of ssh's command line */

static void put_words(FILE *to, const char *const *words)
{
    for (; *words; words++) {
        quote_for_shell(to, *words);
        if (words[1])
            fputc(' ', to);
    }
}

/* What the guest's shell is to read, so that it makes the same words of it; without a command, the
 * user's shell. The caller frees it; NULL: no memory. */
static char *make_text(const struct ssh_login *login)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    if (login->folder) {
        fputs("cd ", to);
        quote_for_shell(to, login->folder);
        fputs(" && ", to);
    }
    if (login->env) {
        fputs("env ", to);
        put_words(to, login->env);
        fputc(' ', to);
    }
    if (login->command)
        put_words(to, login->command);
    else
        fputs("\"$SHELL\" -l", to);
    if (fclose(to) == 0)
        return text;
    free(text);
    return NULL;
}

int ssh_login(const struct ssh_login *login, const char *folder, struct error *err)
{
    static const char *const terminals[] = {
        [SSH_LOGIN_TERMINAL] = "-t", [SSH_LOGIN_FORCED] = "-tt", [SSH_LOGIN_NONE] = "-T"};
    bool has_text = login->command || login->env || login->folder;
    char *text = has_text ? make_text(login) : NULL, *option = NULL, config[PATH_MAX];
    char *proxy = ssh_setup_proxy(login->name, login->wait);
    const char *argv[WORDS_MOST];
    unsigned count = 0;
    int ret = ssh_setup_config(login->name, folder, config, err);

    if (!ret && ((has_text && !text) || !proxy || asprintf(&option, "ProxyCommand=%s", proxy) < 0))
        ret = error_set(err, ENOMEM, "out of memory");
    if (!ret) {
        argv[count++] = "ssh";
        argv[count++] = "-F";
        argv[count++] = config;
        argv[count++] = "-o";
        argv[count++] = option;
        if (login->terminal)
            argv[count++] = terminals[login->terminal];
        if (login->no_input)
            argv[count++] = "-n";
        if (login->user) {
            argv[count++] = "-l";
            argv[count++] = login->user;
        }
        argv[count++] = "--";
        argv[count++] = login->name;
        if (text)
            argv[count++] = text;
        argv[count] = NULL;
        ret = program_become(argv, "openssh-client", err);
    }
    free(text);
    free(option);
    free(proxy);
    return ret;
}
