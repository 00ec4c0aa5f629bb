/*
 * `doppel run`: a machine on this terminal.
 */
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/run_options.h"

#include <stdio.h>

static int help(void)
{
    puts("Usage: doppel run [OPTION...] [NAME] [-- COMMAND [ARGUMENT...]]\n"
         "Boots a virtual machine: the one called NAME (doppel list shows those there are), whose\n"
         "definition the options change for this run, or else one that is not kept. Without "
         "COMMAND it\n"
         "gives a shell on this terminal (Ctrl-A H lists the keys); with COMMAND it runs that in "
         "the\n"
         "guest, with this process's standard streams.\n");
    run_options_help();
    puts(
        "\nExit status: COMMAND's; 0 when a guest without COMMAND powers off; 125 when doppel or "
        "the\n"
        "guest fails, 126 when COMMAND cannot be executed, 127 when it is not found; 128 plus the\n"
        "signal that ended COMMAND or doppel, or killed its VM process.");
    return finish_output(0);
}

int cmd_run(char **argv)
{
    struct run_line line;

    if (!run_options_scan(argv, &line))
        return STATUS_ERROR;
    return line.help ? help() : machine_run(argv, NULL);
}
