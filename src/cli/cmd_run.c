/*
 * `doppel run`: its options. They are parsed before there are two processes; all else is done in
 * the VM process (cli/vm_process.h), with a supervisor behind it (cli/supervisor.h).
 */
#include "cli/cli.h"
#include "cli/disk_process.h"
#include "cli/kept_process.h"
#include "cli/named.h"
#include "cli/net_process.h"
#include "cli/share_option.h"
#include "cli/share_process.h"
#include "cli/supervisor.h"
#include "cli/vm_process.h"

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

static int help(void)
{
    puts("Usage: doppel run [OPTION...] [NAME] [-- COMMAND [ARGUMENT...]]\n"
         "Boots a virtual machine: the one called NAME (doppel list shows those there are), whose\n"
         "definition the options change for this run, or else one that is not kept. Without "
         "COMMAND it\n"
         "gives a shell on this terminal (Ctrl-A H lists the keys); with COMMAND it runs that in "
         "the\n"
         "guest, with this process's standard streams.\n");
    options_help(specs);
    puts(
        "\nExit status: COMMAND's; 0 when a guest without COMMAND powers off; 125 when doppel or "
        "the\n"
        "guest fails, 126 when COMMAND cannot be executed, 127 when it is not found; 128 plus the\n"
        "signal that ended COMMAND or doppel, or killed its VM process.");
    return finish_output(0);
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

    run->config.name = named->machine.name;
    for (unsigned i = 0; i < run->device_count; i++)
        if (!strncmp(run->devices[i], "net,", strlen("net,")) &&
            !set_made(
                run, i,
                definition_net(&named->definition, named->machine.name, run->devices[i], card++)))
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

/* What the command line says beside its options, and which of these it has. */
struct command_line {
    const char *name; /* NULL: no machine is named */
    bool given[OPTIONS];
    char **command; /* up to a NULL; NULL: none */
};

static struct options options_of(char **argv)
{
    return (struct options){.command = "run",
                            .specs = specs,
                            .letters = letters,
                            .argv = argv,
                            .words = true,
                            .takes_command = true};
}

/* Reads the command line ARGV without doing what the options say. */
static bool scan(char **argv, struct command_line *line)
{
    struct options options = options_of(argv);
    const char *value = NULL;
    int option;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return false;
        if (option != OPTIONS_WORD) {
            line->given[option] = true;
        } else if (line->name) {
            complain_of_word(specs, value);
            return false;
        } else {
            line->name = value;
        }
    }
    if (*options.argv) {
        line->command = options.argv;
    } else if (options.argv[-1] && !strcmp(options.argv[-1], "--")) {
        complain("no command after --");
        return false;
    }
    return true;
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

/* True when there is something to run; else STATUS is what to exit with. */
static bool parse(struct run_options *run, struct named *named, char **argv, int *status)
{
    struct command_line line = {0};
    struct error err = {0};

    *status = STATUS_ERROR;
    if (!scan(argv + 1, &line))
        return false;
    if (line.given[OPT_HELP]) {
        *status = help();
        return false;
    }
    run->command = line.command;
    if (line.name && named_open(line.name, named, &err) < 0) {
        complain("%s", err.text);
        return false;
    }
    if (named->options && !set_options(run, named->options, line.given))
        return false;
    return set_options(run, argv + 1, NULL) && check_options(run) && publish(run) &&
           (!line.name || name_cards(run, named));
}

/* The socket of a disk's process, or of a folder's. */
static int isolated_link(void *kept, const char *file)
{
    int link = disk_processes_link(kept, file);

    return link == -ENOENT ? share_processes_link(kept, file) : link;
}

/* Runs what was parsed, with a supervisor behind it. */
static int supervise_run(struct run_options *run)
{
    struct supervisor_config config = {.log_path = run->log_path, .usr1 = run->stats};
    struct error err = {0};
    int status = STATUS_ERROR;

    if (run->turns.count)
        run->config.engine = engine_turns_maker(&run->turns);
    config.kept = kept_processes_create(&err);
    if (!config.kept || disk_processes_add(config.kept, run->devices, &err) < 0 ||
        net_processes_add(config.kept, run->devices, &err) < 0 ||
        share_processes_add(config.kept, run->devices, &err) < 0) {
        complain("%s", err.text);
    } else {
        run->config.isolate = isolated_link;
        run->config.remote = net_processes_link;
        run->config.isolate_opaque = run->config.remote_opaque = config.kept;
        status = supervise(&config, vm_process, run);
    }
    kept_processes_free(config.kept);
    return status;
}

int cmd_run(char **argv)
{
    struct run_options run = {.trace_lines = 100000};
    struct named named = {0};
    int status;

    doppel_config_init(&run.config);
    run.config.devices = run.devices;
    if (parse(&run, &named, argv, &status))
        status = supervise_run(&run);
    named_close(&named);
    for (unsigned i = 0; i < run.device_count; i++)
        free(run.made[i]);
    while (run.mount_count > 0)
        free(run.mounts[--run.mount_count]);
    return status;
}
