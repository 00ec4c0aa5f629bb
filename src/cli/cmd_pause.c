/*
 * `doppel pause` and `doppel resume`.
 */
#include "cli/calls.h"
#include "cli/cli.h"

int cmd_pause(char **argv)
{
    return call_each(
        argv, "pause",
        "Usage: doppel pause NAME...\n"
        "Has machines that run stand still: their guests, their devices, their time.\n");
}

int cmd_resume(char **argv)
{
    return call_each(argv, "resume",
                     "Usage: doppel resume NAME...\n"
                     "Has machines go on that were paused. One that is held because the host lacks "
                     "something\n"
                     "tries again at once.\n");
}
