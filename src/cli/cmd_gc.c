/*
 * `doppel gc`: removes what nothing needs any more.
 */
#include "cli/base_image_sweep.h"
#include "cli/cli.h"
#include "cli/image.h"

#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <stdio.h>
#include <stdlib.h>

enum { OPT_DRY_RUN, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_DRY_RUN] = {"dry-run", NULL, "only tell what would be removed"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int help(void)
{
    puts("Usage: doppel gc [--dry-run]\n"
         "Removes base images that no machine needs, and what commands and machines that were "
         "killed have\n"
         "left behind. Machines and what they need stay.\n");
    options_help(specs);
    return finish_output(0);
}

static void tell(void *opaque, const char *path)
{
    char *clean = image_clean(path);

    printf("%s %s\n", *(const bool *)opaque ? "would remove" : "removed", clean ? clean : "?");
    free(clean);
}

int cmd_gc(char **argv)
{
    struct options options = {.command = "gc", .specs = specs, .argv = argv + 1};
    struct error err = {0};
    const char *value = NULL;
    bool dry = false;
    int option, ret;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return STATUS_ERROR;
        if (option == OPT_HELP)
            return help();
        dry = true;
    }
    if (*options.argv) {
        complain("unexpected argument '%s'", *options.argv);
        return STATUS_ERROR;
    }
    ret = registry_sweep(dry, tell, &dry, &err);
    if (!ret)
        ret = run_folder_sweep(dry, tell, &dry, &err);
    if (!ret)
        ret = base_image_sweep(dry, tell, &dry, &err);
    if (ret)
        complain("%s", err.text);
    return finish_output(ret ? STATUS_ERROR : 0);
}
