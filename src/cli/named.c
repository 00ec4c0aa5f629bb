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

/* Adds WORD, which is NULL if there was no memory for it. */
static int add_word(struct named *named, char *word, struct error *err)
{
    char **longer = reallocarray(named->options, named->count + 2, sizeof(*longer));

    if (longer)
        named->options = longer;
    if (!longer || !word) {
        free(word);
        return error_set(err, ENOMEM, "out of memory");
    }
    longer[named->count++] = word;
    longer[named->count] = NULL;
    return 0;
}

/* Adds an option. VALUE is NULL if there was no memory for it. */
static int add(struct named *named, const char *option, const char *value, struct error *err)
{
    char *word;

    if (!value || asprintf(&word, "--%s=%s", option, value) < 0)
        word = NULL;
    return add_word(named, word, err);
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
    int ret = add_word(named, strdup("run"), err);

    if (!ret)
        ret = add_file(named, "kernel", d->kernel, err);
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

static int give_up(struct named *named, int ret)
{
    named_close(named);
    return ret;
}

static int take_run_folder(const char *name, struct named *named, struct error *err)
{
    int ret = run_folder_take(name, &named->folder, err);

    snprintf(named->name, sizeof(named->name), "%.*s", HOME_NAME_MOST, name);
    if (!ret)
        ret = make_options(named, err);
    return ret ? give_up(named, ret) : 0;
}

static int load(struct named *named, struct error *err)
{
    char path[PATH_MAX];
    int ret = registry_file(named->machine.folder, DEFINITION_FILE, path, err);

    return ret ? ret : definition_load(path, &named->definition, err);
}

int named_open(const char *name, struct named *named, struct error *err)
{
    int ret = registry_take(name, "runs", &named->machine, err);

    if (ret == -ENOENT || ret == -EINVAL)
        return error_set(err, -ret,
                         "'%.100s' is no machine (doppel list shows those there are; a command for "
                         "the guest goes after --)",
                         name);
    if (!ret)
        ret = load(named, err);
    return ret ? give_up(named, ret) : take_run_folder(name, named, err);
}

static void free_options(struct named *named)
{
    while (named->count > 0)
        free(named->options[--named->count]);
    free(named->options);
    named->options = NULL;
    definition_free(&named->definition);
}

int named_reload(struct named *named, struct error *err)
{
    int ret;

    free_options(named);
    ret = named->machine.held ? load(named, err) : 0;
    return ret ? ret : make_options(named, err);
}

int named_open_unkept(const char *name, struct named *named, struct error *err)
{
    char folder[PATH_MAX];
    int ret = registry_folder(name, folder, NULL);

    if (ret == -EINVAL)
        return home_check_name(name, err);
    if (ret == 0)
        return error_set(err, EEXIST, "there is a machine '%s' already (doppel start %s starts it)",
                         name, name);
    return take_run_folder(name, named, err);
}

bool named_is_open(const struct named *named)
{
    return named->folder.held;
}

int named_log(const struct named *named, char path[PATH_MAX], struct error *err)
{
    return registry_file(named->machine.held ? named->machine.folder : named->folder.path, RUN_LOG,
                         path, err);
}

void named_leave_log(struct named *named)
{
    if (!named->machine.held)
        run_folder_leave(&named->folder);
}

void named_close(struct named *named)
{
    free_options(named);
    run_folder_remove(&named->folder);
    registry_give_back(&named->machine);
    *named = (struct named){0};
}
