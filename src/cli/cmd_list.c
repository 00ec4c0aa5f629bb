/*
 * `doppel list`: the machines that have names, and what those that run say of themselves.
 */
#include "cli/agent_ask.h"
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/json_text.h"
#include "cli/live.h"
#include "cli/ssh_setup.h"

#include "ctl/definition.h"
#include "ctl/doppel.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"
#include "ctl/tree.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESSES_MS 1000 /* for the agents of all guests */

enum { OPT_JSON, OPT_NAMES, OPT_ADDRESSES, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_JSON] = {"json", NULL, "as one JSON array"},
    [OPT_NAMES] = {"names", NULL, "nothing but the names"},
    [OPT_ADDRESSES] = {"addresses", NULL, "ask the agents of guests for their addresses, too"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

/* What is told of one machine. */
struct entry {
    const char *name;
    bool kept; /* else it has no folder, and is there only as long as it runs */
    char folder[PATH_MAX], run[PATH_MAX];
    struct lock_holder holder;
    const json_t *live;                 /* NULL: it does not run, or does not answer */
    const struct agent_question *agent; /* NULL: it was not asked */
    struct definition definition;
    struct error damage; /* why its definition cannot be read; code 0: it can */
    uint64_t size;       /* bytes on the host's disk */
};

static const struct arguments arguments = {
    .name = "list",
    .usage = "Usage: doppel list [--addresses] [--json | --names]\n"
             "       doppel ls [--addresses] [--json | --names]\n"
             "Shows the machines that have names, and what those that run do.\n",
    .specs = specs};

static int look_at_folder(struct entry *entry, struct error *err)
{
    char file[PATH_MAX];
    int ret = registry_definition(entry->name, entry->folder, file, err);

    if (ret)
        return ret;
    definition_load(file, &entry->definition, &entry->damage);
    entry->size = tree_size(entry->folder);
    entry->kept = true;
    return 0;
}

/* -ENOENT: it is gone. */
static int look(const struct live *live, const struct agent_question *agent, struct entry *entry,
                struct error *err)
{
    const char *name = live->name;
    int ret;

    *entry = (struct entry){.name = name, .live = live->state, .agent = agent};
    ret = run_folder_find(name, "", entry->run, &entry->holder, err);
    if (ret)
        return ret;
    ret = look_at_folder(entry, err);
    return ret == -ENOENT && entry->holder.held ? 0 : ret;
}

static const char *said(const struct entry *entry, const char *what)
{
    return json_string_value(json_object_get(entry->live, what));
}

static const char *state(const struct entry *entry)
{
    const char *says = said(entry, "state");

    if (!entry->holder.held)
        return entry->damage.code ? "damaged" : "stopped";
    return says ? says : "silent"; /* of an older doppel, or it hangs */
}

/* What a run of the machine has if nothing else is said. */
static uint64_t memory_of(const struct entry *entry)
{
    const json_t *live = json_object_get(entry->live, "memory");
    struct doppel_config config;

    if (json_is_integer(live))
        return (uint64_t)json_integer_value(live);
    doppel_config_init(&config);
    return entry->definition.memory ? entry->definition.memory : config.memory;
}

static unsigned cpus_of(const struct entry *entry)
{
    const json_t *live = json_object_get(entry->live, "cpus");

    if (json_is_integer(live))
        return (unsigned)json_integer_value(live);
    return entry->definition.cpus ? entry->definition.cpus : 1;
}

/* Whether there is a definition, or an answer, that says how large the machine is. */
static bool knows_size(const struct entry *entry)
{
    return entry->kept ? !entry->damage.code : entry->live != NULL;
}

/* SECONDS as a person reads them. */
static void put_duration(char text[16], double seconds)
{
    unsigned long long s = seconds > 0 && seconds < 1e15 ? (unsigned long long)seconds : 0;

    if (s < 100)
        snprintf(text, 16, "%llu s", s);
    else if (s < 100 * 60)
        snprintf(text, 16, "%llu min", s / 60);
    else if (s < 100 * 3600)
        snprintf(text, 16, "%llu h", s / 3600);
    else
        snprintf(text, 16, "%llu d", s / 86400 % 1000000);
}

/* An address of a guest, as its agent has it: a line "INTERFACE ADDRESS/BITS". */
struct address {
    char interface[20], text[64];
};

/* Whether TEXT is one of IPv4 or IPv6 and the size of its network. */
static bool is_address(const char *text)
{
    const char *slash = strchr(text, '/');
    unsigned char bytes[16];
    char alone[64];
    unsigned bits;

    if (!slash || !parse_unsigned(slash + 1, 0, 128, &bits))
        return false;
    snprintf(alone, sizeof(alone), "%.*s", (int)(slash - text), text);
    return inet_pton(AF_INET, alone, bytes) == 1 || inet_pton(AF_INET6, alone, bytes) == 1;
}

/* Cuts the next one off *REST. False: there is none, or what comes is none. */
static bool next_address(const char **rest, struct address *address)
{
    int length = 0;

    if (sscanf(*rest, "%19s %63s%n", address->interface, address->text, &length) != 2 ||
        !is_address(address->text))
        return false;
    *rest += length;
    return true;
}

/* The addresses that lead to a guest from outside of its link, without the sizes of networks. */
static void print_addresses(const struct agent_question *agent)
{
    const char *rest = agent->answered ? agent->answer : "";
    struct address address;
    const char *between = "  ";

    while (next_address(&rest, &address)) {
        if (!strncmp(address.text, "fe80:", 5))
            continue;
        printf("%s%.*s", between, (int)strcspn(address.text, "/"), address.text);
        between = " ";
    }
    if (*between == ' ' && between[1])
        printf("  -");
}

static void print_header(bool addresses)
{
    printf("%-24s %-9s %-7s %10s %5s %6s %8s %10s%s\n", "NAME", "STATE", "ENGINE", "MEMORY", "CPUS",
           "LOAD", "UPTIME", "ON DISK", addresses ? "  ADDRESSES" : "");
}

static void print_row(const struct entry *entry)
{
    const json_t *up = json_object_get(entry->live, "uptime");
    char memory[32] = "-", cpus[16] = "-", size[32] = "-", load[16] = "-", uptime[16] = "-";

    if (knows_size(entry)) {
        image_size_text(memory, sizeof(memory), memory_of(entry));
        snprintf(cpus, sizeof(cpus), "%u", cpus_of(entry));
    }
    if (entry->kept)
        image_size_text(size, sizeof(size), entry->size);
    if (up) {
        put_duration(uptime, json_number_value(up));
        snprintf(load, sizeof(load), "%.2f",
                 json_number_value(json_object_get(entry->live, "load")));
    }
    printf("%-24s %-9s %-7s %10s %5s %6s %8s %10s", entry->name, state(entry),
           said(entry, "engine") ? said(entry, "engine") : "-", memory, cpus, load, uptime, size);
    if (entry->agent)
        print_addresses(entry->agent);
    putchar('\n');
    if (entry->damage.code)
        complain("%s", entry->damage.text);
}

static void print_live(struct json_text *json, const json_t *live)
{
    static const char *const numbers[] = {"started", "uptime", "load", "processor_time"};

    if (json_is_string(json_object_get(live, "engine")))
        json_text_string(json, "engine", json_string_value(json_object_get(live, "engine")));
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (json_is_number(json_object_get(live, numbers[i])))
            json_text_real(json, numbers[i], json_number_value(json_object_get(live, numbers[i])));
}

static void print_json_addresses(struct json_text *json, const struct agent_question *agent)
{
    const char *rest = agent->answer;
    struct address address;

    if (!agent->answered)
        return;
    json_text_open(json, "addresses", '[');
    while (next_address(&rest, &address)) {
        json_text_open(json, NULL, '{');
        json_text_string(json, "interface", address.interface);
        json_text_string(json, "address", address.text);
        json_text_close(json, '}');
    }
    json_text_close(json, ']');
}

static void print_json(struct json_text *json, const struct entry *entry)
{
    char path[PATH_MAX];

    json_text_open(json, NULL, '{');
    json_text_string(json, "name", entry->name);
    json_text_string(json, "state", state(entry));
    json_text_bool(json, "kept", entry->kept);
    if (entry->kept)
        json_text_bool(json, "autostart", registry_autostarts(entry->folder));
    if (entry->holder.pid)
        json_text_number(json, "pid", (uint64_t)entry->holder.pid);
    if (entry->kept)
        image_json_text(json, "folder", entry->folder);
    image_json_text(json, "run_folder", entry->run);
    if (entry->kept && registry_file(entry->folder, SSH_CONFIG, path, NULL) == 0)
        image_json_text(json, "ssh_config", path);
    if (entry->kept)
        json_text_number(json, "size", entry->size);
    print_live(json, entry->live);
    if (entry->agent)
        print_json_addresses(json, entry->agent);
    if (entry->damage.code) {
        image_json_text(json, "error", entry->damage.text);
    } else if (knows_size(entry)) {
        json_text_number(json, "memory", memory_of(entry));
        json_text_number(json, "cpus", cpus_of(entry));
        if (entry->definition.base)
            json_text_string(json, "base", entry->definition.base);
    }
    json_text_close(json, '}');
}

static int print_all(const struct live *machines, const struct agent_question *agents,
                     unsigned count, bool as_json, struct error *err)
{
    struct json_text json = {.to = stdout};
    struct entry entry;
    int ret = 0;

    if (as_json)
        json_text_open(&json, NULL, '[');
    else if (count > 0)
        print_header(agents);
    for (unsigned i = 0; i < count && !ret; i++) {
        ret = look(&machines[i], agents ? &agents[i] : NULL, &entry, err);
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
        json_text_close(&json, ']');
        putchar('\n');
    }
    return ret;
}

static int list(const struct registry_names *names, bool as_json, bool addresses, struct error *err)
{
    size_t room = names->count ? names->count : 1;
    struct live *machines = calloc(room, sizeof(*machines));
    struct agent_question *agents = addresses ? calloc(room, sizeof(*agents)) : NULL;
    int ret;

    if (!machines || (addresses && !agents)) {
        free(machines);
        free(agents);
        return error_set(err, ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < names->count; i++)
        machines[i].name = names->name[i];
    live_ask(machines, names->count);
    for (unsigned i = 0; agents && i < names->count; i++)
        agents[i].name = names->name[i];
    if (agents)
        agent_ask(agents, names->count, "addresses", ADDRESSES_MS);
    ret = print_all(machines, agents, names->count, as_json, err);
    free(agents);
    for (unsigned i = 0; i < names->count; i++)
        json_decref(machines[i].state);
    free(machines);
    return ret;
}

/* The names of all machines, those that are not kept among them. */
static int all_names(struct registry_names *names, struct error *err)
{
    int ret = registry_names(names, err);

    if (ret)
        return ret;
    ret = run_folder_names(names, err);
    if (ret)
        registry_names_free(names);
    return ret;
}

int cmd_list(char **argv)
{
    struct argument_words words = {.names = "nothing but options"};
    bool as_json = false, only_names = false, addresses = false;
    const struct argument_setting settings[] = {[OPT_JSON] = {.flag = &as_json},
                                                [OPT_NAMES] = {.flag = &only_names},
                                                [OPT_ADDRESSES] = {.flag = &addresses},
                                                [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words), ret;
    struct registry_names names;
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (as_json && only_names) {
        complain("--json or --names, not both");
        return STATUS_ERROR;
    }
    ret = all_names(&names, &err);
    for (unsigned i = 0; !ret && only_names && i < names.count; i++)
        puts(names.name[i]);
    if (!ret && !only_names)
        ret = list(&names, as_json, addresses, &err);
    registry_names_free(&names);
    if (ret)
        complain("%s", err.text);
    return finish_output(ret ? STATUS_ERROR : 0);
}
