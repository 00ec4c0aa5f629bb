/*
 * `doppel rm`: removes named machines.
 */
#include "cli/cli.h"
#include "cli/image.h"

#include "ctl/registry.h"
#include "ctl/tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OPT_FORCE, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FORCE] = {"force", NULL, "(-f) do not ask"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int help(void)
{
    puts("Usage: doppel rm [--force] NAME...\n"
         "Removes machines with their definitions and all that doppel has made for them: disks, "
         "kernels,\n"
         "keys. Disks elsewhere are left alone. A machine that runs is not removed.\n");
    options_help(specs);
    return finish_output(0);
}

/* Whether the user, at a terminal, wants it. */
static bool confirmed(const struct registry_use *machine)
{
    char size[32], answer[16];

    image_size_text(size, sizeof(size), tree_size(machine->folder));
    fprintf(stderr, "Remove '%s' with its disks (%s)? [y/N] ", machine->name, size);
    fflush(stderr);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Removes the machine NAME. Returns 1 if the user did not want it. */
static int remove_machine(const char *name, bool force, struct error *err)
{
    struct registry_use machine = {0};
    int ret = registry_take(name, "is being removed", &machine, err);

    if (ret)
        return ret;
    ret = force || confirmed(&machine) ? registry_remove(&machine, err) : 1;
    registry_give_back(&machine);
    return ret;
}

int cmd_rm(char **argv)
{
    struct options options = {
        .command = "rm", .specs = specs, .argv = argv + 1, .letters = "f ", .words = true};
    const char *value = NULL;
    char **names = argv + 1;
    unsigned count = 0;
    bool force = false;
    int option, status = 0;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return STATUS_ERROR;
        if (option == OPT_HELP)
            return help();
        if (option == OPT_FORCE)
            force = true;
        else
            names[count++] = (char *)(uintptr_t)value;
    }
    if (count == 0 || (!force && !isatty(STDIN_FILENO))) {
        complain(count ? "rm asks on a terminal, and standard input is none (--force: do not ask)"
                       : "no name of a machine (doppel list shows those there are)");
        return STATUS_ERROR;
    }
    for (unsigned i = 0; i < count; i++) {
        struct error err = {0};
        int ret = remove_machine(names[i], force, &err);

        if (ret < 0)
            complain("%s", err.text);
        if (ret)
            status = STATUS_ERROR;
    }
    return status;
}
