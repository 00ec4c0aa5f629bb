/*
 * `doppel list`: the named machines.
 */
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/json.h"
#include "cli/ssh_setup.h"

#include "ctl/definition.h"
#include "ctl/doppel.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"
#include "ctl/tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { OPT_JSON, OPT_NAMES, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_JSON] = {"json", NULL, "as one JSON array"},
    [OPT_NAMES] = {"names", NULL, "nothing but the names"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

/* What is told of one machine. */
struct entry {
    const char *name;
    char folder[PATH_MAX], run[PATH_MAX];
    struct lock_holder holder;
    struct definition definition;
    struct error damage; /* why its definition cannot be read; code 0: it can */
    uint64_t size;       /* bytes on the host's disk */
};

static const struct arguments arguments = {
    .name = "list",
    .usage = "Usage: doppel list [--json | --names]\n"
             "Shows the machines that have names, and which of them run.\n",
    .specs = specs};

static int look(const char *name, struct entry *entry, struct error *err)
{
    char file[PATH_MAX];
    int ret;

    *entry = (struct entry){.name = name};
    ret = registry_folder(name, entry->folder, err);
    if (!ret)
        ret = registry_file(entry->folder, DEFINITION_FILE, file, err);
    if (!ret)
        ret = run_folder_find(name, "", entry->run, &entry->holder, err);
    if (ret)
        return ret;
    definition_load(file, &entry->definition, &entry->damage);
    entry->size = tree_size(entry->folder);
    return 0;
}

static const char *state(const struct entry *entry)
{
    return entry->holder.held ? "running" : entry->damage.code ? "damaged" : "stopped";
}

/* What a run of the machine has if nothing else is said. */
static uint64_t memory_of(const struct entry *entry)
{
    struct doppel_config config;

    doppel_config_init(&config);
    return entry->definition.memory ? entry->definition.memory : config.memory;
}

static unsigned cpus_of(const struct entry *entry)
{
    return entry->definition.cpus ? entry->definition.cpus : 1;
}

static void print_row(const struct entry *entry)
{
    char memory[32] = "-", cpus[16] = "-", size[32], pid[16] = "-";

    if (!entry->damage.code) {
        image_size_text(memory, sizeof(memory), memory_of(entry));
        snprintf(cpus, sizeof(cpus), "%u", cpus_of(entry));
    }
    image_size_text(size, sizeof(size), entry->size);
    if (entry->holder.pid)
        snprintf(pid, sizeof(pid), "%ld", (long)entry->holder.pid);
    printf("%-24s %-8s %8s %10s %5s %10s\n", entry->name, state(entry), pid, memory, cpus, size);
    if (entry->damage.code)
        complain("%s", entry->damage.text);
}

static void print_json(struct json *json, const struct entry *entry)
{
    char path[PATH_MAX];

    json_open(json, NULL, '{');
    json_string(json, "name", entry->name);
    json_string(json, "state", state(entry));
    if (entry->holder.pid)
        json_number(json, "pid", (uint64_t)entry->holder.pid);
    image_json_text(json, "folder", entry->folder);
    image_json_text(json, "run_folder", entry->run);
    if (registry_file(entry->folder, SSH_CONFIG, path, NULL) == 0)
        image_json_text(json, "ssh_config", path);
    json_number(json, "size", entry->size);
    if (entry->damage.code) {
        image_json_text(json, "error", entry->damage.text);
    } else {
        json_number(json, "memory", memory_of(entry));
        json_number(json, "cpus", cpus_of(entry));
        if (entry->definition.base)
            json_string(json, "base", entry->definition.base);
    }
    json_close(json, '}');
}

static int list(const struct registry_names *names, bool as_json, struct error *err)
{
    struct json json = {.to = stdout};
    struct entry entry;
    int ret = 0;

    if (as_json)
        json_open(&json, NULL, '[');
    else if (names->count > 0)
        printf("%-24s %-8s %8s %10s %5s %10s\n", "NAME", "STATE", "PROCESS", "MEMORY", "CPUS",
               "ON DISK");
    for (unsigned i = 0; i < names->count && !ret; i++) {
        ret = look(names->name[i], &entry, err);
        if (ret == -ENOENT) { /* it has been removed meanwhile */
            ret = 0;
            continue;
        }
        if (!ret && as_json)
            print_json(&json, &entry);
        else if (!ret)
            print_row(&entry);
        definition_free(&entry.definition);
    }
    if (as_json) {
        json_close(&json, ']');
        putchar('\n');
    }
    return ret;
}

int cmd_list(char **argv)
{
    struct argument_words words = {.names = "nothing but options"};
    bool as_json = false, only_names = false;
    const struct argument_setting settings[] = {
        [OPT_JSON] = {.flag = &as_json}, [OPT_NAMES] = {.flag = &only_names}, [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct registry_names names;
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (as_json && only_names) {
        complain("--json or --names, not both");
        return STATUS_ERROR;
    }
    ret = registry_names(&names, &err);
    for (unsigned i = 0; !ret && only_names && i < names.count; i++)
        puts(names.name[i]);
    if (!ret && !only_names)
        ret = list(&names, as_json, &err);
    registry_names_free(&names);
    if (ret)
        complain("%s", err.text);
    return finish_output(ret ? STATUS_ERROR : 0);
}
