/*
 * The options of `doppel run` and `doppel start`.
 */
#include "cli/run_options.h"

#include "cli/cli.h"
#include "cli/share_option.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_ENGINE,
    OPT_SWITCH_ENGINE,
    OPT_CPUS,
    OPT_MEMORY,
    OPT_KERNEL,
    OPT_INITRD,
    OPT_APPEND,
    OPT_ENV,
    OPT_STATS,
    OPT_JSON,
    OPT_TRACE,
    OPT_TRACE_LINES,
    OPT_VERBOSE,
    OPT_LOG,
    OPT_NAME,
    OPT_RESTART,
    OPT_REMOVE,
    OPT_ALL,
    OPT_NO_REBOOT,
    OPT_DISK,
    OPT_VSOCK,
    OPT_NET,
    OPT_PUBLISH,
    OPT_SHARE,
    OPT_DEVICE,
    OPT_TEST_DEVICE,
    OPT_DEBUG_EXIT,
    OPT_DEBUG_CONSOLE,
    OPT_HELP,
    OPTIONS,
};

static const struct option_spec specs[] = {
    [OPT_ENGINE] = {"engine", "NAME", "auto, kvm, bt or interp; what executes the guest (auto)"},
    [OPT_SWITCH_ENGINE] = {"switch-engine", "LIST@TIME",
                           "have engines take turns, as in bt,interp@5s"},
    [OPT_CPUS] = {"cpus", "N", "number of virtual CPUs (1)"},
    [OPT_MEMORY] = {"memory", "SIZE", "guest memory, as 512M or 2G (512M)"},
    [OPT_KERNEL] = {"kernel", "FILE", "bzImage, PVH ELF or Multiboot kernel (Debian's, cached)"},
    [OPT_INITRD] = {"initrd", "FILE", "initramfs or module (the default guest's); '': none"},
    [OPT_APPEND] = {"append", "STRING", "add to the kernel's command line"},
    [OPT_ENV] = {"env", "NAME=VALUE", "set a variable for the command or shell"},
    [OPT_STATS] = {"stats", NULL, "at the end, and on SIGUSR1, show what was executed"},
    [OPT_JSON] = {"json", NULL, "with --stats: as one JSON object"},
    [OPT_TRACE] = {"trace", "exits[=FILE]",
                   "show what process, kernel and monitor do, step by step"},
    [OPT_TRACE_LINES] = {"trace-lines", "N", "end the trace after N lines (100000); 0: never"},
    [OPT_VERBOSE] = {"verbose", NULL, "show the kernel's messages"},
    [OPT_LOG] = {"log", "FILE", "add what doppel does, and how it ends, to FILE"},
    [OPT_NAME] = {"name", "NAME", "what the machine is called as long as it runs"},
    [OPT_RESTART] = {"restart", "WHEN",
                     "in the background, start it anew: on-failure, always or no (no)"},
    [OPT_REMOVE] = {"rm", NULL, "remove the machine when it has ended"},
    [OPT_ALL] = {"all", NULL, "with doppel start: all machines of doppel enable"},
    [OPT_NO_REBOOT] = {"no-reboot", NULL, "a guest that resets itself ends the VM"},
    [OPT_DISK] = {"disk", "FILE[,...]", "add a disk (the manual page lists its settings)"},
    [OPT_VSOCK] = {"vsock", "socket=PATH[,...]",
                   "connect guest programs to Unix sockets of the host"},
    [OPT_NET] = {"net", "KIND[,...]", "add a network card: user, none, tap=, switch=, stream="},
    [OPT_PUBLISH] = {"publish", "PORT:GUESTPORT",
                     "-p: what comes to PORT of this host goes to the guest"},
    [OPT_SHARE] = {"share", "FOLDER:PATH[:ro]",
                   "-v: show the guest a folder (settings may follow)"},
    [OPT_DEVICE] = {"device", "NAME[,...]", "add a device (the manual page lists them)"},
    [OPT_TEST_DEVICE] = {"test-device", NULL, "what test kernels for QEMU's pc-testdev expect"},
    [OPT_DEBUG_EXIT] = {"debug-exit", NULL, "port 0xf4: writing V ends the VM, status 2 V + 1"},
    [OPT_DEBUG_CONSOLE] = {"debug-console", "FILE", "port 0xe9: bytes go to FILE"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, "a command for the guest goes after --"},
};

/* Short forms of options. */
static const char letters[OPT_HELP + 1] = {[OPT_PUBLISH] = 'p', [OPT_SHARE] = 'v'};

void run_options_help(void)
{
    options_help(specs);
}

static bool set_memory(struct run_options *run, const char *value)
{
    uint64_t bytes;

    if (!parse_size(value, &bytes)) {
        complain("--memory: '%s' is not a size (a number and a unit, as in 512M)", value);
        return false;
    }
    if (bytes < 1 << 20 || bytes > DOPPEL_MAX_MEMORY) {
        complain("--memory: %s is out of range (1M to %lluG)", value, DOPPEL_MAX_MEMORY >> 30);
        return false;
    }
    if (bytes % 4096) {
        complain("--memory: %s is not a multiple of 4K", value);
        return false;
    }
    run->config.memory = bytes;
    return true;
}

static bool set_env(struct run_options *run, const char *value)
{
    if (!strchr(value, '=') || *value == '=') {
        complain("--env: '%s' is not NAME=VALUE", value);
        return false;
    }
    if (run->env_count == RUN_MAX_ENV) {
        complain("--env: more than %d variables", RUN_MAX_ENV);
        return false;
    }
    run->env[run->env_count++] = value;
    return true;
}

static bool add_device(struct run_options *run, const char *description)
{
    if (run->device_count == RUN_MAX_DEVICES) {
        complain("--device: more than %d devices", RUN_MAX_DEVICES);
        return false;
    }
    run->devices[run->device_count++] = description;
    return true;
}

/* Puts TEXT, which is RUN's from now on, in the place of the description AT; NULL: no memory. */
static bool set_made(struct run_options *run, unsigned at, char *text)
{
    if (!text) {
        complain("out of memory");
        return false;
    }
    free(run->made[at]);
    run->devices[at] = run->made[at] = text;
    return true;
}

/* Adds the device whose description is BEGINNING and what an option says. */
static bool add_described(struct run_options *run, const char *beginning, const char *value)
{
    char *description;

    if (!add_device(run, beginning))
        return false;
    if (asprintf(&description, "%s%s", beginning, value) < 0)
        description = NULL;
    return set_made(run, run->device_count - 1, description);
}

static bool add_forward(struct run_options *run, const char *value)
{
    if (run->forward_count == RUN_MAX_FORWARDS) {
        complain("--publish: more than %d ports", RUN_MAX_FORWARDS);
        return false;
    }
    if (strchr(value, ',')) {
        complain("--publish: '%s' is not [tcp:|udp:][ADDRESS:]PORT:GUESTPORT", value);
        return false;
    }
    run->forwards[run->forward_count++] = value;
    return true;
}

static bool is_user_network(const char *description)
{
    static const char user[] = "net,to=user";

    return !strncmp(description, user, strlen(user)) &&
           (!description[strlen(user)] || description[strlen(user)] == ',');
}

/* Adds the forwarded ports to the first user network, or to one more if there is none. */
static bool publish(struct run_options *run)
{
    char *text = NULL;
    size_t size = 0;
    unsigned at = 0;
    FILE *file;

    if (!run->forward_count)
        return true;
    while (at < run->device_count && !is_user_network(run->devices[at]))
        at++;
    if (at == run->device_count && !add_device(run, "net,to=user"))
        return false;
    file = open_memstream(&text, &size);
    if (file) {
        fputs(run->devices[at], file);
        for (unsigned i = 0; i < run->forward_count; i++)
            fprintf(file, ",forward=%s", run->forwards[i]);
    }
    if (!file || fclose(file) != 0) {
        free(text);
        text = NULL;
    }
    return set_made(run, at, text);
}

/* Gives the network cards of a machine with a name the addresses that they have in each run. */
static bool name_cards(struct run_options *run, const struct named *named)
{
    unsigned card = 0;

    run->config.name = named->name;
    for (unsigned i = 0; i < run->device_count; i++)
        if (!strncmp(run->devices[i], "net,", strlen("net,")) &&
            !set_made(run, i,
                      definition_net(&named->definition, named->name, run->devices[i], card++)))
            return false;
    return true;
}

static bool add_share(struct run_options *run, const char *value)
{
    struct error err = {0};
    char *description, *mount;

    if (share_option_parse(value, run->share_count, &description, &mount, &err) < 0) {
        complain("--share: %s", err.text);
        return false;
    }
    if (!add_device(run, description)) {
        free(description);
        free(mount);
        return false;
    }
    run->share_count++;
    run->made[run->device_count - 1] = description;
    if (mount)
        run->mounts[run->mount_count++] = mount;
    return true;
}

/* For an option that stands for a device: it may be given again. */
static bool add_device_once(struct run_options *run, const char *description)
{
    for (unsigned i = 0; i < run->device_count; i++)
        if (!strcmp(run->devices[i], description))
            return true;
    return add_device(run, description);
}

static bool set_trace(struct run_options *run, const char *value)
{
    size_t length = strcspn(value, "=");

    if (length != strlen("exits") || strncmp(value, "exits", length) != 0) {
        complain("--trace: unknown trace '%s' (known: exits, exits=FILE)", value);
        return false;
    }
    run->traced = true;
    run->trace_path = value[length] ? value + length + 1 : NULL;
    return true;
}

static bool set_trace_lines(struct run_options *run, const char *value)
{
    if (parse_unsigned(value, 0, UINT_MAX, &run->trace_lines))
        return true;
    complain("--trace-lines: '%s' is not a number", value);
    return false;
}

static bool set_option(struct run_options *run, int option, const char *value)
{
    switch (option) {
    case OPT_ENGINE: return engine_named("--engine", value, &run->config.engine);
    case OPT_SWITCH_ENGINE: return engine_turns_parse(value, &run->turns);
    case OPT_CPUS:
        if (parse_unsigned(value, 1, DOPPEL_MAX_CPUS, &run->config.cpus))
            return true;
        complain("--cpus: '%s' is not a number from 1 to %d", value, DOPPEL_MAX_CPUS);
        return false;
    case OPT_MEMORY: return set_memory(run, value);
    case OPT_KERNEL: run->config.kernel = value; break;
    case OPT_INITRD: run->initrd_option = value; break;
    case OPT_APPEND: run->append = value; break;
    case OPT_ENV: return set_env(run, value);
    case OPT_STATS: run->stats = run->config.measure = true; break;
    case OPT_JSON: run->json = true; break;
    case OPT_TRACE: return set_trace(run, value);
    case OPT_TRACE_LINES: return set_trace_lines(run, value);
    case OPT_VERBOSE: run->verbose = true; break;
    case OPT_LOG: run->log_path = value; break;
    case OPT_RESTART: run->restart = value; break;
    case OPT_REMOVE: run->remove = true; break;
    case OPT_NO_REBOOT: run->config.no_reboot = true; break;
    case OPT_DISK: return add_described(run, "disk,file=", value);
    case OPT_SHARE: return add_share(run, value);
    case OPT_VSOCK: return add_described(run, "vsock,", value);
    case OPT_NET: return add_described(run, "net,to=", value);
    case OPT_PUBLISH: return add_forward(run, value);
    case OPT_DEVICE: return add_device(run, value);
    case OPT_TEST_DEVICE: return add_device_once(run, "test-device");
    case OPT_DEBUG_EXIT: return add_device_once(run, "debug-exit");
    case OPT_DEBUG_CONSOLE: run->debug_path = value; return add_device_once(run, "debug-console");
    default: break;
    }
    return true;
}

/* Whether OPTION takes the place of what a definition says, even if it can be given several times.
 */
static bool replaces(int option)
{
    switch (option) {
    case OPT_DISK:
    case OPT_SHARE:
    case OPT_DEVICE: return false;
    default: return true;
    }
}

/* Whether the options go together. */
static bool check_options(const struct run_options *run)
{
    if (run->json && !run->stats) {
        complain("--json: only says how --stats is printed; give --stats, too");
        return false;
    }
    for (unsigned i = 0; i < run->device_count && !run->debug_path; i++) {
        if (!strcmp(run->devices[i], "debug-console")) {
            complain("--device debug-console: needs a file; use --debug-console FILE instead");
            return false;
        }
    }
    return true;
}

static struct options options_of(char **argv)
{
    return (struct options){.command = argv[0],
                            .specs = specs,
                            .letters = letters,
                            .argv = argv + 1,
                            .words = true,
                            .takes_command = true};
}

/* Reads the command line ARGV without doing what the options say. GIVEN is set for those that it
 * has. */
static bool scan(char **argv, struct run_line *line, bool *given)
{
    struct options options = options_of(argv);
    const char *value = NULL;
    int option;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return false;
        if (option == OPTIONS_WORD) {
            if (line->words++ == 0)
                line->machine = value;
            else if (line->words == 2)
                line->second = value;
            continue;
        }
        given[option] = true;
        line->options++;
        line->help |= option == OPT_HELP;
        line->all |= option == OPT_ALL;
        if (option == OPT_NAME)
            line->name = value;
    }
    if (*options.argv) {
        line->command = options.argv;
    } else if (options.argv[-1] && !strcmp(options.argv[-1], "--")) {
        complain("no command after --");
        return false;
    }
    return true;
}

bool run_options_scan(char **argv, struct run_line *line)
{
    bool given[OPTIONS] = {false};

    *line = (struct run_line){0};
    return scan(argv, line, given);
}

/* Does what the options ARGV say, but for those that are GIVEN (or NULL) and replace what a
 * definition says, instead of adding to it. */
static bool set_options(struct run_options *run, char **argv, const bool *given)
{
    struct options options = options_of(argv);
    const char *value = NULL;
    int option;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return false;
        if (option == OPTIONS_WORD || (given && given[option] && replaces(option)))
            continue;
        if (!set_option(run, option, value))
            return false;
    }
    return true;
}

/* Takes the machine that the command line names, if it names one and it was not taken before. */
static bool take_machine(const struct run_line *line, struct named *named)
{
    struct error err = {0};
    int ret = 0;

    if (named_is_open(named)) {
        ret = named_reload(named, &err);
        if (ret < 0)
            complain("%s", err.text);
        return ret == 0;
    }
    if (line->all) {
        complain("--all: goes with doppel start, and with nothing else");
        return false;
    }
    if (line->words > 1) {
        complain_of_word(specs, line->second);
        return false;
    }
    if (line->machine && line->name) {
        complain("--name: the machine is '%s' already", line->machine);
        return false;
    }
    if (line->machine)
        ret = named_open(line->machine, named, &err);
    else if (line->name)
        ret = named_open_unkept(line->name, named, &err);
    if (ret < 0)
        complain("%s", err.text);
    return ret == 0;
}

bool run_options_parse(struct run_options *run, struct named *named, char **argv)
{
    bool given[OPTIONS] = {false};
    struct run_line line = {0};

    *run = (struct run_options){.trace_lines = 100000};
    doppel_config_init(&run->config);
    run->config.devices = run->devices;
    if (!scan(argv, &line, given) || !take_machine(&line, named))
        return false;
    run->command = line.command;
    if (named->options && !set_options(run, named->options, given))
        return false;
    return set_options(run, argv, NULL) && check_options(run) && publish(run) &&
           (!named_is_open(named) || name_cards(run, named));
}

void run_options_free(struct run_options *run)
{
    for (unsigned i = 0; i < run->device_count; i++)
        free(run->made[i]);
    while (run->mount_count > 0)
        free(run->mounts[--run->mount_count]);
}
