/*
 * `doppel gc`: removes what nothing needs any more.
 */
#include "cli/arguments.h"
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

static const struct arguments arguments = {
    .name = "gc",
    .usage = "Usage: doppel gc [--dry-run]\n"
             "Removes base images that no machine needs, and what commands and machines that were\n"
             "killed have left behind. Machines and what they need stay.\n",
    .specs = specs};

static void tell(void *opaque, const char *path)
{
    char *clean = image_clean(path);

    printf("%s %s\n", *(const bool *)opaque ? "would remove" : "removed", clean ? clean : "?");
    free(clean);
}

int cmd_gc(char **argv)
{
    struct argument_words words = {.names = "nothing but options"};
    bool dry = false;
    const struct argument_setting settings[] = {[OPT_DRY_RUN] = {.flag = &dry}, [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    ret = registry_sweep(dry, tell, &dry, &err);
    if (!ret)
        ret = run_folder_sweep(dry, tell, &dry, &err);
    if (!ret)
        ret = base_image_sweep(dry, tell, &dry, &err);
    if (ret)
        complain("%s", err.text);
    return finish_output(ret ? STATUS_ERROR : 0);
}
