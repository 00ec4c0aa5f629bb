/*
 * The command `doppel`: finds the subcommand. The only place that ends the process.
 */
#include "cli/cli.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(char **argv);
    const char *help;
} commands[] = {
    {"run", cmd_run, "run a virtual machine"},
    {"start", cmd_start, "start machines in the background"},
    {"stop", cmd_stop, "stop machines that run"},
    {"kill", cmd_kill, "end machines at once"},
    {"restart", cmd_restart, "stop machines and start them anew"},
    {"pause", cmd_pause, "have machines stand still"},
    {"resume", cmd_resume, "have machines go on"},
    {"console", cmd_console, "the console of a machine in the background"},
    {"logs", cmd_logs, "show the log of a machine"},
    {"events", cmd_events, "show what happens to machines"},
    {"list", cmd_list, "show the machines that have names, and what they do"},
    {"ls", cmd_list, "the same"},
    {"exec", cmd_exec, "run a command in a machine that runs"},
    {"show", cmd_show, "show the definition of a machine"},
    {"edit", cmd_edit, "change the definition of a machine"},
    {"cp", cmd_cp, "copy files from and to a machine that runs"},
    {"enable", cmd_enable, "have machines start by themselves"},
    {"disable", cmd_disable, "have machines no longer start by themselves"},
    {"ssh", cmd_ssh, "log in to a machine that runs"},
    {"connect", cmd_connect, "connect to a port of a machine that runs"},
    {"rename", cmd_rename, "give a machine another name"},
    {"rm", cmd_rm, "remove machines"},
    {"gc", cmd_gc, "remove what no machine needs any more"},
    {"create", cmd_create, "make a virtual machine with a system on its disk"},
    {"image", cmd_image, "make, show, convert, check and change disk images"},
    {"doctor", cmd_doctor, "show what this host offers and what would be used"},
    {"backend", cmd_backend, "serve a disk to virtual machines of other programs"},
    {"isa", cmd_isa, "show the instructions as Popek and Goldberg see them"},
};

static int help(void)
{
    puts("Usage: doppel COMMAND [OPTION...]\n"
         "Runs unmodified operating systems in virtual machines.\n");
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    puts("\n  --help     show this\n"
         "  --version  show the version\n"
         "\n`doppel help COMMAND` and `doppel COMMAND --help` tell more.");
    return finish_output(0);
}

/* Runs the subcommand that ARGV begins with. */
static int run_command(char **argv)
{
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[0], commands[i].name))
            return commands[i].run(argv);
    complain("unknown %s '%s' (doppel --help lists them)", argv[0][0] == '-' ? "option" : "command",
             argv[0]);
    return STATUS_ERROR;
}

/* `doppel help`, and `doppel help COMMAND`, which is `doppel COMMAND --help`. After `image` an
 * action may follow. */
static int help_on(char **argv)
{
    char option[] = "--help";
    unsigned words;

    if (!argv[1])
        return help();
    words = argv[2] && !strcmp(argv[1], "image") ? 2 : 1;
    if (argv[words + 1]) {
        complain("help is for one command at a time: unexpected argument '%s'", argv[words + 1]);
        return STATUS_ERROR;
    }
    return words > 1 ? run_command((char *[]){argv[1], argv[2], option, NULL})
                     : run_command((char *[]){argv[1], option, NULL});
}

static int dispatch(char **argv)
{
    const char *name = argv[0] ? argv[1] : NULL;

    if (!name) {
        complain("no command (doppel --help lists them)");
        return STATUS_ERROR;
    }
    if (!strcmp(name, "help"))
        return help_on(argv + 1);
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        return help();
    if (!strcmp(name, "--version")) {
        printf("doppel %s\n", doppel_version());
        return finish_output(0);
    }
    return run_command(argv + 1);
}

/* Files opened later must not become standard streams that were closed. A closed standard output
 * is an error, since something is always written to it. */
static bool standard_streams(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
            continue;
        if (fd == 1) {
            complain("standard output is closed");
            return false;
        }
        if (open("/dev/null", O_RDWR) != fd)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    (void)argc;
    signal(SIGPIPE, SIG_IGN); /* a closed output is an error that is reported */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file that may not grow */
    return standard_streams() ? dispatch(argv) : STATUS_ERROR;
}
