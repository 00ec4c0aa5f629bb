/*
 * A machine that runs by its name.
 */
#include "cli/named.h"

#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Adds an option. VALUE is NULL if there was no memory for it. */
static int add(struct named *named, const char *option, const char *value, struct error *err)
{
    char **longer = reallocarray(named->options, named->count + 2, sizeof(*longer));

    if (longer)
        named->options = longer;
    if (!longer || !value || asprintf(&longer[named->count], "--%s=%s", option, value) < 0)
        return error_set(err, ENOMEM, "out of memory");
    longer[++named->count] = NULL;
    return 0;
}

static int add_number(struct named *named, const char *option, uint64_t number, const char *unit,
                      struct error *err)
{
    char text[40];

    if (number == 0)
        return 0;
    snprintf(text, sizeof(text), "%" PRIu64 "%s", number, unit);
    return add(named, option, text, err);
}

/* Adds an option for a file of the machine. NAME is NULL if the definition has none. */
static int add_file(struct named *named, const char *option, const char *name, struct error *err)
{
    char *path = name && *name ? definition_path(named->machine.folder, name) : NULL;
    int ret = !name ? 0 : add(named, option, *name ? path : name, err);

    free(path);
    return ret;
}

static int add_disks(struct named *named, struct error *err)
{
    const struct definition_words *disks = &named->definition.disks;
    int ret = 0;

    for (unsigned i = 0; i < disks->count && !ret; i++) {
        char *disk = definition_disk(named->machine.folder, disks->word[i]);

        ret = add(named, "disk", disk, err);
        free(disk);
    }
    return ret;
}

static int add_vsock(struct named *named, struct error *err)
{
    char socket[PATH_MAX], *vsock;
    int ret = registry_file(named->folder.path, RUN_VSOCK, socket, err);

    if (ret || !definition_has_vsock(&named->definition))
        return ret;
    vsock = definition_vsock(&named->definition, socket);
    ret = add(named, "vsock", vsock, err);
    free(vsock);
    return ret;
}

static int add_words(struct named *named, const char *option, const struct definition_words *words,
                     struct error *err)
{
    int ret = 0;

    for (unsigned i = 0; i < words->count && !ret; i++)
        ret = add(named, option, words->word[i], err);
    return ret;
}

/* The definition, as options. */
static int make_options(struct named *named, struct error *err)
{
    const struct definition *d = &named->definition;
    int ret = add_file(named, "kernel", d->kernel, err);

    if (!ret)
        ret = add_file(named, "initrd", d->initrd, err);
    if (!ret && d->append)
        ret = add(named, "append", d->append, err);
    if (!ret)
        ret = add_number(named, "memory", d->memory / KiB, "K", err);
    if (!ret)
        ret = add_number(named, "cpus", d->cpus, "", err);
    if (!ret)
        ret = add_disks(named, err);
    if (!ret)
        ret = add_words(named, "net", &d->nets, err);
    if (!ret)
        ret = add_vsock(named, err);
    if (!ret)
        ret = add_words(named, "share", &d->shares, err);
    return ret ? ret : add_words(named, "device", &d->devices, err);
}

int named_open(const char *name, struct named *named, struct error *err)
{
    char path[PATH_MAX];
    int ret = registry_take(name, "runs", &named->machine, err);

    if (ret == -ENOENT || ret == -EINVAL)
        return error_set(err, -ret,
                         "'%.100s' is no machine (doppel list shows those there are; a command for "
                         "the guest goes after --)",
                         name);
    if (!ret)
        ret = registry_file(named->machine.folder, DEFINITION_FILE, path, err);
    if (!ret)
        ret = definition_load(path, &named->definition, err);
    if (!ret)
        ret = run_folder_take(name, &named->folder, err);
    if (!ret)
        ret = make_options(named, err);
    if (ret)
        named_close(named);
    return ret;
}

void named_close(struct named *named)
{
    while (named->count > 0)
        free(named->options[--named->count]);
    free(named->options);
    definition_free(&named->definition);
    run_folder_remove(&named->folder);
    registry_give_back(&named->machine);
    *named = (struct named){0};
}
