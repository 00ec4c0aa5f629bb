/*
 * `doppel run`: boots a guest and lends it the terminal, or runs one command in the default guest.
 * Options are parsed before there are two processes; all else is done in the VM process, with a
 * supervisor behind it (cli/supervisor.h).
 */
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/guest.h"
#include "cli/stats.h"
#include "cli/supervisor.h"
#include "cli/trace.h"

#include "base/log.h"
#include "con/session.h"
#include "ctl/doppel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPT_ENGINE,
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
    OPT_DEVICE,
    OPT_TEST_DEVICE,
    OPT_DEBUG_EXIT,
    OPT_DEBUG_CONSOLE,
    OPT_HELP,
};

static const struct option_spec specs[] = {
    [OPT_ENGINE] = {"engine", "NAME", "auto, bt or interp; what executes the guest (auto)"},
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
    [OPT_DEVICE] = {"device", "NAME[,...]", "add a device (the manual page lists them)"},
    [OPT_TEST_DEVICE] = {"test-device", NULL, "what test kernels for QEMU's pc-testdev expect"},
    [OPT_DEBUG_EXIT] = {"debug-exit", NULL, "port 0xf4: writing V ends the VM, status 2 V + 1"},
    [OPT_DEBUG_CONSOLE] = {"debug-console", "FILE", "port 0xe9: bytes go to FILE"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

#define MAX_ENV     256
#define MAX_DEVICES 64

struct run {
    struct doppel_config config;
    const char *append, *debug_path;
    const char *initrd_option; /* as given; NULL: not given */
    const char *env[MAX_ENV + 1];
    unsigned env_count;
    const char *devices[MAX_DEVICES + 1]; /* descriptions, for the library */
    unsigned device_count;
    char **command; /* up to a NULL; NULL: none, that is, a shell */
    struct supervisor_config supervisor;
    bool stats, json, verbose;
    bool traced;
    const char *trace_path; /* NULL: standard error */
    unsigned trace_lines;

    /* In the VM process. */
    const struct channel *channel;
    struct log log;
    struct guest_files files;
    struct guest_kernel kernel;
    bool session; /* the guest has our init */
    char *command_line;
    void *archive;
    int debug_fd;
    struct trace *trace;
    struct console *console;
    struct progress progress;
};

/* --- Options ------------------------------------------------------------------------------- */

static int help(void)
{
    puts("Usage: doppel run [OPTION...] [-- COMMAND [ARGUMENT...]]\n"
         "Boots a virtual machine. Without COMMAND it gives a shell on this terminal (Ctrl-A H "
         "lists\n"
         "the keys); with COMMAND it runs that in the guest, with this process's standard "
         "streams.\n");
    options_help(specs);
    puts(
        "\nExit status: COMMAND's; 0 when a guest without COMMAND powers off; 125 when doppel or "
        "the\n"
        "guest fails, 126 when COMMAND cannot be executed, 127 when it is not found; 128 plus the\n"
        "signal that ended COMMAND or doppel, or killed its VM process.");
    return finish_output(0);
}

static bool set_memory(struct run *run, const char *value)
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

static bool set_env(struct run *run, const char *value)
{
    if (!strchr(value, '=') || *value == '=') {
        complain("--env: '%s' is not NAME=VALUE", value);
        return false;
    }
    if (run->env_count == MAX_ENV) {
        complain("--env: more than %d variables", MAX_ENV);
        return false;
    }
    run->env[run->env_count++] = value;
    return true;
}

static bool add_device(struct run *run, const char *description)
{
    if (run->device_count == MAX_DEVICES) {
        complain("--device: more than %d devices", MAX_DEVICES);
        return false;
    }
    run->devices[run->device_count++] = description;
    return true;
}

/* For an option that stands for a device: it may be given again. */
static bool add_device_once(struct run *run, const char *description)
{
    for (unsigned i = 0; i < run->device_count; i++)
        if (!strcmp(run->devices[i], description))
            return true;
    return add_device(run, description);
}

static bool set_engine(struct run *run, const char *value)
{
    if (!strcmp(value, "auto")) {
        run->config.engine = DOPPEL_ENGINE_AUTO;
    } else if (!strcmp(value, "interp")) {
        run->config.engine = DOPPEL_ENGINE_INTERP;
    } else if (!strcmp(value, "bt")) {
        run->config.engine = DOPPEL_ENGINE_BT;
    } else {
        complain("--engine: unknown engine '%s' (known: auto, bt, interp)", value);
        return false;
    }
    return true;
}

static bool set_trace(struct run *run, const char *value)
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

static bool set_trace_lines(struct run *run, const char *value)
{
    if (parse_unsigned(value, 0, UINT_MAX, &run->trace_lines))
        return true;
    complain("--trace-lines: '%s' is not a number", value);
    return false;
}

static bool set_option(struct run *run, int option, const char *value)
{
    switch (option) {
    case OPT_ENGINE: return set_engine(run, value);
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
    case OPT_STATS: run->stats = run->config.measure = run->supervisor.usr1 = true; break;
    case OPT_JSON: run->json = true; break;
    case OPT_TRACE: return set_trace(run, value);
    case OPT_TRACE_LINES: return set_trace_lines(run, value);
    case OPT_VERBOSE: run->verbose = true; break;
    case OPT_LOG: run->supervisor.log_path = value; break;
    case OPT_NO_REBOOT: run->config.no_reboot = true; break;
    case OPT_DEVICE: return add_device(run, value);
    case OPT_TEST_DEVICE: return add_device_once(run, "test-device");
    case OPT_DEBUG_EXIT: return add_device_once(run, "debug-exit");
    case OPT_DEBUG_CONSOLE: run->debug_path = value; return add_device_once(run, "debug-console");
    default: break;
    }
    return true;
}

/* True when there is something to run; else STATUS is what to exit with. */
static bool parse(struct run *run, char **argv, int *status)
{
    struct options options = {"run", specs, argv + 1};
    const char *value = NULL;
    int option;

    *status = STATUS_ERROR;
    while ((option = options_next(&options, &value)) >= 0) {
        if (option == OPT_HELP) {
            *status = help();
            return false;
        }
        if (!set_option(run, option, value))
            return false;
    }
    if (option == OPTIONS_FAIL)
        return false;
    if (*options.argv)
        run->command = options.argv;
    else if (options.argv[-1] && !strcmp(options.argv[-1], "--")) {
        complain("no command after --");
        return false;
    }
    return true;
}

/* --- What to boot -------------------------------------------------------------------------- */

/* Complains, and puts it into the log. */
__attribute__((format(printf, 2, 3))) static void fail(const struct run *run, const char *format,
                                                       ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    complain("%s", text);
    log_line(&run->log, LOG_LEVEL_ERROR, "%s", text);
}

/* Fills in the default guest where no files were given, and decides whether the guest has our init
 * and so takes a session. */
static bool choose_guest(struct run *run)
{
    bool own_kernel = run->config.kernel != NULL;
    const char *initrd;

    guest_find(&run->files);
    if (!own_kernel)
        run->config.kernel = run->files.kernel;
    if (!own_kernel && access(run->files.kernel, R_OK) != 0) {
        fail(run, "the default guest is not there yet (%s); make it with: %s", run->files.kernel,
             run->files.remedy);
        return false;
    }
    guest_inspect(run->config.kernel, &run->kernel);
    initrd =
        run->kernel.linux_image && !run->kernel.bits64 ? run->files.initrd32 : run->files.initrd;
    if (run->initrd_option) {
        run->config.initrd = *run->initrd_option ? run->initrd_option : NULL;
        run->session = run->command != NULL;
    } else if (run->kernel.linux_image &&
               (access(initrd, R_OK) == 0 || !own_kernel || run->command)) {
        if (access(initrd, R_OK) != 0) {
            fail(run, "the default guest's initramfs is not there yet (%s); make it with: %s%s",
                 initrd, run->files.remedy, initrd == run->files.initrd32 ? " initrd-i386" : "");
            return false;
        }
        run->config.initrd = initrd;
        run->session = true;
    }
    if (run->command && !(run->session && run->kernel.linux_image && run->config.initrd)) {
        fail(run, "a command needs a Linux kernel and the default guest's initramfs");
        return false;
    }
    return true;
}

/* Linux is told where its console is; in the default guest it also skips the self-tests of its
 * cryptography, which take longer than the rest of the boot. Other kernels get exactly what
 * --append says. */
static bool make_command_line(struct run *run)
{
    const char *ours = "";

    if (run->kernel.linux_image && run->session)
        ours = run->verbose ? "console=ttyS0 cryptomgr.notests"
                            : "console=ttyS0 quiet cryptomgr.notests";
    else if (run->kernel.linux_image)
        ours = "console=ttyS0";
    if (asprintf(&run->command_line, "%s%s%s", ours, *ours && run->append ? " " : "",
                 run->append ? run->append : "") < 0) {
        run->command_line = NULL;
        fail(run, "out of memory");
        return false;
    }
    run->config.command_line = run->command_line;
    return true;
}

/* Tells our init what to run. */
static bool make_session(struct run *run)
{
    static const char *const shell[] = {"-sh", NULL};
    struct session_command command = {.mode = SESSION_PIPE, .path = "/bin/sh", .argv = shell};
    bool in = isatty(STDIN_FILENO), out = isatty(STDOUT_FILENO);
    const char *term = getenv("TERM");
    char term_variable[128];
    const char *env[MAX_ENV + 2];
    unsigned count = 0;

    if (!run->session)
        return true;
    if (run->command) {
        command.path = run->command[0];
        command.argv = (const char *const *)run->command;
        command.mode = in && out ? SESSION_TTY : SESSION_PIPE;
    } else {
        command.mode = in ? SESSION_TTY : SESSION_TYPED;
    }
    command.crlf = in && out;
    if (command.mode != SESSION_PIPE) {
        snprintf(term_variable, sizeof(term_variable), "TERM=%s",
                 in && out && term ? term : "dumb");
        env[count++] = term_variable;
    }
    for (unsigned i = 0; i < run->env_count; i++)
        env[count++] = run->env[i];
    env[count] = NULL;
    command.env = env;
    run->archive = session_archive(&command, &run->config.initrd_extra_size);
    run->config.initrd_extra = run->archive;
    if (!run->archive)
        fail(run, "out of memory");
    return run->archive != NULL;
}

static bool open_debug_console(struct run *run)
{
    if (!run->debug_path)
        return true;
    run->debug_fd = open(run->debug_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (run->debug_fd < 0)
        fail(run, "--debug-console: cannot open %s: %m", run->debug_path);
    return run->debug_fd >= 0;
}

static bool close_debug_console(struct run *run)
{
    int error = run->console ? console_debug_error(run->console) : 0;

    if (run->debug_fd >= 0 && close(run->debug_fd) && !error)
        error = errno;
    if (error)
        fail(run, "--debug-console: cannot write %s: %s", run->debug_path, strerror(error));
    return !error;
}

static bool open_trace(struct run *run)
{
    if (!run->traced)
        return true;
    run->trace = trace_create(run->trace_path, run->trace_lines);
    if (!run->trace)
        return false;
    trace_plug(run->trace, &run->config);
    return true;
}

/* --- Running it ---------------------------------------------------------------------------- */

static void show_progress(void *opaque, const char *what, int percent)
{
    progress_tick(opaque, what, percent);
}

/* Text from the guest, made harmless for a terminal. */
static void print_guest_text(const char *text)
{
    for (; *text; text++)
        if (*text == '\n' || *text == '\t' || (*text >= ' ' && *text <= '~'))
            fputc(*text, stderr);
}

static int session_ended(const struct run *run)
{
    const struct session *session = console_session(run->console);

    switch (session_state(session)) {
    case SESSION_EXITED: return run->command ? (int)session_status(session) : 0;
    case SESSION_FAILED:
        fail(run, "cannot run %s", session_failure(session));
        return (int)session_status(session);
    default:
        fail(run, "the guest's init is of another version; renew it with: %s --update initrd",
             run->files.remedy);
        return STATUS_ERROR;
    }
}

static int vm_ended(const struct run *run)
{
    const struct doppel_end *end = console_vm_end(run->console);
    const struct session *session = console_session(run->console);

    switch (end->outcome) {
    case DOPPEL_DEBUG_EXIT: return end->status & 0xff;
    case DOPPEL_CRASHED:
        fail(run, "the guest crashed (triple fault); its registers and last instructions:");
        print_guest_text(end->report);
        return STATUS_ERROR;
    case DOPPEL_FAILED: fail(run, "%s", end->report); return STATUS_ERROR;
    default: break;
    }
    if (run->session && session_state(session) == SESSION_WAITING) {
        fail(run, "the guest ended before its %s began; its last words:",
             run->command ? "command" : "shell");
        print_guest_text(console_last_lines(run->console));
        return STATUS_ERROR;
    }
    if (run->command) {
        fail(run, "the guest %s before the command ended",
             end->outcome == DOPPEL_RESET ? "reset itself" : "powered off");
        return STATUS_ERROR;
    }
    return 0;
}

/* The guest's last line hardly ended. A terminal that takes nothing does not miss it. */
static void end_line(void)
{
    struct pollfd pfd = {STDERR_FILENO, POLLOUT, 0};

    if (isatty(STDERR_FILENO) && poll(&pfd, 1, 0) > 0)
        fputc('\n', stderr);
}

static int explain(const struct run *run, enum console_end how)
{
    char reason[256];

    switch (how) {
    case CONSOLE_SESSION: return session_ended(run);
    case CONSOLE_VM_ENDED: return vm_ended(run);
    case CONSOLE_SIGNAL: return STATUS_SIGNAL + console_signal(run->console);
    case CONSOLE_PANIC:
        console_panic(run->console, reason, sizeof(reason));
        fail(run, "the guest's kernel panicked: %s", reason);
        return STATUS_ERROR;
    case CONSOLE_QUIT: end_line(); return run->command ? STATUS_ERROR : 0;
    case CONSOLE_OUTPUT: break;
    }
    return STATUS_ERROR;
}

static void print_stats(void *opaque, struct doppel_vm *vm)
{
    const struct run *run = opaque;
    struct doppel_stats stats = {0};

    doppel_stats(vm, &stats);
    stats_print(&stats, console_boot_ms(run->console), run->json);
}

/* The trace of a session is about its command or shell, else about the whole run. */
static void begin_trace(void *opaque, struct doppel_vm *vm)
{
    struct run *run = opaque;

    trace_begin(run->trace, vm);
}

/* A line of the VM's own. */
static void log_vm(void *opaque, enum doppel_log_level level, const char *text)
{
    const struct run *run = opaque;

    log_line(&run->log, (enum log_level)level, "%s", text);
}

static void log_start(const struct run *run)
{
    const struct doppel_config *config = &run->config;

    log_line(&run->log, LOG_LEVEL_INFO, "engine %s, %u vCPUs, %llu KiB, kernel %s, initrd %s",
             doppel_engine_name(config->engine), config->cpus,
             (unsigned long long)config->memory >> 10, config->kernel,
             config->initrd ? config->initrd : "none");
}

static void log_end(const struct run *run, enum console_end how)
{
    static const char *const hows[] = {
        [CONSOLE_VM_ENDED] = "the VM ended",
        [CONSOLE_QUIT] = "the user ended it",
        [CONSOLE_SIGNAL] = "a signal ended it",
        [CONSOLE_SESSION] = "the session ended",
        [CONSOLE_PANIC] = "the guest's kernel panicked",
        [CONSOLE_OUTPUT] = "standard output cannot be written",
    };

    log_line(&run->log, LOG_LEVEL_INFO, "%s", hows[how]);
}

static int run_vm(struct run *run)
{
    struct doppel_error err = {0};
    struct doppel_vm *vm = doppel_create(&run->config, &err);
    enum console_end how;
    char what[160];
    int status = STATUS_ERROR;

    if (vm && !run->session)
        trace_begin(run->trace, vm);
    if (vm && doppel_start(vm, &err)) {
        doppel_destroy(vm);
        vm = NULL;
    }
    if (!vm) {
        progress_end(&run->progress);
        console_restore(run->console);
        fail(run, "%s", err.text);
        return STATUS_ERROR;
    }
    snprintf(what, sizeof(what), "booting %s", run->kernel.release[0] ? run->kernel.release : "");
    progress_tick(&run->progress, what, -1);
    log_line(&run->log, LOG_LEVEL_INFO, "the guest runs");
    how = console_run(run->console, vm);
    console_restore(run->console);
    log_end(run, how);
    trace_end(run->trace, vm);
    status = explain(run, how);
    if (run->stats)
        print_stats(run, vm);
    doppel_destroy(vm);
    console_forget(run->console);
    return status;
}

static int prepare_and_run(struct run *run)
{
    struct console_config console = {0};

    if (!choose_guest(run) || !make_command_line(run) || !make_session(run) ||
        !open_debug_console(run) || !open_trace(run))
        return STATUS_ERROR;
    console.channel = run->channel;
    console.session = run->session;
    console.session_input = !run->command;
    console.verbose = run->verbose;
    console.raw = isatty(STDIN_FILENO) && (!run->command || isatty(STDOUT_FILENO));
    console.crlf = console.raw && isatty(STDOUT_FILENO);
    console.debug_fd = run->debug_fd;
    console.progress = &run->progress;
    console.on_session = begin_trace;
    console.on_usr1 = run->stats ? print_stats : NULL;
    console.opaque = run;
    log_start(run);
    progress_begin(&run->progress, "preparing the guest");
    run->console = console_create(&console);
    if (!run->console)
        return STATUS_ERROR;
    console_plug(run->console, &run->config);
    run->config.log = log_vm;
    run->config.log_opaque = run;
    run->config.progress = show_progress;
    run->config.progress_opaque = &run->progress;
    return run_vm(run);
}

/* In the VM process. */
static int run_supervised(void *opaque, const struct channel *channel)
{
    struct run *run = opaque;
    int status;

    run->channel = channel;
    run->log = channel_log(channel);
    status = prepare_and_run(run);
    /* The console's attendant hears the user until all that may wait for a file is done. */
    if (!close_debug_console(run) && status == 0)
        status = STATUS_ERROR;
    if (!trace_destroy(run->trace) && status == 0)
        status = STATUS_ERROR;
    console_destroy(run->console);
    free(run->archive);
    free(run->command_line);
    return status;
}

int cmd_run(char **argv)
{
    struct run run = {.trace_lines = 100000, .debug_fd = -1};
    int status;

    doppel_config_init(&run.config);
    run.config.devices = run.devices;
    if (!parse(&run, argv, &status))
        return status;
    return supervise(&run.supervisor, run_supervised, &run);
}
