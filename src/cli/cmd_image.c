/*
 * `doppel image`: makes, shows, converts, checks and changes disk images.
 */
#include "cli/cli.h"
#include "cli/image.h"

#include "base/util.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(char **argv);
    const char *help;
} actions[] = {
    {"create", image_create, "make an empty image"},
    {"info", image_info, "show what an image is and what it takes"},
    {"convert", image_convert, "copy an image, from one format to another"},
    {"import", image_import, "copy an image of another program's, by qemu-img"},
    {"check", image_check, "look for mistakes in an image's metadata, and repair them"},
    {"resize", image_resize, "make the disk larger or smaller"},
    {"snapshot", image_snapshot, "keep, show, apply and delete states of the disk"},
};

static int help(void)
{
    puts("Usage: doppel image ACTION [OPTION...] FILE ...\n"
         "Works on disk images, raw and qcow2. What ends in .qcow2 is a qcow2 image, and all else "
         "is\n"
         "raw, unless --format says otherwise; no image is asked what it is. FILE is what `doppel "
         "run\n"
         "--disk` takes: a comma in a name is written as two.\n");
    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++)
        printf("  %-10s %s\n", actions[i].name, actions[i].help);
    puts("\n`doppel image ACTION --help` tells more.");
    return finish_output(0);
}

int cmd_image(char **argv)
{
    const char *name = argv[1];

    if (!name) {
        complain("no action (doppel image --help lists them)");
        return STATUS_ERROR;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        return help();
    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++)
        if (!strcmp(name, actions[i].name))
            return actions[i].run(argv + 1);
    complain("unknown %s '%s' (doppel image --help lists them)",
             name[0] == '-' ? "option" : "action", name);
    return STATUS_ERROR;
}
